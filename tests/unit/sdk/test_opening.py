"""Opening: hints, arguments, reading only, throwaway databases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import omendb
from omendb.database import Database, FieldHints
from omendb_common.errors import AlreadyExistsError, InvalidArgumentError, ReadOnlyError
from tests.conformance.test_collections import CALLS, WRITES
from tests.unit.sdk.memory_backend import MemoryBackend

V = np.array([[0, 0], [1, 1]], np.float32)


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
        ({"nlist": 65_537}, "index.nlist"),
        ({"quantization": "pq"}, "index.quantization"),
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
