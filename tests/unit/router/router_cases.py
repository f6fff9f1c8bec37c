"""A small cluster in memory for the router's tests: data nodes, a network, routers, on virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from omendb_chaos.sim.faulty_node import FaultyNode, Weather
from omendb_chaos.sim.memory_metadata import MemoryMetadata
from omendb_chaos.sim.memory_node import MemoryNode
from omendb_chaos.sim.virtual_time import VirtualClock, VirtualLoop, run_virtually
from omendb_common.deadline import Deadline
from omendb_common.ids import IdColumn, PointId
from omendb_common.metadata import NewCollection
from omendb_common.payload import columns_from_rows, rows_from_columns
from omendb_common.schema import CollectionSchema, VectorField
from omendb_common.shard_calls import DataNode
from omendb_common.topology import CollectionInfo
from omendb_router.face_calls import Found, Hits, Question, Seen, Written
from omendb_router.nodes import NodePool
from omendb_router.router import Router
from omendb_router.settings import RouterSettings
from tests.unit.router.engine_nodes import EngineReplicas, engine_node

T = TypeVar("T")
MAJORITY = Seen("majority")
ONE = Seen("one")
VERIFIED = Seen("verified")
DEFAULT = Seen()


class Cluster:
    """``nodes`` data nodes d1 … behind a network whose weather tests change, and any number of routers.

    The nodes are dictionaries, or with ``engine`` the real rules over the real engine.
    """

    def __init__(self, loop: VirtualLoop, nodes: int = 3, seed: int = 0, *, engine: bool = False) -> None:
        self.loop = loop
        self.clock = VirtualClock(loop)
        self.rng = random.Random(seed)
        names = [f"d{number}" for number in range(1, nodes + 1)]
        self.metadata = MemoryMetadata(names)
        self.clocks = {name: VirtualClock(loop) for name in names}
        self.memory: dict[str, MemoryNode] = {}
        self.engines: list[EngineReplicas] = []
        self.network = {name: FaultyNode(self._node(name, engine), random.Random(self.rng.random())) for name in names}
        self.routers: list[Router] = []

    def _node(self, name: str, engine: bool) -> DataNode:
        if engine:
            rules, replicas = engine_node(name, self.clocks[name], self.metadata)
            self.engines.append(replicas)
            return rules
        node = self.memory[name] = MemoryNode(name, self.clocks[name], self.metadata)
        self.metadata.on_change(node.follow)
        return node

    async def router(self, skew_ms: float = 0.0, **settings: Any) -> Router:
        """One more router; its clock is ``skew_ms`` off."""
        number = len(self.routers) + 1
        # Nodes in memory agree on nothing.
        settings = {"search_once": bool(self.engines), **settings}
        router = Router(
            self.metadata,
            NodePool.fixed(dict(self.network)),
            VirtualClock(self.loop, skew_ms),
            RouterSettings(**settings),
            holder=f"r{number}",
            seed=self.rng.randrange(1 << 30),
        )
        self.routers.append(router)
        await router.start(self.soon(5.0))
        return router

    def soon(self, seconds: float = 2.0) -> Deadline:
        """A deadline."""
        return Deadline.after(self.clock, seconds)

    async def collection(self, name: str = "c", **new: Any) -> CollectionInfo:
        """A collection of two-dimensional points."""
        schema = CollectionSchema("", (VectorField(2),))
        return await self.metadata.create_collection(NewCollection(name, schema, **new), self.soon())

    def weather(self, name: str, **changes: Any) -> None:
        """Change the weather of one node."""
        self.network[name].weather = replace(self.network[name].weather, **changes)

    def clear(self) -> None:
        """Good weather everywhere."""
        for node in self.network.values():
            node.weather = Weather()

    def holds(self, name: str, point_id: PointId) -> bool:
        """Whether a node has the point, live."""
        return any(
            i == point_id and r.live for rep in self.memory[name].replicas.values() for i, r in rep.records.items()
        )

    async def stop(self) -> None:
        """Stop every router, and close what the nodes have open."""
        for router in self.routers:
            await router.stop(self.soon(5.0))
        for replicas in self.engines:
            replicas.close()


def play(story: Callable[[Cluster], Coroutine[Any, Any, T]], **cluster: Any) -> T:
    """Run a story on a fresh cluster, in no time."""
    loop = VirtualLoop()

    async def whole() -> T:
        made = Cluster(loop, **cluster)
        try:
            return await story(made)
        finally:
            await made.stop()

    return run_virtually(loop, whole())


def vector(*numbers: float) -> npt.NDArray[np.float32]:
    """One row per number: (number, 0)."""
    return np.array([[n, 0.0] for n in numbers], np.float32)


async def put(
    router: Router,
    ids: Sequence[PointId],
    numbers: Sequence[float],
    deadline: Deadline,
    *,
    rows: Sequence[dict[str, Any]] | None = None,
    name: str = "c",
    **options: Any,
) -> Written:
    """Upsert points whose vector and metadata ``v`` are a number each."""
    payload = columns_from_rows(list(rows) if rows is not None else [{"v": n} for n in numbers])
    return await router.upsert(
        name, IdColumn.of(list(ids)), {"": vector(*numbers)}, payload, len(ids), deadline=deadline, **options
    )


async def fetch(
    router: Router, ids: Sequence[PointId], deadline: Deadline, seen: Seen = DEFAULT, name: str = "c"
) -> dict[PointId, dict[str, Any]]:
    """Metadata by id of the points that exist."""
    found = await router.get(name, IdColumn.of(list(ids)), payload=True, vectors=True, seen=seen, deadline=deadline)
    return as_dict(found)


def as_dict(found: Found) -> dict[PointId, dict[str, Any]]:
    """Metadata by id; checks that the columns fit together."""
    assert found.payload is not None
    rows = rows_from_columns(found.payload, n=len(found.ids))
    assert len(found.vectors[""]) == len(found.ids)
    return dict(zip(found.ids.to_list(), rows, strict=True))


async def nearest(
    router: Router,
    at: float,
    k: int,
    deadline: Deadline,
    seen: Seen = DEFAULT,
    *,
    name: str = "c",
    **options: Any,
) -> list[tuple[PointId, float]]:
    """Ids and distances of the k points nearest to (at, 0)."""
    hits = await router.search(name, Question(vector(at), k, **options), seen=seen, deadline=deadline)
    return flat(hits)[0]


def flat(hits: Hits) -> list[list[tuple[PointId, float]]]:
    """Per query its hits; checks that the columns fit together."""
    ids = hits.ids.to_list()
    assert len(ids) == int(hits.counts.sum())
    assert hits.vectors is None or len(hits.vectors) == len(ids)
    out = []
    start = 0
    for row, count in enumerate(hits.counts.tolist()):
        out.append([(ids[start + i], round(float(hits.distances[row, i]), 4)) for i in range(count)])
        start += count
    return out
