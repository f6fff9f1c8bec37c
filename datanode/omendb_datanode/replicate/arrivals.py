"""The replicas of this node that must take what others have before a move goes on, and say when they do (P14).

The target of a move drives it. Under the epoch of a stage it asks so many old members that every quorum of writers is
among them; whoever answers under that epoch has raised its fence and ended the writes that it let in before. So when
each of them was compared once, the replica holds everything that was acknowledged before the stage, and what comes
since reaches it like the others. Then the coordinators are told, and the next stage begins, or the move has ended.

Where a shard changes its quorums and no replica joins, those that stay do the same among each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import NotFoundError, OmenDBError
from omendb_common.hlc import STAMP_MAX
from omendb_common.metadata import TopologySource
from omendb_common.shard_calls import DataNode, Maintain, Verdict
from omendb_common.topology import CollectionInfo, Fill, Member, Shard
from omendb_datanode.config import RepairSettings
from omendb_datanode.hosting import OpenShard
from omendb_datanode.replicate.errands import Errands
from omendb_datanode.replicate.exchange import Exchange, ExchangeEndedError, Moved
from omendb_datanode.replicate.pace import Pace

_TELL_S = 5.0
_GONE = ("down", "left")
WAITS_CHARS_MAX = 300

Advance = Callable[[OpenShard, Deadline], Awaitable[None]]
"""Tells the coordinators that the move of a shard, under the epoch of its map, may go on."""


@dataclass(slots=True)
class Arrival:
    """One replica on its way, in one stage: an :class:`~omendb_datanode.replicate.errands.Errand`.

    ``told``: the old members of which it has everything.
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

    def holds(self, opened: OpenShard) -> bool:
        """Whether it is still the same replica in the same stage."""
        was = self.opened
        now = opened.key, opened.shard.epoch, opened.hosted
        return (was.key, was.shard.epoch, was.hosted) == now

    def waits_for(self, problem: str) -> None:
        """What keeps it, for people."""
        self.fill = replace(self.fill, waits_for=problem[:WAITS_CHARS_MAX])

    def begun(self, records: int) -> None:
        """A comparison began: the fuller replica holds so many."""
        self.fill = replace(self.fill, rows_total=max(self.fill.rows_total, records))


class Arrivals:
    """Fills the replicas of one node that join, or must be whole for other quorums. Belongs to one event loop.

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
        self._arrivals: Errands[tuple[str, int], Arrival] = Errands(
            "arrival", source, pace, self._wanted, _arrival, self._arrive
        )

    def start(self) -> None:
        """Begin; the replicas are open."""
        self._arrivals.start()

    async def stop(self) -> None:
        """End what is under way; what came stays."""
        await self._arrivals.stop()

    async def look(self) -> None:
        """Fill what joins under the map in force, and nothing else."""
        await self._arrivals.look()

    def now(self) -> list[Arrival]:
        """The replicas that are on their way."""
        return self._arrivals.now()

    def fills(self) -> list[Fill]:
        """How far the replicas are that join here."""
        return [arrival.fill for arrival in self.now()]

    def _wanted(self) -> Mapping[tuple[str, int], OpenShard]:
        return {
            one.key.shard: one
            for one in self._opened()
            if _concerns(self._node_id, one.shard) and not one.hosted.replica.closed
        }

    # -- one

    async def _arrive(self, arrival: Arrival) -> None:
        """Take everything, and say so."""
        await self._take(arrival)
        await self._tell(arrival.opened)

    async def _take(self, arrival: Arrival) -> None:
        """Compare with old members, those that are up first, until every quorum of writers is among them."""
        shard = arrival.opened.shard
        topology = self._source.topology
        info = topology.by_uuid(arrival.opened.key.collection_uuid)
        if info is None:
            raise NotFoundError("the collection was dropped", field="collection")
        need = _asked_for(info, shard)
        if self._node_id in shard.nodes("active"):
            arrival.told.add(self._node_id)
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


def _arrival(key: tuple[str, int], opened: OpenShard) -> Arrival:
    return Arrival(opened, Fill(*key, opened.key.session))


def _concerns(node_id: str, shard: Shard) -> bool:
    """Whether a move of the shard waits for its replica on this node."""
    move = shard.move
    if move is None or move.target:
        return move is not None and move.target == node_id
    return node_id in shard.nodes("active") and node_id not in move.ready


def _asked_for(info: CollectionInfo, shard: Shard) -> int:
    """Of how many old members, itself among them, a replica must have everything (see ``resize_changes``).

    By the replicas that there should be: where one is lost, another may be the only one that has what both had.
    """
    now = info.quorums(shard)
    need = now.covering
    if shard.move is not None and shard.move.quorums is not None:
        # What reads have shown must stay, and reads under the map before must have ended.
        need = max(need, now.read, now.replication - now.read + 1)
    return min(len(shard.old), max(1, need))


__all__ = ["WAITS_CHARS_MAX", "Advance", "Arrival", "Arrivals"]
