"""Every REST route: what it answers, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from omendb_common.errors import DeadlineExceededError
from omendb_router.face_calls import Seen
from tests.unit.faces.conftest import Faces

ERROR_KEYS = {"class", "code", "message"}


def refused(answer: Any, status: int, kind: str, field: str | None = None) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["class"] == kind
    assert error.keys() >= ERROR_KEYS
    assert field is None or error["field"] == field
    return error


def filled(faces: Faces) -> None:
    faces.make()
    body = {
        "ids": [1, 2, "three"],
        "vectors": [[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]],
        "metadata": {"color": ["red", "blue", None], "size": [1, 2, 3]},
    }
    assert faces.rest("POST", "/collections/c/points", body).status_code == 200


# -- collections


def test_collections_are_made_listed_described_renamed_and_dropped(faces: Faces) -> None:
    made = faces.rest("POST", "/collections", {"name": "a", "dimension": 3, "metric": "cosine", "index": "flat"})
    assert made.status_code == 201
    assert made.json()["vectors"] == [{"name": "", "dimension": 3, "metric": "cosine", "dtype": "float32"}]
    assert made.json()["options"] == {"index": "flat"}
    named = {"name": "b", "vectors": {"title": {"dimension": 2}, "body": {"dimension": 4, "dtype": "int8"}}}
    assert faces.rest("PUT", "/collections", named).status_code == 201
    assert [c["name"] for c in faces.rest("GET", "/collections").json()["collections"]] == ["a", "b"]
    assert faces.rest("GET", "/collections/a").json()["uuid"] == made.json()["uuid"]
    assert faces.rest("POST", "/collections/a/rename", {"new_name": "z"}).json()["name"] == "z"
    refused(faces.rest("GET", "/collections/a"), 404, "NotFoundError")
    assert faces.rest("DELETE", "/collections/z").json() == {"done": True}
    refused(faces.rest("DELETE", "/collections/z"), 404, "NotFoundError")


def test_replication_and_quorums_are_asked_for_in_their_bounds(faces: Faces) -> None:
    faces.make("a")
    told = faces.rest("PATCH", "/collections/a", {"replication": 3, "read_quorum": 1})
    assert (told.status_code, told.json()["replication"]) == (200, 3)
    assert faces.router.altered == [("a", 3, None, 1)]
    refused(faces.rest("PATCH", "/collections/b", {"replication": 3}), 404, "NotFoundError")
    for wrong in ({"replication": 8}, {"write_quorum": 0}, {"shards": 2}, {"read_quorum": "all"}):
        refused(faces.rest("PATCH", "/collections/a", wrong), 400, "InvalidArgumentError")


def test_create_says_what_is_wrong(faces: Faces) -> None:
    faces.make("taken")
    cases: list[tuple[dict[str, Any], int, str, str]] = [
        ({"name": "taken", "dimension": 2}, 409, "AlreadyExistsError", "collection"),
        ({"name": "taken", "dimension": 3, "if_not_exists": True}, 409, "AlreadyExistsError", "name"),
        ({"name": "-bad", "dimension": 2}, 400, "InvalidArgumentError", "collection"),
        ({"name": "a\n", "dimension": 2}, 400, "InvalidArgumentError", "collection"),
        ({"name": "x"}, 400, "InvalidArgumentError", "dimension, vectors"),
        (
            {"name": "x", "dimension": 2, "vectors": {"a": {"dimension": 2}}},
            400,
            "InvalidArgumentError",
            "dimension, vectors",
        ),
        ({"name": "x", "dimension": 2, "metric": "angle"}, 400, "InvalidArgumentError", "metric"),
        ({"name": "x", "dimension": 2, "dtype": "float64"}, 400, "InvalidArgumentError", "dtype"),
        ({"name": "x", "dimension": "2"}, 400, "InvalidArgumentError", "dimension"),
        ({"name": "x", "dimension": 2, "hnsw_m": 1}, 400, "InvalidArgumentError", "hnsw_m"),
        ({"name": "x", "dimension": 2, "quantization": "pq"}, 400, "InvalidArgumentError", "quantization"),
        (
            {"name": "x", "dimension": 2, "index": "flat", "quantization": "binary"},
            400,
            "InvalidArgumentError",
            "quantization",
        ),
        ({"name": "x", "dimension": 2, "nlist": 65_537}, 400, "InvalidArgumentError", "nlist"),
        (
            {"name": "x", "dimension": 2, "replication": 3, "write_quorum": 4},
            400,
            "InvalidArgumentError",
            "write_quorum",
        ),
        ({"name": "x", "vectors": {}}, 400, "InvalidArgumentError", "vectors"),
        ({"name": "x", "vectors": {"-": {"dimension": 2}}}, 400, "InvalidArgumentError", "collection"),
        ({"name": "x", "dimension": 2, "colour": 1}, 400, "InvalidArgumentError", "body"),
        ({"dimension": 2}, 400, "InvalidArgumentError", "body"),
    ]
    for body, status, kind, field in cases:
        refused(faces.rest("POST", "/collections", body), status, kind, field)
    assert (
        faces.rest("POST", "/collections", {"name": "taken", "dimension": 2, "if_not_exists": True}).status_code == 201
    )


# -- writes


def without_versions(points: list[dict[str, Any] | None]) -> list[dict[str, Any] | None]:
    """Points that were read, of which each told its version."""
    assert all(point is None or int(point.pop("version")) > 0 for point in points)
    return points


def test_points_come_in_columns_or_in_rows(faces: Faces) -> None:
    faces.make()
    columns = faces.rest("POST", "/collections/c/points", {"vectors": [[1, 2], [3, 4]], "metadata": [{"a": 1}, None]})
    assert columns.json()["ids"] == [0, 1] and columns.json()["written"] == 2
    assert columns.json()["durability"] == "os" and columns.json()["stamp"].isdecimal() and columns.json()["session"]
    rows = {"points": [{"id": "x", "vector": [5, 6], "metadata": {"a": {"b": [1, 2]}}}, {"id": 9, "vector": [7, 8]}]}
    assert faces.rest("POST", "/collections/c/points", rows).json()["ids"] == ["x", 9]
    got = faces.rest("POST", "/collections/c/points/get", {"ids": [0, "x", 9], "include": ["metadata", "vector"]})
    assert without_versions(got.json()["points"]) == [
        {"id": 0, "metadata": {"a": 1}, "vector": [1.0, 2.0]},
        {"id": "x", "metadata": {"a": {"b": [1, 2]}}, "vector": [5.0, 6.0]},
        {"id": 9, "metadata": {}, "vector": [7.0, 8.0]},
    ]


def test_named_vectors_go_in_and_out_by_name(faces: Faces) -> None:
    spec = {"name": "n", "vectors": {"title": {"dimension": 1}, "body": {"dimension": 2}}}
    assert faces.rest("POST", "/collections", spec).status_code == 201
    both = {"ids": [1], "vectors": {"title": [[1.0]], "body": [[2.0, 3.0]]}}
    assert faces.rest("POST", "/collections/n/points", both).status_code == 200
    row = {"points": [{"id": 2, "vectors": {"title": [4.0], "body": [5.0, 6.0]}}]}
    assert faces.rest("POST", "/collections/n/points", row).status_code == 200
    got = faces.rest("GET", "/collections/n/points/2?include=vector").json()
    assert without_versions([got]) == [{"id": 2, "vectors": {"title": [4.0], "body": [5.0, 6.0]}}]
    found = faces.rest(
        "POST", "/collections/n/search", {"vector": [5, 6], "k": 1, "field": "body", "include": ["vector"]}
    )
    assert found.json()["hits"] == [{"id": 2, "vector": [5.0, 6.0]}]
    missing = {"points": [{"id": 3, "vectors": {"title": [4.0]}}]}
    refused(faces.rest("POST", "/collections/n/points", missing), 400, "InvalidArgumentError", "points[0].vectors")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "vectors, points"),
        ({"vectors": []}, "vectors"),
        ({"points": []}, "vectors"),
        ({"vectors": [[1, 2, 3]]}, "vectors"),
        ({"vectors": [[1, 2], [3]]}, "vectors"),
        ({"vectors": [[1, "a"]]}, "vectors[0][1]"),
        ({"vectors": [[1, 2]], "ids": [1, 2]}, "ids"),
        ({"vectors": [[1, 2]], "ids": [-1]}, "ids"),
        ({"vectors": [[1, 2]], "ids": [True]}, "ids[0]"),
        ({"vectors": [[1, 2]], "ids": [""]}, "ids"),
        ({"vectors": [[1, 2]], "metadata": {"a": [1, 2]}}, "metadata['a']"),
        ({"vectors": [[1, 2]], "metadata": [{}, {}]}, "metadata"),
        ({"vectors": [[1e39, 2]]}, "vectors"),
        ({"vectors": [[1, 2]], "points": [{"vector": [1, 2]}]}, "vectors, points"),
        ({"points": [{"id": 1, "vector": [1, 2]}, {"vector": [1, 2]}]}, "points[1].id"),
        ({"points": [{"id": 1}]}, "points[0]"),
        ({"vectors": [[1, 2]], "retry_stamp": "0"}, "retry_stamp"),
        ({"vectors": [[1, 2]], "retry_stamp": "-1"}, "retry_stamp"),
        ({"vectors": [[1, 2]], "retry_stamp": str(1 << 64)}, "retry_stamp"),
    ],
)
def test_a_bad_upsert_names_its_field_and_writes_nothing(faces: Faces, body: dict[str, Any], field: str) -> None:
    faces.make()
    refused(faces.rest("POST", "/collections/c/points", body), 400, "InvalidArgumentError", field)
    assert faces.rest("POST", "/collections/c/count").json() == {"count": 0}


def test_a_repeated_write_carries_its_stamp(faces: Faces) -> None:
    faces.make()
    faces.rest("POST", "/collections/c/points", {"vectors": [[1, 2]], "retry_stamp": "18446744073709551615"})
    assert faces.router.retry_stamp == (1 << 64) - 1


def test_create_only_refuses_ids_that_exist(faces: Faces) -> None:
    filled(faces)
    body = {"ids": [1], "vectors": [[9, 9]], "create_only": True}
    refused(faces.rest("POST", "/collections/c/points", body), 409, "AlreadyExistsError", "ids")


def test_a_write_may_demand_versions(faces: Faces) -> None:
    filled(faces)
    version = faces.rest("GET", "/collections/c/points/1").json()["version"]
    upsert = {"ids": [1], "vectors": [[9, 9]], "if_version": version}
    assert faces.rest("POST", "/collections/c/points", upsert).json()["written"] == 1
    answer = faces.rest("POST", "/collections/c/points", upsert)
    refused(answer, 412, "VersionConflictError", "if_version")
    now = faces.rest("POST", "/collections/c/points/get", {"ids": [1]}).json()["points"][0]["version"]
    told = answer.json()["error"]
    assert (told["code"], told["outcome"], told["found"]) == (
        *("FAILED_PRECONDITION", "none"),
        [{"id": 1, "version": now}],
    )
    update = {"ids": [1], "metadata": [{"size": 7}], "if_version": [now]}
    assert faces.rest("PATCH", "/collections/c/points", update).json()["written"] == 1
    refused(faces.rest("PATCH", "/collections/c/points", update), 412, "VersionConflictError")
    delete = {"ids": [1], "if_version": faces.rest("POST", "/collections/c/scroll", {"limit": 9}).json()}
    delete["if_version"] = next(p["version"] for p in delete["if_version"]["points"] if p["id"] == 1)
    assert faces.rest("POST", "/collections/c/points/delete", delete).json()["deleted"] == 1
    refused(faces.rest("POST", "/collections/c/points/delete", delete), 412, "VersionConflictError")
    for absent in ("0", ["0"], [None]):
        again = {"ids": [f"new {absent}"], "vectors": [[9, 9]], "if_version": absent}
        assert faces.rest("POST", "/collections/c/points", again).json()["written"] == 1
        refused(faces.rest("POST", "/collections/c/points", again), 412, "VersionConflictError")
    for bad in ("x", "99999999999999999999", ["1", "2"], "-1", 5):
        body = {"ids": [2], "vectors": [[9, 9]], "if_version": bad}
        refused(faces.rest("POST", "/collections/c/points", body), 400, "InvalidArgumentError")
    filters = {"filters": {"size": 1}, "if_version": version}
    refused(faces.rest("POST", "/collections/c/points/delete", filters), 400, "InvalidArgumentError", "if_version")


def test_updates_change_parts(faces: Faces) -> None:
    filled(faces)
    answer = faces.rest("PATCH", "/collections/c/points", {"ids": [1], "metadata": [{"size": 7}], "unset": ["color"]})
    assert answer.json()["written"] == 1
    now = faces.rest("GET", "/collections/c/points/1").json()
    assert (now["id"], now["metadata"]) == (1, {"size": 7})
    refused(faces.rest("PATCH", "/collections/c/points", {"ids": [77], "metadata": [{"a": 1}]}), 404, "NotFoundError")
    refused(faces.rest("PATCH", "/collections/c/points", {"ids": [1]}), 400, "InvalidArgumentError")
    refused(faces.rest("PATCH", "/collections/c/points", {"ids": []}), 400, "InvalidArgumentError", "ids")


def test_deletes_go_by_id_or_by_filter(faces: Faces) -> None:
    filled(faces)
    path = "/collections/c/points/delete"
    assert faces.rest("POST", path, {"ids": ["three", 99]}).json()["deleted"] == 1
    assert faces.rest("POST", path, {"filters": {"color": "red"}}).json()["deleted"] == 1
    assert faces.rest("POST", path, {"ids": []}).json()["deleted"] == 0
    refused(faces.rest("POST", path, {}), 400, "InvalidArgumentError", "ids, filters")
    refused(faces.rest("POST", path, {"ids": [1], "filters": {"a": 1}}), 400, "InvalidArgumentError", "ids, filters")
    refused(faces.rest("POST", path, {"filters": {}}), 400, "InvalidArgumentError", "filters")
    refused(faces.rest("POST", path, {"filters": {"a": {"$no": 1}}}), 400, "InvalidArgumentError", "a")
    assert faces.rest("POST", "/collections/c/count").json() == {"count": 1}


# -- reads


def test_search_answers_one_query_or_several(faces: Faces) -> None:
    filled(faces)
    one = faces.rest("POST", "/collections/c/search", {"vector": [0, 0], "k": 2}).json()
    assert [hit["id"] for hit in one["hits"]] == [1, 2]
    assert one["hits"][0] == {"id": 1, "distance": 0.0, "score": 1.0, "metadata": {"color": "red", "size": 1}}
    assert one["stale_possible"] is False and one["performance"]["vectors_scanned"] == 3
    assert "results" not in one
    two = faces.rest("POST", "/collections/c/search", {"vectors": [[0, 0], [0, 3]], "k": 1, "include": ["distance"]})
    assert [r["hits"] for r in two.json()["results"]] == [
        [{"id": 1, "distance": 0.0}],
        [{"id": "three", "distance": 0.0}],
    ]
    none = faces.rest("POST", "/collections/c/search", {"vectors": []}).json()
    assert none["results"] == []


def test_the_body_of_the_specification_is_answered_as_it_stands(faces: Faces) -> None:
    faces.make("products")
    metadata = {"category": ["electronics", "electronics", "toys"], "price": [999, 1001, 5]}
    body = {"ids": [1, 2, 3], "vectors": [[0.1, 0.2]] * 3, "metadata": metadata}
    assert faces.rest("POST", "/collections/products/points", body).status_code == 200
    text = (
        '{"vector": [0.1, 0.2], "k": 10, "filters": {"category": {"$eq": "electronics"}, "price": {"$lte": 1000}}, '
        '"include": ["id", "distance", "metadata"]}'
    )
    answer = faces.rest("POST", "/collections/products/search", content=text)
    hits = answer.json()["hits"]
    assert hits == [{"id": 1, "distance": 0.0, "metadata": {"category": "electronics", "price": 999}}]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"vector": [0, 0], "vectors": [[0, 0]]}, "query"),
        ({"vector": [0]}, "vector"),
        ({"vector": []}, "vector"),
        ({"vectors": [[0, 0], [0]]}, "vectors"),
        ({"vector": [0, 0], "k": True}, "k"),
        ({"vector": [0, 0], "k": 1.5}, "k"),
        ({"vector": [0, 0], "include": ["payload"]}, "include[0]"),
        ({"vector": [0, 0], "recall_target": 1.1}, "recall_target"),
        ({"vector": [0, 0], "score_threshold": "a"}, "score_threshold"),
        ({"vector": [0, 0], "field": "title"}, "vector"),
        ({"vector": [0, 0], "filters": {"$nand": []}}, "filters"),
        ({"vector": [0, 0], "filters": {"a": {}}}, "a"),
        ({"vector": [0, 0], "consistency": "all"}, "consistency"),
        ({"vector": [0, 0], "consistency": "session"}, "session"),
        ({"vector": [0, 0], "session": "é"}, "session"),
        ({"vector": [0, 0], "vektor": 1}, "body"),
    ],
)
def test_a_bad_search_names_its_field(faces: Faces, body: dict[str, Any], field: str) -> None:
    faces.make()
    refused(faces.rest("POST", "/collections/c/search", body), 400, "InvalidArgumentError", field)


def test_a_search_is_explained(faces: Faces) -> None:
    filled(faces)
    told = faces.rest("POST", "/collections/c/explain", {"vector": [1, 2], "k": 2, "measure": True}).json()
    assert (told["k"], told["matching"], told["measured_recall"]) == (2, 3, 1.0)
    assert [(plan["choice"], plan["comparisons"]) for plan in told["segments"]] == [("exact", 3)]
    several = faces.rest("POST", "/collections/c/explain", {"vectors": [[1, 2], [3, 4]]}).json()
    assert several["measured_recall"] is None
    refused(faces.rest("POST", "/collections/c/explain", {"vectors": []}), 400, "InvalidArgumentError", "vectors")
    wrong = faces.rest("POST", "/collections/c/explain", {"vector": [1, 2], "k": 0})
    refused(wrong, 400, "InvalidArgumentError", "k")


def test_reads_say_what_they_must_see(faces: Faces) -> None:
    filled(faces)
    answer = faces.rest("POST", "/collections/c/search", {"vector": [0, 0], "consistency": "session", "session": "abc"})
    assert faces.router.seen == Seen("session", b"abc")
    assert answer.json()["session"] == "token-of-the-test"
    faces.rest("POST", "/collections/c/count", {"consistency": "majority"})
    assert faces.router.seen == Seen("majority")
    faces.rest("POST", "/collections/c/count", {"consistency": "verified"})
    assert faces.router.seen == Seen("verified")
    faces.rest("GET", "/collections/c/points/1?consistency=one")
    assert faces.router.seen == Seen("one")


def test_points_are_read_by_id(faces: Faces) -> None:
    filled(faces)
    got = faces.rest("POST", "/collections/c/points/get", {"ids": ["three", 5, 1], "include": []}).json()
    assert without_versions(got["points"]) == [{"id": "three"}, None, {"id": 1}]
    assert faces.rest("GET", "/collections/c/points/three").json()["id"] == "three"
    assert set(faces.rest("GET", "/collections/c/points/1?as=integer&include=").json()) == {"id", "version"}
    refused(faces.rest("GET", "/collections/c/points/1?as=string"), 404, "NotFoundError", "id")
    refused(faces.rest("GET", "/collections/c/points/x?as=integer"), 400, "InvalidArgumentError", "id")
    refused(faces.rest("GET", "/collections/c/points/x?as=float"), 400, "InvalidArgumentError", "as")
    refused(faces.rest("GET", "/collections/none/points/1"), 404, "NotFoundError", "collection")
    slashed = {"ids": ["a/b c?"], "vectors": [[1, 1]]}
    assert faces.rest("POST", "/collections/c/points", slashed).status_code == 200
    assert faces.rest("GET", "/collections/c/points/a%2Fb%20c%3F").json()["id"] == "a/b c?"


def test_scroll_walks_every_point_once(faces: Faces) -> None:
    filled(faces)
    seen, cursor = [], None
    while True:
        page = faces.rest("POST", "/collections/c/scroll", {"limit": 2, "cursor": cursor}).json()
        seen += [point["id"] for point in page["points"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert sorted(seen, key=str) == [1, 2, "three"]
    refused(faces.rest("POST", "/collections/c/scroll", {"cursor": "nonsense"}), 400, "InvalidArgumentError")
    refused(faces.rest("POST", "/collections/c/scroll", {"cursor": 3}), 400, "InvalidArgumentError", "cursor")


def test_counts_are_of_all_or_of_those_that_match(faces: Faces) -> None:
    filled(faces)
    assert faces.rest("POST", "/collections/c/count").json() == {"count": 3}
    assert faces.rest("POST", "/collections/c/count", {"filters": {"size": {"$gte": 2}}}).json() == {"count": 2}
    refused(faces.rest("POST", "/collections/c/count", {"filters": []}), 400, "InvalidArgumentError", "filters")


# -- care, health, and what is no route


def test_care_is_taken(faces: Faces) -> None:
    filled(faces)
    assert faces.rest("POST", "/collections/c/flush").json() == {"done": True}
    assert faces.rest("POST", "/collections/c/compact", {}).json() == {"done": True}
    told = faces.rest("POST", "/collections/c/verify", {}).json()
    assert told["equal"] is False and told["shards"][0]["members"]["d2"]["problem"] == "away"
    assert faces.rest("POST", "/collections/c/wait-until-indexed", {"timeout": 1}).json() == {"indexed": True}
    refused(
        faces.rest("POST", "/collections/c/wait-until-indexed", {"timeout": -1}), 400, "InvalidArgumentError", "timeout"
    )
    assert faces.rest("GET", "/collections/c/stats").json()["points"] == 3
    assert faces.rest("GET", "/cluster/status").json() == {"cluster_id": "test"}
    for method, path in [
        ("POST", "flush"),
        ("POST", "compact"),
        ("POST", "verify"),
        ("GET", "stats"),
        ("POST", "wait-until-indexed"),
    ]:
        refused(faces.rest(method, f"/collections/none/{path}"), 404, "NotFoundError", "collection")


def test_health_follows_the_process(faces: Faces) -> None:
    for state, status in [("starting", 503), ("ok", 200), ("draining", 503)]:
        faces.standing.state = state
        for path in ("/healthz", "/readyz"):
            answer = faces.rest("GET", path)
            assert (answer.status_code, answer.json()) == (status, {"status": state})
        assert faces.rest("GET", "/livez").status_code == 200


def test_info_says_where_grpc_is(faces: Faces) -> None:
    info = faces.rest("GET", "/info").json()
    assert (info["version"], info["kind"], info["node_id"], info["grpc_port"]) == ("1.2.3", "server", "local", 4711)


def test_what_is_no_route_says_so_in_json(faces: Faces) -> None:
    refused(faces.rest("GET", "/nothing"), 404, "NotFoundError", "path")
    refused(faces.rest("GET", "/collections/"), 404, "NotFoundError", "path")
    answer = faces.rest("DELETE", "/collections")
    error = refused(answer, 405, "InvalidArgumentError", "method")
    assert error["bound"] == "GET or HEAD or POST or PUT"
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST", "PUT"}


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"null", "body"),
        (b'{"vector": [NaN, 1]}', "body"),
        (b'{"vector": [1e999, 1]}', "vector[0]"),
        (b'{"filters": {"a": "\\ud800"}}', "body"),
        (b"\xff\xfe", "body"),
        (b'{"filters": ' + b'{"$not": ' * 5000 + b"{}" + b"}" * 5001, "body"),
        (b"[" * 100_000, "body"),
    ],
)
def test_what_is_no_json_is_refused(faces: Faces, text: bytes, field: str) -> None:
    faces.make()
    refused(faces.rest("POST", "/collections/c/search", content=text), 400, "InvalidArgumentError", field)


def test_other_types_encodings_and_parameters_are_refused(faces: Faces) -> None:
    faces.make()
    path, body = "/collections/c/search", b'{"vector": [1, 2]}'
    odd = faces.rest("POST", path, content=body, headers={"content-type": "text/xml"})
    refused(odd, 400, "InvalidArgumentError", "Content-Type")
    packed = faces.rest("POST", path, content=body, headers={"content-encoding": "gzip"})
    refused(packed, 400, "InvalidArgumentError", "Content-Encoding")
    charset = faces.rest("POST", path, content=body, headers={"content-type": "application/json; charset=utf-8"})
    assert charset.status_code == 200
    for query, field in [
        ("timout=1", "query"),
        ("timeout=0", "timeout"),
        ("timeout=x", "timeout"),
        ("timeout=1&timeout=2", "query"),
        ("timeout=nan", "timeout"),
    ]:
        refused(faces.rest("POST", f"{path}?{query}", content=body), 400, "InvalidArgumentError", field)


def test_a_timeout_becomes_the_deadline(faces: Faces) -> None:
    filled(faces)
    faces.rest("POST", "/collections/c/count?timeout=5")
    assert faces.router.deadline is not None and 4 < faces.router.deadline.left_s <= 5
    faces.router.fail = DeadlineExceededError("late", field="timeout")
    refused(faces.rest("POST", "/collections/c/count"), 504, "DeadlineExceededError", "timeout")
    for text, good in [("0.001", True), ("0.0009", False), ("86400", True), ("86401", False)]:
        answer = faces.rest("GET", f"/collections?timeout={text}")
        assert answer.status_code == (200 if good else 400)


def test_a_body_that_does_not_come_in_time_wrote_nothing(faces: Faces) -> None:
    faces.make()

    async def hesitant() -> AsyncIterator[bytes]:
        yield b'{"vectors": '
        await asyncio.Event().wait()

    answer = faces.rest("POST", "/collections/c/points?timeout=0.05", content=hesitant())
    assert refused(answer, 504, "DeadlineExceededError", "timeout")["outcome"] == "none"
    assert faces.rest_face.bodies_bytes == 0


def test_requests_are_observed_by_operation_and_status(faces: Faces) -> None:
    faces.make()
    faces.rest("GET", "/collections/none")
    assert faces.observed == [("createCollection", "201"), ("getCollection", "404")]
