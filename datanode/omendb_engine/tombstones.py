"""Which ids a growing buffer's operations deleted, and when: sorted runs that merge as they grow.

Who asks is an operation that may be older than what was applied (in recovery, and for replicated writes), or a reader
who must tell a deleted id from an unknown one; nothing is sorted before the first question. A run at least doubles with
every merge: n deletions cost O(n log² n) in all, where looking through them one by one made the replay of a long log
quadratic.
"""

from __future__ import annotations

import threading

import numpy as np

from omendb_common.ids import IdColumn, U64Array

_Run = tuple[U64Array, U64Array, U64Array]


class Tombstones:
    """Deleted ids with their stamps, in order of deletion. Thread-safe.

    ``max_stamp``: the newest of all.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[tuple[IdColumn, U64Array]] = []
        self._sorted = 0
        self._runs: list[_Run] = []
        self.rows = 0
        self.max_stamp = 0

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, ids: IdColumn, stamps: U64Array) -> None:
        """Note deletions."""
        with self._lock:
            self._entries.append((ids, stamps))
        self.rows += len(ids)
        self.max_stamp = max(self.max_stamp, int(stamps.max(initial=0)))

    def columns(self) -> tuple[IdColumn, U64Array]:
        """All of them, in order."""
        with self._lock:
            entries = list(self._entries)
        ids = IdColumn.concat([ids for ids, _ in entries])
        return ids, np.concatenate([np.empty(0, np.uint64), *(stamps for _, stamps in entries)])

    def after(self, entries: int) -> list[tuple[IdColumn, U64Array]]:
        """What was noted after the first so many entries."""
        with self._lock:
            return self._entries[entries:]

    def newest(self, hi: U64Array, lo: U64Array) -> U64Array:
        """The stamp of each id hash's newest deletion, 0 where there is none."""
        out = np.zeros(len(hi), np.uint64)
        if not self._entries:
            return out
        with self._lock:
            self._sort()
            runs = list(self._runs)
        for run_hi, run_lo, stamps in runs:
            at = np.minimum(np.searchsorted(run_hi, hi), len(run_hi) - 1)
            hit = (run_hi[at] == hi) & (run_lo[at] == lo)
            np.maximum(out, np.where(hit, stamps[at], np.uint64(0)), out=out)
        return out

    def _sort(self) -> None:
        fresh = self._entries[self._sorted :]
        if not fresh:
            return
        self._sorted = len(self._entries)
        hashes = [ids.hashes() for ids, _ in fresh]
        self._runs.append(_run([(hi, lo, stamps) for (hi, lo), (_, stamps) in zip(hashes, fresh, strict=True)]))
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= 2 * len(self._runs[-1][0]):
            newer, older = self._runs.pop(), self._runs.pop()
            self._runs.append(_run([older, newer]))


def _run(parts: list[_Run]) -> _Run:
    """One sorted run of several, each id once with its greatest stamp."""
    hi, lo, stamps = (np.concatenate([part[column] for part in parts]) for column in range(3))
    order = np.lexsort((stamps, lo, hi))
    hi, lo, stamps = hi[order], lo[order], stamps[order]
    last = np.ones(len(hi), np.bool_)
    last[:-1] = (hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1])
    return hi[last], lo[last], stamps[last]


__all__ = ["Tombstones"]
