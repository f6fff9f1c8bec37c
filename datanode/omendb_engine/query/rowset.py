"""Sets of rows of one segment or buffer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

RowArray = npt.NDArray[np.int64]
MaskArray = npt.NDArray[np.bool_]
BitArray = npt.NDArray[np.uint8]

# A set with fewer than 1/16 of the rows is kept sparse: 8 bytes a row are then less than a byte a candidate,
# and the operations on sorted rows are the faster ones.
SPARSE_FRACTION = 16


class RowSet:
    """An immutable set of rows 0..n-1: sparse (sorted int64 rows) or dense (bool mask of n).

    Arrays given and handed out are shared, not copied: nobody may write to them. ``uses``: how often it was found
    among the results that are kept; threads that count at the same time may miss one.
    """

    __slots__ = ("_bits", "_count", "_mask", "_rows", "n", "uses")

    def __init__(self, n: int, rows: RowArray | None, mask: MaskArray | None) -> None:
        self.n = n
        self.uses = 0
        self._rows = rows
        self._mask = mask
        self._bits: BitArray | None = None
        self._count = len(rows) if rows is not None else -1

    @staticmethod
    def of_rows(rows: npt.NDArray[np.integer[Any]], n: int) -> RowSet:
        """The set of ``rows``, which must be sorted, without doubles and below ``n``."""
        return RowSet(n, rows.astype(np.int64, copy=False), None)

    @staticmethod
    def of_mask(mask: MaskArray) -> RowSet:
        """The set of rows whose ``mask`` is true."""
        return RowSet(len(mask), None, mask)

    @staticmethod
    def all(n: int) -> RowSet:
        """Every row."""
        return RowSet.of_mask(np.ones(n, np.bool_))

    @staticmethod
    def none(n: int) -> RowSet:
        """No row."""
        return RowSet(n, np.empty(0, np.int64), None)

    @property
    def is_sparse(self) -> bool:
        """Whether it is kept as rows."""
        return self._mask is None

    @property
    def count(self) -> int:
        """Number of rows in the set."""
        if self._count < 0:
            assert self._mask is not None
            self._count = int(np.count_nonzero(self._mask))
        return self._count

    def __len__(self) -> int:
        return self.count

    def __bool__(self) -> bool:
        return self.count > 0

    def __repr__(self) -> str:
        return f"RowSet({self.count} of {self.n} rows)"

    def rows(self) -> RowArray:
        """The rows, ascending (int64)."""
        if self._rows is None:
            assert self._mask is not None
            self._rows = np.flatnonzero(self._mask).astype(np.int64, copy=False)
        return self._rows

    def mask(self) -> MaskArray:
        """A bool array of n; not kept when the set is sparse."""
        if self._mask is not None:
            return self._mask
        assert self._rows is not None
        mask = np.zeros(self.n, np.bool_)
        mask[self._rows] = True
        return mask

    def bits(self) -> BitArray:
        """The mask packed eight rows to a byte, lowest bit first: what ``faiss.IDSelectorBitmap`` reads."""
        if self._bits is None:
            self._bits = np.packbits(self.mask(), bitorder="little")
        return self._bits

    @property
    def nbytes(self) -> int:
        """Bytes of memory it may come to hold, including what it computes on demand."""
        per_row = 8 * self.count
        return 160 + per_row + self.n // 8 + (self.n if self._mask is not None else 0)

    def contains(self, rows: npt.NDArray[np.integer[Any]]) -> MaskArray:
        """For each of ``rows``, whether it is in the set."""
        if self._mask is not None:
            return np.asarray(self._mask[rows], np.bool_)
        assert self._rows is not None
        if not len(self._rows):
            return np.zeros(len(rows), np.bool_)
        at = np.searchsorted(self._rows, rows)
        np.minimum(at, len(self._rows) - 1, out=at)
        return np.asarray(self._rows[at] == rows, np.bool_)

    def __and__(self, other: RowSet) -> RowSet:
        if self._mask is not None and other._mask is not None:
            return RowSet.of_mask(self._mask & other._mask)
        small, large = (self, other) if other._mask is not None else (other, self)
        if small._mask is None and large._mask is None and small.count > large.count:
            small, large = large, small
        rows = small.rows()
        return RowSet.of_rows(rows[large.contains(rows)], self.n)

    def __or__(self, other: RowSet) -> RowSet:
        if self._mask is not None and other._mask is not None:
            return RowSet.of_mask(self._mask | other._mask)
        if self._mask is None and other._mask is None:
            if (self.count + other.count) * SPARSE_FRACTION <= self.n:
                return RowSet.of_rows(np.union1d(self.rows(), other.rows()), self.n)
            mask = self.mask()
            mask[other.rows()] = True
            return RowSet.of_mask(mask)
        dense, sparse = (self, other) if self._mask is not None else (other, self)
        mask = dense.mask().copy()
        mask[sparse.rows()] = True
        return RowSet.of_mask(mask)

    def __invert__(self) -> RowSet:
        return RowSet.of_mask(~self.mask())


__all__ = ["SPARSE_FRACTION", "BitArray", "MaskArray", "RowArray", "RowSet"]
