"""One router process: its connections, its router, its faces, and its membership, from start to end."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import logging
import os
import sys
import uuid
from dataclasses import dataclass, field
from typing import Any, cast

from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, OmenDBError, UnavailableError
from omendb_common.feature_level import CURRENT
from omendb_common.security.renewal import renewed
from omendb_common.security.tls import TlsFiles
from omendb_common.shard_calls import DataNode
from omendb_common.telemetry.http import HealthServer
from omendb_common.telemetry.loop_lag import LoopLag
from omendb_common.telemetry.metrics import Metrics
from omendb_common.topology import Member, Topology
from omendb_common.wire.coordinator_client import CoordinatorClient
from omendb_common.wire.datanode_client import RemoteDataNode
from omendb_common.wire.frame_connection import FrameIdentity
from omendb_common.wire.frames import FrameLimits, FrameStats
from omendb_router.config import About, FaceSettings, FaceTls
from omendb_router.counted import CountedRouter
from omendb_router.face_serving import Faces, Place
from omendb_router.nodes import NodePool
from omendb_router.settings import RouterSettings

_LOG = logging.getLogger("omendb.router")
_ASK_S = 2.0
RELEASE = importlib.metadata.version("omendb")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says of one process. ``shared``: its ports are shared with other workers."""

    node_id: str
    http: Place
    grpc: Place
    coordinators: tuple[str, ...]
    tls: TlsFiles | None = None
    face_tls: FaceTls | None = None
    shared: bool = False
    zone: str = ""
    metrics: Place | None = None
    settings: RouterSettings = field(default_factory=RouterSettings)
    face_settings: FaceSettings = field(default_factory=FaceSettings)
    frames: FrameLimits = field(default_factory=FrameLimits)
    level: int = CURRENT


class RouterProcess:
    """Builds a router from its options, runs it and takes it down. Belongs to one event loop."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._clock = SystemClock()
        self._metrics = Metrics("router", options.node_id, self._clock, release=RELEASE)
        self._frames = FrameStats()
        self._metrics.watch_frames(self._frames, "client")
        self._face_frames = FrameStats()
        self._metrics.watch_frames(self._face_frames, "face")
        self._lag = LoopLag()
        self._metrics.gauge("omendb_loop_lag_seconds", "How late the event loop is", lambda: self._lag.lag_s)
        if options.tls is not None:
            self._metrics.watch_certificate("cluster", renewed(options.tls).left_s)
        if options.face_tls is not None:
            self._metrics.watch_certificate("face", options.face_tls.renewed().left_s)
        self._faces: Faces | None = None
        self._health = HealthServer(self._metrics.render, self._unready)
        # A lease belongs to one start of one process: its name must never come again.
        self._incarnation = uuid.uuid4().hex
        self._client = CoordinatorClient(
            *(options.coordinators, options.tls, self._clock),
            name=f"{options.node_id}-{self._incarnation[:8]}",
            level=options.level,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then drain."""
        options = self._options
        await start_health(self._health, options.metrics)
        self._lag.start()
        await self._client.start()
        try:
            topology = await self._first_topology(stop)
            if topology is None:
                return
            router = CountedRouter(
                self._client,
                NodePool(self._connect, _close),
                self._clock,
                options.settings,
                holder=f"{options.node_id}/{self._incarnation}",
                metrics=self._metrics,
            )
            try:
                if await self._lease(router, stop):
                    await self._serve(router, topology.cluster_id, stop)
            finally:
                await router.stop(Deadline.after(self._clock, options.face_settings.drain_s))
        finally:
            await self._client.close()
            self._lag.stop()
            await self._health.stop()

    def _unready(self) -> str | None:
        """Why this router should get no requests now."""
        if self._faces is None:
            return "waiting for the coordinators"
        return None if self._faces.standing.state == "ok" else self._faces.standing.state

    async def _first_topology(self, stop: asyncio.Event) -> Topology | None:
        """The topology, as soon as a coordinator tells it; None when the process is to stop before."""
        while not stop.is_set():
            try:
                return await self._client.refresh(0, Deadline.after(self._clock, _ASK_S))
            except (UnavailableError, DeadlineExceededError) as error:
                _LOG.warning("waiting for the coordinators: %s", error)
        return None

    async def _lease(self, router: CountedRouter, stop: asyncio.Event) -> bool:
        while not stop.is_set():
            try:
                await router.start(Deadline.after(self._clock, _ASK_S))
                return True
            except (UnavailableError, DeadlineExceededError) as error:
                _LOG.warning("waiting for a lease: %s", error)
        return False

    async def _serve(self, router: CountedRouter, cluster_id: str, stop: asyncio.Event) -> None:
        options = self._options
        about = About(RELEASE, "router", options.node_id, cluster_id, options.level)
        faces = self._faces = Faces(
            router,
            about,
            settings=options.face_settings,
            clock=self._clock,
            observe=lambda face, name, code, seconds: self._metrics.observe_request(f"{face}.{name}", seconds, code),
            shared=options.shared,
            tls=options.face_tls,
            frame_stats=self._face_frames,
        )
        try:
            await faces.start(options.http, options.grpc)
            member = Member(
                *(options.node_id, "router", str(faces.http), self._incarnation, options.zone),
                feature_level=options.level,
            )
            self._client.start_heartbeats(member)
            self._say_ready(faces)
            await stop.wait()
            await self._leave()
        finally:
            await faces.stop()

    async def _leave(self) -> None:
        try:
            await self._client.leave(Deadline.after(self._clock, 1.0))
        except OmenDBError as error:
            _LOG.info("ending without saying so: %s", error)

    def _connect(self, member: Member) -> DataNode:
        identity = FrameIdentity(self._client.topology.cluster_id, "router", self._options.node_id)
        return RemoteDataNode(
            member.address,
            identity=identity,
            node_id=member.node_id,
            tls=self._options.tls,
            limits=self._options.frames,
            stats=self._frames,
        )

    def _say_ready(self, faces: Faces) -> None:
        told: dict[str, Any] = {
            "role": "router",
            "node_id": self._options.node_id,
            "pid": os.getpid(),
            "address": str(faces.http),
            "http": str(faces.http),
            "grpc": str(faces.grpc),
            "metrics": self._health.address or None,
        }
        sys.stdout.write(f"ready {json.dumps(told)}\n")
        sys.stdout.flush()


async def start_health(health: HealthServer, place: Place | None) -> None:
    """Listen for health and metrics, where that is wanted; UnavailableError when the port is taken."""
    if place is None:
        return
    try:
        await health.start(place.host, place.port)
    except OSError as error:
        raise UnavailableError(
            f"cannot listen there: {error.strerror or error}", field=str(place), mend="choose another address"
        ) from None


async def _close(node: DataNode) -> None:
    await cast(RemoteDataNode, node).close()


__all__ = ["RELEASE", "Options", "RouterProcess", "start_health"]
