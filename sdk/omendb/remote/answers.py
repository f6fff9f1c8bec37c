"""What came back over the network, in the shapes of the backend protocol; decoded when looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb.backend import Float32, Int64
from omendb_common.errors import InvalidArgumentError
from omendb_common.ids import IdColumn, U64Array
from omendb_common.payload import rows_from_columns
from omendb_common.schema import CollectionSchema
from omendb_common.wire import convert
from omendb_proto.v1 import common_pb2, router_pb2

FetchVectors = Callable[[IdColumn, str], npt.NDArray[Any]]


class RemotePoints:
    """Points of one reply: what it carries, and a way to fetch the vectors that it does not."""

    def __init__(
        self,
        ids: IdColumn,
        payload: pa.RecordBatch | None,
        vectors: Mapping[str, npt.NDArray[Any]],
        fetch: FetchVectors,
        versions: U64Array | None = None,
    ) -> None:
        self._ids = ids
        self._versions = versions
        self._payload = payload
        self._vectors = vectors
        self._fetch = fetch
        self._rows: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self) -> IdColumn:
        """Their ids."""
        return self._ids

    def stamps(self) -> U64Array:
        """The version of each; 0 from a server of a release that told none."""
        if self._versions is None or not len(self._versions):
            return np.zeros(len(self), np.uint64)
        if len(self._versions) != len(self):
            raise _malformed("versions and ids disagree")
        return self._versions

    def payload(self) -> list[dict[str, Any]]:
        """The payload of each."""
        if self._rows is None:
            empty = self._payload is None
            self._rows = [{} for _ in range(len(self))] if empty else rows_from_columns(self._payload, n=len(self))
        return self._rows

    def vectors(self, field: str, schema: CollectionSchema) -> npt.NDArray[Any]:
        """Their vectors of one field; those that did not come along are fetched now."""
        spec = schema.vector(field)
        if not len(self):
            return np.empty((0, spec.dimension), spec.numpy_dtype)
        found = self._vectors.get(field)
        return self._fetch(self._ids, field) if found is None else found.copy()


class PointsSlice:
    """Some neighbouring points of a reply, whose payload is decoded once for all of them."""

    def __init__(self, points: RemotePoints, start: int, stop: int) -> None:
        self._points = points
        self._start, self._stop = start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    def ids(self) -> IdColumn:
        """Their ids."""
        return self._points.ids().slice(self._start, self._stop)

    def payload(self) -> list[dict[str, Any]]:
        """The payload of each."""
        return self._points.payload()[self._start : self._stop]

    def vectors(self, field: str, schema: CollectionSchema) -> npt.NDArray[Any]:
        """Their vectors of one field."""
        points = self._points
        if field not in points._vectors:
            points = RemotePoints(self.ids(), None, {}, points._fetch)
            return points.vectors(field, schema)
        return points._vectors[field][self._start : self._stop].copy()


@dataclass(frozen=True, slots=True)
class RemotePerformance:
    """What a search cost the cluster; of one sent in parts, of all of them."""

    latency_ms: float
    vectors_scanned: int
    segments_searched: int
    segments_skipped: int
    cache_hit_rate: float
    cost_estimate: float


class RemoteAnswer:
    """The hits of m queries, out of one reply or several."""

    def __init__(self, replies: Sequence[router_pb2.SearchReply], fetch: FetchVectors) -> None:
        self._points = _joined([_points_of(reply, fetch) for reply in replies], fetch)
        self.counts: Int64 = np.concatenate([np.frombuffer(r.counts, "<u4") for r in replies]).astype(np.int64)
        flat = np.concatenate([np.frombuffer(r.distances, "<f4") for r in replies])
        if not len(flat) == int(self.counts.sum()) == len(self._points):
            raise _malformed("counts, distances and ids disagree")
        self._ends = np.cumsum(self.counts)
        self.distances: Float32 = _matrix(flat, self.counts)
        self.performance = _performance([reply.performance for reply in replies])
        self.stale_possible = any(reply.stale_possible for reply in replies)

    def picked(self, query: int) -> PointsSlice:
        """The hits of one query, nearest first."""
        stop = int(self._ends[query])
        return PointsSlice(self._points, stop - int(self.counts[query]), stop)


@dataclass(frozen=True, slots=True)
class RemotePage:
    """Some points and the cursor of the next page."""

    picked: RemotePoints
    cursor: str | None


@dataclass(frozen=True, slots=True)
class RemoteReceipt:
    """What became of a write; sent in parts, of all of them."""

    ids: IdColumn
    count: int
    stamp: int
    lsn: int
    durability: str


def points_of(
    ids: common_pb2.Ids,
    payload: common_pb2.Columns,
    vectors: Sequence[common_pb2.Vectors],
    fetch: FetchVectors,
    versions: bytes = b"",
) -> RemotePoints:
    """The points of a reply."""
    column = convert.ids_from_proto(ids)
    n = len(column)
    matrices = {message.field: convert.vectors_from_proto(message, rows=n) for message in vectors}
    if len(versions) % 8:
        raise _malformed(f"{len(versions)} bytes of versions")
    told = np.frombuffer(versions, "<u8").astype(np.uint64)
    return RemotePoints(column, convert.columns_from_proto(payload, rows=n), matrices, fetch, told)


def joined_points(parts: Sequence[RemotePoints], fetch: FetchVectors) -> RemotePoints:
    """The points of several replies, one after the other."""
    return _joined(parts, fetch)


def joined_receipts(replies: Sequence[router_pb2.WriteReply], ids: IdColumn | None) -> RemoteReceipt:
    """One receipt for the parts of a write; ``ids`` None are those that the server drew."""
    drawn = IdColumn.concat([convert.ids_from_proto(reply.ids) for reply in replies]) if ids is None else ids
    return RemoteReceipt(
        drawn,
        sum(reply.count for reply in replies),
        max(reply.stamp for reply in replies),
        max(reply.lsn for reply in replies),
        replies[-1].durability,
    )


def stats_of(value: Any) -> Any:
    """Numbers of a collection by attribute, as the embedded database gives them."""
    if isinstance(value, dict):
        named = {k: value[k] for k in value if k not in ("memory_bytes",)}
        space = SimpleNamespace(**{name: stats_of(part) for name, part in named.items()})
        if "memory_bytes" in value:
            space.memory_bytes = value["memory_bytes"]
        return space
    return tuple(stats_of(part) for part in value) if isinstance(value, list) else value


def _points_of(reply: router_pb2.SearchReply, fetch: FetchVectors) -> RemotePoints:
    return points_of(reply.ids, reply.payload, [reply.vectors] if reply.HasField("vectors") else [], fetch)


def _joined(parts: Sequence[RemotePoints], fetch: FetchVectors) -> RemotePoints:
    if len(parts) == 1:
        return parts[0]
    joined = RemotePoints(
        IdColumn.concat([part.ids() for part in parts]),
        None,
        {field: np.concatenate([p._vectors[field] for p in parts]) for field in parts[0]._vectors},
        fetch,
        np.concatenate([part.stamps() for part in parts]),
    )
    if any(part._payload is not None for part in parts):
        joined._rows = [row for part in parts for row in part.payload()]
    return joined


def _matrix(flat: Float32, counts: Int64) -> Float32:
    """(m, k) distances of flat ones; rows with fewer are filled up with infinity."""
    if not len(counts):
        return np.empty((0, 0), np.float32)
    k = int(counts.max())
    if k * len(counts) == len(flat):
        return flat.reshape(len(counts), k)
    out = np.full((len(counts), k), np.inf, np.float32)
    out[np.arange(k) < counts[:, None]] = flat
    return out


def _performance(parts: Sequence[common_pb2.Performance]) -> RemotePerformance:
    hit_rates = [part.cache_hit_rate for part in parts]
    return RemotePerformance(
        sum(part.latency_ms for part in parts),
        sum(part.vectors_scanned for part in parts),
        sum(part.segments_searched for part in parts),
        sum(part.segments_skipped for part in parts),
        sum(hit_rates) / len(hit_rates),
        sum(part.cost_estimate for part in parts),
    )


def _malformed(what: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"a malformed answer: {what}", field="reply", mend="the server's release may not fit")


__all__ = [
    "FetchVectors",
    "PointsSlice",
    "RemoteAnswer",
    "RemotePage",
    "RemotePerformance",
    "RemotePoints",
    "RemoteReceipt",
    "joined_points",
    "joined_receipts",
    "points_of",
    "stats_of",
]
