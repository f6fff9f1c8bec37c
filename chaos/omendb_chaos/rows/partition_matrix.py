"""R11: every set of cut links between a router and three data nodes, before, while and after a write."""

from __future__ import annotations

from omendb_chaos.cluster.partitions import CASES_PER_RUN, RUNS_IN_ALL
from omendb_chaos.rows.outcome import Budget, Outcome
from omendb_chaos.rows.simulated import simulate

_RUNS = {"small": 2, "full": RUNS_IN_ALL}


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row; the small budget tries another part of the matrix with every seed."""
    outcome = Outcome("R11", seed, budget)
    count = _RUNS[budget]
    sums = simulate(outcome, "R11", count, first=0 if budget == "full" else seed * count * 37)
    cases = sum(sums.told.values())
    unknown = sum(n for name, n in sums.told.items() if name.startswith("unknown"))
    outcome.figure = (
        f"{cases} of {RUNS_IN_ALL * CASES_PER_RUN} partitions (cuts x moment x quorums), outcome told unknown in "
        f"{unknown}: {sums.failed} runs with an outcome that was not true"
    )
    return outcome


__all__ = ["run"]
