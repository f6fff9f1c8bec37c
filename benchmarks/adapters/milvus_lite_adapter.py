"""Milvus Lite: the Milvus client with a local server process behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pymilvus import DataType, MilvusClient

from benchmarks.adapters.adapter import (
    BUCKET,
    HNSW_EF_CONSTRUCTION,
    HNSW_M,
    LABEL,
    Adapter,
    Batch,
    Space,
)


class MilvusLite:
    """One collection with an HNSW index, reached through the Milvus client as its users do."""

    package = "milvus-lite"
    efforts = (16, 32, 64, 128, 256, 512)
    effort_name = "ef"
    index_note = f"HNSW M={HNSW_M}, efConstruction={HNSW_EF_CONSTRUCTION}"

    def __init__(self) -> None:
        self._client: Any = None
        self._flush = False
        self._metric = "L2"

    def create(self, folder: Path, space: Space, mode: str) -> None:
        folder.mkdir(parents=True)
        self._metric = "L2" if space.metric == "l2" else "COSINE"
        self._client = MilvusClient(str(folder / "bench.db"))
        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=space.dimension)
        schema.add_field(BUCKET, DataType.INT64)
        schema.add_field(LABEL, DataType.VARCHAR, max_length=64)
        parameters = MilvusClient.prepare_index_params()
        parameters.add_index(
            "vector",
            index_type="HNSW",
            metric_type=self._metric,
            params={"M": HNSW_M, "efConstruction": HNSW_EF_CONSTRUCTION},
        )
        # With index parameters the collection is loaded, hence searchable, from the start.
        self._client.create_collection("bench", schema=schema, index_params=parameters)
        self._flush = mode == "strongest"

    def prepare(self, batch: Batch) -> Any:
        return [
            {"id": row, "vector": vector, BUCKET: bucket, LABEL: label}
            for row, vector, bucket, label in zip(
                batch.ids.tolist(), batch.vectors, batch.buckets.tolist(), batch.labels, strict=True
            )
        ]

    def insert(self, prepared: Any) -> None:
        self._client.upsert("bench", prepared)
        if self._flush:
            self._client.flush("bench")

    def finish(self) -> None:
        self._client.flush("bench")
        # Indexes are built in the background and reported finished before they are; loading waits for them.
        self._client.release_collection("bench")
        self._client.load_collection("bench")

    def search(self, query: npt.NDArray[np.float32], k: int, effort: int, below: int | None) -> Any:
        return self._client.search(
            "bench",
            data=[query],
            limit=k,
            filter="" if below is None else f"{BUCKET} < {below}",
            search_params={"metric_type": self._metric, "params": {"ef": effort}},
        )

    def rows(self, answer: Any) -> list[int]:
        return [int(hit["id"]) for hit in answer[0]]

    def open(self, folder: Path, space: Space) -> None:
        self._metric = "L2" if space.metric == "l2" else "COSINE"
        self._client = MilvusClient(str(folder / "bench.db"))
        self._client.load_collection("bench")

    def close(self) -> None:
        self._client.close()


def make() -> Adapter:
    """Make the adapter."""
    return MilvusLite()
