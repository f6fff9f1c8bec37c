"""Coordinators in this process behind real gRPC on loopback, over groups that live in memory."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.metadata import NewCollection
from omendb_common.topology import Topology
from omendb_common.wire.coordinator_client import CoordinatorClient
from omendb_coordinator.catalog import Catalog
from omendb_coordinator.config import CoordinatorSettings
from omendb_coordinator.control import Control
from omendb_coordinator.service import CoordinatorServer
from omendb_coordinator.watch import Watch
from tests.unit.coordinator.catalog_cases import SCHEMA, node
from tests.unit.coordinator.memory_group import MemoryGroup

CLOCK = SystemClock()
_IDS = itertools.count()
QUICK = CoordinatorSettings(
    suspect_s=0.3, down_s=0.6, grace_s=0.6, decide_s=0.02, watch_keepalive_s=0.05, leaderless_s=0.2
)


def soon(timeout_s: float = 10.0) -> Deadline:
    """A deadline that no test should reach."""
    return Deadline.after(CLOCK, timeout_s)


def collection(name: str, **fields: Any) -> NewCollection:
    """A collection to make."""
    return NewCollection(name, SCHEMA, **fields)


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that is a coroutine, for a runner that knows functions only; no test may hang."""

    async def bounded() -> None:
        async with asyncio.timeout(60.0):
            await test()

    @wraps(test)
    def run() -> None:
        asyncio.run(bounded())

    return run


async def until(predicate: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until something holds; fails when it does not come to hold."""
    async with asyncio.timeout(timeout_s):
        while not predicate():
            await asyncio.sleep(0.005)


class Loopback:
    """One coordinator. ``address`` stays the same when it is stopped and started again."""

    def __init__(self, settings: CoordinatorSettings = QUICK, *, node_id: str = "c1") -> None:
        self.settings = settings
        self.watch = Watch()
        self.catalog = Catalog(self._publish)
        self.group = MemoryGroup(self.catalog, node_id)
        self.addresses: dict[str, str] = {}
        self.control = Control(
            self.group, self.catalog, self.watch, self.addresses, settings, CLOCK, lambda: f"id {next(_IDS)}"
        )
        self.address = "127.0.0.1:0"
        self._server: CoordinatorServer | None = None
        self._duties: asyncio.Task[None] | None = None

    def _publish(self, topology: Topology, resync: bool) -> None:
        self.watch.publish(topology, resync)

    async def start(self, *, leads: bool = True) -> None:
        """Serve, and do a leader's duties if it is to lead."""
        self._server = CoordinatorServer(self.control, None, CLOCK)
        port = await self._server.bind(self.address)
        self.address = f"127.0.0.1:{port}"
        self.addresses[self.group.status.node_id] = self.address
        await self._server.start()
        if leads:
            self._duties = asyncio.create_task(self.control.lead())

    async def stop(self) -> None:
        """Serve no more; what the group remembers stays."""
        if self._duties is not None:
            self._duties.cancel()
            await asyncio.gather(self._duties, return_exceptions=True)
        if self._server is not None:
            await self._server.stop(0)
            self._server = None


@asynccontextmanager
async def one_coordinator(
    settings: CoordinatorSettings = QUICK, nodes: int = 3
) -> AsyncIterator[tuple[Loopback, CoordinatorClient]]:
    """A coordinator that leads, data nodes that are registered, and a client that follows it."""
    before = asyncio.all_tasks()
    server = Loopback(settings)
    await server.start()
    client = CoordinatorClient([server.address], None, CLOCK)
    await client.start()
    try:
        await until(lambda: bool(client.topology.cluster_id))
        for number in range(nodes):
            await client.register(node(f"d{number}"), soon())
        yield server, client
    finally:
        await client.close()
        await server.stop()
    # Whatever was started ends; gRPC's own tasks take a moment.
    await until(lambda: asyncio.all_tasks() <= before)
