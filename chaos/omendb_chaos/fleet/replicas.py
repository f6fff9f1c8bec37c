"""A look into every replica of a collection, past the routers: which version of each point lies on which node."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from omendb.fleet.fleet import Fleet
from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.ids import IdColumn
from omendb_common.ring import key_hashes, owners
from omendb_common.shard_calls import Lookup, ShardRef, State, Verdict
from omendb_common.topology import CollectionInfo, Shard, Topology
from omendb_common.wire.coordinator_client import CoordinatorClient
from omendb_common.wire.datanode_client import RemoteDataNode
from omendb_common.wire.frame_connection import FrameIdentity

R = TypeVar("R")
_CLOCK = SystemClock()
_PATIENCE_S = 20.0
# Nobody leases it: the harness makes no stamps.
_ORIGIN = 0


_MAPS_MAX = 5


class _OldMapError(Exception):
    """A data node knows a newer map."""


@dataclass(frozen=True, slots=True)
class Held:
    """What one node holds of a point."""

    node_id: str
    state: State
    stamp: int
    digest: int


def with_coordinators(fleet: Fleet, work: Callable[[CoordinatorClient], Coroutine[Any, Any, R]]) -> R:
    """Run something that talks to the coordinators."""

    async def run() -> R:
        addresses = [node.address("grpc") for node in fleet.plan.of("coordinator")]
        client = CoordinatorClient(addresses, None, _CLOCK, name="chaos")
        await client.start()
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(run())


def soon(timeout_s: float = _PATIENCE_S) -> Deadline:
    """A deadline that a healthy cluster keeps."""
    return Deadline.after(_CLOCK, timeout_s)


def topology_of(fleet: Fleet) -> Topology:
    """The newest topology."""
    return with_coordinators(fleet, lambda client: client.refresh(0, soon()))


def held(fleet: Fleet, collection: str, ids: list[int], *, but: str = "", only: str = "") -> dict[int, list[Held]]:
    """Per id, what each node of its shard holds; of all nodes but one, or of one only."""
    for _ in range(_MAPS_MAX):
        with contextlib.suppress(_OldMapError):  # a shard's members changed between the two questions
            return _held(topology_of(fleet), collection, ids, but, only)
    raise AssertionError(f"the map changed {_MAPS_MAX} times while replicas were asked")


def _held(topology: Topology, collection: str, ids: list[int], but: str, only: str) -> dict[int, list[Held]]:
    info = topology.collection(collection)
    column = IdColumn.of(ids)
    owner = owners([shard.low for shard in info.shards], key_hashes(column))

    async def ask_all() -> dict[int, list[Held]]:
        found: dict[int, list[Held]] = {i: [] for i in ids}
        for number, shard in enumerate(info.shards):
            mine = column.take(np.flatnonzero(owner == number))
            for node_id in shard.nodes("active"):
                if node_id == but or only not in ("", node_id):
                    continue
                for point_id, one in (await _ask(topology, info, shard, node_id, mine)).items():
                    found[point_id].append(one)
        return found

    return asyncio.run(ask_all())


async def _ask(topology: Topology, info: CollectionInfo, shard: Shard, node_id: str, ids: IdColumn) -> dict[int, Held]:
    if not len(ids):
        return {}
    identity = FrameIdentity(topology.cluster_id, "router", "chaos")
    node = RemoteDataNode(topology.members[node_id].address, identity=identity, node_id=node_id)
    try:
        ref = ShardRef(info.schema.uuid, shard.shard_id, shard.epoch, _ORIGIN)
        looked = await node.lookup(Lookup(ref, ids), soon())
    finally:
        await node.close()
    if looked.verdict in (Verdict.STALE_EPOCH, Verdict.NOT_HERE):
        raise _OldMapError
    assert looked.verdict is Verdict.OK, f"{node_id} answers {looked.verdict.name} to a look-up: {looked.error}"
    columns = zip(ids.to_list(), looked.states.tolist(), looked.stamps.tolist(), looked.digests.tolist(), strict=True)
    return {int(i): Held(node_id, State(state), stamp, digest) for i, state, stamp, digest in columns}


__all__ = ["Held", "held", "soon", "topology_of", "with_coordinators"]
