"""Each limit of the faces at its last good value, and one beyond."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.errors import InvalidArgumentError, OmenDBError, ResourceExhaustedError
from omendb_common.ids import IdColumn
from omendb_common.new_schema import VECTOR_FIELDS_MAX
from omendb_common.schema import (
    COLLECTION_NAME_MAX,
    DIMENSION_MAX,
    ID_BYTES_MAX,
    K_MAX,
    SCROLL_LIMIT_MAX,
    CollectionSchema,
    VectorField,
)
from omendb_common.wire import convert
from omendb_common.wire.status import from_json
from omendb_proto.v1 import router_pb2 as pb
from omendb_router import face_inputs
from omendb_router.config import FaceSettings
from omendb_router.face_inputs import checked_question, checked_seen
from omendb_router.rest.calls import BodyBudget
from omendb_router.sessions import TOKEN_BYTES_MAX
from tests.unit.faces.conftest import Faces


@pytest.fixture
def faces(every_carrier: Faces) -> Faces:
    return every_carrier


def outcome(answer: Any) -> tuple[int, str | None]:
    """Status, and the field of the error."""
    if answer.status_code < 400:
        return answer.status_code, None
    error = from_json(answer.json(), answer.status_code)
    return answer.status_code, error.field


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"k": K_MAX}, None),
        ({"k": K_MAX + 1}, "k"),
        ({"k": 1}, None),
        ({"k": 0}, "k"),
        ({"ef": 65_536}, None),
        ({"ef": 65_537}, "ef"),
        ({"recall_target": 1.0}, None),
        ({"recall_target": 1.0000001}, "recall_target"),
        ({"recall_target": 0.0}, "recall_target"),
        ({"session": "x" * TOKEN_BYTES_MAX}, None),
        ({"session": "x" * (TOKEN_BYTES_MAX + 1)}, "session"),
    ],
)
def test_of_a_search(faces: Faces, body: dict[str, Any], field: str | None) -> None:
    faces.make()
    answer = faces.rest("POST", "/collections/c/search", {"vector": [0, 0], **body})
    assert outcome(answer) == ((200, None) if field is None else (400, field))
    message = pb.SearchRequest(collection="c", queries=bytes(8), dimension=2, **{"k": 10, **_as_proto(body)})
    if field is None:
        faces.grpc("Search", message)
    else:
        with pytest.raises(InvalidArgumentError) as caught:
            faces.grpc("Search", message)
        assert caught.value.field == field


def _as_proto(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value.encode() if name == "session" else value for name, value in body.items()}


@pytest.mark.parametrize(
    ("limit", "good"), [(1, True), (0, False), (SCROLL_LIMIT_MAX, True), (SCROLL_LIMIT_MAX + 1, False)]
)
def test_of_a_page(faces: Faces, limit: int, good: bool) -> None:
    faces.make()
    answer = faces.rest("POST", "/collections/c/scroll", {"limit": limit})
    assert outcome(answer) == ((200, None) if good else (400, "limit"))


def test_of_the_ids_of_one_get(faces: Faces) -> None:
    faces.make()
    path = "/collections/c/points/get"
    assert len(faces.rest("POST", path, {"ids": [1] * SCROLL_LIMIT_MAX}).json()["points"]) == SCROLL_LIMIT_MAX
    assert outcome(faces.rest("POST", path, {"ids": [1] * (SCROLL_LIMIT_MAX + 1)})) == (400, "ids")


def test_of_names_and_ids(faces: Faces) -> None:
    for size, status in ((COLLECTION_NAME_MAX, 201), (COLLECTION_NAME_MAX + 1, 400)):
        answer = faces.rest("POST", "/collections", {"name": "n" * size, "dimension": 1})
        assert answer.status_code == status
    faces.make()
    for size, wanted in ((ID_BYTES_MAX, (200, None)), (ID_BYTES_MAX + 1, (400, "ids"))):
        body = {"ids": ["é" * (size // 2) + "x" * (size % 2)], "vectors": [[1, 2]]}
        assert outcome(faces.rest("POST", "/collections/c/points", body)) == wanted
    for number, wanted in (((1 << 64) - 1, (200, None)), (1 << 64, (400, "ids"))):
        assert outcome(faces.rest("POST", "/collections/c/points", {"ids": [number], "vectors": [[1, 2]]})) == wanted


def test_of_dimensions_and_fields(faces: Faces) -> None:
    for dimension, wanted in ((DIMENSION_MAX, (201, None)), (DIMENSION_MAX + 1, (400, "dimension"))):
        answer = faces.rest("POST", "/collections", {"name": f"d{dimension}", "dimension": dimension})
        assert outcome(answer) == wanted
    for count, wanted in ((VECTOR_FIELDS_MAX, (201, None)), (VECTOR_FIELDS_MAX + 1, (400, "vectors"))):
        vectors = {f"v{i}": {"dimension": 1} for i in range(count)}
        assert outcome(faces.rest("POST", "/collections", {"name": f"f{count}", "vectors": vectors})) == wanted
        specs = [pb.VectorFieldSpec(name=name, dimension=1) for name in vectors]
        message = pb.CreateCollectionRequest(collection=pb.CollectionSpec(name=f"g{count}", vectors=specs))
        if wanted[1] is None:
            faces.grpc("CreateCollection", message)
        else:
            with pytest.raises(InvalidArgumentError):
                faces.grpc("CreateCollection", message)


def test_of_a_rest_body(faces: Faces) -> None:
    """The harness takes 1 MiB: the rest is one JSON string of spaces before the object."""
    faces.make()
    body = b'{"vector": [0, 0]}'
    for size, wanted in ((1 << 20, (200, None)), ((1 << 20) + 1, (400, "body"))):
        answer = faces.rest("POST", "/collections/c/search", content=b" " * (size - len(body)) + body)
        assert outcome(answer) == wanted

    async def in_parts() -> Any:
        for _ in range(17):
            yield b" " * (1 << 16)

    assert outcome(faces.rest("POST", "/collections/c/search", content=in_parts())) == (400, "body")
    assert faces.rest_face.bodies_bytes == 0


def test_of_a_grpc_message(faces: Faces) -> None:
    faces.make()
    empty = len(pb.CountRequest(collection="c", session=b"x" * 4000).SerializeToString())
    for size, good in ((1 << 20, True), ((1 << 20) + 1, False)):
        filler = pb.CountRequest(collection="c", filter=" " * (size - empty - 4), session=b"x" * 4000)
        data = filler.SerializeToString()
        assert len(data) == size
        with pytest.raises(InvalidArgumentError) as caught:
            faces.grpc_bytes("Count", data)
        assert caught.value.field == ("filters" if good else "body")
    with pytest.raises(OmenDBError):
        faces.grpc_bytes("Count", bytes(16 << 20))


def test_of_a_grpc_answer(faces: Faces) -> None:
    faces.make("c", 256)
    rows = np.zeros((1023, 256), np.float32)
    faces.run(faces.router.upsert("c", None, {"": rows}, None, len(rows), deadline=Deadline.after(SystemClock(), 60)))
    page = pb.ScrollRequest(collection="c", limit=1000, with_vectors=True)
    assert len(faces.grpc("Scroll", page).vectors[0].data) == 1000 * 1024
    page.limit = 1023
    with pytest.raises(InvalidArgumentError) as caught:
        faces.grpc("Scroll", page)
    assert caught.value.field == "answer"


def test_of_the_hits_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_inputs, "HITS_PER_CALL_MAX", 100)
    schema = CollectionSchema("", (VectorField(2),))
    queries = np.zeros((10, 2), np.float32)
    assert checked_question(schema, queries, k=10).k == 10
    with pytest.raises(InvalidArgumentError, match="110 hits"):
        checked_question(schema, queries, k=11)


def test_of_a_token() -> None:
    assert checked_seen(None, b"x" * TOKEN_BYTES_MAX).session
    with pytest.raises(InvalidArgumentError):
        checked_seen(None, b"x" * (TOKEN_BYTES_MAX + 1))


def test_of_all_bodies_together() -> None:
    budget = BodyBudget(100)
    budget.take(100)
    with pytest.raises(ResourceExhaustedError):
        budget.take(1)
    budget.give(1)
    budget.take(1)
    assert budget.used == 100


def test_ids_of_a_delete_are_bounded_by_the_body_alone(faces: Faces) -> None:
    faces.make()
    ids = convert.ids_to_proto(IdColumn(np.arange(100_000, dtype=np.uint64), None))
    assert faces.grpc("Delete", pb.DeleteRequest(collection="c", ids=ids)).count == 0


@pytest.mark.parametrize("name", ["body_bytes_max", "timeout_s", "connections_max", "drain_s"])
def test_of_the_settings(name: str) -> None:
    field = next(f for f in dataclasses.fields(FaceSettings) if f.name == name)
    low, high = field.metadata["low"], field.metadata["high"]
    for value in (low, high):
        FaceSettings(**{name: value})
    for value in (low - 1, high + 1):
        with pytest.raises(InvalidArgumentError):
            FaceSettings(**{name: value})
