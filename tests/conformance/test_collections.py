"""Collections: create, list, drop, rename; the default one; closing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from omendb.backend import Consistency
from omendb.database import Database
from omendb_common.errors import AlreadyExistsError, DatabaseClosedError, InvalidArgumentError, NotFoundError
from tests.conformance.deployments import Deployment

V = np.array([[0, 0], [1, 1]], np.float32)


def test_create_list_drop(db: Database) -> None:
    books = db.create_collection("books", dimension=2, metric="cosine", dtype="float16")
    assert books.name == "books" and books.dimension == 2
    assert books.schema is not None and books.schema.vectors[0].metric == "cosine"
    assert db.list_collections() == ["books"]
    books.add_batch(V + 1)
    assert db.collection("books") is books and db.collection("books").count() == 2 and db.count() == 0
    db.drop_collection("books")
    assert db.list_collections() == []
    with pytest.raises(NotFoundError, match="dropped"):
        books.count()
    again = db.create_collection("books", 3)
    assert again.count() == 0 and again.dimension == 3


def test_create_twice(db: Database) -> None:
    db.create_collection("a", 2)
    with pytest.raises(AlreadyExistsError, match="if_not_exists"):
        db.create_collection("a", 2)
    assert db.create_collection("a", 2, if_not_exists=True) is db.collection("a")
    with pytest.raises(AlreadyExistsError, match="same vector fields"):
        db.create_collection("a", 3, if_not_exists=True)


def test_rename_keeps_handles_and_points(db: Database) -> None:
    old = db.create_collection("old", 2)
    old.add_batch(V)
    db.create_collection("taken", 2)
    with pytest.raises(AlreadyExistsError, match="taken"):
        db.rename_collection("old", "taken")
    db.rename_collection("old", "new")
    assert db.list_collections() == ["new", "taken"]
    assert old.name == "new" and old.count() == 2 and db.collection("new") is old
    old.add_batch(V)
    assert db.collection("new").count() == 4


def test_the_default_collection_can_be_renamed_and_dropped(db: Database) -> None:
    db.add_batch(V)
    db.rename_collection("default", "first")
    assert db.count() == 0 and db.collection("first").count() == 2
    db.add_batch([[1.0, 2.0, 3.0]])
    assert db.dimension == 3 and db.list_collections() == ["default", "first"]
    db.drop_collection("default")
    assert db.count() == 0 and db.dimension is None
    db.rename_collection("first", "default")
    assert db.count() == 2 and db.dimension == 2


def test_two_first_writes_at_once_make_one_collection(db: Database) -> None:
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        barrier.wait()
        db.add_batch(np.full((10, 2), number, np.float32), ids=[f"{number}-{i}" for i in range(10)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert db.count() == 80 and db.list_collections() == ["default"]


CALLS: dict[str, Callable[[Database], Any]] = {
    "search": lambda db: db.search(V[0]),
    "get": lambda db: db.get(1),
    "count": lambda db: db.count(),
    "scroll": lambda db: db.scroll(),
    "stats": lambda db: db.stats(),
    "wait": lambda db: db.wait_until_indexed(1),
    "list": lambda db: db.list_collections(),
    "collection": lambda db: db.collection("default"),
}
WRITES: dict[str, Callable[[Database], Any]] = {
    "add_batch": lambda db: db.add_batch(V),
    "upsert": lambda db: db.upsert([1, 2], V),
    "update": lambda db: db.update([0], V[:1]),
    "delete": lambda db: db.delete([0]),
    "flush": lambda db: db.flush(),
    "compact": lambda db: db.compact(),
    "create": lambda db: db.create_collection("x", 2),
    "drop": lambda db: db.drop_collection("default"),
    "rename": lambda db: db.rename_collection("default", "x"),
}


@pytest.mark.parametrize("name", [*CALLS, *WRITES])
def test_after_close_everything_is_refused(db: Database, name: str) -> None:
    db.add_batch(V)
    db.close()
    db.close()
    assert db.closed and "closed" in repr(db)
    with pytest.raises(DatabaseClosedError, match="open it again"):
        (CALLS | WRITES)[name](db)


def test_a_call_names_its_collection(db: Database) -> None:
    db.create_collection("documents", 2)
    embeddings = np.array([[0, 0], [1, 1], [5, 5]], np.float32)
    db.upsert([1, 2, 3], embeddings, {"n": [1, 2, 3]}, collection="documents")
    found = db.search(collection="documents", vectors=embeddings, k=2, timeout=30.0)
    assert [[hit.id for hit in results] for results in found] == [[1, 2], [2, 1], [3, 2]]
    assert db.count() == 0 and db.count(collection="documents") == 3
    assert db.get(2, collection="documents").metadata == {"n": 2}  # type: ignore[union-attr]
    db.update([2], metadata={"n": [9]}, collection="documents")
    assert [r.metadata for r in db.iterate({"n": 9}, collection="documents")] == [{"n": 9}]
    assert db.delete([3], collection="documents") == 1 and len(db.scroll(collection="documents").records) == 2
    db.flush(collection="documents")
    db.compact(collection="documents")
    assert db.wait_until_indexed(30, collection="documents") and db.stats(collection="documents") is not None
    with pytest.raises(NotFoundError, match="documents"):
        db.count(collection="nothing")
    with pytest.raises(InvalidArgumentError, match="whose handle this is"):
        db.collection("documents").count(collection="default")
    assert db.collection("documents").count(collection="documents") == 2


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "1", True])
def test_a_timeout_is_a_number_of_seconds(db: Database, timeout: Any) -> None:
    db.add_batch(V)
    for call in (
        lambda: db.search(V[0], timeout=timeout),
        lambda: db.get(0, timeout=timeout),
        lambda: db.add_batch(V, timeout=timeout),
        lambda: db.create_collection("x", 2, timeout=timeout),
    ):
        with pytest.raises(InvalidArgumentError, match="timeout"):
            call()
    assert db.count() == 2


def test_what_a_read_must_show(db: Database) -> None:
    db.add_batch(V, ids=[1, 2])
    consistencies: tuple[Consistency, ...] = ("one", "session", "verified", "quorum", "majority")
    for consistency in consistencies:
        assert db.count(consistency=consistency) == 2
        assert db.get(1, consistency=consistency).id == 1  # type: ignore[union-attr]
        assert db.search(V[0], k=1, consistency=consistency)[0].id == 1
    db.delete([1])
    for consistency in ("verified", "quorum", "majority"):
        assert [hit.id for hit in db.search(V[0], k=2, consistency=consistency)] == [2]
    with pytest.raises(InvalidArgumentError, match="consistency"):
        db.count(consistency="strong")  # type: ignore[arg-type]


def test_how_a_collection_is_spread(engine: Deployment, engine_db: Database) -> None:
    db = engine_db
    assert db.create_collection("one", 2, shards=1, replication=1, write_quorum=1, read_quorum=1).count() == 0
    wrongs: list[dict[str, Any]] = [
        {"replication": 0},
        {"replication": 8},
        {"replication": 1, "write_quorum": 2},
        {"shards": 0},
        {"replication": "two"},
    ]
    if engine.replication == 1:
        wrongs += [{"partition_key": "tenant"}, {"replication": 2}, {"shards": 2}]
    for wrong in wrongs:
        with pytest.raises(InvalidArgumentError) as caught:
            db.create_collection("other", 2, **wrong)
        assert caught.value.field in wrong
    assert db.list_collections() == ["one"]
