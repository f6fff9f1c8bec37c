"""How the replicas of a shard are kept equal without anybody reading or writing (P12, P13)."""
