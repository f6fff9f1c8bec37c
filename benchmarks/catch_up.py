"""How soon a data node that was killed holds what the others hold, and what that takes.

A local fleet of one coordinator, one router and three data nodes, and a collection of one shard with N=3 and W=2. In
every round a data node is killed, some points are written again without it, and it is started with nothing of its
folder in the kernel's memory. Timed is what lies between the moment at which it serves and the one at which all missed
rows were sent, and a round of its own found all three replicas equal.
"""

from __future__ import annotations

import argparse
import os
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import own, sets, upkeep
from benchmarks.benchset import BenchSet
from benchmarks.fleet import Fleeting
from omendb import Collection
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb.fleet.process import wait_until

BATCH = 1000
CALL_S = 10.0
PATIENCE_S = 120.0
EQUAL = re.compile(r'^omendb_repair_rounds_total\{result="equal"\} (\S+)$', re.MULTILINE)
FRAMES = re.compile(r"^omendb_frame_bytes_total\{[^}]*\} (\S+)$", re.MULTILINE)


class CaughtUp(NamedTuple):
    """One return of a node. ``opened_s``: until it served; ``equal_s``: from then until all were found equal.

    ``read``: bytes that it had the disk read from its start until then; ``rows``: sent between all nodes; ``frames``:
    bytes that it sent and got over connections until then.
    """

    missed: int
    opened_s: float
    equal_s: float
    read: int
    rows: int
    frames: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    own.add_common_arguments(parser, rows=200_000)
    parser.add_argument(
        "--missed", type=int, nargs="+", default=[1, 1000, 18_000], help="rows written without the node"
    )
    parser.add_argument("--datanodes", type=int, default=3, help="data nodes; three have a replica")
    parser.add_argument("--tls", action=argparse.BooleanOptionalAction, default=True, help="TLS inside the fleet")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that medians are taken of")
    parser.add_argument("--settle-s", type=float, default=30.0, help="repair.settle_s: what is younger is left alone")


class _Fleet(Fleeting):
    """A fleet whose data nodes tell what they count, and make no graphs: an index takes no part in this."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        super().__init__(folder, arguments)
        self.fleet = Fleet.make(
            folder / "caught", FleetSize(1, 1, arguments.datanodes), tls=arguments.tls, usual_ports=False
        )
        for node in self.fleet.plan.of("datanode"):
            process = self.fleet.process(node.name)
            process.arguments = [*process.arguments, *upkeep.COUNTED]
            process.environment = {"OMENDB_REPAIR_SETTLE_S": str(arguments.settle_s), "OMENDB_INDEX_KIND": "flat"}


class _Node:
    """The data node that goes and comes."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self._fleet = fleet
        self.name = name

    def metrics(self) -> str:
        """What it counts."""
        told = self._fleet.process(self.name).ready()
        assert told is not None, f"{self.name} does not serve"
        with urllib.request.urlopen(f"http://{told['metrics']}/metrics", timeout=CALL_S) as answer:
            return str(answer.read().decode())

    def found_equal(self) -> bool:
        """Whether a round of its own found all replicas equal, since it was started."""
        return any(float(value) > 0 for value in EQUAL.findall(self.metrics()))

    def frame_bytes(self) -> int:
        """What went over its connections, both ways, since it was started."""
        return sum(int(float(value)) for value in FRAMES.findall(self.metrics()))

    def read_bytes(self) -> int:
        """What it had the disk read since it was started; pages of mapped files count."""
        pid = self._fleet.process(self.name).pid
        for line in Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines():
            if line.startswith("read_bytes: "):
                return int(line.rpartition(" ")[2])
        raise RuntimeError("the system does not tell what a process reads")

    def forget_cached(self) -> None:
        """Have the kernel give up what it keeps of the folder in memory, as after a restart of the machine."""
        for path in _files(self._fleet.folder / self.name):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


class _Cases:
    """Brings about returns of one node."""

    def __init__(self, fleet: Fleet, node: _Node, points: Collection, bench_set: BenchSet) -> None:
        self._fleet = fleet
        self._node = node
        self._points = points
        self._set = bench_set

    def of(self, missed: int) -> CaughtUp:
        """Kill the node, write so many rows without it, start it, and wait until it is equal again."""
        fleet, node = self._fleet, self._node
        fleet.kill(node.name)
        for batch in self._set.batches(BATCH, limit=missed):
            own.write(self._points, batch)
        node.forget_cached()
        before = upkeep.rows_mended(fleet)
        started = time.perf_counter()
        fleet.start(node.name)
        ready = time.perf_counter()

        def equal() -> bool:
            return node.found_equal() and upkeep.rows_mended(fleet) >= before + missed

        wait_until(equal, PATIENCE_S, f"{node.name} to be equal")
        equal_s = time.perf_counter() - ready
        caught = CaughtUp(missed, ready - started, equal_s, node.read_bytes(), 0, node.frame_bytes())
        fleet.wait_member(node.name, PATIENCE_S)
        return caught._replace(rows=upkeep.rows_mended(fleet) - before)


def summed_up(returns: list[CaughtUp]) -> dict[int, dict[str, float]]:
    """For each number of missed rows the medians, and the longest time to equal."""
    table = {}
    for missed in dict.fromkeys(one.missed for one in returns):
        some = [one for one in returns if one.missed == missed]
        row = {name: float(np.median([getattr(one, name) for one in some])) for name in CaughtUp._fields[1:]}
        table[missed] = {**row, "equal_s_max": max(one.equal_s for one in some), "returns": len(some)}
    return table


def run(arguments: argparse.Namespace) -> None:
    """Measure and print a table, a line of JSON, and what it means."""
    bench_set = sets.prepare(f"{arguments.kind}:{arguments.rows}")
    returns: list[CaughtUp] = []
    with own.scratch(arguments.work) as folder:
        running = _Fleet(folder, arguments)
        with running, running.client() as client:
            points = client.create_collection(
                running.name(bench_set), dimension=bench_set.space.dimension, shards=1, replication=3, write_quorum=2
            )
            own.fill(points, bench_set)
            points.flush()
            points.compact()
            node = _Node(running.fleet, upkeep.holders(running.fleet.status())[-1])
            cases = _Cases(running.fleet, node, points, bench_set)
            for _ in range(arguments.rounds):
                returns += [cases.of(missed) for missed in arguments.missed]
                _print(summed_up(returns))
    _conclude(arguments, returns)


def _print(table: dict[int, dict[str, float]]) -> None:
    heads = ("start s", "equal s", "worst s", "read MB", "rows sent", "frames MB")
    print(f"{'missed':>8}" + "".join(f"{head:>11}" for head in heads))
    for missed, row in table.items():
        times = f"{row['opened_s']:>11.2f}{row['equal_s']:>11.2f}{row['equal_s_max']:>11.2f}"
        sent = f"{row['rows']:>11.0f}{row['frames'] / 1e6:>11.2f}"
        print(f"{missed:>8}{times}{row['read'] / 1e6:>11.1f}{sent}", flush=True)


def _conclude(arguments: argparse.Namespace, returns: list[CaughtUp]) -> None:
    table = summed_up(returns)
    told = "; ".join(
        f"{missed:,} rows missed: equal after {row['equal_s']:.2f} s, {row['read'] / 1e6:.1f} MB read from the disk, "
        f"{row['rows']:,.0f} rows and {row['frames'] / 1e6:.1f} MB sent"
        for missed, row in table.items()
    )
    figures: dict[str, Any] = {"rows": arguments.rows, "settle_s": arguments.settle_s, "table": table}
    own.conclude("catch-up", {**figures, "returns": [one._asdict() for one in returns]}, told)
