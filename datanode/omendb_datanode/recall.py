"""Which versions came to a replica by others' hands, though newer ones may have taken their place since (P4).

A reader that finds a write on few replicas gives it to more before it shows it. The write's own call may come to those
only later, when something newer is there. Answered as overtaken, the write would look as if nobody ever saw it here, be
stamped anew, and take place a second time. So a replica remembers for a while what it was given, and says of such a
write that it has it: which is true, and counts.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from omendb_common.clock import Clock
from omendb_common.ids import IdColumn, U64Array
from omendb_common.records import WriteBatch
from omendb_common.shard_calls import RECALL_S
from omendb_engine.stamped import StampedResult

ROWS_MAX = 65_536
"""Rows that are remembered; of what was given before the oldest of them nothing is known."""

Mask = npt.NDArray[np.bool_]


class _Given(NamedTuple):
    at_s: float
    hi: U64Array
    lo: U64Array
    stamps: U64Array
    whole: Mask


class Recall:
    """What one replica was given lately. Belongs to one event loop, and is told in the order of the replica's log.

    Args:
        new: the replica never held anything before.
    """

    def __init__(self, clock: Clock, *, new: bool) -> None:
        self._clock = clock
        # What an earlier process was given, nobody remembers.
        self._known_since_s = -np.inf if new else clock.mono_s()
        self._given: deque[_Given] = deque()
        self._rows = 0

    def given(self, batch: WriteBatch, result: StampedResult) -> None:
        """Records with stamps of their own came from elsewhere."""
        rows = np.ones(batch.rows, np.bool_)
        rows[result.missing] = False
        whole = rows.copy()
        whole[result.superseded] = False
        if not result.partial:
            rows = whole
        some = np.flatnonzero(rows)
        if not len(some) or batch.stamps is None:
            return
        hi, lo = batch.ids.take(some).hashes()
        self._given.append(_Given(self._clock.mono_s(), hi, lo, batch.stamps[some], whole[some]))
        self._rows += len(some)
        self._forget()

    def lost(self) -> None:
        """Records came of which it is not known what became."""
        self._known_since_s = self._clock.mono_s()

    def told(self, batch: WriteBatch, stamp: int, result: StampedResult) -> StampedResult:
        """What a write's own call is answered: overtaken rows that the replica had are not among the superseded.

        Of those that it may have had, and nobody knows, nothing newer proves that they were never seen: ``barred``.
        """
        if not len(result.superseded):
            return result
        self._forget()
        held, touched = self._find(batch.ids.take(result.superseded), np.uint64(stamp))
        held &= ~np.isin(result.superseded, result.barred)
        unsure = ~held if self._clock.mono_s() - self._known_since_s < RECALL_S else touched & ~held
        if not (held.any() or unsure.any()):
            return result
        return dataclasses.replace(
            result,
            superseded=result.superseded[~held],
            newer=result.newer[~held],
            barred=np.union1d(result.barred, result.superseded[unsure]),
        )

    def _find(self, ids: IdColumn, stamp: np.uint64) -> tuple[Mask, Mask]:
        held, touched = np.zeros(len(ids), np.bool_), np.zeros(len(ids), np.bool_)
        hi, lo = ids.hashes()
        for given in self._given:
            mine = np.flatnonzero(given.stamps == stamp)
            if not len(mine):
                continue
            mine = mine[np.argsort(given.lo[mine])]
            at = mine[np.minimum(np.searchsorted(given.lo[mine], lo), len(mine) - 1)]
            same = (given.lo[at] == lo) & (given.hi[at] == hi)
            touched |= same
            held |= same & given.whole[at]
        return held, touched

    def _forget(self) -> None:
        end_s = self._clock.mono_s() - RECALL_S
        while self._given and (self._given[0].at_s < end_s or (self._rows > ROWS_MAX and len(self._given) > 1)):
            gone = self._given.popleft()
            self._rows -= len(gone.lo)
            self._known_since_s = max(self._known_since_s, gone.at_s)


__all__ = ["ROWS_MAX", "Recall"]
