"""A data node of a simulated cluster: the real hosting, rules and engine over a simulated disk, in a process that dies.

What survives a process is its disk: after a kill as the system had it, after a power cut as the syncs allow.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from omendb_chaos.cluster.clocks import MachineClock
from omendb_chaos.cluster.follower import Follower
from omendb_chaos.cluster.network import Network, RemoteNode
from omendb_chaos.cluster.processes import Process, ProcessLoop
from omendb_chaos.sim.disk import SimDisk
from omendb_chaos.sim.faults import Fault
from omendb_common.config import (
    BufferSettings,
    CompactionSettings,
    EngineSettings,
    IndexSettings,
    MemorySettings,
    StorageSettings,
    WorkerSettings,
)
from omendb_common.deadline import Deadline
from omendb_common.errors import OmenDBError, UnavailableError
from omendb_common.feature_level import CURRENT
from omendb_common.metadata import RepairedShard
from omendb_common.shard_calls import DataNode, ShardRef
from omendb_common.topology import Member, ReplicaSize
from omendb_datanode.config import RepairSettings
from omendb_datanode.engine_threads import EngineThreads
from omendb_datanode.hosting import Hosting, OpenShard
from omendb_datanode.load import Loads
from omendb_datanode.node_folder import open_identity
from omendb_datanode.replicate.agreeing import Agreeing
from omendb_datanode.replicate.arrivals import Arrivals
from omendb_datanode.replicate.exchange import settled_stamp
from omendb_datanode.replicate.pace import Pace
from omendb_datanode.replicate.peers import Peers
from omendb_datanode.replicate.repairer import Repairer
from omendb_datanode.replicate.rounds import Rounds
from omendb_datanode.replicate.splits import Splits
from omendb_datanode.shard_rules import ShardRules
from omendb_engine.hash_tree import TreeCheck
from omendb_engine.replica import Replica

FOLDER = "node"
_LOOK_S = 0.5
_CHORES_S = 2.0
_JOBS = "seal_one", "merge_one", "index_one", "retire_one"

SMALL = EngineSettings(
    storage=StorageSettings(durability="fsync", wal_segment_bytes=1 << 16, ballast_bytes=1 << 16),
    memory=MemorySettings(memory_limit_bytes=64 << 20),
    buffer=BufferSettings(buffer_rows_max=24),
    index=IndexSettings(flat_rows_max=1 << 20, index_delay_s=0.0, build_threads=1),
    compaction=CompactionSettings(merge_fanin=3, interval_s=1.0),
    workers=WorkerSettings(background_threads=0),
)
"""Small numbers, so that a few writes already rotate, seal and merge. Every search is exact."""


REPAIR = RepairSettings(settle_s=3.0, interval_s=20.0, retry_s=1.0, check_s=30.0, call_timeout_s=2.0, batch_rows=3)
"""Replicas are compared every few seconds instead of minutes: runs are short."""


AGREE = RepairSettings(settle_s=3.0, agree_s=0.3, agree_lag_s=0.1, call_timeout_s=1.0)
"""Replicas are asked whether they agree several times a second, so that most searches at a quorum meet an agreement."""


@dataclass(slots=True)
class Surroundings:
    """What a data node gets from its world, beside what is its own.

    ``applied`` is told of every call that a replica answered; ``died`` when the process ended by itself. ``background``
    makes further work of every node, for as long as its process lives; ``repair`` brings replicas together beside it;
    ``agree`` says how often they are asked whether they are.
    """

    loop: ProcessLoop
    network: Network
    rng: random.Random
    applied: Callable[[SimDataNode, str, Any, Any], None]
    died: Callable[[SimDataNode, str], None]
    settings: EngineSettings = SMALL
    background: tuple[Callable[[SimDataNode], Coroutine[Any, Any, None]], ...] = ()
    repair: RepairSettings | None = None
    agree: RepairSettings = AGREE


@dataclass(slots=True, eq=False)
class SimDataNode:
    """One data node. ``slow_s``: how long its disk takes over every call, at most."""

    name: str
    world: Surroundings
    clock: MachineClock
    disk: SimDisk
    process: Process | None = None
    follower: Follower | None = None
    hosting: Hosting | None = None
    rules: ShardRules | None = None
    repairer: Repairer | None = None
    life: int = 0
    folders: int = 1
    ready: bool = False
    slow_s: float = 0.0
    doomed: Fault | None = None
    _peers: dict[str, DataNode] = field(default_factory=dict)

    # -- life and death

    @property
    def up(self) -> bool:
        """Whether there is a process."""
        return self.process is not None

    def start(self) -> None:
        """Start the process."""
        self.life += 1
        self.process = Process(self.world.loop, self.name, self.life)
        self.process.spawn(self._whole_life(self.process))

    def kill(self) -> None:
        """``kill -9``."""
        process, self.process = self.process, None
        if process is None:
            return
        self.ready = False
        self.hosting = self.rules = self.follower = self.repairer = None
        self._peers = {}
        self.doomed = None
        self.disk.faults.clear()
        self.world.network.gone(self.name)
        process.kill()

    def cut_power(self) -> None:
        """The machine loses its power: of what was not synced some survives."""
        self.kill()
        self.disk = self.disk.power_cut(self.world.rng)

    def lose_disk(self) -> None:
        """The machine comes back with an empty disk."""
        self.kill()
        self.folders += 1
        self.disk = empty_disk(self.world.rng.getrandbits(32))

    def doom(self, kinds: tuple[str, ...], nth: int) -> None:
        """Let the process die in the middle of a write: with the nth call to its disk from now on."""
        if self.process is not None and self.doomed is None:
            self.doomed = self.disk.faults.fail(kinds, nth, sticky=True)

    # -- the process

    async def _whole_life(self, process: Process) -> None:
        """Run until it fails, and have the world hear of that."""
        try:
            await self._run(process)
            reason = "a replica failed"
        except (OmenDBError, OSError) as error:
            reason = f"{type(error).__name__}: {error}"
        if process.alive:
            self.world.loop.outside(0.0, self.world.died, self, reason)

    async def _run(self, process: Process) -> None:
        """What a data node process does, from start to end; see ``omendb_datanode.node``."""
        world = self.world
        follower = self.follower = Follower(world.network, process, self.clock, world.rng)
        follower.start()
        cluster_id = await self._cluster(follower)
        incarnation = f"{self.name}-folder-{self.folders}"
        identity = open_identity(self.disk, FOLDER, cluster_id, self.name, incarnation)
        self.hosting = Hosting(
            self.disk,
            FOLDER,
            self.name,
            follower,
            world.settings,
            self.clock,
            opened=lambda stamp: rules.observe(stamp),
            drained=lambda replica: rules.drained(replica),
            retry_s=5.0,
        )
        threads = EngineThreads(readers=0, writers=0)
        loads = Loads(self.clock, _Work().s)
        rules = self.rules = ShardRules(self.hosting, self.clock, threads, care=self._make_round, loads=loads)
        world.network.serve(process, self, self.clock)
        address = f"{self.name}:8500"
        member = Member(self.name, "datanode", address, identity.incarnation, feature_level=CURRENT)
        while not await self._registered(follower, member):
            await asyncio.sleep(0.2)
        follower.beat(member, self.hosting.problems, self._sizes)
        await self.hosting.start()
        peers = Peers(lambda member: self.peer(member.node_id), _leave_open)
        missing = _unheard
        if world.repair is not None:
            missing = self._look_after(follower, self.hosting, rules, peers, threads, world.repair).missing
        agreeing = self.name, rules, peers, self.hosting.opened, follower, self.clock, world.agree
        Agreeing(*agreeing, missing=missing).start()
        self.ready = True
        for work in world.background:
            process.spawn(work(self))
        await self._until_it_fails(self.hosting)

    def _look_after(
        self,
        follower: Follower,
        hosting: Hosting,
        rules: ShardRules,
        peers: Peers,
        threads: EngineThreads,
        settings: RepairSettings,
    ) -> Repairer:
        """Bring replicas together and fill those that join, split or merge, as the process does; they end with it."""
        pace = Pace(self.clock, settings)

        async def check(replica: Replica) -> TreeCheck:
            found = replica.hash_trees.check(settled_stamp(self.clock, settings.settle_s))
            if found.leaves:
                self.world.died(self, f"its hash tree does not agree with its records: {found}")
            return found

        async def report(shards: Sequence[RepairedShard]) -> None:
            await follower.note_repaired(self.name, shards, Deadline.after(self.clock, 2.0))

        async def advance(opened: OpenShard, deadline: Deadline) -> None:
            await follower.advance_move(*opened.key.shard, opened.shard.epoch, self.name, deadline)

        async def recut(opened: OpenShard, deadline: Deadline) -> None:
            op = "advance_split" if opened.shard.merge is None else "advance_merge"
            await follower.advance_recut(op, *opened.key.shard, opened.shard.epoch, self.name, deadline)

        rounds = Rounds(
            *(self.name, rules, peers, follower, self.clock, settings, pace),
            proven=lambda shard: repairer.proven(shard),
        )
        repairer = self.repairer = Repairer(
            *(self.name, rounds, hosting.opened, follower, self.clock, settings), check=check, report=report
        )
        repairer.start()
        Arrivals(*(self.name, rules, peers.of, hosting.opened, follower, advance, self.clock, settings, pace)).start()
        Splits(*(hosting.opened, threads, follower, recut, self.clock, settings, pace)).start()
        return repairer

    async def _make_round(self, shard: ShardRef, repair: bool) -> Any:
        if self.repairer is None:
            raise UnavailableError("nothing here brings replicas together", field="shard")
        return await self.repairer.on_request(shard, repair)

    async def _cluster(self, follower: Follower) -> str:
        while True:
            try:
                topology = await follower.refresh(0, Deadline.after(self.clock, 2.0))
                if topology.cluster_id:
                    return topology.cluster_id
            except OmenDBError:
                await asyncio.sleep(0.2)

    async def _registered(self, follower: Follower, member: Member) -> bool:
        try:
            await follower.register(member, Deadline.after(self.clock, 2.0))
        except OmenDBError:
            return False
        return True

    async def _until_it_fails(self, hosting: Hosting) -> None:
        """Look after the replicas until one of them stops for good: then only a new process may speak for it."""
        chores_s = self.clock.mono_s()
        while True:
            hosting.check()
            if hosting.failed():
                return
            if self.clock.mono_s() - chores_s >= _CHORES_S:
                chores_s = self.clock.mono_s()
                for replica in hosting.replicas():
                    self._chores(replica)
            self.check_doom()
            await asyncio.sleep(_LOOK_S)

    def _chores(self, replica: Replica) -> None:
        """What the worker threads do for a replica."""
        for job in _JOBS:
            try:
                for _ in range(3):
                    if not replica.writing or not getattr(replica.maintenance, job)():
                        break
            except (OmenDBError, OSError) as error:
                replica.maintenance.note_error(error)

    def check_doom(self) -> None:
        """Die now, if the disk has come to the call at which this process was to die."""
        if self.doomed is not None and self.doomed.fired:
            self.world.died(self, "in the middle of a write")

    def _sizes(self) -> list[ReplicaSize]:
        """How large and busy the replicas are; bytes count nothing here."""
        assert self.hosting is not None
        assert self.rules is not None
        return [
            ReplicaSize(*one.key.shard, replica.snapshot().live, 0, load)
            for one in self.hosting.opened()
            if not (replica := one.hosted.replica).closed
            for load in (self.rules.loads.of(replica).told(one.shard.low, one.shard.high),)
        ]

    # -- calls

    async def ask(self, kind: str, call: Any, deadline: Deadline) -> Any:
        """See ``Server``: the calls of :class:`~omendb_common.shard_calls.DataNode`."""
        rules = self.rules
        assert rules is not None
        if self.slow_s:
            await asyncio.sleep(self.world.rng.random() * self.slow_s)
        answer = await getattr(rules, kind)(call, deadline)
        if self.doomed is not None and self.doomed.fired:
            # It died in the middle of this: nobody hears what it was about to say.
            self.world.died(self, "in the middle of a write")
            await asyncio.sleep(0.0)
        self.world.applied(self, kind, call, answer)
        if self.slow_s:
            await asyncio.sleep(self.world.rng.random() * self.slow_s)
        return answer

    def peer(self, node_id: str) -> DataNode:
        """Another data node, over the network: for what data nodes do among themselves."""
        assert self.process is not None
        known = self._peers.get(node_id)
        if known is None:
            known = self._peers[node_id] = RemoteNode(self.world.network, self.process, node_id)
        return known


class _Work:
    """Processor time of a simulated process: every piece of work takes a millisecond."""

    def __init__(self) -> None:
        self._looks = 0

    def s(self) -> float:
        """Seconds; it is looked at where a piece begins and where it ends."""
        self._looks += 1
        return self._looks * 0.001


def _unheard(opened: OpenShard) -> None:
    """Nobody brings replicas together here."""


async def _leave_open(node: DataNode) -> None:
    """Its connection is the network's."""


def empty_disk(seed: int) -> SimDisk:
    """A new disk, with the folder that an operator makes on it."""
    disk = SimDisk(seed)
    disk.mkdir(FOLDER)
    disk.sync_dir(".")
    return disk


def larger(settings: EngineSettings, rows: int) -> EngineSettings:
    """The same with buffers of so many rows."""
    return replace(settings, buffer=replace(settings.buffer, buffer_rows_max=rows))


__all__ = ["FOLDER", "REPAIR", "SMALL", "SimDataNode", "Surroundings", "empty_disk", "larger"]
