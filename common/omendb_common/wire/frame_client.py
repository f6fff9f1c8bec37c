"""The calling end of framed connections: many calls at a time over few connections to one peer."""

from __future__ import annotations

import asyncio
import math
import random
import ssl
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from omendb_common.deadline import Deadline
from omendb_common.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    OmenDBError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)
from omendb_common.security.renewal import RenewedTls
from omendb_common.wire import status
from omendb_common.wire.frame_connection import FrameConnection, FrameIdentity, FramePeer
from omendb_common.wire.frames import Attachment, Frame, FrameError, FrameLimits, FrameStats, Kind

CONNECTIONS_MAX = 8
WAITING_MAX = 4096
"""Calls that may wait for a free place; the next one is told to come back later."""
CONNECT_TIMEOUT_S = 5.0
BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 2.0
_DEADLINE_MS_MAX = (1 << 32) - 1


class Reply(NamedTuple):
    """What a call brought back; the attachments are views of memory that is the reply's alone."""

    message: bytes
    attachments: tuple[memoryview, ...]


class _Call(NamedTuple):
    future: asyncio.Future[Reply]
    ends_at: float


class _Link(FrameConnection):
    """One connection of a client: the calls that are under way on it."""

    def __init__(self, client: FrameClient) -> None:
        super().__init__(client.identity, client.limits, client.stats)
        self.calls: dict[int, _Call] = {}
        self.ready: asyncio.Future[FramePeer] = self._loop.create_future()
        self.leaving = False
        self._client = client
        self._next_call = 1
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    @property
    def free(self) -> bool:
        """Whether a call may begin here now."""
        peer = self.peer
        return (
            peer is not None
            and not self.closed
            and not self.leaving
            and not self.paused_writing
            and len(self.calls) < peer.in_flight_max
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio: connected; say who this is."""
        super().connection_made(transport)
        self.say_hello()

    def greeted(self) -> None:
        """The peer is who it should be: calls may begin."""
        if not self.ready.done() and self.peer is not None:
            self.ready.set_result(self.peer)

    def take(self, frame: Frame) -> None:
        """Answer the call that a frame is for; one that nobody waits for any more is passed over."""
        if frame.kind == Kind.RESPONSE or frame.kind == Kind.ERROR:
            call = self.calls.pop(frame.call, None)
            if call is not None and not call.future.done():
                if frame.kind == Kind.RESPONSE:
                    call.future.set_result(Reply(frame.message, frame.attachments))
                else:
                    call.future.set_exception(status.from_bytes(frame.message))
            self._after_call()
        elif frame.kind == Kind.GOAWAY:
            self.leaving = True
            self._client.link_leaves(self)
            self._after_call()
        else:
            raise FrameError("kind", f"{Kind(frame.kind).name} to a client")

    def resume_writing(self) -> None:
        """Asyncio: there is room again."""
        super().resume_writing()
        self._client.wake()

    def holds(self) -> bool:
        """A client takes every answer: it has asked for it, and it frees a place."""
        return False

    def lost(self) -> None:
        """End every call that was under way: whether the peer has done it, nobody knows."""
        if not self.ready.done():
            self.ready.set_exception(UnavailableError(self.why))
            # Nobody may be waiting any more; that is no lost exception.
            self.ready.exception()
        if self._timer is not None:
            self._timer.cancel()
        calls, self.calls = self.calls, {}
        for call in calls.values():
            if not call.future.done():
                call.future.set_exception(
                    UnavailableError(f"{self._client.address}: {self.why}", field="node", outcome="unknown")
                )
        self._client.link_lost(self)

    async def ask(self, method: int, message: bytes, attachments: Sequence[Attachment], deadline: Deadline) -> Reply:
        """Send a call and wait for its answer, until the deadline."""
        left_s = deadline.left_s
        number = self._next_call
        self._next_call = number + 1
        deadline_ms = min(math.ceil(left_s * 1000.0), _DEADLINE_MS_MAX)
        self.send(Kind.REQUEST, number, message, attachments, method=method, deadline_ms=deadline_ms)
        self.stats.calls += 1
        future: asyncio.Future[Reply] = self._loop.create_future()
        ends_at = self._loop.time() + left_s
        self.calls[number] = _Call(future, ends_at)
        if ends_at < self._timer_at:
            self._set_timer(ends_at)
        try:
            return await future
        except asyncio.CancelledError:
            self._give_up(number)
            raise

    def _give_up(self, number: int) -> None:
        if self.calls.pop(number, None) is not None:
            self.stats.calls_cancelled += 1
            self.send(Kind.CANCEL, number)
            self._after_call()

    def _after_call(self) -> None:
        if self.leaving and not self.calls:
            self.close("the peer has shut down")
        self._client.wake()

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._expire)

    def _expire(self) -> None:
        """End the calls whose deadline has passed. One timer serves all: it is set for the earliest."""
        now = self._loop.time()
        self._timer, self._timer_at = None, math.inf
        for number in [n for n, call in self.calls.items() if call.ends_at <= now]:
            future = self.calls[number].future
            self._give_up(number)
            if not future.done():
                future.set_exception(
                    DeadlineExceededError(
                        f"no answer from {self._client.address} in time", field="timeout", mend="allow more time"
                    )
                )
        if self.calls and not self.closed:
            self._set_timer(max(min(call.ends_at for call in self.calls.values()), now + 0.001))


class FrameClient:
    """Calls to one peer. Connects when it is first called and again when a connection is lost, with backoff.

    Belongs to the event loop in which it is made. Calls wait for a free place in order; every one ends at its deadline.
    """

    def __init__(
        self,
        address: str,
        identity: FrameIdentity,
        *,
        peer_node: str = "",
        tls: ssl.SSLContext | RenewedTls | None = None,
        connections: int = 1,
        limits: FrameLimits | None = None,
        stats: FrameStats | None = None,
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            address: ``host:port`` of the peer.
            identity: who this process is.
            peer_node: the node that must answer there; empty: any.
            tls: a context of :func:`omendb_common.security.tls.client_context`, or files that are renewed; None speaks
                in the clear.
            connections: at most this many, 1..8; a call takes the one with the least to do.
            stats: counted into; shared between clients, it counts for all.
        """
        if not 1 <= connections <= CONNECTIONS_MAX:
            raise InvalidArgumentError(f"got {connections}", field="connections", bound=f"1..{CONNECTIONS_MAX}")
        self.address = address
        self.host, self.port = split_address(address)
        self.identity = identity
        self.limits = limits or FrameLimits()
        self.stats = stats if stats is not None else FrameStats()
        self._peer_node = peer_node
        self._tls = tls
        self._connections = connections
        self._links: list[_Link] = []
        self._leaving: set[_Link] = set()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._connecting: asyncio.Task[None] | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._refused = ""
        self._closed = False
        self._loop = asyncio.get_running_loop()
        # Seeded by who calls whom: two routers do not knock at one door in step.
        self._dice = random.Random(f"{identity.node_id}>{address}")

    async def call(
        self, method: int, message: bytes, attachments: Sequence[Attachment] = (), *, deadline: Deadline
    ) -> Reply:
        """Send one call and wait for its answer. Memory of ``attachments`` must not change until it returns.

        Raises:
            UnavailableError: ``outcome`` "none" when nothing was sent, "unknown" when the connection was lost after.
            DeadlineExceededError: with the same ``outcome``.
            ResourceExhaustedError: too many calls wait already; nothing was sent.
            InvalidArgumentError: the call is larger than a frame may be; nothing was sent.
            OmenDBError: what the peer answered.
        """
        # Who comes now stands behind those that wait already.
        link = None if self._waiters else self._pick()
        while link is None:
            await self._wait(deadline)
            link = self._pick()
            # More than one place may have become free at once.
            self.wake()
        if deadline.passed:
            self.wake()
            raise _too_late(self.address)
        return await link.ask(method, message, attachments, deadline)

    @property
    def connected(self) -> bool:
        """Whether a peer has answered and is there."""
        return any(link.peer is not None and not link.closed for link in self._links)

    @property
    def in_flight(self) -> int:
        """Calls that are under way."""
        return sum(len(link.calls) for link in (*self._links, *self._leaving))

    async def close(self) -> None:
        """End every connection and every call."""
        self._closed = True
        task = self._connecting
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        for link in (*self._links, *self._leaving):
            link.abort("this end was closed")
        self._fail_waiters("this end was closed")
        # The transports tell their protocols in the next turn of the loop.
        await asyncio.sleep(0)

    def _pick(self) -> _Link | None:
        links = self._links
        if len(links) == 1 == self._connections:
            return links[0] if links[0].free else None
        if len(links) < self._connections and self._connecting is None and not self._closed:
            self._start_connecting()
        free = [link for link in links if link.free]
        return min(free, key=lambda link: (link.unsent, len(link.calls))) if free else None

    async def _wait(self, deadline: Deadline) -> None:
        """Wait until a call may begin, or the reason is known why none can."""
        if self._closed:
            raise UnavailableError(f"{self.address}: this end was closed", field="node")
        if not self._links and self._connecting is None:
            if self._loop.time() < self._retry_at:
                raise self._unreachable()
            self._start_connecting()
        if len(self._waiters) >= WAITING_MAX:
            raise ResourceExhaustedError(
                f"{len(self._waiters)} calls wait for {self.address}", field="node", retry_after=0.05
            )
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(deadline.left_s):
                await waiter
        except TimeoutError:
            self._pass_on(waiter)
            raise _too_late(self.address) from None
        except asyncio.CancelledError:
            self._pass_on(waiter)
            raise

    def _pass_on(self, waiter: asyncio.Future[None]) -> None:
        """Leave the queue; a turn that had come already is the next one's."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        else:
            self.wake()

    def wake(self) -> None:
        """A place may be free: let the first that waits look."""
        if not self._waiters or not any(link.free for link in self._links):
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def link_leaves(self, link: _Link) -> None:
        """The peer takes no more calls on a connection; those under way are still answered."""
        if link in self._links:
            self._links.remove(link)
            self._leaving.add(link)
        self._serve_waiters()

    def link_lost(self, link: _Link) -> None:
        """A connection has ended."""
        self._leaving.discard(link)
        if link in self._links:
            self._links.remove(link)
        self._serve_waiters()

    def _serve_waiters(self) -> None:
        """Those that wait need a connection, or an answer why there is none."""
        if not self._waiters or self._links or self._connecting is not None:
            return
        if self._closed or self._loop.time() < self._retry_at:
            self._fail_waiters(self._refused)
        else:
            self._start_connecting()

    # --- connecting

    def _start_connecting(self) -> None:
        if self._loop.time() >= self._retry_at:
            self._connecting = self._loop.create_task(self._connect(), name=f"connect {self.address}")
            self._connecting.add_done_callback(self._connect_ended)

    async def _connect(self) -> None:
        """Open one connection and exchange hellos."""
        link = _Link(self)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                tls = self._tls.client if isinstance(self._tls, RenewedTls) else self._tls
                await self._loop.create_connection(lambda: link, self.host, self.port, ssl=tls)
                peer = await link.ready
        except BaseException:
            link.abort("connecting failed")
            raise
        if self._peer_node and peer.identity.node_id != self._peer_node:
            self.stats.broken["refused"] += 1
            link.abort("another node answers there")
            raise PermissionDeniedError(f"{peer.identity.node_id!r} answers there", bound=self._peer_node)
        if not link.closed:
            self._links.append(link)

    def _connect_ended(self, task: asyncio.Task[None]) -> None:
        self._connecting = None
        if task.cancelled():
            return
        failure = task.exception()
        if failure is None:
            self._failures = 0
            for _ in range(len(self._waiters)):
                self.wake()
            self._serve_waiters()
            return
        self._failures += 1
        pause_s = min(BACKOFF_FIRST_S * 2.0 ** (self._failures - 1), BACKOFF_MAX_S)
        self._retry_at = self._loop.time() + pause_s * self._dice.uniform(0.5, 1.0)
        # What is not the network's or the peer's doing is a bug, and shown as one where it is awaited.
        self._refused = str(failure) or type(failure).__name__
        if not isinstance(failure, (OSError, TimeoutError, OmenDBError)):
            self._loop.call_exception_handler({"message": f"connecting to {self.address}", "exception": failure})
        if not self._links:
            self._fail_waiters(self._refused)

    def _unreachable(self) -> UnavailableError:
        return UnavailableError(f"{self.address} cannot be reached: {self._refused}", field="node", outcome="none")

    def _fail_waiters(self, why: str) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(
                    UnavailableError(f"{self.address} cannot be reached: {why}", field="node", outcome="none")
                )


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[v6]:port``.

    Raises:
        InvalidArgumentError: it is neither, or the port lies outside 0..65535.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or len(port) > 5 or int(port) > 65_535 or not host:
        raise InvalidArgumentError(f"got {address!r}", field="address", bound="host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _too_late(address: str) -> DeadlineExceededError:
    return DeadlineExceededError(
        f"the deadline passed before anything was sent to {address}",
        field="timeout",
        mend="allow more time",
        outcome="none",
    )


__all__ = [
    "BACKOFF_FIRST_S",
    "BACKOFF_MAX_S",
    "CONNECTIONS_MAX",
    "CONNECT_TIMEOUT_S",
    "WAITING_MAX",
    "FrameClient",
    "Reply",
    "split_address",
]
