"""How many lists an ivf index looks into, and how many of the candidates it compares again, at each effort.

Two numbers decide what such a search finds and costs. A build measures many pairs of them on the segment's own rows and
keeps those that nothing cheaper beats; an *effort* is what a pair costs, so that a recall target needs one number only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.index_options import Quantization
from omendb_common.schema import Float32Array
from omendb_engine.index.curve import COMPARISONS_PER_EF, CURVE_KS, RecallCurve

BoolArray = npt.NDArray[np.bool_]

OVERSAMPLING = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Candidates compared again for each neighbour wanted, as measured."""
CANDIDATES_MAX = 1_024
"""Most candidates compared again, unless twice as many neighbours are wanted."""
_ENOUGH = 0.9995
_K = CURVE_KS[0]
# In comparisons of a stored row, measured at 128 and 384 dimensions: one of a query with a centroid, what a list costs
# before its first code is read, and one with a code.
_CENTROID_COST = 0.25
_LIST_COST: Mapping[Quantization, float] = {"product": 24.0, "binary": 16.0}
_LIST_COST_ELSE = 1.0
_CODE_COST: Mapping[Quantization, float] = {"product": 0.03, "binary": 0.5}
_CODE_COST_ELSE = 0.6


@dataclass(frozen=True, slots=True)
class Step:
    """A search of ``probes`` lists that compares ``oversampling`` candidates again for each neighbour wanted."""

    effort: float
    probes: int
    oversampling: float


@dataclass(frozen=True, slots=True)
class EffortLadder:
    """The pairs worth having, by ascending effort; at least one."""

    steps: tuple[Step, ...]

    def at(self, effort: float) -> tuple[float, float]:
        """Lists and oversampling at an effort: between two steps something between, beyond the last more lists."""
        last = self.steps[-1]
        if effort >= last.effort:
            return last.probes * effort / last.effort, last.oversampling
        efforts = [step.effort for step in self.steps]
        probes = np.interp(effort, efforts, [step.probes for step in self.steps])
        oversampling = np.interp(effort, efforts, [step.oversampling for step in self.steps])
        return float(probes), float(oversampling)

    def to_json(self) -> list[list[float]]:
        """A JSON value that :meth:`from_json` reads back."""
        return [[step.effort, step.probes, step.oversampling] for step in self.steps]

    @staticmethod
    def from_json(value: Sequence[Sequence[Any]]) -> EffortLadder:
        """Read what :meth:`to_json` wrote."""
        return EffortLadder(tuple(Step(float(e), int(p), float(o)) for e, p, o in value))


NO_LADDER = EffortLadder(())
"""Of an index that has no lists."""


def candidates(k: int, oversampling: float) -> int:
    """Candidates that are compared again when ``k`` neighbours are wanted; not fewer for fewer than were measured."""
    k = max(k, _K)
    return max(math.ceil(k * min(oversampling, CANDIDATES_MAX / k)), 2 * k if oversampling > 1 else k)


def probe_ladder(lists: int) -> tuple[int, ...]:
    """Numbers of lists to measure: about two to each doubling, all of them last."""
    found = [p for base in (1 << i for i in range(17)) for p in (base, base + base // 2) if p < lists]
    return (*dict.fromkeys(found), lists)


def effort_of(rows: int, lists: int, quantization: Quantization, probes: int, oversampling: float) -> float:
    """What a search for ``CURVE_KS[0]`` neighbours costs, in the planner's units."""
    codes = _LIST_COST.get(quantization, _LIST_COST_ELSE)
    codes += _CODE_COST.get(quantization, _CODE_COST_ELSE) * rows / lists
    return (_CENTROID_COST * lists + probes * codes + candidates(_K, oversampling)) / COMPARISONS_PER_EF


@dataclass(frozen=True, slots=True)
class Probed:
    """What a search of ``probes`` lists found: exact values of the candidates (m, c), in the order that codes gave.

    Smaller is nearer; infinite where there was none.
    """

    probes: int
    values: Float32Array


def choose_steps(
    found: Sequence[Probed], truth: Float32Array, rows: int, lists: int, quantization: Quantization, *, exact: bool
) -> tuple[EffortLadder, RecallCurve]:
    """The pairs that nothing cheaper beats, and the recall of each.

    Args:
        truth: values (m, c) of the true neighbours, nearest first; ks above c are left out.
        exact: whether codes are as good as the rows, so that nothing is gained by looking again.
    """
    ks = [k for k in CURVE_KS if k <= truth.shape[1]] or [truth.shape[1]]
    pairs: list[tuple[Step, dict[int, float]]] = []
    for probed in found:
        for oversampling in OVERSAMPLING[:1] if exact else OVERSAMPLING:
            effort = effort_of(rows, lists, quantization, probed.probes, oversampling)
            recalls = {k: _recall(probed.values[:, : candidates(k, oversampling)], truth[:, :k]) for k in ks}
            pairs.append((Step(effort, probed.probes, oversampling), recalls))
    pairs.sort(key=lambda pair: pair[0].effort)
    kept: list[tuple[Step, dict[int, float]]] = []
    best = -1.0
    for step, recalls in pairs:
        mean = sum(recalls.values()) / len(recalls)
        if mean > best and step.effort > (kept[-1][0].effort if kept else 0.0):
            kept.append((step, recalls))
            best = mean
    points = {k: _rising([(math.ceil(step.effort), recalls[k]) for step, recalls in kept]) for k in ks}
    return EffortLadder(tuple(step for step, _ in kept)), RecallCurve(points)


def saturated(probed: Probed, truth: Float32Array) -> bool:
    """Whether looking into more lists could find next to nothing more."""
    return _recall(probed.values, truth) >= _ENOUGH


def _recall(values: Float32Array, truth: Float32Array) -> float:
    """The share of the true neighbours, or of others as near, among the candidates."""
    # Values are rounded differently in a batch; what is as near as the k-th counts, whichever row it is.
    bound = truth[:, -1] + np.float32(1e-5) * np.abs(truth[:, -1])
    hits = np.minimum(np.count_nonzero(values <= bound[:, None], axis=1), truth.shape[1])
    return int(hits.sum()) / truth.size


def _rising(points: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """The points with recall never falling, one to an effort."""
    out: dict[int, float] = {}
    best = 0.0
    for effort, recall in points:
        best = out[effort] = max(best, recall)
    return tuple(out.items())


__all__ = [
    "CANDIDATES_MAX",
    "NO_LADDER",
    "OVERSAMPLING",
    "EffortLadder",
    "Probed",
    "Step",
    "candidates",
    "choose_steps",
    "effort_of",
    "probe_ladder",
    "saturated",
]
