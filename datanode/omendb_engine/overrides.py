"""Per-field stamps of points that were partially updated.

A point has one stamp for its base (the upsert) and, for every field a later partial update changed, a stamp
of that field's own. Nearly no point has any, so they are kept as a short columnar list beside the rows.
Field names: ``vector:NAME`` and ``payload:TOP_LEVEL_KEY``; the empty name carries the base stamp of a
point whose ``stamp`` column shows a later update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.ids import U64Array

BASE = ""
_PAYLOAD = "payload:"


def payload_field(key: str) -> str:
    """The override name of a top-level payload key."""
    return _PAYLOAD + key


def payload_key(field: str) -> str | None:
    """The top-level payload key of an override name, None for other fields."""
    return field.removeprefix(_PAYLOAD) if field.startswith(_PAYLOAD) else None


def vector_field(name: str) -> str:
    """The override name of a vector field."""
    return f"vector:{name}"


@dataclass(frozen=True, slots=True)
class FieldStamps:
    """Parallel arrays: ``rows`` i32, ``fields`` (object array of str), ``stamps`` u64."""

    rows: npt.NDArray[np.int32]
    fields: npt.NDArray[Any]
    stamps: U64Array

    def __len__(self) -> int:
        return len(self.rows)

    @staticmethod
    def empty() -> FieldStamps:
        """No overrides."""
        return FieldStamps(np.empty(0, np.int32), np.empty(0, object), np.empty(0, np.uint64))

    @staticmethod
    def constant(rows: npt.NDArray[Any], field: str, stamps: U64Array | int) -> FieldStamps:
        """The same field for every row."""
        names = np.empty(len(rows), object)
        names[:] = field
        values = np.full(len(rows), stamps, np.uint64) if isinstance(stamps, int) else stamps
        return FieldStamps(rows.astype(np.int32), names, values)

    @staticmethod
    def concat(parts: Sequence[FieldStamps]) -> FieldStamps:
        """All parts, sorted by row."""
        kept = [p for p in parts if len(p)]
        if not kept:
            return FieldStamps.empty()
        rows = np.concatenate([p.rows for p in kept])
        order = np.argsort(rows, kind="stable")
        fields = np.concatenate([p.fields for p in kept])
        stamps = np.concatenate([p.stamps for p in kept])
        return FieldStamps(rows[order], fields[order], stamps[order])

    def remap(self, rows: npt.NDArray[Any]) -> FieldStamps:
        """The entries of ``rows``, renumbered to their positions in ``rows`` (which must differ)."""
        if not len(self.rows) or not len(rows):
            return FieldStamps.empty()
        order = np.argsort(rows, kind="stable")
        at = np.searchsorted(rows[order], self.rows)
        at[at == len(rows)] = 0
        hit = rows[order[at]] == self.rows
        return FieldStamps(order[at[hit]].astype(np.int32), self.fields[hit], self.stamps[hit])

    def at(self, rows: npt.NDArray[Any]) -> FieldStamps:
        """The entries of ``rows``, renumbered to their positions in ``rows``; for entries sorted by row.

        What it costs goes by what is asked for and not, as in :meth:`remap`, by what is there.
        """
        wanted = rows.astype(np.int32, copy=False)  # of one type, or all that is there would be converted
        first = np.searchsorted(self.rows, wanted, side="left")
        counts = np.searchsorted(self.rows, wanted, side="right") - first
        total = int(counts.sum())
        entries = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(total)
        positions = np.repeat(np.arange(len(rows), dtype=np.int32), counts)
        return FieldStamps(positions, self.fields[entries], self.stamps[entries])

    def by_row(self) -> FieldStamps:
        """The same entries, sorted by row."""
        if (self.rows[1:] >= self.rows[:-1]).all():
            return self
        order = np.argsort(self.rows, kind="stable")
        return FieldStamps(self.rows[order], self.fields[order], self.stamps[order])

    def shifted(self, by: int) -> FieldStamps:
        """The same entries with ``by`` added to every row."""
        return FieldStamps((self.rows + by).astype(np.int32), self.fields, self.stamps)

    def where(self, keep: npt.NDArray[np.bool_]) -> FieldStamps:
        """The entries at which ``keep`` is true."""
        return FieldStamps(self.rows[keep], self.fields[keep], self.stamps[keep])

    def of_field(self, field: str) -> FieldStamps:
        """The entries of one field."""
        return self.where(np.asarray(self.fields == field, np.bool_))

    def dense(self, n: int) -> U64Array:
        """The stamp of each of ``n`` rows, 0 where it has none; for entries of one field."""
        out = np.zeros(n, np.uint64)
        out[self.rows] = self.stamps
        return out

    def minus(self, other: FieldStamps) -> FieldStamps:
        """The entries whose (row, field) is not in ``other``."""
        if not len(self.rows) or not len(other.rows):
            return self
        names = {name: code for code, name in enumerate(dict.fromkeys([*self.fields, *other.fields]))}
        mine = self.rows.astype(np.int64) * len(names) + [names[f] for f in self.fields]
        theirs = other.rows.astype(np.int64) * len(names) + [names[f] for f in other.fields]
        keep = ~np.isin(mine, theirs)
        return FieldStamps(self.rows[keep], self.fields[keep], self.stamps[keep])


class StampLog:
    """Field stamps of rows that are only ever added behind the last, in arrays that double.

    One writer adds; readers look at the same time without a lock, at what was there when they looked.
    """

    def __init__(self) -> None:
        self._room = FieldStamps.empty()
        self._seen = self._room

    def add(self, entries: FieldStamps) -> None:
        """Add the entries of rows behind all that are there."""
        entries = entries.by_row()
        n, stop = len(self._seen), len(self._seen) + len(entries)
        if stop > len(self._room):
            more = FieldStamps(*(np.empty(2 * stop, a.dtype) for a in (entries.rows, entries.fields, entries.stamps)))
            more.rows[:n], more.fields[:n], more.stamps[:n] = self._seen.rows, self._seen.fields, self._seen.stamps
            self._room = more
        room = self._room
        room.rows[n:stop], room.fields[n:stop], room.stamps[n:stop] = entries.rows, entries.fields, entries.stamps
        self._seen = FieldStamps(room.rows[:stop], room.fields[:stop], room.stamps[:stop])

    def all(self) -> FieldStamps:
        """All entries, sorted by row; nothing is copied."""
        return self._seen


__all__ = ["BASE", "FieldStamps", "StampLog", "payload_field", "payload_key", "vector_field"]
