"""One shard replica, one folder: storage, indexes and queries, with no network in it."""
