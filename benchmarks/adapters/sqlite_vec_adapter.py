"""sqlite-vec: exact vector search as an SQLite extension."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlite_vec

# Many builds of Python come with an sqlite3 module that cannot load extensions.
from pysqlite3 import dbapi2 as sqlite3

from benchmarks.adapters.adapter import BUCKET, LABEL, Adapter, Batch, Space


class SqliteVec:
    """One virtual table with the payload in metadata columns; one transaction per batch."""

    package = "sqlite-vec"
    efforts = (0,)
    effort_name = "none"
    index_note = "no index: every search scans"

    def __init__(self) -> None:
        self._connection: Any = None

    def create(self, folder: Path, space: Space, mode: str) -> None:
        folder.mkdir(parents=True)
        self._connection = _connect(folder)
        if mode == "strongest":
            self._connection.execute("PRAGMA synchronous=EXTRA")
        metric = "l2" if space.metric == "l2" else "cosine"
        self._connection.execute(
            f"CREATE VIRTUAL TABLE bench USING vec0(id INTEGER PRIMARY KEY, "
            f"vector float[{space.dimension}] distance_metric={metric}, {BUCKET} INTEGER, {LABEL} TEXT)"
        )

    def prepare(self, batch: Batch) -> Any:
        return list(
            zip(
                batch.ids.tolist(),
                (row.tobytes() for row in batch.vectors),
                batch.buckets.tolist(),
                batch.labels,
                strict=True,
            )
        )

    def insert(self, prepared: Any) -> None:
        self._connection.execute("BEGIN")
        self._connection.executemany(f"INSERT INTO bench(id, vector, {BUCKET}, {LABEL}) VALUES (?,?,?,?)", prepared)
        self._connection.execute("COMMIT")

    def finish(self) -> None:
        return None

    def search(self, query: npt.NDArray[np.float32], k: int, effort: int, below: int | None) -> Any:
        condition, values = "", [query.tobytes(), k]
        if below is not None:
            condition, values = f" AND {BUCKET} < ?", [query.tobytes(), k, below]
        statement = f"SELECT id, distance FROM bench WHERE vector MATCH ? AND k = ?{condition} ORDER BY distance"
        return self._connection.execute(statement, values).fetchall()

    def rows(self, answer: Any) -> list[int]:
        return [int(row[0]) for row in answer]

    def open(self, folder: Path, space: Space) -> None:
        self._connection = _connect(folder)

    def close(self) -> None:
        self._connection.close()


def _connect(folder: Path) -> Any:
    connection = sqlite3.connect(folder / "bench.sqlite", isolation_level=None)
    connection.enable_load_extension(True)
    sqlite_vec.load(connection)
    connection.enable_load_extension(False)
    return connection


def make() -> Adapter:
    """Make the adapter."""
    return SqliteVec()
