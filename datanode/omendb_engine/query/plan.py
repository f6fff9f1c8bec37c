"""How to search one part: skip it, compare every allowed row exactly, or walk the index.

Pure arithmetic on counts. Where a share ``s`` of the rows is allowed, the ``k`` nearest of them are to be expected
among the ``k/s`` nearest of all. While these are few, the graph is walked as if there were no filter, for somewhat
more of them, and those that pass are taken: who finds ``k`` there knows that there are no nearer ones, however the
filter goes with the query, and who does not knows how much thinner it is there. The rarer the allowed rows, the cheaper
is it to compare them all; the two costs, in vector comparisons, cross where the plan changes.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import NamedTuple

from omendb_engine.index.curve import COMPARISONS_PER_EF

# A filter correlates with the query more often than chance would have it; look a little further.
FILTER_MARGIN = 2.0
# A few rows are always faster to compare than to walk to.
EXACT_ROWS_MIN = 1_000
# Of rows that pass by chance, so many are asked for above k that one query in a hundred finds fewer than k.
SPARE_FACTOR, SPARE_ROWS = 1.25, 5
# What a comparison on a walk costs, in those of a scan of listed rows (measured: 56 to 65 ns against 36 at 128 d).
WALK_COST = 1.75


class Strategy(Enum):
    """What to do with a part."""

    SKIP = "skip"
    EXACT = "exact"
    INDEX = "index"


class Plan(NamedTuple):
    """``ef`` matters for INDEX only; ``comparisons`` is the estimate of the work.

    ``wide``: where it is not 0, this many rows are asked of the index without the filter, which is applied to them.
    """

    strategy: Strategy
    ef: int
    comparisons: int
    wide: int = 0


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


def choose_wide(*, rows: int, allowed: int, k: int, ef: int, share: float) -> Plan | None:
    """The plan to walk without the filter and to take what passes; None where that is not the cheapest.

    Args:
        rows: rows of the part, dead ones included.
        allowed: rows that may be returned.
        k: hits wanted.
        ef: effort that reaches the recall target for the ``k / share`` nearest of all rows.
        share: what part of the rows near the query is expected to pass.
    """
    if allowed <= max(EXACT_ROWS_MIN, 2 * k):
        return None
    least = math.ceil((SPARE_FACTOR * k + SPARE_ROWS) / share)
    effort = max(ef, least)
    walk = effort * COMPARISONS_PER_EF
    if least > rows or walk * WALK_COST >= allowed:
        return None
    # Half of what a walk keeps anyway costs little to hand out, and spares a second one.
    return Plan(Strategy.INDEX, effort, walk, max(least, effort // 2))


def filtered_effort(rows: int, allowed: int, ef: int) -> int:
    """Effort that finds as many allowed rows as ``ef`` finds among all."""
    share = allowed / rows
    margin = 1.0 if share > 0.9 else FILTER_MARGIN
    return min(rows, int(ef * margin / share) + 1)


__all__ = ["Plan", "Strategy", "choose", "choose_wide", "filtered_effort"]
