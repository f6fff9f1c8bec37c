"""A cluster in a box: data nodes, routers, coordinators and clients on virtual time, everything drawn from one seed."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from omendb_chaos.cluster.clients import NAME, Client, Load
from omendb_chaos.cluster.clocks import MachineClock
from omendb_chaos.cluster.coordinators import COORDINATORS, Coordinators
from omendb_chaos.cluster.datanodes import SMALL, SimDataNode, Surroundings, empty_disk
from omendb_chaos.cluster.follower import Follower
from omendb_chaos.cluster.judge import Judge, differences
from omendb_chaos.cluster.network import Network
from omendb_chaos.cluster.processes import Process, ProcessLoop
from omendb_chaos.cluster.routers import SimRouter
from omendb_chaos.rows.outcome import dice
from omendb_chaos.sim.virtual_time import run_virtually
from omendb_common.config import EngineSettings
from omendb_common.deadline import Deadline
from omendb_common.errors import OmenDBError
from omendb_common.metadata import NewCollection
from omendb_common.quorum import majority
from omendb_common.schema import CollectionSchema, VectorField
from omendb_common.topology import CollectionInfo, Topology
from omendb_datanode.config import RepairSettings
from omendb_router.face_calls import Seen
from omendb_router.settings import RouterSettings

T = TypeVar("T")
_MAJORITY = Seen("majority")
READY_S = 60.0
SETTLED_S = 300.0
"""Time in good weather until moves have ended and what was lost is made anew."""
EQUAL_S = 120.0
"""Time for data nodes to bring their replicas together: a few rounds and what they wait for before each."""
QUIET_ROUNDS_MAX = 60
_RESTART_S = (0.2, 3.0)
_TURN_S = 10.0
# What was asked for in bad weather may arrive in good weather: an operator looks again.
_OPERATOR_ROUNDS, _OPERATOR_S = 2, 6.0


@dataclass(frozen=True, slots=True)
class Size:
    """How large a cluster is."""

    datanodes: int = 3
    routers: int = 2
    clients: int = 3
    shards: int = 1
    replication: int = 3
    write_quorum: int = 2
    read_quorum: int = 2


@dataclass(slots=True)
class Options:
    """What a world may have beside its size.

    ``background``: further work of every data node, while it lives. ``repair``: whether, and how, nodes bring their
    replicas together by themselves; without it reads at the quorum must do it. ``level``: the cluster's feature level.
    ``coordinators``: settings of theirs, beside those of every world.
    """

    router: RouterSettings = field(default_factory=lambda: RouterSettings(clock_offset_ms_max=60_000.0))
    engine: EngineSettings = SMALL
    background: tuple[Callable[[SimDataNode], Coroutine[Any, Any, None]], ...] = ()
    repair: RepairSettings | None = None
    gc_grace_s: float = 3600.0
    level: int = 1
    coordinators: Mapping[str, Any] = field(default_factory=dict)


class World:
    """See the module. Made and used inside :func:`play`."""

    def __init__(
        self, loop: ProcessLoop, seed: object, size: Size, whole: Iterable[int], options: Options | None = None
    ) -> None:
        self.loop = loop
        self.seed = seed
        self.size = size
        self.options = options or Options()
        self.clock = MachineClock(loop)
        self.judge = Judge(frozenset(whole))
        self.faults: Counter[str] = Counter()
        self.lost = 0
        self.promised = size.write_quorum
        self.healthy = False
        self._trace = hashlib.blake2b(digest_size=8)
        self.network = Network(loop, self.rng("network"), self.note)
        self.coordinators = Coordinators(
            *(loop, self.network, self.clock, self.rng("coordinators")),
            *(self.options.gc_grace_s, self.options.level, self.options.coordinators),
        )
        self.nodes = {name: self._node(name) for name in _names("d", size.datanodes)}
        self.routers = {name: self._router(name) for name in _names("r", size.routers)}
        self.clients: list[Client] = []
        self._repairs = self.rng("repairs")
        self._admin = Process(loop, "admin")
        self.admin = Follower(self.network, self._admin, self.clock, self.rng("admin"))

    def rng(self, purpose: object) -> random.Random:
        """Dice of their own for every purpose."""
        return dice("world", self.seed, purpose)

    def note(self, *words: object) -> None:
        """Something happened: it becomes part of the trace."""
        self._trace.update(f"{self.loop.time():.6f} {words}\n".encode())

    @property
    def trace(self) -> str:
        """The hash of everything that happened, in its order."""
        return self._trace.hexdigest()

    @property
    def places(self) -> list[str]:
        """Everybody's place in the network."""
        return [*self.nodes, *self.routers, COORDINATORS, *(c.process.name for c in self.clients)]

    @property
    def machines(self) -> list[SimDataNode | SimRouter]:
        """Data nodes and routers."""
        return [*self.nodes.values(), *self.routers.values()]

    @property
    def topology(self) -> Topology:
        """What the coordinators agree on."""
        return self.coordinators.topology

    def _node(self, name: str) -> SimDataNode:
        rng = self.rng(name)
        around = Surroundings(
            self.loop,
            self.network,
            rng,
            self.judge.replica_answered,
            self._died,
            self.options.engine,
            self.options.background,
            self.options.repair,
        )
        return SimDataNode(name, around, MachineClock(self.loop), empty_disk(rng.getrandbits(32)))

    def _router(self, name: str) -> SimRouter:
        clock = MachineClock(self.loop)
        return SimRouter(name, self.loop, self.network, clock, self.rng(name), self.options.router, self.judge.leased)

    def _died(self, node: SimDataNode, reason: str) -> None:
        """A data node ended by itself: its supervisor starts it again."""
        if node.up:
            self.faults["died by itself"] += 1
            self.note("died", node.name, reason)
            if reason.startswith("CorruptionError"):
                self.judge.violated(f"{node.name} takes its own disk for damaged: {reason}")
            node.kill()
            self.restart_later(node)

    def admin_work(self, work: Coroutine[Any, Any, None]) -> None:
        """Have the administrator do something meanwhile."""
        self._admin.spawn(work)

    def restart_later(self, what: SimDataNode | SimRouter, after_s: float | None = None) -> None:
        """Start a process again, some time from now."""
        seconds = self._repairs.uniform(*_RESTART_S) if after_s is None else after_s
        self.loop.outside(seconds, self._start, what)

    def _start(self, what: SimDataNode | SimRouter) -> None:
        if not what.up:
            self.note("starts", what.name)
            what.start()

    # -- life

    async def begin(self, load: Load | None = None) -> CollectionInfo:
        """Start everything, and make the collection."""
        for what in self.machines:
            what.start()
        self.admin.start()
        await self.until(self.all_ready, "the cluster is up")
        size = self.size
        new = NewCollection(
            NAME,
            CollectionSchema("", (VectorField(2),)),
            size.shards,
            size.replication,
            size.write_quorum,
            size.read_quorum,
        )
        info = await self.admin.create_collection(new, self.soon(10.0))
        await self.until(lambda: self._serve(info.revision), "the collection is served")
        if load is not None:
            for number in range(1, size.clients + 1):
                self.clients.append(self.client(number, load))
        return info

    def client(self, number: int, load: Load) -> Client:
        """One more client."""
        name = f"c{number}"
        process = Process(self.loop, name)
        return Client(
            number,
            process,
            self.network,
            self.clock,
            list(self.routers),
            load,
            self.judge,
            self.rng(name),
            self.note,
            self.promised,
            self.size.read_quorum >= majority(self.size.replication),
        )

    def all_ready(self) -> bool:
        """Whether every process is up and serves."""
        return all(node.ready for node in self.nodes.values()) and all(r.ready for r in self.routers.values())

    def _all_open(self) -> bool:
        hosting = [node.hosting for node in self.nodes.values()]
        return all(h is not None and set(h.report().values()) <= {"open"} for h in hosting)

    def _serve(self, revision: int) -> bool:
        routers = [r.router for r in self.routers.values()]
        return all(n.hosting is not None and n.hosting.revision >= revision for n in self.nodes.values()) and all(
            router is not None and router.topology.revision >= revision for router in routers
        )

    async def until(self, holds: Callable[[], bool], what: str, patience_s: float = READY_S) -> None:
        """Wait until something holds; it is a violation when that takes too long."""
        end = self.loop.time() + patience_s
        while not holds():
            if self.loop.time() > end:
                self.judge.violated(f"liveness: not within {patience_s:.0f} s: {what}")
                raise StuckError(what)
            await asyncio.sleep(0.05)

    def soon(self, seconds: float = 2.0) -> Deadline:
        """A deadline on the world's own clock."""
        return Deadline.after(self.clock, seconds)

    async def drive(self) -> None:
        """Let the clients do their work."""
        await asyncio.gather(*(client.process.spawn(client.run()) for client in self.clients))

    # -- the end

    def heal(self) -> None:
        """No more faults: everybody is up, goes on, hears everybody, and has room and time."""
        self.healthy = True
        self.note("heal")
        self.network.heal()
        self.coordinators.process.resume()
        if not self.coordinators.up:
            self.coordinators.start()
        for node in self.nodes.values():
            node.disk.faults.clear()
            node.doomed = None
            node.disk.capacity_bytes = None
            node.slow_s = 0.0
        for what in self.machines:
            if what.process is not None:
                what.process.resume()
            else:
                self._start(what)
        for clock in self.clocks():
            clock.skew_ms = clock.drift = 0.0

    def clocks(self) -> list[MachineClock]:
        """The clocks of all machines."""
        return [what.clock for what in self.machines]

    async def quiet(self, ids: list[int]) -> None:
        """The liveness phase: everybody answers again, and reads at the quorum bring the replicas to be equal."""
        await self.until(self.all_ready, "everybody is up again")
        await self.until(self._all_open, "every replica is open again")
        for _ in range(_OPERATOR_ROUNDS):
            await self._put_right()
            await asyncio.sleep(_OPERATOR_S)
        reader = self.client(99, Load(ids, 0, 1.0, (5.0, 5.0)))
        if self.options.repair is not None:
            self.admin_work(self._keep_putting_right())
            await self.until(self._settled, "every shard has its replicas again", SETTLED_S)
            await self.until(lambda: not self.differences(ids), "replicas are equal, with nobody reading", EQUAL_S)
        await self.until_read(reader, ids)
        for _ in range(QUIET_ROUNDS_MAX):
            different = {int(what.split()[3].rstrip(":")) for what in self.differences(ids)}
            if not different:
                break
            for point_id in sorted(different):
                await reader.process.spawn(reader.read(point_id))
            # A router asks who was quickest lately, and forgets that in time: so every replica has its turn.
            await asyncio.sleep(_TURN_S)
        await reader.process.spawn(reader.search(_MAJORITY))

    async def _keep_putting_right(self) -> None:
        """An operator who looks again and again: what was marked as leaving during a move shows when that has ended."""
        while not self._settled():
            await asyncio.sleep(_OPERATOR_S)
            await self._put_right()

    async def _put_right(self) -> None:
        """What an operator does when the weather is good again: nothing drains, and no replica leaves for nowhere."""
        for member in list(self.topology.members.values()):
            if member.role == "datanode" and member.state == "draining":
                await self.admin.drain(member.node_id, False, self.soon(10.0))
        for info in list(self.topology.collections.values()):
            for shard in info.shards:
                if shard.move is None and shard.nodes("leaving"):
                    stays = tuple(replace(r, state="active") if r.state == "leaving" else r for r in shard.replicas)
                    with suppress(OmenDBError):  # it has begun to move: then it is no longer this one's to mend
                        await self.admin.place_shard(
                            info.schema.uuid, shard.shard_id, shard.epoch, stays, self.soon(10.0)
                        )

    def _settled(self) -> bool:
        """V11: nothing is on its way, and every shard has as many active replicas as it should, on a node each."""
        return all(
            shard.move is None
            and shard.recut is None
            and shard.quorums is None
            and len(shard.replicas) == info.replication
            and len(shard.nodes("active")) == info.replication
            for info in self.topology.collections.values()
            for shard in info.shards
        )

    async def until_read(self, reader: Client, ids: list[int]) -> None:
        """Read every point once; in good weather each read must succeed before long."""
        end = self.loop.time() + READY_S
        for point_id in ids:
            while not await reader.process.spawn(reader.read(point_id)):
                if self.loop.time() > end:
                    self.judge.violated(f"liveness: no read of {point_id} within {READY_S:.0f} s in good weather")
                    raise StuckError("a read")
                await asyncio.sleep(0.2)

    def differences(self, ids: list[int]) -> list[str]:
        """Points of which not all replicas that count have the same."""
        return list(differences(list(self.nodes.values()), self.topology, ids))

    def check(self, ids: list[int]) -> None:
        """Everything that must hold now that it is quiet."""
        judge, nodes = self.judge, list(self.nodes.values())
        judge.check_history()
        judge.check_equal(nodes, self.topology, ids)
        # What was on a lost disk is on another one by now, where there is anything that makes it anew.
        missing = self.lost if self.options.repair is None else 0
        judge.check_copies(nodes, self.topology, missing)
        judge.check_durable(nodes, self.topology, missing, self.rng("durable"))
        judge.check_amnesia(nodes, self.topology)
        judge.check_trees(nodes)
        judge.check_replay(nodes, self.topology, ids)
        judge.violations += [f"a fault of the code: {fault}" for fault in self.loop.faults]

    def stop(self) -> None:
        """End every process."""
        for what in self.machines:
            what.kill()
        for process in (self.coordinators.process, self._admin, *(c.process for c in self.clients)):
            process.kill()


class StuckError(Exception):
    """What had to come did not."""


def _names(letter: str, count: int) -> list[str]:
    return [f"{letter}{number}" for number in range(1, count + 1)]


def play(
    seed: object,
    story: Callable[[World], Awaitable[T]],
    size: Size | None = None,
    whole: Iterable[int] = (),
    options: Options | None = None,
) -> T:
    """Run a story in a new world, in no time."""
    loop = ProcessLoop()

    async def told() -> T:
        world = World(loop, seed, size or Size(), whole, options)
        try:
            return await story(world)
        finally:
            world.stop()
            await asyncio.sleep(0)

    with _no_collections():
        return run_virtually(loop, told())


@contextmanager
def _no_collections() -> Iterator[None]:
    """Look for unreachable cycles once, at the end: while a run lasts that is a fifth of its time, for nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
            gc.collect()


__all__ = ["EQUAL_S", "READY_S", "Options", "Size", "StuckError", "World", "play"]
