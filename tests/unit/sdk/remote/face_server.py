"""The router's real gRPC and REST addresses in this process, over an embedded folder: for tests of the client."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import omendb
from omendb_common.config import load_settings
from omendb_engine.folder import Folder
from omendb_router.config import About, FaceSettings
from omendb_router.grpc_face import GrpcFace, make_server
from tests.unit.faces.folder_router import FolderRouter


@dataclass
class FaceServer:
    """A running server: ``router`` takes orders to fail, ``url`` is for clients."""

    router: FolderRouter
    port: int

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"


@contextlib.contextmanager
def face_server(path: Path, settings: FaceSettings | None = None) -> Iterator[FaceServer]:
    """A server over the folder ``path``, on a free port."""
    folder = Folder.open(
        str(path), mode="rw", settings=load_settings(None, None, None, {"storage.durability": "os"}).settings
    )
    server = FaceServer(FolderRouter(folder), 0)
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    face_settings = settings or FaceSettings()

    async def serve() -> None:
        face = GrpcFace(server.router, About(omendb.__version__, "server", "n1", str(path)), settings=face_settings)
        grpc_server: Any = make_server(face, face_settings)
        server.port = grpc_server.add_insecure_port("127.0.0.1:0")
        await grpc_server.start()
        started.set()
        await stop.wait()
        await grpc_server.stop(0)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(30)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()
        folder.close()
