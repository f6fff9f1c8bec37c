"""OmenDB itself, through the library that its users import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import omendb
from benchmarks.adapters.adapter import BUCKET, LABEL, Adapter, Batch, Space
from omendb import FilterOp

INDEX_LIMIT_S = 3600.0


class OmenDB:
    """One collection at default settings, but for the durability."""

    package = "omendb"
    efforts = (16, 24, 32, 48, 64, 96, 128, 256, 512)
    effort_name = "ef"
    index_note = "HNSW at default settings"

    def __init__(self) -> None:
        self._db: Any = None
        self._collection: Any = None

    def create(self, folder: Path, space: Space, mode: str) -> None:
        self._db = omendb.open(str(folder), durability="os" if mode == "os" else "fsync")
        self._collection = self._db.create_collection("bench", dimension=space.dimension, metric=space.metric)

    def prepare(self, batch: Batch) -> Any:
        return {"ids": batch.ids, "vectors": batch.vectors, "metadata": {BUCKET: batch.buckets, LABEL: batch.labels}}

    def insert(self, prepared: Any) -> None:
        self._collection.upsert(**prepared)

    def finish(self) -> None:
        if not self._collection.wait_until_indexed(timeout=INDEX_LIMIT_S):
            raise TimeoutError(f"not indexed after {INDEX_LIMIT_S} s")

    def search(self, query: npt.NDArray[np.float32], k: int, effort: int, below: int | None) -> Any:
        filters = None if below is None else FilterOp.lt(BUCKET, below)
        found = self._collection.search(vector=query, k=k, ef=effort, filters=filters, include=("id", "distance"))
        # The peers answer with their ids read; so do we.
        return found.ids

    def rows(self, answer: Any) -> list[int]:
        return [int(row) for row in answer]

    def open(self, folder: Path, space: Space) -> None:
        self._db = omendb.open(str(folder))
        self._collection = self._db.collection("bench")

    def close(self) -> None:
        self._db.close()


def make() -> Adapter:
    """Make the adapter."""
    return OmenDB()
