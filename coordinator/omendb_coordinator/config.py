"""Every setting of a coordinator, with its unit, bound and reason; each may be set in the environment."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from omendb_common.errors import InvalidArgumentError
from omendb_common.settings import MIB, check_value, setting


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    """How patient a coordinator is, and how much it takes on; a setting's unit ends its name."""

    suspect_s: float = setting(
        3.0, "a member not heard for so long is suspect: routers prefer others", low=0.1, high=600.0
    )
    down_s: float = setting(
        10.0, "not heard for so long it is down: nothing is sent to it any more", low=0.2, high=3600.0
    )
    grace_s: float = setting(
        10.0, "a new leader takes nobody for silent before so long, at least down_s", low=0.2, high=3600.0
    )
    decide_s: float = setting(0.5, "how often the leader looks who has fallen silent", low=0.01, high=60.0)
    stall_s: float = setting(
        2.0, "a leader that stood still for so long blames itself for the silence, not the members", low=0.1, high=600.0
    )
    forget_s: float = setting(
        3600.0,
        "a router that is down for so long is no member any more: it holds nothing, and pods come under new names",
        low=1.0,
        high=1e9,
    )
    proposal_s: float = setting(5.0, "time for a change when its caller names no deadline", low=0.1, high=600.0)
    proposals_max: int = setting(
        256, "changes under way at a time; more are refused with a time to come back", low=1, high=100_000
    )
    placements_max: int = setting(
        8, "how often a collection is placed anew because members changed meanwhile", low=1, high=1000
    )
    repaired_step_s: float = setting(
        60.0,
        "up to when a shard's replicas are known to be equal is kept in steps of so much: each is an entry of the log",
        low=0.0,
        high=86_400.0,
    )
    gc_grace_s: float = setting(
        3600.0,
        "deletions are forgotten so long before all replicas were last found equal: writes that come later are refused",
        low=0.0,
        high=1e9,
    )
    watch_keepalive_s: float = setting(
        1.0, "a watch on which nothing happens is told so this often", low=0.05, high=60.0
    )
    leaderless_s: float = setting(
        3.0, "a coordinator that knows no leader for so long sends its followers to another one", low=0.1, high=600.0
    )
    watchers_max: int = setting(4096, "watches at a time; more are refused", low=1, high=1_000_000)
    topologies_kept: int = setting(
        64,
        "a follower at most so many changes behind is sent the difference, any other the whole",
        low=1,
        high=100_000,
    )
    rereplicate_s: float = setting(
        900.0, "a data node that is down for so long has its replicas made anew elsewhere", low=1.0, high=1e9
    )
    moves_max: int = setting(2, "replicas on their way at a time; 0: none begins by itself", low=0, high=10_000)
    moves_per_node_max: int = setting(
        1, "of them to one node: filling a replica takes disk and network", low=1, high=1000
    )
    balance_difference: int = setting(
        2,
        "from so many replicas more than on the emptiest node, for its capacity, the fullest one gives one away",
        low=2,
        high=1_000_000,
    )
    balance_load: float = setting(
        0.25,
        "a replica on which calls take so many processors goes from a node that is busy with such replicas to one that "
        "stays that much cooler with it; 0: loads move nothing",
        low=0.0,
        high=1024.0,
    )
    balance_load_after_s: float = setting(
        600.0,
        "for so long without a pause that must have been so: moving a replica takes disk and network",
        low=0.0,
        high=1e9,
    )
    split_rows: int = setting(
        20_000_000, "a shard with more points splits in two; 0: none does for its points", low=0, high=1 << 40
    )
    split_bytes: int = setting(
        65_536 * MIB,
        "a shard whose replica is larger on disk splits in two; 0: none does for that",
        low=0,
        high=1 << 50,
    )
    split_load: float = setting(
        0.5,
        "a shard whose writes and gets take more processors than that on a node splits in two where its work lies, "
        "if there is another node for a half; a process has hardly more than one for them; 0: none does for its load",
        low=0.0,
        high=1024.0,
    )
    split_load_after_s: float = setting(
        600.0,
        "for so long without a pause a shard must have that much to do: a burst is over before a split would help",
        low=0.0,
        high=1e9,
    )
    merge_share: float = setting(
        0.25,
        "two neighbouring shards that a split made, on the same nodes, which together have less than this share of "
        "split_rows, split_bytes and split_load become one again; a half would split again at once; 0: none do by "
        "themselves",
        low=0.0,
        high=0.5,
    )
    merge_after_s: float = setting(
        3600.0,
        "for so long two shards must be that small and idle: what is full or busy by day alone stays apart",
        low=0.0,
        high=1e9,
    )
    drain_s: float = setting(2.0, "time for calls under way to end after SIGTERM", low=0.0, high=600.0)
    raft_heartbeat_s: float = setting(0.1, "how often the leader is heard by the other members", low=0.005, high=10.0)
    raft_election_min_s: float = setting(
        0.5, "a leader silent for so long may be replaced; at least three heartbeats", low=0.02, high=60.0
    )
    raft_election_max_s: float = setting(
        1.0, "and for so long is; the spread keeps two members from standing at once", low=0.03, high=120.0
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_value(field, getattr(self, field.name), field.name)
        if not self.suspect_s < self.down_s <= self.grace_s:
            raise InvalidArgumentError(
                f"got {self.suspect_s}, {self.down_s}, {self.grace_s}",
                field="suspect_s, down_s, grace_s",
                bound="suspect_s < down_s <= grace_s",
            )


__all__ = ["CoordinatorSettings"]
