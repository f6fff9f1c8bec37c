"""Run one row of the reliability table, or all of them: ``python -m omendb_chaos R3 --seed 7 --budget full``."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Mapping
from typing import get_args

from omendb_chaos.rows.outcome import Budget, Outcome

# Modules are imported when their row runs: each pulls in only what it needs.
ROWS: Mapping[str, str] = {
    "R1": "kills",
    "R2": "cluster_kills",
    "R3": "power",
    "R4": "single_bytes",
    "R5": "blocks",
    "R6": "full_disk",
    "R7": "io_errors",
    "R8": "failed_syncs",
    "R9": "memory",
    "R10": "swarm",
    "R11": "partition_matrix",
    "R12": "clock_skew",
    "R13": "histories",
    "R14": "metadata",
    "R16": "quorum_searches",
    "R15": "raft",
    "R17": "convergence",
    "R18": "zombies",
    "R19": "shard_moves",
    "R20": "fencing",
    "R21": "disks_gone",
    "R23": "fuzzed_requests",
    "R25": "bit_rot",
    "R27": "cancellations",
    "R28": "gray",
    "R30": "mutants",
    "R-coordinators": "no_coordinators",
    "R-determinism": "determinism",
    "R-leaders": "leaders",
    "R-splits": "splits",
}


def run_row(row: str, seed: int, budget: Budget) -> Outcome:
    """Run one row."""
    module = importlib.import_module(f"omendb_chaos.rows.{ROWS[row]}")
    outcome: Outcome = module.run(seed, budget)
    return outcome


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status: 0 when nothing was violated."""
    parser = argparse.ArgumentParser(prog="python -m omendb_chaos", description=__doc__)
    parser.add_argument("row", choices=[*ROWS, "all"], help="which row of the table")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same run")
    parser.add_argument(
        "--budget", choices=get_args(Budget), default="small", help="small: seconds; full: as published"
    )
    given = parser.parse_args(arguments)
    passed = True
    for row in ROWS if given.row == "all" else [given.row]:
        started = time.monotonic()
        outcome = run_row(row, given.seed, given.budget)
        sys.stderr.write(f"{row} took {time.monotonic() - started:.1f} s\n")
        print(outcome.report(), flush=True)
        passed = passed and outcome.passed
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
