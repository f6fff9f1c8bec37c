"""Asks the data nodes of a cluster how equal and how sound the replicas of collections are, shard by shard."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.errors import OmenDBError
from omendb_common.security.tls import TlsFiles
from omendb_common.shard_calls import Maintain, ShardRef, Task, Verdict
from omendb_common.topology import CollectionInfo, Member, Shard, Topology
from omendb_common.wire.coordinator_client import CoordinatorClient
from omendb_common.wire.datanode_client import RemoteDataNode
from omendb_common.wire.frame_connection import FrameIdentity

_SHARDS_AT_A_TIME = 8


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What the replica on ``node_id`` found when it compared itself with all others of its shard.

    ``found``: ``through``, ``equal``, ``pulled``, ``pushed``, and ``members``, by node what differs or why that is not
    known. None, with a ``problem``, when no replica answered. ``damage``, by node: what its disk holds otherwise than
    it was written, each with ``path``, ``offset`` and ``problem``; ``unread``, by node: why its files were not read.
    """

    shard_id: int
    node_id: str
    found: dict[str, Any] | None
    problem: str = ""
    damage: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether every replica of the shard was compared, all hold the same, and no file is damaged or unread."""
        return self.found is not None and bool(self.found["equal"]) and not self.damage and not self.unread


@dataclass(frozen=True, slots=True)
class ReplicaRead:
    """What the data node ``node_id`` found when it read its replica of a shard again, ``bytes`` of it.

    ``damage``: what is otherwise than it was written, each with ``path``, ``offset`` and ``problem``. ``unread``: why
    it was not read, if it was not.
    """

    collection: str
    shard_id: int
    node_id: str
    bytes: int = 0
    damage: list[dict[str, Any]] = field(default_factory=list)
    unread: str = ""

    @property
    def sound(self) -> bool:
        """Whether every byte was read and is as it was written."""
        return not self.damage and not self.unread


def read_replicas(
    coordinators: Sequence[str],
    collection: str | None,
    timeout_s: float,
    *,
    bytes_per_s: int = 0,
    told: Callable[[ReplicaRead, int], None] = lambda read, count: None,
    tls: TlsFiles | None = None,
    node_id: str = "omendb-cli",
) -> list[ReplicaRead]:
    """Have every data node read its replicas of a collection, or of all, again; one that is damaged is made anew.

    Args:
        bytes_per_s: how fast each data node reads; 0: as its settings say.
        told: called with each replica that was read, and how many there are.

    Raises:
        NotFoundError: there is no such collection.
        UnavailableError, DeadlineExceededError: no coordinator answers.
    """
    wanted = _Wanted(False, True, tls, node_id, bytes_per_s)
    return asyncio.run(_read_all(coordinators, collection, timeout_s, wanted, told))


async def _read_all(
    coordinators: Sequence[str],
    collection: str | None,
    timeout_s: float,
    wanted: _Wanted,
    told: Callable[[ReplicaRead, int], None],
) -> list[ReplicaRead]:
    deadline = Deadline.after(SystemClock(), timeout_s)
    topology = await _topology(coordinators, deadline, wanted)
    infos = topology.collections.values() if collection is None else [topology.collection(collection)]
    shards = [_OfShard(topology, info, shard, deadline, wanted) for info in infos for shard in info.shards]
    whole = [(shard, member) for shard in shards for member in shard.members]
    turns: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(1))

    async def one(shard: _OfShard, member: Member) -> ReplicaRead:
        # A node reads one replica after the other: what waits there would only hold connections.
        async with turns[member.node_id]:
            found = await shard.read(member)
        told(found, len(whole))
        return found

    lost = [missing for shard in shards for missing in shard.missing()]
    return [*await asyncio.gather(*(one(shard, member) for shard, member in whole)), *lost]


def check_replicas(
    coordinators: Sequence[str],
    collection: str,
    timeout_s: float,
    *,
    repair: bool = False,
    files: bool = False,
    tls: TlsFiles | None = None,
    node_id: str = "omendb-cli",
) -> list[ShardReport]:
    """Compare the replicas of every shard of a collection, and with ``repair`` bring them together.

    Args:
        files: have every replica read all of its files as well. What is damaged on a disk need not show in what a data
            node remembers of it.
        node_id: the router whom the certificate in ``tls`` names.

    Raises:
        NotFoundError: there is no such collection.
        UnavailableError, DeadlineExceededError: no coordinator answers.
    """
    return asyncio.run(_check(coordinators, collection, timeout_s, _Wanted(repair, files, tls, node_id)))


@dataclass(frozen=True, slots=True)
class _Wanted:
    repair: bool
    files: bool
    tls: TlsFiles | None
    node_id: str
    bytes_per_s: int = 0


async def _topology(coordinators: Sequence[str], deadline: Deadline, wanted: _Wanted) -> Topology:
    client = CoordinatorClient(coordinators, wanted.tls, name=wanted.node_id)
    await client.start()
    try:
        return await client.refresh(0, deadline)
    finally:
        await client.close()


async def _check(coordinators: Sequence[str], collection: str, timeout_s: float, wanted: _Wanted) -> list[ShardReport]:
    deadline = Deadline.after(SystemClock(), timeout_s)
    topology = await _topology(coordinators, deadline, wanted)
    info = topology.collection(collection)
    turns = asyncio.Semaphore(_SHARDS_AT_A_TIME)

    async def one(shard: Shard) -> ShardReport:
        async with turns:
            return await _OfShard(topology, info, shard, deadline, wanted).report()

    return list(await asyncio.gather(*map(one, info.shards)))


class _OfShard:
    """Asks the replicas of one shard."""

    def __init__(
        self, topology: Topology, info: CollectionInfo, shard: Shard, deadline: Deadline, wanted: _Wanted
    ) -> None:
        self._topology = topology
        self._collection = info.name
        self._shard = shard
        self._ref = ShardRef(info.schema.uuid, shard.shard_id, shard.epoch, 0)
        self.members = [m for m in map(topology.members.get, shard.nodes("active")) if m is not None]
        self._deadline = deadline
        self._wanted = wanted

    async def report(self) -> ShardReport:
        # Files second: a replica that is damaged leaves the shard, and a comparison then waits for another map.
        compared = await self._compared()
        if not self._wanted.files:
            return compared
        damage, unread = await self._read()
        return replace(compared, damage=damage, unread=unread)

    async def _compared(self) -> ShardReport:
        problems = []
        for member in self.members:
            try:
                found = await self._ask(member, "repair" if self._wanted.repair else "verify")
            except OmenDBError as error:
                problems.append(f"{member.node_id}: {error}")
                continue
            return ShardReport(self._shard.shard_id, member.node_id, found)
        return ShardReport(self._shard.shard_id, "", None, "; ".join(problems) or "no replica is active")

    async def _read(self) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
        """Have every replica read its files."""
        damage: dict[str, list[dict[str, Any]]] = {}
        unread: dict[str, str] = {}

        for found in await asyncio.gather(*map(self.read, self.members)):
            if found.unread:
                unread[found.node_id] = found.unread
            elif found.damage:
                damage[found.node_id] = found.damage
        return dict(sorted(damage.items())), dict(sorted(unread.items()))

    async def read(self, member: Member) -> ReplicaRead:
        """Have one node read its replica."""
        place = self._collection, self._shard.shard_id, member.node_id
        try:
            found = await self._ask(member, "scrub")
        except OmenDBError as error:
            return ReplicaRead(*place, unread=str(error))
        return ReplicaRead(*place, int(found["bytes"]), list(found["damage"]))

    def missing(self) -> list[ReplicaRead]:
        """Replicas that nobody can read: lost, or not made yet."""
        there = {member.node_id for member in self.members}
        gone = sorted({replica.node_id for replica in self._shard.replicas} - there)
        return [ReplicaRead(self._collection, self._shard.shard_id, name, unread="it is being made") for name in gone]

    async def _ask(self, member: Member, task: Task) -> dict[str, Any]:
        async with self._connected(member) as node:
            answer = await node.maintain(
                Maintain(self._ref, task, bytes_per_s=self._wanted.bytes_per_s), self._deadline
            )
        if answer.verdict is not Verdict.OK:
            raise answer.error or OmenDBError(f"it answers {answer.verdict.name}", field="shard")
        found: dict[str, Any] = answer.value
        return found

    @asynccontextmanager
    async def _connected(self, member: Member) -> AsyncIterator[RemoteDataNode]:
        wanted = self._wanted
        identity = FrameIdentity(self._topology.cluster_id, "router", wanted.node_id)
        node = RemoteDataNode(member.address, identity=identity, node_id=member.node_id, tls=wanted.tls, connections=1)
        try:
            yield node
        finally:
            await node.close()


__all__ = ["ReplicaRead", "ShardReport", "check_replicas", "read_replicas"]
