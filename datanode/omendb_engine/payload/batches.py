"""Payload columns of a growing buffer: record batches appended by one writer, read in snapshots."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from omendb_common.payload import (
    TYPES,
    Kind,
    concat_column,
    join_name,
    put_value,
    rows_from_columns,
    scalar_value,
    split_name,
)
from omendb_engine.payload.sorted_index import SortedIndex
from omendb_engine.payload.store import Catalog, Rows, gather_chunks

# Rows up to which payloads are read one value at a time from the piece that holds them.
_FEW = 32


class _Piece(NamedTuple):
    rows: int
    columns: dict[str, Any]


class _Merged(NamedTuple):
    """A column's first ``pieces`` pieces, ``rows`` rows, as arrays of geometrically falling length."""

    pieces: int
    rows: int
    arrays: tuple[Any, ...]


class GrowingColumns:
    """An append-only sequence of payload batches.

    One thread appends; any number of threads read views at the same time, without a lock: the list of pieces
    only grows, and everything else that they share is replaced whole, never changed.
    """

    __slots__ = ("_merged", "_pieces", "_starts", "catalog", "n")

    def __init__(self) -> None:
        self.n = 0
        self.catalog = Catalog()
        self._pieces: list[_Piece] = []
        self._starts: list[int] = []
        self._merged: dict[str, _Merged] = {}

    def append(self, batch: pa.RecordBatch | None, n: int) -> None:
        """Add ``n`` rows; ``batch`` None or without columns means that they have no payload."""
        columns = {} if batch is None else dict(zip(batch.schema.names, batch.columns, strict=True))
        assert not columns or (batch is not None and batch.num_rows == n)
        self.catalog = self.catalog.with_names(columns)
        self._starts.append(self.n)
        self._pieces.append(_Piece(n, columns))
        # Last, so that a view of the new length finds its pieces.
        self.n += n

    def view(self, n: int | None = None) -> BatchColumns:
        """An immutable view of the first ``n`` rows (None: of all that are there now)."""
        return BatchColumns(self, self.n if n is None else n)

    def arrays(self, name: str, n: int) -> Sequence[Any]:
        """Column ``name`` of the first ``n`` rows, in few arrays; no array when no piece has the column."""
        if name not in self.catalog:
            return ()
        state = self._merged.get(name, _Merged(0, 0, ()))
        if state.rows < n:
            state = self._merge(name, state, bisect.bisect_left(self._starts, n))
            # Two readers may both get here; either result is whole, and the loser's work is only lost.
            self._merged[name] = state
        return state.arrays if state.rows == n else _truncated(state.arrays, n)

    def _merge(self, name: str, state: _Merged, stop: int) -> _Merged:
        new = self._pieces[state.pieces : stop]
        arrays = list(state.arrays)
        arrays.append(concat_column([piece.columns.get(name) for piece in new], [piece.rows for piece in new], name))
        rows = state.rows + len(arrays[-1])
        # Each array at least twice as long as the next: a row is copied log(n) times, however often is read.
        while len(arrays) > 1 and len(arrays[-2]) < 2 * len(arrays[-1]):
            last, before = arrays.pop(), arrays.pop()
            arrays.append(concat_column([before, last], [len(before), len(last)], name))
        return _Merged(stop, rows, tuple(arrays))

    def locate(self, row: int) -> tuple[dict[str, Any], int]:
        """The piece that holds ``row``, as its columns, and the row's place in it."""
        piece = bisect.bisect_right(self._starts, row) - 1
        return self._pieces[piece].columns, row - self._starts[piece]


def _truncated(arrays: Sequence[Any], n: int) -> list[Any]:
    out = []
    for array in arrays:
        if n <= 0:
            break
        out.append(array if len(array) <= n else array.slice(0, n))
        n -= len(array)
    return out


class BatchColumns:
    """The first ``n`` rows of :class:`GrowingColumns`; a :class:`ColumnStore`."""

    __slots__ = ("_growing", "catalog", "n")

    def __init__(self, growing: GrowingColumns, n: int) -> None:
        self._growing = growing
        # Taken once: it may name columns that only later rows have; here those are null.
        self.catalog = growing.catalog
        self.n = n

    @staticmethod
    def of(batches: Sequence[pa.RecordBatch | None], counts: Sequence[int] | None = None) -> BatchColumns:
        """A store of ``batches`` one after the other; ``counts`` (rows of each) where one may have no columns."""
        growing = GrowingColumns()
        for place, batch in enumerate(batches):
            growing.append(batch, counts[place] if counts is not None else (0 if batch is None else batch.num_rows))
        return growing.view()

    def kinds(self, path: str) -> tuple[Kind, ...]:
        """Kinds of the columns at exactly ``path``."""
        return self.catalog.kinds(path)

    def paths_below(self, path: str) -> tuple[str, ...]:
        """Paths of the columns nested below ``path``."""
        return self.catalog.paths_below(path)

    def chunks(self, path: str, kind: Kind) -> Iterator[pa.Array]:
        """The column's values in row order."""
        return iter(self._growing.arrays(join_name(path, kind), self.n))

    def column(self, path: str, kind: Kind) -> pa.Array | None:
        """The whole column, or None when there is none."""
        name = join_name(path, kind)
        if name not in self.catalog:
            return None
        arrays = self._growing.arrays(name, self.n)
        if not arrays:
            return pa.nulls(0, TYPES[kind])
        return concat_column(arrays, [len(array) for array in arrays], name)

    def gather(self, path: str, kind: Kind, rows: Rows) -> pa.Array | None:
        """The column's values at ``rows``, or None when there is no such column."""
        name = join_name(path, kind)
        return gather_chunks(self._growing.arrays(name, self.n), rows, kind) if name in self.catalog else None

    def index(self, path: str, kind: Kind) -> SortedIndex | None:
        """None: a buffer that grows is scanned."""
        return None

    def batch(self) -> pa.RecordBatch:
        """All columns as one record batch."""
        names = self.catalog.names
        return pa.RecordBatch.from_arrays([self.column(*split_name(name)) for name in names], names=list(names))

    def payloads(self, rows: Rows) -> list[dict[str, Any]]:
        """The payloads of ``rows``, as dicts."""
        if len(rows) > _FEW:
            columns = {name: self.gather(*split_name(name), rows) for name in self.catalog.names}
            return rows_from_columns(columns, n=len(rows))
        return [self._payload(row) for row in np.asarray(rows).tolist()]

    def _payload(self, row: int) -> dict[str, Any]:
        columns, place = self._growing.locate(row)
        out: dict[str, Any] = {}
        for name in sorted(columns, key=_depth):
            keys, kind = _address(name)
            value = scalar_value(kind, columns[name][place])
            if value is not None:
                put_value(out, keys, value)
        return out


@lru_cache(maxsize=8192)
def _address(name: str) -> tuple[list[str], Kind]:
    """The keys and the kind in a column's name; nobody writes to the list."""
    path, kind = split_name(name)
    return path.split("."), kind


def _depth(name: str) -> int:
    # A value at "a" must be there before "a.b" tries to nest.
    return len(_address(name)[0])


__all__ = ["BatchColumns", "GrowingColumns"]
