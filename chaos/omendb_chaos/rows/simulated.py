"""What the rows of the cluster simulation share: many runs, their sums, and the command that repeats one of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from omendb_chaos.cluster.runs import run_one
from omendb_chaos.cluster.swarm import Run
from omendb_chaos.rows.outcome import Outcome

_WORKERS_FROM = 50


@dataclass(slots=True)
class Sums:
    """Sums over runs."""

    runs: int = 0
    seconds: float = 0.0
    calls: int = 0
    undecided: int = 0
    failed: int = 0
    told: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, run: Run) -> None:
        """Count a run."""
        self.runs += 1
        self.seconds += run.seconds
        self.calls += run.calls
        self.undecided += run.undecided
        self.failed += bool(run.violations)
        self.told += run.told
        self.faults += run.faults

    @property
    def hours(self) -> float:
        """Simulated hours."""
        return self.seconds / 3600

    def notes(self) -> list[str]:
        """What happened, for people."""
        faults = ", ".join(f"{name} {n}" for name, n in sorted(self.faults.items()))
        told = ", ".join(f"{name} {n}" for name, n in sorted(self.told.items()))
        return [f"simulated runs: {self.runs}, {self.hours:.1f} hours; clients were told: {told}", f"faults: {faults}"]


def simulate(outcome: Outcome, row: str, count: int, *, first: int = 0) -> Sums:
    """Make ``count`` runs of a row, from the number ``first`` on; what each violates goes into the outcome."""
    sums = Sums()
    for run in _runs([f"{row}/{outcome.seed}/{number}" for number in range(first, first + count)]):
        sums.add(run)
        if run.violations:
            again = f"python -m omendb_chaos.cluster {run.seed}"
            outcome.violated(f"{run.seed} (trace {run.trace}): {run.violations[0]}\n  reproduce this run: {again}")
    outcome.notes += sums.notes()
    if sums.undecided:
        outcome.notes.append(f"{sums.undecided} histories were not decided within the checker's steps")
    return sums


def _runs(seeds: Sequence[str]) -> Iterator[Run]:
    """The runs in order; many of them on all cores."""
    if len(seeds) < _WORKERS_FROM:
        yield from map(run_one, seeds)
        return
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(run_one, seeds, chunksize=5)


__all__ = ["Sums", "simulate"]
