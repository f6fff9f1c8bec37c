"""Metrics and health over HTTP, on a port of their own: four routes, GET and HEAD, one answer per connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from omendb_common.telemetry.metrics import CONTENT_TYPE

REQUEST_BYTES_MAX = 8192
REQUEST_TIMEOUT_S = 10.0
CONNECTIONS_MAX = 64
TEXT = "text/plain; charset=utf-8"

ROUTES = ("/healthz", "/livez", "/metrics", "/readyz")
"""All there is: this port asks nobody who he is, so it tells nothing else."""

Readiness = Callable[[], str | None]
"""Why this process should get no requests now; None: it should."""

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class HealthServer:
    """Serves ``/metrics``, ``/livez`` (``/healthz``) and ``/readyz``."""

    def __init__(self, render: Callable[[], bytes], readiness: Readiness) -> None:
        """``render`` makes the body of ``/metrics``; ``readiness`` decides ``/readyz``."""
        self._render = render
        self._readiness = readiness
        self._server: asyncio.Server | None = None
        self.connections: set[asyncio.BaseTransport] = set()
        self.address = ""
        """``host:port`` where it listens, once it has started."""

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one. OSError when the address cannot be had."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Exchange(self), host, port)
        name = self._server.sockets[0].getsockname()
        self.address = f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"

    async def stop(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        for transport in list(self.connections):
            cast(asyncio.Transport, transport).abort()
        # The transports tell their protocols in the next turn of the loop.
        await asyncio.sleep(0)

    def answer(self, method: str, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body of a request."""
        if path not in ROUTES:
            return 404, TEXT, b"not found\n"
        if method not in ("GET", "HEAD"):
            return 405, TEXT, b"GET and HEAD only\n"
        if path == "/metrics":
            return 200, CONTENT_TYPE, self._render()
        if path == "/readyz" and (why := self._readiness()) is not None:
            return 503, TEXT, f"not ready: {why}\n".encode()
        return 200, TEXT, b"ok\n"


class _Exchange(asyncio.Protocol):
    """One connection: one request, one answer, the end."""

    def __init__(self, server: HealthServer) -> None:
        self._server = server
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._server.connections) >= CONNECTIONS_MAX:
            self._transport.abort()
            return
        self._server.connections.add(transport)
        self._timer = asyncio.get_running_loop().call_later(REQUEST_TIMEOUT_S, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._server.connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 and len(self._received) <= REQUEST_BYTES_MAX:
            return
        if end < 0 or end > REQUEST_BYTES_MAX:
            self._write(transport, "GET", 431, TEXT, b"too long\n")
            return
        words = bytes(self._received[: self._received.find(b"\r\n")]).split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            self._write(transport, "GET", 400, TEXT, b"no HTTP request\n")
            return
        method, path = words[0].decode("latin-1"), words[1].decode("latin-1").partition("?")[0]
        self._write(transport, method, *self._server.answer(method, path))

    def _write(self, transport: asyncio.Transport, method: str, status: int, kind: str, body: bytes) -> None:
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
        )
        transport.write(head.encode() + (b"" if method == "HEAD" else body))
        transport.close()


__all__ = ["CONNECTIONS_MAX", "REQUEST_BYTES_MAX", "REQUEST_TIMEOUT_S", "ROUTES", "TEXT", "HealthServer", "Readiness"]
