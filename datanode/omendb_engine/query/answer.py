"""Results of reads: rows picked from a snapshot, turned into ids, payload and vectors only when asked for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.ids import IdColumn, U64Array
from omendb_common.overlays import NO_OVERLAYS, Overlays
from omendb_common.payload import concat_batches
from omendb_common.plain_arrow import arrow_of_numpy
from omendb_common.schema import CollectionSchema, Float32Array
from omendb_engine.overrides import BASE
from omendb_engine.parts import AnyPart, I32Array, I64Array, Snapshot, take_payload
from omendb_engine.payload.hashes import mix, name_hash
from omendb_engine.vectors import restore


class Performance(NamedTuple):
    """What an answer took.

    ``vectors_scanned``: vectors compared (an estimate for graph searches). ``cache_hit_rate``: share of filter
    and column look-ups answered from a cache, 1.0 when there were none. ``cost_estimate``: MiB of vectors
    compared, a machine-independent measure of the work.
    """

    latency_ms: float
    vectors_scanned: int
    segments_searched: int
    segments_skipped: int
    cache_hit_rate: float
    cost_estimate: float


class Picked:
    """Rows of a snapshot, in order. Holding it keeps those rows readable, whatever is written meanwhile."""

    __slots__ = ("_part", "_row", "_snapshot")

    def __init__(self, snapshot: Snapshot, part: I32Array | int, row: I64Array) -> None:
        self._snapshot = snapshot
        self._part = part
        self._row = row

    def __len__(self) -> int:
        return len(self._row)

    def groups(self) -> list[tuple[AnyPart, I64Array, I64Array]]:
        """(part, positions in the answer, rows in the part)."""
        if not len(self._row):
            return []
        if isinstance(self._part, int):
            return [(self._snapshot.parts[self._part], np.arange(len(self._row)), self._row)]
        out = []
        for number in np.unique(self._part).tolist():
            where = np.flatnonzero(self._part == number)
            out.append((self._snapshot.parts[number], where, self._row[where]))
        return out

    def ids(self) -> IdColumn:
        """The ids, in order."""
        if isinstance(self._part, int):
            return self._snapshot.parts[self._part].ids_at(self._row) if len(self._row) else IdColumn.empty()
        groups = self.groups()
        if not groups:
            return IdColumn.empty()
        order = np.concatenate([where for _, where, _ in groups])
        column = IdColumn.concat([part.ids_at(rows) for part, _, rows in groups])
        return column.take(np.argsort(order))

    def stamps(self) -> U64Array:
        """The stamps (versions), in order."""
        out = np.zeros(len(self._row), np.uint64)
        for part, where, rows in self.groups():
            out[where] = part.stamps_at(rows)
        return out

    def overlays(self) -> Overlays:
        """Those of the points that carry fields newer than their base."""
        found = [
            Overlays(where[some.rows], some.bases, some.marks)
            for part, where, rows in self.groups()
            if len((some := _overlaid(part, rows)).rows)
        ]
        if not found:
            return NO_OVERLAYS
        rows, bases, marks = (np.concatenate(columns) for columns in zip(*found, strict=True))
        order = np.argsort(rows)
        return Overlays(rows[order], bases[order], marks[order])

    def payload(self) -> list[dict[str, Any]]:
        """The payload of each row as a dict, in order."""
        if isinstance(self._part, int):
            return self._snapshot.parts[self._part].columns().payloads(self._row) if len(self._row) else []
        out: list[dict[str, Any]] = [{}] * len(self._row)
        for part, where, rows in self.groups():
            for position, value in zip(where.tolist(), part.columns().payloads(rows), strict=True):
                out[position] = value
        return out

    def columns(self) -> pa.RecordBatch:
        """The payload of each row as typed columns, in order; a batch without columns when no row has any."""
        groups = self.groups()
        if not groups:
            return pa.RecordBatch.from_arrays([], names=[])
        pieces = [take_payload(part.columns(), rows) for part, _, rows in groups]
        batch = concat_batches(pieces, [len(rows) for _, _, rows in groups])
        if len(groups) == 1 or not batch.num_columns:
            return batch
        order = np.concatenate([where for _, where, _ in groups])
        return batch.take(arrow_of_numpy(np.argsort(order)))

    def vectors(self, field: str, schema: CollectionSchema) -> npt.NDArray[Any]:
        """The vectors of ``field`` as written, (n, dimension) in the field's dtype."""
        spec = schema.vector(field)
        out = np.empty((len(self._row), spec.dimension), spec.numpy_dtype)
        for part, where, rows in self.groups():
            out[where] = restore(part.vectors_at(field, rows))
        return out


class SearchAnswer:
    """Hits of ``m`` queries.

    ``distances``: (m, k) float32, smaller is nearer; ``counts``: how many of each row are hits.
    """

    __slots__ = ("_part", "_row", "_snapshot", "counts", "distances", "performance")

    def __init__(
        self,
        snapshot: Snapshot,
        part: I32Array | int,
        row: I64Array,
        distances: Float32Array,
        counts: I64Array,
        performance: Performance,
    ) -> None:
        self._snapshot = snapshot
        self._part = part
        self._row = row
        self.distances = distances
        self.counts = counts
        self.performance = performance

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def lsn(self) -> int:
        """The position of the log that was searched."""
        return self._snapshot.lsn

    def all_picked(self) -> Picked:
        """The hits of all queries, those of the first one first."""
        hits = np.arange(self._row.shape[1]) < self.counts[:, None]
        part = self._part if isinstance(self._part, int) else self._part[hits]
        return Picked(self._snapshot, part, self._row[hits])

    def picked(self, query: int) -> Picked:
        """The hits of one query, best first."""
        count, row = int(self.counts[query]), self._row[query]
        part = self._part if isinstance(self._part, int) else self._part[query, :count]
        return Picked(self._snapshot, part, row if count == len(row) else row[:count])


def _overlaid(part: AnyPart, rows: I64Array) -> Overlays:
    """Which of ``rows`` of a part carry fields newer than their base."""
    known = part.overrides()
    if len(known):
        known = known.at(rows)
    if not len(known):
        return NO_OVERLAYS
    bases = np.array(part.stamps_at(rows), np.uint64)
    stored = known.of_field(BASE)
    bases[stored.rows] = stored.stamps
    fields = known.where((known.fields != BASE) & (known.stamps > bases[known.rows]))
    marks = np.zeros(len(rows), np.uint64)
    for name in dict.fromkeys(fields.fields.tolist()):
        some = fields.of_field(name)
        marks[some.rows] += mix(mix(some.stamps) ^ name_hash(name))
    at = np.unique(fields.rows).astype(np.int64)
    return Overlays.of(at, bases[at], marks[at])


__all__ = ["Performance", "Picked", "SearchAnswer"]
