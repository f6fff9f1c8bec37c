"""Both faces tell the same error: whatever the router raises, a client of either gets it whole."""

from __future__ import annotations

from typing import Any

import pytest

from omendb_common import errors
from omendb_common.errors import OmenDBError
from omendb_common.wire import status
from omendb_proto.v1 import router_pb2 as pb
from tests.unit.faces.conftest import Faces


@pytest.fixture
def faces(every_carrier: Faces) -> Faces:
    return every_carrier


TOLD: list[OmenDBError] = [
    errors.InvalidArgumentError("bad", field="k", bound="1..9", mend="ask for less"),
    errors.FormatVersionError("too new"),
    errors.UnauthenticatedError("who"),
    errors.PermissionDeniedError("no"),
    errors.ReadOnlyError("read only", field="mode"),
    errors.NotFoundError("gone", field="ids"),
    errors.AlreadyExistsError("there", field="name"),
    errors.ResourceExhaustedError("full", retry_after=2.5),
    errors.DiskFullError("disk"),
    errors.UnavailableError("no quorum", outcome="unknown"),
    errors.UnavailableError("no quorum", outcome="none"),
    errors.ReplicaFailedError("failed", outcome="unknown"),
    errors.DatabaseLockedError("locked", pid=42),
    errors.DeadlineExceededError("late"),
    errors.CorruptionError("rotten", path="a/b", offset=7),
    errors.OmenDBError("whatever"),
]


def _parts(error: OmenDBError) -> dict[str, Any]:
    return {"class": type(error), **vars(error)}


@pytest.mark.parametrize("error", TOLD, ids=lambda e: f"{type(e).__name__}-{getattr(e, 'outcome', '')}")
def test_an_error_comes_whole_over_both_faces(faces: Faces, error: OmenDBError) -> None:
    faces.make()
    faces.router.fail = error
    answer = faces.rest("POST", "/collections/c/count")
    assert answer.status_code == error.http_status
    assert _parts(status.from_json(answer.json(), answer.status_code)) == _parts(error)
    faces.router.fail = error
    with pytest.raises(OmenDBError) as caught:
        faces.grpc("Count", pb.CountRequest(collection="c"))
    assert _parts(caught.value) == _parts(error)


def test_a_wait_is_told_in_the_header_too(faces: Faces) -> None:
    faces.make()
    faces.router.fail = errors.ResourceExhaustedError("full", retry_after=2.5)
    assert faces.rest("POST", "/collections/c/count").headers["retry-after"] == "3"


def test_a_bug_says_nothing_of_itself(faces: Faces, caplog: pytest.LogCaptureFixture) -> None:
    faces.make()
    faces.router.fail = ZeroDivisionError("a secret path")
    answer = faces.rest("POST", "/collections/c/count")
    assert answer.status_code == 500 and "secret" not in answer.text and "Zero" not in answer.text
    faces.router.fail = ZeroDivisionError("a secret path")
    with pytest.raises(OmenDBError) as caught:
        faces.grpc("Count", pb.CountRequest(collection="c"))
    assert (type(caught.value), caught.value.message) == (OmenDBError, "internal error")
    assert answer.json()["error"]["message"] == "internal error"
    assert caplog.text.count("a secret path") == 2


@pytest.mark.parametrize(
    ("rest", "grpc"),
    [
        (("POST", "/collections/none/count", {}), ("Count", pb.CountRequest(collection="none"))),
        (("GET", "/collections/none", None), ("GetCollection", pb.GetCollectionRequest(name="none"))),
        (("POST", "/collections/-/count", {}), ("Count", pb.CountRequest(collection="-"))),
        (
            ("POST", "/collections/c/count", {"filters": {"a": {"$no": 1}}}),
            ("Count", pb.CountRequest(collection="c", filter='{"a": {"$no": 1}}')),
        ),
        (
            ("POST", "/collections/none/explain", {"vector": [1.0]}),
            ("Explain", pb.ExplainRequest(search=pb.SearchRequest(collection="none", k=10))),
        ),
        (
            ("POST", "/collections/c/scroll", {"limit": 0}),
            ("Scroll", pb.ScrollRequest(collection="c", limit=0)),
        ),
        (
            ("POST", "/collections/c/points/delete", {"filters": {}}),
            ("Delete", pb.DeleteRequest(collection="c", filter="{}")),
        ),
        (
            ("POST", "/collections", {"name": "c", "dimension": 2}),
            (
                "CreateCollection",
                pb.CreateCollectionRequest(
                    collection=pb.CollectionSpec(name="c", vectors=[pb.VectorFieldSpec(dimension=2)])
                ),
            ),
        ),
    ],
)
def test_the_same_mistake_is_the_same_error(faces: Faces, rest: tuple[str, str, Any], grpc: tuple[str, Any]) -> None:
    faces.make()
    answer = faces.rest(*rest)
    with pytest.raises(OmenDBError) as caught:
        faces.grpc(*grpc)
    assert _parts(status.from_json(answer.json(), answer.status_code)) == _parts(caught.value)
