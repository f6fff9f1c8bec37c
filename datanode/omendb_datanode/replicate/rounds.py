"""Rounds: the replica here against all others of its shard, and what it proves when they are equal (P12).

A round in which every replica of the shard was compared, all of them active, and nothing differed through a stamp, is a
proof. Every replica notes the stamp on stable storage BEFORE the coordinators hear of it: so a replica that knows of a
lower one than the coordinators' floor is an old copy, whatever it holds (P13).
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import OmenDBError, UnavailableError
from omendb_common.ids import IdColumn
from omendb_common.metadata import RepairedShard, TopologySource
from omendb_common.shard_calls import DataNode, Maintain, Verdict
from omendb_common.topology import Shard
from omendb_datanode.config import RepairSettings
from omendb_datanode.hosting import OpenShard
from omendb_datanode.replicate.exchange import Exchange, Exchanged, Moved, in_time, settled_stamp
from omendb_datanode.replicate.pace import Pace
from omendb_datanode.replicate.peers import Peers
from omendb_datanode.replicate.releases import Release
from omendb_datanode.replicate.together import Together, bring_together

_log = logging.getLogger(__name__)

_ASKED_CALLS = 5
"""A round that another node was asked for may take as long as so many calls that bring no answer."""


@dataclass(frozen=True, slots=True)
class Round:
    """What a round found. ``members``: the last comparison with each other replica, or why there was none."""

    through: int
    members: dict[str, Exchanged | str]
    together: Together
    proven: bool = False

    @property
    def equal(self) -> bool:
        """Whether every other replica was compared, and holds the same."""
        return all(isinstance(found, Exchanged) and found.equal for found in self.members.values())

    def to_json(self) -> dict[str, Any]:
        """For people, and for the command line."""
        return {
            "through": self.through,
            "equal": self.equal,
            "proven": self.proven,
            "pulled": self.together.pulled,
            "pushed": self.together.pushed,
            "members": {name: _told(found) for name, found in self.members.items()},
        }


@dataclass(slots=True)
class RepairCounts:
    """What the repairer of a node has done since its start."""

    rows: Counter[str] = field(default_factory=Counter)
    collisions: int = 0
    released: int = 0
    mismatches: int = 0
    rounds: Counter[str] = field(default_factory=Counter)


class Rounds:
    """Makes rounds for one node. Belongs to one event loop.

    Args:
        here: the rules of this node.
        proven: told of every proof, after all replicas have noted it.
    """

    def __init__(
        self,
        node_id: str,
        here: DataNode,
        peers: Peers,
        source: TopologySource,
        clock: Clock,
        settings: RepairSettings,
        pace: Pace,
        proven: Callable[[RepairedShard], None],
    ) -> None:
        self._node_id = node_id
        self._here = here
        self._peers = peers
        self._source = source
        self._clock = clock
        self._settings = settings
        self._pace = pace
        self._proven = proven
        self._dice = random.Random(node_id)
        self.counts = RepairCounts()

    async def make(self, opened: OpenShard, *, repair: bool = True, young: bool = False) -> Round:
        """Compare with all other replicas of a shard; with ``repair`` bring them together, and note what it proves.

        Args:
            young: whether to send writes, too, that may still be on their way: they get there twice. It proves nothing.

        Raises:
            OmenDBError: all were found equal, and could not be told so.
        """
        through = settled_stamp(self._clock, 0.0 if young else self._settings.settle_s)
        nodes, absent = await self._others(opened.shard)
        floor = opened.hosted.replica.maintenance.gc_floor
        exchanges = {
            name: Exchange(
                *(self._here, node, opened.ref, floor, self._clock, self._pace, self._settings), moved=self._moved
            )
            for name, node in nodes.items()
        }
        if repair:
            done = await bring_together(exchanges, through)
            barred = [] if young else [exchange.barred for exchange in exchanges.values()]
            if await self._released(opened, barred):
                done = await bring_together(exchanges, through)
        else:
            done = await _compared(exchanges, through)
        members: dict[str, Exchanged | str] = {**absent, **done.last}
        members |= {name: str(error) for name, error in done.failed.items()}
        found = Round(through, dict(sorted(members.items())), done)
        self.counts.collisions += done.collided
        all_active = len(opened.shard.nodes("active")) == len(opened.shard.replicas)
        if young or not (repair and found.equal and all_active):
            return found
        await self._note(opened, nodes, through)
        return Round(through, found.members, done, proven=True)

    async def ask(self, opened: OpenShard, node_id: str) -> bool:
        """Have another node make a round; whether it did, and compared the replica here."""
        member = self._source.topology.members.get(node_id)
        if member is None:
            return False
        deadline = Deadline.after(self._clock, _ASKED_CALLS * self._settings.call_timeout_s)
        try:
            node = await self._peers.of(member)
            answer = await in_time(node.maintain, Maintain(opened.ref, "repair"), deadline)
        except OmenDBError as error:
            _log.info("%s makes no round of %s: %s", node_id, opened.key.name, error)
            return False
        if answer.verdict is not Verdict.OK:
            _log.info("%s makes no round of %s: %s", node_id, opened.key.name, answer.error or answer.verdict.name)
            return False
        here = answer.value["members"].get(self._node_id, {})
        return here.get("equal") is not None

    async def _released(self, opened: OpenShard, barred: Sequence[IdColumn]) -> bool:
        """End claims that kept records out, if all replicas can take part; whether that was done."""
        ids = IdColumn.concat(barred)
        if not len(ids):
            return False
        ids = ids.take(np.unique(np.stack(ids.hashes()), axis=1, return_index=True)[1])
        nodes = [self._here]
        for place in opened.shard.replicas:
            member = self._source.topology.members.get(place.node_id)
            if place.node_id == self._node_id or place.state in ("lost", "corrupt"):
                continue
            if member is None or member.state in ("down", "left"):
                return False
            nodes.append(await self._peers.of(member))
        release = Release(nodes, opened.ref, self._clock, self._settings.call_timeout_s, self._dice)
        try:
            await release.run(ids)
        except OmenDBError as error:
            _log.info("claims on %d points of %s stay: %s", len(ids), opened.key.name, error)
            return False
        self.counts.released += len(ids)
        return True

    async def _others(self, shard: Shard) -> tuple[dict[str, DataNode], dict[str, Exchanged | str]]:
        """The other replicas that can be compared, and why the rest cannot. One that joins is filled by itself."""
        nodes: dict[str, DataNode] = {}
        absent: dict[str, Exchanged | str] = {}
        for place in shard.replicas:
            if place.node_id == self._node_id:
                continue
            member = self._source.topology.members.get(place.node_id)
            if place.state in ("lost", "corrupt", "joining"):
                absent[place.node_id] = f"its replica is {place.state}"
            elif member is None or member.state in ("down", "left"):
                absent[place.node_id] = "it is no member" if member is None else f"it is {member.state}"
            else:
                nodes[place.node_id] = await self._peers.of(member)
        return nodes, absent

    async def _note(self, opened: OpenShard, nodes: dict[str, DataNode], through: int) -> None:
        call = Maintain(opened.ref, "note_repaired", through)
        # The others first: each holds the stamp against a clock of its own.
        for node in (*nodes.values(), self._here):
            deadline = Deadline.after(self._clock, self._settings.call_timeout_s)
            answer = await in_time(node.maintain, call, deadline)
            if answer.verdict is not Verdict.OK:
                raise answer.error or UnavailableError(f"a replica answered {answer.verdict.name}", field="shard")
        self._proven(RepairedShard(*opened.ref[:3], through))

    def _moved(self, moved: Moved) -> None:
        self.counts.rows["pulled"] += moved.pulled
        self.counts.rows["pushed"] += moved.pushed


async def _compared(exchanges: dict[str, Exchange], through: int) -> Together:
    last: dict[str, Exchanged] = {}
    failed: dict[str, OmenDBError] = {}
    for name, exchange in exchanges.items():
        try:
            last[name] = await exchange.run(through, repair=False)
        except OmenDBError as error:
            failed[name] = error
    equal = not failed and all(done.equal for done in last.values())
    return Together(through, equal, last, failed, 0, 0, 0)


def _told(found: Exchanged | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"equal": None, "problem": found}
    return {
        "equal": found.equal,
        "records": found.records,
        "leaves": found.leaves,
        "differing": found.differing,
        "young": found.young,
        "collided": found.collided,
        "ids": list(found.ids),
    }


__all__ = ["RepairCounts", "Round", "Rounds"]
