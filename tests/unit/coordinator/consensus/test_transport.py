"""Connections between members: who gets in, and what becomes of whoever does not."""

from __future__ import annotations

import asyncio
import json
import pickle
import random
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from omendb_common.checksum import crc32c
from omendb_common.clock import SystemClock
from omendb_common.security.dev_certificates import DevAuthority
from omendb_common.security.tls import TlsFiles
from omendb_coordinator.consensus.frames import FRAME_BYTES_MAX, BadFrameError, Greeting, frame, read_frame
from omendb_coordinator.consensus.identity import Identity
from omendb_coordinator.consensus.messages import COMMAND, Append, Entry, Message, Stand
from omendb_coordinator.consensus.tls import RaftTls
from omendb_coordinator.consensus.transport import Introduction, TcpTransport
from tests.unit.coordinator.consensus.group_cases import free_ports, until

CLOCK = SystemClock()
TIMEOUT_S = 2.0


def tls_of(files: TlsFiles) -> RaftTls:
    return RaftTls.from_files(files.ca, files.cert, files.key)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> DevAuthority:
    return DevAuthority.open(tmp_path_factory.mktemp("ca"), "cluster", CLOCK)


class Ends:
    """Two transports, a and b, and what each has heard."""

    def __init__(self, tls: dict[str, RaftTls | None], cluster_ids: dict[str, str] | None = None) -> None:
        ports = free_ports(2)
        self.addresses = {"a": ("127.0.0.1", ports[0]), "b": ("127.0.0.1", ports[1])}
        self.heard: dict[str, list[tuple[str, Message]]] = {"a": [], "b": []}
        self.admits = True
        ids = cluster_ids or {}
        self.transports = {
            name: TcpTransport(
                Introduction(Identity(ids.get(name, "cluster"), name, ("a", "b"), f"birth of {name}"), TIMEOUT_S),
                {other: address for other, address in self.addresses.items() if other != name},
                self.addresses[name],
                tls[name],
                self._admit,
                random.Random(1),
            )
            for name in ("a", "b")
        }

    async def _admit(self, greeting: Greeting) -> bool:
        return self.admits

    def connected(self, name: str) -> bool:
        return bool(self.transports[name]._connected)


@asynccontextmanager
async def ends(
    authority: DevAuthority | None, *, b: RaftTls | None = None, cluster_ids: dict[str, str] | None = None
) -> AsyncIterator[Ends]:
    tls: dict[str, RaftTls | None] = {"a": None, "b": None}
    if authority is not None:
        tls = {name: tls_of(authority.issue("coordinator", name, CLOCK)) for name in ("a", "b")}
    if b is not None:
        tls["b"] = b
    made = Ends(tls, cluster_ids)
    try:
        for name, transport in made.transports.items():
            heard = made.heard[name]
            await transport.start(lambda sender, message, heard=heard: heard.append((sender, message)))  # type: ignore[misc]
        yield made
    finally:
        for transport in made.transports.values():
            await transport.stop()


def tell(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


class Resetting:
    """A member b that greets whoever connects, and a moment later resets the connection."""

    def __init__(self) -> None:
        self.greeted = 0

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_frame(reader)
        writer.write(greeting(sender="b", receiver="a", birth="birth of b"))
        self.greeted += 1
        await asyncio.sleep(0.002)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()


@pytest.mark.parametrize("secure", [True, False])
def test_messages_arrive_in_both_directions(authority: DevAuthority, secure: bool) -> None:
    async def story() -> None:
        async with ends(authority if secure else None) as both:
            await until(lambda: both.connected("a") and both.connected("b"))
            big = Append(2, 1, 0, 0, 0, tuple(Entry(index, 2, COMMAND, bytes(200_000)) for index in range(1, 30)))
            both.transports["a"].send("b", Stand(1))
            both.transports["a"].send("b", big)
            both.transports["b"].send("a", Stand(2))
            await until(lambda: len(both.heard["b"]) == 2 and len(both.heard["a"]) == 1)
            assert both.heard == {"a": [("b", Stand(2))], "b": [("a", Stand(1)), ("a", big)]}

    tell(story)


def test_a_member_that_comes_back_is_found_again() -> None:
    async def story() -> None:
        async with ends(None) as both:
            await until(lambda: both.connected("a"))
            await both.transports["b"].stop()
            await until(lambda: not both.connected("a"))
            both.transports["a"].send("b", Stand(1))  # nobody is there: dropped
            await both.transports["b"].start(lambda sender, message: both.heard["b"].append((sender, message)))
            await until(lambda: both.connected("a"))
            both.transports["a"].send("b", Stand(2))
            await until(lambda: bool(both.heard["b"]))
            assert both.heard["b"] == [("a", Stand(2))]

    tell(story)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_connection_that_breaks_while_it_is_written_to_is_made_again(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    """uvloop refuses to write to a connection that it has closed and not yet reported as lost: no OSError."""

    async def story() -> None:
        b, dice = Resetting(), random.Random(2)
        (port,) = free_ports(1)
        server = await asyncio.start_server(b.meet, "127.0.0.1", port)
        me = Introduction(Identity("cluster", "a", ("a", "b"), "birth of a"), TIMEOUT_S)

        async def admit(_: Greeting) -> bool:
            return True

        a = TcpTransport(me, {"b": ("127.0.0.1", port)}, ("127.0.0.1", 0), None, admit, random.Random(1))
        await a.start(lambda sender, message: None)
        try:
            async with asyncio.timeout(20.0):
                while b.greeted < 60:
                    a.send("b", Stand(1))
                    for _ in range(dice.randint(1, 8)):
                        await asyncio.sleep(0)
        finally:
            await a.stop()
            server.close()

    run(story())


def test_a_fault_of_the_code_that_dials_is_told_and_dialling_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        dial, faults = TcpTransport._dial, [ZeroDivisionError("a fault")]

        async def faulty(self: TcpTransport, peer: str) -> Any:
            if faults:
                raise faults.pop()
            return await dial(self, peer)

        monkeypatch.setattr(TcpTransport, "_dial", faulty)
        async with ends(None) as both:
            await until(lambda: both.connected("a") and both.connected("b"))
        assert [repr(one["exception"]) for one in told] == ["ZeroDivisionError('a fault')"]

    tell(story)


@pytest.mark.parametrize("who", ["another member", "another role", "another authority", "expired"])
def test_a_certificate_that_is_not_the_members_opens_nothing(authority: DevAuthority, who: str, tmp_path: Path) -> None:
    files = {
        "another member": lambda: authority.issue("coordinator", "c", CLOCK),
        "another role": lambda: authority.issue("datanode", "b", CLOCK),
        "another authority": lambda: DevAuthority.open(tmp_path, "cluster", CLOCK).issue("coordinator", "b", CLOCK),
        "expired": lambda: authority.issue("coordinator", "b", CLOCK, days=-1),
    }[who]()

    async def story() -> None:
        async with ends(authority, b=tls_of(files)) as both:
            for name, other in (("a", "b"), ("b", "a")):
                for _ in range(2):
                    with pytest.raises((OSError, EOFError, BadFrameError)):
                        # With TLS 1.3 a client learns that it was refused when it first reads.
                        reader, _ = await both.transports[name]._dial(other)
                        if not await reader.read(1):
                            raise EOFError
            assert not both.heard["a"]
            assert not both.heard["b"]

    tell(story)


def test_another_cluster_is_refused() -> None:
    async def story() -> None:
        async with ends(None, cluster_ids={"b": "another"}) as both:
            with pytest.raises((EOFError, BadFrameError)):
                await both.transports["a"]._dial("b")

    tell(story)


def test_whoever_is_not_admitted_is_not_heard() -> None:
    async def story() -> None:
        async with ends(None) as both:
            both.admits = False
            with pytest.raises((EOFError, BadFrameError)):
                await both.transports["a"]._dial("b")

    tell(story)


def greeting(**changes: Any) -> bytes:
    fields = {
        "protocol": 1,
        "cluster_id": "cluster",
        "sender": "a",
        "receiver": "b",
        "birth": "x",
        "origin": "bootstrap",
        **changes,
    }
    return b"".join(frame([json.dumps(fields).encode()]))


def framed(body: bytes) -> bytes:
    return struct.pack("<II", len(body), crc32c(body)) + body


HOSTILE = {
    "nothing": b"",
    "garbage": random.Random(3).randbytes(5000),
    "four gigabytes": struct.pack("<II", 0xFFFFFFFF, 0) + bytes(100),
    "an empty frame": struct.pack("<II", 0, 0),
    "a long greeting": framed(bytes(5000)),
    "a wrong checksum": struct.pack("<II", 4, 1) + b"abcd",
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "pickle": framed(pickle.dumps({"type": "append_entries"})),
    "a stranger": greeting(sender="mallory"),
    "itself": greeting(sender="b"),
    "another receiver": greeting(receiver="c"),
    "another protocol": greeting(protocol=2),
    "odd types": greeting(birth=7),
    "odd fields": greeting(surplus=7),
    "a list": framed(b"[]"),
    "deep nesting": framed(b"[" * 4000),
    "a greeting, then garbage": greeting() + random.Random(4).randbytes(5000),
    "a greeting, then pickle": greeting() + framed(pickle.dumps({"type": "append_entries"})),
    "a greeting, then 33 MiB": greeting() + struct.pack("<II", FRAME_BYTES_MAX + 1, 0),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_bytes_close_the_connection_and_nothing_else(what: str) -> None:
    async def story() -> None:
        told: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(str(context)))
        async with ends(None) as both:
            await until(lambda: both.connected("a"))
            reader, writer = await asyncio.open_connection(*both.addresses["b"])
            writer.write(HOSTILE[what])
            with suppress(OSError):
                writer.write_eof()
                async with asyncio.timeout(5.0):
                    while await reader.read(4096):
                        pass
            writer.close()
            await until(lambda: both.connected("a"))
            # The greeting of a false "a" may have taken the place of the true one: it comes back.
            async with asyncio.timeout(5.0):
                while not both.heard["b"]:
                    both.transports["a"].send("b", Stand(1))
                    await asyncio.sleep(0.01)
            assert set(map(str, both.heard["b"])) == {str(("a", Stand(1)))}
        assert not told

    tell(story)


@pytest.mark.parametrize("what", ["nothing", "garbage", "http", "four gigabytes"])
def test_hostile_bytes_without_tls_close_the_connection_and_nothing_else(authority: DevAuthority, what: str) -> None:
    async def story() -> None:
        async with ends(authority) as both:
            await until(lambda: both.connected("a"))
            reader, writer = await asyncio.open_connection(*both.addresses["b"])
            writer.write(HOSTILE[what])
            with suppress(OSError):
                writer.write_eof()
                async with asyncio.timeout(5.0):
                    while await reader.read(4096):
                        pass
            writer.close()
            both.transports["a"].send("b", Stand(1))
            await until(lambda: both.heard["b"] == [("a", Stand(1))])

    tell(story)


def test_a_client_without_a_certificate_is_refused(authority: DevAuthority) -> None:
    async def story() -> None:
        async with ends(authority) as both:
            context = ssl.create_default_context(cafile=str(authority.folder / "ca.pem"))
            context.check_hostname = False
            with pytest.raises((OSError, EOFError)):
                reader, writer = await asyncio.open_connection(*both.addresses["b"], ssl=context)
                writer.write(greeting())
                await read_frame(reader)
            assert not both.heard["b"]

    tell(story)


def test_old_tls_is_refused(authority: DevAuthority) -> None:
    async def story() -> None:
        async with ends(authority) as both:
            context = tls_of(authority.issue("coordinator", "a", CLOCK)).client
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises(OSError):
                await asyncio.open_connection(*both.addresses["b"], ssl=context)

    tell(story)


def test_a_silent_connection_is_closed_in_time() -> None:
    async def story() -> None:
        async with ends(None) as both:
            reader, writer = await asyncio.open_connection(*both.addresses["b"])
            async with asyncio.timeout(3 * TIMEOUT_S):
                assert await reader.read() == b""
            writer.close()

    tell(story)


def test_a_member_listens_where_it_was_told_to_only() -> None:
    """D11: never on every address of the machine."""

    async def story() -> None:
        async with ends(None) as both:
            assert both.transports["a"].address == both.addresses["a"]
            server = both.transports["a"]._server
            assert server is not None
            assert [sock.getsockname()[0] for sock in server.sockets] == ["127.0.0.1"]

    tell(story)


def test_what_cannot_be_sent_is_dropped_not_kept() -> None:
    async def story() -> None:
        async with ends(None) as both:
            await until(lambda: both.connected("a"))
            piece = Append(1, 1, 0, 0, 0, tuple(Entry(index, 1, COMMAND, bytes(250_000)) for index in range(1, 5)))
            for _ in range(200):
                both.transports["a"].send("b", piece)
            assert both.transports["a"]._outgoing["b"].size <= 32 << 20
            await until(lambda: len(both.heard["b"]) > 10)

    tell(story)
