"""Which neighbouring shards should become one now, and which merges should be given up.

Two merge when both together are small against the bounds at which a shard splits, that of its load as those of its
size, and were for a while: far below them, so that what merged does not split again soon, and what split for its load
stays split while that lasts. They must stand on the same nodes, all of which are there; and no
collection gets fewer shards than it had before splits made more of them. One pair merges at a time, and none while a
shard splits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from omendb_common.topology import CollectionInfo, ReplicaSize, Shard, Topology
from omendb_coordinator.merge_changes import unfit
from omendb_coordinator.moves import Silent, Step
from omendb_coordinator.split_changes import MERGES
from omendb_coordinator.splits import Sizes, SplitLimits, absent


@dataclass(frozen=True, slots=True)
class MergeLimits:
    """Below which share of the bounds of a split two shards merge, after how long; ``share`` 0: none by itself.

    ``load``: the bound of a split in processors, 0: none. ``margin``: see ``merge_changes.begin_merge``, as a
    difference of stamps.
    """

    split: SplitLimits
    share: float
    after_s: float
    margin: int
    load: float = 0.0


class Pair(NamedTuple):
    """Two shards of a collection, as they were looked at."""

    uuid: str
    low_id: int
    high_id: int


class Merges:
    """Plans merges. It remembers since when which pair is small, for as long as it is asked again and again."""

    def __init__(self, limits: MergeLimits) -> None:
        self._limits = limits
        self._since: dict[Pair, float] = {}

    def forget(self) -> None:
        """What was seen is too old: this member did not lead meanwhile."""
        self._since.clear()

    def plan(self, topology: Topology, silent: Silent, sizes: Sizes, now_s: float) -> list[Step]:
        """What is due now: merges to give up, else at most one to begin, that of the smallest pair."""
        patience_s = self._limits.split.rereplicate_s
        steps = [
            Step("cancel_merge", info.schema.uuid, low.shard_id, low.epoch, why=why)
            for info, low, _ in _neighbours(topology)
            if _is_low(low) and (why := absent(topology.members, low, silent, patience_s))
        ]
        small = dict(self._small(topology, sizes))
        self._since = {pair: self._since.get(pair, now_s) for pair in small}
        if steps or topology.moves_paused or any(s.recut for c in topology.collections.values() for s in c.shards):
            return steps
        due = [pair for pair, since_s in self._since.items() if now_s - since_s >= self._limits.after_s]
        due = [pair for pair in due if small[pair].fits]
        return [small[min(due, key=lambda pair: (small[pair].share, pair))].step] if due else []

    def _small(self, topology: Topology, sizes: Sizes) -> Iterator[tuple[Pair, _Small]]:
        if not self._limits.share or topology.feature_level < MERGES:
            return
        for info, low, high in _neighbours(topology):
            told = [sizes.get((info.schema.uuid, one.shard_id)) for one in (low, high)]
            if not 0 < info.shards_least < len(info.shards) or None in told:
                continue
            share = self._share([one for one in told if one is not None])
            if share is not None and share < self._limits.share:
                pair = Pair(info.schema.uuid, low.shard_id, high.shard_id)
                other = high.shard_id, high.epoch
                why = f"both are {share:.2f} of a split's bound"
                step = Step("begin_merge", info.schema.uuid, low.shard_id, low.epoch, why=why, other=other)
                members = [topology.members.get(r.node_id) for r in low.replicas]
                up = all(member is not None and member.state == "up" for member in members)
                yield pair, _Small(share, step, up and not unfit(info, low, high, self._limits.margin))

    def _share(self, told: list[ReplicaSize]) -> float | None:
        """How much of the bounds of a split shards are together; None when there is no bound, or it is not known."""
        split, load = self._limits.split, self._limits.load
        shares = []
        if split.rows:
            shares.append(sum(one.rows for one in told) / split.rows)
        if split.size:
            shares.append(sum(one.size for one in told) / split.size)
        if shares and load:
            loads = [one.load for one in told]
            known = [one.divides for one in loads if one is not None]
            if len(known) < len(loads):
                return None  # of a node of an older release, or begun in this minute
            shares.append(sum(known) / load)
        return max(shares, default=None)


class _Small(NamedTuple):
    share: float
    step: Step
    fits: bool


def _neighbours(topology: Topology) -> Iterator[tuple[CollectionInfo, Shard, Shard]]:
    for _, info in sorted(topology.collections.items()):
        for low, high in pairwise(info.shards):
            yield info, low, high


def _is_low(shard: Shard) -> bool:
    return shard.merge is not None and shard.merge.low_id == shard.shard_id


__all__ = ["MergeLimits", "Merges", "Pair"]
