"""A router's real faces in this process, over an embedded folder: for tests of the client."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import omendb
from omendb_common.config import load_settings
from omendb_engine.folder import Folder
from omendb_router.config import About, FaceSettings, FaceTls
from omendb_router.face_serving import Faces, Place
from tests.unit.faces.folder_router import FolderRouter


@dataclass
class FaceServer:
    """A running server: ``router`` takes orders to fail, ``url`` is for clients, over ``carrier``."""

    router: FolderRouter
    carrier: str
    http: Place
    grpc: Place
    faces: Faces
    loop: asyncio.AbstractEventLoop

    @property
    def port(self) -> int:
        return (self.grpc if self.carrier == "grpc" else self.http).port

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}" if self.carrier == "grpc" else f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def face_server(
    path: Path,
    settings: FaceSettings | None = None,
    *,
    carrier: str = "frames",
    tls: FaceTls | None = None,
    http: Place | None = None,
) -> Iterator[FaceServer]:
    """A server over the folder ``path``, on free ports, or REST and frames at ``http``."""
    folder = Folder.open(
        str(path), mode="rw", settings=load_settings(None, None, None, {"storage.durability": "os"}).settings
    )
    router, about = FolderRouter(folder), About(omendb.__version__, "server", "n1", str(path))
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    running: list[FaceServer] = []

    async def serve() -> None:
        faces = Faces(router, about, settings=settings or FaceSettings(drain_s=0.5), tls=tls)
        await faces.start(http or Place("127.0.0.1", 0), Place("127.0.0.1", 0))
        running.append(FaceServer(router, carrier, faces.http, faces.grpc, faces, loop))
        started.set()
        await stop.wait()
        await faces.stop()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(30)
    try:
        yield running[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()
        folder.close()
