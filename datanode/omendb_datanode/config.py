"""Every setting of a data node beside those of its engine, with its unit, bound and reason; set in the environment."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from omendb_common.settings import MIB, check_value, setting


@dataclass(frozen=True, slots=True)
class DataNodeSettings:
    """How much a data node takes on at a time; a setting's unit ends its name."""

    read_threads: int = setting(0, "threads that search and look up; 0: two more than there are cores", low=0, high=512)
    write_threads: int = setting(0, "threads that write, one for a replica at a time; 0: one a core", low=0, high=512)
    reads_max: int = setting(
        1024, "reads that run or wait; more are refused with a time to come back", low=1, high=1_000_000
    )
    writes_max: int = setting(
        4096, "writes that wait for one replica; more are refused with a time to come back", low=1, high=1_000_000
    )
    write_bytes_max: int = setting(256 * MIB, "bytes of the batches that wait for one replica", low=MIB, high=1 << 40)
    loop_lag_max_s: float = setting(
        1.0,
        "when the event loop runs so late, new reads and writes are refused until it does not",
        low=0.05,
        high=600.0,
    )
    drain_s: float = setting(10.0, "time for calls under way to end after SIGTERM", low=0.0, high=600.0)
    recall_sample_share: float = setting(
        0.001,
        "share of searches that are made again exactly, in the background, to see what part of the true neighbours "
        "searches find (omendb_recall_at_10); 0: none",
        low=0.0,
        high=1.0,
    )
    recall_time_share: float = setting(
        0.01, "share of one core's time that this takes at most: an exact search compares all", low=0.0001, high=1.0
    )
    reopen_s: float = setting(5.0, "how often a replica that could not be opened is tried again", low=0.05, high=3600.0)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_value(field, getattr(self, field.name), field.name)


@dataclass(frozen=True, slots=True)
class RepairSettings:
    """How the replicas of a shard are kept equal behind everybody's back; a setting's unit ends its name."""

    settle_s: float = setting(
        30.0, "younger records are not compared: they may still be on their way", low=0.0, high=86_400.0
    )
    interval_s: float = setting(
        600.0, "how often the replicas of every shard are compared, when nothing else asks for it", low=0.1, high=1e6
    )
    retry_s: float = setting(
        10.0, "a comparison that failed is tried again after so long, then after twice as long", low=0.01, high=3600.0
    )
    rounds: int = setting(2, "shards that a node looks after at a time", low=1, high=64)
    agree_s: float = setting(
        1.0,
        "how often replicas of a shard that is written to are asked for their root, so that a search at a quorum runs "
        "on one of them alone; a tenth as often where nothing was written",
        low=0.01,
        high=1e6,
    )
    agree_lag_s: float = setting(
        0.5,
        "how old a write is when roots shall show it: younger ones are on their way; longer by itself where they take "
        "longer",
        low=0.0,
        high=3600.0,
    )
    check_s: float = setting(
        86_400.0,
        "how often what is remembered and stored of a hash tree is held against all records; the first time after a "
        "start anywhere within that",
        low=1.0,
        high=1e9,
    )
    scrub_s: float = setting(
        86_400.0,
        "how often every byte of a replica's segments is read again, for what has rotted on the disk",
        low=0.1,
        high=1e9,
    )
    scrub_bytes_per_s: int = setting(
        128 * MIB,
        "how fast they are read again: a disk that gives all it has to this has nothing left for searches and writes; "
        "at once, as fast as it goes, where a call met damage",
        low=1024,
        high=1 << 40,
    )
    bytes_per_s: int = setting(
        32 * MIB, "records that a node sends to bring replicas together, all exchanges together", low=1024, high=1 << 40
    )
    clients_share: float = setting(
        0.25,
        "share of the time for which replicas are brought together beside calls of clients; the rest belongs to these, "
        "and where nobody calls nothing is waited for",
        low=0.01,
        high=1.0,
    )
    batch_rows: int = setting(1000, "records sent at a time", low=1, high=100_000)
    batch_bytes: int = setting(4 * MIB, "bytes of records sent at a time, about", low=1024, high=256 * MIB)
    call_timeout_s: float = setting(
        60.0,
        "time for one question: where segments of an earlier release have no digests, the first one after a start "
        "reads all their vectors",
        low=0.1,
        high=3600.0,
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_value(field, getattr(self, field.name), field.name)


__all__ = ["DataNodeSettings", "RepairSettings"]
