"""A single-node server: router, data node and catalog over one database folder, with both faces."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from omendb_common.clock import Clock, SystemClock
from omendb_common.config import EngineSettings
from omendb_common.deadline import Deadline
from omendb_common.disk import RealDisk
from omendb_common.telemetry.http import HealthServer
from omendb_common.telemetry.loop_lag import LoopLag
from omendb_common.telemetry.metrics import Metrics
from omendb_common.wire.frames import FrameStats
from omendb_datanode.engine_threads import EngineThreads
from omendb_datanode.folder_replicas import FolderReplicas
from omendb_datanode.shard_rules import ShardRules
from omendb_engine.catalog import read_catalog
from omendb_engine.folder import Folder
from omendb_router.config import About, FaceSettings, FaceTls
from omendb_router.counted import CountedRouter
from omendb_router.face_serving import Faces, Place
from omendb_router.nodes import NodePool
from omendb_router.process import RELEASE, start_health
from omendb_router.settings import RouterSettings
from omendb_server.figures import Figures
from omendb_server.local_metadata import NODE_ID, LocalMetadata

HOLDER = "server"
_START_S = 30.0


class Server:
    """Serves one folder. Make it with :meth:`open`, then :meth:`start`, and at the end :meth:`stop`.

    The folder's writer lock is held from :meth:`open` to the end of :meth:`stop`.
    """

    def __init__(
        self,
        folder: Folder,
        clock: Clock,
        *,
        faces: FaceSettings | None = None,
        router: RouterSettings | None = None,
        tls: FaceTls | None = None,
    ) -> None:
        self.folder = folder
        self._clock = clock
        self.metrics = Metrics("server", NODE_ID, clock, release=RELEASE)
        Figures(folder, clock).show(self.metrics)
        if tls is not None:
            self.metrics.watch_certificate("face", tls.renewed().left_s)
        self._lag = LoopLag()
        self.metrics.gauge("omendb_loop_lag_seconds", "How late the event loop is", lambda: self._lag.lag_s)
        self.health = HealthServer(self.metrics.render, self._unready)
        self.metadata = LocalMetadata(folder, clock, read_catalog(RealDisk(), folder.path).database_uuid)
        self._threads = EngineThreads()
        node = ShardRules(FolderReplicas(folder), clock, self._threads)
        self.router = CountedRouter(
            self.metadata,
            NodePool.fixed({NODE_ID: node}),
            clock,
            # The folder's own counter numbers points, so that it goes on counting when it is opened without a server.
            replace(router or RouterSettings(), auto_ids="replica"),
            holder=HOLDER,
            metrics=self.metrics,
        )
        self.face_settings = faces or FaceSettings()
        frame_stats = FrameStats()
        self.metrics.watch_frames(frame_stats, "face")
        about = About(RELEASE, "server", NODE_ID, folder.path)
        self.faces = Faces(
            self.router,
            about,
            settings=self.face_settings,
            clock=clock,
            tls=tls,
            frame_stats=frame_stats,
            observe=lambda face, name, code, seconds: self.metrics.observe_request(f"{face}.{name}", seconds, code),
        )

    @staticmethod
    def open(
        path: str,
        settings: EngineSettings,
        *,
        faces: FaceSettings | None = None,
        router: RouterSettings | None = None,
        tls: FaceTls | None = None,
        clock: Clock | None = None,
    ) -> Server:
        """Open the folder, making it when there is none; ``tls``: what clients are shown.

        Raises:
            InvalidArgumentError: ``tls`` names files that cannot be used; the folder was left alone.
            OmenDBError: as ``Folder.open``.
        """
        clock = clock or SystemClock()
        if tls is not None:
            tls.renewed()
        return Server(Folder.open(path, settings=settings, clock=clock), clock, faces=faces, router=router, tls=tls)

    async def start(self, http: Place, grpc: Place, metrics: Place | None = None) -> None:
        """Serve; ``faces.http``, ``faces.grpc`` and ``health.address`` then say where.

        Raises:
            UnavailableError: a port is taken.
        """
        await start_health(self.health, metrics)
        self._lag.start()
        await self.router.start(Deadline.after(self._clock, _START_S))
        await self.faces.start(http, grpc)

    def _unready(self) -> str | None:
        """Why this server should get no requests now."""
        state = self.faces.standing.state
        return None if state == "ok" else state

    async def stop(self) -> None:
        """Let the calls that were taken end, make everything durable, and let the folder go."""
        await self.faces.stop()
        await self.router.stop(Deadline.after(self._clock, self.face_settings.drain_s))
        await self.metadata.close()
        self._lag.stop()
        await self.health.stop()
        self._threads.close()
        await asyncio.to_thread(self.folder.close)


__all__ = ["Server"]
