"""One REST request: its route, and its body, parameters and deadline, read under limits.

A request is read out of ASGI's own scope and messages: a framework's request objects cost more than a small search.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct
from starlette.datastructures import QueryParams
from starlette.types import Receive, Scope

from omendb_common.clock import Clock
from omendb_common.deadline import TIMEOUT_S_MAX, Deadline
from omendb_common.errors import DeadlineExceededError, InvalidArgumentError, ResourceExhaustedError
from omendb_router.config import About, FaceSettings
from omendb_router.face_calls import RouterCalls

TIMEOUT_S_MIN = 0.001
# Clients say the same parameters over and over; long ones, with filters or tokens, are seldom the same twice.
_CACHED_QUERIES_MAX = 1024
_CACHED_QUERY_BYTES_MAX = 256
_NO_SCOPE = nullcontext()

WHOLE = "omendb.whole"
"""In the scope of a request of which all has come: reading its body waits for nothing."""
JSON = "application/json"
OCTETS = "application/octet-stream"
ARROW = "application/vnd.apache.arrow.stream"

_WHERE = re.compile(r"^(?P<what>.*) - at (?:key in )?\$\.?(?P<path>.*)$", re.DOTALL)
_EXPECTED = re.compile(r"^Expected (?P<bound>.*), got (?P<got>.*)$", re.DOTALL)


class Params(Struct, forbid_unknown_fields=True, kw_only=True):
    """Query parameters of every route."""

    timeout: Annotated[float, Meta(extra_json_schema={"minimum": TIMEOUT_S_MIN, "maximum": TIMEOUT_S_MAX})] | None = (
        None
    )


class Call(NamedTuple):
    """A request as its handler sees it.

    ``body`` is the struct of a JSON body, or the bytes of another ``media`` type. ``accept``: whether the answer may
    be an Arrow stream.
    """

    router: RouterCalls
    about: About
    deadline: Deadline
    path: Mapping[str, str]
    params: Any
    body: Any
    media: str = JSON
    arrow: bool = False


Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: where it is, what it takes and gives, and who does it.

    ``media``: what its body may be beside JSON, each with the struct of its own query parameters.
    ``arrow_answer``: whether ``Accept`` may ask for an Arrow stream.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    answer: type[Struct] | None
    body: type[Struct] | None = None
    body_needed: bool = True
    params: type[Params] = Params
    media: Mapping[str, type[Params]] = field(default_factory=dict)
    arrow_answer: bool = False
    status: int = 200
    care: bool = False
    tag: str = "points"


class Incoming:
    """A request as ASGI gives it."""

    __slots__ = ("_headers", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        # Of headers that come twice, the first counts.
        self._headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))

    def header(self, name: bytes, otherwise: str = "") -> str:
        """The first header of that name, which is in small letters."""
        value = self._headers.get(name)
        return otherwise if value is None else str(value, "latin-1")


class BodyBudget:
    """Bytes of request bodies in memory, bounded: what does not fit is told when to come back."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, size: int) -> None:
        """Reserve; ResourceExhaustedError when it is too much now."""
        if self.used + size > self.limit:
            raise ResourceExhaustedError(
                "too many large requests at a time", field="body", bound=f"{self.limit} bytes in all", retry_after=0.2
            )
        self.used += size

    def give(self, size: int) -> None:
        """Give back what was reserved."""
        self.used -= size


class Reading:
    """Reads the parts of requests, for one face."""

    def __init__(self, settings: FaceSettings, clock: Clock) -> None:
        self.settings = settings
        self.budget = BodyBudget(settings.bodies_bytes_max)
        self._clock = clock
        self._decoders: dict[type[Struct], msgspec.json.Decoder[Any]] = {}
        self._params: dict[tuple[bytes, type[Params]], Params] = {}

    def media(self, request: Incoming, route: Route) -> str:
        """The type of the body; InvalidArgumentError for one that the route does not take."""
        given = request.header(b"content-type", JSON)
        if given not in route.media:
            given = given.partition(";")[0].strip().lower() or JSON
        if request.header(b"content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise InvalidArgumentError("the body is compressed", field="Content-Encoding", bound="none")
        if given in route.media or given == JSON:
            return given
        if route.body is not None:
            taken = [JSON, *route.media]
            raise InvalidArgumentError(f"got {given[:100]!r}", field="Content-Type", bound=" or ".join(taken))
        return JSON

    def params(self, request: Incoming, kind: type[Params]) -> Any:
        """The query parameters as ``kind``, not to be changed; InvalidArgumentError for an unknown or a bad one."""
        text: bytes = request.scope["query_string"]
        known = self._params.get((text, kind))
        if known is not None:
            return known
        pairs = QueryParams(text).multi_items()
        given = dict(pairs)
        if len(given) != len(pairs):
            raise InvalidArgumentError("a parameter is given twice", field="query", bound="each once")
        try:
            params = msgspec.convert(given, kind, strict=False)
        except msgspec.ValidationError as error:
            raise _refusal(error, "query") from None
        if len(text) <= _CACHED_QUERY_BYTES_MAX:
            if len(self._params) >= _CACHED_QUERIES_MAX:
                self._params.clear()
            self._params[text, kind] = params
        return params

    def deadline(self, timeout_s: float | None, route: Route) -> Deadline:
        """When the answer must be there."""
        if timeout_s is not None and not TIMEOUT_S_MIN <= timeout_s <= TIMEOUT_S_MAX:
            bound = f"{TIMEOUT_S_MIN}..{TIMEOUT_S_MAX:.0f} seconds"
            raise InvalidArgumentError(f"got {timeout_s}", field="timeout", bound=bound)
        if timeout_s is None:
            timeout_s = self.settings.care_timeout_s if route.care else self.settings.timeout_s
        return Deadline.after(self._clock, timeout_s)

    async def body(self, request: Incoming, deadline: Deadline) -> bytes:
        """The whole body, of which :meth:`BodyBudget.take` has the length; give it back when it is let go.

        Raises:
            InvalidArgumentError: it is too long, or the client went away in its middle.
            ResourceExhaustedError: too many are at work.
        """
        limit = self.settings.body_bytes_max
        announced = request.header(b"content-length")
        if announced.isdecimal() and int(announced[:20]) > limit:
            raise _too_long(int(announced[:20]), limit)
        chunks: list[bytes] = []
        taken = 0
        more = True
        try:
            # A timeout's scope takes longer than everything else that is done for a small body.
            async with _NO_SCOPE if WHOLE in request.scope else asyncio.timeout(deadline.left_s):
                while more:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise InvalidArgumentError("the body broke off", field="body", bound="a whole body")
                    more = message.get("more_body", False)
                    chunk = message.get("body", b"")
                    if not chunk:
                        continue
                    if taken + len(chunk) > limit:
                        raise _too_long(taken + len(chunk), limit)
                    self.budget.take(len(chunk))
                    taken += len(chunk)
                    chunks.append(chunk)
        except BaseException as error:
            self.budget.give(taken)
            if isinstance(error, TimeoutError):
                raise DeadlineExceededError("the body did not come in time", field="timeout", outcome="none") from error
            raise
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def decoded(self, data: bytes, route: Route) -> Any:
        """The struct of a JSON body."""
        assert route.body is not None
        if not data and not route.body_needed:
            data = b"{}"
        decoder = self._decoders.get(route.body)
        if decoder is None:
            decoder = self._decoders[route.body] = msgspec.json.Decoder(route.body)
        try:
            return decoder.decode(data)
        except msgspec.ValidationError as error:
            raise _refusal(error, "body") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidArgumentError(f"not JSON: {error}", field="body", bound="a JSON object") from None


def _too_long(size: int, limit: int) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"got {size} bytes", field="body", bound=f"at most {limit} bytes", mend="send it in several requests"
    )


def _refusal(error: msgspec.ValidationError, whole: str) -> InvalidArgumentError:
    """msgspec's sentence as an error that names the field and the bound."""
    what, field_name = str(error).replace("`", ""), whole
    placed = _WHERE.match(what)
    if placed:
        what, field_name = placed["what"], placed["path"] or whole
    parts = _EXPECTED.match(what)
    if parts:
        return InvalidArgumentError(f"got {parts['got']}", field=field_name, bound=parts["bound"])
    return InvalidArgumentError(what, field=field_name)


__all__ = ["ARROW", "JSON", "OCTETS", "BodyBudget", "Call", "Handler", "Incoming", "Params", "Reading", "Route"]
