"""R12: clocks off by a tenth of a second to a day, or jumping: the promises of R13 and R16 hold all the same."""

from __future__ import annotations

from omendb_chaos.cluster.skews import CASES, RUNS_PER_CASE, SKEWS_MS
from omendb_chaos.rows.outcome import Budget, Outcome
from omendb_chaos.rows.simulated import simulate

_ROUNDS = 2
_SMALL = 6


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row; the small budget tries other cases with every seed."""
    outcome = Outcome("R12", seed, budget)
    every = len(CASES) * RUNS_PER_CASE
    if budget == "full":
        sums = simulate(outcome, "R12", every * _ROUNDS)
    else:
        sums = simulate(outcome, "R12", _SMALL, first=seed * _SMALL * 7 % every)
    outcome.figure = (
        f"{sums.runs} runs, {len(SKEWS_MS) + 1} kinds of skew on {len(CASES) // (len(SKEWS_MS) + 1)} sets of machines, "
        f"{sums.told['searches']} quorum searches: {sums.failed} runs with a violation or a stamp of the future taken"
    )
    return outcome


__all__ = ["run"]
