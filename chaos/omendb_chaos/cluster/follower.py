"""How a process of a simulated cluster knows the coordinators: follows the topology, and asks for changes of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

from omendb_chaos.cluster.coordinators import COORDINATORS
from omendb_chaos.cluster.network import Network, within
from omendb_chaos.cluster.processes import Process
from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, NotFoundError, OmenDBError, UnavailableError
from omendb_common.metadata import NewCollection, OriginLease, RepairedShard
from omendb_common.topology import (
    CollectionInfo,
    Member,
    ReplicaPlace,
    ReplicaSize,
    Shard,
    Topology,
    member_to_json,
)
from omendb_coordinator.control import Asking

HEARTBEAT_S = 3.0
_LAG_S = 0.5
_ATTEMPT_S = 1.0
_WATCH_S = 31.0


class Follower:
    """A :class:`~omendb_common.metadata.Metadata` over the simulated network, as the real client is one over gRPC."""

    def __init__(self, network: Network, process: Process, clock: Clock, rng: random.Random) -> None:
        self._network = network
        self._process = process
        self._clock = clock
        self._rng = rng
        self._topology = Topology("")
        self._newer = asyncio.Event()
        self._callbacks: list[Callable[[Topology], None]] = []
        self._asked = 0

    def start(self) -> None:
        """Begin to follow."""
        self._process.spawn(self._follow())

    # -- the topology

    @property
    def topology(self) -> Topology:
        """See ``TopologySource``."""
        return self._topology

    def on_change(self, callback: Callable[[Topology], None]) -> None:
        """See ``TopologySource``."""
        self._callbacks.append(callback)

    async def refresh(self, revision: int, deadline: Deadline) -> Topology:
        """See ``TopologySource``."""
        if revision == 0:
            return await self._pull(deadline)
        while self._topology.revision < revision:
            deadline.check(f"waiting for revision {revision} of the topology")
            try:
                async with asyncio.timeout(min(_LAG_S, deadline.left_s)):
                    await self._newer.wait()
            except TimeoutError:
                await self._pull(deadline)
        return self._topology

    async def _pull(self, deadline: Deadline) -> Topology:
        self._take(await self._ask("read", (), deadline))
        return self._topology

    def _take(self, topology: Topology) -> None:
        if topology.revision <= self._topology.revision:
            return
        self._topology = topology
        newer, self._newer = self._newer, asyncio.Event()
        newer.set()
        loop = asyncio.get_running_loop()
        for callback in self._callbacks:
            loop.call_soon(callback, topology)

    async def _follow(self) -> None:
        while True:
            deadline = Deadline.after(self._clock, _WATCH_S)
            asked = self._network.call(self._process, COORDINATORS, "watch", self._topology.revision, deadline)
            try:
                topology = await within(deadline, asked)
            except OmenDBError:
                await asyncio.sleep(self._rng.uniform(0.1, 1.0))
                continue
            if topology is not None:
                self._take(topology)

    # -- membership

    async def register(self, member: Member, deadline: Deadline) -> Member:
        """Make this process a member; it has seen the map that says so when this returns."""
        registered: Member
        registered, revision = await self._change("register", member_to_json(member), deadline=deadline)
        await self.refresh(revision, deadline)
        return registered

    def beat(
        self,
        member: Member,
        problems: Callable[[], list[str]],
        sizes: Callable[[], list[ReplicaSize]] = list,
    ) -> None:
        """Say every few seconds that a member lives, until the process ends."""
        self._process.spawn(self._beat(member, problems, sizes))

    async def _beat(
        self, member: Member, problems: Callable[[], list[str]], sizes: Callable[[], list[ReplicaSize]]
    ) -> None:
        while True:
            deadline = Deadline.after(self._clock, HEARTBEAT_S)
            call = member.node_id, member.incarnation, problems(), (), sizes()
            try:
                await within(deadline, self._network.call(self._process, COORDINATORS, "heartbeat", call, deadline))
            except NotFoundError:
                await self._registered_again(member)
            except OmenDBError:
                pass  # the next one may get through
            await asyncio.sleep(HEARTBEAT_S * self._rng.uniform(0.9, 1.1))

    async def _registered_again(self, member: Member) -> None:
        try:
            await self.register(member, Deadline.after(self._clock, 2 * _ATTEMPT_S))
        except OmenDBError:
            return  # the next heartbeat finds out

    # -- changes

    async def create_collection(self, new: NewCollection, deadline: Deadline) -> CollectionInfo:
        """See ``Metadata``."""
        info: CollectionInfo = await self._change("create_collection", new, deadline=deadline)
        await self.refresh(info.revision, deadline)
        return info

    async def drop_collection(self, name: str, deadline: Deadline) -> None:
        """See ``Metadata``."""
        answer = await self._change("change", "drop_collection", {"name": name}, deadline=deadline)
        await self.refresh(int(answer["revision"]), deadline)

    async def rename_collection(self, old: str, new: str, deadline: Deadline) -> None:
        """See ``Metadata``."""
        await self._change("change", "rename_collection", {"old": old, "new": new}, deadline=deadline)

    async def set_alias(self, alias: str, collection: str | None, deadline: Deadline) -> None:
        """See ``Metadata``."""
        await self._change("change", "set_alias", {"alias": alias, "collection": collection}, deadline=deadline)

    async def place_shard(
        self, uuid: str, shard_id: int, epoch: int, replicas: tuple[ReplicaPlace, ...], deadline: Deadline
    ) -> None:
        """Replace a shard's replicas."""
        args = {**_named(uuid, shard_id, epoch), "replicas": [[r.node_id, r.state] for r in replicas]}
        await self._change("change_collection", "place_shard", args, deadline=deadline)

    async def begin_move(
        self, info: CollectionInfo, shard: Shard, source: str, target: str, deadline: Deadline
    ) -> None:
        """Move a replica."""
        args = {**_named(info.schema.uuid, shard.shard_id, shard.epoch), "source": source, "target": target}
        await self._change("change_collection", "begin_move", args, deadline=deadline)

    async def cancel_move(self, info: CollectionInfo, shard: Shard, deadline: Deadline) -> None:
        """Give a move up."""
        args = _named(info.schema.uuid, shard.shard_id, shard.epoch)
        await self._change("change_collection", "cancel_move", args, deadline=deadline)

    async def advance_move(self, uuid: str, shard_id: int, epoch: int, node_id: str, deadline: Deadline) -> None:
        """Say as the target of a move that the next stage may begin."""
        args = {**_named(uuid, shard_id, epoch), "node_id": node_id}
        await self._change("advance_move", args, deadline=deadline)

    async def begin_split(self, info: CollectionInfo, shard: Shard, deadline: Deadline) -> None:
        """Cut a shard in two."""
        args = _named(info.schema.uuid, shard.shard_id, shard.epoch)
        await self._change("change_collection", "begin_split", args, deadline=deadline)

    async def begin_merge(self, info: CollectionInfo, low: Shard, high: Shard, deadline: Deadline) -> None:
        """Put two neighbouring shards together."""
        args = _named(info.schema.uuid, low.shard_id, low.epoch)
        args = {**args, "other_id": high.shard_id, "other_epoch": high.epoch}
        await self._change("begin_merge", args, deadline=deadline)

    async def cancel_recut(self, info: CollectionInfo, shard: Shard, deadline: Deadline) -> None:
        """Give the split or the merge of a shard up."""
        op = "cancel_split" if shard.merge is None else "cancel_merge"
        args = _named(info.schema.uuid, shard.shard_id, shard.epoch)
        await self._change("change_collection", op, args, deadline=deadline)

    async def advance_recut(
        self, op: str, uuid: str, shard_id: int, epoch: int, node_id: str, deadline: Deadline
    ) -> None:
        """Say as a data node that what a shard becomes is whole here."""
        args = {**_named(uuid, shard_id, epoch), "node_id": node_id}
        await self._change("change_collection", op, args, deadline=deadline)

    async def alter_collection(
        self,
        name: str,
        deadline: Deadline,
        *,
        replication: int | None = None,
        write_quorum: int | None = None,
        read_quorum: int | None = None,
    ) -> CollectionInfo:
        """See ``Metadata``."""
        numbers = {"replication": replication, "write_quorum": write_quorum, "read_quorum": read_quorum}
        args = {"name": name, **numbers}
        info: CollectionInfo = await self._change("change_collection", "reshape_collection", args, deadline=deadline)
        return info

    async def drain(self, node_id: str, draining: bool, deadline: Deadline) -> Member:
        """See ``Metadata``."""
        member: Member = await self._change("drain", node_id, draining, deadline=deadline)
        return member

    async def lease_origin(self, holder: str, stamp: int, deadline: Deadline) -> OriginLease:
        """See ``Metadata``."""
        lease: OriginLease = await self._change("lease_origin", holder, stamp, deadline=deadline)
        return lease

    async def note_repaired(self, node_id: str, shards: Sequence[RepairedShard], deadline: Deadline) -> None:
        """Say up to which stamps the replicas of shards were found equal."""
        await self._change("note_repaired", node_id, list(shards), deadline=deadline)

    async def status(self, deadline: Deadline) -> dict[str, Any]:
        """See ``Metadata``."""
        report: dict[str, Any] = await self._ask("report", (), deadline)
        return report

    async def _change(self, kind: str, *args: Any, deadline: Deadline) -> Any:
        """One intention, under one request id however often it is sent."""
        self._asked += 1
        me = self._process
        asking = Asking(f"{me.name}.{me.life}.{self._asked}", me.name)
        return await self._ask(kind, (asking, *args), deadline)

    async def _ask(self, kind: str, call: Any, deadline: Deadline) -> Any:
        maybe = False
        while True:
            attempt = Deadline.after(self._clock, min(_ATTEMPT_S, deadline.left_s))
            try:
                return await within(attempt, self._network.call(self._process, COORDINATORS, kind, call, attempt))
            except (UnavailableError, DeadlineExceededError) as error:
                maybe = maybe or error.outcome == "unknown"
                if deadline.left_s < 0.05:
                    raise UnavailableError(
                        "the coordinators do not answer", field="coordinators", outcome="unknown" if maybe else "none"
                    ) from error
            await asyncio.sleep(min(self._rng.uniform(0.02, 0.3), deadline.left_s))


def _named(uuid: str, shard_id: int, epoch: int) -> dict[str, Any]:
    return {"uuid": uuid, "shard_id": shard_id, "epoch": epoch}


__all__ = ["HEARTBEAT_S", "Follower"]
