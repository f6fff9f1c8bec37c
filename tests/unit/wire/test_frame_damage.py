"""Whatever a peer sends, the connection is closed and counted, and everybody else is served as before."""

from __future__ import annotations

import asyncio
import os
import random
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.checksum import crc32c
from omendb_common.errors import UnavailableError
from omendb_common.wire.frames import FRAME_BYTES_MAX, MAGIC, Frame, FrameDecoder, FrameLimits, Kind
from tests.unit.wire.frame_cases import calling, frame, hello, serving, soon, until

LIMITS = FrameLimits(hello_timeout_s=0.2, stall_timeout_s=0.2)


CALL = frame(Kind.REQUEST, 1, b"hello", method=1, deadline_ms=60_000)
LARGE = frame(Kind.REQUEST, 2, b"", bytes(900_000), method=1, deadline_ms=60_000)


def great_length() -> bytes:
    head = struct.pack("<IBBHQIIHHII", MAGIC, 1, 2, 0, 1, 0, 8, 0, 0, (1 << 32) - 1, 0)
    return head + struct.pack("<I", crc32c(head))


def flipped(data: bytes, at: int) -> bytes:
    damaged = bytearray(data)
    damaged[at] ^= 0x10
    return bytes(damaged)


# What a peer sends, whether it then closes, and the reason that is counted.
ATTACKS: dict[str, tuple[bytes, bool, str]] = {
    "silence": (b"", False, "hello_timeout"),
    "half a hello": (hello()[:20], False, "hello_timeout"),
    "a hello that ends": (hello()[:-1], True, "truncated"),
    "garbage": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nand more of it", False, "magic"),
    "a hello of four gigabytes": (great_length(), False, "too_big"),
    "a hello that is too long": (frame(Kind.HELLO, 0, bytes(65_536)), False, "too_big"),
    "a hello that is no hello": (frame(Kind.HELLO, 0, b"\xff\xff\xff"), False, "hello"),
    "a call before the hello": (CALL, False, "hello"),
    "two hellos": (hello() * 2, False, "hello"),
    "another cluster": (hello(cluster_id="c2"), False, "refused"),
    "a version of the future": (hello(version_min=2, version_max=9), False, "refused"),
    "a flipped byte in a header": (hello() + flipped(CALL, 20), False, "header_checksum"),
    "a flipped byte in a body": (hello() + flipped(CALL, -1), False, "body_checksum"),
    "a flipped byte in a large body": (hello() + flipped(LARGE, 500_000), False, "body_checksum"),
    "a call of four gigabytes": (hello() + great_length(), False, "too_big"),
    "half a call, then the end": (hello() + CALL[:-3], True, "truncated"),
    "half a large call, then the end": (hello() + LARGE[:400_000], True, "truncated"),
    "half a large call, then silence": (hello() + LARGE[:400_000], False, "stalled"),
    "half a header, then silence": (hello() + CALL[:10], False, "stalled"),
    "one number twice": (hello() + CALL + CALL, False, "call"),
    "an answer to a server": (hello() + frame(Kind.RESPONSE, 1), False, "kind"),
}


async def attack(address: str, data: bytes, then_close: bool) -> bytes:
    """Send bytes as a raw peer; what came back until the server closed."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        if then_close:
            writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_closes_its_connection_and_nothing_else(name: str, runner: Any) -> None:
    data, then_close, reason = ATTACKS[name]

    async def scene() -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        held = asyncio.Event()

        async def handle(request: Any) -> Any:
            if request.method == 1 and name == "one number twice":
                await held.wait()
            return request.message, ()

        async with serving(handle, limits=LIMITS, cancellable={1}) as server, calling(server.address) as client:
            await client.call(2, b"before", deadline=soon())
            async with asyncio.timeout(20):
                await attack(server.address, data, then_close)
            await until(lambda: server.connections == 1)
            assert dict(server.stats.broken) == {reason: 1}
            assert (await client.call(2, b"after", deadline=soon())).message == b"after"
        assert not complaints

    runner(scene())


def test_an_idle_peer_is_no_stalled_one() -> None:
    async def scene() -> None:
        limits = FrameLimits(hello_timeout_s=0.02, stall_timeout_s=0.02)
        async with serving(limits=limits) as server, calling(server.address, limits=limits) as client:
            await client.call(1, b"", deadline=soon())
            ticks: list[float] = []
            loop = asyncio.get_running_loop()
            for i in range(10):
                loop.call_later(0.02 * i, ticks.append, 1.0)
            await until(lambda: len(ticks) == 10)
            assert (await client.call(1, b"x", deadline=soon())).message == b"x"
            assert server.stats.connections == 1 and not server.stats.broken

    asyncio.run(scene())


def test_three_hundred_slow_peers_do_not_keep_others_out() -> None:
    async def scene() -> None:
        async with serving(limits=LIMITS) as server, calling(server.address) as client:
            host, port = server.address.split(":")
            slow = [await asyncio.open_connection(host, int(port)) for _ in range(300)]
            replies = await asyncio.gather(*(client.call(1, b"x", deadline=soon()) for _ in range(100)))
            assert len(replies) == 100
            await until(lambda: server.stats.broken["hello_timeout"] == 300)
            for _, writer in slow:
                writer.close()

    asyncio.run(scene())


def test_connections_are_bounded() -> None:
    async def scene() -> None:
        async with serving(connections_max=2) as server, calling(server.address, connections=2) as client:
            while server.connections < 2:
                await client.call(1, b"", deadline=soon())
            assert await attack(server.address, hello(), False) == b""
            assert server.stats.broken["too_many_connections"] == 1
            await client.call(1, b"", deadline=soon())

    asyncio.run(scene())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=300) | st.sampled_from([hello(), CALL]), max_size=4), st.booleans())
def test_no_bytes_break_a_server(pieces: list[bytes], welcome: bool) -> None:
    async def scene() -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with serving(limits=LIMITS) as server:
            await attack(server.address, (hello() if welcome else b"") + b"".join(pieces), True)
            await until(lambda: server.connections == 0)
        assert not complaints

    asyncio.run(scene())


async def bad_server(answer: bytes) -> tuple[asyncio.Server, str]:
    """A server that says hello and then ``answer``, whatever it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(hello(role="datanode", node_id="d1"))
        decoder = FrameDecoder(FRAME_BYTES_MAX)
        try:
            while (data := await reader.read(1000)) and not _asked(decoder, data):
                pass
            writer.write(answer)
            await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    name = server.sockets[0].getsockname()
    return server, f"{name[0]}:{name[1]}"


def _asked(decoder: FrameDecoder, data: bytes) -> bool:
    decoder.room()[: len(data)] = data
    decoder.received(len(data))
    found: list[Frame] = []
    while (one := decoder.next()) is not None:
        found.append(one)
    return any(one.kind == Kind.REQUEST for one in found)


GOOD = frame(Kind.RESPONSE, 1, b"answer")
BAD_ANSWERS: dict[str, tuple[bytes, str | None]] = {
    "nothing": (b"", None),
    "garbage": (b"x" * 100, "magic"),
    "half an answer": (GOOD[:-1], "truncated"),
    "a flipped byte": (flipped(GOOD, -1), "body_checksum"),
    "four gigabytes": (great_length(), "too_big"),
    "a call": (CALL, "kind"),
    "the answer to another call": (frame(Kind.RESPONSE, 99), None),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_a_bad_answer_is_of_unknown_outcome(name: str) -> None:
    answer, reason = BAD_ANSWERS[name]

    async def scene() -> None:
        server, address = await bad_server(answer)
        async with calling(address) as client:
            with pytest.raises(UnavailableError) as caught:
                await client.call(1, b"", deadline=soon())
            assert caught.value.outcome == "unknown"
            assert dict(client.stats.broken) == ({reason: 1} if reason else {})
        server.close()
        await server.wait_closed()

    asyncio.run(scene())


_VICTIM = """
import asyncio, os, signal, sys
from tests.unit.wire.frame_cases import NODE, serving

async def main():
    async with serving() as server:
        admitted = server.admit
        def admit(session):
            # Dies with a large frame half received: nothing is said, no buffer is emptied.
            received = session.buffer_updated
            def count(n):
                received(n)
                if session.stats.bytes_in > 2_000_000:
                    os.kill(os.getpid(), signal.SIGKILL)
            session.buffer_updated = count
            return admitted(session)
        server.admit = admit
        print(server.address, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_process_killed_in_the_middle_of_a_frame() -> None:
    async def scene() -> None:
        root = Path(__file__).resolve().parents[3]
        victim = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _VICTIM, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)}
        )
        assert victim.stdout is not None
        address = (await victim.stdout.readline()).decode().strip()
        async with calling(address) as client:
            assert (await client.call(1, b"alive", deadline=soon())).message == b"alive"
            with pytest.raises(UnavailableError) as caught:
                await client.call(1, b"", [random.Random(1).randbytes(20_000_000)], deadline=soon())
            assert caught.value.outcome == "unknown" and await victim.wait() == -9
            with pytest.raises(UnavailableError) as again:
                await client.call(1, b"", deadline=soon())
            assert again.value.outcome == "none"

    asyncio.run(scene())
