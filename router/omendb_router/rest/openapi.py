"""The OpenAPI document, made of the routes and of the structs of their bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from omendb_router.rest.bodies import ErrorBody, Health, Info
from omendb_router.rest.calls import ARROW, JSON, OCTETS, Params, Route

_REF = "#/components/schemas/{name}"
_ERRORS = {
    400: "malformed or wrong-shaped input; nothing was changed",
    404: "no such collection or point",
    409: "it exists already, or with a conflicting schema",
    412: "a point has another version than `if_version` demanded; nothing was written",
    429: "memory, disk, rate or quota is used up: try again after Retry-After seconds",
    500: "damage on disk, or an internal error",
    503: "no quorum, or a node is down; `outcome` says what became of a write",
    504: "the deadline passed",
}
_HEALTH = ("/healthz", "/readyz", "/livez")


def openapi(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """The document of all routes."""
    structs: list[type[Struct]] = [ErrorBody, Health, Info]
    for route in routes:
        structs += [struct for struct in (route.body, route.answer) if struct is not None and struct not in structs]
    _, components = msgspec.json.schema_components(structs, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    for path in _HEALTH:
        paths[path] = {"get": _health(path)}
    paths["/info"] = {"get": _plain("info", "What answers here", "Info")}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OmenDB",
            "version": version,
            "description": "Collections of points: vectors with metadata. Names and meaning are those of the Python "
            "API. Every failed request answers an `ErrorBody`.",
        },
        "tags": [{"name": name} for name in ("collections", "points", "search", "care", "cluster")],
        "paths": paths,
        "components": {"schemas": {name: _tidied(schema) for name, schema in components.items()}},
    }


def _tidied(value: Any) -> Any:
    """A schema with its descriptions' line breaks gone: they are a docstring's."""
    if isinstance(value, Mapping):
        return {
            key: " ".join(child.split()) if key == "description" and isinstance(child, str) else _tidied(child)
            for key, child in value.items()
        }
    return [_tidied(child) for child in value] if isinstance(value, list) else value


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [*_path_parameters(route.path), *_query_parameters(route)],
        "responses": _responses(route),
    }
    if route.body is not None:
        content: dict[str, Any] = {JSON: {"schema": _ref(route.body)}}
        for media in route.media:
            content[media] = {"schema": {"description": _MEDIA[media, route.name]}}
        operation["requestBody"] = {"required": route.body_needed, "content": content}
    return operation


_MEDIA = {
    (OCTETS, "search"): "query vectors, row after row, little-endian float32",
    (OCTETS, "upsertPoints"): "vectors, row after row, little-endian, in the collection's element type; the points are "
    "numbered automatically",
    (ARROW, "upsertPoints"): "an Arrow IPC stream of one batch: a column of vectors (lists of numbers), perhaps one of "
    "ids, and metadata",
}


def _ref(struct: type[Struct]) -> dict[str, Any]:
    return {"$ref": _REF.format(name=struct.__name__)}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    described = {"name": "the collection's name", "id": "the point's id"}
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": described[name],
            "schema": {"type": "string", "minLength": 1},
        }
        for name in names
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    """Those of every body, and, saying so, those that stand beside a body of another type only."""
    parameters = _parameters_of(route.params, "")
    known = {p["name"] for p in parameters}
    for media, kind in route.media.items():
        for parameter in _parameters_of(kind, f"only beside a body of {media}"):
            if parameter["name"] not in known:
                known.add(parameter["name"])
                parameters.append(parameter)
    return parameters


def _parameters_of(kind: type[Params], note: str) -> list[dict[str, Any]]:
    _, components = msgspec.json.schema_components([kind], ref_template=_REF)
    schema = components[kind.__name__]
    out = []
    for name, value in schema["properties"].items():
        described = "seconds until the answer must be there" if name == "timeout" else note
        parameter: dict[str, Any] = {"name": name, "in": "query", "schema": _without_null(value)}
        if described:
            parameter["description"] = described
        out.append(parameter)
    return out


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is left out instead of null."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        return dict(kinds[0])
    return {key: value for key, value in schema.items() if key != "default" or value is not None}


def _responses(route: Route) -> dict[str, Any]:
    body = {"type": "object"} if route.answer is None else _ref(route.answer)
    content: dict[str, Any] = {JSON: {"schema": body}}
    if route.arrow_answer:
        content[ARROW] = {
            "schema": {
                "description": "when Accept asks for it: one batch with the columns query, id, distance, score, vector "
                "and the metadata's"
            }
        }
    responses: dict[str, Any] = {str(route.status): {"description": "done", "content": content}}
    for status, meaning in _ERRORS.items():
        responses[str(status)] = {"description": meaning, "content": {JSON: {"schema": _ref(ErrorBody)}}}
        if status == 429:
            responses["429"]["headers"] = {
                "Retry-After": {"schema": {"type": "integer"}, "description": "seconds to wait"}
            }
    return responses


def _health(path: str) -> dict[str, Any]:
    meaning = {
        "/healthz": "Whether the process answers and nothing in it has failed",
        "/readyz": "Whether it takes requests now",
        "/livez": "Whether it is alive",
    }
    operation = _plain(path[1:], meaning[path], "Health")
    operation["responses"]["503"] = {
        "description": "not now",
        "content": {JSON: {"schema": {"$ref": _REF.format(name="Health")}}},
    }
    return operation


def _plain(name: str, summary: str, answer: str) -> dict[str, Any]:
    content = {JSON: {"schema": {"$ref": _REF.format(name=answer)}}}
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["cluster"],
        "responses": {"200": {"description": "done", "content": content}},
    }


__all__ = ["openapi"]
