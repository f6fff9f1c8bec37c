"""Asks the data nodes of a cluster how equal the replicas of a collection are, shard by shard."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
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
    known. None, with a ``problem``, when no replica answered.
    """

    shard_id: int
    node_id: str
    found: dict[str, Any] | None
    problem: str = ""

    @property
    def equal(self) -> bool:
        """Whether every replica of the shard was compared, and all hold the same."""
        return self.found is not None and bool(self.found["equal"])


def check_replicas(
    coordinators: Sequence[str],
    collection: str,
    timeout_s: float,
    *,
    repair: bool = False,
    tls: TlsFiles | None = None,
    node_id: str = "omendb-cli",
) -> list[ShardReport]:
    """Compare the replicas of every shard of a collection, and with ``repair`` bring them together.

    Args:
        node_id: the router whom the certificate in ``tls`` names.

    Raises:
        NotFoundError: there is no such collection.
        UnavailableError, DeadlineExceededError: no coordinator answers.
    """
    return asyncio.run(_check(coordinators, collection, timeout_s, "repair" if repair else "verify", tls, node_id))


async def _check(
    coordinators: Sequence[str], collection: str, timeout_s: float, task: Task, tls: TlsFiles | None, node_id: str
) -> list[ShardReport]:
    deadline = Deadline.after(SystemClock(), timeout_s)
    client = CoordinatorClient(coordinators, tls, name=node_id)
    await client.start()
    try:
        topology = await client.refresh(0, deadline)
    finally:
        await client.close()
    info = topology.collection(collection)
    turns = asyncio.Semaphore(_SHARDS_AT_A_TIME)

    async def one(shard: Shard) -> ShardReport:
        async with turns:
            return await _of_shard(topology, info, shard, task, deadline, tls, node_id)

    return list(await asyncio.gather(*map(one, info.shards)))


async def _of_shard(
    topology: Topology,
    info: CollectionInfo,
    shard: Shard,
    task: Task,
    deadline: Deadline,
    tls: TlsFiles | None,
    node_id: str,
) -> ShardReport:
    problems = []
    call = Maintain(ShardRef(info.schema.uuid, shard.shard_id, shard.epoch, 0), task)
    for member in filter(None, map(topology.members.get, shard.nodes("active"))):
        try:
            answer = await _ask(topology, member, call, deadline, tls, node_id)
        except OmenDBError as error:
            problems.append(f"{member.node_id}: {error}")
            continue
        return ShardReport(shard.shard_id, member.node_id, answer)
    return ShardReport(shard.shard_id, "", None, "; ".join(problems) or "no replica is active")


async def _ask(
    topology: Topology, member: Member, call: Maintain, deadline: Deadline, tls: TlsFiles | None, node_id: str
) -> dict[str, Any]:
    identity = FrameIdentity(topology.cluster_id, "router", node_id)
    node = RemoteDataNode(member.address, identity=identity, node_id=member.node_id, tls=tls, connections=1)
    try:
        answer = await node.maintain(call, deadline)
    finally:
        await node.close()
    if answer.verdict is not Verdict.OK:
        raise answer.error or OmenDBError(f"it answers {answer.verdict.name}", field="shard")
    found: dict[str, Any] = answer.value
    return found


__all__ = ["ShardReport", "check_replicas"]
