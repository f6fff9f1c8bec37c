"""Which shard should split now because of its size, and which splits should be given up. Pure.

A shard splits when its largest replica has passed a bound, one shard at a time, never while one of its replicas moves
or is not well: every node that holds one must make its halves. A split keeps moves away from its shard, so one that
waits for a node that stays away ends without its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from omendb_common.ring import SHARDS_MAX
from omendb_common.topology import CollectionInfo, Member, ReplicaSize, Shard, Topology
from omendb_coordinator.moves import Silent, Step

Sizes = Mapping[tuple[str, int], ReplicaSize]
"""By collection and shard: the most that a node told of its replica."""


@dataclass(frozen=True, slots=True)
class SplitLimits:
    """From which size on a shard splits, 0: never; and how long a node may be down before its shards stop waiting."""

    rows: int
    size: int
    rereplicate_s: float


def plan_splits(topology: Topology, silent: Silent, sizes: Sizes, limits: SplitLimits) -> list[Step]:
    """What is due now: splits to give up, else at most one to begin, that of the shard furthest above its bound."""
    shards = [(info, shard) for _, info in sorted(topology.collections.items()) for shard in info.shards]
    steps = [
        Step("cancel_split", info.schema.uuid, shard.shard_id, shard.epoch, why=why)
        for info, shard in shards
        if (why := _hopeless(topology.members, shard, silent, limits))
    ]
    if steps or topology.moves_paused or any(shard.recut is not None for _, shard in shards):
        return steps
    found = [(_excess(info, shard, sizes, limits), info, shard) for info, shard in shards]
    due = [one for one in found if one[0] > 1 and may_split(topology.members, one[1], one[2])]
    if not due:
        return []
    excess, info, shard = max(due, key=lambda one: one[0])
    return [Step("begin_split", info.schema.uuid, shard.shard_id, shard.epoch, why=f"{excess:.2f} of its bound")]


def largest(told: Iterable[Mapping[tuple[str, int], ReplicaSize]]) -> dict[tuple[str, int], ReplicaSize]:
    """Of what several nodes told, the most of each shard; of its load that of the replica with most to do."""
    most: dict[tuple[str, int], ReplicaSize] = {}
    for sizes in told:
        for key, one in sizes.items():
            known = most.get(key, one)
            load = max(one.load, known.load, key=lambda told: -1.0 if told is None else told.divides)
            most[key] = ReplicaSize(*key, max(one.rows, known.rows), max(one.size, known.size), load)
    return most


def _hopeless(members: Mapping[str, Member], shard: Shard, silent: Silent, limits: SplitLimits) -> str:
    return "" if shard.split is None else absent(members, shard, silent, limits.rereplicate_s)


def absent(members: Mapping[str, Member], shard: Shard, silent: Silent, patience_s: float) -> str:
    """Which node of a shard is not to be waited for any longer, in words; empty when there is none."""
    for place in shard.replicas:
        member = members.get(place.node_id)
        if member is None or (member.state in ("down", "left") and silent(member) >= patience_s):
            return f"{place.node_id} is down"
    return ""


def _excess(info: CollectionInfo, shard: Shard, sizes: Sizes, limits: SplitLimits) -> float:
    """How many times its bound a shard is large."""
    told = sizes.get((info.schema.uuid, shard.shard_id))
    if told is None:
        return 0.0
    rows = told.rows / limits.rows if limits.rows else 0.0
    return max(rows, told.size / limits.size if limits.size else 0.0)


def may_split(members: Mapping[str, Member], info: CollectionInfo, shard: Shard) -> bool:
    """Whether a split may begin and every node that must do its part is there."""
    up = all(r.node_id in members and members[r.node_id].state == "up" for r in shard.replicas)
    well = all(r.state == "active" for r in shard.replicas) and shard.move is None and shard.recut is None
    return up and well and len(info.shards) < SHARDS_MAX and shard.high - shard.low > 1


__all__ = ["Sizes", "SplitLimits", "absent", "largest", "may_split", "plan_splits"]
