"""How filters and answers read payload columns, wherever they are kept."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.payload import TYPES, Kind, split_name
from omendb_common.plain_arrow import arrow_of_numpy
from omendb_engine.payload.sorted_index import SortedIndex

Rows = npt.NDArray[np.int64]


class ColumnStore(Protocol):
    """The payload columns of ``n`` rows; immutable, and safe to read from many threads."""

    @property
    def n(self) -> int:
        """Number of rows."""

    @property
    def catalog(self) -> Catalog:
        """Which columns there are."""

    def kinds(self, path: str) -> tuple[Kind, ...]:
        """Kinds of the columns at exactly ``path``."""

    def paths_below(self, path: str) -> tuple[str, ...]:
        """Paths of the columns nested below ``path``."""

    def column(self, path: str, kind: Kind) -> pa.Array | None:
        """The whole column (n values), or None when there is none."""

    def chunks(self, path: str, kind: Kind) -> Iterator[pa.Array]:
        """The column's values in row order, n in all; nothing when there is no such column."""

    def gather(self, path: str, kind: Kind, rows: Rows) -> pa.Array | None:
        """The column's values at ``rows``, in that order; None when there is no such column."""

    def index(self, path: str, kind: Kind) -> SortedIndex | None:
        """The column's sorted index, built now if it pays; None where a scan is the better way."""

    def batch(self) -> pa.RecordBatch:
        """All columns as one record batch."""

    def payloads(self, rows: Rows) -> list[dict[str, Any]]:
        """The payloads of ``rows``, as dicts."""


class Catalog:
    """The names of a store's columns, by path. Immutable."""

    __slots__ = ("_kinds", "_set", "_sorted", "names")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names: tuple[str, ...] = tuple(dict.fromkeys(names))
        self._set = frozenset(self.names)
        kinds: dict[str, list[Kind]] = {}
        for name in self.names:
            path, kind = split_name(name)
            kinds.setdefault(path, []).append(kind)
        self._kinds = {path: tuple(found) for path, found in kinds.items()}
        self._sorted = sorted(self._kinds)

    def kinds(self, path: str) -> tuple[Kind, ...]:
        """Kinds of the columns at exactly ``path``."""
        return self._kinds.get(path, ())

    def paths_below(self, path: str) -> tuple[str, ...]:
        """Paths of the columns nested below ``path``."""
        start = bisect.bisect_left(self._sorted, path + ".")
        stop = bisect.bisect_left(self._sorted, path + "/", lo=start)  # "/" follows "." in ASCII
        return tuple(self._sorted[start:stop])

    def with_names(self, names: Collection[str]) -> Catalog:
        """This catalog when it has all of ``names``, else a new one that does."""
        return self if self._set.issuperset(names) else Catalog((*self.names, *names))

    def __contains__(self, name: object) -> bool:
        return name in self._set


def gather_chunks(chunks: Sequence[pa.Array], rows: Rows, kind: Kind) -> pa.Array:
    """The values at ``rows`` of a column that comes in chunks, in the order of ``rows``."""
    if len(chunks) == 1:
        return chunks[0].take(arrow_of_numpy(rows))
    order: Rows | None = None
    if len(rows) > 1 and bool((rows[1:] < rows[:-1]).any()):
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
    ends = np.cumsum([len(chunk) for chunk in chunks])
    stops = np.searchsorted(rows, ends, "left").tolist()
    parts = []
    start = 0
    for chunk, end, stop in zip(chunks, ends.tolist(), stops, strict=True):
        if stop > start:
            parts.append(chunk.take(arrow_of_numpy(rows[start:stop] - (end - len(chunk)))))
        start = stop
    taken = pa.concat_arrays(parts) if parts else pa.nulls(0, TYPES[kind])
    if order is None:
        return taken
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return taken.take(arrow_of_numpy(back))


__all__ = ["Catalog", "ColumnStore", "Rows", "gather_chunks"]
