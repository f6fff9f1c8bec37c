"""Which points of an answer carry fields newer than the upsert under them: what tells two versions apart (P9).

The newest stamp of a point does not say what lies under it: a field update lies over whatever version its replica had.
So an answer names, beside the newest stamps, the few rows that have such fields, with the stamp of their base and a
mark of the fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

U64Array = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]


class Overlays(NamedTuple):
    """``rows`` of an answer, ascending: nearly always none.

    ``bases``: the stamp of the upsert (or of the deletion) that their fields are newer than. ``marks``: a hash, never
    0, of which fields carry which stamps. Of every other row the base is its stamp, and the mark 0.
    """

    rows: Int64
    bases: U64Array
    marks: U64Array

    @staticmethod
    def of(rows: Int64, bases: U64Array, marks: U64Array) -> Overlays:
        """The same, with marks that differ from 0."""
        return Overlays(rows, bases, np.maximum(marks, np.uint64(1))) if len(rows) else NO_OVERLAYS

    def spread(self, stamps: U64Array) -> tuple[U64Array, U64Array]:
        """Base and mark of every row of an answer with these ``stamps``."""
        marks = np.zeros(len(stamps), np.uint64)
        if not len(self.rows):
            return stamps, marks
        bases = stamps.copy()
        bases[self.rows], marks[self.rows] = self.bases, self.marks
        return bases, marks

    def cut(self, first: int, last: int) -> Overlays:
        """Those of rows ``first`` to ``last`` (not included), numbered from ``first``."""
        if not len(self.rows):
            return self
        low, high = np.searchsorted(self.rows, [first, last]).tolist()
        return Overlays(self.rows[low:high] - first, self.bases[low:high], self.marks[low:high])

    @staticmethod
    def joined(parts: Sequence[Overlays], counts: Sequence[int]) -> Overlays:
        """Those of answers with so many rows, one after the other."""
        if not any(len(part.rows) for part in parts):
            return NO_OVERLAYS
        starts = np.cumsum([0, *counts])[: len(parts)].tolist()
        return Overlays(
            np.concatenate([part.rows + start for part, start in zip(parts, starts, strict=True)]),
            np.concatenate([part.bases for part in parts]),
            np.concatenate([part.marks for part in parts]),
        )


NO_OVERLAYS = Overlays(np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.uint64))

__all__ = ["NO_OVERLAYS", "Overlays"]
