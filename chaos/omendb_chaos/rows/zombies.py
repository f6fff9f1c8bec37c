"""R18: deletions are forgotten soon after they were proven known everywhere, under every fault; none is undone.

Restored disks are not simulated: that an old copy answers nothing is the matter of the data node's tests.
"""

from __future__ import annotations

from omendb_chaos.rows.outcome import Budget, Outcome
from omendb_chaos.rows.simulated import simulate

_RUNS = {"small": 2, "full": 1000}


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row."""
    outcome = Outcome("R18", seed, budget)
    sums = simulate(outcome, "R18", _RUNS[budget])
    if not sums.faults["floors"]:
        outcome.violated("nothing was ever forgotten: the row tried nothing")
    outcome.figure = (
        f"{sums.runs} simulated runs, {sums.hours:.1f} hours, in {sums.faults['floors']} of which deletions were "
        f"forgotten: {sums.failed} with a point that came back, or replicas that were not equal in time"
    )
    return outcome


__all__ = ["run"]
