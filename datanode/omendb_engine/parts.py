"""Parts: what a reader sees of one growing buffer or one segment, with its dead rows.

A snapshot is an immutable tuple of such views. Readers take one reference and hold no lock while they search;
writers publish a new snapshot that shares everything it did not change.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.ids import IdColumn, IdSpan, U64Array
from omendb_common.payload import split_name
from omendb_common.schema import CollectionSchema, Float32Array
from omendb_engine.growing import GrowingBuffer
from omendb_engine.index.base import VectorIndex
from omendb_engine.overrides import FieldStamps
from omendb_engine.payload.columns import ColumnStore
from omendb_engine.query.rowset import RowSet
from omendb_engine.segment.deletes import Deletes
from omendb_engine.segment.reader import Segment
from omendb_engine.vectors import Prepared, prepare

I64Array = npt.NDArray[np.int64]
I32Array = npt.NDArray[np.int32]


@dataclass(frozen=True)
class BufferPart:
    """The first ``n`` rows of a growing buffer."""

    buffer: GrowingBuffer
    n: int
    dead: Deletes

    @property
    def part_id(self) -> int:
        """The buffer's number; negative, so that it never meets a segment's."""
        return self.buffer.part_id

    @property
    def span(self) -> IdSpan:
        """Bounds of the ids, of later rows too."""
        return self.buffer.span

    def lookup(self, hi: U64Array, lo: U64Array) -> I32Array:
        """The newest visible row of each id hash, -1 where there is none; the row may be dead."""
        return self.buffer.lookup(hi, lo, self.n)

    def ids_at(self, rows: npt.NDArray[Any]) -> IdColumn:
        """Ids of a few rows."""
        return self.buffer.ids_at(rows) if len(rows) < 64 else self.all_ids().take(rows)

    def all_ids(self) -> IdColumn:
        """Ids of all visible rows."""
        return self.buffer.all_ids(self.n)

    def keys(self) -> tuple[U64Array, U64Array]:
        """Id hashes of all visible rows."""
        return self.buffer.hi[: self.n], self.buffer.lo[: self.n]

    def stamps_at(self, rows: npt.NDArray[Any]) -> U64Array:
        """Stamps of rows."""
        return np.asarray(self.buffer.stamps[rows])

    def vectors_at(self, field: str, rows: npt.NDArray[Any]) -> Prepared:
        """Vectors of rows."""
        return self.buffer.vectors.at(field, rows)

    def space(self, field: str) -> Float32Array:
        """All visible vectors in searched form, a view."""
        return self.buffer.vectors.space[field][: self.n]

    @cached_property
    def _columns(self) -> ColumnStore:
        return self.buffer.columns(self.n)

    def columns(self) -> ColumnStore:
        """Payload of the visible rows."""
        return self._columns

    def overrides(self) -> FieldStamps:
        """Per-field stamps, sorted by row."""
        return self.buffer.overrides()

    @cached_property
    def _alive(self) -> RowSet:
        return RowSet.of_mask(self.dead.alive())

    def alive(self) -> RowSet:
        """The rows that are not dead."""
        return self._alive

    def tombstone_stamps(self, hi: U64Array, lo: U64Array) -> U64Array:
        """The stamp of each id's newest tombstone, 0 where there is none."""
        return self.buffer.tombstones.newest(hi, lo)

    def with_dead(self, dead: Deletes) -> BufferPart:
        """The same rows with other dead ones."""
        return BufferPart(self.buffer, self.n, dead)

    def grown(self, n: int) -> BufferPart:
        """More rows of the same buffer."""
        return BufferPart(self.buffer, n, self.dead.grown(n))


@dataclass(frozen=True)
class SegmentPart:
    """A sealed segment."""

    segment: Segment
    schema: CollectionSchema
    dead: Deletes

    @property
    def part_id(self) -> int:
        """The segment's number."""
        return self.segment.id

    @property
    def index(self) -> VectorIndex | None:
        """The index of the first vector field, None while the segment is searched exactly."""
        return self.index_of(self.schema.vectors[0].name)

    @property
    def n(self) -> int:
        """Rows in the segment, dead ones included."""
        return self.segment.n

    @property
    def span(self) -> IdSpan:
        """Bounds of the ids."""
        return self.segment.ids.span()

    def lookup(self, hi: U64Array, lo: U64Array) -> I32Array:
        """The row of each id hash, -1 where there is none; the row may be dead."""
        return self.segment.lookup(hi, lo)

    def ids_at(self, rows: npt.NDArray[Any]) -> IdColumn:
        """Ids of rows."""
        return self.segment.ids.take(rows)

    def all_ids(self) -> IdColumn:
        """Ids of all rows."""
        return self.segment.ids

    def keys(self) -> tuple[U64Array, U64Array]:
        """Id hashes of all rows."""
        return self.segment.hi, self.segment.lo

    def stamps_at(self, rows: npt.NDArray[Any]) -> U64Array:
        """Stamps of rows."""
        return np.asarray(self.segment.stamps[rows])

    def vectors_at(self, field: str, rows: npt.NDArray[Any]) -> Prepared:
        """Vectors of rows."""
        spec = self.schema.vector(field)
        stored = self.segment.vectors(field)[rows]
        if spec.dtype != "float32":
            return prepare(spec, stored)
        norms = self.segment.norms(field)
        return Prepared(stored, norms[rows] if norms is not None else None, None)

    def index_of(self, field: str) -> VectorIndex | None:
        """The index of the first vector field; None for others, and while the segment is searched exactly."""
        return self.segment.usable_index(field)

    @cached_property
    def _alive(self) -> RowSet:
        return RowSet.of_mask(self.dead.alive())

    def alive(self) -> RowSet:
        """The rows that are not dead."""
        return self._alive

    def alive_bits(self) -> npt.NDArray[np.uint8]:
        """The same as packed bits, made once per view."""
        return self._alive.bits()

    def tombstone_stamps(self, hi: U64Array, lo: U64Array) -> U64Array:
        """The stamp of each id's tombstone, 0 where there is none."""
        return self.segment.lookup_tombstones(hi, lo)

    def columns(self) -> ColumnStore:
        """Payload of the rows."""
        return self.segment.columns

    def overrides(self) -> FieldStamps:
        """Per-field stamps, sorted by row."""
        stored = self.segment.overrides()
        return FieldStamps.empty() if stored is None else stored

    def with_dead(self, dead: Deletes) -> SegmentPart:
        """The same rows with other dead ones."""
        return SegmentPart(self.segment, self.schema, dead)


AnyPart = BufferPart | SegmentPart


@dataclass(frozen=True, slots=True)
class Located:
    """Where the live row of each asked id is: ``part`` indexes the snapshot's parts (-1: absent)."""

    part: I32Array
    row: I64Array

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """Which ids exist."""
        return self.part >= 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a reader needs, as of log position ``lsn``. Parts are oldest first; buffers come last.

    ``routes``: what :mod:`omendb_engine.query.search` found out about the way through these parts.
    """

    parts: tuple[AnyPart, ...]
    lsn: int
    live: int
    routes: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def in_memory(self) -> bool:
        """Whether all of it is in buffers: reading it waits for no disk."""
        return all(isinstance(part, BufferPart) for part in self.parts)

    def find(self, ids: IdColumn) -> Located:
        """Find the live row of each id; parts that can hold none of them are not asked."""
        return self.locate(*ids.hashes(), ids.span())

    def locate(self, hi: U64Array, lo: U64Array, span: IdSpan | None = None) -> Located:
        """Find the live row of each id hash; this is the id table's authority (invariant I4)."""
        count = len(hi)
        part_of = np.full(count, -1, np.int32)
        row_of = np.full(count, -1, np.int64)
        pending: I64Array | None = None  # None: all of them
        for number in range(len(self.parts) - 1, -1, -1):
            part = self.parts[number]
            if part.n == part.dead.count or (span is not None and not span.meets(part.span)):
                continue
            rows = part.lookup(hi, lo) if pending is None else part.lookup(hi[pending], lo[pending])
            hit = rows >= 0
            if not hit.any():
                continue
            if part.dead.count:
                hit[hit] = ~part.dead.contains(rows[hit])
            where = np.flatnonzero(hit) if pending is None else pending[hit]
            part_of[where], row_of[where] = number, rows[hit]
            pending = np.flatnonzero(part_of < 0)
            if not len(pending):
                break
        return Located(part_of, row_of)

    def by_part(self, located: Located) -> list[tuple[int, I64Array, I64Array]]:
        """Group found ids: (part number, positions in the question, rows in the part)."""
        out = []
        for number in np.unique(located.part[located.part >= 0]).tolist():
            where = np.flatnonzero(located.part == number)
            out.append((int(number), where, located.row[where]))
        return out


def take_payload(columns: ColumnStore, rows: I64Array) -> pa.RecordBatch | None:
    """The payload of some rows, in their order; None when no row of the part has any."""
    names = columns.catalog.names
    if not names:
        return None
    return pa.RecordBatch.from_arrays([columns.gather(*split_name(name), rows) for name in names], names=list(names))


__all__ = ["AnyPart", "BufferPart", "Located", "SegmentPart", "Snapshot", "take_payload"]
