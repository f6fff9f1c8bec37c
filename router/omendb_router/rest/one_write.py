"""A transport whose answers leave in one write: uvicorn writes the head and the body of an answer one after the other.

Each write is a system call and wakes the client.
"""

from __future__ import annotations

import asyncio
from typing import Any

_TOGETHER_BYTES = 64 << 10


class GatheringTransport:
    """A transport that keeps what is written in one turn of the event loop, and writes it at the turn's end."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Keep a piece; much is written at once."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > _TOGETHER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was kept."""
        parts, self._parts, self._size = self._parts, [], 0
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))

    def detach(self) -> asyncio.Transport:
        """The transport itself, with everything written: for whoever goes on with it."""
        self.flush()
        return self._transport

    def close(self) -> None:
        """Close, when what was kept has been sent."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


__all__ = ["GatheringTransport"]
