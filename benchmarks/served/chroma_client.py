"""Chroma's server through its HTTP client."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Any

import chromadb
import numpy as np
import numpy.typing as npt
from chromadb.config import Settings

from benchmarks.adapters.adapter import BUCKET, HNSW_EF_CONSTRUCTION, HNSW_M, LABEL, Batch, Space
from benchmarks.served.client import ServerClient


class ChromaServed:
    """One collection; a batch goes in pieces of what the server allows."""

    package = "chromadb"
    efforts = (16, 32, 64, 128, 256, 512)
    effort_name = "ef_search"
    index_note = f"HNSW max_neighbors={HNSW_M}, ef_construction={HNSW_EF_CONSTRUCTION}, built while writing"
    # It is read when the index is loaded.
    effort_needs_restart = True

    def __init__(self) -> None:
        self._client: Any = None
        self._collection: Any = None

    def connect(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._client = chromadb.HttpClient(host, int(port), settings=Settings(anonymized_telemetry=False))
        self._client.heartbeat()

    def server_version(self) -> str:
        return metadata.version("chromadb")

    def create(self, name: str, space: Space, mode: str) -> None:
        hnsw = {
            "space": space.metric,
            "max_neighbors": HNSW_M,
            "ef_construction": HNSW_EF_CONSTRUCTION,
            "ef_search": self.efforts[-1],
        }
        self._collection = self._client.create_collection(name, embedding_function=None, configuration={"hnsw": hnsw})

    def use(self, name: str, space: Space, mode: str) -> None:
        self._collection = self._client.get_collection(name, embedding_function=None)

    def drop(self, name: str) -> None:
        self._client.delete_collection(name)

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

    def set_effort(self, effort: int) -> None:
        self._collection.modify(configuration={"hnsw": {"ef_search": effort}})

    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> Any:
        return self._collection.query(
            query_embeddings=[query],
            n_results=k,
            where=None if below is None else {BUCKET: {"$lt": below}},
            include=["distances"],
        )

    def rows(self, answer: Any) -> list[int]:
        return [int(name) for name in answer["ids"][0]]

    def present(self, ids: Sequence[int]) -> int:
        return len(self._collection.get(ids=[str(row) for row in ids], include=[])["ids"])

    def close(self) -> None:
        return None


def make(server: str) -> ServerClient:
    """Make the client."""
    return ChromaServed()
