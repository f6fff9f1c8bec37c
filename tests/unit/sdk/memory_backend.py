"""A second backend, in memory and without the engine: it keeps the SDK's seam honest.

Exact, slow and simple: points live in a dict, a search compares with all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb.backend import CallOptions, CollectionBackend, Spread
from omendb.results import NoWork
from omendb_common.errors import AlreadyExistsError, NotFoundError
from omendb_common.expected import conflict
from omendb_common.explanation import Explanation, SegmentPlan
from omendb_common.filters import Compare, Filter
from omendb_common.ids import IdColumn, PointId, U64Array
from omendb_common.payload import rows_from_columns
from omendb_common.schema import CollectionSchema, Metric


@dataclass(frozen=True)
class MemoryReceipt:
    ids: IdColumn
    count: int
    stamp: int
    lsn: int
    durability: str = "os"


@dataclass
class Point:
    vectors: dict[str, npt.NDArray[Any]]
    payload: dict[str, Any]
    version: int


class MemoryPoints:
    def __init__(self, ids: list[PointId], points: list[Point]) -> None:
        self._ids = ids
        self._points = points

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self) -> IdColumn:
        return IdColumn.of(self._ids) if self._ids else IdColumn.empty()

    def payload(self) -> list[dict[str, Any]]:
        return [dict(point.payload) for point in self._points]

    def stamps(self) -> U64Array:
        return np.array([point.version for point in self._points], np.uint64)

    def vectors(self, field: str, schema: CollectionSchema) -> npt.NDArray[Any]:
        spec = schema.vector(field)
        rows = [point.vectors[field] for point in self._points]
        return np.array(rows, spec.numpy_dtype).reshape(len(rows), spec.dimension)


@dataclass
class MemoryPage:
    picked: MemoryPoints
    cursor: str | None


class MemoryAnswer:
    performance = NoWork()

    def __init__(self, hits: list[MemoryPoints], distances: npt.NDArray[np.float32], counts: list[int]) -> None:
        self._hits = hits
        self.distances = distances
        self.counts = np.array(counts, np.int64)

    def picked(self, query: int) -> MemoryPoints:
        return self._hits[query]


class MemoryCollection:
    """Knows no filters but equality: those are the engine's business, not the SDK's."""

    def __init__(self, schema: CollectionSchema) -> None:
        self.schema = schema
        self.points: dict[PointId, Point] = {}
        self.calls: list[str] = []
        self._lsn = 0

    def _receipt(self, ids: IdColumn, count: int) -> MemoryReceipt:
        self._lsn += 1
        return MemoryReceipt(ids, count, self._lsn, self._lsn)

    def upsert(
        self,
        ids: IdColumn | None,
        vectors: Mapping[str, npt.NDArray[Any]],
        payload: pa.RecordBatch | None,
        n: int,
        *,
        create_only: bool = False,
        versions: U64Array | None = None,
    ) -> MemoryReceipt:
        for name, matrix in vectors.items():
            field = self.schema.vector(name)
            assert matrix.shape == (n, field.dimension) and matrix.dtype == field.numpy_dtype
            assert matrix.flags.c_contiguous
        ids = IdColumn(np.arange(len(self.points), len(self.points) + n, dtype=np.uint64), None) if ids is None else ids
        listed = ids.to_list()
        if create_only and any(i in self.points for i in listed):
            raise AlreadyExistsError("ids exist", field="ids")
        self._check(ids, versions)
        rows = [{} for _ in range(n)] if payload is None else rows_from_columns(payload)
        for row, point_id in enumerate(listed):
            self.points[point_id] = Point({f: m[row].copy() for f, m in vectors.items()}, rows[row], self._lsn + 1)
        return self._receipt(ids, len(set(listed)))

    def update(
        self,
        ids: IdColumn,
        vectors: Mapping[str, npt.NDArray[Any]] | None,
        payload: pa.RecordBatch | None,
        *,
        unset: Sequence[str] = (),
        versions: U64Array | None = None,
    ) -> MemoryReceipt:
        listed = ids.to_list()
        self._check(ids, versions)
        if any(i not in self.points for i in listed):
            raise NotFoundError("ids do not exist", field="ids")
        rows = [{} for _ in listed] if payload is None else rows_from_columns(payload)
        for row, point_id in enumerate(listed):
            point = self.points[point_id] = replace(self.points[point_id], version=self._lsn + 1)
            point.vectors |= {f: m[row].copy() for f, m in (vectors or {}).items()}
            point.payload = {k: v for k, v in (point.payload | rows[row]).items() if k not in unset}
        return self._receipt(ids, len(set(listed)))

    def _check(self, ids: IdColumn, versions: U64Array | None) -> None:
        if versions is None:
            return
        found = np.array([self.points[i].version if i in self.points else 0 for i in ids.to_list()], np.uint64)
        other = np.flatnonzero(found != versions)
        if len(other):
            raise conflict(ids, other, found[other])

    def delete(self, ids: IdColumn, *, versions: U64Array | None = None) -> MemoryReceipt:
        self._check(ids, versions)
        return self._receipt(ids, sum(self.points.pop(i, None) is not None for i in ids.to_list()))

    def delete_where(self, condition: Filter) -> MemoryReceipt:
        return self.delete(self._ids_of(condition))

    def _ids_of(self, condition: Filter) -> IdColumn:
        found = [i for i, point in self.points.items() if matches(condition)(point)]
        return IdColumn.of(found) if found else IdColumn.empty()

    def search(
        self,
        queries: npt.NDArray[Any],
        k: int,
        *,
        field: str = "",
        condition: Filter | None = None,
        exact: bool = False,
        ef: int | None = None,
        recall_target: float | None = None,
        score_threshold: float | None = None,
    ) -> MemoryAnswer:
        assert queries.dtype == np.float32 and queries.ndim == 2
        points = {i: p for i, p in self.points.items() if matches(condition)(p)}
        ids, rows = list(points), list(points.values())
        k = min(k, len(ids))
        matrix = MemoryPoints(ids, rows).vectors(field, self.schema).astype(np.float32)
        distances = np.zeros((len(queries), k), np.float32)
        hits = []
        for number, query in enumerate(queries):
            length = distances_of(matrix, query, self.schema.vector(field).metric)
            order = np.argsort(length, kind="stable")[:k]
            distances[number] = length[order]
            hits.append(MemoryPoints([ids[i] for i in order], [rows[i] for i in order]))
        return MemoryAnswer(hits, distances, [k] * len(queries))

    def explain(
        self,
        queries: npt.NDArray[Any],
        k: int,
        *,
        field: str = "",
        condition: Filter | None = None,
        exact: bool = False,
        ef: int | None = None,
        recall_target: float | None = None,
        measure: bool = False,
    ) -> Explanation:
        n = len(self.points)
        plan = SegmentPlan(-1, n, n, "exact" if n else "skip", "a dict", comparisons=n)
        return Explanation(k, recall_target or 1.0, (plan,), 1.0 if measure else None)

    def get(self, ids: IdColumn) -> tuple[MemoryPoints, npt.NDArray[np.int64]]:
        listed = ids.to_list()
        where = [row for row, i in enumerate(listed) if i in self.points]
        found = [listed[row] for row in where]
        return MemoryPoints(found, [self.points[i] for i in found]), np.array(where, np.int64)

    def scroll(self, cursor: str | None, limit: int, condition: Filter | None = None) -> MemoryPage:
        ids = sorted((i for i, p in self.points.items() if matches(condition)(p)), key=str)
        ids = [i for i in ids if cursor is None or str(i) > cursor]
        page = ids[:limit]
        return MemoryPage(
            MemoryPoints(page, [self.points[i] for i in page]), str(page[-1]) if len(ids) > limit else None
        )

    def count(self, condition: Filter | None = None) -> int:
        return sum(matches(condition)(point) for point in self.points.values())

    def stats(self) -> dict[str, int]:
        return {"rows": len(self.points)}

    def wait_until_indexed(self, timeout_s: float) -> bool:
        self.calls.append(f"wait {timeout_s}")
        return True

    def flush(self) -> None:
        self.calls.append("flush")

    def compact(self) -> None:
        self.calls.append("compact")


def distances_of(matrix: npt.NDArray[Any], query: npt.NDArray[Any], metric: Metric) -> npt.NDArray[Any]:
    if metric == "l2":
        return np.asarray(np.linalg.norm(matrix - query, axis=1))
    inner = matrix @ query
    lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(query)
    return np.asarray(-inner if metric == "dot" else 1 - inner / lengths)


def matches(condition: Filter | None) -> Callable[[Point], bool]:
    if condition is None:
        return lambda point: True
    assert isinstance(condition, Compare) and condition.op == "eq"
    wanted = condition
    return lambda point: bool(point.payload.get(wanted.path) == wanted.value)


class MemoryBackend:
    """Collections in a dict."""

    local = True

    def __init__(self) -> None:
        self.location = "memory"
        self.collections: dict[str, MemoryCollection] = {}
        self.closed = 0
        self.altered: list[tuple[str, int | None, int | None, int | None]] = []
        self.options: list[CallOptions] = []

    def within(self, options: CallOptions) -> MemoryBackend:
        self.options.append(options)
        return self

    def bind(self, handle: CollectionBackend, options: CallOptions) -> CollectionBackend:
        self.options.append(options)
        return handle

    def names(self) -> list[str]:
        return list(self.collections)

    def find(self, name: str) -> MemoryCollection | None:
        return self.collections.get(name)

    def create(self, name: str, schema: CollectionSchema, spread: Spread) -> MemoryCollection:
        assert name not in self.collections
        self.collections[name] = MemoryCollection(schema)
        return self.collections[name]

    def drop(self, name: str) -> None:
        del self.collections[name]

    def rename(self, old: str, new: str) -> MemoryCollection:
        self.collections[new] = self.collections.pop(old)
        return self.collections[new]

    def alter(self, name: str, spread: Spread) -> None:
        self.altered.append((name, spread.replication, spread.write_quorum, spread.read_quorum))

    def close(self) -> None:
        self.closed += 1
