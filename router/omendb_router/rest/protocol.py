"""HTTP connections that bound what comes before a request: how long its head is, and how long it takes.

One that asks for it changes over to frames: it is handed to the frames face as it is.

uvicorn bounds neither with its fast parser: one connection could fill the memory with headers, and connections that
send nothing would hold their places for ever.
"""

from __future__ import annotations

import asyncio
import logging
from typing import cast

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from omendb_common.errors import InvalidArgumentError
from omendb_common.wire import status
from omendb_router.config import FaceSettings
from omendb_router.frame_face import PATH, PROTOCOL, FrameFace
from omendb_router.rest.calls import WHOLE
from omendb_router.rest.one_write import GatheringTransport

_LOG = logging.getLogger("omendb.router.rest")


class _HeadTooLongError(Exception):
    """Ends the parser's work on a request."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, with a bound on the head of a request: its line and its headers."""

    head_bytes_max = FaceSettings().head_bytes_max
    head_timeout_s = FaceSettings().head_timeout_s
    frames: FrameFace | None = None
    _timer: asyncio.TimerHandle | None = None
    _in_head = True
    # Whether the head has begun; between two requests uvicorn's own timer holds.
    _begun = False
    _fed = 0
    _head_bytes = 0
    _changes: bool | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(cast(asyncio.Transport, GatheringTransport(cast(asyncio.Transport, transport))))
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse a head that does not come to its end."""
        if self._in_head:
            self._fed += len(data)
        super().data_received(data)
        if self._changes or not self._in_head or self.transport.is_closing():
            return
        # One header that is never finished is seen by nobody else.
        if self._fed > self.head_bytes_max + _READ_AHEAD_BYTES:
            self._refuse_head()
        elif self._timer is None and (self._begun or self.cycle is None or self.cycle.response_complete):
            self._wait()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._begun, self._head_bytes, self._changes = True, 0, None

    def on_url(self, url: bytes) -> None:
        """A part of the request's line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One whole header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = self._begun = False
        self._wait_no_more()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole; what follows is another head."""
        self._in_head, self._fed = True, 0
        self.scope[WHOLE] = True  # type: ignore[literal-required]
        super().on_message_complete()

    def _should_upgrade(self) -> bool:
        """Whether the request is one for frames, and may have them; else it is answered as any other."""
        if self._changes is None:
            alone = self.cycle is None or self.cycle.response_complete
            frames = self.frames if alone and self.url == PATH and self._get_upgrade() == PROTOCOL else None
            # This connection is among them.
            self._changes = frames is not None and frames.has_room(len(self.connections) - 1)
        return self._changes

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing to warn of: the request is answered without an upgrade."""

    def handle_websocket_upgrade(self) -> None:
        """Uvicorn's name for it: hand the connection over. What came behind the request came too early, and is lost."""
        assert self.frames is not None
        self._wait_no_more()
        self.connections.discard(self)
        transport = cast(GatheringTransport, self.transport)
        transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: " + PROTOCOL + b"\r\n\r\n"
        )
        self.frames.take_over(transport.detach())

    def send_400_response(self, msg: str) -> None:
        """Say what was wrong, where the parser was stopped by us."""
        if self._head_bytes > self.head_bytes_max:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.head_bytes_max:
            raise _HeadTooLongError

    def _refuse_head(self) -> None:
        error = InvalidArgumentError(
            "the request's line and headers are too long",
            field="headers",
            bound=f"at most {self.head_bytes_max} bytes",
            mend="send what is long in the body",
        )
        body = msgspec.json.encode(status.to_json(error))
        head = (
            "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self.head_timeout_s, self._late)

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        _LOG.debug("no request from %s in %.1f s", self.client, self.head_timeout_s)
        # Nothing is under way here, and a peer that does not read must not keep the place either.
        self.transport.abort()


_CHANGED = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: " + PROTOCOL + b"\r\n\r\n"
# A read may bring the whole of a good head and much that follows it.
_READ_AHEAD_BYTES = 256 << 10


def bounded_http(settings: FaceSettings, frame_face: FrameFace | None = None) -> type[BoundedHttp]:
    """The protocol under the bounds of a face; ``frame_face`` gets the connections that change over."""

    class Http(BoundedHttp):
        head_bytes_max = settings.head_bytes_max
        head_timeout_s = settings.head_timeout_s
        frames = frame_face

    return Http


__all__ = ["BoundedHttp", "bounded_http"]
