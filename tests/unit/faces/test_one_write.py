"""What is written in one turn of the event loop leaves in one write, whole and in its order."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from omendb_router.rest.one_write import GatheringTransport


class Recorded:
    """A transport that notes what reaches it."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str) -> str:
        return f"{name} of the inner one"


def played(*pieces: bytes, close: bool = False) -> Recorded:
    inner = Recorded()

    async def scene() -> None:
        transport = GatheringTransport(cast(Any, inner))
        for piece in pieces:
            transport.write(piece)
        if close:
            transport.close()
        await asyncio.sleep(0)

    asyncio.run(scene())
    return inner


def test_head_and_body_leave_together() -> None:
    assert played(b"head", b"", b"body").writes == [b"headbody"]


def test_what_was_kept_is_sent_before_the_connection_closes() -> None:
    inner = played(b"head", b"body", close=True)
    assert inner.writes == [b"headbody"]
    assert inner.closed


def test_a_long_answer_does_not_wait_for_the_end_of_the_turn() -> None:
    long = bytes(100_000)
    inner: Any = Recorded()

    async def scene() -> None:
        transport = GatheringTransport(inner)
        transport.write(b"head")
        transport.write(long)
        assert inner.writes == [b"head" + long]
        transport.write(b"more")
        await asyncio.sleep(0)

    asyncio.run(scene())
    assert inner.writes == [b"head" + long, b"more"]


def test_nothing_is_written_to_a_connection_that_is_closing() -> None:
    inner: Any = Recorded()

    async def scene() -> None:
        transport = GatheringTransport(inner)
        transport.write(b"late")
        inner.closed = True
        await asyncio.sleep(0)

    asyncio.run(scene())
    assert inner.writes == []


def test_everything_else_is_the_inner_transports() -> None:
    async def scene() -> str:
        inner: Any = Recorded()
        return str(GatheringTransport(inner).get_extra_info("peername"))

    assert asyncio.run(scene()) == "peername of the inner one"
