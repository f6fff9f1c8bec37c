"""Every call of the gRPC service over a real connection: what it answers, and what it refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from omendb_common.deadline import Deadline
from omendb_common.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    OmenDBError,
    UnavailableError,
    VersionConflictError,
)
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows, rows_from_columns
from omendb_common.schema import check_collection_name
from omendb_common.wire import convert
from omendb_proto.v1 import common_pb2
from omendb_proto.v1 import router_pb2 as pb
from tests.unit.faces.conftest import Faces


@pytest.fixture
def faces(every_carrier: Faces) -> Faces:
    return every_carrier


def created(name: str = "c", dimension: int = 2, **more: Any) -> pb.CreateCollectionRequest:
    vectors = [pb.VectorFieldSpec(dimension=dimension)]
    return pb.CreateCollectionRequest(collection=pb.CollectionSpec(name=name, vectors=vectors, **more))


def upsert(rows: Any, ids: Any = None, metadata: Any = None, collection: str = "c", **more: Any) -> pb.UpsertRequest:
    matrix = np.array(rows, np.float32)
    return pb.UpsertRequest(
        collection=collection,
        vectors=[convert.vectors_to_proto(matrix)],
        ids=None if ids is None else convert.ids_to_proto(IdColumn.of(ids)),
        payload=None if metadata is None else convert.columns_to_proto(columns_from_rows(metadata)),
        **more,
    )


def search(queries: Any, k: int = 10, **more: Any) -> pb.SearchRequest:
    matrix = np.array(queries, np.float32)
    return pb.SearchRequest(collection="c", queries=matrix.tobytes(), dimension=matrix.shape[1], k=k, **more)


def filled(faces: Faces) -> None:
    faces.grpc("CreateCollection", created())
    metadata = [{"color": "red", "size": 1}, {"color": "blue", "size": 2}, {"size": 3}]
    faces.grpc("Upsert", upsert([[0, 0], [1, 0], [0, 3]], [1, 2, "three"], metadata))


def test_collections(faces: Faces) -> None:
    made = faces.grpc("CreateCollection", created("a", 3, options='{"index": "flat", "M": 8}')).collection
    assert (made.name, made.shards, made.replication, made.vectors[0].metric) == ("a", 1, 1, "l2")
    assert json.loads(made.options) == {"index": "flat", "M": 8} and made.uuid
    assert faces.grpc("GetCollection", pb.GetCollectionRequest(name="a")).collection == made
    renamed = faces.grpc("RenameCollection", pb.RenameCollectionRequest(name="a", new_name="b")).collection
    assert (renamed.name, renamed.uuid) == ("b", made.uuid)
    altered = faces.grpc("AlterCollection", pb.AlterCollectionRequest(name="b", replication=3)).collection
    assert (altered.replication, faces.router.altered) == (3, [("b", 3, None, None)])
    assert [c.name for c in faces.grpc("ListCollections").collections] == ["b"]
    faces.grpc("DropCollection", pb.DropCollectionRequest(name="b"))
    with pytest.raises(NotFoundError):
        faces.grpc("GetCollection", pb.GetCollectionRequest(name="b"))


def test_replicas_are_compared(faces: Faces) -> None:
    filled(faces)
    told = faces.grpc("Verify", pb.VerifyRequest(collection=created().collection.name))
    assert not told.equal and json.loads(told.shards)[0]["node_id"] == "d1"
    with pytest.raises(NotFoundError):
        faces.grpc("Verify", pb.VerifyRequest(collection="nowhere"))


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (pb.CollectionSpec(name="x"), "vectors"),
        (pb.CollectionSpec(name="-", vectors=[pb.VectorFieldSpec(dimension=2)]), "collection"),
        (pb.CollectionSpec(name="x", vectors=[pb.VectorFieldSpec()]), "dimension"),
        (pb.CollectionSpec(name="x", vectors=[pb.VectorFieldSpec(dimension=2, metric="angle")]), "metric"),
        (pb.CollectionSpec(name="x", vectors=[pb.VectorFieldSpec(dimension=2)] * 2), "vectors"),
        (
            pb.CollectionSpec(
                name="x", vectors=[pb.VectorFieldSpec(dimension=2), pb.VectorFieldSpec(dimension=2, name="a")]
            ),
            "collection",
        ),
        (pb.CollectionSpec(name="x", vectors=[pb.VectorFieldSpec(dimension=2)], options="{"), "options"),
        (pb.CollectionSpec(name="x", vectors=[pb.VectorFieldSpec(dimension=2)], options="[]"), "options"),
        (pb.CollectionSpec(name="x", vectors=[pb.VectorFieldSpec(dimension=2)], options='{"L": 1}'), "L"),
        (pb.CollectionSpec(name="x", vectors=[pb.VectorFieldSpec(dimension=2)], options='{"M": "8"}'), "hnsw_m"),
        (
            pb.CollectionSpec(
                name="x",
                vectors=[pb.VectorFieldSpec(dimension=2)],
                options='{"index": "hnsw", "quantization": "product"}',
            ),
            "quantization",
        ),
        (pb.CollectionSpec(name="x", vectors=[pb.VectorFieldSpec(dimension=2)], replication=9), "replication"),
    ],
)
def test_a_bad_collection_names_its_field(faces: Faces, spec: pb.CollectionSpec, field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        faces.grpc("CreateCollection", pb.CreateCollectionRequest(collection=spec))
    assert caught.value.field == field
    assert not faces.grpc("ListCollections").collections


def test_an_existing_collection_is_not_made_again(faces: Faces) -> None:
    faces.grpc("CreateCollection", created())
    with pytest.raises(AlreadyExistsError):
        faces.grpc("CreateCollection", created())


def test_writes(faces: Faces) -> None:
    faces.grpc("CreateCollection", created())
    automatic = faces.grpc("Upsert", upsert([[0, 0], [1, 1]]))
    assert convert.ids_from_proto(automatic.ids).to_list() == [0, 1]
    assert (automatic.count, automatic.durability, automatic.session) == (2, "os", b"token-of-the-test")
    assert automatic.stamp and automatic.lsn
    given = faces.grpc("Upsert", upsert([[5, 5]], ["a"], [{"x": 1, "y": "z"}], retry_stamp=77))
    assert not given.HasField("ids") and faces.router.retry_stamp == 77
    with pytest.raises(AlreadyExistsError):
        faces.grpc("Upsert", upsert([[5, 5]], ["a"], create_only=True))
    change = pb.UpdateRequest(
        collection="c",
        ids=common_pb2.Ids(strings=common_pb2.StringIds(values=["a"])),
        payload=convert.columns_to_proto(columns_from_rows([{"x": 2}])),
        unset=["y"],
    )
    assert faces.grpc("Update", change).count == 1
    got = faces.grpc("Get", pb.GetRequest(collection="c", ids=change.ids, with_payload=True))
    assert rows_from_columns(convert.columns_from_proto(got.payload) or {}) == [{"x": 2}]
    change.ids.CopyFrom(convert.ids_to_proto(IdColumn.of([99])))
    with pytest.raises(NotFoundError):
        faces.grpc("Update", change)
    assert faces.grpc("Delete", pb.DeleteRequest(collection="c", filter='{"x": 2}')).count == 1
    two = convert.ids_to_proto(IdColumn.of([0, 55]))
    assert faces.grpc("Delete", pb.DeleteRequest(collection="c", ids=two)).count == 1
    assert faces.grpc("Count", pb.CountRequest(collection="c")).count == 1


def test_a_write_may_demand_versions(faces: Faces) -> None:
    faces.grpc("CreateCollection", created())
    faces.grpc("Upsert", upsert([[5, 5]], ["a"], [{"x": 1}]))
    ids = convert.ids_to_proto(IdColumn.of(["a"]))

    def seen() -> pb.IfVersions:
        got = faces.grpc("Get", pb.GetRequest(collection="c", ids=ids))
        page = faces.grpc("Scroll", pb.ScrollRequest(collection="c", limit=9))
        assert len(got.versions) == 8 and got.versions == page.versions
        return pb.IfVersions(collection="c", versions=got.versions)

    writes: list[tuple[str, Callable[[], Any]]] = [
        ("Upsert", lambda: upsert([[6, 6]], ["a"], collection="", if_versions=seen())),
        ("Update", lambda: pb.UpdateRequest(ids=ids, unset=["x"], if_versions=seen())),
        ("Delete", lambda: pb.DeleteRequest(ids=ids, if_versions=seen())),
    ]
    for method, make in writes:
        request = make()
        assert faces.grpc(method, request).count == 1
        with pytest.raises(VersionConflictError) as refused:
            faces.grpc(method, request)
        assert list(refused.value.found) == ["a"]
    for collection, versions, says in (
        ("", b"x", "8 per point"),
        ("", b"", "one for each"),
        ("c", bytes(8), "got two"),
    ):
        demanded = pb.IfVersions(collection="c", versions=versions)
        with pytest.raises(InvalidArgumentError, match=says):
            faces.grpc("Upsert", upsert([[6, 6]], ["a"], collection=collection, if_versions=demanded))
    with pytest.raises(InvalidArgumentError, match="got a filter"):
        faces.grpc("Delete", pb.DeleteRequest(filter='{"x": 1}', if_versions=pb.IfVersions(collection="c")))


def test_a_release_that_knows_no_versions_refuses_to_write() -> None:
    """It looks for the collection where a conditional write has none: nothing is done that nobody asked for."""
    request = upsert([[6, 6]], ["a"], collection="", if_versions=pb.IfVersions(collection="c", versions=bytes(8)))
    with pytest.raises(InvalidArgumentError):
        check_collection_name(request.collection)


_TWO = convert.vectors_to_proto(np.zeros((1, 2), np.float32))
_ONE_ID = common_pb2.Ids(packed=bytes(8))


def _columns(name: str, values: Any) -> common_pb2.Columns:
    return convert.columns_to_proto(pa.record_batch({name: values}))


def _text(*values: str) -> Any:
    return pa.array(list(values), pa.string())


@pytest.mark.parametrize(
    ("name", "message", "field"),
    [
        ("Upsert", pb.UpsertRequest(collection="c"), "vectors"),
        ("Upsert", pb.UpsertRequest(collection="c", vectors=[_TWO, _TWO]), "vectors"),
        (
            "Upsert",
            pb.UpsertRequest(
                collection="c", vectors=[common_pb2.Vectors(dtype="float32", dimension=3, data=bytes(12))]
            ),
            "vectors",
        ),
        (
            "Upsert",
            pb.UpsertRequest(collection="c", vectors=[common_pb2.Vectors(dtype="float32", dimension=2, data=b"123")]),
            "vectors",
        ),
        (
            "Upsert",
            pb.UpsertRequest(
                collection="c", vectors=[common_pb2.Vectors(dtype="float32", dimension=2, data=b"\xff" * 8)]
            ),
            "vectors",
        ),
        ("Upsert", pb.UpsertRequest(collection="c", vectors=[_TWO], ids=common_pb2.Ids(packed=bytes(16))), "ids"),
        ("Upsert", pb.UpsertRequest(collection="c", vectors=[_TWO], ids=common_pb2.Ids(packed=b"1")), "ids"),
        ("Upsert", pb.UpsertRequest(collection="c", vectors=[_TWO], ids=common_pb2.Ids(arrow=b"123456")), "ids"),
        (
            "Upsert",
            pb.UpsertRequest(collection="c", vectors=[_TWO], payload=common_pb2.Columns(arrow_ipc=b"x")),
            "metadata",
        ),
        ("Upsert", pb.UpsertRequest(collection="c", vectors=[_TWO], payload=_columns("a", _text("x"))), "metadata"),
        ("Upsert", pb.UpsertRequest(collection="c", vectors=[_TWO], payload=_columns("a#i", _text("x"))), "metadata"),
        (
            "Upsert",
            pb.UpsertRequest(collection="c", vectors=[_TWO], payload=_columns("a#s", _text("x", "y"))),
            "metadata",
        ),
        ("Upsert", pb.UpsertRequest(collection="c", vectors=[_TWO], payload=_columns("a#j", _text("{"))), "metadata"),
        (
            "Upsert",
            pb.UpsertRequest(collection="c", vectors=[_TWO], payload=_columns("a.b" * 200 + "#s", _text("x"))),
            "metadata",
        ),
        ("Update", pb.UpdateRequest(collection="c", ids=_ONE_ID), "vectors, metadata, unset"),
        ("Update", pb.UpdateRequest(collection="c", unset=["a"]), "ids"),
        ("Update", pb.UpdateRequest(collection="c", ids=_ONE_ID, unset=[""]), "unset"),
        ("Update", pb.UpdateRequest(collection="c", ids=common_pb2.Ids(packed=bytes(16)), vectors=[_TWO]), "vectors"),
        ("Delete", pb.DeleteRequest(collection="c"), "ids, filters"),
        ("Delete", pb.DeleteRequest(collection="c", filter="{}"), "filters"),
        ("Delete", pb.DeleteRequest(collection="c", filter="[]"), "filters"),
        ("Search", search([[0, 0]], 0), "k"),
        ("Search", search([[0, 0, 0]]), "queries"),
        ("Search", pb.SearchRequest(collection="c", queries=b"12345", dimension=2, k=1), "queries"),
        ("Search", search([[float("nan"), 0]]), "queries"),
        ("Search", search([[0, 0]], ef=0), "ef"),
        ("Search", search([[0, 0]], recall_target=float("nan")), "recall_target"),
        ("Search", search([[0, 0]], score_threshold=float("inf")), "score_threshold"),
        ("Search", search([[0, 0]], filter="{"), "filters"),
        ("Search", search([[0, 0]], field="title"), "vector"),
        ("Search", search([[0, 0]], consistency=pb.CONSISTENCY_SESSION), "session"),
        ("Search", search([[0, 0]], consistency=9), "consistency"),
        ("Get", pb.GetRequest(collection="c", ids=common_pb2.Ids(packed=b"1")), "ids"),
        ("Scroll", pb.ScrollRequest(collection="c"), "limit"),
        ("Scroll", pb.ScrollRequest(collection="c", limit=1, cursor="nonsense"), "cursor"),
        ("Count", pb.CountRequest(collection="c", filter='{"a": NaN}'), "filters"),
        ("WaitUntilIndexed", pb.WaitUntilIndexedRequest(collection="c", timeout_s=float("nan")), "timeout"),
        ("Count", pb.CountRequest(collection=""), "collection"),
        ("Stats", pb.StatsRequest(collection="a/b"), "collection"),
    ],
)
def test_a_bad_call_names_its_field(faces: Faces, name: str, message: Any, field: str) -> None:
    faces.grpc("CreateCollection", created())
    with pytest.raises(InvalidArgumentError) as caught:
        faces.grpc(name, message)
    assert caught.value.field == field
    assert faces.grpc("Count", pb.CountRequest(collection="c")).count == 0


def test_a_search_of_several_queries_comes_back_flat(faces: Faces) -> None:
    filled(faces)
    asked = search([[0, 0], [0, 3]], 2, with_payload=True, with_vectors=True, filter='{"size": {"$lte": 3}}')
    answer = faces.grpc("Search", asked)
    assert np.frombuffer(answer.counts, "<u4").tolist() == [2, 2]
    assert np.frombuffer(answer.distances, "<f4").tolist() == [0.0, 1.0, 0.0, 3.0]
    assert convert.ids_from_proto(answer.ids).to_list() == [1, 2, "three", 1]
    rows = rows_from_columns(convert.columns_from_proto(answer.payload) or {})
    assert rows == [{"color": "red", "size": 1}, {"color": "blue", "size": 2}, {"size": 3}, {"color": "red", "size": 1}]
    assert convert.vectors_from_proto(answer.vectors).tolist() == [[0, 0], [1, 0], [0, 3], [0, 0]]
    assert answer.performance.vectors_scanned == 6 and not answer.stale_possible
    bare = faces.grpc("Search", search([[9, 9]], 1))
    assert not bare.HasField("payload") and not bare.HasField("vectors")
    none = faces.grpc("Search", search(np.empty((0, 2)), 1))
    assert none.counts == b""


def test_a_search_leaves_out_what_the_threshold_refuses(faces: Faces) -> None:
    filled(faces)
    answer = faces.grpc("Search", search([[0, 0], [50, 50]], 3, score_threshold=0.4))
    assert np.frombuffer(answer.counts, "<u4").tolist() == [2, 0]
    assert np.frombuffer(answer.distances, "<f4").tolist() == [0.0, 1.0]


def test_points_are_read_by_id_and_page_by_page(faces: Faces) -> None:
    filled(faces)
    ids = convert.ids_to_proto(IdColumn.of(["three", 7, 1]))
    got = faces.grpc("Get", pb.GetRequest(collection="c", ids=ids, with_vectors=True, consistency=pb.CONSISTENCY_ONE))
    assert np.frombuffer(got.positions, "<u4").tolist() == [0, 2]
    assert convert.ids_from_proto(got.ids).to_list() == ["three", 1]
    assert convert.vectors_from_proto(got.vectors[0]).tolist() == [[0, 3], [0, 0]]
    assert faces.router.seen is not None and faces.router.seen.consistency == "one"
    seen, cursor = [], ""
    while True:
        page = faces.grpc("Scroll", pb.ScrollRequest(collection="c", limit=2, cursor=cursor, with_payload=True))
        seen += convert.ids_from_proto(page.ids).to_list()
        cursor = page.cursor
        if not cursor:
            break
    assert sorted(map(str, seen)) == ["1", "2", "three"]
    assert faces.grpc("Count", pb.CountRequest(collection="c", filter='{"color": "red"}')).count == 1


def test_care_is_taken(faces: Faces) -> None:
    filled(faces)
    faces.grpc("Flush", pb.FlushRequest(collection="c"))
    faces.grpc("Compact", pb.CompactRequest(collection="c"))
    assert faces.grpc("WaitUntilIndexed", pb.WaitUntilIndexedRequest(collection="c", timeout_s=1)).indexed
    assert json.loads(faces.grpc("Stats", pb.StatsRequest(collection="c")).stats)["points"] == 3
    assert json.loads(faces.grpc("ClusterStatus").status) == {"cluster_id": "test"}
    info = faces.grpc("ServerInfo")
    assert (info.version, info.kind, info.location) == ("1.2.3", "server", "/a/folder")
    assert info.message_bytes_max == 1 << 20


def test_what_is_no_message_is_refused_with_words(faces: Faces) -> None:
    with pytest.raises(InvalidArgumentError, match="not a SearchRequest"):
        faces.grpc_bytes("Search", b"\xff\xff\xff")
    with pytest.raises(OmenDBError):
        faces.grpc_bytes("NoSuchCall", b"")


def test_the_calls_deadline_is_the_routers(faces: Faces) -> None:
    filled(faces)
    faces.grpc("Count", pb.CountRequest(collection="c"), timeout=5)
    assert faces.router.deadline is not None and 3 < faces.router.deadline.left_s <= 5.1
    faces.grpc("Count", pb.CountRequest(collection="c"), timeout=None)
    assert 25 < faces.router.deadline.left_s <= 30.1


@pytest.mark.parametrize("timeout", [0.3, 3.0])
def test_a_router_that_uses_up_its_time_is_heard_in_time(
    faces: Faces, monkeypatch: pytest.MonkeyPatch, timeout: float
) -> None:
    async def wait(deadline: Deadline) -> dict[str, Any]:
        while not deadline.passed:
            await asyncio.sleep(deadline.left_s)
        raise UnavailableError("1 of 2", acked=1, required=2, stamp=77, outcome="unknown")

    monkeypatch.setattr(faces.router, "cluster_status", wait, raising=False)
    faces.grpc("ServerInfo")
    with pytest.raises(UnavailableError) as caught:
        faces.grpc("ClusterStatus", timeout=timeout)
    assert (caught.value.acked, caught.value.required, caught.value.stamp) == (1, 2, 77)


def test_calls_are_observed_by_name_and_status(faces: Faces) -> None:
    faces.grpc("ListCollections")
    with pytest.raises(NotFoundError):
        faces.grpc("Count", pb.CountRequest(collection="none"))
    assert faces.observed == [("ListCollections", "OK"), ("Count", "NOT_FOUND")]
