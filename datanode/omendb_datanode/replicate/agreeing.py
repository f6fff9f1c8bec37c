"""Has the replicas of a shard agree: so often that a search at a quorum need run on one of them alone (P23).

Nothing is repaired here and nothing written down. Of a shard's nodes the first that is up asks all for the root of
their hash tree through a stamp of a moment ago; those that give the same one are told so. Two that agree are enough for
each other. Whatever else happens, what was once agreed on stays true while they are open: a round that finds the roots
to differ, or that never ends, costs nothing but the time.

Where roots differ they are asked for through an older stamp, too, as soon as anything that was not agreed on is so old
that it should have arrived everywhere: a replica that missed a write while it was up is known of a moment after that,
by whomever the write was sent and whether he still lives. Whoever brings replicas together is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import OmenDBError
from omendb_common.metadata import TopologySource
from omendb_common.shard_calls import MAX_AHEAD_MS, DataNode, Maintain, Summed, Sums, Verdict
from omendb_common.wire.unending import Unending
from omendb_datanode.config import RepairSettings
from omendb_datanode.hosting import OpenShard
from omendb_datanode.node_folder import ReplicaKey
from omendb_datanode.replicate.exchange import in_time, settled_stamp
from omendb_datanode.replicate.peers import Peers
from omendb_engine.replica import Replica

_log = logging.getLogger(__name__)

IDLE_TIMES = 10
"""Where nothing was written since all agreed, they are asked so many times more seldom: one may have been restarted."""
WORK_TIMES = 3
"""Between two rounds of a shard lie at least so many times what one took, most of which it waits for others."""
LAG_MAX_S = 30.0
ANSWER_S_MAX = 10.0
"""For so long one that stands still keeps the others from agreeing, until it is known to be down."""

C = TypeVar("C")
A = TypeVar("A")


@dataclass(slots=True)
class _Known:
    """What is known of one replica's rounds. ``lsn``: what it had applied when all agreed last, through ``through``.

    ``places``: what the others had applied when all agreed last, as they told it; ``seen``: above all stamps of
    that, when it was first told. ``agreed``: the newest stamp that all ever agreed on.
    """

    replica: Replica
    due_s: float
    lag_s: float
    lsn: int = -1
    through: int = 0
    places: frozenset[tuple[int, int]] = frozenset()
    seen: int = 0
    agreed: int = 0


class Agreeing:
    """Makes such rounds for one node. Belongs to one event loop.

    Args:
        here: the rules of this node.
        opened: the open replicas of this node, with their maps.
        missing: told of a replica here when some replica of its shard lacks what it should have by now.
    """

    def __init__(
        self,
        node_id: str,
        here: DataNode,
        peers: Peers,
        opened: Callable[[], Sequence[OpenShard]],
        source: TopologySource,
        clock: Clock,
        settings: RepairSettings,
        missing: Callable[[OpenShard], None] = lambda _: None,
    ) -> None:
        self._node_id = node_id
        self._here = here
        self._peers = peers
        self._opened = opened
        self._source = source
        self._clock = clock
        self._settings = settings
        self._missing = missing
        self._known: dict[ReplicaKey, _Known] = {}
        self._work: Unending | None = None
        self.counts: Counter[str] = Counter()

    def start(self) -> None:
        """Begin; the replicas are open."""
        self._work = Unending(self.look_after, "agreements")

    async def stop(self) -> None:
        """End what is under way; what was agreed on stays."""
        if self._work is not None:
            await self._work.stop()

    async def look_after(self) -> None:
        """Make rounds as they are due, one after the other, for ever."""
        while True:
            for opened, known in self._due():
                began_s = self._clock.mono_s()
                try:
                    all_agree = await self.make(opened, known)
                except OmenDBError as error:
                    _log.info("agreement of %s: %s", opened.key.name, error)
                    all_agree = False
                now_s = self._clock.mono_s()
                pause_s = max(self._settings.agree_s, WORK_TIMES * (now_s - began_s))
                idle = all_agree and known.lsn == opened.hosted.replica.snapshot().lsn
                known.due_s = now_s + pause_s * (IDLE_TIMES if idle else 1)
            await asyncio.sleep(self._settings.agree_s / 4)

    def _due(self) -> list[tuple[OpenShard, _Known]]:
        """The shards that this node looks after and whose turn it is."""
        now_s = self._clock.mono_s()
        found = []
        mine = [one for one in self._opened() if len(one.shard.replicas) > 1 and self._leads(one)]
        self._known = {one.key: self._of(one, now_s) for one in mine}
        for opened in mine:
            known, replica = self._known[opened.key], opened.hosted.replica
            if replica.closed or replica.failed:
                continue
            # A write after a while of rest is agreed on soon, not at the end of a long pause.
            rested = known.lsn >= 0 and replica.snapshot().lsn != known.lsn
            if now_s >= known.due_s or (rested and known.due_s - now_s > self._settings.agree_s):
                found.append((opened, known))
        return found

    def _of(self, opened: OpenShard, now_s: float) -> _Known:
        known = self._known.get(opened.key)
        replica = opened.hosted.replica
        if known is None or known.replica is not replica:
            known = _Known(replica, now_s, self._settings.agree_lag_s)
        return known

    def _leads(self, opened: OpenShard) -> bool:
        members = self._source.topology.members
        up = [n for n in opened.shard.nodes("active") if (m := members.get(n)) is not None and m.state == "up"]
        return bool(up) and up[0] == self._node_id

    async def make(self, opened: OpenShard, known: _Known) -> bool:
        """One round; whether all replicas of the shard that are up agreed.

        Raises:
            OmenDBError: the replica here could not be asked.
        """
        differed = self.counts["differed"]
        all_agree = await self._agree(opened, known)
        if self.counts["differed"] > differed:
            await self._look_back(opened, known)
        return all_agree

    async def _agree(self, opened: OpenShard, known: _Known) -> bool:
        replica = opened.hosted.replica
        lsn = replica.snapshot().lsn
        # Where nothing came since, the same stamp tells as much, and each has its tree already.
        through = known.through if lsn == known.lsn else settled_stamp(self._clock, known.lag_s)
        floor = replica.maintenance.gc_floor
        call = Sums(opened.ref, through, floor, 0, np.zeros(1, np.int64), fresh=True, agree=True)
        here, told = await self._roots(opened, call)
        same = [(node, root) for node, root in told if root is not None and _same(root, here)]
        if any(root is not None and not _same(root, here) for _, root in told):
            self._differ(known)
        if not same:
            return False
        roots = [here, *(root for _, root in same)]
        found = tuple(root.opening for root in roots), tuple(root.lsn for root in roots)
        note = Maintain(opened.ref, "note_agreed", through, *found)
        await asyncio.gather(*(self._noted(node, note) for node in (self._here, *(node for node, _ in same))))
        if len(same) < len(told):
            known.lsn = -1
            return False
        self.counts["agreed"] += 1
        known.lag_s = max(known.lag_s / 2, self._settings.agree_lag_s)
        # Only what was there before the tree was made, and is older than the stamp, is all in it.
        quiet = replica.snapshot().lsn == lsn and replica.newest_stamp <= through
        # Nor may others have what this one has not: all that they have is older than the stamp.
        places = frozenset((root.opening, root.lsn) for _, root in same)
        if places != known.places:
            # No clock is trusted further than replicas trust it that take writes.
            known.places, known.seen = places, settled_stamp(self._clock, -MAX_AHEAD_MS / 1000)
        quiet = quiet and through >= known.seen
        known.lsn, known.through, known.agreed = (lsn if quiet else -1), through, max(known.agreed, through)
        return True

    async def _roots(self, opened: OpenShard, call: Sums) -> tuple[Summed, list[tuple[DataNode, Summed | None]]]:
        """The root here and those of others; None for one that gives none."""
        here = await self._in_time(self._here.sums, call)
        if here.verdict is not Verdict.OK:
            raise here.error or OmenDBError(here.verdict.name)
        others = await self._others(opened)
        told = await asyncio.gather(*(self._asked(node, call) for node in others))
        return here, list(zip(others, told, strict=True))

    async def _look_back(self, opened: OpenShard, known: _Known) -> None:
        """Whether roots differ in what has settled, too; asked once something that was not agreed on has."""
        through = settled_stamp(self._clock, self._settings.settle_s)
        if through <= known.agreed:
            return
        floor = opened.hosted.replica.maintenance.gc_floor
        here, told = await self._roots(opened, Sums(opened.ref, through, floor, 0, np.zeros(1, np.int64), fresh=True))
        if any(root is not None and _lacks(root, here) for _, root in told):
            self.counts["missing"] += 1
            self._missing(opened)
        elif all(root is not None and _same(root, here) for _, root in told):
            known.agreed = through

    def _differ(self, known: _Known) -> None:
        """Some write is missing somewhere, or took longer: it may have arrived when the stamp lies further back."""
        self.counts["differed"] += 1
        known.lsn = -1
        known.lag_s = min(2 * known.lag_s + 0.1, max(LAG_MAX_S, self._settings.agree_lag_s))

    async def _others(self, opened: OpenShard) -> list[DataNode]:
        members = self._source.topology.members
        names = [n for n in opened.shard.nodes("active", "leaving") if n != self._node_id]
        found = [m for n in names if (m := members.get(n)) is not None and m.state not in ("down", "left")]
        return [await self._peers.of(member) for member in found]

    async def _asked(self, node: DataNode, call: Sums) -> Summed | None:
        try:
            answer = await self._in_time(node.sums, call)
        except OmenDBError as error:
            _log.debug("agreement: %s", error)
            return None
        return answer if answer.verdict is Verdict.OK else None

    async def _noted(self, node: DataNode, call: Maintain) -> None:
        """One that does not hear of it searches as a whole until the next time."""
        try:
            await self._in_time(node.maintain, call)
        except OmenDBError as error:
            _log.debug("agreement: %s", error)

    async def _in_time(self, method: Callable[[C, Deadline], Awaitable[A]], call: C) -> A:
        timeout_s = min(self._settings.call_timeout_s, ANSWER_S_MAX)
        return await in_time(method, call, Deadline.after(self._clock, timeout_s))


def _same(one: Summed, other: Summed) -> bool:
    """Whether two gave the same root; one that stands at another floor gives none."""
    return bool(
        one.opening
        and len(one.counts) == len(other.counts) == 1
        and one.gc_floor == other.gc_floor
        and (one.counts[0], one.first[0], one.second[0]) == (other.counts[0], other.first[0], other.second[0])
    )


def _lacks(one: Summed, other: Summed) -> bool:
    """Whether two that stand at one floor gave different roots."""
    return one.gc_floor == other.gc_floor and len(one.counts) == len(other.counts) == 1 and not _same(one, other)


__all__ = ["IDLE_TIMES", "WORK_TIMES", "Agreeing"]
