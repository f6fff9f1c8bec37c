"""The served document: whole, resolvable, and as strict as the code behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis

from omendb_common.inputs import INCLUDE
from omendb_router.rest.app import ROUTES
from tests.unit.faces.conftest import Faces
from tests.unit.faces.test_rest_routes import filled


@pytest.fixture
def document(faces: Faces) -> dict[str, Any]:
    found: dict[str, Any] = faces.rest("GET", "/openapi.json").json()
    return found


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from _nodes(child)
    elif isinstance(value, list):
        for child in value:
            yield from _nodes(child)


def test_every_route_stands_in_it_once(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    listed = [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]
    assert {(route.method, route.path) for route in ROUTES} < set(listed)
    names = [methods[method]["operationId"] for methods in document["paths"].values() for method in methods]
    assert len(names) == len(set(names))


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    used = {node["$ref"] for node in _nodes(document) if "$ref" in node}
    assert used and all(ref.removeprefix("#/components/schemas/") in schemas for ref in used)


def test_every_path_parameter_is_described(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            told = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert told == set(re.findall(r"{(\w+)}", path))


def test_names_are_those_of_the_python_api(document: dict[str, Any]) -> None:
    include = document["components"]["schemas"]["SearchBody"]["properties"]["include"]
    names = next(node["enum"] for node in _nodes(include) if "enum" in node)
    assert set(names) == set(INCLUDE)


def test_answers_are_as_the_document_says(faces: Faces, document: dict[str, Any]) -> None:
    filled(faces)
    asked = [
        ("GET", "/collections", "/collections", None),
        ("GET", "/collections/{name}", "/collections/c", None),
        ("POST", "/collections/{name}/search", "/collections/c/search", {"vectors": [[0, 0]], "include": ["vector"]}),
        ("POST", "/collections/{name}/search", "/collections/c/search", {"vector": [0]}),
        ("POST", "/collections/{name}/points/get", "/collections/c/points/get", {"ids": [1, 9]}),
        ("POST", "/collections/{name}/points/delete", "/collections/c/points/delete", {"ids": [1]}),
        ("POST", "/collections/{name}/scroll", "/collections/c/scroll", {}),
        ("GET", "/info", "/info", None),
        ("GET", "/readyz", "/readyz", None),
        ("GET", "/collections/{name}/points/{id}", "/collections/c/points/none", None),
    ]
    described = schemathesis.openapi.from_dict(document)
    for method, path, actual, body in asked:
        described[path][method].validate_response(faces.rest(method, actual, body))


def test_the_page_needs_no_other_host(faces: Faces) -> None:
    page = faces.rest("GET", "/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "/openapi.json" in page.text
    assert not re.search(r"https?://|src=|@import", page.text)


def test_the_document_is_the_same_each_time(faces: Faces) -> None:
    assert faces.rest("GET", "/openapi.json").content == faces.rest("GET", "/openapi.json").content
    json.loads(faces.rest("GET", "/openapi.json").content)
