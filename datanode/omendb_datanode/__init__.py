"""The data node: the process that hosts replicas and answers routers."""
