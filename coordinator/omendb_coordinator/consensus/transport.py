"""Messages between members over TCP, with TLS on both sides.

Each member dials every other and only sends on the connections that it dialled, so there is one for each direction.
Nothing is promised: what cannot be sent is dropped, and Raft sends again. Whoever greets wrongly, shows another's
certificate or sends anything that is no frame loses its connection, and nothing else happens.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from omendb_common.security.tls import peer_name
from omendb_common.wire.unending import Unending
from omendb_coordinator.consensus.codec import BadMessageError, decode, encode
from omendb_coordinator.consensus.frames import GREETING_BYTES_MAX, BadFrameError, Greeting, frame, read_frame
from omendb_coordinator.consensus.identity import Identity
from omendb_coordinator.consensus.messages import Message
from omendb_coordinator.consensus.tls import RaftTls, shows

_log = logging.getLogger(__name__)

QUEUE_BYTES_MAX = 32 << 20
CONNECTIONS_MAX = 64
_BACKOFF_S_MIN, _BACKOFF_S_MAX = 0.05, 1.0
_READ_AHEAD_BYTES = 256 << 10
_CLOSE_S = 0.5

Address = tuple[str, int]
Deliver = Callable[[str, Message], None]


class Transport(Protocol):
    """How messages get to other members: each at most once, in any order, or not at all."""

    async def start(self, deliver: Deliver) -> None:
        """Begin; ``deliver`` is called on the event loop with who sent it."""

    def send(self, to: str, message: Message) -> None:
        """Try to send; never blocks and never raises."""

    async def stop(self) -> None:
        """End every connection and task."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a member says of itself in greetings. ``timeout_s``: silence after which a connection is given up."""

    identity: Identity
    timeout_s: float

    def greeting(self, receiver: str) -> Greeting:
        """What it says to ``receiver``."""
        me = self.identity
        return Greeting(me.cluster_id, me.node_id, receiver, me.birth, me.origin)


class _Outgoing:
    """What waits to be sent to one member."""

    def __init__(self) -> None:
        self.queue: deque[list[bytes]] = deque()
        self.size = 0
        self.wake = asyncio.Event()

    def put(self, parts: list[bytes]) -> None:
        """Queue a message, or drop it when too much waits."""
        size = sum(map(len, parts))
        if self.size + size <= QUEUE_BYTES_MAX:
            self.queue.append(parts)
            self.size += size
            self.wake.set()

    def take(self) -> list[bytes]:
        """Everything that waits, as frames."""
        parts = [part for message in self.queue for part in frame(message)]
        self.clear()
        return parts

    def clear(self) -> None:
        """Forget what waits."""
        self.queue.clear()
        self.size = 0
        self.wake.clear()


class TcpTransport:
    """See the module.

    Args:
        peers: where every other member listens for members.
        listen: where this one does; port 0 takes any, see ``address``.
        tls: None sends everything readable and believes everybody's name: for tests only.
        admit: whether to listen to a member whose greeting is right as far as this module can tell.
    """

    def __init__(
        self,
        introduction: Introduction,
        peers: Mapping[str, Address],
        listen: Address,
        tls: RaftTls | None,
        admit: Callable[[Greeting], Awaitable[bool]],
        rng: random.Random,
    ) -> None:
        self._me = introduction
        self._peers = peers
        self._listen = listen
        self._tls = tls
        self._admit = admit
        self._rng = rng
        self._outgoing = {peer: _Outgoing() for peer in peers}
        self._connected: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialling: list[Unending] = []
        self._incoming: dict[str, asyncio.StreamWriter] = {}
        self._accepted = 0
        self._server: asyncio.Server | None = None
        self._deliver: Deliver | None = None

    @property
    def address(self) -> Address:
        """Where this member listens; the port that was got when it was started with 0."""
        if self._server is None:
            return self._listen
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    async def start(self, deliver: Deliver) -> None:
        """See :class:`Transport`. OSError when the address cannot be listened on."""
        self._deliver = deliver
        tls = self._tls.server if self._tls is not None else None
        self._server = await asyncio.start_server(
            self._on_connection,
            *self._listen,
            ssl=tls,
            ssl_handshake_timeout=self._me.timeout_s if tls else None,
            limit=_READ_AHEAD_BYTES,
        )
        # A member that nobody dials gets no vote: whatever goes wrong, the dialling goes on.
        for peer in self._peers:
            self._dialling.append(Unending(partial(self._keep_connected, peer), f"raft to {peer}"))

    def send(self, to: str, message: Message) -> None:
        """See :class:`Transport`."""
        if to in self._connected:
            self._outgoing[to].put(encode(message))

    async def stop(self) -> None:
        """See :class:`Transport`."""
        if self._server is not None:
            self._server.close()
        for dialling in self._dialling:
            await dialling.stop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    # -- the connections that this member dials

    async def _keep_connected(self, peer: str) -> None:
        """Dial a member again and again, and send it what waits."""
        backoff_s = _BACKOFF_S_MIN
        while True:
            try:
                async with asyncio.timeout(self._me.timeout_s):
                    reader, writer = await self._dial(peer)
            except (OSError, EOFError, BadFrameError, TimeoutError) as error:
                _log.debug("%s cannot be reached: %s", peer, error)
                await asyncio.sleep(backoff_s * self._rng.uniform(0.5, 1.0))
                backoff_s = min(backoff_s * 2, _BACKOFF_S_MAX)
                continue
            backoff_s = _BACKOFF_S_MIN
            self._connected.add(peer)
            try:
                await self._send_until_closed(peer, reader, writer)
            finally:
                self._connected.discard(peer)
                self._outgoing[peer].clear()
                await _close(writer)

    async def _dial(self, peer: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        tls = self._tls.client if self._tls is not None else None
        reader, writer = await asyncio.open_connection(*self._peers[peer], ssl=tls, limit=_READ_AHEAD_BYTES)
        try:
            _set_options(writer, self._me.timeout_s)
            self._check_certificate(writer, peer)
            _write(writer, frame([self._me.greeting(peer).encode()]))
            await writer.drain()
            theirs = Greeting.decode(await read_frame(reader, GREETING_BYTES_MAX))
            await self._check_greeting(theirs, peer)
        except BaseException:
            await _close(writer)
            raise
        return reader, writer

    async def _send_until_closed(self, peer: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send what waits until the other side closes; it never says anything here."""
        outgoing = self._outgoing[peer]
        closed = asyncio.ensure_future(reader.read(1))
        closed.add_done_callback(lambda _: outgoing.wake.set())
        try:
            while not closed.done():
                await outgoing.wake.wait()
                _write(writer, outgoing.take())
                await writer.drain()
        except OSError as error:
            _log.debug("the connection to %s broke: %s", peer, error)
        finally:
            closed.cancel()
            with suppress(OSError, asyncio.CancelledError):
                await closed

    # -- the connections that others dial

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await self._converse(reader, writer)
        except asyncio.CancelledError:
            # Only ``stop`` cancels, and waits. asyncio's streams would report a cancelled handler as an error.
            _log.debug("a connection ends with this member")

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hear out whoever connected, if it is a member, and close the connection."""
        peer = None
        try:
            if self._accepted >= CONNECTIONS_MAX:
                return
            self._accepted += 1
            try:
                async with asyncio.timeout(self._me.timeout_s):
                    peer = await self._welcome(reader, writer)
                await self._receive(peer, reader, writer)
            finally:
                self._accepted -= 1
        except (OSError, EOFError, BadFrameError, BadMessageError, TimeoutError) as error:
            _log.info("closed a connection from %s (%s): %s", peer, writer.get_extra_info("peername"), error)
        finally:
            if peer is not None and self._incoming.get(peer) is writer:
                del self._incoming[peer]
            await _close(writer)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Exchange greetings; returns who it is."""
        _set_options(writer, self._me.timeout_s)
        theirs = Greeting.decode(await read_frame(reader, GREETING_BYTES_MAX))
        if theirs.sender not in self._peers:
            raise BadFrameError(f"{theirs.sender} is no member")
        self._check_certificate(writer, theirs.sender)
        await self._check_greeting(theirs, theirs.sender)
        _write(writer, frame([self._me.greeting(theirs.sender).encode()]))
        await writer.drain()
        return theirs.sender

    async def _receive(self, peer: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Deliver messages until the connection ends or another from the same member takes its place."""
        replaced = self._incoming.get(peer)
        self._incoming[peer] = writer
        if replaced is not None:
            replaced.transport.abort()
        assert self._deliver is not None
        while True:
            message = decode(await read_frame(reader))
            if self._incoming.get(peer) is not writer:
                return
            self._deliver(peer, message)

    # -- whom to believe

    def _check_certificate(self, writer: asyncio.StreamWriter, peer: str) -> None:
        if self._tls is None:
            return
        connection = writer.get_extra_info("ssl_object")
        if not shows(connection, peer):
            raise BadFrameError(f"the certificate is for {peer_name(connection)}, not for the coordinator {peer}")

    async def _check_greeting(self, greeting: Greeting, peer: str) -> None:
        me = self._me.identity
        if (greeting.sender, greeting.receiver) != (peer, me.node_id):
            raise BadFrameError(f"a greeting from {greeting.sender} to {greeting.receiver}")
        if greeting.cluster_id != me.cluster_id:
            raise BadFrameError(f"{peer} is of cluster {greeting.cluster_id}")
        if not await self._admit(greeting):
            raise BadFrameError(f"{peer} lost its disk and does not say so: start it with rejoin")


def _set_options(writer: asyncio.StreamWriter, timeout_s: float) -> None:
    """Send at once, and give a silent connection up instead of waiting a quarter of an hour."""
    sock = writer.get_extra_info("socket")
    if sock is None:
        return
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1000))


def _write(writer: asyncio.StreamWriter, parts: list[bytes]) -> None:
    """Write, or OSError when the connection is gone: between losing it and saying so uvloop raises RuntimeError."""
    if writer.is_closing():
        raise ConnectionResetError("the connection is closed")
    writer.writelines(parts)


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close without waiting for a peer that does not answer."""
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CLOSE_S):
            await writer.wait_closed()
    writer.transport.abort()


__all__ = ["Address", "Deliver", "Introduction", "TcpTransport", "Transport"]
