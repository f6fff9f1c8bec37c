"""Points written only if they still have the version that they were seen with, through every backend."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import omendb
from omendb.database import Database
from omendb.records import Record
from omendb_common.errors import InvalidArgumentError, VersionConflictError
from omendb_common.expected import POINTS_MAX

VECTORS = np.array([[0, 0], [1, 0], [0, 2], [3, 3]], np.float32)
IDS = ["a", "b", "c", 7]
CLIENTS, INCREMENTS = 8, 5


@pytest.fixture
def filled(db: Database) -> Database:
    db.add_batch(VECTORS, {"rank": [1, 2, 3, 4]}, IDS)
    return db


def seen(db: Database, point_id: Any) -> Record:
    found = db.get(point_id)
    assert isinstance(found, Record)
    return found


def test_a_version_stays_until_the_next_write(filled: Database) -> None:
    first = seen(filled, "a").version
    assert first > 0 and seen(filled, "a").version == first
    assert {r.id: r.version for r in filled.scroll().records}["a"] == first
    assert [r.version for r in filled.iterate(include=[])] != []
    filled.update(["a"], metadata={"rank": [5]})
    second = seen(filled, "a").version
    filled.upsert(["a"], VECTORS[:1])
    assert len({first, second, seen(filled, "a").version}) == 3


@pytest.mark.parametrize("how", ["upsert", "add_batch", "update", "delete"])
def test_it_is_written_once_under_one_version(filled: Database, how: str) -> None:
    version = seen(filled, "a").version

    def write() -> Any:
        match how:
            case "upsert":
                return filled.upsert(["a"], VECTORS[1:2], {"rank": [9]}, if_version=version)
            case "add_batch":
                return filled.add_batch(VECTORS[1:2], {"rank": [9]}, ["a"], if_version=[version])
            case "update":
                return filled.update(["a"], metadata={"rank": [9]}, if_version=version)
            case _:
                return filled.delete(["a"], if_version=version)

    done = write()
    after = filled.get("a")
    now = after.version if isinstance(after, Record) else 0
    assert (done == 1 and after is None) if how == "delete" else (now == done.stamp and seen(filled, "a").metadata)
    with pytest.raises(VersionConflictError, match="version") as refused:
        write()
    assert refused.value.found == {"a": now} and refused.value.outcome == "none"
    assert filled.count() == (3 if how == "delete" else 4) and seen(filled, "b").metadata == {"rank": 2}


def test_of_several_points_all_are_written_or_none(filled: Database) -> None:
    versions = [seen(filled, i).version for i in IDS[:3]]
    filled.update(["b"], metadata={"rank": [20]})
    now = seen(filled, "b").version
    for write in (
        lambda: filled.upsert(IDS[:3], VECTORS[:3], if_version=versions),
        lambda: filled.update(IDS[:3], metadata={"rank": [0, 0, 0]}, if_version=versions),
        lambda: filled.delete(IDS[:3], if_version=versions),
    ):
        with pytest.raises(VersionConflictError) as refused:
            write()
        assert refused.value.found == {"b": now}
    assert [seen(filled, i).version for i in IDS[:3]] == [versions[0], now, versions[2]]
    versions[1] = now
    assert filled.update(IDS[:3], metadata={"rank": [7, 8, 9]}, if_version=versions).written == 3
    assert [seen(filled, i).metadata for i in IDS[:3]] == [{"rank": 7}, {"rank": 8}, {"rank": 9}]
    assert filled.delete(IDS[:3], if_version=[seen(filled, i).version for i in IDS[:3]]) == 3
    assert filled.count() == 1


@pytest.mark.parametrize("absent", [0, [0], [None]])
def test_no_version_means_no_point(filled: Database, absent: Any) -> None:
    version = seen(filled, "a").version
    with pytest.raises(VersionConflictError) as refused:
        filled.upsert(["a"], VECTORS[:1], if_version=absent)
    assert refused.value.found == {"a": version}
    assert filled.upsert(["new"], VECTORS[:1], if_version=absent).written == 1
    filled.delete(["a"])
    assert filled.upsert(["a"], VECTORS[:1], if_version=absent).written == 1
    with pytest.raises(VersionConflictError):
        filled.upsert(["a"], VECTORS[:1], if_version=version)


def test_what_is_gone_has_no_version(filled: Database) -> None:
    version = seen(filled, 7).version
    filled.delete([7])
    for write in (
        lambda: filled.upsert([7], VECTORS[:1], if_version=version),
        lambda: filled.update([7], metadata={"rank": [0]}, if_version=version),
        lambda: filled.delete([7], if_version=version),
    ):
        with pytest.raises(VersionConflictError, match="no such point") as refused:
            write()
        assert refused.value.found == {7: 0}
    assert filled.get(7) is None


def test_an_update_on_condition_changes_what_it_names(filled: Database) -> None:
    filled.update(["a"], metadata={"kind": ["x"], "deep": [{"n": 1}]})
    filled.update(["a"], vectors=[[5, 5]], unset=["kind"], if_version=seen(filled, "a").version)
    (found,) = filled.get(["a"], include=["metadata", "vector"])
    assert found is not None and found.metadata == {"rank": 1, "deep": {"n": 1}}
    assert found.vector is not None and found.vector.tolist() == [5, 5]
    versions = [seen(filled, i).version for i in IDS]
    rows = [{"rank": 10}, None, {"deep": {"m": 2}}, {"rank": None}]
    filled.update(IDS, metadata=rows, if_version=versions)
    told = [seen(filled, i).metadata for i in IDS]
    assert told[:3] == [{"rank": 10, "deep": {"n": 1}}, {"rank": 2}, {"rank": 3, "deep": {"m": 2}}]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (True, "versions of points"),
        ("12", "versions of points"),
        (1.5, "versions of points"),
        (-1, "versions of points"),
        (1 << 64, "versions of points"),
        ([1, 2], "one for each of 1"),
        ([], "one for each of 1"),
        ([True], "versions of points"),
    ],
)
def test_what_is_no_version_is_refused(filled: Database, given: Any, says: str) -> None:
    for write in (
        lambda: filled.upsert(["a"], VECTORS[:1], if_version=given),
        lambda: filled.update(["a"], metadata={"rank": [0]}, if_version=given),
        lambda: filled.delete(["a"], if_version=given),
    ):
        with pytest.raises(InvalidArgumentError, match=says) as refused:
            write()
        assert refused.value.field == "if_version"
    assert seen(filled, "a").metadata == {"rank": 1}


def test_what_versions_cannot_be_demanded_of_is_refused(filled: Database) -> None:
    version = seen(filled, "a").version
    with pytest.raises(InvalidArgumentError, match="twice"):
        filled.upsert(["a", "a"], VECTORS[:2], if_version=version)
    with pytest.raises(InvalidArgumentError, match="no ids"):
        filled.add_batch(VECTORS[:1], if_version=0)
    with pytest.raises(InvalidArgumentError, match="no ids"):
        filled.delete(filters=omendb.FilterOp.eq("rank", 1), if_version=version)
    with pytest.raises(InvalidArgumentError, match="above 0"):
        filled.update(["a"], metadata={"rank": [0]}, if_version=0)
    with pytest.raises(InvalidArgumentError, match="above 0"):
        filled.delete(["a", "b"], if_version=[version, None])
    with pytest.raises(InvalidArgumentError, match="one of them"):
        filled.add_batch(VECTORS[:1], None, ["a"], create_only=True, if_version=version)
    assert filled.count() == 4


def test_so_many_points_and_no_more(filled: Database) -> None:
    ids = np.arange(100, 100 + POINTS_MAX + 1, dtype=np.uint64)
    vectors = np.zeros((len(ids), 2), np.float32)
    with pytest.raises(InvalidArgumentError, match=f"at most {POINTS_MAX} points"):
        filled.upsert(ids, vectors, if_version=0)
    assert filled.upsert(ids[:-1], vectors[:-1], if_version=0).written == POINTS_MAX
    assert filled.count() == 4 + POINTS_MAX
    with pytest.raises(VersionConflictError, match=f"{POINTS_MAX} points"):
        filled.upsert(ids[:-1], vectors[:-1], if_version=0)


def test_with_one_copy(db: Database) -> None:
    one = db.create_collection("one", 2, replication=1)
    one.upsert(["a", "b"], VECTORS[:2], {"rank": [1, 2]}, if_version=0)
    (found,) = one.get(["a"])
    assert found is not None
    assert one.update(["a"], metadata={"rank": [5]}, if_version=found.version).written == 1
    with pytest.raises(VersionConflictError):
        one.update(["a"], metadata={"rank": [6]}, if_version=found.version)
    with pytest.raises(VersionConflictError):
        one.upsert(["new", "a"], VECTORS[:2], if_version=[0, found.version])
    assert one.count() == 2 and one.get("new") is None


def test_where_nothing_was_stored_yet(db: Database) -> None:
    for write in (
        lambda: db.upsert(["a"], VECTORS[:1], if_version=5),
        lambda: db.update(["a"], metadata={"rank": [0]}, if_version=5),
        lambda: db.delete(["a"], if_version=5),
    ):
        with pytest.raises(VersionConflictError) as refused:
            write()
        assert refused.value.found == {"a": 0}
    assert db.list_collections() == []
    assert db.upsert(["a"], VECTORS[:1], if_version=0).written == 1


def test_a_counter_that_many_raise_at_once_is_exact(engine_db: Database) -> None:
    engine_db.upsert(["counter"], VECTORS[:1], {"n": [0]})

    def raise_it(client: int) -> int:
        done = refused = 0
        while done < INCREMENTS:
            (now,) = engine_db.get(["counter"])
            assert now is not None and now.metadata is not None
            try:
                row = {"n": [now.metadata["n"] + 1]}
                if client % 2:
                    engine_db.update(["counter"], metadata=row, if_version=now.version, timeout=30)
                else:
                    engine_db.upsert(["counter"], VECTORS[:1], row, if_version=now.version, timeout=30)
                done += 1
            except VersionConflictError:
                refused += 1
        return refused

    with ThreadPoolExecutor(CLIENTS) as pool:
        refusals = sum(pool.map(raise_it, range(CLIENTS)))
    assert seen(engine_db, "counter").metadata == {"n": CLIENTS * INCREMENTS}, refusals
