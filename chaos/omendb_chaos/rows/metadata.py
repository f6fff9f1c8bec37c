"""R14: metadata is linearizable. Clients create, drop, rename, alter, alias, move and read; every history is checked.

Most histories come from the simulated group with its kills, cuts and power cuts; some from three real processes whose
leader is killed or stopped.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path

from omendb_chaos.checkers.linearizability import check
from omendb_chaos.metadata import real, world
from omendb_chaos.metadata.specification import CatalogObject
from omendb_chaos.raft.profiles import PROFILES
from omendb_chaos.rows.outcome import Budget, Outcome, dice

_PROFILES = ("net", "crash", "compact", "rejoin", "power")
_SIMULATED = {"small": 10, "full": 300}
_REAL = {"small": 1, "full": 10}
_FAULTS_PER_HISTORY = 2
_OPERATIONS = 200


def run(seed: int, budget: Budget) -> Outcome:
    """Check histories, simulated and real."""
    outcome = Outcome("R14", seed, budget)
    answered, faults = _simulated(outcome, _SIMULATED[budget])
    with tempfile.TemporaryDirectory(prefix="omendb-metadata-") as folder:
        session = asyncio.run(
            real.run(
                Path(folder),
                dice("R14", "real", seed),
                histories=_REAL[budget],
                operations=_OPERATIONS,
                faults=_FAULTS_PER_HISTORY,
            )
        )
    for number, history in enumerate(session.histories):
        verdict = check(history, CatalogObject())
        answered += sum(1 for operation in history if not operation.is_open)
        if not verdict.ok:
            outcome.violated(f"real processes, history {number}: {verdict.why}")
    outcome.notes.append(f"simulated faults: {dict(sorted(faults.items()))}")
    outcome.notes.append(f"real: {session.kills} leaders killed, {session.stops} stopped for a while")
    outcome.figure = (
        f"{_SIMULATED[budget]} simulated histories and {len(session.histories)} of real processes, {answered} answered "
        f"calls, {len(outcome.violations)} not linearizable, longest pause of all clients after the "
        f"leader was killed or stopped: {_percentiles(session.pauses_s)}"
    )
    return outcome


def _simulated(outcome: Outcome, runs: int) -> tuple[int, Counter[str]]:
    answered, faults = 0, Counter[str]()
    for number in range(runs):
        profile = PROFILES[_PROFILES[number % len(_PROFILES)]]
        seed = outcome.seed * 100_000 + number
        result, calls = world.simulate(seed, profile)
        answered += calls
        faults.update(result.faults)
        if result.violation:
            outcome.violated(f"simulated, profile {profile.name}, seed {seed}: {result.violation}")
    return answered, faults


def _percentiles(seconds: list[float]) -> str:
    if not seconds:
        return "never seen"
    ordered = sorted(seconds)
    median, high = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"p50 {median:.2f} s, p99 {high:.2f} s"


__all__ = ["run"]
