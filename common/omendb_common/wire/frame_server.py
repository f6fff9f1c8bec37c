"""The answering end of framed connections: every call is a task that the server owns, bounded per connection."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from omendb_common.clock import Clock, SystemClock
from omendb_common.deadline import Deadline
from omendb_common.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    OmenDBError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)
from omendb_common.wire import status
from omendb_common.wire.frame_client import split_address
from omendb_common.wire.frame_connection import FrameConnection, FrameIdentity, FramePeer, Report
from omendb_common.wire.frames import Attachment, Frame, FrameError, FrameLimits, FrameStats, Kind
from omendb_proto.v1 import frames_pb2

CONNECTIONS_MAX = 4096
"""Connections beyond these are closed at once."""
CALLS_MAX = 1 << 20
"""No bound of its own: connections and the calls of each have one."""
UNSENT_MAX = 1 << 40
"""The same: between members of a cluster what waits is bounded by what was asked."""
DRAIN_S = 10.0
BACKLOG = 512


class Request(NamedTuple):
    """One call as it came; the attachments are views of memory that is the request's alone."""

    method: int
    message: bytes
    attachments: tuple[memoryview, ...]
    deadline: Deadline
    peer: FramePeer


Answer = tuple[bytes, Sequence[Attachment]]
"""Message and attachments. The attachments must not change before they are sent."""
Handler = Callable[[Request], Coroutine[Any, Any, Answer]]


class ByteBudget(Protocol):
    """Bytes of requests in memory, bounded for several connections, or several faces, together."""

    def take(self, size: int) -> None:
        """Reserve; ResourceExhaustedError when it is too much now."""

    def give(self, size: int) -> None:
        """Give back what was reserved."""


class _Call(NamedTuple):
    task: asyncio.Task[Answer]
    method: int
    size: int


class _Session(FrameConnection):
    """One connection of a server and the calls that its peer has under way."""

    def __init__(self, server: FrameServer) -> None:
        super().__init__(server.identity, server.limits, server.stats)
        self.calls: dict[int, _Call] = {}
        self._bytes = 0
        # Reserved for a large frame that is being received, or was just now.
        self._receiving = 0
        self._this_turn = 0
        self._server = server
        self._going = False
        if server.budget is not None:
            self._decoder.admit = self._admits

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio: somebody has connected."""
        super().connection_made(transport)
        if not self._server.admit(self):
            self.stats.broken["too_many_connections"] += 1
            self.abort("too many connections")

    def greeted(self) -> None:
        """The peer is welcome: say who this is, so that it may begin."""
        self.say_hello()
        if self._server.draining:
            self.go_away()

    def holds(self) -> bool:
        """Above what was granted nothing more is taken; one above it, so that a cancellation still is."""
        return (
            self.paused_writing
            or len(self.calls) > self.limits.in_flight_max
            or self._bytes > self.limits.in_flight_bytes_max
        )

    def take(self, frame: Frame) -> None:
        """Begin a call, or end one that nobody waits for any more."""
        if frame.kind == Kind.REQUEST:
            self._begin(frame)
        elif frame.kind == Kind.CANCEL:
            call = self.calls.get(frame.call)
            if call is not None and call.method in self._server.cancellable:
                self.stats.calls_cancelled += 1
                call.task.cancel()
        elif frame.kind != Kind.GOAWAY:
            raise FrameError("kind", f"{Kind(frame.kind).name} to a server")
        self._settle()

    def _admits(self, size: int) -> bool:
        """Whether a large frame may be received now."""
        if not self._reserved(size):
            return False
        self._receiving = size
        return True

    def _reserved(self, size: int) -> bool:
        budget = self._server.budget
        try:
            if budget is not None:
                budget.take(size)
        except ResourceExhaustedError:
            return False
        return True

    def _settle(self) -> None:
        """Give back what was reserved for a frame that began no call."""
        size, self._receiving = self._receiving, 0
        if size and self._server.budget is not None:
            self._server.budget.give(size)

    def _refusal_of(self, frame: Frame) -> OmenDBError | None:
        """Why a call may not begin; if it may, its bytes are reserved."""
        if self._going:
            return _LEAVING
        if frame.deadline_ms == 0:
            return _LATE
        server = self._server
        if len(server.tasks) >= server.calls_max:
            return ResourceExhaustedError(
                f"{server.calls_max} calls are at work", field="calls", mend="send fewer at a time", retry_after=0.05
            )
        if not frame.whole or not (self._receiving or self._reserved(frame.size)):
            return ResourceExhaustedError(
                "too many large requests at a time", field="body", mend="send fewer at a time", retry_after=0.2
            )
        self._receiving = 0
        return None

    def _begin(self, frame: Frame) -> None:
        number = frame.call
        if number in self.calls:
            raise FrameError("call", "a number that is in use")
        refusal = self._refusal_of(frame)
        if refusal is not None:
            self.stats.calls_refused += 1
            self._tell(number, refusal)
            return
        assert self.peer is not None
        server = self._server
        deadline = Deadline.after(server.clock, frame.deadline_ms / 1000.0)
        request = Request(frame.method, frame.message, frame.attachments, deadline, self.peer)
        task = self._loop.create_task(server.handler(request))
        self.stats.calls += 1
        self.calls[number] = _Call(task, frame.method, frame.size)
        self._bytes += frame.size
        server.tasks.add(task)
        task.add_done_callback(partial(self._ended, number))

    def _ended(self, number: int, task: asyncio.Task[Answer]) -> None:
        call = self.calls.pop(number)
        self._bytes -= call.size
        if self._server.budget is not None:
            self._server.budget.give(call.size)
        self._server.ended(task)
        if task.cancelled():
            # Somebody cancelled it: the peer, which does not wait, or this end, which is closing.
            self._tell(number, _CANCELLED)
        elif (error := task.exception()) is not None:
            self._tell(number, status.of_exception(error, self._server.report))
        else:
            self._answer(number, *task.result())
        if not self._reading:
            self.release()
        if self._going and not self.calls:
            self.close("this end has shut down")

    def _answer(self, number: int, message: bytes, attachments: Sequence[Attachment]) -> None:
        if self.closed:
            return
        if self.waiting_bytes + len(message) > self.limits.write_buffer_bytes:
            if not self._server.has_room(len(message)):
                # It does not read what it asked for, and others could not be answered any more.
                self._break(FrameError("unread"))
                return
            if not self._this_turn:
                self._loop.call_soon(self._end_turn)
            self._this_turn += len(message)
        try:
            self.send(Kind.RESPONSE, number, message, attachments)
        except InvalidArgumentError as too_large:
            self._tell(number, too_large)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of answers that the peer has not taken yet."""
        # What is written in a turn of the loop, some transports count only after it.
        return self.unsent + self._this_turn

    def _end_turn(self) -> None:
        self._this_turn = 0

    def _tell(self, number: int, error: OmenDBError) -> None:
        self.send(Kind.ERROR, number, status.to_bytes(error))

    def go_away(self) -> None:
        """Take no more calls; close when those that were taken are answered."""
        if self._going or self.closed:
            return
        self._going = True
        if self.peer is None:
            self.abort("this end is shutting down")
            return
        self.send(Kind.GOAWAY, 0, frames_pb2.GoAway(reason="shutting down").SerializeToString())
        if not self.calls:
            self.close("this end has shut down")

    def lost(self) -> None:
        """Nobody will hear the answers: end what may be ended; the rest runs on, and the server still owns it."""
        for call in self.calls.values():
            if call.method in self._server.cancellable:
                call.task.cancel()
        self._settle()
        self._server.forget(self)

    def _refusal(self, peer: FramePeer, version_min: int) -> OmenDBError | None:
        roles = self._server.roles
        if roles is not None and peer.identity.role not in roles:
            return PermissionDeniedError(
                f"a {peer.identity.role or 'nobody'} may not call here", field="role", bound=f"one of {sorted(roles)}"
            )
        return super()._refusal(peer, version_min)

    def _stranger(self, peer: FramePeer) -> OmenDBError | None:
        return super()._stranger(peer) if self._server.members_only else None


_LATE = DeadlineExceededError("the deadline passed on the way", field="timeout", mend="allow more time", outcome="none")
_LEAVING = UnavailableError("the node is shutting down", field="node", mend="ask another", outcome="none")
_CANCELLED = UnavailableError("the call was cancelled", outcome="unknown")


class FrameServer:
    """Serves calls over framed connections.

    A call whose caller has cancelled it, or is gone, is cancelled when ``cancellable`` says so of its method; any other
    runs to its end.
    """

    def __init__(
        self,
        handler: Handler,
        identity: FrameIdentity,
        *,
        roles: Collection[str] | None = None,
        members_only: bool = True,
        cancellable: Collection[int] = (),
        tls: ssl.SSLContext | None = None,
        limits: FrameLimits | None = None,
        connections_max: int = CONNECTIONS_MAX,
        calls_max: int = CALLS_MAX,
        unsent_max: int = UNSENT_MAX,
        budget: ByteBudget | None = None,
        stats: FrameStats | None = None,
        clock: Clock | None = None,
        report: Report | None = None,
    ) -> None:
        """Prepare; :meth:`start` begins to listen, :meth:`accept` takes over a connection that somebody else has.

        Args:
            handler: makes the answer of a request. An OmenDBError it raises is told to the caller as it is, any other
                exception as "internal error".
            roles: of the processes that may call; None: any of the cluster.
            members_only: whether a peer must be of the same cluster, and the one that its certificate names.
            tls: a context of :func:`omendb_common.security.tls.server_context`; None speaks in the clear.
            calls_max: calls at work on all connections together; one more is refused with a time to come back.
            unsent_max: bytes of answers that wait on all connections whose peers do not keep up; beyond it, one of them
                is cut off with its next answer.
            budget: of the bytes of requests; a call for which there is none left is refused.
            report: told of exceptions that are not OmenDB's; by default the event loop's exception handler.
        """
        self.identity = identity
        self.limits = limits or FrameLimits()
        self.stats = stats if stats is not None else FrameStats()
        self.clock = clock or SystemClock()
        self.handler = handler
        self.roles = None if roles is None else frozenset(roles)
        self.draining = False
        self.members_only = members_only
        self.connections_max = connections_max
        self.calls_max = calls_max
        self.unsent_max = unsent_max
        self.budget = budget
        self.cancellable = frozenset(cancellable)
        self.tasks: set[asyncio.Task[Answer]] = set()
        self._tls = tls
        self._report = report
        self._sessions: set[_Session] = set()
        self._listener: asyncio.Server | None = None
        self._idle = asyncio.Event()
        self.address = ""
        """``host:port`` where it listens, once it has started."""

    async def start(self, listen: str) -> None:
        """Listen at ``host:port``; port 0 takes a free one.

        Raises:
            OSError: the address cannot be had.
        """
        host, port = split_address(listen)
        # A handshake takes no longer than a hello: it is all that a stranger can do.
        patience_s = None if self._tls is None else self.limits.hello_timeout_s
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: _Session(self), host, port, ssl=self._tls, ssl_handshake_timeout=patience_s, backlog=BACKLOG
        )
        bound = self._listener.sockets[0].getsockname()
        self.address = f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"

    def accept(self, transport: asyncio.Transport) -> None:
        """Take over a connection on which the peer has sent no frame yet."""
        session = _Session(self)
        # A loop that is reading goes on in the old protocol's way until it is told to begin anew.
        transport.pause_reading()
        transport.set_protocol(session)
        session.connection_made(transport)
        if not session.closed:
            transport.resume_reading()

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        """Take no more calls, answer those that were taken for at most ``drain_s`` seconds, then end everything."""
        self.draining = True
        if self._listener is not None:
            self._listener.close()
        for session in list(self._sessions):
            session.go_away()
        self._check_idle()
        try:
            async with asyncio.timeout(drain_s):
                await self._idle.wait()
        except TimeoutError:
            self._end_all()
        if self.tasks:
            await asyncio.wait(self.tasks)
        # The transports tell their protocols in the next turn of the loop.
        await asyncio.sleep(0)

    def _end_all(self) -> None:
        for session in list(self._sessions):
            session.abort("this end has shut down")
        for task in self.tasks:
            task.cancel()

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._sessions)

    @property
    def in_flight(self) -> int:
        """Calls that are under way."""
        return len(self.tasks)

    def admit(self, session: _Session) -> bool:
        """Whether one more connection may stay."""
        if len(self._sessions) >= self.connections_max:
            return False
        self._sessions.add(session)
        return True

    def has_room(self, size: int) -> bool:
        """Whether an answer of ``size`` may still wait for a peer that does not keep up."""
        much = self.limits.write_buffer_bytes
        return size + sum(n for one in self._sessions if (n := one.waiting_bytes) > much) <= self.unsent_max

    def forget(self, session: _Session) -> None:
        """A connection has ended."""
        self._sessions.discard(session)
        self._check_idle()

    def ended(self, task: asyncio.Task[Answer]) -> None:
        """A call has ended."""
        self.tasks.discard(task)
        self._check_idle()

    def _check_idle(self) -> None:
        if self.draining and not self._sessions and not self.tasks:
            self._idle.set()

    def report(self, error: BaseException) -> None:
        """Tell of a bug in the handler."""
        if self._report is not None:
            self._report(error)
        else:
            asyncio.get_running_loop().call_exception_handler({"message": "a call failed", "exception": error})


__all__ = [
    "CALLS_MAX",
    "CONNECTIONS_MAX",
    "DRAIN_S",
    "UNSENT_MAX",
    "Answer",
    "ByteBudget",
    "FrameServer",
    "Handler",
    "Request",
]
