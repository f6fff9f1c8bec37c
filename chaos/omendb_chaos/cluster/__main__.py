"""One simulated run again, by its seed: ``python -m omendb_chaos.cluster R13/0/17``."""

from __future__ import annotations

import argparse
import sys

from omendb_chaos.cluster.runs import RUNS, run_one


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status: 0 when nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m omendb_chaos.cluster", description=__doc__)
    parser.add_argument("seed", help=f"row/seed/number; rows: {', '.join(RUNS)}")
    given = parser.parse_args(arguments)
    if given.seed.partition("/")[0] not in RUNS:
        parser.error(f"no such row; there are {', '.join(RUNS)}")
    run = run_one(given.seed)
    for what in run.violations:
        print(f"VIOLATION: {what}")
    print(f"told: {dict(sorted(run.told.items()))}; faults: {dict(sorted(run.faults.items()))}")
    print(f"{given.seed}: {run.seconds:.1f} s simulated, {run.steps} steps, trace {run.trace}")
    return 1 if run.violations else 0


if __name__ == "__main__":
    sys.exit(main())
