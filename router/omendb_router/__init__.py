"""The router: stateless; stamps writes, fans them out, merges what is read, and speaks REST and gRPC."""
