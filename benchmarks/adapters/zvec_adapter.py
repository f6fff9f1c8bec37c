"""zvec: an embedded vector database built on Proxima."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zvec

from benchmarks.adapters.adapter import (
    BUCKET,
    HNSW_EF_CONSTRUCTION,
    HNSW_M,
    LABEL,
    Adapter,
    Batch,
    Space,
)

# insert() refuses more documents than this in one call.
INSERT_MAX = 1024


class Zvec:
    """One collection; the documents are upserted in the largest pieces one call takes."""

    package = "zvec"
    efforts = (16, 32, 64, 128, 256, 512)
    effort_name = "ef"
    index_note = f"HNSW m={HNSW_M}, ef_construction={HNSW_EF_CONSTRUCTION}; inverted index on bucket"

    def __init__(self) -> None:
        self._collection: Any = None
        self._flush = False

    def create(self, folder: Path, space: Space, mode: str) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _start(folder)
        metric = zvec.MetricType.L2 if space.metric == "l2" else zvec.MetricType.COSINE
        schema = zvec.CollectionSchema(
            name="bench",
            fields=[
                zvec.FieldSchema(
                    BUCKET,
                    zvec.DataType.INT64,
                    index_param=zvec.InvertIndexParam(enable_range_optimization=True),
                ),
                zvec.FieldSchema(LABEL, zvec.DataType.STRING),
            ],
            vectors=zvec.VectorSchema(
                "vector",
                zvec.DataType.VECTOR_FP32,
                space.dimension,
                index_param=zvec.HnswIndexParam(metric_type=metric, m=HNSW_M, ef_construction=HNSW_EF_CONSTRUCTION),
            ),
        )
        self._collection = zvec.create_and_open(str(folder), schema)
        self._flush = mode == "strongest"

    def prepare(self, batch: Batch) -> Any:
        documents = [
            zvec.Doc(id=str(row), vectors={"vector": vector}, fields={BUCKET: bucket, LABEL: label})
            for row, vector, bucket, label in zip(
                batch.ids.tolist(),
                batch.vectors.tolist(),
                batch.buckets.tolist(),
                batch.labels,
                strict=True,
            )
        ]
        return [documents[start : start + INSERT_MAX] for start in range(0, len(documents), INSERT_MAX)]

    def insert(self, prepared: Any) -> None:
        for piece in prepared:
            for status in self._collection.upsert(piece):
                if not status.ok():
                    raise RuntimeError(f"zvec refused a document: {status}")
        if self._flush:
            self._collection.flush()

    def finish(self) -> None:
        self._collection.optimize()

    def search(self, query: npt.NDArray[np.float32], k: int, effort: int, below: int | None) -> Any:
        return self._collection.query(
            zvec.Query("vector", vector=query, param=zvec.HnswQueryParam(ef=effort)),
            topk=k,
            filter=None if below is None else f"{BUCKET} < {below}",
            output_fields=[],
        )

    def rows(self, answer: Any) -> list[int]:
        return [int(document.id) for document in answer]

    def open(self, folder: Path, space: Space) -> None:
        _start(folder)
        self._collection = zvec.open(str(folder))

    def close(self) -> None:
        self._collection.close()


def _start(folder: Path) -> None:
    # Without this it writes its log files into the working directory.
    zvec.init(log_type=zvec.LogType.FILE, log_level=zvec.LogLevel.ERROR, log_dir=str(folder) + ".logs")


def make() -> Adapter:
    """Make the adapter."""
    return Zvec()
