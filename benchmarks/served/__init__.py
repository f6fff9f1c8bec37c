"""OmenDB as a server beside other servers: their processes, their clients, the worker, the report."""
