"""The faces on their ports: bound, started, drained."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import uvicorn

from omendb_common.clock import Clock
from omendb_common.errors import InvalidArgumentError, UnavailableError
from omendb_common.security.grpc_credentials import server_credentials
from omendb_common.wire.frames import FrameStats
from omendb_router.config import About, FaceSettings, FaceTls
from omendb_router.face_calls import RouterCalls
from omendb_router.frame_face import FrameFace
from omendb_router.grpc_face import make_server
from omendb_router.grpc_standard import add_standard_services
from omendb_router.message_calls import MessageCalls
from omendb_router.rest.app import RestFace, Standing
from omendb_router.rest.protocol import bounded_http

_BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen: a host, and a port or 0 for any."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @staticmethod
    def parse(text: str, field: str) -> Place:
        """Read ``host:port``; an IPv6 host stands in brackets."""
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
            raise InvalidArgumentError(f"got {text!r}", field=field, bound="HOST:PORT")
        return Place(host, int(port))


def bind(place: Place, *, shared: bool = False) -> socket.socket:
    """A bound socket; with ``shared`` other processes of the same user may bind it too, and the kernel spreads.

    Raises:
        UnavailableError: the port is taken, or the host is not this machine.
    """
    sock: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise UnavailableError(
            f"cannot listen there: {error.strerror or error}", field=str(place), mend="choose another address"
        ) from None
    sock.setblocking(False)
    return sock


class _Http(uvicorn.Server):
    """uvicorn within a process that handles signals itself and wants to know when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are the process's affair."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.listening.set()


class Faces:
    """The REST, frames and gRPC faces of one router, serving. Frames come in on REST's port.

    Args:
        observe: told of every answered request: ``rest``, ``frames`` or ``grpc``, its operation, its status, seconds.
        frame_stats: the connections that speak frames are counted into it.
        shared: let other workers of this router bind the same ports.
        tls: what both faces show to clients; None serves in the clear.
    """

    def __init__(
        self,
        router: RouterCalls,
        about: About,
        *,
        settings: FaceSettings | None = None,
        clock: Clock | None = None,
        observe: Callable[[str, str, str, float], None] = lambda face, route, code, seconds: None,
        shared: bool = False,
        tls: FaceTls | None = None,
        frame_stats: FrameStats | None = None,
    ) -> None:
        self.settings = settings or FaceSettings()
        self.standing = Standing()
        self._tls = tls
        self._shared = shared
        self._rest = RestFace(
            router,
            about,
            self.standing,
            settings=self.settings,
            clock=clock,
            observe=lambda route, code, seconds: observe("rest", route, str(code), seconds),
        )
        calls = {
            face: MessageCalls(
                router, about, settings=self.settings, clock=clock, observe=functools.partial(observe, face)
            )
            for face in ("grpc", "frames")
        }
        stats = FrameStats() if frame_stats is None else frame_stats
        self._frames = FrameFace(calls["frames"], budget=self._rest.budget, release=about.version, stats=stats)
        self._grpc: Any = make_server(calls["grpc"], self.settings, shared=shared)
        self._grpc_health = add_standard_services(self._grpc)
        self._http: _Http | None = None
        self._serving: asyncio.Task[None] | None = None
        self.http = self.grpc = Place("", 0)

    async def start(self, http: Place, calls: Place) -> None:
        """Listen for REST and gRPC; ``http`` and ``grpc`` then say where. UnavailableError when a port is taken."""
        sock = bind(http, shared=self._shared)
        try:
            try:
                port = self._bind_grpc(calls)
            except RuntimeError:
                raise UnavailableError("cannot listen there", field=str(calls), mend="choose another address") from None
            await self._grpc.start()
            self.grpc, self.http = Place(calls.host, port), Place(http.host, sock.getsockname()[1])
            self._rest.grpc_port = port
            self._http = _Http(self._config())
            self._serving = asyncio.create_task(self._http.serve([sock]), name="rest")
            listening = asyncio.create_task(self._http.listening.wait())
            await asyncio.wait([listening, self._serving], return_when=asyncio.FIRST_COMPLETED)
            listening.cancel()
            if self._serving.done():
                await self._serving
                raise UnavailableError("the REST face did not start", field=str(http))
        except BaseException:
            sock.close()
            raise
        self.standing.state = "ok"
        self._grpc_health.set_serving(True)

    @property
    def app(self) -> Any:
        """REST as an ASGI application, for callers in this process."""
        return self._rest.app()

    def _bind_grpc(self, place: Place) -> int:
        """The port; RuntimeError when it is taken."""
        if self._tls is None:
            port: int = self._grpc.add_insecure_port(str(place))
            return port
        self._tls.renewed()
        secure: int = self._grpc.add_secure_port(str(place), server_credentials(self._tls.files))
        return secure

    def _config(self) -> uvicorn.Config:
        settings = self.settings
        config = uvicorn.Config(
            self._rest.app(),
            http=bounded_http(settings, self._frames),
            ws="none",
            lifespan="off",
            access_log=False,
            # Nobody here asks who the client is.
            proxy_headers=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            backlog=_BACKLOG,
            limit_concurrency=settings.connections_max,
            timeout_keep_alive=settings.keep_alive_s,
            timeout_graceful_shutdown=max(1, round(settings.drain_s)),
            ssl_certfile=self._tls.cert if self._tls else None,
            ssl_keyfile=self._tls.key if self._tls else None,
        )
        config.load()
        if self._tls is not None:
            # In the place of the one that uvicorn made, which would keep the files that it began with.
            config.ssl = self._tls.renewed().server
        return config

    async def stop(self) -> None:
        """Take no more calls, let those that were taken end for ``drain_s`` seconds, and let the ports go."""
        self.standing.state = "draining"
        self._grpc_health.end()
        rest = self._serving
        if self._http is not None:
            self._http.should_exit = True
        await asyncio.gather(self._grpc.stop(self.settings.drain_s), self._frames.stop(self.settings.drain_s))
        if rest is not None:
            await rest


__all__ = ["Faces", "Place", "bind"]
