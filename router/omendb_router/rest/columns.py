"""Columns as the JSON or the Arrow stream of an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.ids import IdColumn, U64Array
from omendb_common.payload import rows_from_columns, split_name
from omendb_common.plain_arrow import arrow_of_numpy, arrow_of_texts
from omendb_common.records import payload_to_ipc
from omendb_common.schema import VectorField
from omendb_common.scores import distance_to_score
from omendb_router.face_calls import Hits
from omendb_router.rest.bodies import HitBody, PointBody

FlatVectors = Mapping[str, npt.NDArray[Any]]


def point_bodies(
    ids: IdColumn, versions: U64Array, payload: pa.RecordBatch | None, vectors: FlatVectors, include: frozenset[str]
) -> list[PointBody]:
    """One body per point; ``payload`` and ``vectors`` are read when ``include`` names them."""
    n = len(ids)
    metadata: Sequence[dict[str, Any] | None] = _metadata(payload, n) if "metadata" in include else [None] * n
    columns = zip(ids.to_list(), versions.tolist(), metadata, strict=True)
    bodies = [PointBody(id=i, version=str(v), metadata=m) for i, v, m in columns]
    if "vector" in include:
        unnamed = vectors.get("")
        if unnamed is not None:
            for body, row in zip(bodies, unnamed.tolist(), strict=True):
                body.vector = row
        else:
            lists = {name: matrix.tolist() for name, matrix in vectors.items()}
            for place, body in enumerate(bodies):
                body.vectors = {name: rows[place] for name, rows in lists.items()}
    return bodies


def hit_bodies(hits: Hits, target: VectorField, include: frozenset[str]) -> list[list[HitBody]]:
    """The hits of every query, with the columns that ``include`` names."""
    distances = hits.flat_distances()
    n = len(distances)
    none = [None] * n
    columns = (
        hits.ids.to_list(),
        distances.tolist() if "distance" in include else none,
        distance_to_score(distances, target.metric).tolist() if "score" in include else none,
        _metadata(hits.payload, n) if "metadata" in include else none,
        hits.vectors.tolist() if "vector" in include and hits.vectors is not None else none,
    )
    flat = [HitBody(id=i, distance=d, score=s, metadata=m, vector=v) for i, d, s, m, v in zip(*columns, strict=True)]
    if len(hits.counts) == 1:
        return [flat]
    ends = np.cumsum(hits.counts).tolist()
    return [flat[end - count : end] for end, count in zip(ends, hits.counts.tolist(), strict=True)]


def _metadata(payload: pa.RecordBatch | None, n: int) -> list[dict[str, Any]]:
    return [{} for _ in range(n)] if payload is None else rows_from_columns(payload, n=n)


def hits_stream(hits: Hits, target: VectorField, include: frozenset[str]) -> bytes:
    """The hits as an Arrow IPC stream of one batch.

    Columns: query (uint32), id, then of distance, score, vector and the metadata's what ``include`` names. Mixed ids
    are text. A metadata field that holds several kinds has one column per kind, ``field#kind``; one that is named like
    a column before it is prefixed ``metadata.``.
    """
    distances = hits.flat_distances()
    queries = np.repeat(np.arange(len(hits.counts), dtype=np.uint32), hits.counts)
    columns: dict[str, Any] = {"query": arrow_of_numpy(queries), "id": _id_array(hits.ids)}
    if "distance" in include:
        columns["distance"] = arrow_of_numpy(distances)
    if "score" in include:
        columns["score"] = arrow_of_numpy(distance_to_score(distances, target.metric))
    if "vector" in include and hits.vectors is not None:
        flat = arrow_of_numpy(np.ascontiguousarray(hits.vectors).reshape(-1))
        columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, target.dimension)
    if "metadata" in include and hits.payload is not None:
        for name, column in _named(hits.payload):
            columns[f"metadata.{name}" if name in columns else name] = column
    return memoryview(payload_to_ipc(pa.record_batch(columns))).tobytes()


def _named(payload: pa.RecordBatch) -> Iterator[tuple[str, pa.Array]]:
    paths = [split_name(name)[0] for name in payload.schema.names]
    for name, path, column in zip(payload.schema.names, paths, payload.columns, strict=True):
        yield (path if paths.count(path) == 1 else name), column


def _id_array(ids: IdColumn) -> pa.Array:
    if ids.strs is None:
        return arrow_of_numpy(ids.ints if ids.ints is not None else np.empty(0, np.uint64))
    return ids.strs if ids.ints is None else arrow_of_texts([str(i) for i in ids.to_list()])


__all__ = ["FlatVectors", "hit_bodies", "hits_stream", "point_bodies"]
