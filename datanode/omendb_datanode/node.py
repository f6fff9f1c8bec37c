"""One data node process: its folder, its membership, its replicas, and whoever calls it, from start to end."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import logging
import os
import random
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from omendb_common.clock import SystemClock
from omendb_common.config import EngineSettings
from omendb_common.deadline import Deadline
from omendb_common.disk import RealDisk
from omendb_common.errors import (
    AlreadyExistsError,
    DatabaseLockedError,
    DeadlineExceededError,
    OmenDBError,
    ReplicaFailedError,
    ResourceExhaustedError,
    UnavailableError,
)
from omendb_common.feature_level import CURRENT
from omendb_common.metadata import RepairedShard
from omendb_common.security.renewal import renewed
from omendb_common.security.tls import TlsFiles
from omendb_common.shard_calls import DataNode, ShardRef
from omendb_common.telemetry.http import HealthServer
from omendb_common.telemetry.loop_lag import LoopLag
from omendb_common.telemetry.metrics import Metrics
from omendb_common.topology import Fill, Member, Shard, Topology
from omendb_common.wire.coordinator_client import CoordinatorClient
from omendb_common.wire.datanode_client import RemoteDataNode
from omendb_common.wire.datanode_server import serve_datanode
from omendb_common.wire.frame_client import split_address
from omendb_common.wire.frame_connection import FrameIdentity
from omendb_common.wire.frames import FrameLimits, FrameStats
from omendb_common.wire.unending import Unending
from omendb_datanode.config import DataNodeSettings, RepairSettings
from omendb_datanode.engine_threads import RETRY_AFTER_S, EngineThreads
from omendb_datanode.hosting import Hosting, OpenShard
from omendb_datanode.live_recall import LiveRecall
from omendb_datanode.measured import Census, MeasuredNode, show_repairs
from omendb_datanode.node_folder import Identity, ReplicaKey, open_identity
from omendb_datanode.replicate.agreeing import Agreeing
from omendb_datanode.replicate.arrivals import Arrivals
from omendb_datanode.replicate.exchange import settled_stamp
from omendb_datanode.replicate.pace import Pace
from omendb_datanode.replicate.peers import Peers
from omendb_datanode.replicate.repairer import Repairer
from omendb_datanode.replicate.rounds import Rounds
from omendb_datanode.replicate.scrubber import Scrubber
from omendb_datanode.replicate.splits import Splits
from omendb_datanode.shard_rules import ShardRules
from omendb_datanode.write_queue import WriteLimits
from omendb_engine.hash_tree import TreeCheck
from omendb_engine.lock import WriterLock
from omendb_engine.replica import Replica
from omendb_engine.statistics import folder_bytes

_log = logging.getLogger(__name__)

_ASK_S = 2.0
_PAUSE_S = 0.2
_LOOK_S = 0.5
_CENSUS_S = 60.0
_CHECK_S = 3600.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. ``advertise``: where others find it, when that is not where it listens."""

    folder: str
    node_id: str
    listen: str
    coordinators: Sequence[str]
    zone: str = ""
    advertise: str = ""
    metrics_listen: str = ""
    tls: TlsFiles | None = None
    settings: DataNodeSettings = field(default_factory=DataNodeSettings)
    repair: RepairSettings = field(default_factory=RepairSettings)
    frames: FrameLimits = field(default_factory=FrameLimits)
    engine: EngineSettings = field(default_factory=EngineSettings)
    level: int = CURRENT


class DataNodeProcess:
    """Builds a data node from its options, runs it and takes it down. Belongs to one event loop.

    The folder exists. :meth:`run` raises ReplicaFailedError once a replica's log could not be written: only a new
    process, which reads the log from the disk, may speak for it again.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._clock = SystemClock()
        self._disk = RealDisk(no_mmap=options.engine.storage.no_mmap)
        self._client = CoordinatorClient(
            options.coordinators, options.tls, self._clock, name=options.node_id, level=options.level
        )
        settings = options.settings
        self._threads = EngineThreads(
            readers=settings.read_threads or None,
            writers=settings.write_threads or None,
            reads_max=settings.reads_max,
        )
        self.lag = LoopLag(shed_above_s=settings.loop_lag_max_s)
        self.hosting = Hosting(
            self._disk,
            options.folder,
            options.node_id,
            self._client,
            options.engine,
            self._clock,
            opened=lambda stamp: self.rules.observe(stamp),
            drained=lambda replica: self.rules.drained(replica),
            retry_s=settings.reopen_s,
            level=options.level,
        )
        limits = WriteLimits(settings.writes_max, settings.write_bytes_max)
        self.rules = ShardRules(
            self.hosting,
            self._clock,
            self._threads,
            write_limits=limits,
            admit=self._check_lag,
            care=lambda shard, repair: self.repairer.on_request(shard, repair),
            damaged=lambda shard: self.scrubber.suspect(shard),
            scrub=lambda shard, deadline, rate: self.scrubber.on_request(shard, deadline, rate),
            recall=lambda shard: self.recall.of(shard),
        )
        self.metrics = Metrics("datanode", options.node_id, self._clock, release=importlib.metadata.version("omendb"))
        self.metrics.gauge("omendb_loop_lag_seconds", "How late the event loop runs", lambda: self.lag.lag_s)
        if options.tls is not None:
            self.metrics.watch_certificate("cluster", renewed(options.tls).left_s)
        folder = options.folder
        self._census = Census(self.hosting, self._threads, self.rules.loads, lambda: folder_bytes(self._disk, folder))
        self._census.show(self.metrics)
        self.recall = self._make_recall()
        self._peer_frames = FrameStats()
        self.metrics.watch_frames(self._peer_frames, "client")
        self._peers = Peers(self._connect, _close)
        self._pace = Pace(self._clock, options.repair, self._pressed, clients_s=self.rules.clients.total_s)
        self.repairer = self._make_repairer()
        self.agreeing = Agreeing(
            *(options.node_id, self.rules, self._peers, self.hosting.opened),
            *(self._client, self._clock, options.repair),
            missing=lambda opened: self.repairer.missing(opened),
        )
        self.arrivals = Arrivals(
            *(options.node_id, self.rules, self._peers.of, self.hosting.opened, self._client),
            *(self._advance_move, self._clock, options.repair, self._pace),
        )
        self.scrubber = Scrubber(
            *(self._clock, options.repair),
            opened=self.hosting.opened,
            ruined=self.hosting.ruined,
            step=lambda scrub, deadline: self._threads.compare(scrub.step, deadline),
            condemn=self.hosting.condemn,
            lose=self._lose_replica,
            pressed=self._pressed,
        )
        self.splits = Splits(
            *(self.hosting.opened, self._threads, self._client, self._advance_split),
            *(self._clock, options.repair, self._pace),
        )
        show_repairs(self.metrics, self.repairer, self.scrubber, self.agreeing)
        self._ready = False

    def _make_recall(self) -> LiveRecall:
        options = self._options
        dice = random.Random(options.node_id)
        recall = LiveRecall(self._clock, options.settings, self._replica_of, self._threads.compare, dice)
        self.metrics.sample("omendb_recall_at_10", recall.mean)
        return recall

    def _replica_of(self, shard: ShardRef) -> Replica | None:
        hosted = self.hosting.find(shard)
        return None if hosted is None else hosted.replica

    def _fills(self) -> list[Fill]:
        """How far the replicas are that are made here, and what those that split or merge become."""
        return [*self.arrivals.fills(), *self.splits.fills()]

    def _make_repairer(self) -> Repairer:
        node_id, repair = self._options.node_id, self._options.repair
        rounds = Rounds(
            *(node_id, self.rules, self._peers, self._client, self._clock, repair, self._pace),
            proven=lambda shard: self.repairer.proven(shard),
        )
        return Repairer(
            *(node_id, rounds, self.hosting.opened, self._client, self._clock, repair),
            check=self._check_tree,
            report=self._report_repaired,
        )

    def _pressed(self) -> bool:
        """Whether there is more urgent work than bringing replicas together."""
        return self.lag.shed() or self._threads.reads > self._options.settings.reads_max // 2

    async def _check_tree(self, replica: Replica) -> TreeCheck:
        through = settled_stamp(self._clock, self._options.repair.settle_s)
        deadline = Deadline.after(self._clock, _CHECK_S)
        return await self._threads.compare(lambda: replica.hash_trees.check(through), deadline)

    async def _lose_replica(self, key: ReplicaKey, shard: Shard) -> None:
        deadline = Deadline.after(self._clock, _ASK_S)
        await self._client.lose_replica(*key.shard, shard.epoch, self._options.node_id, deadline)

    async def _report_repaired(self, shards: Sequence[RepairedShard]) -> None:
        await self._client.note_repaired(self._options.node_id, shards, Deadline.after(self._clock, _ASK_S))

    async def _advance_move(self, opened: OpenShard, deadline: Deadline) -> None:
        uuid, shard_id = opened.key.shard
        await self._client.advance_move(uuid, shard_id, opened.shard.epoch, self._options.node_id, deadline)

    async def _advance_split(self, opened: OpenShard, deadline: Deadline) -> None:
        tell = self._client.advance_split if opened.shard.merge is None else self._client.advance_merge
        await tell(*opened.key.shard, opened.shard.epoch, self._options.node_id, deadline)

    def _connect(self, member: Member) -> DataNode:
        options = self._options
        release = importlib.metadata.version("omendb")
        return RemoteDataNode(
            member.address,
            identity=FrameIdentity(self._client.topology.cluster_id, "datanode", options.node_id, release),
            node_id=member.node_id,
            tls=options.tls,
            connections=1,
            limits=options.frames,
            stats=self._peer_frames,
            coalesce=False,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then drain.

        Raises:
            DatabaseLockedError: another process has the folder.
            InvalidArgumentError: the folder is another node's, or of another cluster.
            CorruptionError: it does not say whose it is, or what it holds.
            ReplicaFailedError: a replica's log could not be written.
        """
        lock = _lock(self._options.folder)
        try:
            await self._client.start()
            try:
                topology = await self._first_topology(stop)
                if topology is not None:
                    await self._serve(self._identity(topology), stop)
            finally:
                await self._client.close()
        finally:
            self._threads.close()
            lock.release()

    async def _first_topology(self, stop: asyncio.Event) -> Topology | None:
        """The map, as soon as a coordinator tells it; None when the process is to stop before."""
        while not stop.is_set():
            try:
                topology = await self._client.refresh(0, Deadline.after(self._clock, _ASK_S))
                if topology.cluster_id:
                    return topology
                _log.warning("the coordinators have no cluster yet")
            except (UnavailableError, DeadlineExceededError) as error:
                _log.warning("waiting for the coordinators: %s", error)
            await asyncio.sleep(_PAUSE_S)
        return None

    def _identity(self, topology: Topology) -> Identity:
        options = self._options
        return open_identity(self._disk, options.folder, topology.cluster_id, options.node_id, uuid.uuid4().hex)

    async def _serve(self, identity: Identity, stop: asyncio.Event) -> None:
        options = self._options
        stats = FrameStats()
        self.metrics.watch_frames(stats, "server")
        server = await serve_datanode(
            MeasuredNode(self.rules, self.metrics, self._clock, self.recall.saw),
            options.listen,
            identity=FrameIdentity(
                identity.cluster_id, "datanode", identity.node_id, importlib.metadata.version("omendb")
            ),
            tls=options.tls,
            limits=options.frames,
            clock=self._clock,
            stats=stats,
        )
        address = options.advertise or server.address
        member = Member(
            identity.node_id, "datanode", address, identity.incarnation, options.zone, feature_level=options.level
        )
        health = None
        self.lag.start()
        census = Unending(lambda: self._census.run(lambda: Deadline.after(self._clock, _CENSUS_S)), "census")
        recall = Unending(self.recall.run, "live recall")
        try:
            health = await self._show()
            # Known to the coordinators before anything is opened: they say which replicas were lost with a folder.
            if await self._register(member, stop):
                self._client.start_heartbeats(
                    member, problems=self.hosting.problems, fills=self._fills, sizes=self._census.sizes
                )
                await self.hosting.start()
                self.repairer.start()
                self.agreeing.start()
                self.scrubber.start()
                self.arrivals.start()
                self.splits.start()
                self._ready = True
                self._say_ready(address, "" if health is None else health.address)
                await self._until(stop)
                await self._leave()
        finally:
            await self.splits.stop()
            await self.arrivals.stop()
            await self.scrubber.stop()
            await self.agreeing.stop()
            await self.repairer.stop()
            await server.stop(options.settings.drain_s)
            await self._peers.close()
            await self.hosting.stop()
            self.lag.stop()
            if health is not None:
                await health.stop()
            await recall.stop()
            await census.stop()

    async def _register(self, member: Member, stop: asyncio.Event) -> bool:
        while not stop.is_set():
            try:
                await self._client.register(member, Deadline.after(self._clock, _ASK_S))
                return True
            except (UnavailableError, DeadlineExceededError, AlreadyExistsError) as error:
                # The last: a node of this name with another folder is thought to live; it will be found out.
                _log.warning("waiting to be a member: %s", error)
                await asyncio.sleep(_PAUSE_S)
        return False

    async def _until(self, stop: asyncio.Event) -> None:
        """Wait for ``stop``, or for what cannot go on."""
        while not stop.is_set():
            self.hosting.check()
            failed = self.hosting.failed()
            if failed:
                raise ReplicaFailedError(f"a write to the log failed in {', '.join(failed)}", field=failed[0])
            try:
                async with asyncio.timeout(_LOOK_S):
                    await stop.wait()
            except TimeoutError:
                continue

    async def _leave(self) -> None:
        try:
            await self._client.leave(Deadline.after(self._clock, 1.0))
        except OmenDBError as error:
            _log.info("ending without saying so: %s", error)

    def _check_lag(self) -> None:
        if self.lag.shed():
            raise ResourceExhaustedError(
                f"the node runs {self.lag.lag_s:.1f} s late",
                field="datanode",
                mend="ask another replica, or come back later",
                retry_after=max(RETRY_AFTER_S, self.lag.lag_s),
            )

    async def _show(self) -> HealthServer | None:
        """Serve health and metrics, if somebody wants them."""
        if not self._options.metrics_listen:
            return None
        health = HealthServer(self.metrics.render, self._readiness)
        await health.start(*split_address(self._options.metrics_listen))
        return health

    def _readiness(self) -> str | None:
        if not self._ready:
            return "the replicas are being opened"
        return "the event loop runs late" if self.lag.shed() else None

    def _say_ready(self, address: str, metrics: str) -> None:
        told = {
            "role": "datanode",
            "node_id": self._options.node_id,
            "pid": os.getpid(),
            "address": address,
            "metrics": metrics or None,
        }
        sys.stdout.write(f"ready {json.dumps(told)}\n")
        sys.stdout.flush()


async def _close(node: DataNode) -> None:
    await cast(RemoteDataNode, node).close()


def _lock(folder: str) -> WriterLock:
    try:
        return WriterLock(folder)
    except DatabaseLockedError as error:
        raise DatabaseLockedError(
            f"process {error.pid or 'unknown'} runs on this folder", pid=error.pid, field=folder, mend="end it first"
        ) from None


__all__ = ["DataNodeProcess", "Options"]
