"""What ingest and searches keep of their rates while a fleet mends replicas, and while it moves them.

A local fleet of one coordinator, one router and four data nodes, and a collection of one shard with N=3 and W=2. In
every round come three cases in turn: a fleet that does nothing else; one of whose data nodes was away while all points
were written again, and is back; and one that moves a replica from node to node, at the default pace. In each, short
passes of searches and of ingest take turns. Passes that saw nothing of the case are left out. Ingest writes points of
its own, again and again, so that the collection stays as large as it is.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import fleet_load, measure, own, sets, upkeep
from benchmarks.adapters.adapter import Batch
from benchmarks.benchset import BenchSet
from benchmarks.fleet import Fleeting
from omendb import Collection
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize

CASES = ("neither", "mending", "moving")
LOADS = ("searches", "rows")
BATCH = 1000
KEPT_MIN = 0.8
MENDED_S = 60.0
LOOK_S = 0.1


class Pass(NamedTuple):
    """One pass of one load: what was done a second, and whether the case was under way meanwhile."""

    case: str
    load: str
    per_s: float
    seen: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    own.add_common_arguments(parser, rows=15_000)
    parser.add_argument("--datanodes", type=int, default=4, help="data nodes; three have a replica")
    parser.add_argument("--tls", action=argparse.BooleanOptionalAction, default=True, help="TLS inside the fleet")
    parser.add_argument("--in-flight", type=int, default=32, help="searches under way at a time")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a pass")
    parser.add_argument("--passes", type=int, default=2, help="passes of each load in a case")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that the cases take turns in")
    parser.add_argument(
        "--settle-s", type=float, default=1.0, help="repair.settle_s: 30 by default, which is long to wait for"
    )


class _Worked(Fleeting):
    """A fleet with a data node more than replicas, whose data nodes tell what they send each other."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        super().__init__(folder, arguments)
        size = FleetSize(1, 1, arguments.datanodes)
        self.fleet = Fleet.make(folder / "worked", size, tls=arguments.tls, usual_ports=False)
        for node in self.fleet.plan.of("datanode"):
            process = self.fleet.process(node.name)
            process.arguments = [*process.arguments, *upkeep.COUNTED]
            process.environment = {"OMENDB_REPAIR_SETTLE_S": str(arguments.settle_s)}


class _Loads:
    """Searches from a process of their own, and ingest from this one."""

    def __init__(self, running: _Worked, bench_set: BenchSet, points: Collection, in_flight: int) -> None:
        self._pipe, there = multiprocessing.Pipe()
        target = (there, running.address("http"), running.address("grpc"), running.name(bench_set))
        work = multiprocessing.get_context("spawn").Process(
            target=fleet_load.work, args=(*target, bench_set.queries(1000)), daemon=True
        )
        work.start()
        self._points = points
        self._in_flight = in_flight
        self._batches = itertools.cycle(list(beside(bench_set)))

    def searches(self, seconds: float) -> float:
        """Searches a second."""
        began = time.perf_counter()
        self._pipe.send(("frames", "", "one", self._in_flight, seconds))
        times = self._pipe.recv()
        if isinstance(times, str):
            raise RuntimeError(times)
        return len(times) / (time.perf_counter() - began)

    def rows(self, seconds: float) -> float:
        """Rows acknowledged a second."""
        began, written = time.perf_counter(), 0
        while time.perf_counter() < began + seconds:
            batch = next(self._batches)
            own.write(self._points, batch)
            written += batch.n
        return written / (time.perf_counter() - began)

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)


def beside(bench_set: BenchSet) -> Iterator[Batch]:
    """The set's rows in batches once more, as other points: what was missed is to be mended, not written over."""
    for batch in bench_set.batches(BATCH):
        yield replace(batch, first=batch.first + bench_set.n)


class _Cases:
    """Brings about each case, and gives how to see whether it is under way."""

    def __init__(self, fleet: Fleet, points: Collection, bench_set: BenchSet) -> None:
        self._fleet = fleet
        self._points = points
        self._set = bench_set
        self.mended = self.moves = 0

    @contextmanager
    def neither(self) -> Iterator[Callable[[], bool]]:
        """A fleet that does nothing else."""
        own.wait_indexed(self._points)
        yield lambda: True

    @contextmanager
    def mending(self) -> Iterator[Callable[[], bool]]:
        """A data node comes back that was away while every point was written again."""
        with upkeep.away(self._fleet):
            began = upkeep.rows_mended(self._fleet)
            for batch in self._set.batches(BATCH):
                own.write(self._points, batch)
            own.wait_indexed(self._points)
        last = [upkeep.rows_mended(self._fleet)]

        def seen() -> bool:
            """Whether rows were mended since this was last asked."""
            before, last[0] = last[0], upkeep.rows_mended(self._fleet)
            return last[0] > before

        self._wait_mended(began + 1)
        yield seen
        self._wait_mended(began + self._set.n)
        self.mended += upkeep.rows_mended(self._fleet) - began

    @contextmanager
    def moving(self) -> Iterator[Callable[[], bool]]:
        """A replica moves from node to node."""
        own.wait_indexed(self._points)
        with upkeep.Moving(self._fleet) as moving:
            yield moving.under_way
        self.moves += moving.moves

    def _wait_mended(self, rows: int) -> None:
        until_s = time.monotonic() + MENDED_S
        while upkeep.rows_mended(self._fleet) < rows and time.monotonic() < until_s:
            time.sleep(LOOK_S)


def _round(cases: _Cases, loads: _Loads, number: int, arguments: argparse.Namespace) -> list[Pass]:
    """Every case once, and in each the loads in turns; each goes first every other time: mending ends soon."""
    order = LOADS if number % 2 == 0 else LOADS[::-1]
    told = []
    for case in CASES:
        with getattr(cases, case)() as seen:
            for load in order * arguments.passes:
                before = seen() if case == "moving" else True
                per_s = getattr(loads, load)(arguments.seconds)
                told.append(Pass(case, load, per_s, seen() and before))
    return told


def summed_up(passes: list[Pass]) -> dict[str, dict[str, Any]]:
    """For each case and load: the median rate of passes that saw it, how many these are, and what is kept of the rate.

    What is kept is NaN where a case, or the fleet that does nothing else, was seen by no pass.
    """
    table: dict[str, dict[str, Any]] = {}
    for case in CASES:
        row: dict[str, Any] = {}
        for load in LOADS:
            ran = [one for one in passes if (one.case, one.load) == (case, load)]
            seen = [one.per_s for one in ran if one.seen]
            row[load] = {"per_s": measure.median(seen), "seen": len(seen), "passes": len(ran)}
            row[load]["kept"] = row[load]["per_s"] / table.get(CASES[0], row)[load]["per_s"]
        table[case] = row
    return table


def run(arguments: argparse.Namespace) -> None:
    """Measure and print a table, a line of JSON, and what it means."""
    bench_set = sets.prepare(f"{arguments.kind}:{arguments.rows}")
    passes: list[Pass] = []
    with own.scratch(arguments.work) as folder:
        running = _Worked(folder, arguments)
        with running, running.client() as client:
            points = client.create_collection(
                running.name(bench_set), dimension=bench_set.space.dimension, shards=1, replication=3, write_quorum=2
            )
            own.fill(points, bench_set)
            loads = _Loads(running, bench_set, points, arguments.in_flight)
            for load in LOADS:
                getattr(loads, load)(arguments.seconds)
            cases = _Cases(running.fleet, points, bench_set)
            for number in range(arguments.rounds):
                passes += _round(cases, loads, number, arguments)
                print(f"after round {number + 1} of {arguments.rounds}:", flush=True)
                _print(summed_up(passes))
            loads.close()
    _conclude(arguments, passes, cases)


def _print(table: dict[str, dict[str, Any]]) -> None:
    print(f"{'':10}" + "".join(f"{load + '/s':>14}{'kept':>8}{'passes':>10}" for load in LOADS))
    for case, row in table.items():
        cells = (f"{r['per_s']:>14,.0f}{r['kept']:>8.2f}{r['seen']:>6} of {r['passes']}" for r in row.values())
        print(f"{case:10}" + "".join(cells), flush=True)


def _conclude(arguments: argparse.Namespace, passes: list[Pass], cases: _Cases) -> None:
    table = summed_up(passes)
    told = "; ".join(
        f"while {case}, {table[case]['searches']['kept']:.2f} of the searches and {table[case]['rows']['kept']:.2f} of "
        "the rows"
        for case in CASES[1:]
    )
    worst = float(np.min([table[case][load]["kept"] for case in CASES[1:] for load in LOADS]))
    figures = {"rows": arguments.rows, "datanodes": arguments.datanodes, "settle_s": arguments.settle_s}
    own.conclude(
        "cluster-work",
        {**figures, "mended": cases.mended, "moves": cases.moves, "table": table, "passes": [*map(list, passes)]},
        f"kept {told}; the least {worst:.2f} (goal ≥ {KEPT_MIN:g}); {cases.mended:,} rows sent to mend, "
        f"{cases.moves} moves",
    )
