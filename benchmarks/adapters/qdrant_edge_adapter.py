"""Qdrant Edge: the engine of Qdrant as a library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import qdrant_edge as qdrant

from benchmarks.adapters.adapter import (
    BUCKET,
    HNSW_EF_CONSTRUCTION,
    HNSW_M,
    LABEL,
    Adapter,
    Batch,
    Space,
)


class QdrantEdge:
    """One shard with a payload index on the bucket."""

    package = "qdrant-edge-py"
    efforts = (16, 32, 64, 128, 256, 512)
    effort_name = "hnsw_ef"
    index_note = f"HNSW m={HNSW_M}, ef_construct={HNSW_EF_CONSTRUCTION}; payload index on bucket"

    def __init__(self) -> None:
        self._shard: Any = None
        self._flush = False

    def create(self, folder: Path, space: Space, mode: str) -> None:
        folder.mkdir(parents=True)
        distance = qdrant.Distance.Euclid if space.metric == "l2" else qdrant.Distance.Cosine
        config = qdrant.EdgeConfig(
            vectors=qdrant.EdgeVectorParams(size=space.dimension, distance=distance),
            hnsw_config=qdrant.HnswIndexConfig(m=HNSW_M, ef_construct=HNSW_EF_CONSTRUCTION, full_scan_threshold=10_000),
        )
        self._shard = qdrant.EdgeShard.create(str(folder), config)
        self._shard.update(qdrant.UpdateOperation.create_field_index(BUCKET, qdrant.PayloadSchemaType.Integer))
        self._flush = mode == "strongest"

    def prepare(self, batch: Batch) -> Any:
        points = [
            qdrant.Point(id=row, vector=vector, payload={BUCKET: bucket, LABEL: label})
            for row, vector, bucket, label in zip(
                batch.ids.tolist(),
                batch.vectors.tolist(),
                batch.buckets.tolist(),
                batch.labels,
                strict=True,
            )
        ]
        return qdrant.UpdateOperation.upsert_points(points)

    def insert(self, prepared: Any) -> None:
        self._shard.update(prepared)
        if self._flush:
            self._shard.flush()

    def finish(self) -> None:
        self._shard.optimize()

    def search(self, query: npt.NDArray[np.float32], k: int, effort: int, below: int | None) -> Any:
        condition = None
        if below is not None:
            condition = qdrant.Filter(must=[qdrant.FieldCondition(key=BUCKET, range=qdrant.RangeFloat(lt=below))])
        return self._shard.search(
            qdrant.SearchRequest(
                query=qdrant.Query.Nearest(query.tolist()),
                limit=k,
                filter=condition,
                params=qdrant.SearchParams(hnsw_ef=effort),
                with_payload=False,
                with_vector=False,
            )
        )

    def rows(self, answer: Any) -> list[int]:
        return [int(point.id) for point in answer]

    def open(self, folder: Path, space: Space) -> None:
        self._shard = qdrant.EdgeShard.load(str(folder))

    def close(self) -> None:
        self._shard.close()


def make() -> Adapter:
    """Make the adapter."""
    return QdrantEdge()
