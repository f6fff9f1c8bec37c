"""The backend across a network: routers, or a single-node server, over gRPC.

Nothing here is imported before ``omendb.Client`` is called; grpcio comes with the extra ``omendb[client]``.
"""
