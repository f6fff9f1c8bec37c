"""The coordinator: a Raft group that agrees on schemas, shard maps and members."""
