"""Simulated runs again, by their seeds: ``python -m omendb_chaos.cluster R13/0/17``."""

from __future__ import annotations

import argparse
import sys

from omendb_chaos.cluster.runs import RUNS, run_one


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status: 0 when nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m omendb_chaos.cluster", description=__doc__)
    parser.add_argument("seeds", nargs="+", help=f"row/seed/number; rows: {', '.join(RUNS)}")
    given = parser.parse_args(arguments)
    if any(seed.partition("/")[0] not in RUNS for seed in given.seeds):
        parser.error(f"no such row; there are {', '.join(RUNS)}")
    return max(_again(seed) for seed in given.seeds)


def _again(seed: str) -> int:
    run = run_one(seed)
    for what in run.violations:
        print(f"VIOLATION: {what}")
    print(f"told: {dict(sorted(run.told.items()))}; faults: {dict(sorted(run.faults.items()))}")
    print(f"{seed}: {run.seconds:.1f} s simulated, {run.steps} steps, trace {run.trace}", flush=True)
    return 1 if run.violations else 0


if __name__ == "__main__":
    sys.exit(main())
