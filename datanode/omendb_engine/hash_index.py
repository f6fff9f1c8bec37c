"""An open-addressing index from 128-bit id hashes to rows, probed a whole batch at a time.

It belongs to one growing buffer, whose ``hi`` and ``lo`` columns hold the keys; the table itself stores
only row numbers (4 bytes a slot, at most a quarter full: a probe
of a whole batch takes as many rounds as its unluckiest key). A row that supersedes another of the same id is
chained to it through ``previous``, so that a reader whose snapshot ends before the newer row still finds
the older one.

One writer inserts; readers look up at the same time without a lock. A reader may see a row its snapshot
does not cover yet and walks the chain to one that it does.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from omendb_common.ids import U64Array

I32Array = npt.NDArray[np.int32]
I64Array = npt.NDArray[np.int64]


class HashIndex:
    """Rows by id hash for at most ``capacity`` rows of the columns ``hi`` and ``lo``."""

    __slots__ = ("_hi", "_lo", "_mask", "_slots", "previous")

    def __init__(self, hi: U64Array, lo: U64Array, capacity: int) -> None:
        size = 1 << max(4, (4 * capacity - 1).bit_length())
        self._slots: I32Array = np.full(size, -1, np.int32)
        self._mask = np.uint64(size - 1)
        self._hi = hi
        self._lo = lo
        self.previous: I32Array = np.full(capacity, -1, np.int32)

    def clear(self) -> None:
        """Forget every row."""
        self._slots.fill(-1)
        self.previous.fill(-1)

    @property
    def nbytes(self) -> int:
        """Bytes of the table and the chains."""
        return self._slots.nbytes + self.previous.nbytes

    def find(self, hi: U64Array, lo: U64Array, visible: int) -> I32Array:
        """The newest row below ``visible`` of each key, -1 where there is none."""
        rows = self._probe(hi, lo)
        late = np.flatnonzero(rows >= visible)
        while len(late):
            rows[late] = self.previous[rows[late]]
            late = late[rows[late] >= visible]
        return rows

    def _probe(self, hi: U64Array, lo: U64Array) -> I32Array:
        out = np.full(len(hi), -1, np.int32)
        pending: I64Array = np.arange(len(hi))
        slots = (hi & self._mask).astype(np.int64)
        limit = int(self._mask)
        while len(pending):
            rows = self._slots[slots]
            occupied = rows >= 0
            if not occupied.all():
                pending, slots, rows = pending[occupied], slots[occupied], rows[occupied]
            equal = (self._hi[rows] == hi[pending]) & (self._lo[rows] == lo[pending])
            if equal.any():
                out[pending[equal]] = rows[equal]
                rest = ~equal
                pending, slots = pending[rest], slots[rest]
            slots = (slots + 1) & limit
        return out

    def insert(self, first: int, count: int) -> None:
        """Index rows ``first .. first+count-1``, whose keys are already in the columns and all differ."""
        rows = np.arange(first, first + count, dtype=np.int32)
        slots = (self._hi[first : first + count] & self._mask).astype(np.int64)
        limit = int(self._mask)
        while len(rows):
            holders = self._slots[slots]
            same = np.zeros(len(rows), np.bool_)
            taken = np.flatnonzero(holders >= 0)
            if len(taken):
                held, mine = holders[taken], rows[taken]
                same[taken] = (self._hi[held] == self._hi[mine]) & (self._lo[held] == self._lo[mine])
            free = holders < 0
            # Several rows may want one free slot: all write, the last one stays, the others go on.
            self._slots[slots[free]] = rows[free]
            placed = free & (self._slots[slots] == rows)
            if same.any():
                self.previous[rows[same]] = holders[same]
                self._slots[slots[same]] = rows[same]
                placed |= same
            rest = ~placed
            rows = rows[rest]
            slots = (slots[rest] + 1) & limit


__all__ = ["HashIndex"]
