"""The write-ahead log: checksummed, chained records in zero-filled segments."""
