"""REST requests out of a seed: every route, with bodies and parameters that fit, nearly fit, or do not fit at all."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from omendb_chaos.fuzz import values
from omendb_router.rest.app import ROUTES
from omendb_router.rest.calls import ARROW, JSON, OCTETS, Route

_STRAY = (("GET", "/nothing"), ("BREW", "/collections"), ("POST", "/collections/"), ("DELETE", "/collections/c/points"))
# Those that end a collection mostly name another one than the rest.
_ENDING = ("dropCollection", "renameCollection")
_WEIGHTS = [4 if route.tag in ("points", "search") else 1 for route in ROUTES]
_PARAMS = (
    *("timeout", "k", "filters", "include", "exact", "ef", "field", "consistency", "session", "as", "id_column"),
    *("create_only", "vector_column", "retry_stamp", "recall_target", "score_threshold", "nothing"),
)


@dataclass(frozen=True, slots=True)
class RestRequest:
    """A request as it goes out."""

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    def told(self) -> str:
        """The request in words, for a report."""
        return f"{self.method} {self.path} {self.headers} {self.body[:400]!r}"


def rest_request(dice: random.Random) -> RestRequest:
    """One request."""
    if dice.random() < 0.02:
        method, path = dice.choice(_STRAY)
        return RestRequest(method, path)
    route = dice.choices(ROUTES, _WEIGHTS)[0]
    name = values.spare_name(dice) if route.name in _ENDING else values.name(dice)
    path = route.path.replace("{name}", quote(name, safe=""))
    path = path.replace("{id}", quote(str(values.point_id(dice))[:600], safe=""))
    media = dice.choice((JSON, *route.media)) if dice.random() < 0.9 else dice.choice((JSON, OCTETS, ARROW, "text/xml"))
    query = _query(dice)
    if query:
        path += f"?{query}"
    if route.body is None and dice.random() < 0.9:
        return RestRequest(route.method, path)
    headers = {"content-type": media}
    if dice.random() < 0.03:
        headers["content-encoding"] = dice.choice(("gzip", "identity", "br"))
    if dice.random() < 0.1:
        headers["accept"] = ARROW
    return RestRequest(route.method, path, _body(dice, route, media), headers)


def _query(dice: random.Random) -> str:
    if dice.random() < 0.8:
        return ""
    kinds = (
        lambda: str(values.number(dice)),
        lambda: values.text(dice)[:2000],
        lambda: values.filter_text(dice)[:2000],
    )
    pairs = [(dice.choice(_PARAMS), dice.choice(kinds)()) for _ in range(dice.randrange(1, 4))]
    # A deadline of nothing is a lawful wish; it would leave little to try.
    return urlencode([(key, "5" if key == "timeout" and dice.random() < 0.7 else value) for key, value in pairs])


def _body(dice: random.Random, route: Route, media: str) -> bytes:
    rows = dice.randrange(4)
    if media == OCTETS:
        return values.vector_bytes(dice, rows)
    if media == ARROW:
        return values.stream(dice, rows)
    roll = dice.random()
    if roll < 0.03:
        return dice.choice((b"", b"[" * 50_000, b"{" * 50_000, b"\xff", b"null", b"1e9999", b'{"a":' * 3000))
    body = json_body(dice, route.name)
    if dice.random() < 0.15:
        _disturb(dice, body)
    data = json.dumps(body).encode()
    return values.damaged(dice, data) if dice.random() < 0.15 else data


def _disturb(dice: random.Random, body: dict[str, Any]) -> None:
    """Put something else in the place of a field, or beside it."""
    if body and dice.random() < 0.8:
        body[dice.choice(sorted(body))] = values.json_value(dice)
    else:
        body[values.text(dice)] = values.json_value(dice)


def json_body(dice: random.Random, operation: str) -> dict[str, Any]:
    """A body for the operation that might be a good one."""
    return _BODIES[operation](dice) if operation in _BODIES else {}


def _create(dice: random.Random) -> dict[str, Any]:
    body: dict[str, Any] = {"name": values.name(dice), "if_not_exists": dice.random() < 0.5}
    if dice.random() < 0.7:
        body["dimension"] = dice.choice((values.DIMENSION, values.number(dice)))
    else:
        body["vectors"] = {values.name(dice): {"dimension": dice.choice((2, values.number(dice)))}}
    for key in ("shards", "replication", "write_quorum", "hnsw_m"):
        if dice.random() < 0.1:
            body[key] = values.number(dice)
    return body


def _points(dice: random.Random) -> dict[str, Any]:
    n = dice.randrange(5)
    ids = [values.point_id(dice) for _ in range(n)]
    vectors = [values.vector(dice) for _ in range(n)]
    metadata = [values.payload(dice) for _ in range(n)]
    if dice.random() < 0.4:
        rows = zip(ids, vectors, metadata, strict=True)
        return {"points": [{"id": i, "vector": v, "metadata": m} for i, v, m in rows]}
    return {"ids": ids, "vectors": vectors, "metadata": metadata}


def _update(dice: random.Random) -> dict[str, Any]:
    return {"ids": [values.point_id(dice)], "metadata": [values.payload(dice)], "unset": [values.text(dice)]}


def _delete(dice: random.Random) -> dict[str, Any]:
    return {"ids": [values.point_id(dice)]} if dice.random() < 0.5 else {"filters": values.filters(dice)}


def _reading(dice: random.Random) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if dice.random() < 0.4:
        body["filters"] = values.filters(dice)
    if dice.random() < 0.4:
        body["include"] = [dice.choice(("id", "distance", "score", "metadata", "vector", "x"))]
    if dice.random() < 0.1:
        body["session"] = values.text(dice)
    return body


def _search(dice: random.Random) -> dict[str, Any]:
    body = _reading(dice)
    if dice.random() < 0.6:
        body["vector"] = values.vector(dice)
    else:
        body["vectors"] = [values.vector(dice) for _ in range(dice.randrange(4))]
    body["k"] = dice.choice((1, 5, values.number(dice)))
    for key in ("ef", "recall_target", "score_threshold"):
        if dice.random() < 0.1:
            body[key] = values.number(dice)
    return body


def _get(dice: random.Random) -> dict[str, Any]:
    return {"ids": [values.point_id(dice) for _ in range(dice.randrange(5))], "include": ["metadata", "vector"]}


def _scroll(dice: random.Random) -> dict[str, Any]:
    return {
        **_reading(dice),
        "limit": dice.choice((3, values.number(dice))),
        "cursor": dice.choice((None, "x", "0" * 32)),
    }


_BODIES: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "createCollection": _create,
    "putCollection": _create,
    "renameCollection": lambda dice: {"new_name": values.name(dice)},
    "upsertPoints": _points,
    "updatePoints": _update,
    "deletePoints": _delete,
    "search": _search,
    "getPoints": _get,
    "scroll": _scroll,
    "count": _reading,
    "waitUntilIndexed": lambda dice: {"timeout": dice.choice((0, 0.01, -1, "x"))},
}

__all__ = ["RestRequest", "json_body", "rest_request"]
