"""R27: calls of a router cancelled at every step: nothing half written, nothing left behind."""

from __future__ import annotations

from omendb_chaos.cluster.cancelling import CASES
from omendb_chaos.rows.outcome import Budget, Outcome
from omendb_chaos.rows.simulated import simulate

_SMALL = 4


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row; the small budget tries other calls with every seed."""
    outcome = Outcome("R27", seed, budget)
    count = len(CASES) if budget == "full" else _SMALL
    sums = simulate(outcome, "R27", count, first=0 if budget == "full" else seed * count)
    outcome.figure = (
        f"{sum(sums.told.values())} cancellations, every step of {count} of {len(CASES)} calls and conditions: "
        f"{sums.failed} with a write half done, a cancellation swallowed or something left behind"
    )
    return outcome


__all__ = ["run"]
