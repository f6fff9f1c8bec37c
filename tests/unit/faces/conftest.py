"""The faces over an embedded folder, called from tests that know no event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import grpc
import httpx
import pytest

from omendb_common.clock import SystemClock
from omendb_common.config import load_settings
from omendb_common.deadline import Deadline
from omendb_common.wire import status
from omendb_common.wire.frame_client import FrameClient
from omendb_common.wire.frame_connection import FrameIdentity
from omendb_common.wire.frames import FrameLimits, FrameStats
from omendb_engine.folder import Folder
from omendb_proto.v1 import router_pb2 as pb
from omendb_router.config import About, FaceSettings
from omendb_router.frame_face import ROLE, FrameFace
from omendb_router.grpc_face import SERVICE, make_server
from omendb_router.message_calls import MessageCalls
from omendb_router.rest.app import RestFace, Standing
from tests.unit.faces.folder_router import FolderRouter

T = TypeVar("T")
ABOUT = About("1.2.3", "server", "local", "/a/folder")


class Faces:
    """A router over a folder, REST to it in process; messages to it over a loopback port, by gRPC or in frames."""

    def __init__(self, folder: Folder, settings: FaceSettings, loop: asyncio.AbstractEventLoop, carrier: str) -> None:
        self.loop = loop
        self._carrier = carrier
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
        self._frame_face: FrameFace | None = None
        self._frames: FrameClient | None = None
        self._listener: asyncio.Server | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 30))

    def rest(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        if body is not None:
            more["json"] = body
        return self.run(self.http.request(method, path, **more))

    def grpc(self, name: str, message: Any = None, *, timeout: float | None = 10.0) -> Any:
        """The answer to a call; raises what the client library would: the typed error."""
        request = getattr(pb, f"{name}Request")() if message is None else message
        reply = {
            "CreateCollection": "Collection",
            "RenameCollection": "Collection",
            "AlterCollection": "Collection",
            "GetCollection": "Collection",
        }
        kind = reply.get(name, "Write" if name in ("Upsert", "Update", "Delete") else name)
        data = self.grpc_bytes(name, request.SerializeToString(), timeout=timeout)
        return getattr(pb, f"{kind}Reply").FromString(data)

    def grpc_bytes(self, name: str, data: bytes, *, timeout: float | None = 10.0) -> bytes:
        return self.run(self._call(name, data, timeout))

    async def _call(self, name: str, data: bytes, timeout: float | None) -> bytes:
        if self._carrier == "frames":
            return await self._call_in_frames(name, data, timeout)
        if self._channel is None:
            self._server = make_server(self.calls(), self._settings)
            port = self._server.add_insecure_port("127.0.0.1:0")
            await self._server.start()
            limit = ("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)
            self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=limit)
        try:
            answer: bytes = await self._channel.unary_unary(f"/{SERVICE}/{name}")(data, timeout=timeout)
            return answer
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc(error) from None

    def calls(self) -> MessageCalls:
        return MessageCalls(
            self.router,
            ABOUT,
            settings=self._settings,
            observe=lambda call, code, seconds: self.observed.append((call, code)),
        )

    async def _call_in_frames(self, name: str, data: bytes, timeout: float | None) -> bytes:
        if self._frames is None:
            face = self._frame_face = FrameFace(self.calls(), budget=self.rest_face.budget, stats=FrameStats())
            address, self._listener = await listening(face)
            limits = FrameLimits(frame_bytes_max=1 << 30)
            self._frames = FrameClient(address, FrameIdentity("", ROLE, ""), limits=limits)
        known = dict(pb.RouterMethod.items())
        number = known.get("ROUTER_METHOD" + "".join(f"_{c}" if c.isupper() else c for c in name).upper(), 999)
        # A frame always says how much time there is: who names none has all of it.
        deadline = Deadline.after(SystemClock(), 30.0 if timeout is None else timeout)
        return (await self._frames.call(number, data, deadline=deadline)).message

    def make(self, name: str = "c", dimension: int = 2, **more: Any) -> None:
        answer = self.rest("POST", "/collections", {"name": name, "dimension": dimension, **more})
        assert answer.status_code == 201, answer.text

    def close(self) -> None:
        async def end() -> None:
            await self.http.aclose()
            if self._channel is not None:
                await self._channel.close()
                await self._server.stop(0)
            if self._frames is not None and self._frame_face is not None and self._listener is not None:
                await self._frames.close()
                await self._frame_face.stop(0)
                self._listener.close()

        self.run(end())


class _Taken(asyncio.Protocol):
    """A connection that speaks frames from its first byte."""

    def __init__(self, face: FrameFace) -> None:
        self._face = face

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._face.take_over(cast(asyncio.Transport, transport))


async def listening(face: FrameFace) -> tuple[str, asyncio.Server]:
    """An address where frames are spoken without an upgrade."""
    server = await asyncio.get_running_loop().create_server(lambda: _Taken(face), "127.0.0.1", 0)
    return f"127.0.0.1:{server.sockets[0].getsockname()[1]}", server


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One for all tests: gRPC binds itself to the first loop that it sees."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


@contextlib.contextmanager
def harness(tmp_path: Path, loop: asyncio.AbstractEventLoop, carrier: str) -> Iterator[Faces]:
    settings = load_settings(None, None, {}, {"workers.background_threads": 0, "storage.durability": "os"}).settings
    folder = Folder.open(str(tmp_path / "db"), settings=settings)
    faces = Faces(folder, FaceSettings(body_bytes_max=1 << 20, bodies_bytes_max=2 << 20), loop, carrier)
    yield faces
    faces.close()
    folder.close()


@pytest.fixture
def faces(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> Iterator[Faces]:
    with harness(tmp_path, loop, "grpc") as made:
        yield made


@pytest.fixture(params=["grpc", "frames"])
def every_carrier(request: pytest.FixtureRequest, tmp_path: Path, loop: asyncio.AbstractEventLoop) -> Iterator[Faces]:
    """For modules whose ``faces`` it is: each test over gRPC and in frames."""
    with harness(tmp_path, loop, request.param) as made:
        yield made
