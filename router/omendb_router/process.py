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
from omendb_common.security.tls import TlsFiles
from omendb_common.shard_calls import DataNode
from omendb_common.topology import Member, Topology
from omendb_common.wire.coordinator_client import CoordinatorClient
from omendb_common.wire.datanode_client import RemoteDataNode
from omendb_common.wire.frame_connection import FrameIdentity
from omendb_router.config import About, FaceSettings, FaceTls
from omendb_router.face_serving import Faces, Place
from omendb_router.nodes import NodePool
from omendb_router.router import Router
from omendb_router.settings import RouterSettings

_LOG = logging.getLogger("omendb.router")
_ASK_S = 2.0


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
    settings: RouterSettings = field(default_factory=RouterSettings)
    face_settings: FaceSettings = field(default_factory=FaceSettings)


class RouterProcess:
    """Builds a router from its options, runs it and takes it down. Belongs to one event loop."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._clock = SystemClock()
        # A lease belongs to one start of one process: its name must never come again.
        self._incarnation = uuid.uuid4().hex
        self._client = CoordinatorClient(
            options.coordinators, tls=options.tls, clock=self._clock, name=f"{options.node_id}-{self._incarnation[:8]}"
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then drain."""
        options = self._options
        await self._client.start()
        try:
            topology = await self._first_topology(stop)
            if topology is None:
                return
            router = Router(
                self._client,
                NodePool(self._connect, _close),
                self._clock,
                options.settings,
                holder=f"{options.node_id}/{self._incarnation}",
            )
            try:
                if await self._lease(router, stop):
                    await self._serve(router, topology.cluster_id, stop)
            finally:
                await router.stop(Deadline.after(self._clock, options.face_settings.drain_s))
        finally:
            await self._client.close()

    async def _first_topology(self, stop: asyncio.Event) -> Topology | None:
        """The topology, as soon as a coordinator tells it; None when the process is to stop before."""
        while not stop.is_set():
            try:
                return await self._client.refresh(0, Deadline.after(self._clock, _ASK_S))
            except (UnavailableError, DeadlineExceededError) as error:
                _LOG.warning("waiting for the coordinators: %s", error)
        return None

    async def _lease(self, router: Router, stop: asyncio.Event) -> bool:
        while not stop.is_set():
            try:
                await router.start(Deadline.after(self._clock, _ASK_S))
                return True
            except (UnavailableError, DeadlineExceededError) as error:
                _LOG.warning("waiting for a lease: %s", error)
        return False

    async def _serve(self, router: Router, cluster_id: str, stop: asyncio.Event) -> None:
        options = self._options
        about = About(importlib.metadata.version("omendb"), "router", options.node_id, cluster_id)
        faces = Faces(
            router,
            about,
            settings=options.face_settings,
            clock=self._clock,
            shared=options.shared,
            tls=options.face_tls,
        )
        try:
            await faces.start(options.http, options.grpc)
            member = Member(options.node_id, "router", str(faces.http), self._incarnation, options.zone)
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
        return RemoteDataNode(member.address, identity=identity, node_id=member.node_id, tls=self._options.tls)

    def _say_ready(self, faces: Faces) -> None:
        told: dict[str, Any] = {
            "role": "router",
            "node_id": self._options.node_id,
            "pid": os.getpid(),
            "address": str(faces.http),
            "http": str(faces.http),
            "grpc": str(faces.grpc),
            "metrics": None,
        }
        sys.stdout.write(f"ready {json.dumps(told)}\n")
        sys.stdout.flush()


async def _close(node: DataNode) -> None:
    await cast(RemoteDataNode, node).close()


__all__ = ["Options", "RouterProcess"]
