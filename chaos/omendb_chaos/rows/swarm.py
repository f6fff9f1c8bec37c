"""R10: clusters under a swarm of faults, from one seed each, then good weather, then every invariant."""

from __future__ import annotations

from omendb_chaos.rows.outcome import Budget, Outcome
from omendb_chaos.rows.simulated import simulate

INVARIANTS = "V1", "V2", "V3", "V4", "V5", "V6", "V8", "V9", "V10", "V12", "P16"
_RUNS = {"small": 5, "full": 5000}


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row."""
    outcome = Outcome("R10", seed, budget)
    sums = simulate(outcome, "R10", _RUNS[budget])
    outcome.figure = (
        f"{sums.runs} cluster seeds, {sums.hours:.1f} simulated hours, {sum(sums.faults.values())} faults, "
        f"{len(INVARIANTS)} invariants: {sums.failed} seeds with a violation"
    )
    return outcome


__all__ = ["INVARIANTS", "run"]
