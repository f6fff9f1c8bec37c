"""A connection as bytes in both directions, in the clear or under TLS, that never blocks but where it is told to wait.

One thread writes at a time and one reads at a time, which may be two. Under TLS they take turns at the cipher alone.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, cast

from omendb_common.checksum import Buffer, byte_view

_TLS_BYTES = 64 << 10
# A peer that is gone without a word is noticed by the kernel; what a platform does not know, it does without.
_OPTIONS = (("TCP_NODELAY", 1), ("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3))


class PipeLost(Exception):
    """The connection has ended, or could not be had."""


class Ready(NamedTuple):
    """What a wait ended with: bytes to read, room to write."""

    readable: bool
    writable: bool


class BytePipe:
    """One connection. Every method but :meth:`ring` and :meth:`close` may raise :class:`PipeLost`."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, until_s: float) -> None:
        """Connect, and shake hands under TLS, until ``until_s`` of ``time.monotonic``."""
        try:
            self._sock = socket.create_connection((host, port), timeout=max(until_s - time.monotonic(), 1e-3))
        except (OSError, UnicodeError) as error:
            raise PipeLost(str(error)) from None
        _set_options(self._sock)
        self._sock.setblocking(False)
        # A thread that waits for the network is woken by it, to see what another one has changed.
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        self._waits = _Waits(self._sock.fileno(), self._bell.fileno())
        self._unsent: deque[memoryview] = deque()
        self._tls: ssl.SSLObject | None = None
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._cipher = threading.Lock()
        self._room = memoryview(bytearray(0 if tls is None else _TLS_BYTES))
        self.more = False
        """Whether :meth:`read_into` may have more at once."""
        if tls is not None:
            try:
                self._shake_hands(tls.wrap_bio(self._in, self._out, server_hostname=host), until_s)
            except BaseException:
                self.close()
                raise

    # --- writing

    def flush(self, plain: deque[Buffer]) -> bool:
        """Write what is in ``plain``, oldest first, taking it out; whether all of it has left."""
        while True:
            while self._unsent:
                view = self._unsent[0]
                try:
                    sent = self._sock.send(view)
                except BlockingIOError:
                    return False
                except OSError as error:
                    raise PipeLost(str(error)) from None
                if sent == len(view):
                    self._unsent.popleft()
                else:
                    self._unsent[0] = view[sent:]
            try:
                part = plain.popleft()
            except IndexError:
                return True
            self._unsent.extend(self._sealed(byte_view(part)))

    def _sealed(self, view: memoryview) -> Sequence[memoryview]:
        if self._tls is None:
            return (view,)
        sealed = []
        with self._cipher:
            try:
                for start in range(0, len(view), _TLS_BYTES):
                    self._tls.write(view[start : start + _TLS_BYTES])
                    sealed.append(memoryview(self._out.read()))
            except ssl.SSLError as error:
                raise PipeLost(str(error)) from None
        return sealed

    # --- reading

    def read_into(self, room: memoryview) -> int:
        """Receive what there is; 0 when there is nothing now."""
        if self._tls is None:
            count = self._receive_into(room)
            self.more = count == len(room)
            return count
        while True:
            with self._cipher:
                try:
                    # Typed as if it gave bytes, which it does only without a buffer.
                    count = cast(int, self._tls.read(len(room), cast(bytearray, room)))
                    if not count:
                        raise PipeLost("the other end has closed it")
                    self.more = True
                    return count
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError as error:
                    raise PipeLost(str(error)) from None
            if not self._receive_sealed():
                self.more = False
                return 0

    def _receive_into(self, room: memoryview) -> int:
        try:
            count = self._sock.recv_into(room)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise PipeLost(str(error)) from None
        if not count:
            raise PipeLost("the other end has closed it")
        return count

    def _receive_sealed(self) -> bool:
        count = self._receive_into(self._room)
        with self._cipher:
            self._in.write(self._room[:count])
        return count > 0

    # --- waiting

    def wait(self, timeout_s: float, *, to_write: bool = False) -> Ready:
        """Until there is something to read, or room ``to_write``, or :meth:`ring`; by one thread at a time."""
        readable, writable, rung = self._waits.wait(timeout_s, to_write)
        if rung:
            with contextlib.suppress(BlockingIOError, OSError):
                self._bell.recv(256)
        return Ready(readable, writable)

    def ring(self) -> None:
        """End somebody's :meth:`wait`."""
        # Full: it rings already. Closed: nobody waits.
        with contextlib.suppress(BlockingIOError, OSError):
            self._ringer.send(b"!")

    def close(self) -> None:
        """Close; nobody may be in a call."""
        for one in (self._sock, self._bell, self._ringer):
            one.close()

    def _shake_hands(self, tls: ssl.SSLObject, until_s: float) -> None:
        nothing: deque[Buffer] = deque()
        done = False
        while not done:
            try:
                tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            except (ssl.SSLError, ssl.CertificateError) as error:
                raise PipeLost(f"TLS: {error}") from None
            self._unsent.append(memoryview(self._out.read()))
            while not self.flush(nothing):
                self.wait_until(until_s, to_write=True)
            if not done:
                self.wait_until(until_s)
                self._receive_sealed()
        self._tls = tls

    def wait_until(self, until_s: float, *, to_write: bool = False) -> None:
        """:meth:`wait`, and :class:`PipeLost` when the time is up."""
        left_s = until_s - time.monotonic()
        if left_s <= 0 or not any(self.wait(left_s, to_write=to_write)):
            raise PipeLost("no answer in time")


class _Waits:
    """Waits for a socket and a bell, with the best that the platform has."""

    def __init__(self, sock: int, bell: int) -> None:
        self._sock, self._bell = sock, bell
        self._polls = None
        if hasattr(select, "poll"):
            self._polls = select.poll(), select.poll()
            for poll, events in zip(self._polls, (select.POLLIN, select.POLLIN | select.POLLOUT), strict=True):
                poll.register(sock, events)
                poll.register(bell, select.POLLIN)

    def wait(self, timeout_s: float, to_write: bool) -> tuple[bool, bool, bool]:
        """(readable, writable, rung)."""
        if self._polls is None:
            both = (self._sock, self._bell)
            read, write, _ = select.select(both, both[:to_write], (), timeout_s)
            return self._sock in read, bool(write), self._bell in read
        readable = writable = rung = False
        for number, events in self._polls[to_write].poll(math.ceil(timeout_s * 1e3)):
            if number == self._bell:
                rung = True
                continue
            writable = bool(events & select.POLLOUT)
            # An end and a fault are found by reading.
            readable = bool(events & ~select.POLLOUT)
        return readable, writable, rung


def _set_options(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS:
        if hasattr(socket, name):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


__all__ = ["BytePipe", "PipeLost", "Ready"]
