"""Frames on REST's port: who gets them, what they carry, and what happens to peers that misuse them."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, ResourceExhaustedError, UnavailableError
from omendb_common.security.dev_certificates import DevAuthority
from omendb_common.wire import status
from omendb_common.wire.frame_client import FrameClient
from omendb_common.wire.frame_connection import FrameIdentity
from omendb_common.wire.frames import Frame, FrameDecoder, FrameLimits, FrameStats, Kind
from omendb_proto.v1 import router_pb2 as pb
from omendb_router.config import FaceSettings, FaceTls
from omendb_router.face_serving import Faces as Serving
from omendb_router.face_serving import Place
from omendb_router.frame_face import PROTOCOL, ROLE, FrameFace
from omendb_router.message_calls import MessageCalls
from omendb_router.rest.calls import BodyBudget
from tests.unit.faces.conftest import ABOUT, listening
from tests.unit.faces.test_face_serving import Slow
from tests.unit.wire.frame_cases import frame, hello, until

ANY = Place("127.0.0.1", 0)
ASK = b"GET /frames HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: omendb-frames/1\r\n\r\n"
HELLO = hello(cluster_id="", role=ROLE, node_id="", frame_bytes_max=1 << 30)
INFO = frame(Kind.REQUEST, 1, method=pb.ROUTER_METHOD_SERVER_INFO, deadline_ms=20_000)
STATUS = pb.ROUTER_METHOD_CLUSTER_STATUS


@pytest.fixture(params=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    """Runs a story on each kind of loop."""
    run: Callable[[Any], None] = asyncio.run if request.param == "asyncio" else uvloop.run
    return run


@contextlib.asynccontextmanager
async def serving(router: Any = None, tls: FaceTls | None = None, **settings: Any) -> AsyncIterator[Serving]:
    calls: Any = router or Slow()
    served = Serving(calls, ABOUT, settings=FaceSettings(**{"drain_s": 5.0, **settings}), tls=tls)
    await served.start(ANY, ANY)
    try:
        yield served
    finally:
        await served.stop()


class Wire:
    """A raw client: bytes out, frames in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.decoder = FrameDecoder(1 << 30)

    @classmethod
    async def to(cls, place: Place, tls: ssl.SSLContext | None = None) -> Wire:
        return cls(*await asyncio.open_connection(place.host, place.port, ssl=tls))

    async def ask(self, request: bytes = ASK) -> bytes:
        """The head of the answer."""
        self.writer.write(request)
        return await self.reader.readuntil(b"\r\n\r\n")

    async def changed(self) -> Wire:
        """Speaking frames."""
        head = await self.ask()
        assert head.startswith(b"HTTP/1.1 101 ") and b"\r\nupgrade: " + PROTOCOL + b"\r\n" in head
        self.writer.write(HELLO)
        assert (await self.frame()).kind == Kind.HELLO
        return self

    async def frame(self) -> Frame:
        while (found := self.decoder.next()) is None:
            data = await self.reader.read(65_536)
            if not data:
                raise EOFError
            for start in range(0, len(data), 1000):
                piece = data[start : start + 1000]
                self.decoder.room()[: len(piece)] = piece
                self.decoder.received(len(piece))
        return found


def test_a_connection_changes_over_and_carries_calls(play: Any) -> None:
    async def story() -> None:
        async with serving() as served:
            wire = await (await Wire.to(served.http)).changed()
            wire.writer.write(INFO)
            told = await wire.frame()
            assert (told.kind, told.call) == (Kind.RESPONSE, 1)
            assert pb.ServerInfoReply.FromString(told.message).version == "1.2.3"
            assert served._frames.connections == 1 and served._http is not None
            assert not served._http.server_state.connections
            wire.writer.close()
            await until(lambda: served._frames.connections == 0)

    play(story())


def test_it_does_so_after_other_requests_and_under_tls(play: Any, tmp_path: Path) -> None:
    files = DevAuthority.open(tmp_path, "dev", SystemClock()).issue("router", "r1", SystemClock())

    async def story() -> None:
        async with serving(tls=FaceTls(files.cert, files.key)) as served:
            wire = await Wire.to(served.http, ssl.create_default_context(cafile=files.ca))
            assert b" 200 " in await wire.ask(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            assert await wire.reader.readexactly(len('{"status":"ok"}'))
            await wire.changed()
            wire.writer.write(INFO * 1)
            assert (await wire.frame()).kind == Kind.RESPONSE
            wire.writer.close()

    play(story())


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /frames HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /frames HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"GET /frames HTTP/1.1\r\nhost: x\r\nupgrade: omendb-frames/1\r\n\r\n",
    ],
)
def test_who_does_not_ask_for_frames_is_told_how_to(request_: bytes, play: Any) -> None:
    async def story() -> None:
        async with serving() as served:
            wire = await Wire.to(served.http)
            head = await wire.ask(request_)
            # Without "connection: upgrade" the request is one for frames that nobody may hand over.
            assert (b" 426 " in head and PROTOCOL in head) or b" 503 " in head
            assert served._frames.connections == 0
            wire.writer.close()

    play(story())


def test_an_upgrade_of_another_path_is_no_upgrade(play: Any) -> None:
    async def story() -> None:
        async with serving() as served:
            wire = await Wire.to(served.http)
            assert b" 200 " in await wire.ask(ASK.replace(b"/frames", b"/livez"))
            wire.writer.close()

    play(story())


def test_connections_of_both_kinds_have_one_bound(play: Any) -> None:
    async def story() -> None:
        async with serving(connections_max=3) as served:
            wires = [await (await Wire.to(served.http)).changed() for _ in range(2)]
            other = await Wire.to(served.http)
            assert b" 200 " in await other.ask(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            third = await Wire.to(served.http)
            assert b" 503 " in await third.ask()
            other.writer.close()
            wires[0].writer.close()
            await until(lambda: served._frames.connections == 1)
            await (await Wire.to(served.http)).changed()

    play(story())


def test_a_peer_that_says_no_hello_is_cut_off_and_so_is_one_that_was_too_early(play: Any) -> None:
    async def story() -> None:
        async with serving(head_timeout_s=0.1) as served:
            for sent in (ASK, ASK + HELLO, ASK + b"nonsense"):
                wire = await Wire.to(served.http)
                assert b" 101 " in await wire.ask(sent)
                assert await wire.reader.read() == b""
            assert served._frames.connections == 0

    play(story())


def test_garbage_and_strangers_close_their_connection_alone(play: Any) -> None:
    async def story() -> None:
        async with serving() as served:
            good = await (await Wire.to(served.http)).changed()
            for bad in (b"x" * 100, INFO, hello(role="router"), HELLO + HELLO):
                wire = await Wire.to(served.http)
                await wire.ask()
                wire.writer.write(bad)
                await wire.reader.read()
            good.writer.write(INFO)
            assert (await good.frame()).kind == Kind.RESPONSE

    play(story())


def test_a_drain_answers_what_was_taken_and_takes_no_more(play: Any) -> None:
    async def story() -> None:
        slow = Slow()
        async with serving(slow) as served:
            wire = await (await Wire.to(served.http)).changed()
            wire.writer.write(frame(Kind.REQUEST, 7, method=STATUS, deadline_ms=20_000))
            await slow.begun.wait()
            stopping = asyncio.create_task(served.stop())
            assert (await wire.frame()).kind == Kind.GOAWAY
            wire.writer.write(INFO)
            refused = await wire.frame()
            error = status.from_bytes(refused.message)
            assert (refused.call, type(error)) == (1, UnavailableError)
            assert error.outcome == "none"  # type: ignore[attr-defined]
            slow.let_go.set()
            assert (await wire.frame()).call == 7
            await stopping

    play(story())


def test_a_cancelled_call_and_a_lost_client_end_inside(play: Any) -> None:
    async def story() -> None:
        for how in ("cancel", "leave"):
            slow = Slow()
            async with serving(slow) as served:
                wire = await (await Wire.to(served.http)).changed()
                wire.writer.write(frame(Kind.REQUEST, 7, method=STATUS, deadline_ms=20_000))
                await slow.begun.wait()
                if how == "cancel":
                    wire.writer.write(frame(Kind.CANCEL, 7))
                else:
                    wire.writer.close()
                await until(lambda slow=slow: slow.cancelled)  # type: ignore[misc]

    play(story())


@contextlib.asynccontextmanager
async def facing(router: Any, **settings: Any) -> AsyncIterator[tuple[FrameFace, FrameStats, FrameClient, BodyBudget]]:
    """A face, its counts, a client, and the budget."""
    made = FaceSettings(**settings)
    stats, budget = FrameStats(), BodyBudget(made.bodies_bytes_max)
    face = FrameFace(MessageCalls(router, ABOUT, settings=made), budget=budget, stats=stats)
    address, listener = await listening(face)
    client = FrameClient(address, FrameIdentity("", ROLE, ""), limits=FrameLimits(frame_bytes_max=1 << 30))
    try:
        yield face, stats, client, budget
    finally:
        await client.close()
        await face.stop(0)
        listener.close()


def soon() -> Deadline:
    return Deadline.after(SystemClock(), 20.0)


def test_calls_at_work_are_bounded_over_all_connections(play: Any) -> None:
    async def story() -> None:
        slow = Slow()
        async with facing(slow, frame_calls_max=2) as (_, _, client, budget):
            first = [asyncio.create_task(client.call(STATUS, b"", deadline=soon())) for _ in range(2)]
            await slow.begun.wait()
            await until(lambda: client.in_flight == 2 and budget.used > 0)
            with pytest.raises(ResourceExhaustedError) as caught:
                await client.call(STATUS, b"", deadline=soon())
            assert caught.value.retry_after > 0
            slow.let_go.set()
            await asyncio.gather(*first)
            assert budget.used == 0

    play(story())


def test_large_requests_share_a_budget_and_a_refused_one_is_passed_over(play: Any) -> None:
    async def story() -> None:
        slow = Slow()
        async with facing(slow, bodies_bytes_max=2 << 20) as (_, stats, client, budget):
            budget.take(1 << 20)
            with pytest.raises(ResourceExhaustedError, match="too many large"):
                await client.call(STATUS, bytes(3 << 20), deadline=soon())
            # The connection is as good as before.
            slow.let_go.set()
            await client.call(STATUS, bytes(900_000), deadline=soon())
            await client.call(STATUS, b"", deadline=soon())
            assert stats.calls_refused == 1 and not stats.broken and budget.used == 1 << 20

    play(story())


def test_what_was_reserved_for_half_a_request_is_given_back(play: Any) -> None:
    async def story() -> None:
        async with facing(Slow()) as (face, _, client, budget):
            host, port = client.address.split(":")
            wire = Wire(*await asyncio.open_connection(host, int(port)))
            wire.writer.write(HELLO)
            await wire.frame()
            large = frame(Kind.REQUEST, 3, bytes(1 << 20), method=STATUS, deadline_ms=1000)
            wire.writer.write(large[: 1 << 19])
            await until(lambda: budget.used == len(large))
            wire.writer.close()
            await until(lambda: face.connections == 0)
            assert budget.used == 0

    play(story())


class Large:
    """A router whose status is long."""

    async def cluster_status(self, deadline: Any) -> dict[str, Any]:
        return {"x": "y" * (3 << 20)}


def test_a_client_that_reads_nothing_is_cut_off(play: Any) -> None:
    async def story() -> None:
        async with facing(Large(), bodies_bytes_max=8 << 20) as (face, stats, client, _):
            host, port = client.address.split(":")
            wire = Wire(*await asyncio.open_connection(host, int(port), limit=1 << 16))
            wire.writer.write(HELLO)
            await wire.frame()
            for number in range(40):
                wire.writer.write(frame(Kind.REQUEST, number + 1, method=STATUS, deadline_ms=20_000))
            await until(lambda: stats.broken["unread"] == 1 and face.connections == 0)
            assert await client.call(pb.ROUTER_METHOD_SERVER_INFO, b"", deadline=soon())
            wire.writer.close()

    play(story())


def test_some_time_is_kept_for_the_way_back(play: Any) -> None:
    async def story() -> None:
        seen: list[Deadline] = []

        class Router:
            async def cluster_status(self, deadline: Deadline) -> dict[str, Any]:
                seen.append(deadline)
                return {}

        async with facing(Router()) as (_, _, client, _):
            await client.call(STATUS, b"", deadline=Deadline.after(SystemClock(), 2.0))
            assert 1.0 < seen[0].left_s < 1.9
            with pytest.raises(DeadlineExceededError):
                await client.call(STATUS, b"", deadline=Deadline.after(SystemClock(), 0.0))

    play(story())


def test_rest_goes_on_beside_it(play: Any) -> None:
    async def story() -> None:
        async with serving() as served:
            wire = await (await Wire.to(served.http)).changed()
            async with httpx.AsyncClient() as client:
                assert (await client.get(f"http://{served.http}/readyz")).status_code == 200
            wire.writer.close()

    play(story())
