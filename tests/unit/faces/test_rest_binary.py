"""Vectors as raw bytes and as Arrow streams, in and out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.faces.conftest import Faces
from tests.unit.faces.test_rest_routes import refused

OCTETS = {"content-type": "application/octet-stream"}
ARROW_TYPE = "application/vnd.apache.arrow.stream"
ARROW = {"content-type": ARROW_TYPE}


def stream(table: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table) if isinstance(table, pa.Table) else writer.write_batch(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def points(**more: Any) -> pa.Table:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6, dtype=np.float32)), 2)
    return pa.table({"id": ["a", "b", "c"], "vector": vectors, "size": [1, 2, 3], **more})


def test_raw_vectors_are_stored_and_searched(faces: Faces) -> None:
    faces.make()
    rows = np.array([[0, 0], [3, 4], [6, 8]], "<f4")
    stored = faces.rest("POST", "/collections/c/points", content=rows.tobytes(), headers=OCTETS)
    assert stored.json()["ids"] == [0, 1, 2]
    path = "/collections/c/search?k=2&include=distance&filters=%7B%7D&exact=true"
    found = faces.rest("POST", path, content=rows[:2].tobytes(), headers=OCTETS).json()
    assert [result["hits"] for result in found["results"]] == [
        [{"id": 0, "distance": 0.0}, {"id": 1, "distance": 5.0}],
        [{"id": 1, "distance": 0.0}, {"id": 0, "distance": 5.0}],
    ]


def test_raw_vectors_are_of_the_fields_own_type(faces: Faces) -> None:
    spec = {"name": "n", "vectors": {"small": {"dimension": 3, "dtype": "int8"}}}
    assert faces.rest("POST", "/collections", spec).status_code == 201
    path = "/collections/n/points?field=small"
    assert faces.rest("POST", path, content=bytes([1, 2, 255]), headers=OCTETS).json()["written"] == 1
    assert faces.rest("GET", "/collections/n/points/0?include=vector").json()["vectors"] == {"small": [1, 2, -1]}


def test_an_arrow_stream_brings_ids_vectors_and_metadata(faces: Faces) -> None:
    faces.make()
    stored = faces.rest("POST", "/collections/c/points", content=stream(points()), headers=ARROW)
    assert stored.json()["ids"] == ["a", "b", "c"]
    point = faces.rest("GET", "/collections/c/points/b?include=vector,metadata").json()
    assert int(point.pop("version")) > 0
    assert point == {"id": "b", "metadata": {"size": 2}, "vector": [2.0, 3.0]}
    again = faces.rest("POST", "/collections/c/points?create_only=true", content=stream(points()), headers=ARROW)
    refused(again, 409, "AlreadyExistsError", "ids")
    renamed = points().rename_columns(["key", "v", "size"])
    path = "/collections/c/points?id_column=key&vector_column=v"
    assert faces.rest("POST", path, content=stream(renamed), headers=ARROW).json()["written"] == 3


def test_an_answer_may_be_an_arrow_stream(faces: Faces) -> None:
    faces.make()
    color = pa.array(["red", None, "blue"])
    table = points(color=color, distance=pa.array([7, 7, 7]))
    faces.rest("POST", "/collections/c/points", content=stream(table), headers=ARROW)
    body = {"vectors": [[0, 1], [4, 5]], "k": 2, "include": ["distance", "score", "metadata", "vector"]}
    answer = faces.rest("POST", "/collections/c/search", body, headers={"accept": ARROW_TYPE})
    assert answer.headers["content-type"] == ARROW_TYPE
    found = pa.ipc.open_stream(answer.content).read_all()
    assert found.column("query").to_pylist() == [0, 0, 1, 1]
    assert found.column("id").to_pylist() == ["a", "b", "c", "b"]
    assert found.column("distance").to_pylist()[0] == 0.0 and found.column("score").to_pylist()[0] == 1.0
    assert found.column("metadata.distance").to_pylist() == [7] * 4
    assert found.column("color").to_pylist() == ["red", None, "blue", None]
    assert found.column("vector").to_pylist()[2] == [4.0, 5.0]
    bare = faces.rest("POST", "/collections/c/search", {**body, "include": []}, headers={"accept": ARROW_TYPE})
    assert pa.ipc.open_stream(bare.content).read_all().column_names == ["query", "id"]


def test_ids_of_both_kinds_are_text_in_a_stream(faces: Faces) -> None:
    faces.make()
    faces.rest("POST", "/collections/c/points", {"ids": [1, "x"], "vectors": [[0, 0], [0, 1]]})
    answer = faces.rest("POST", "/collections/c/search", {"vector": [0, 0]}, headers={"accept": ARROW_TYPE})
    assert pa.ipc.open_stream(answer.content).read_all().column("id").to_pylist() == ["1", "x"]


@pytest.mark.parametrize(
    ("path", "content", "headers", "field"),
    [
        ("points", b"1234567", OCTETS, "body"),
        ("points", b"", OCTETS, "vectors"),
        ("points", b"\xff" * 8, OCTETS, "vectors"),
        ("points?field=title", b"12345678", OCTETS, "vector"),
        ("points?k=3", b"12345678", OCTETS, "query"),
        ("points", b"12345678", ARROW, "body"),
        ("points", stream(points())[:-40], ARROW, "body"),
        ("points?vector_column=v", stream(points()), ARROW, "vectors"),
        ("points?retry_stamp=x", stream(points()), ARROW, "retry_stamp"),
        ("search", b"1234567", OCTETS, "body"),
        ("search?k=0", b"12345678", OCTETS, "k"),
        ("search?k=x", b"12345678", OCTETS, "k"),
        ("search?include=payload", b"12345678", OCTETS, "include"),
        ("search?filters=x", b"12345678", OCTETS, "filters"),
        ("search?exact=maybe", b"12345678", OCTETS, "exact"),
        ("search?consistency=all", b"12345678", OCTETS, "consistency"),
        ("search", b"\x00\x00\xc0\x7f" * 2, OCTETS, "vectors"),
        ("search", stream(points()), ARROW, "Content-Type"),
    ],
)
def test_a_bad_body_names_its_field(faces: Faces, path: str, content: bytes, headers: Any, field: str) -> None:
    faces.make()
    answer = faces.rest("POST", f"/collections/c/{path}", content=content, headers=headers)
    refused(answer, 400, "InvalidArgumentError", field)
    assert faces.rest("POST", "/collections/c/count").json() == {"count": 0}
