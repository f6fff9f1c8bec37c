"""R-determinism: every seed twice, in two interpreters that hash strings otherwise, to the same last event."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from omendb_chaos.cluster.runs import run_one
from omendb_chaos.rows.outcome import Budget, Outcome

_RUNS = {"small": 2, "full": 100}
_AT_A_TIME = 10


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row."""
    outcome = Outcome("R-determinism", seed, budget)
    seeds = [f"{row}/{seed}/{number}" for number in range(_RUNS[budget]) for row in ("R10", "R13")][: _RUNS[budget]]
    differ = 0
    simulated_s = real_s = 0.0
    for start in range(0, len(seeds), _AT_A_TIME):
        some = seeds[start : start + _AT_A_TIME]
        again = _traces(some, hash_seed=start + 1)
        for name in some:
            began = time.monotonic()
            first = run_one(name)
            real_s += time.monotonic() - began
            simulated_s += first.seconds
            if first.trace != again.get(name):
                differ += 1
                outcome.violated(f"{name}: trace {first.trace} here, {again.get(name)} in another interpreter")
    outcome.figure = (
        f"{len(seeds)} seeds run twice: {differ} with another trace; "
        f"{simulated_s / max(real_s, 1e-9):.0f} simulated hours per real hour of one process"
    )
    return outcome


def _traces(seeds: list[str], hash_seed: int) -> dict[str, str]:
    """The trace of every seed, as another interpreter has it."""
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-m", "omendb_chaos.cluster", *seeds]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    told = [line.split() for line in done.stdout.splitlines() if " trace " in line]
    return {words[0].rstrip(":"): words[-1] for words in told}


__all__ = ["run"]
