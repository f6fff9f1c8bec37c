"""The wire contract: protobuf messages and services, and what is generated from them."""
