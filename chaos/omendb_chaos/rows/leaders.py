"""R-leaders: the leader of a real Raft group is killed, stopped and cut off under load.

Twelve writers propose to three members with files and mutual TLS. Nothing acknowledged may be lost, doubled, or applied
in another order than it was acknowledged in, and somebody must lead again soon.
"""

from __future__ import annotations

from collections.abc import Sequence

from omendb_chaos.raft.checks import Violation
from omendb_chaos.raft.leader_faults import ALONE, DEAF, FAULTS, KILL, TWICE, strike_leaders
from omendb_chaos.rows.outcome import Budget, Outcome

_TIMES = {
    "small": {KILL: 2, TWICE: 1, ALONE: 1, DEAF: 1},
    "full": {fault: 20 if fault == KILL else 5 for fault in FAULTS},
}
# Only at full length: a slice of it runs beside other tests, and a busy machine elects slowly.
_FAILOVER_S_MAX = 5.0


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row."""
    outcome = Outcome("R-leaders", seed, budget)
    try:
        tally = strike_leaders(seed, _TIMES[budget])
    except* Violation as errors:
        outcome.violations += [str(error) for error in errors.exceptions]
    if not outcome.passed:
        outcome.figure = f"{len(outcome.violations)} violations"
        return outcome
    for fault, silences_s in tally.silences_s.items():
        outcome.notes.append(f"leader {fault}, {len(silences_s)} times: nobody could write for {_said(silences_s)}")
    slow = max(tally.silences_s[KILL])
    if budget == "full" and slow > _FAILOVER_S_MAX:
        outcome.violated(f"{slow:.2f} s without a leader after a kill")
    outcome.figure = (
        f"{_TIMES[budget][KILL]} kills of the leader and {sum(_TIMES[budget].values()) - _TIMES[budget][KILL]} other "
        f"faults, {tally.acknowledged} acknowledged commands, 0 lost, 0 doubled, 0 out of order, {tally.reads} reads; "
        f"failover after a kill: {_said(tally.silences_s[KILL])}; {len(outcome.violations)} violations"
    )
    return outcome


def _said(seconds: Sequence[float]) -> str:
    """Median and 99th percentile, which of few is the greatest."""
    ordered = sorted(seconds)
    high = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return f"p50 {ordered[len(ordered) // 2]:.2f} s, p99 {high:.2f} s"


__all__ = ["run"]
