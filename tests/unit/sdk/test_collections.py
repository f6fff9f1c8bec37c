"""Collections: create, list, drop, rename; the default one; closing and reading only."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import omendb
from omendb.database import Database, FieldHints
from omendb_common.errors import (
    AlreadyExistsError,
    DatabaseClosedError,
    InvalidArgumentError,
    NotFoundError,
    ReadOnlyError,
)
from tests.unit.sdk.memory_backend import MemoryBackend

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


def test_the_default_collection_follows_its_hints() -> None:
    backend = MemoryBackend()
    db = Database(backend, hints=FieldHints(dimension=2, metric="cosine", dtype="float16"))
    with pytest.raises(InvalidArgumentError, match="dimension 2"):
        db.add_batch([[1, 2, 3]])
    assert backend.names() == []
    db.add_batch(V)
    assert db.schema is not None and db.schema.vectors[0].dtype == "float16"
    for hints in (FieldHints(dimension=3), FieldHints(metric="l2"), FieldHints(dtype="float32")):
        with pytest.raises(AlreadyExistsError, match="default collection has"):
            Database(backend, hints=hints)
    assert Database(backend, hints=FieldHints(2, "cosine", "float16")).count() == 2


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


@pytest.mark.parametrize("name", WRITES)
def test_a_reader_refuses_writes(name: str) -> None:
    backend = MemoryBackend()
    Database(backend).add_batch(V)
    reader = Database(backend, read_only=True)
    with pytest.raises(ReadOnlyError, match='mode="rw"'):
        WRITES[name](reader)
    for call in CALLS.values():
        call(reader)
    assert reader.count() == 2


def test_a_reader_sees_a_default_collection_made_later() -> None:
    backend = MemoryBackend()
    reader, writer = Database(backend, read_only=True), Database(backend)
    assert reader.count() == 0
    writer.add_batch(V)
    assert reader.count() == 2 and len(reader.search(V[0])) == 2


def test_the_context_manager_closes(tmp_path: Path) -> None:
    with omendb.open(tmp_path / "db") as db:
        db.add_batch(V, ids=["a", "b"])
    assert db.closed
    with omendb.open(tmp_path / "db") as db:
        assert db.count() == 2 and db.search(V[1], k=1)[0].id == "b"


def test_a_throwaway_database_goes_with_its_folder() -> None:
    with omendb.DB() as db:
        db.add_batch(V)
        folder = Path(db.path)
        assert folder.exists()
    assert not folder.exists() and not folder.parent.exists()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"mode": "w"}, "mode"),
        ({"durability": "never"}, "storage.durability"),
        ({"profile": "huge"}, "profile"),
        ({"dimension": 0}, "dimension"),
        ({"metric": "l1"}, "metric"),
        ({"dtype": "float64"}, "dtype"),
        ({"hnsw_m": 1}, "index.hnsw_m"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_arguments_of_open_create_nothing(tmp_path: Path, arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidArgumentError, match=match):
        omendb.open(tmp_path / "db", **arguments)
    assert not (tmp_path / "db").exists()
    for path in ("", None, 3):
        with pytest.raises(InvalidArgumentError, match="path"):
            omendb.open(path)  # type: ignore[arg-type]


def test_a_throwaway_database_that_nobody_closed_goes_with_the_program() -> None:
    program = "import omendb; db = omendb.DB(); db.add_batch([[1.0, 2.0]]); print(db.path)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not Path(done.stdout.strip()).parent.exists() and done.stderr == ""
