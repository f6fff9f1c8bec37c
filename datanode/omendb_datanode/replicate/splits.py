"""The replicas of this node whose shards split or merge: what they hold is copied beside them, and then that is told.

New writes are followed by the halves, or the joint replica, from the moment these stand beside the replica; this copies
what was there before, at the pace of repair. A node that was started anew copies again, even where it has said that
they are whole. Of two shards that merge both must be copied before anything is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import UnavailableError
from omendb_common.ids import IdColumn
from omendb_common.metadata import TopologySource
from omendb_common.topology import Fill
from omendb_datanode.config import RepairSettings
from omendb_datanode.engine_threads import EngineThreads
from omendb_datanode.hosting import OpenShard
from omendb_datanode.replicate.arrivals import WAITS_CHARS_MAX, Advance
from omendb_datanode.replicate.errands import Errands
from omendb_datanode.replicate.pace import Pace
from omendb_datanode.successors import Successors

_TELL_S = 5.0

T = TypeVar("T")


@dataclass(slots=True)
class Division:
    """One replica on its way into its successors: an :class:`~omendb_datanode.replicate.errands.Errand`."""

    opened: OpenShard
    successors: Successors
    fill: Fill
    over: bool = False
    task: asyncio.Task[None] | None = None

    def holds(self, opened: OpenShard) -> bool:
        """Whether it is still to be done, which it is again where a write could not be followed since."""
        self.over = self.over and self.successors.complete
        return True

    def waits_for(self, problem: str) -> None:
        """What keeps it, for people."""
        self.fill = replace(self.fill, waits_for=problem[:WAITS_CHARS_MAX])

    def begun(self, rows: int) -> None:
        """The replica holds so many points, which are copied from the first on."""
        self.fill = replace(self.fill, rows_done=0, rows_total=rows)

    def copied(self, rows: int, size: int) -> None:
        """So many more are in the successors; deletions count too."""
        rows += self.fill.rows_done
        total = max(self.fill.rows_total, rows)
        self.fill = replace(self.fill, rows_done=rows, rows_total=total, bytes_done=self.fill.bytes_done + size)


class Splits:
    """Fills what stands beside one node's replicas. Belongs to one event loop.

    Args:
        opened: the open replicas of this node, with their maps.
        advance: tells the coordinators that the successors of a replica are whole.
    """

    def __init__(
        self,
        opened: Callable[[], Sequence[OpenShard]],
        threads: EngineThreads,
        source: TopologySource,
        advance: Advance,
        clock: Clock,
        settings: RepairSettings,
        pace: Pace,
    ) -> None:
        self._opened = opened
        self._threads = threads
        self._advance = advance
        self._clock = clock
        self._settings = settings
        self._pace = pace
        self._divisions: Errands[Successors, Division] = Errands(
            "split", source, pace, self._wanted, _division, self._divide
        )

    def start(self) -> None:
        """Begin; the replicas are open."""
        self._divisions.start()

    async def stop(self) -> None:
        """End what is under way; what was copied stays."""
        await self._divisions.stop()

    async def look(self) -> None:
        """Fill what stands beside replicas under the map in force, and nothing else."""
        await self._divisions.look()

    def fills(self) -> list[Fill]:
        """How far the successors are that are made here."""
        return [division.fill for division in self._divisions.now()]

    def _wanted(self) -> Mapping[Successors, OpenShard]:
        return {
            one.hosted.follower: one
            for one in self._opened()
            if isinstance(one.hosted.follower, Successors) and not one.hosted.replica.closed
        }

    # -- one

    async def _divide(self, division: Division) -> None:
        """Copy everything, and say so."""
        await self._copy(division)
        await self._tell(division)

    async def _copy(self, division: Division) -> None:
        """Copy until everything was, with no write unfollowed meanwhile."""
        successors = division.successors
        while not successors.complete:
            failures, depth = successors.failures, successors.depth()
            division.begun(successors.whole.snapshot().live)
            for node in range(1 << depth):
                ids = await self._compare(partial(successors.below, depth, node))
                await self._carry(division, ids)
            successors.copied(failures)

    async def _carry(self, division: Division, ids: IdColumn) -> None:
        successors = division.successors
        start, record_bytes = 0, 1024.0
        while start < len(ids):
            rows = int(max(1, min(self._settings.batch_rows, self._settings.batch_bytes / record_bytes)))
            some = ids.slice(start, min(start + rows, len(ids)))
            with self._pace.beside_clients():
                size = await self._compare(partial(successors.carry, some))
            division.copied(len(some), size)
            start, record_bytes = start + len(some), max(1.0, size / len(some))
            await self._pace.spend(size)

    async def _compare(self, work: Callable[[], T]) -> T:
        return await self._threads.compare(work, Deadline.after(self._clock, self._settings.call_timeout_s))

    async def _tell(self, division: Division) -> None:
        """Say that the successors are whole, once they have noted up to when they are known to be like all others."""
        mine = division.successors
        whole = [one for one in self._wanted() if one.beside == mine.beside and one.complete]
        if len(whole) < mine.sources:
            raise UnavailableError("the neighbour is not copied yet", field=division.opened.key.name)
        recut = division.opened.shard.recut
        if recut is not None and recut.session == mine.session:
            for one in mine.beside:
                await self._compare(partial(one.raise_floors, repaired_through=recut.repaired_through))
        await self._advance(division.opened, Deadline.after(self._clock, _TELL_S))


def _division(successors: Successors, opened: OpenShard) -> Division:
    return Division(opened, successors, Fill(*opened.key.shard, successors.session))


__all__ = ["Division", "Splits"]
