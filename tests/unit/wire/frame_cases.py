"""A framed server and client on the loopback, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from omendb_common.checksum import byte_view
from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.wire.frame_client import FrameClient
from omendb_common.wire.frame_connection import FrameIdentity
from omendb_common.wire.frame_server import Answer, FrameServer, Request
from omendb_common.wire.frames import Kind, encode
from omendb_proto.v1 import frames_pb2

ROUTER = FrameIdentity("c1", "router", "r1", "0.1.0")
NODE = FrameIdentity("c1", "datanode", "d1", "0.1.0")
CLOCK = SystemClock()


def soon(timeout_s: float = 30.0) -> Deadline:
    """A deadline that a passing test never meets."""
    return Deadline.after(CLOCK, timeout_s)


async def echo(request: Request) -> Answer:
    """Answers with what was asked."""
    return request.message, request.attachments


@asynccontextmanager
async def serving(
    handler: Callable[[Request], Coroutine[Any, Any, Answer]] = echo, **options: Any
) -> AsyncIterator[FrameServer]:
    """A server that is stopped at the end, without patience."""
    server = FrameServer(handler, options.pop("identity", NODE), **options)
    await server.start("127.0.0.1:0")
    try:
        yield server
    finally:
        await server.stop(drain_s=0.0)


@asynccontextmanager
async def calling(address: str, **options: Any) -> AsyncIterator[FrameClient]:
    """A client that is closed at the end."""
    client = FrameClient(address, options.pop("identity", ROUTER), **options)
    try:
        yield client
    finally:
        await client.close()


async def until(true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.002)


def frame(kind: Kind, call: int = 0, message: bytes = b"", *attachments: bytes, **more: int) -> bytes:
    """A frame's bytes."""
    return b"".join(bytes(byte_view(part)) for part in encode(kind, call, message, attachments, **more))


def hello(**change: Any) -> bytes:
    """The hello of a welcome router, or of another one."""
    fields: dict[str, Any] = {
        "version_min": 1,
        "version_max": 1,
        "cluster_id": "c1",
        "role": "router",
        "node_id": "r1",
        "in_flight_max": 9,
        "frame_bytes_max": 1 << 20,
    }
    return frame(Kind.HELLO, 0, frames_pb2.Hello(**(fields | change)).SerializeToString())
