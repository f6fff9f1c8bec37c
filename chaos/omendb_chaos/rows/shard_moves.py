"""R19: a replica moves while clients write and read, and at every point of its way everything strikes everybody.

Seven points, three faults, three who take part: every case, then random ones, then rough ones, in which writes miss
replicas and a router sleeps through the move. How many calls were answered is counted where the weather is fair.
At full length also on real processes.
"""

from __future__ import annotations

from omendb_chaos.cluster.moving import CALM, CASES
from omendb_chaos.rows.outcome import Budget, Outcome
from omendb_chaos.rows.real_moves import Struck, strike_moves
from omendb_chaos.rows.simulated import Sums, simulate

AVAILABLE_MIN = 0.99
_ROUGH_FROM = len(CASES) + CALM
_ROUGH = {"small": 1, "full": 100}
_REAL = {"small": 0, "full": 10}
"""Moves of real processes; ``tests/cluster`` has some of them in every run."""
_FAILED = "none", "unknown"
_SERVED = "done", "absent"
# In the slice every sixteenth case: another point, fault and victim each time.
_EVERY = 16


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row."""
    outcome = Outcome("R19", seed, budget)
    if budget == "small":
        parts = [simulate(outcome, "R19", 1, first=number) for number in range(seed % _EVERY, len(CASES), _EVERY)]
        parts.append(simulate(outcome, "R19", 1, first=len(CASES)))
    else:
        parts = [simulate(outcome, "R19", _ROUGH_FROM)]
    rough = simulate(outcome, "R19", _ROUGH[budget], first=_ROUGH_FROM)
    served, calls = (sum(part.told[what] for part in parts for what in kinds) for kinds in (_SERVED, _SERVED + _FAILED))
    real = strike_moves(outcome, seed, _REAL[budget]) if _REAL[budget] else Struck()
    outcome.notes += real.notes()
    runs, hours, failed = (_sum(name, [*parts, rough]) for name in ("runs", "hours", "failed"))
    if served < AVAILABLE_MIN * calls:
        outcome.violated(f"{served} of {calls} calls were answered, less than {AVAILABLE_MIN:.0%}")
    outcome.figure = (
        f"{runs:.0f} simulated runs, {hours:.1f} hours, {runs - rough.runs:.0f} of them in fair weather with "
        f"{100 * served / calls:.2f} % of {calls} calls answered: {failed:.0f} with a write lost, reads of two owners "
        f"or a move that did not end; {real.told}: {len(outcome.violations)} violations in all"
    )
    return outcome


def _sum(name: str, parts: list[Sums]) -> float:
    return float(sum(getattr(part, name) for part in parts))


__all__ = ["AVAILABLE_MIN", "run"]
