"""Connections between members that can be cut in one direction: a relay in the way of each.

Each member dials the others and only sends on what it dialled, so the relay from one member to another carries just
what the one says to the other. A relay that is cut keeps its connections and lets nothing through, as a network does.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from omendb_chaos.raft.member_process import Address

_CHUNK_BYTES = 64 << 10


class Link:
    """From one member to another."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> Address:
        """Where to dial it."""
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    async def start(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._relay, sock=self._socket)

    def cut(self) -> None:
        """Let nothing through any more; what is on its way is held back."""
        self._open.clear()

    def heal(self) -> None:
        """Let everything through again."""
        self._open.set()

    async def stop(self) -> None:
        """End it with all its connections."""
        if self._server is not None:
            self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)
        far: asyncio.StreamWriter | None = None
        with suppress(OSError, asyncio.CancelledError):
            await self._open.wait()
            back, far = await asyncio.open_connection(*self._target)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._copy(reader, far))
                both.create_task(self._copy(back, writer))
        for end in (writer, far):
            if end is not None:
                end.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        with suppress(OSError, RuntimeError):
            writer.write_eof()


class Links:
    """Every direction between the members of a group."""

    def __init__(self) -> None:
        self._links: dict[tuple[str, str], Link] = {}

    def dialled(self, who: str, whom: str, address: Address) -> Address:
        """Put a link where the first member dials the second; see ``members``."""
        link = self._links[who, whom] = Link(address)
        return link.address

    async def start(self) -> None:
        """Take connections everywhere."""
        for link in self._links.values():
            await link.start()

    def cut(self, who: str, whom: str) -> None:
        """What the first says does not reach the second."""
        self._links[who, whom].cut()

    def isolate(self, who: str) -> None:
        """Nobody hears it, and it hears nobody."""
        for pair, link in self._links.items():
            if who in pair:
                link.cut()

    def heal(self) -> None:
        """Let everything through."""
        for link in self._links.values():
            link.heal()

    async def stop(self) -> None:
        """End all."""
        for link in self._links.values():
            await link.stop()


__all__ = ["Link", "Links"]
