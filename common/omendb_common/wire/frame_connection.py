"""One framed connection, either side of it: bytes in, frames out, and back-pressure in both directions."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf.message import DecodeError

from omendb_common.checksum import Buffer, byte_length, byte_view
from omendb_common.errors import OmenDBError, PermissionDeniedError
from omendb_common.security.tls import PeerName, peer_name
from omendb_common.wire import status
from omendb_common.wire.frames import (
    HELLO_BYTES_MAX,
    Attachment,
    Frame,
    FrameDecoder,
    FrameError,
    FrameLimits,
    FrameStats,
    Kind,
    encode,
)
from omendb_proto.v1 import frames_pb2

# A peer that is gone without a word (power cut, partition) is noticed by the kernel within this time.
_SILENT_S = 15
_PROBE_IDLE_S = 5
_PROBE_EVERY_S = 3
_PROBES = 3
# Up to this much is joined before it is written: copying it costs less than gathering it.
_TOGETHER_BYTES = 64 << 10
# uvloop and, from 3.12, asyncio gather buffers; before, asyncio joins them, which copies a large frame once more.
_JOINING_LOOP = sys.version_info < (3, 12)


@dataclass(frozen=True, slots=True)
class FrameIdentity:
    """Who a process says it is when it connects. Both ends must be of one cluster."""

    cluster_id: str
    role: str
    node_id: str
    release: str = ""


@dataclass(frozen=True, slots=True)
class FramePeer:
    """Who is at the other end: what it said, and what its certificate says (None without TLS)."""

    identity: FrameIdentity
    certificate: PeerName | None
    address: str
    version: int
    in_flight_max: int
    frame_bytes_max: int


class FrameConnection(asyncio.BufferedProtocol):
    """The part that both ends share. A subclass says what to do with a peer, with a frame, and with the end.

    Nothing a peer sends raises out of here: a broken stream is counted by its reason and closed.
    """

    def __init__(self, identity: FrameIdentity, limits: FrameLimits, stats: FrameStats) -> None:
        self.identity = identity
        self.limits = limits
        self.stats = stats
        self.peer: FramePeer | None = None
        self.paused_writing = False
        self.closed = False
        # The hello must be readable for every peer that may be welcome.
        self.version = limits.versions[0]
        self.why = "the connection was closed"
        """Why it ended, for the errors of the calls that it took with it."""
        self._transport: asyncio.Transport | None = None
        self._decoder = FrameDecoder(HELLO_BYTES_MAX, limits.versions)
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.TimerHandle | None = None
        self._seen = 0
        self._reading = True
        self._draining = False
        self._joins = False
        self._out: list[Buffer] = []
        self._out_bytes = 0

    # --- what a subclass says

    def greeted(self) -> None:
        """The peer has said who it is and is welcome: ``peer`` is set."""

    def take(self, frame: Frame) -> None:
        """A frame of a greeted peer, other than HELLO."""

    def lost(self) -> None:
        """The connection has ended; called once."""

    def holds(self) -> bool:
        """Whether no more frames may be taken now. When that ends, call :meth:`release`."""
        return self.paused_writing

    # --- writing

    def send(
        self,
        kind: Kind,
        call: int,
        message: bytes = b"",
        attachments: Sequence[Attachment] = (),
        method: int = 0,
        deadline_ms: int = 0,
    ) -> None:
        """Write one frame; nothing when the connection has ended.

        Frames of one turn of the event loop leave together, in one system call.

        Raises:
            InvalidArgumentError: the frame is longer than the peer takes.
        """
        peer = self.peer
        parts = encode(
            kind,
            call,
            message,
            attachments,
            method=method,
            deadline_ms=deadline_ms,
            version=self.version,
            bytes_max=self.limits.frame_bytes_max if peer is None else peer.frame_bytes_max,
        )
        if self.closed:
            return
        self.stats.frames_out += 1
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out += parts
        self._out_bytes += sum(map(byte_length, parts)) if len(parts) > 1 else len(parts[0])
        if self._out_bytes > _TOGETHER_BYTES:
            self._flush()

    def _flush(self) -> None:
        parts, self._out = self._out, []
        size, self._out_bytes = self._out_bytes, 0
        transport = self._transport
        if not parts or transport is None or transport.is_closing():
            return
        self.stats.bytes_out += size
        if size <= _TOGETHER_BYTES:
            transport.write(b"".join(parts))  # type: ignore[arg-type]  # as in frames.encode
        elif self._joins:
            for part in parts:
                transport.write(byte_view(part))
        else:
            transport.writelines(map(byte_view, parts))

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent."""
        return self._out_bytes + (0 if self._transport is None else self._transport.get_write_buffer_size())

    def close(self, why: str) -> None:
        """End the connection once what was written has been sent."""
        if self._transport is not None and not self.closed:
            self.closed = True
            self.why = why
            self._flush()
            self._transport.close()

    def abort(self, why: str) -> None:
        """End the connection at once."""
        if self._transport is not None:
            if not self.closed:
                self.why = why
            self.closed = True
            self._out.clear()
            self._transport.abort()

    def say_hello(self) -> None:
        """Tell the peer who this is and what it may send."""
        hello = frames_pb2.Hello(
            version_min=self.limits.versions[0],
            version_max=self.limits.versions[1],
            cluster_id=self.identity.cluster_id,
            role=self.identity.role,
            node_id=self.identity.node_id,
            release=self.identity.release,
            in_flight_max=self.limits.in_flight_max,
            frame_bytes_max=self.limits.frame_bytes_max,
        )
        self.send(Kind.HELLO, 0, hello.SerializeToString())

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio: there is a connection."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self.limits.write_buffer_bytes)
        self._joins = _JOINING_LOOP and type(self._loop).__module__.startswith("asyncio")
        _probe(self._transport.get_extra_info("socket"))
        self.stats.connections += 1
        self._watch = self._loop.call_later(self.limits.hello_timeout_s, self._check_hello)

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio: the connection has ended."""
        if exc is not None and not self.closed:
            self.why = f"the connection was lost: {exc}"
        self.closed = True
        self.stats.connections -= 1
        if self._watch is not None:
            self._watch.cancel()
        self.lost()

    def pause_writing(self) -> None:
        """Asyncio: too much is unsent."""
        self.paused_writing = True
        self._pause_or_resume()

    def resume_writing(self) -> None:
        """Asyncio: what was unsent has been sent."""
        self.paused_writing = False
        self.release()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Asyncio: where to receive to."""
        return self._decoder.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Asyncio: so much was received."""
        self.stats.bytes_in += nbytes
        self._decoder.received(nbytes)
        self._drain()

    def eof_received(self) -> bool:
        """Asyncio: the peer sends no more; a half of a frame is a broken one."""
        if self._decoder.mid_frame and not self.holds() and not self.closed:
            self._break(FrameError("truncated"))
        return False

    # --- reading

    def release(self) -> None:
        """What :meth:`holds` said may have changed: go on with what was received."""
        if not self._draining and not self.closed:
            self._drain()

    def _drain(self) -> None:
        self._draining = True
        try:
            while not self.closed and not self.holds():
                frame = self._decoder.next()
                if frame is None:
                    break
                self.stats.frames_in += 1
                self._dispatch(frame)
        except FrameError as error:
            self._break(error)
        finally:
            self._draining = False
        self._pause_or_resume()

    def _pause_or_resume(self) -> None:
        wanted = not self.holds()
        if wanted == self._reading or self.closed or self._transport is None:
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _dispatch(self, frame: Frame) -> None:
        if self.peer is not None:
            if frame.kind == Kind.HELLO:
                raise FrameError("hello", "a second one")
            self.take(frame)
        elif frame.kind == Kind.HELLO:
            self._greet(frame)
        elif frame.kind == Kind.ERROR:
            self.close(str(status.from_bytes(frame.message)))
        else:
            raise FrameError("hello", "another frame came first")

    def _greet(self, frame: Frame) -> None:
        try:
            hello = frames_pb2.Hello.FromString(frame.message)
        except DecodeError:
            raise FrameError("hello", "malformed") from None
        transport = self._transport
        assert transport is not None
        certificate = peer_name(transport.get_extra_info("ssl_object"))
        version = min(hello.version_max, self.limits.versions[1])
        peer = FramePeer(
            FrameIdentity(hello.cluster_id, hello.role, hello.node_id, hello.release),
            certificate,
            _address_text(transport.get_extra_info("peername")),
            version,
            max(1, min(hello.in_flight_max, self.limits.in_flight_max)),
            max(HELLO_BYTES_MAX, min(hello.frame_bytes_max, self.limits.frame_bytes_max)),
        )
        refusal = self._refusal(peer, hello.version_min)
        if refusal is not None:
            self.stats.broken["refused"] += 1
            self.send(Kind.ERROR, 0, status.to_bytes(refusal))
            self.close(str(refusal))
            return
        self.peer = peer
        self.version = version
        self._decoder.bytes_max = self.limits.frame_bytes_max
        self.greeted()

    def _refusal(self, peer: FramePeer, version_min: int) -> OmenDBError | None:
        """Why this peer is not welcome, or None."""
        if max(version_min, self.limits.versions[0]) > peer.version:
            low, high = self.limits.versions
            return PermissionDeniedError(
                f"it speaks frames of version {peer.version} at most", field="version", bound=f"{low}..{high}"
            )
        return self._stranger(peer)

    def _stranger(self, peer: FramePeer) -> OmenDBError | None:
        """Why this peer is not one of ours, or None."""
        if peer.identity.cluster_id != self.identity.cluster_id:
            return PermissionDeniedError("this is another cluster", field="cluster_id", bound=self.identity.cluster_id)
        said, shown = peer.identity, peer.certificate
        if shown is not None and not shown.covers(said.cluster_id, said.role, said.node_id):
            return PermissionDeniedError(f"the certificate is that of {shown}", field="node_id", bound=said.node_id)
        return None

    def _break(self, error: FrameError) -> None:
        self.stats.broken[error.reason] += 1
        self.abort(f"the connection broke: {error}")

    def _check_hello(self) -> None:
        if self.peer is None:
            self._break(FrameError("hello_timeout"))
            return
        self._watch_stall()

    def _watch_stall(self) -> None:
        """End a connection whose peer began a frame and fell silent."""
        if self._decoder.mid_frame and self._decoder.progress == self._seen and self._reading:
            self._break(FrameError("stalled"))
            return
        self._seen = self._decoder.progress
        self._watch = self._loop.call_later(self.limits.stall_timeout_s, self._watch_stall)


def _probe(sock: Any) -> None:
    """Let the kernel find out about a peer that is gone; of what a platform does not know, the rest holds."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options: list[tuple[str, int]] = [
        ("TCP_KEEPIDLE", _PROBE_IDLE_S),
        ("TCP_KEEPINTVL", _PROBE_EVERY_S),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", _SILENT_S * 1000),
        ("TCP_NODELAY", 1),
    ]
    for name, value in options:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _address_text(address: Any) -> str:
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) and len(address) >= 2 else str(address or "")


Report = Callable[[BaseException], object]
"""Told of an exception that is a bug, for the log."""

__all__ = ["FrameConnection", "FrameIdentity", "FramePeer", "Report"]
