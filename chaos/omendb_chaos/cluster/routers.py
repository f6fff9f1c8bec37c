"""A router of a simulated cluster: the real one, in a process that stands still and dies when it is told to."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from omendb_chaos.cluster.clocks import MachineClock
from omendb_chaos.cluster.follower import Follower
from omendb_chaos.cluster.network import Network, RemoteNode
from omendb_chaos.cluster.processes import Process, ProcessLoop
from omendb_common.deadline import Deadline
from omendb_common.errors import OmenDBError, UnavailableError
from omendb_common.shard_calls import DataNode
from omendb_common.topology import Member
from omendb_router.nodes import NodePool
from omendb_router.router import Router
from omendb_router.settings import RouterSettings


@dataclass(frozen=True, slots=True)
class RouterCall:
    """One call of a client: what is handed to a method of the router, which gets the deadline beside."""

    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class SimRouter:
    """One router. Every start of it is another holder of leases."""

    name: str
    loop: ProcessLoop
    network: Network
    clock: MachineClock
    rng: random.Random
    settings: RouterSettings
    leased: Callable[[str, Router], None]
    process: Process | None = None
    router: Router | None = None
    life: int = 0
    ready: bool = False
    ended: Counter[str] = field(default_factory=Counter)

    @property
    def counts(self) -> Counter[str]:
        """What it counted, in all its lives."""
        if self.router is None:
            return self.ended
        return self.ended + Counter({name: int(number) for name, number in self.router.figures().items()})

    @property
    def up(self) -> bool:
        """Whether there is a process."""
        return self.process is not None

    def start(self) -> None:
        """Start the process."""
        self.life += 1
        self.process = Process(self.loop, self.name, self.life)
        self.process.spawn(self._run(self.process))

    def kill(self) -> None:
        """``kill -9``."""
        process, self.process = self.process, None
        if process is None:
            return
        self.ready = False
        self.ended = self.counts
        self.router = None
        self.network.gone(self.name)
        process.kill()

    async def _run(self, process: Process) -> None:
        follower = Follower(self.network, process, self.clock, self.rng)
        follower.start()
        network = self.network

        def connect(member: Member) -> DataNode:
            return RemoteNode(network, process, member.node_id)

        router = Router(
            follower,
            NodePool(connect, _nothing_to_close, encoded=False),
            self.clock,
            self.settings,
            holder=f"{self.name}.{self.life}",
            seed=self.rng.getrandbits(32),
        )
        while not await self._started(router, follower):
            await asyncio.sleep(0.2)
        self.router = router
        self.leased(f"{self.name}.{self.life}", router)
        network.serve(process, self, self.clock)
        self.ready = True

    async def _started(self, router: Router, follower: Follower) -> bool:
        try:
            await follower.refresh(0, Deadline.after(self.clock, 2.0))
            await router.start(Deadline.after(self.clock, 2.0))
        except OmenDBError:
            return False
        return True

    async def ask(self, kind: str, call: RouterCall, deadline: Deadline) -> Any:
        """See ``Server``: the calls of the router's faces."""
        router = self.router
        if router is None:
            raise UnavailableError("not ready", field=self.name, outcome="none")
        return await getattr(router, kind)(*call.arguments, **call.options, deadline=deadline)


async def _nothing_to_close(node: DataNode) -> None:
    """Connections of the simulation need no closing."""


__all__ = ["RouterCall", "SimRouter"]
