"""Which shard should split now because of what clients' calls cost its replicas.

One that has more to do than its bound without a pause for long, of which no half would be left with little: work that
both halves would have to do whole does not count, nor does a shard split of which one place has most of the work. And
only where there is a node for a half to go to: side by side on the same nodes the halves are no quicker than the whole.

So splits by load come to an end, whatever the load: each half has at least ``LESSER_LEAST`` of what was above the
bound. Merges ask for both bounds (see ``merges``): what has split stays split while its load lasts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from omendb_common.topology import CollectionInfo, ReplicaLoad, ReplicaSize, Shard, Topology
from omendb_coordinator.moves import Step
from omendb_coordinator.placement import candidates
from omendb_coordinator.splits import Sizes, may_split

LESSER_LEAST = 0.25
"""The half with less to do must have so much of it, or the split is not worth what it costs."""

ROWS_LEAST = 1000
"""Each half must have so many points, as its share of the ring says: fewer are searched sooner than asked for."""


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """From how many processors on a shard splits, 0: never for that; and how long it must have had that much to do."""

    bound: float
    after_s: float
    lesser_least: float = LESSER_LEAST
    rows_least: int = ROWS_LEAST


class Busy(NamedTuple):
    """A shard above its bound: since when without a pause, and what keeps it from splitting, if anything does."""

    collection: str
    shard_id: int
    load: float
    since_s: float
    kept: str


class LoadSplits:
    """Plans splits. It remembers since when which shard is busy, for as long as it is asked again and again."""

    def __init__(self, limits: LoadLimits) -> None:
        self._limits = limits
        self._since: dict[tuple[str, int], float] = {}

    def forget(self) -> None:
        """What was seen is too old: this member did not lead meanwhile."""
        self._since.clear()

    def busy(self, topology: Topology, sizes: Sizes, now_s: float) -> list[Busy]:
        """The shards above their bound, the busiest first."""
        found = [
            Busy(
                *(info.name, shard.shard_id, load.divides, self._since.get(key, now_s)),
                self._keeps(topology, info, shard, told, load),
            )
            for key, info, shard, told, load in self._above(topology, sizes)
        ]
        return sorted(found, key=lambda one: -one.load)

    def plan(self, topology: Topology, sizes: Sizes, now_s: float) -> list[Step]:
        """The split that is due now, if one is: that of the busiest shard."""
        above = list(self._above(topology, sizes))
        self._since = {key: self._since.get(key, now_s) for key, *_ in above}
        if topology.moves_paused or any(s.recut for c in topology.collections.values() for s in c.shards):
            return []
        due = [
            (load, info, shard)
            for key, info, shard, told, load in above
            if now_s - self._since[key] >= self._limits.after_s
            and not self._keeps(topology, info, shard, told, load)
            and may_split(topology.members, info, shard)
        ]
        if not due:
            return []
        load, info, shard = max(due, key=lambda one: one[0].divides)
        why = f"{load.divides:.2f} processors, at most {self._limits.bound:.2f}"
        return [Step("begin_split", info.schema.uuid, shard.shard_id, shard.epoch, why=why, at=load.cut)]

    def _above(self, topology: Topology, sizes: Sizes) -> Iterator[_Above]:
        if not self._limits.bound:
            return
        for _, info in sorted(topology.collections.items()):
            for shard in info.shards:
                key = info.schema.uuid, shard.shard_id
                told = sizes.get(key)
                if told is not None and told.load is not None and told.load.divides > self._limits.bound:
                    yield _Above(key, info, shard, told, told.load)

    def _keeps(
        self, topology: Topology, info: CollectionInfo, shard: Shard, told: ReplicaSize, load: ReplicaLoad
    ) -> str:
        """Why a split of a shard would not help, in words; empty when it would."""
        here = {place.node_id for place in shard.replicas}
        if all(member.node_id in here for member in candidates(topology.members.values())):
            return "there is no other data node"
        if load.lesser < self._limits.lesser_least or not shard.low < load.cut < shard.high:
            return "one place of the ring has most of it"
        narrower = min(load.cut - shard.low, shard.high - load.cut) / (shard.high - shard.low)
        if told.rows * narrower < self._limits.rows_least:
            return "it has too few points"
        return ""


class _Above(NamedTuple):
    key: tuple[str, int]
    info: CollectionInfo
    shard: Shard
    told: ReplicaSize
    load: ReplicaLoad


__all__ = ["LESSER_LEAST", "ROWS_LEAST", "Busy", "LoadLimits", "LoadSplits"]
