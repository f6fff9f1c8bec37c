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

# Keys from which on a pass over arrays costs no more than a loop over the keys.
_FEW = 24


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
        pending: I64Array | None = None  # None: all of them
        slots = (hi & self._mask).view(np.int64)
        limit = int(self._mask)
        while len(slots) > _FEW:
            rows = self._slots.take(slots)
            occupied = np.flatnonzero(rows >= 0)
            if not len(occupied):
                return out
            pending = occupied if pending is None else pending.take(occupied)
            slots, rows = slots.take(occupied), rows.take(occupied)
            equal = self._hi.take(rows) == hi.take(pending)
            equal &= self._lo.take(rows) == lo.take(pending)
            out[pending[equal]] = rows[equal]
            rest = np.flatnonzero(~equal)
            pending = pending.take(rest)
            slots = (slots.take(rest) + 1) & limit
        for place, slot in zip(range(len(slots)) if pending is None else pending.tolist(), slots.tolist(), strict=True):
            out[place] = self._walk(int(hi[place]), int(lo[place]), slot)[0]
        return out

    def _walk(self, hi: int, lo: int, slot: int) -> tuple[int, int]:
        """From ``slot`` on, the row that holds a key, -1 when none does, and the slot where that showed."""
        rows, his, los, limit = self._slots, self._hi, self._lo, int(self._mask)
        while (row := rows.item(slot)) >= 0 and not (his.item(row) == hi and los.item(row) == lo):
            slot = (slot + 1) & limit
        return row, slot

    def insert(self, first: int, count: int) -> None:
        """Index rows ``first .. first+count-1``, whose keys are already in the columns and all differ."""
        rows = np.arange(first, first + count, dtype=np.int32)
        slots = (self._hi[first : first + count] & self._mask).view(np.int64)
        limit = int(self._mask)
        while len(rows) > _FEW:
            holders = self._slots.take(slots)
            taken = np.flatnonzero(holders >= 0)
            if len(taken):
                held, mine = holders.take(taken), rows.take(taken)
                same = self._hi.take(held) == self._hi.take(mine)
                same &= self._lo.take(held) == self._lo.take(mine)
                if same.any():
                    # The chain before the slot: a reader may come by at any moment.
                    self.previous[mine[same]] = held[same]
                    self._slots[slots[taken[same]]] = mine[same]
            # Several rows may want one free slot: all write, the last one stays, the others go on.
            free = np.flatnonzero(holders < 0)
            self._slots[slots.take(free)] = rows.take(free)
            rest = np.flatnonzero(self._slots.take(slots) != rows)
            rows = rows.take(rest)
            slots = (slots.take(rest) + 1) & limit
        for row, slot in zip(rows.tolist(), slots.tolist(), strict=True):
            holder, at = self._walk(self._hi.item(row), self._lo.item(row), slot)
            if holder >= 0:
                self.previous[row] = holder
            self._slots[at] = row


__all__ = ["HashIndex"]
