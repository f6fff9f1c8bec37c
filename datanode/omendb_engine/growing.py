"""The growing buffer: acknowledged points that are in no segment yet, in preallocated columns.

One writer appends; any number of readers search at the same time without a lock. Rows are written past the
end that any snapshot covers, so a row is never changed once a reader can see it. The buffer covers the
contiguous log range ``(start_lsn, end_lsn]``, and remembers which rows of older parts its operations
killed: those are what its seal adds to the manifest's delete sets.
"""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.ids import NO_IDS, IdColumn, U64Array
from omendb_common.schema import CollectionSchema
from omendb_engine.buffer_memory import BufferMemory, BufferPool
from omendb_engine.overrides import FieldStamps, StampLog
from omendb_engine.payload.columns import ColumnStore, GrowingColumns
from omendb_engine.row_digests import RowDigests
from omendb_engine.segment.deletes import Deletes
from omendb_engine.tombstones import Tombstones
from omendb_engine.vectors import Prepared, VectorColumns, vector_row_bytes

# id hash (16), stamp (8), index slots (4 bytes, four to eight a row) and chain (4)
_KEY_ROW_BYTES = 16 + 8 + 24 + 4

# Below so much a buffer's own writes have soon touched what there is.
_COLD_BYTES_MIN = 256 << 10


def row_bytes(schema: CollectionSchema) -> int:
    """Memory one row of a growing buffer takes, without its payload."""
    return vector_row_bytes(schema) + _KEY_ROW_BYTES


class GrowingBuffer:
    """At most ``capacity`` rows after log position ``start_lsn``.

    Its arrays go back to ``pool`` when the object dies: whoever holds a view of them must hold the buffer,
    or a part or snapshot that shows it, for as long.
    """

    def __init__(
        self,
        part_id: int,
        schema: CollectionSchema,
        capacity: int,
        start_lsn: int,
        pool: BufferPool | None = None,
    ) -> None:
        memory = BufferMemory(schema, capacity) if pool is None else pool.take(capacity)
        if pool is not None:
            weakref.finalize(self, pool.give, memory).atexit = False
        self.part_id = part_id
        self.schema = schema
        self.capacity = capacity
        self.start_lsn = start_lsn
        self.end_lsn = start_lsn
        self.n = 0
        self.span = NO_IDS
        self.hi: U64Array = memory.hi
        self.lo: U64Array = memory.lo
        self.stamps: U64Array = memory.stamps
        self.vectors: VectorColumns = memory.vectors
        self.kills: dict[int, list[npt.NDArray[np.int64]]] = {}
        self.tombstones = Tombstones()
        self.digests = RowDigests()
        self.dead_at_freeze = Deletes.none(0)
        self.reserved_bytes = capacity * row_bytes(schema)
        self.memory = memory
        self._index = memory.index
        self._columns = GrowingColumns()
        self._ids: list[IdColumn] = []
        self._starts: list[int] = []
        self._overrides = StampLog()

    def cold_rows(self, *, whole: bool) -> tuple[int, int]:
        """The rows whose memory should be asked for now, so that they are never waited for; each is named once.

        Twice as many as there are, or, where the buffer is sure to be filled, ``whole``, all of them.
        """
        memory = self.memory
        if self.n * row_bytes(self.schema) < _COLD_BYTES_MIN:
            return 0, 0
        if memory.asked_rows >= self.capacity or (self.n <= memory.asked_rows // 2 and not whole):
            return 0, 0
        first = max(memory.asked_rows, self.n)
        memory.asked_rows = self.capacity if whole else min(self.capacity, 4 * self.n)
        return first, memory.asked_rows

    def room(self) -> int:
        """Rows that still fit."""
        return self.capacity - self.n

    def append(
        self,
        ids: IdColumn,
        stamps: U64Array | int,
        vectors: Mapping[str, Prepared],
        payload: pa.RecordBatch | None,
        overrides: FieldStamps | None = None,
    ) -> int:
        """Write rows after the last one and index their ids (which must differ); returns the first row.

        Readers see the rows only when a snapshot that covers them is published.
        """
        first, count = self.n, len(ids)
        stop = first + count
        hi, lo = ids.hashes()
        self.hi[first:stop], self.lo[first:stop], self.stamps[first:stop] = hi, lo, stamps
        self.vectors.put(first, vectors)
        self._columns.append(payload, count)
        self._ids.append(ids)
        self._starts.append(first)
        if overrides is not None and len(overrides):
            moved = FieldStamps((overrides.rows + first).astype(np.int32), overrides.fields, overrides.stamps)
            self._overrides.add(moved)
        self._index.insert(first, count)
        self.span = self.span.joined(ids.span())
        self.n = stop
        return first

    def bury(self, ids: IdColumn, stamps: U64Array) -> None:
        """Remember that ``ids`` were deleted at ``stamps``, u64 (n)."""
        self.tombstones.add(ids, stamps)

    @property
    def tombstone_rows(self) -> int:
        """Deletions remembered."""
        return self.tombstones.rows

    def record_kill(self, part_id: int, rows: npt.NDArray[np.int64]) -> None:
        """Remember that an operation of this buffer killed ``rows`` of an older part."""
        self.kills.setdefault(part_id, []).append(rows)

    def lookup(self, hi: U64Array, lo: U64Array, visible: int) -> npt.NDArray[np.int32]:
        """The newest row below ``visible`` of each id hash, -1 where there is none."""
        return self._index.find(hi, lo, visible)

    def ids_at(self, rows: npt.NDArray[Any]) -> IdColumn:
        """The ids of a few rows."""
        chunks = [bisect_right(self._starts, int(r)) - 1 for r in rows]
        columns = [
            self._ids[c].slice(int(r) - self._starts[c], int(r) - self._starts[c] + 1)
            for c, r in zip(chunks, rows, strict=True)
        ]
        return IdColumn.concat(columns)

    def all_ids(self, n: int) -> IdColumn:
        """The ids of the first ``n`` rows."""
        return IdColumn.concat(self._ids).slice(0, n)

    def columns(self, n: int) -> ColumnStore:
        """The payload of the first ``n`` rows."""
        return self._columns.view(n)

    def payload_batch(self, n: int) -> pa.RecordBatch | None:
        """The payload of the first ``n`` rows as one batch, None when no row has any."""
        batch = self._columns.view(n).batch()
        return batch if batch.num_columns else None

    def overrides(self) -> FieldStamps:
        """Per-field stamps of all rows, sorted by row."""
        return self._overrides.all()


__all__ = ["GrowingBuffer", "row_bytes"]
