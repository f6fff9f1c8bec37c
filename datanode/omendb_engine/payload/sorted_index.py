"""A column's values in order, so that a rare value is found among millions in microseconds."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omendb_common.payload import Kind
from omendb_common.plain_arrow import arrow_of_numpy, filled, numpy_of_arrow
from omendb_engine.payload.conditions import ELEMENT_KINDS, Condition, Interval, Members
from omendb_engine.payload.scan import Mask, compare, scan, valid_mask, values_of_buffer

# Distinct texts up to which they are also kept as a Python list: bisect then takes under a microsecond.
_LISTED = 4096


@dataclass(frozen=True, slots=True)
class Spans:
    """Stretches of an index's order that do not overlap: one, as numbers, or many, as arrays."""

    starts: Any
    stops: Any
    count: int


class SortedIndex:
    """The values of one column (of a list column: its elements) sorted, each with its row. Immutable.

    Text is replaced by its rank among the column's distinct texts (``codes``, int32, -1 where null), which
    also makes a full pass over it as cheap as one over numbers.
    """

    __slots__ = ("_codes", "_dictionary", "_has_doubles", "_listed", "_rows", "_sorted", "n")

    def __init__(self, array: pa.Array, kind: Kind) -> None:
        """Sort ``array`` of one of the kinds i, f, t, s or a list of these."""
        self.n = len(array)
        element = ELEMENT_KINDS.get(kind, kind)
        self._has_doubles = kind in ELEMENT_KINDS
        self._codes: npt.NDArray[np.int32] | None = None
        self._dictionary: pa.StringArray | None = None
        self._listed: list[str] | None = None
        rows, elements = _elements(array) if self._has_doubles else (None, array)
        values: npt.NDArray[Any]
        if element == "s":
            values, self._dictionary = _ranks(elements)
            if len(self._dictionary) <= _LISTED:
                self._listed = self._dictionary.to_pylist()
            self._codes = None if self._has_doubles else values
        else:
            values = values_of_buffer(elements, element)
        if elements.null_count:
            present = np.flatnonzero(valid_mask(elements))
            rows = present if rows is None else rows[present]
            values = values[present]
        order = np.argsort(values)
        self._sorted = values[order]
        self._rows = (order if rows is None else rows[order]).astype(np.int32)

    @property
    def nbytes(self) -> int:
        """Bytes of memory it holds."""
        parts = (self._sorted, self._rows, self._codes, self._dictionary)
        listed = 64 * len(self._listed) if self._listed else 0
        return sum(part.nbytes for part in parts if part is not None) + listed + 256

    def spans(self, condition: Condition) -> Spans:
        """Where the values that pass stand in the order."""
        if isinstance(condition, Interval):
            start, stop = self._span(condition)
            return Spans(start, stop, max(stop - start, 0))
        ranks = self._passing_ranks(condition)
        if ranks is None:
            assert isinstance(condition, Members)
            ranks = np.array(condition.values, self._sorted.dtype)
        starts = np.searchsorted(self._sorted, ranks, "left")
        stops = np.searchsorted(self._sorted, ranks, "right")
        return Spans(starts, stops, int((stops - starts).sum()))

    def rows(self, spans: Spans) -> npt.NDArray[np.int64]:
        """The rows of ``spans``, ascending, each once."""
        if not spans.count:
            return np.empty(0, np.int64)
        if isinstance(spans.starts, int):
            found = self._rows[spans.starts : spans.stops]
        else:
            lengths = spans.stops - spans.starts
            # Places of all stretches at once: each starts where it starts, less what came before it.
            shifts = np.repeat(spans.starts - (np.cumsum(lengths) - lengths), lengths)
            found = self._rows[shifts + np.arange(spans.count)]
        rows = np.sort(found)
        if self._has_doubles and len(rows) > 1:
            rows = rows[np.concatenate([[True], rows[1:] != rows[:-1]])]
        return rows.astype(np.int64)

    def text_mask(self, condition: Condition, rows: npt.NDArray[np.int64] | None = None) -> Mask | None:
        """Which rows (all, or those asked) pass, from the ranks; None unless the column is plain text."""
        if self._codes is None or self._dictionary is None:
            return None
        codes = self._codes if rows is None else self._codes[rows]
        if isinstance(condition, Interval):
            low, high = self._rank_range(condition)
            return compare(codes, Interval(low, high - 1)) if low < high else np.zeros(len(codes), np.bool_)
        hits = np.zeros(len(self._dictionary) + 1, np.bool_)
        ranks = self._passing_ranks(condition)
        assert ranks is not None
        hits[ranks] = True
        # Null has code -1, which is the one entry after the last rank.
        return hits[codes]

    def _span(self, interval: Interval) -> tuple[int, int]:
        if self._dictionary is not None:
            low, high = self._rank_range(interval)
            if low >= high:
                return 0, 0
            interval = Interval(low, high - 1)
        # A key of the array's own type: NumPy would convert the whole array to the type of another one.
        key = self._sorted.dtype.type
        start = 0 if interval.low is None else int(np.searchsorted(self._sorted, key(interval.low), "left"))
        if interval.high is None:
            return start, len(self._sorted)
        return start, int(np.searchsorted(self._sorted, key(interval.high), "right"))

    def _rank_range(self, interval: Interval) -> tuple[int, int]:
        assert self._dictionary is not None
        low = 0 if interval.low is None else self._rank(interval.low, after=interval.low_open)
        if interval.high is None:
            return low, len(self._dictionary)
        return low, self._rank(interval.high, after=not interval.high_open)

    def _rank(self, text: str, *, after: bool) -> int:
        """How many distinct texts come before ``text`` (``after``: before or at it)."""
        side = bisect.bisect_right if after else bisect.bisect_left
        if self._listed is not None:
            return side(self._listed, text)
        dictionary = self._dictionary
        assert dictionary is not None
        return side(range(len(dictionary)), text, key=lambda i: dictionary[i].as_py())

    def _passing_ranks(self, condition: Condition) -> npt.NDArray[Any] | None:
        """Ranks of the distinct texts that pass; None for a column of numbers."""
        if self._dictionary is None:
            return None
        return np.flatnonzero(scan(self._dictionary, "s", condition)).astype(np.int32)


def _elements(array: pa.ListArray) -> tuple[npt.NDArray[Any], pa.Array]:
    """The elements of the lists, with the row of each."""
    offsets = numpy_of_arrow(array.offsets)
    rows = np.repeat(np.arange(len(array)), np.diff(offsets))
    elements = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    if array.null_count:
        # A null list may still span elements.
        present = np.flatnonzero(valid_mask(array)[rows])
        rows, elements = rows[present], elements.take(arrow_of_numpy(present))
    return rows, elements


def _ranks(array: pa.StringArray) -> tuple[npt.NDArray[np.int32], pa.StringArray]:
    """The distinct texts in order, and for each value the rank of its text (-1 where null)."""
    encoded = array.dictionary_encode()
    order = pc.sort_indices(encoded.dictionary)
    # One place more than ranks, so that index -1 finds the code of null.
    rank = np.full(len(order) + 1, -1, np.int32)
    rank[numpy_of_arrow(order)] = np.arange(len(order), dtype=np.int32)
    indices = encoded.indices
    if indices.null_count:
        indices = filled(indices, -1)
    return rank[numpy_of_arrow(indices)], encoded.dictionary.take(order)


__all__ = ["SortedIndex", "Spans"]
