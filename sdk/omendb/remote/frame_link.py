"""One framed connection to a router, shared by threads without a thread of its own.

A caller writes its frame and then reads, until its answer has come; answers to others that come meanwhile it hands to
them, and when it leaves it names one of those that wait to go on reading. So a lone caller meets no other thread, and
many share reads and writes.
"""

from __future__ import annotations

import math
import ssl
import threading
import time
from collections import deque

from google.protobuf.message import DecodeError

from omendb.remote.byte_pipe import BytePipe, PipeLost
from omendb_common.checksum import Buffer
from omendb_common.errors import (
    DeadlineExceededError,
    ResourceExhaustedError,
    UnavailableError,
)
from omendb_common.wire import status
from omendb_common.wire.frames import HELLO_BYTES_MAX, Frame, FrameDecoder, FrameError, FrameLimits, Kind, encode
from omendb_proto.v1 import frames_pb2
from omendb_proto.v1 import router_pb2 as pb

UPGRADE = (
    "GET /frames HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: omendb-frames/1\r\n"
    "User-Agent: omendb-python\r\n\r\n"
)
PROBE_AFTER_S = 10.0
"""A router that is silent for so long, while it owes an answer, is asked who it is."""
PROBE_ANSWER_S = 10.0
"""It hangs when that brings nothing either."""
_HEAD_BYTES_MAX = 64 << 10
_LATE = "no answer in time"
_MS_MAX = (1 << 32) - 1
_LIMITS = FrameLimits(frame_bytes_max=1 << 30)


class NotOfferedError(Exception):
    """What answers at the address speaks no frames."""


class LinkLostError(Exception):
    """The connection has ended; ``sent``: a call may have gone out on it, and nobody knows what became of it."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


class LinkCall:
    """One call under way. Its fields change under the link's lock."""

    __slots__ = ("_link", "answered", "done", "error", "number", "reply", "signal", "woken")

    def __init__(self, link: FrameLink, number: int) -> None:
        self._link = link
        self.number = number
        self.done = False
        self.answered = False
        self.reply = b""
        self.error: Exception | None = None
        # Held but for a moment after somebody has changed something for the caller.
        self.signal = threading.Lock()
        self.signal.acquire()
        self.woken = False

    def cancel(self) -> None:
        """End it for its caller, from any thread."""
        self._link.end(self, UnavailableError("the call was cancelled", outcome="unknown"))


class FrameLink:
    """A connection on which calls can be made. Thread-safe."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, timeout_s: float) -> None:
        """Connect, ask for frames, and exchange hellos.

        Raises:
            NotOfferedError: what answers there speaks no frames.
            LinkLostError: nothing answers, or not in time; nothing was sent.
            OmenDBError: the router's refusal.
        """
        until_s = time.monotonic() + timeout_s
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._queue: deque[Buffer] = deque()
        self._calls: dict[int, LinkCall] = {}
        self._next = 1
        self._driving = False
        self._driver: LinkCall | None = None
        self._blocked = False
        self._probing = 0
        self.leaving = False
        self._retired = False
        self.why: str | None = None
        """Why it has ended, once it has."""
        try:
            self._pipe = BytePipe(host, port, tls, until_s)
        except PipeLost as lost:
            raise LinkLostError(str(lost), sent=False) from None
        self._decoder = FrameDecoder(HELLO_BYTES_MAX)
        try:
            shown = f"[{host}]" if ":" in host else host
            self._ask_for_frames(UPGRADE.format(host=shown, port=port).encode("ascii"), until_s)
            self._greet(until_s)
        except PipeLost as lost:
            self._pipe.close()
            raise LinkLostError(str(lost), sent=False) from None
        except BaseException:
            self._pipe.close()
            raise
        self._heard_s = time.monotonic()

    @property
    def usable(self) -> bool:
        """Whether another call may begin here; looks for an end that nobody was there to see."""
        if self.leaving or self.why is not None:
            return False
        if not self._calls:
            with self._lock:
                if self._driving or self._calls:
                    return True
                self._driving = True
            try:
                if self._pipe.wait(0).readable:
                    self._read()
            except PipeLost as lost:
                self._lose(str(lost))
            finally:
                self._step_down()
        return not self.leaving and self.why is None

    def begin(self, method: int, message: bytes, timeout_s: float) -> LinkCall:
        """Send a call; :meth:`result` waits for its answer, and must be called.

        Raises:
            InvalidArgumentError: it is longer than the router takes.
            ResourceExhaustedError: as many as it takes are under way.
            LinkLostError: the connection has ended; of this call nothing was sent.
        """
        left_ms = max(1, min(math.ceil(timeout_s * 1e3), _MS_MAX))
        with self._lock:
            if self.why is not None:
                raise LinkLostError(self.why, sent=False)
            if len(self._calls) >= self._in_flight_max:
                raise ResourceExhaustedError(
                    f"{len(self._calls)} calls are under way", field="calls", mend="make fewer at a time"
                )
            number = self._next
            self._next = number + 1
        parts = encode(
            Kind.REQUEST,
            number,
            message,
            method=method,
            deadline_ms=left_ms,
            version=self._version,
            bytes_max=self._frame_bytes_max,
        )
        call = LinkCall(self, number)
        with self._lock:
            if self.why is not None:
                raise LinkLostError(self.why, sent=False)
            if not self._calls:
                self._heard_s = time.monotonic()
            self._calls[number] = call
            self._queue.extend(parts)
        try:
            self._flush()
        except PipeLost as lost:
            self._lose(str(lost))
        except BaseException:
            # Part of it may have left: nothing sensible can be written after it.
            self._lose("writing was interrupted")
            raise
        return call

    def result(self, call: LinkCall, timeout_s: float) -> bytes:
        """The answer.

        Raises:
            OmenDBError: what the router answered; or the call was cancelled.
            DeadlineExceededError: nothing came in ``timeout_s``; the router is told.
            LinkLostError: the connection was lost.
        """
        until_s = time.monotonic() + timeout_s
        try:
            while not call.done:
                if self._may_drive(call):
                    try:
                        self._drive(call, until_s)
                    except PipeLost as lost:
                        self._lose(str(lost))
                    except BaseException:
                        # Bytes may have been taken off the connection and not been looked at.
                        self._lose("reading was interrupted")
                        raise
                    finally:
                        self._step_down()
                else:
                    left_s = until_s - time.monotonic()
                    if left_s > 0 and call.signal.acquire(timeout=left_s):
                        with self._lock:
                            call.woken = False
                if not call.done and time.monotonic() >= until_s:
                    self.end(call, DeadlineExceededError(_LATE, field="timeout", mend="allow more time"))
        finally:
            if not call.done:
                self.end(call, UnavailableError("its caller was interrupted", outcome="unknown"))
            if call.woken:
                # Named to go on reading while it left.
                self._name_next()
            if self._retired and not self._calls:
                self.close()
        if call.error is not None:
            raise call.error
        return call.reply

    def end(self, call: LinkCall, error: Exception) -> None:
        """End a call that was not answered, and tell the router."""
        with self._lock:
            if call.done:
                return
            self._calls.pop(call.number, None)
            call.error, call.done = error, True
            self._wake(call)
            if self.why is None:
                self._queue.extend(encode(Kind.CANCEL, call.number, version=self._version))
        try:
            self._flush()
        except PipeLost as lost:
            self._lose(str(lost))

    def retire(self) -> None:
        """Begin no more calls, and end the connection with the last of those that are under way."""
        self.leaving = self._retired = True
        if not self._calls:
            self.close()

    def close(self, why: str = "the client was closed") -> None:
        """End the connection and every call on it."""
        self._lose(why)

    # --- who reads

    def _may_drive(self, call: LinkCall) -> bool:
        with self._lock:
            if self._driving or call.done:
                return False
            self._driving, self._driver = True, call
            return True

    def _step_down(self) -> None:
        with self._lock:
            self._driving, self._driver = False, None
            if self.why is not None:
                self._close_pipe()
        self._name_next()

    def _close_pipe(self) -> None:
        with self._writing:
            self._pipe.close()

    def _name_next(self) -> None:
        """One of those that wait goes on reading."""
        with self._lock:
            if not self._driving and self.why is None:
                for call in self._calls.values():
                    self._wake(call)
                    return

    def _wake(self, call: LinkCall) -> None:
        """Under the lock: let the caller look."""
        if call is self._driver:
            self._pipe.ring()
        elif not call.woken:
            call.woken = True
            call.signal.release()

    def _drive(self, call: LinkCall, until_s: float) -> None:
        """Read, and write what could not be written at once, until the call is done or late."""
        while not call.done and self.why is None:
            now_s = time.monotonic()
            left_s = until_s - now_s
            if left_s <= 0:
                return
            ready = self._pipe.wait(min(left_s, self._patience_s(now_s)), to_write=self._blocked)
            if ready.writable:
                self._flush()
            if ready.readable:
                self._read()

    def _patience_s(self, now_s: float) -> float:
        """How long the router may still be silent before it is asked who it is, or given up."""
        due_s = self._heard_s + PROBE_AFTER_S
        if now_s >= due_s and not self._probing:
            with self._lock:
                self._probing = self._next
                self._next += 1
                asked = encode(
                    Kind.REQUEST,
                    self._probing,
                    pb.ServerInfoRequest().SerializeToString(),
                    method=pb.ROUTER_METHOD_SERVER_INFO,
                    deadline_ms=math.ceil(PROBE_ANSWER_S * 1e3),
                    version=self._version,
                )
                self._queue.extend(asked)
            self._flush()
        if self._probing:
            due_s += PROBE_ANSWER_S
            if now_s >= due_s:
                raise PipeLost("the router does not answer")
        return max(due_s - now_s, 1e-3)

    # --- bytes

    def _flush(self) -> None:
        """Write what is queued; what does not go now, whoever reads goes on with."""
        while (self._queue or self._blocked) and self.why is None:
            if not self._writing.acquire(blocking=False):
                # Whoever writes looks again when it is done.
                return
            try:
                self._blocked = not self._pipe.flush(self._queue)
            finally:
                self._writing.release()
            if self._blocked:
                self._pipe.ring()
                return

    def _read(self) -> None:
        while True:
            count = self._pipe.read_into(self._decoder.room())
            if not count:
                return
            self._heard_s = time.monotonic()
            self._probing = 0
            self._decoder.received(count)
            try:
                while (frame := self._decoder.next()) is not None:
                    self._take(frame)
            except (FrameError, DecodeError) as error:
                raise PipeLost(str(error)) from None
            if not self._pipe.more:
                return

    def _take(self, frame: Frame) -> None:
        if frame.kind == Kind.GOAWAY:
            self.leaving = True
        elif frame.kind in (Kind.RESPONSE, Kind.ERROR):
            error = status.from_bytes(frame.message) if frame.kind == Kind.ERROR else None
            with self._lock:
                call = self._calls.pop(frame.call, None)
                # Nobody waits any more for one that is not there.
                if call is not None:
                    call.reply, call.error, call.answered, call.done = frame.message, error, True, True
                    if call is not self._driver:
                        self._wake(call)
        else:
            raise FrameError("kind", str(frame.kind))

    def _lose(self, why: str) -> None:
        """The connection has ended: whether the router has done what was asked, nobody knows."""
        with self._lock:
            if self.why is not None:
                return
            self.why = why
            calls, self._calls = self._calls, {}
            for call in calls.values():
                call.error, call.done = LinkLostError(why, sent=True), True
                self._wake(call)
            if self._driving:
                self._pipe.ring()
            else:
                self._close_pipe()

    # --- the beginning

    def _ask_for_frames(self, request: bytes, until_s: float) -> None:
        self._queue.append(request)
        head = b""
        while not self._pipe.flush(self._queue):
            self._pipe.wait_until(until_s, to_write=True)
        # Byte for byte only behind the head's end would frames begin; a router sends none before our hello.
        room = memoryview(bytearray(_HEAD_BYTES_MAX))
        while b"\r\n\r\n" not in head:
            if len(head) >= _HEAD_BYTES_MAX:
                raise NotOfferedError("no answer of HTTP")
            count = self._pipe.read_into(room)
            head += room[:count]
            if not count:
                self._pipe.wait_until(until_s)
            if head and not head.startswith(b"HTTP/"[: len(head)]):
                raise NotOfferedError("no answer of HTTP")
        line = head.split(b"\r\n", 1)[0].split(b" ", 2)
        code = line[1] if len(line) > 1 else b""
        if code == b"503":
            raise UnavailableError("it takes no more connections now", outcome="none")
        if code != b"101" or not head.endswith(b"\r\n\r\n"):
            raise NotOfferedError(f"it answered {code!r}")

    def _greet(self, until_s: float) -> None:
        hello = frames_pb2.Hello(
            version_min=_LIMITS.versions[0],
            version_max=_LIMITS.versions[1],
            role="client",
            in_flight_max=_LIMITS.in_flight_max,
            frame_bytes_max=_LIMITS.frame_bytes_max,
        )
        self._queue.extend(encode(Kind.HELLO, 0, hello.SerializeToString(), version=_LIMITS.versions[0]))
        while not self._pipe.flush(self._queue):
            self._pipe.wait_until(until_s, to_write=True)
        try:
            while (frame := self._decoder.next()) is None:
                count = self._pipe.read_into(self._decoder.room())
                self._decoder.received(count)
                if not count:
                    self._pipe.wait_until(until_s)
            if frame.kind == Kind.ERROR:
                raise status.from_bytes(frame.message)
            if frame.kind != Kind.HELLO:
                raise FrameError("hello", "another frame came first")
            peer = frames_pb2.Hello.FromString(frame.message)
        except (FrameError, DecodeError) as error:
            raise PipeLost(str(error)) from None
        self._version = min(peer.version_max, _LIMITS.versions[1])
        self._in_flight_max = max(1, peer.in_flight_max)
        self._frame_bytes_max = max(HELLO_BYTES_MAX, min(peer.frame_bytes_max, _LIMITS.frame_bytes_max))
        self._decoder.bytes_max = _LIMITS.frame_bytes_max


__all__ = ["PROBE_AFTER_S", "PROBE_ANSWER_S", "FrameLink", "LinkCall", "LinkLostError", "NotOfferedError"]
