"""The Raft group under simulated faults: the real core and its real files, every schedule from one seed."""
