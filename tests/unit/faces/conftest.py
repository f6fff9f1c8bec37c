"""Both faces over an embedded folder, called from tests that know no event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
import httpx
import pytest

from omendb_common.config import load_settings
from omendb_common.wire import status
from omendb_engine.folder import Folder
from omendb_proto.v1 import router_pb2 as pb
from omendb_router.config import About, FaceSettings
from omendb_router.grpc_face import SERVICE, GrpcFace, make_server
from omendb_router.rest.app import RestFace, Standing
from tests.unit.faces.folder_router import FolderRouter

T = TypeVar("T")
ABOUT = About("1.2.3", "server", "local", "/a/folder")


class Faces:
    """A router over a folder, REST to it in process, gRPC to it over a loopback port."""

    def __init__(self, folder: Folder, settings: FaceSettings, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.router = FolderRouter(folder)
        self.standing = Standing("ok")
        self.observed: list[tuple[str, str]] = []
        self.rest_face = RestFace(
            self.router,
            ABOUT,
            self.standing,
            settings=settings,
            grpc_port=4711,
            observe=lambda route, code, seconds: self.observed.append((route, str(code))),
        )
        transport = httpx.ASGITransport(self.rest_face.app(), raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://test")
        self._settings = settings
        self._server: Any = None
        self._channel: Any = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 30))

    def rest(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        if body is not None:
            more["json"] = body
        return self.run(self.http.request(method, path, **more))

    def grpc(self, name: str, message: Any = None, *, timeout: float | None = 10.0) -> Any:
        """The answer to a call; raises what the client library would: the typed error."""
        request = getattr(pb, f"{name}Request")() if message is None else message
        reply = {"CreateCollection": "Collection", "RenameCollection": "Collection", "GetCollection": "Collection"}
        kind = reply.get(name, "Write" if name in ("Upsert", "Update", "Delete") else name)
        data = self.grpc_bytes(name, request.SerializeToString(), timeout=timeout)
        return getattr(pb, f"{kind}Reply").FromString(data)

    def grpc_bytes(self, name: str, data: bytes, *, timeout: float | None = 10.0) -> bytes:
        return self.run(self._call(name, data, timeout))

    async def _call(self, name: str, data: bytes, timeout: float | None) -> bytes:
        if self._channel is None:
            face = GrpcFace(
                self.router,
                ABOUT,
                settings=self._settings,
                observe=lambda call, code, seconds: self.observed.append((call, code)),
            )
            self._server = make_server(face, self._settings)
            port = self._server.add_insecure_port("127.0.0.1:0")
            await self._server.start()
            limit = ("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)
            self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=limit)
        try:
            answer: bytes = await self._channel.unary_unary(f"/{SERVICE}/{name}")(data, timeout=timeout)
            return answer
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc(error) from None

    def make(self, name: str = "c", dimension: int = 2, **more: Any) -> None:
        answer = self.rest("POST", "/collections", {"name": name, "dimension": dimension, **more})
        assert answer.status_code == 201, answer.text

    def close(self) -> None:
        async def end() -> None:
            await self.http.aclose()
            if self._channel is not None:
                await self._channel.close()
                await self._server.stop(0)

        self.run(end())


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One for all tests: gRPC binds itself to the first loop that it sees."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def faces(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> Iterator[Faces]:
    settings = load_settings(None, None, {}, {"workers.background_threads": 0, "storage.durability": "os"}).settings
    folder = Folder.open(str(tmp_path / "db"), settings=settings)
    harness = Faces(folder, FaceSettings(body_bytes_max=1 << 20, bodies_bytes_max=2 << 20), loop)
    yield harness
    harness.close()
    folder.close()
