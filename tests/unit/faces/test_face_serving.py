"""Both faces on real ports: bound, taken, shared, drained."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography import x509

from omendb_common.clock import SystemClock
from omendb_common.errors import InvalidArgumentError, UnavailableError
from omendb_common.security.dev_certificates import DevAuthority
from omendb_proto.v1 import router_pb2 as pb
from omendb_router.config import FaceSettings, FaceTls
from omendb_router.face_serving import Faces as Serving
from omendb_router.face_serving import Place, bind
from omendb_router.grpc_face import SERVICE
from omendb_router.rest.protocol import BoundedHttp
from tests.unit.faces.conftest import ABOUT, Faces

ANY = Place("127.0.0.1", 0)


class Slow:
    """A router whose status comes when it is let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.let_go = asyncio.Event()
        self.cancelled = False

    async def cluster_status(self, deadline: Any) -> dict[str, Any]:
        self.begun.set()
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return {"slow": True}


def serving(router: Any, drain_s: float = 5.0, shared: bool = False) -> Serving:
    return Serving(router, ABOUT, settings=FaceSettings(drain_s=drain_s), shared=shared)


@pytest.mark.parametrize(
    ("text", "place"),
    [("a:1", Place("a", 1)), ("[::1]:80", Place("::1", 80)), ("127.0.0.1:65535", Place("127.0.0.1", 65535))],
)
def test_places_are_read_and_written(text: str, place: Place) -> None:
    assert Place.parse(text, "x") == place
    assert Place.parse(str(place), "x") == place


@pytest.mark.parametrize("text", ["", "a", ":1", "a:", "a:b", "a:-1", "a:65536", "a:1 "])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Place.parse(text, "--http")
    assert caught.value.field == "--http"


def test_both_faces_serve_until_they_are_stopped(faces: Faces) -> None:
    async def story() -> None:
        served = serving(faces.router)
        assert served.standing.state == "starting"
        await served.start(ANY, ANY)
        async with httpx.AsyncClient(base_url=f"http://{served.http}") as client:
            assert (await client.get("/readyz")).json() == {"status": "ok"}
            assert (await client.get("/info")).json()["grpc_port"] == served.grpc.port
        async with grpc.aio.insecure_channel(str(served.grpc)) as channel:
            call = channel.unary_unary(f"/{SERVICE}/ServerInfo", response_deserializer=pb.ServerInfoReply.FromString)
            assert (await call(b"", timeout=5)).version == "1.2.3"
        await served.stop()
        assert served.standing.state == "draining"
        with pytest.raises(httpx.ConnectError):
            async with httpx.AsyncClient() as client:
                await client.get(f"http://{served.http}/livez")

    faces.run(story())


def test_calls_that_were_taken_end_before_the_ports_close(faces: Faces) -> None:
    async def story() -> None:
        slow = Slow()
        served = serving(slow)
        await served.start(ANY, ANY)
        async with httpx.AsyncClient() as client:
            asked = asyncio.create_task(client.get(f"http://{served.http}/cluster/status"))
            await slow.begun.wait()
            stopping = asyncio.create_task(served.stop())
            await asyncio.sleep(0)
            slow.let_go.set()
            assert (await asked).json() == {"slow": True}
            await stopping

    faces.run(story())


def test_a_drain_has_an_end(faces: Faces) -> None:
    async def story() -> None:
        slow = Slow()
        served = serving(slow, drain_s=0.2)
        await served.start(ANY, ANY)
        async with httpx.AsyncClient() as client, grpc.aio.insecure_channel(str(served.grpc)) as channel:
            rest = asyncio.create_task(client.get(f"http://{served.http}/cluster/status"))
            await slow.begun.wait()
            slow.begun.clear()
            call = channel.unary_unary(f"/{SERVICE}/ClusterStatus")(b"", timeout=60)
            await slow.begun.wait()
            await served.stop()
            with pytest.raises((httpx.HTTPError, AssertionError)):
                assert (await rest).status_code == 200
            with pytest.raises(grpc.aio.AioRpcError):
                await call
            assert slow.cancelled

    faces.run(story())


def test_a_cancelled_grpc_call_is_cancelled_inside(faces: Faces) -> None:
    async def story() -> None:
        slow = Slow()
        served = serving(slow)
        await served.start(ANY, ANY)
        async with grpc.aio.insecure_channel(str(served.grpc)) as channel:
            call = channel.unary_unary(f"/{SERVICE}/ClusterStatus")(b"", timeout=60)
            await slow.begun.wait()
            call.cancel()
            while not slow.cancelled:
                await asyncio.sleep(0.001)
        await served.stop()

    faces.run(story())


HEAD = b"GET /livez HTTP/1.1\r\nhost: x\r\n"


def with_head_of(size: int) -> bytes:
    """A request whose path, header names and values have so many bytes together."""
    fixed = len("/livez" + "host" + "x" + "filler")
    return HEAD + b"filler: " + b"y" * (size - fixed) + b"\r\n\r\n"


def test_the_head_of_a_request_has_a_bound(faces: Faces) -> None:
    async def ask(place: Place, *parts: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(place.host, place.port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await reader.readuntil(b"\r\n")
        finally:
            writer.close()

    async def story() -> None:
        served = Serving(faces.router, ABOUT, settings=FaceSettings(head_bytes_max=8192))
        await served.start(ANY, ANY)
        assert b" 200 " in await ask(served.http, with_head_of(8192))
        assert b" 431 " in await ask(served.http, with_head_of(8193))
        # Two requests of one connection have a head each.
        assert b" 200 " in await ask(served.http, with_head_of(6000), with_head_of(6000))
        # A header without an end, and headers without an end.
        assert b" 431 " in await ask(served.http, HEAD + b"x: ", *[b"y" * 65_536] * 5)
        assert b" 431 " in await ask(served.http, HEAD, *[b"%d: %b\r\n" % (i, b"y" * 100) for i in range(100)])
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://{served.http}/livez", headers={"x": "y" * 8192})
            assert answer.status_code == 431 and answer.json()["error"]["field"] == "headers"
        await served.stop()

    faces.run(story())


@pytest.mark.parametrize("sent", [b"", HEAD, b"\r\n", HEAD + b"\r\n" + HEAD, HEAD + b"\r\n", HEAD + b"\r\n\r\n"])
def test_who_sends_no_request_holds_no_place(faces: Faces, sent: bytes) -> None:
    async def story() -> None:
        served = Serving(faces.router, ABOUT, settings=FaceSettings(head_timeout_s=0.05, keep_alive_s=1))
        await served.start(ANY, ANY)
        reader, writer = await asyncio.open_connection(served.http.host, served.http.port)
        writer.write(sent)
        with contextlib.suppress(ConnectionError):
            answer = await asyncio.wait_for(reader.read(), 20)
            assert (b" 200 " in answer) == (b"\r\n\r\n" in sent)
        writer.close()
        await served.stop()

    faces.run(story())


def test_a_slow_body_is_not_a_slow_head(faces: Faces) -> None:
    async def story() -> None:
        served = Serving(faces.router, ABOUT, settings=FaceSettings(head_timeout_s=20))
        await served.start(ANY, ANY)

        async def body() -> AsyncIterator[bytes]:
            yield b'{"name":"slow",'
            assert served._http is not None
            (connection,) = served._http.server_state.connections
            assert isinstance(connection, BoundedHttp)
            while connection._in_head:
                await asyncio.sleep(0.001)
            assert connection._timer is None
            yield b'"dimension":2}'

        async with httpx.AsyncClient() as client:
            answer = await client.post(
                f"http://{served.http}/collections", content=body(), headers={"content-type": "application/json"}
            )
            assert answer.status_code == 201
        await served.stop()

    faces.run(story())


def test_a_port_that_is_taken_is_said_to_be(faces: Faces) -> None:
    async def story(http: Place, calls: Place) -> None:
        served = serving(faces.router)
        try:
            with pytest.raises(UnavailableError, match="cannot listen"):
                await served.start(http, calls)
        finally:
            await served.stop()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = Place("127.0.0.1", taken.getsockname()[1])
        faces.run(story(place, ANY))
        faces.run(story(ANY, place))
    with pytest.raises(UnavailableError):
        bind(Place("no.such.host.invalid", 1))


def test_two_workers_share_their_ports(faces: Faces) -> None:
    async def story() -> None:
        with bind(ANY, shared=True) as http, bind(ANY, shared=True) as calls:
            places = [Place("127.0.0.1", sock.getsockname()[1]) for sock in (http, calls)]
            pair = [serving(faces.router, shared=True) for _ in range(2)]
            for served in pair:
                await served.start(*places)
                assert [served.http, served.grpc] == places
            await pair[0].stop()
            async with httpx.AsyncClient() as client:
                assert (await client.get(f"http://{places[0]}/livez")).status_code == 200
            await pair[1].stop()

    faces.run(story())


def test_both_faces_speak_tls_when_told_to(faces: Faces, tmp_path: Path) -> None:
    files = DevAuthority.open(tmp_path, "dev", SystemClock()).issue("router", "r1", SystemClock())

    async def story() -> None:
        served = Serving(faces.router, ABOUT, tls=FaceTls(files.cert, files.key))
        await served.start(ANY, ANY)
        async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=files.ca)) as client:
            assert (await client.get(f"https://{served.http}/livez")).status_code == 200
        trusted = grpc.ssl_channel_credentials(Path(files.ca).read_bytes())
        async with grpc.aio.secure_channel(str(served.grpc), trusted) as channel:
            await channel.unary_unary(f"/{SERVICE}/ServerInfo")(b"", timeout=10)
        with pytest.raises(httpx.HTTPError):
            async with httpx.AsyncClient() as client:
                await client.get(f"http://{served.http}/livez")
        await served.stop()

    faces.run(story())


def test_both_faces_take_a_renewed_certificate_without_a_restart(faces: Faces, tmp_path: Path) -> None:
    authority = DevAuthority.open(tmp_path, "dev", SystemClock())
    files = authority.issue("router", "r1", SystemClock())

    def shown(place: Place) -> int:
        """The serial number of the certificate that a new connection sees."""
        pem = ssl.get_server_certificate((place.host, place.port), ca_certs=files.ca, timeout=20)
        return x509.load_pem_x509_certificate(pem.encode()).serial_number

    async def story() -> None:
        served = Serving(faces.router, ABOUT, tls=FaceTls(files.cert, files.key))
        await served.start(ANY, ANY)
        places = (served.http, served.grpc)
        old = {await asyncio.to_thread(shown, place) for place in places}
        authority.issue("router", "r1", SystemClock())
        new = {await asyncio.to_thread(shown, place) for place in places}
        assert len(old) == len(new) == 1 and old != new
        (tmp_path / "router-r1.key").write_text("broken")
        assert {await asyncio.to_thread(shown, place) for place in places} == new
        await served.stop()

    faces.run(story())


def test_a_certificate_that_cannot_be_used_is_named(faces: Faces, tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("nothing")

    async def story(name: str) -> None:
        served = Serving(faces.router, ABOUT, tls=FaceTls(str(tmp_path / name), str(tmp_path / name)))
        with pytest.raises(InvalidArgumentError) as caught:
            await served.start(ANY, ANY)
        assert caught.value.field == "face_tls"
        await served.stop()

    faces.run(story("bad.pem"))
    faces.run(story("missing.pem"))
