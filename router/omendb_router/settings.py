"""Every setting of a router, with its unit, bound and reason."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from omendb_common.settings import MIB, check_value, setting


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """How long a router waits, how much it takes on, and when it gives up; a setting's unit ends its name."""

    requests_max: int = setting(
        1024, "requests at work at a time; more of them only wait inside instead of outside", low=1, high=1_000_000
    )
    requests_per_collection_max: int = setting(
        512, "of them for one collection, so that a busy one leaves room for the others", low=1, high=1_000_000
    )
    queue_max: int = setting(
        2048, "requests that wait for their turn; one more is refused with a time to come back", low=0, high=1_000_000
    )
    queue_per_collection_max: int = setting(1024, "of them for one collection", low=0, high=1_000_000)
    request_bytes_max: int = setting(
        2048 * MIB, "bytes of all writes at work or waiting for the replicas that they need", low=MIB, high=1 << 50
    )
    in_flight_per_node_max: int = setting(
        512, "calls that wait for one data node; above it the node counts as overloaded", low=1, high=1_000_000
    )
    in_flight_bytes_per_node_max: int = setting(
        256 * MIB,
        "bytes of writes on their way to one data node; a slow one misses some rather than filling the router's memory",
        low=MIB,
        high=1 << 40,
    )
    hedge_ms: float = setting(
        50.0, "a read that takes longer asks a second replica, until the 95th percentile is known", low=0.1, high=60_000
    )
    retry_percent: float = setting(
        10.0, "retries and hedges per hundred requests, so that they never multiply the load", low=0.0, high=100.0
    )
    circuit_failures: int = setting(
        5, "failures in a row after which a data node is left alone for a while", low=1, high=1000
    )
    circuit_open_ms: float = setting(
        100.0, "how long, at first; it doubles with every failed trial, up to circuit_open_max_ms", low=1, high=60_000
    )
    circuit_open_max_ms: float = setting(5000.0, "the longest a node is left alone", low=1, high=600_000)
    timeout_is_failure_ms: float = setting(
        500.0,
        "a call with at least this much time that brought no answer counts as a failure of the node",
        low=1,
        high=600_000,
    )
    restamps_max: int = setting(
        3, "how often a write whose stamp lost to a newer one is stamped again", low=0, high=100
    )
    claim_rounds_max: int = setting(
        16, "how often a write on condition begins anew because others claim the same points", low=1, high=1000
    )
    waive_timeout_s: float = setting(
        30.0, "how long replicas are told that a claim was given up, which keeps older writes out", low=0.1, high=3600
    )
    map_refreshes_max: int = setting(
        4, "how often one request asks for a newer shard map before it gives up", low=1, high=100
    )
    retry_pause_ms: float = setting(
        10.0, "mean pause before a write is sent again; doubled each time, with jitter", low=0.0, high=10_000
    )
    search_once: bool = setting(
        True,
        "whether one replica of a quorum runs the whole search and the others look only at what is not proven to be "
        "equal; false: all run the whole one",
    )
    verify_rounds_max: int = setting(
        3, "rounds of asking the replicas that did not return a hit, before asking for more hits", low=1, high=100
    )
    lookup_ids_max: int = setting(
        65_536, "ids asked of a replica in one call; more are asked in several", low=1, high=131_072
    )
    answer_bytes_max: int = setting(
        64 * MIB,
        "vectors asked of a replica in one call: what one frame and one queue shall hold",
        low=MIB,
        high=1 << 30,
    )
    delete_rows_max: int = setting(
        65_536, "points per write of a filtered delete: bounds what one log record holds", low=1, high=10_000_000
    )
    clock_offset_ms_max: float = setting(
        500.0,
        "clock offset that the cluster stands; a router four fifths of it ahead stops stamping",
        low=1,
        high=60_000,
    )
    lease_ahead_ms: float = setting(
        3_600_000.0,
        "how far ahead stamps are leased: so long writes go on while no coordinator answers",
        low=0.0,
        high=86_400_000,
    )
    auto_ids: str = setting(
        "lease",
        "lease: automatic ids come from the origin's lease; replica: from the one replica's counter, for a router "
        "that is the only writer of its shards",
        choices=("lease", "replica"),
        told=False,
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_value(field, getattr(self, field.name), field.name)


__all__ = ["RouterSettings"]
