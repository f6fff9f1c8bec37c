"""The REST face as an ASGI application.

Operations on one collection are found and answered here, without a framework in between, which takes longer for a
request than the router for a search; everything else, and whatever is wrong with a path, is Starlette's.
"""

from __future__ import annotations

import importlib.resources
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path
from starlette.types import ASGIApp, Receive, Scope, Send

from omendb_common.clock import Clock, SystemClock
from omendb_common.errors import (
    InvalidArgumentError,
    NotFoundError,
    OmenDBError,
    ResourceExhaustedError,
    UnavailableError,
)
from omendb_common.wire import status
from omendb_router.config import About, FaceSettings
from omendb_router.face_calls import RouterCalls
from omendb_router.frame_face import PATH, PROTOCOL
from omendb_router.rest import care, collections, reading, writing
from omendb_router.rest.bodies import Health, Info
from omendb_router.rest.calls import ARROW, JSON, Call, Incoming, Reading, Route
from omendb_router.rest.openapi import openapi

ROUTES: tuple[Route, ...] = (*collections.ROUTES, *writing.ROUTES, *reading.ROUTES, *care.ROUTES)
_LOG = logging.getLogger("omendb.router.rest")
_ENCODER = msgspec.json.Encoder()
Endpoint = Callable[[Request], Awaitable[Response]]
_OF_ONE = "/collections/{name}/"


@dataclass(slots=True)
class Standing:
    """Whether the process takes requests: ``starting``, ``ok`` or ``draining``."""

    state: str = "starting"


class RestFace:
    """REST over a router.

    Args:
        grpc_port: told to clients, so that one address is enough to find both faces.
        observe: told of every answered request: route, HTTP status, seconds.
    """

    def __init__(
        self,
        router: RouterCalls,
        about: About,
        standing: Standing,
        *,
        settings: FaceSettings | None = None,
        clock: Clock | None = None,
        grpc_port: int = 0,
        observe: Callable[[str, int, float], None] = lambda route, code, seconds: None,
    ) -> None:
        self.grpc_port = grpc_port
        self._router = router
        self._about = about
        self._standing = standing
        self._settings = settings or FaceSettings()
        self._clock = clock or SystemClock()
        self._reading = Reading(self._settings, self._clock)
        self._observe = observe
        self.budget = self._reading.budget
        self._document = _ENCODER.encode(openapi(ROUTES, about.version))

    def app(self) -> ASGIApp:
        """The ASGI application."""
        others = self._others()
        direct = {(r.method, r.path[len(_OF_ONE) :]): r for r in ROUTES if r.path.startswith(_OF_ONE)}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and not scope.get("root_path"):
                parts = scope["path"].split("/", 3)
                if len(parts) == 4 and parts[1] == "collections" and parts[2]:
                    route = direct.get((scope["method"], parts[3]))
                    if route is not None:
                        try:
                            answer = await self._answer(route, Incoming(scope, receive), {"name": parts[2]})
                        except Exception as error:
                            await _send(_refused(_bug(error)), send)
                            raise
                        await _send(answer, send)
                        return
            await others(scope, receive, send)

        return app

    def _others(self) -> Starlette:
        by_path: dict[str, dict[str, Endpoint]] = {}
        for route in ROUTES:
            by_path.setdefault(_pattern(route.path), {})[route.method] = self._endpoint(route)
        paths = [Path(path, _by_method(methods), methods=list(methods)) for path, methods in by_path.items()]
        paths += [Path(path, self._health, methods=["GET"]) for path in ("/healthz", "/readyz")]
        paths += [
            Path("/livez", self._alive, methods=["GET"]),
            Path("/info", self._info, methods=["GET"]),
            Path("/openapi.json", self._openapi, methods=["GET"]),
            Path("/docs", self._docs, methods=["GET"]),
            Path(PATH.decode(), self._no_frames, methods=["GET"]),
        ]
        handlers: Mapping[Any, Any] = {
            OmenDBError: self._failed,
            HTTPException: self._lost,
            Exception: self._broken,
        }
        app = Starlette(routes=paths, exception_handlers=handlers)
        app.router.redirect_slashes = False
        return app

    def _endpoint(self, route: Route) -> Endpoint:
        async def answer(request: Request) -> Response:
            told = await self._answer(route, Incoming(request.scope, request.receive), request.path_params)
            return Response(told.body, told.code, told.headers, told.media)

        return answer

    async def _answer(self, route: Route, request: Incoming, path: Mapping[str, str]) -> Answer:
        """What a request is answered with, be it a refusal."""
        started = self._clock.mono_s()
        code = 500
        try:
            answer = await self._handled(route, request, path)
            code = answer.code
            return answer
        except OmenDBError as error:
            code = error.http_status
            return _refused(error)
        finally:
            self._observe(route.name, code, self._clock.mono_s() - started)

    async def _handled(self, route: Route, request: Incoming, path: Mapping[str, str]) -> Answer:
        media = self._reading.media(request, route)
        params = self._reading.params(request, route.media.get(media, route.params))
        deadline = self._reading.deadline(params.timeout, route)
        arrow = route.arrow_answer and ARROW in request.header(b"accept")
        data = await self._reading.body(request, deadline) if route.body is not None else b""
        try:
            body = self._reading.decoded(data, route) if media == JSON and route.body is not None else data
            call = Call(self._router, self._about, deadline, path, params, body, media, arrow)
            answer = await route.handler(call)
        finally:
            self._reading.budget.give(len(data))
        if isinstance(answer, bytes):
            return Answer(answer, 200, ARROW)
        return Answer(_ENCODER.encode(answer), route.status, JSON)

    @property
    def bodies_bytes(self) -> int:
        """Bytes of request bodies in memory."""
        return self._reading.budget.used

    async def _health(self, request: Request) -> Response:
        state = self._standing.state
        return _json(Health(status=state), 200 if state == "ok" else 503)  # type: ignore[arg-type]  # one of its three

    async def _alive(self, request: Request) -> Response:
        return _json(Health(status="ok"))

    async def _info(self, request: Request) -> Response:
        about = self._about
        return _json(
            Info(
                version=about.version,
                kind=about.kind,  # type: ignore[arg-type]  # one of its two
                node_id=about.node_id,
                location=about.location,
                grpc_port=self.grpc_port,
                body_bytes_max=self._settings.body_bytes_max,
            )
        )

    async def _openapi(self, request: Request) -> Response:
        return Response(self._document, media_type=JSON)

    async def _docs(self, request: Request) -> Response:
        page = importlib.resources.files("omendb_router.rest").joinpath("docs.html").read_bytes()
        return Response(page, media_type="text/html; charset=utf-8")

    async def _no_frames(self, request: Request) -> Response:
        """A request for frames that was not handed over before it came here."""
        asked = request.headers.get("upgrade", "").encode("latin-1").lower() == PROTOCOL
        if not asked:
            bound = {"Upgrade": PROTOCOL.decode(), "Connection": "upgrade"}
            error = InvalidArgumentError("nothing but frames is spoken here", field="Upgrade", bound=bound["Upgrade"])
            return _error(error, 426, bound)
        return _error(UnavailableError("no more connections are taken now", field="connections", outcome="none"))

    async def _failed(self, request: Request, error: OmenDBError) -> Response:
        return _error(error)

    async def _lost(self, request: Request, error: HTTPException) -> Response:
        """No such path, or not with this method."""
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "").replace(",", " ").split()
            refusal: OmenDBError = InvalidArgumentError(
                f"{request.method} is not for this path", field="method", bound=" or ".join(sorted(allowed))
            )
        elif error.status_code == 404:
            refusal = NotFoundError("no such path", field="path", mend="see /docs")
        else:
            refusal = InvalidArgumentError(error.detail, field="request")
        return _error(refusal, error.status_code, dict(error.headers or {}))

    async def _broken(self, request: Request, error: Exception) -> Response:
        return _error(_bug(error))


def _by_method(endpoints: Mapping[str, Endpoint]) -> Endpoint:
    """One endpoint of a path, so that a method it has not is refused with all that it has."""

    async def answer(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await endpoints[method](request)

    return answer


def _pattern(path: str) -> str:
    """Ids may hold slashes; names may not."""
    return path.replace("{id}", "{id:path}")


def _json(value: Any, code: int = 200) -> Response:
    return Response(_ENCODER.encode(value), status_code=code, media_type=JSON)


class Answer(NamedTuple):
    """A whole answer, ready to be sent."""

    body: bytes
    code: int
    media: str
    headers: dict[str, str] | None = None


async def _send(answer: Answer, send: Send) -> None:
    headers = [(b"content-length", b"%d" % len(answer.body)), (b"content-type", answer.media.encode("latin-1"))]
    if answer.headers:
        headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
    await send({"type": "http.response.start", "status": answer.code, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _refused(error: OmenDBError) -> Answer:
    headers = None
    if isinstance(error, ResourceExhaustedError):
        headers = {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    return Answer(_ENCODER.encode(status.to_json(error)), error.http_status, JSON, headers)


def _error(error: OmenDBError, code: int | None = None, headers: dict[str, str] | None = None) -> Response:
    told = _refused(error)
    return Response(told.body, code or told.code, {**(headers or {}), **(told.headers or {})}, JSON)


def _bug(error: Exception) -> OmenDBError:
    """A bug: the caller learns nothing of it, the log everything."""
    return status.of_exception(error, lambda told: _LOG.error("a request failed", exc_info=told))


__all__ = ["ROUTES", "Answer", "RestFace", "Standing"]
