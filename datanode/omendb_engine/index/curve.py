"""The measured recall of an index at each effort, and the effort a recall target needs.

Rows of the graph are bad test queries: they sit on the very paths they look for (0.98 recall measured where real
queries got 0.90, on 20,000 sentence embeddings). A build therefore holds a sample of rows back and asks for
their neighbours before it inserts them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.schema import Float32Array

I64Array = npt.NDArray[np.int64]

COMPARISONS_PER_EF = 32
"""What a unit of effort costs: neighbours not seen before of a node of a graph, measured at M = 16."""
EF_LADDER = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
EF_MAX = 1 << 16
# A search for 10 needs 20 neighbours where half of the rows pass a filter: a guess between 10 and 100 asks for a third
# too much effort.
CURVE_KS = (10, 20, 100)
SAMPLE_ROWS = 200
_ENOUGH = 0.9995
# Of the interval in which a recall is looked for: to a ten-thousandth.
_HALVINGS = 14

Search = Callable[[Float32Array, int, int], I64Array]
"""(queries (m, d), k, ef) -> rows (m, k), -1 where there are fewer."""


@dataclass(frozen=True, slots=True)
class RecallCurve:
    """Points (ef, recall) for each measured k, both ascending."""

    points: Mapping[int, tuple[tuple[int, float], ...]]

    def effort_for(self, recall_target: float, k: int) -> int:
        """The least ef expected to reach ``recall_target`` at ``k``; never below k.

        The curve was measured with rows that were not in the graph yet. Real queries are somewhat harder
        (measured: 0.90 where such rows gave 0.92), so half of the error that the target allows is held back.
        """
        if not self.points:
            return max(k, EF_LADDER[-1])
        effort = self._effort(recall_target + (1.0 - recall_target) / 2, k)
        return min(max(k, math.ceil(effort)), max(EF_MAX, k))

    def recall_for(self, effort: int, k: int) -> float:
        """The recall at ``k`` of this effort, between what was measured; 0.0 where nothing was."""
        if not self.points:
            return 0.0
        low, high = 0.0, max(recall for curve in self.points.values() for _, recall in curve)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._effort(middle, k) <= effort else (low, middle)
        return low

    def _effort(self, wanted: float, k: int) -> float:
        """The effort at which the measured recall at ``k`` is ``wanted``, between the ks that were measured."""
        known = sorted(self.points)
        efforts = {at: self._least(at, wanted) for at in known}
        if k <= known[0]:
            return efforts[known[0]]
        if k >= known[-1]:
            return efforts[known[-1]] * k / known[-1]
        return _between(known, efforts, k)

    def _least(self, k: int, wanted: float) -> float:
        """The effort where the measured curve crosses ``wanted``; the last one when it never does."""
        curve = self.points[k]
        below: tuple[int, float] | None = None
        for ef, recall in curve:
            if recall >= wanted:
                if below is None:
                    return ef
                return below[0] + (ef - below[0]) * (wanted - below[1]) / (recall - below[1])
            below = (ef, recall)
        return curve[-1][0] if curve else EF_LADDER[-1]

    def to_json(self) -> dict[str, Any]:
        """A JSON value that :meth:`from_json` reads back."""
        return {str(k): [[ef, recall] for ef, recall in curve] for k, curve in self.points.items()}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> RecallCurve:
        """Read what :meth:`to_json` wrote."""
        return RecallCurve({int(k): tuple((int(e), float(r)) for e, r in curve) for k, curve in value.items()})


def _between(known: Sequence[int], efforts: Mapping[int, float], k: int) -> float:
    """Interpolate the logarithm of the effort in that of k, between the two measured ks around it."""
    above = next(i for i, at in enumerate(known) if at >= k)
    low, high = known[above - 1], known[above]
    share = math.log(k / low) / math.log(high / low)
    return float(efforts[low] ** (1 - share) * efforts[high] ** share)


def sample_rows(start: int, stop: int, count: int = SAMPLE_ROWS) -> I64Array:
    """Up to ``count`` rows spread evenly over start..stop-1: the same for the same range, without dice."""
    return np.unique(np.linspace(start, stop - 1, min(count, stop - start)).astype(np.int64))


def measure(queries: Float32Array, truth: I64Array, search: Search) -> RecallCurve:
    """The share of the true neighbours that ``search`` finds at each effort.

    Args:
        queries: (m, d), none of them a row that can be found.
        truth: (m, c) rows of the true neighbours, nearest first; ks above c are left out.
    """
    points: dict[int, tuple[tuple[int, float], ...]] = {}
    for k in CURVE_KS:
        if k > truth.shape[1]:
            break
        curve: list[tuple[int, float]] = []
        for ef in (max(k, EF_LADDER[0]), *(e for e in EF_LADDER[1:] if e > k)):
            found = search(queries, k, ef)
            hits = sum(int(np.isin(want, got).sum()) for want, got in zip(truth[:, :k], found, strict=True))
            recall = hits / (k * len(queries))
            curve.append((ef, max(recall, curve[-1][1] if curve else 0.0)))
            if recall >= _ENOUGH:
                break
        points[k] = tuple(curve)
    return RecallCurve(points)


__all__ = [
    "COMPARISONS_PER_EF",
    "CURVE_KS",
    "EF_LADDER",
    "EF_MAX",
    "SAMPLE_ROWS",
    "RecallCurve",
    "Search",
    "measure",
    "sample_rows",
]
