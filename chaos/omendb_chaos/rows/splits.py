"""R-splits: shards split and merge, and are given up, while clients write and read and everything strikes everybody."""

from __future__ import annotations

from omendb_chaos.rows.outcome import Budget, Outcome
from omendb_chaos.rows.simulated import simulate

_RUNS = {"small": 2, "full": 400}


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row."""
    outcome = Outcome("R-splits", seed, budget)
    sums = simulate(outcome, "R-splits", _RUNS[budget])
    split, merged = sums.faults["was split"], sums.faults["merged"]
    if not split or not merged:
        outcome.violated(f"{split} splits and {merged} merges ended: the runs tried nothing")
    outcome.figure = (
        f"{sums.runs} simulated runs, {sums.hours:.1f} hours, {sums.calls} calls across {split} splits and {merged} "
        f"merges: {sums.failed} with a write lost, a point twice, or a split or merge that did not end"
    )
    return outcome


__all__ = ["run"]
