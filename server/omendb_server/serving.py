"""A single-node server: router, data node and catalog over one database folder, with both faces."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Callable

from omendb_common.clock import Clock, SystemClock
from omendb_common.config import EngineSettings
from omendb_common.deadline import Deadline
from omendb_common.disk import RealDisk
from omendb_datanode.engine_threads import EngineThreads
from omendb_datanode.folder_replicas import FolderReplicas
from omendb_datanode.shard_rules import ShardRules
from omendb_engine.catalog import read_catalog
from omendb_engine.folder import Folder
from omendb_router.config import About, FaceSettings
from omendb_router.face_serving import Faces, Place
from omendb_router.nodes import NodePool
from omendb_router.router import Router
from omendb_router.settings import RouterSettings
from omendb_server.local_metadata import NODE_ID, LocalMetadata

HOLDER = "server"
_START_S = 30.0


class Server:
    """Serves one folder. Make it with :meth:`open`, then :meth:`start`, and at the end :meth:`stop`.

    The folder's writer lock is held from :meth:`open` to the end of :meth:`stop`.
    """

    def __init__(self, folder: Folder, clock: Clock, observe: Callable[[str, str, str, float], None]) -> None:
        self.folder = folder
        self._clock = clock
        self.metadata = LocalMetadata(folder, clock, read_catalog(RealDisk(), folder.path).database_uuid)
        self._threads = EngineThreads()
        node = ShardRules(FolderReplicas(folder), clock, self._threads)
        self.router = Router(
            self.metadata,
            NodePool.fixed({NODE_ID: node}),
            clock,
            # The folder's own counter numbers points, so that it goes on counting when it is opened without a server.
            RouterSettings(auto_ids="replica"),
            holder=HOLDER,
        )
        self.face_settings = FaceSettings()
        about = About(importlib.metadata.version("omendb"), "server", NODE_ID, folder.path)
        self.faces = Faces(self.router, about, settings=self.face_settings, clock=clock, observe=observe)

    @staticmethod
    def open(
        path: str,
        settings: EngineSettings,
        *,
        clock: Clock | None = None,
        observe: Callable[[str, str, str, float], None] = lambda face, route, code, seconds: None,
    ) -> Server:
        """Open the folder, making it when there is none; the errors of ``Folder.open``."""
        clock = clock or SystemClock()
        return Server(Folder.open(path, settings=settings, clock=clock), clock, observe)

    async def start(self, http: Place, grpc: Place) -> None:
        """Serve; ``faces.http`` and ``faces.grpc`` then say where. UnavailableError when a port is taken."""
        await self.router.start(Deadline.after(self._clock, _START_S))
        await self.faces.start(http, grpc)

    async def stop(self) -> None:
        """Let the calls that were taken end, make everything durable, and let the folder go."""
        await self.faces.stop()
        await self.router.stop(Deadline.after(self._clock, self.face_settings.drain_s))
        await self.metadata.close()
        self._threads.close()
        await asyncio.to_thread(self.folder.close)


__all__ = ["Server"]
