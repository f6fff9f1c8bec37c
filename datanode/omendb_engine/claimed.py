"""The claims that a replica knows, by point: which stamps it does not take any more (P19).

One thread uses it, the one that writes. It is made from the tombstones of the parts when it is first asked, and follows
every operation from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from omendb_common.claims import claims_of, markers, waivers_of
from omendb_common.ids import IdColumn, U64Array
from omendb_engine.parts import AnyPart, SegmentPart

_Key = tuple[int, int]
T = TypeVar("T")
I64Array = npt.NDArray[np.int64]


class Claims:
    """Open claims: under which stamp, and above which base."""

    def __init__(self) -> None:
        self._bases: dict[_Key, dict[int, int]] = {}
        self._waived: dict[_Key, set[int]] = {}
        self._floor = 0

    @staticmethod
    def of(parts: Iterable[AnyPart]) -> Claims:
        """The claims among the tombstones of ``parts``."""
        out = Claims()
        for part in parts:
            ids, _ = part.segment.tombstones() if isinstance(part, SegmentPart) else part.buffer.tombstones.columns()
            out.note(ids)
        return out

    def __bool__(self) -> bool:
        return bool(self._bases)

    def note(self, ids: IdColumn) -> None:
        """Take up the claims and waivers among deleted ``ids``, in any order."""
        for marker in markers(ids):
            key = marker.hi, marker.lo
            if marker.waived:
                self._waived.setdefault(key, set()).add(marker.stamp)
                self._bases.get(key, {}).pop(marker.stamp, None)
            elif marker.stamp not in self._waived.get(key, ()):
                known = self._bases.setdefault(key, {})
                # What two replicas knew when they were asked: the older base closes more.
                known[marker.stamp] = min(marker.base, known.get(marker.stamp, marker.base))

    def forget(self, floor: int) -> None:
        """Drop what the tombstones of claims and waivers at or below ``floor`` are forgotten with (P13)."""
        if floor <= self._floor:
            return
        self._floor = floor
        self._bases = {
            key: left for key, known in self._bases.items() if (left := {s: b for s, b in known.items() if s > floor})
        }
        self._waived = {key: late for key, known in self._waived.items() if (late := {s for s in known if s > floor})}

    def barring(self, ids: IdColumn, stamps: U64Array) -> U64Array:
        """The newest claim that bars each row (n,) of a write under ``stamps``, 0 where none does.

        What was waived is barred by itself: whoever waived it, nothing comes under that stamp any more.
        """
        out = np.zeros(len(ids), np.uint64)
        for row, known in self._of(self._bases, ids):
            mine = int(stamps[row])
            out[row] = max((stamp for stamp, base in known.items() if base < mine < stamp), default=0)
        for row, waived in self._of(self._waived, ids):
            if int(stamps[row]) in waived:
                out[row] = max(out[row], stamps[row])
        return out

    def open(self, ids: IdColumn) -> tuple[I64Array, U64Array]:
        """The open claims on ``ids``: rows and stamps, parallel."""
        found = [(row, stamp) for row, known in self._of(self._bases, ids) for stamp in known]
        rows, stamps = [row for row, _ in found], [stamp for _, stamp in found]
        return np.array(rows, np.int64), np.array(stamps, np.uint64)

    def newest(self, ids: IdColumn) -> U64Array:
        """The newest claim on each id, 0 where there is none."""
        out = np.zeros(len(ids), np.uint64)
        for row, known in self._of(self._bases, ids):
            out[row] = max(known, default=0)
        return out

    def marked(self, ids: IdColumn) -> IdColumn:
        """Ids of all open claims on ``ids``, and of what was waived of them."""
        columns = []
        for row, known in self._of(self._bases, ids):
            one = ids.slice(row, row + 1)
            columns += [claims_of(one, np.array([base], np.uint64), stamp) for stamp, base in known.items()]
        for row, waived in self._of(self._waived, ids):
            columns += [waivers_of(ids.slice(row, row + 1), stamp) for stamp in waived]
        return IdColumn.concat(columns)

    @staticmethod
    def _of(known: Mapping[_Key, T], ids: IdColumn) -> list[tuple[int, T]]:
        if not known:
            return []
        hi, lo = ids.hashes()
        keys = zip(hi.tolist(), lo.tolist(), strict=True)
        return [(row, found) for row, key in enumerate(keys) if (found := known.get(key))]


__all__ = ["Claims"]
