"""LanceDB: tables of Lance files, written as one fragment per batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.adapters.adapter import (
    BUCKET,
    HNSW_EF_CONSTRUCTION,
    HNSW_M,
    LABEL,
    Adapter,
    Batch,
    Space,
)

# LanceDB's guide for a higher recall than the quantized distances alone give.
REFINE_FACTOR = 2


class LanceDB:
    """One table, filled from Arrow tables, indexed by HNSW over scalar-quantized vectors."""

    package = "lancedb"
    efforts = (20, 32, 64, 128, 256, 512)
    effort_name = "ef"
    index_note = (
        f"IVF_HNSW_SQ, 1 partition, m={HNSW_M}, ef_construction={HNSW_EF_CONSTRUCTION}, "
        f"refine_factor {REFINE_FACTOR}; B-tree on bucket"
    )

    def __init__(self) -> None:
        self._table: Any = None
        self._metric = "l2"
        self._schema: Any = None

    def create(self, folder: Path, space: Space, mode: str) -> None:
        self._metric = space.metric
        self._schema = pa.schema(
            [
                ("id", pa.int64()),
                ("vector", pa.list_(pa.float32(), space.dimension)),
                (BUCKET, pa.int64()),
                (LABEL, pa.utf8()),
            ]
        )
        self._table = lancedb.connect(str(folder)).create_table("bench", schema=self._schema)

    def prepare(self, batch: Batch) -> Any:
        flat = pa.array(batch.vectors.reshape(-1))
        vectors = pa.FixedSizeListArray.from_arrays(flat, batch.vectors.shape[1])
        columns = [pa.array(batch.ids), vectors, pa.array(batch.buckets), pa.array(batch.labels, pa.utf8())]
        return pa.Table.from_arrays(columns, schema=self._schema)

    def insert(self, prepared: Any) -> None:
        self._table.add(prepared)

    def finish(self) -> None:
        self._table.optimize()
        self._table.create_index(
            metric=self._metric,
            vector_column_name="vector",
            index_type="IVF_HNSW_SQ",
            num_partitions=1,
            m=HNSW_M,
            ef_construction=HNSW_EF_CONSTRUCTION,
        )
        self._table.create_scalar_index(BUCKET, index_type="BTREE")
        self._table.optimize()

    def search(self, query: npt.NDArray[np.float32], k: int, effort: int, below: int | None) -> Any:
        builder = self._table.search(query, vector_column_name="vector").distance_type(self._metric).limit(k)
        builder = builder.ef(effort).refine_factor(REFINE_FACTOR).select(["id", "_distance"])
        if below is not None:
            builder = builder.where(f"{BUCKET} < {below}", prefilter=True)
        return builder.to_arrow()

    def rows(self, answer: Any) -> list[int]:
        return [int(row) for row in answer["id"].to_pylist()]

    def open(self, folder: Path, space: Space) -> None:
        self._metric = space.metric
        self._table = lancedb.connect(str(folder)).open_table("bench")

    def close(self) -> None:
        self._table = None


def make() -> Adapter:
    """Make the adapter."""
    return LanceDB()
