"""How to search one part: skip it, compare every allowed row exactly, or walk the index.

Pure arithmetic on counts. A graph search that may return only a share ``s`` of the rows must look at about
``1/s`` as many candidates for the same recall, while an exact scan of the allowed rows gets cheaper with
``s``; the two costs, in vector comparisons, cross where the plan changes.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

# Comparisons a graph search makes per unit of effort: neighbours not seen before, measured at M = 16.
COMPARISONS_PER_EF = 32
# A filter correlates with the query more often than chance would have it; look a little further.
FILTER_MARGIN = 2.0
# A few rows are always faster to compare than to walk to.
EXACT_ROWS_MIN = 1_000


class Strategy(Enum):
    """What to do with a part."""

    SKIP = "skip"
    EXACT = "exact"
    INDEX = "index"


class Plan(NamedTuple):
    """``ef`` matters for INDEX only; ``comparisons`` is the estimate of the work."""

    strategy: Strategy
    ef: int
    comparisons: int


def choose(*, rows: int, allowed: int, k: int, ef: int, has_index: bool, exact: bool) -> Plan:
    """Plan the search of a part.

    Args:
        rows: rows of the part, dead ones included.
        allowed: rows that may be returned (live, and passing the filter).
        ef: effort that reaches the recall target without a filter.
        has_index: whether an index exists.
        exact: whether the caller asked for exact results.
    """
    if not allowed:
        return Plan(Strategy.SKIP, 0, 0)
    if exact or not has_index or allowed <= max(EXACT_ROWS_MIN, 2 * k):
        return Plan(Strategy.EXACT, 0, allowed)
    effort = ef if allowed == rows else filtered_effort(rows, allowed, ef)
    walk = effort * COMPARISONS_PER_EF
    if walk >= allowed:
        return Plan(Strategy.EXACT, 0, allowed)
    return Plan(Strategy.INDEX, effort, walk)


def filtered_effort(rows: int, allowed: int, ef: int) -> int:
    """Effort that finds as many allowed rows as ``ef`` finds among all."""
    share = allowed / rows
    margin = 1.0 if share > 0.9 else FILTER_MARGIN
    return min(rows, int(ef * margin / share) + 1)


__all__ = ["Plan", "Strategy", "choose", "filtered_effort"]
