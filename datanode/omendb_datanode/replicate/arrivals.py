"""The replicas that join on this node: each takes what it needs from the old members, and says when (P14).

The target of a move drives it. Under the epoch of a stage it asks so many old members that every quorum of writers is
among them; whoever answers under that epoch has raised its fence and ended the writes that it let in before. So when
each of them was compared once, the replica holds everything that was acknowledged before the stage, and what comes
since reaches it like the others. Then the coordinators are told, and the next stage begins, or the move has ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import AlreadyExistsError, NotFoundError, OmenDBError
from omendb_common.hlc import STAMP_MAX
from omendb_common.metadata import TopologySource
from omendb_common.shard_calls import DataNode, Maintain, Verdict
from omendb_common.topology import Fill, Member
from omendb_common.wire.unending import Unending
from omendb_datanode.config import RepairSettings
from omendb_datanode.hosting import OpenShard
from omendb_datanode.replicate.exchange import Exchange, ExchangeEndedError, Moved
from omendb_datanode.replicate.pace import Pace

_log = logging.getLogger(__name__)

_LOOK_S = 0.5
_PAUSE_FIRST_S = 0.1
_PAUSE_MAX_S = 5.0
_TELL_S = 5.0
_GONE = ("down", "left")
WAITS_CHARS_MAX = 300

Advance = Callable[[OpenShard, Deadline], Awaitable[None]]
"""Tells the coordinators that the move of a shard, under the epoch of its map, may go on."""


@dataclass(slots=True)
class Arrival:
    """One replica on its way, in one stage.

    ``told``: the old members of which it has everything. ``over``: another map will come, and nothing is left to do.
    """

    opened: OpenShard
    fill: Fill
    told: set[str] = field(default_factory=set)
    over: bool = False
    task: asyncio.Task[None] | None = None

    def moved(self, moved: Moved) -> None:
        """A batch came."""
        done = self.fill
        rows = done.rows_done + moved.pulled
        self.fill = replace(
            done, rows_done=rows, rows_total=max(done.rows_total, rows), bytes_done=done.bytes_done + moved.size
        )

    def begun(self, records: int) -> None:
        """A comparison began: the fuller replica holds so many."""
        self.fill = replace(self.fill, rows_total=max(self.fill.rows_total, records))


class Arrivals:
    """Fills the replicas of one node that join. Belongs to one event loop.

    Args:
        here: the rules of this node.
        peer: a client of another data node.
        opened: the open replicas of this node, with their maps.
    """

    def __init__(
        self,
        node_id: str,
        here: DataNode,
        peer: Callable[[Member], Awaitable[DataNode]],
        opened: Callable[[], Sequence[OpenShard]],
        source: TopologySource,
        advance: Advance,
        clock: Clock,
        settings: RepairSettings,
        pace: Pace,
    ) -> None:
        self._node_id = node_id
        self._here = here
        self._peer = peer
        self._opened = opened
        self._source = source
        self._advance = advance
        self._clock = clock
        self._settings = settings
        self._pace = pace
        self._arrivals: dict[tuple[str, int], Arrival] = {}
        self._wake = asyncio.Event()
        self._work: Unending | None = None

    # -- life

    def start(self) -> None:
        """Begin; the replicas are open."""
        self._source.on_change(lambda _: self._wake.set())
        self._work = Unending(self._follow, "arrivals")

    async def stop(self) -> None:
        """End what is under way; what came stays."""
        if self._work is not None:
            await self._work.stop()
            self._work = None
        await self._end([*self._arrivals])

    def fills(self) -> list[Fill]:
        """How far the replicas are that join here."""
        return [arrival.fill for arrival in self._arrivals.values()]

    # -- which

    async def _follow(self) -> None:
        while True:
            self._wake.clear()
            await self.look()
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def look(self) -> None:
        """Fill what joins under the map in force, and nothing else."""
        wanted = self._wanted()
        gone = [key for key, arrival in self._arrivals.items() if not _same(arrival, wanted.get(key))]
        await self._end(gone)
        for key, opened in wanted.items():
            arrival = self._arrivals.get(key)
            if arrival is None:
                arrival = self._arrivals[key] = Arrival(opened, Fill(*key, opened.key.session))
            if arrival.task is None or (arrival.task.done() and not arrival.over):
                arrival.task = asyncio.create_task(self._arrive(arrival), name=f"arrival {opened.key.name}")

    def _wanted(self) -> Mapping[tuple[str, int], OpenShard]:
        if self._source.topology.moves_paused:
            return {}
        return {
            one.key.shard: one
            for one in self._opened()
            if one.shard.move is not None and one.shard.move.target == self._node_id and not one.hosted.replica.closed
        }

    async def _end(self, keys: Sequence[tuple[str, int]]) -> None:
        tasks = [self._arrivals.pop(key).task for key in keys]
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)

    # -- one

    async def _arrive(self, arrival: Arrival) -> None:
        """Take everything, and say so; ends when the map says something else, which ends this task from outside."""
        pause_s = _PAUSE_FIRST_S
        while not arrival.over:
            try:
                await self._take(arrival)
                await self._tell(arrival.opened)
            except (AlreadyExistsError, NotFoundError) as changed:
                _log.info("%s: the map has changed: %s", arrival.opened.key.name, changed)
                arrival.over = True
            except OmenDBError as error:
                arrival.fill = replace(arrival.fill, waits_for=str(error)[:WAITS_CHARS_MAX])
                _log.info("%s waits: %s", arrival.opened.key.name, error)
                await self._pace.pause(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)
            else:
                arrival.fill = replace(arrival.fill, waits_for="")
                arrival.over = True

    async def _take(self, arrival: Arrival) -> None:
        """Compare with old members, those that are up first, until every quorum of writers is among them."""
        shard = arrival.opened.shard
        topology = self._source.topology
        info = topology.by_uuid(arrival.opened.key.collection_uuid)
        if info is None:
            raise NotFoundError("the collection was dropped", field="collection")
        # By the replicas that there should be: where one is lost, another may be the only one that has what both had.
        need = min(len(shard.old), max(1, info.replication - info.write_quorum + 1))
        failures: list[OmenDBError] = []
        names = shard.old - arrival.told - {self._node_id}
        members = [topology.members[name] for name in sorted(names) if name in topology.members]
        for member in sorted(members, key=lambda m: m.state in _GONE):
            if len(arrival.told) >= need and member.state in _GONE:
                break
            try:
                await self._from(arrival, member)
            except OmenDBError as error:
                failures.append(error)
            else:
                arrival.told.add(member.node_id)
        if len(arrival.told) < need:
            why = f": {failures[0]}" if failures else ""
            raise ExchangeEndedError(
                f"{len(arrival.told)} of {need} members were compared{why}", field=arrival.opened.key.name
            )

    async def _from(self, arrival: Arrival, member: Member) -> None:
        """Take all that one member has when it is asked, whatever its stamps."""
        opened = arrival.opened
        floor = opened.hosted.replica.maintenance.gc_floor
        exchange = Exchange(
            *(self._here, await self._peer(member), opened.ref, floor, self._clock, self._pace, self._settings),
            moved=arrival.moved,
            begun=arrival.begun,
        )
        await exchange.run(STAMP_MAX)

    async def _tell(self, opened: OpenShard) -> None:
        """Say that the next stage may begin; before the last one, note up to when the replica is known to be whole."""
        deadline = Deadline.after(self._clock, _TELL_S)
        if opened.shard.switching:
            # A replica that knows of less than was proven for its shard is taken for an old copy (P13).
            proven = Maintain(opened.ref, "note_repaired", opened.shard.repaired_through)
            noted = await self._here.maintain(proven, deadline)
            if noted.verdict is not Verdict.OK:
                raise noted.error or ExchangeEndedError(noted.verdict.name, field=opened.key.name)
        await self._advance(opened, deadline)


def _same(arrival: Arrival, opened: OpenShard | None) -> bool:
    """Whether it is still the same replica in the same stage."""
    was = arrival.opened
    return opened is not None and (was.key, was.shard.epoch, was.hosted) == (
        opened.key,
        opened.shard.epoch,
        opened.hosted,
    )


__all__ = ["WAITS_CHARS_MAX", "Advance", "Arrival", "Arrivals"]
