"""R16: searches at the majority while replicas miss writes: nothing old, nothing deleted, nothing twice."""

from __future__ import annotations

from omendb_chaos.rows.outcome import Budget, Outcome
from omendb_chaos.rows.simulated import simulate

_RUNS = {"small": 1, "full": 50}


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row."""
    outcome = Outcome("R16", seed, budget)
    sums = simulate(outcome, "R16", _RUNS[budget])
    outcome.figure = (
        f"{sums.told['searches']} quorum searches among {sums.told['done']} writes that replicas missed: "
        f"{sums.failed} runs with a stale, deleted, doubled or missing hit"
    )
    return outcome


__all__ = ["run"]
