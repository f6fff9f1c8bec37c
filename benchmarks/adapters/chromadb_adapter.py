"""Chroma: SQLite for the log and the payload, hnswlib in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import numpy.typing as npt
from chromadb.config import Settings

from benchmarks.adapters.adapter import (
    BUCKET,
    HNSW_EF_CONSTRUCTION,
    HNSW_M,
    LABEL,
    Adapter,
    Batch,
    Space,
)


class Chroma:
    """One collection of a persistent client; a batch goes in pieces of what the client allows."""

    package = "chromadb"
    efforts = (10, 16, 32, 64, 128, 256, 512)
    effort_name = "ef_search"
    index_note = f"HNSW max_neighbors={HNSW_M}, ef_construction={HNSW_EF_CONSTRUCTION}, built while writing"

    def __init__(self) -> None:
        self._folder = Path()
        self._client: Any = None
        self._collection: Any = None
        self._effort = self.efforts[-1]

    def create(self, folder: Path, space: Space, mode: str) -> None:
        self._folder = folder
        self._client = chromadb.PersistentClient(str(folder), settings=_settings())
        hnsw = {
            "space": space.metric,
            "max_neighbors": HNSW_M,
            "ef_construction": HNSW_EF_CONSTRUCTION,
            "ef_search": self._effort,
        }
        self._collection = self._client.create_collection(
            "bench", embedding_function=None, configuration={"hnsw": hnsw}
        )

    def prepare(self, batch: Batch) -> Any:
        step = self._client.get_max_batch_size()
        pieces = []
        for start in range(0, batch.n, step):
            part = slice(start, start + step)
            pieces.append(
                {
                    "ids": [str(row) for row in batch.ids[part].tolist()],
                    "embeddings": batch.vectors[part],
                    "metadatas": [
                        {BUCKET: bucket, LABEL: label}
                        for bucket, label in zip(batch.buckets[part].tolist(), batch.labels[part], strict=True)
                    ],
                }
            )
        return pieces

    def insert(self, prepared: Any) -> None:
        for piece in prepared:
            self._collection.upsert(**piece)

    def finish(self) -> None:
        return None

    def search(self, query: npt.NDArray[np.float32], k: int, effort: int, below: int | None) -> Any:
        if effort != self._effort:
            self._set_effort(effort)
        return self._collection.query(
            query_embeddings=[query],
            n_results=k,
            where=None if below is None else {BUCKET: {"$lt": below}},
            include=["distances"],
        )

    def _set_effort(self, effort: int) -> None:
        # A changed ef_search is read when the index is loaded, so the collection is opened anew.
        self._collection.modify(configuration={"hnsw": {"ef_search": effort}})
        self._effort = effort
        self.close()
        self._open()

    def rows(self, answer: Any) -> list[int]:
        return [int(name) for name in answer["ids"][0]]

    def open(self, folder: Path, space: Space) -> None:
        self._folder = folder
        self._open()

    def _open(self) -> None:
        self._client = chromadb.PersistentClient(str(self._folder), settings=_settings())
        self._collection = self._client.get_collection("bench", embedding_function=None)

    def close(self) -> None:
        self._collection = None
        self._client.close()


def _settings() -> Settings:
    return Settings(anonymized_telemetry=False)


def make() -> Adapter:
    """Make the adapter."""
    return Chroma()
