"""One database per test, once in memory and once in a folder: both must behave the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import omendb
from omendb.database import Database
from tests.unit.sdk.memory_backend import MemoryBackend


@pytest.fixture(params=["memory", "folder"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty, writable database."""
    in_memory = request.param == "memory"
    database = Database(MemoryBackend()) if in_memory else omendb.open(tmp_path / "db", durability="os")
    yield database
    database.close()
