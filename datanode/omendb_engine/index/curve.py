"""The measured recall of an index at each effort, and the effort a recall target needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.schema import Float32Array

I64Array = npt.NDArray[np.int64]

EF_LADDER = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
EF_MAX = 1 << 16
CURVE_KS = (10, 100)
SAMPLE_ROWS = 200
_ENOUGH = 0.9995

Search = Callable[[Float32Array, int, int], I64Array]
"""(queries (m, d), k, ef) -> rows (m, k), -1 where there are fewer."""


@dataclass(frozen=True, slots=True)
class RecallCurve:
    """Points (ef, recall) for each measured k, both ascending."""

    points: Mapping[int, tuple[tuple[int, float], ...]]

    def effort_for(self, recall_target: float, k: int) -> int:
        """The least ef expected to reach ``recall_target`` at ``k``; never below k.

        The curve was measured with rows of the segment as queries, which are easier than queries from
        outside; so half of the error that the target allows is held back.
        """
        wanted = recall_target + (1.0 - recall_target) / 2
        known = sorted(self.points)
        if not known:
            return max(k, EF_LADDER[-1])
        efforts = {at: self._least(at, wanted) for at in known}
        if k <= known[0]:
            effort = float(efforts[known[0]])
        elif k >= known[-1]:
            effort = efforts[known[-1]] * k / known[-1]
        else:
            effort = _between(known, efforts, k)
        return min(max(k, math.ceil(effort)), max(EF_MAX, k))

    def _least(self, k: int, wanted: float) -> int:
        curve = self.points[k]
        for ef, recall in curve:
            if recall >= wanted:
                return ef
        return curve[-1][0] if curve else EF_LADDER[-1]

    def to_json(self) -> dict[str, Any]:
        """A JSON value that :meth:`from_json` reads back."""
        return {str(k): [[ef, recall] for ef, recall in curve] for k, curve in self.points.items()}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> RecallCurve:
        """Read what :meth:`to_json` wrote."""
        return RecallCurve({int(k): tuple((int(e), float(r)) for e, r in curve) for k, curve in value.items()})


def _between(known: Sequence[int], efforts: Mapping[int, int], k: int) -> float:
    """Interpolate the effort in log k between the two measured ks around it."""
    above = next(i for i, at in enumerate(known) if at >= k)
    low, high = known[above - 1], known[above]
    share = math.log(k / low) / math.log(high / low)
    return efforts[low] + (efforts[high] - efforts[low]) * share


def sample_rows(n: int, count: int = SAMPLE_ROWS) -> I64Array:
    """Up to ``count`` rows spread evenly over 0..n-1: the same rows for the same n, without dice."""
    return np.unique(np.linspace(0, n - 1, min(count, n)).astype(np.int64))


def measure(
    rows: I64Array, queries: Float32Array, truth: Mapping[int, I64Array], search: Search, n: int
) -> RecallCurve:
    """Measure recall against ``truth[k]`` (rows (m, k) of the true neighbours, the query's own row excluded)."""
    points: dict[int, tuple[tuple[int, float], ...]] = {}
    for k, exact in sorted(truth.items()):
        curve: list[tuple[int, float]] = []
        for ef in EF_LADDER:
            if ef <= k and ef != EF_LADDER[0]:
                continue  # the search raises ef to k anyway
            found = search(queries, min(k + 1, n), max(ef, k + 1))
            recall = _recall(rows, found, exact)
            curve.append((max(ef, k), max(recall, curve[-1][1] if curve else 0.0)))
            if recall >= _ENOUGH:
                break
        points[k] = tuple(curve)
    return RecallCurve(points)


def _recall(rows: I64Array, found: I64Array, exact: I64Array) -> float:
    """Mean share of ``exact`` among ``found``, the query's own row left out of both."""
    hits = total = 0
    for row, got, want in zip(rows.tolist(), found, exact, strict=True):
        wanted = want[want >= 0]
        hits += int(np.isin(wanted, got[got != row]).sum())
        total += len(wanted)
    return hits / total if total else 1.0


__all__ = [
    "CURVE_KS",
    "EF_LADDER",
    "EF_MAX",
    "SAMPLE_ROWS",
    "RecallCurve",
    "Search",
    "measure",
    "sample_rows",
]
