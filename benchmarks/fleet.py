"""What a search through a fleet costs: processor time of router and data nodes, on each face, alone and side by side.

A fleet of real processes on this machine, and the load from a process of its own. The clients of the faces are as thin
as they can be (requests made beforehand, answers not looked at), so that as much as possible of the machine is left to
the fleet; `python` is the client that users have, over frames and over gRPC. Processor time is what the kernel says of
the router and the data nodes over a pass: native code, threads and heartbeats included, coordinators not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import omendb
from benchmarks import fleet_load, own, sets
from benchmarks.benchset import BenchSet
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize

K = 10
BATCH = 1000
CPU_US_MAX = 500
PER_S_MIN = 3000
P50_MS_MAX = 4.0
BATCH_RATIO_MAX = 2.0
ANSWERED = {"": "metadata", "id,distance": "ids"}
LEVELS = ("one", "verified", "quorum")


class Ask(NamedTuple):
    """One kind of load: through which face, what is answered, at which consistency, how many at a time."""

    face: str
    include: str
    level: str
    n: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    own.add_common_arguments(parser, rows=10_000)
    parser.add_argument("--batch-rows", type=int, default=100_000, help="rows that batches of queries are asked of")
    parser.add_argument("--datanodes", type=int, default=3, help="data nodes, each with a copy")
    parser.add_argument("--tls", action=argparse.BooleanOptionalAction, default=True, help="TLS inside the fleet")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 8, 32], help="searches under way at a time")
    parser.add_argument("--faces", nargs="+", default=fleet_load.FACES, choices=fleet_load.FACES, help="which to ask")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a pass")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that medians are taken of")


class Fleeting:
    """A running fleet with a collection of one set, and the processes whose time is counted."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.fleet = Fleet.make(folder, FleetSize(1, 1, arguments.datanodes), tls=arguments.tls, usual_ports=False)
        self._pids: dict[str, list[int]] = {}

    def __enter__(self) -> Fleeting:
        self.fleet.up()
        for state in self.fleet.states():
            if state.pid is not None:
                self._pids.setdefault(state.kind, []).append(state.pid)
        return self

    def __exit__(self, *failure: object) -> None:
        self.fleet.down()

    def client(self) -> omendb.Client:
        """A client of its own."""
        return omendb.Client(f"http://{self.address('http')}")

    @staticmethod
    def name(bench_set: BenchSet) -> str:
        """How the collection of a set is called."""
        return f"rows{bench_set.n}"

    def fill(self, bench_set: BenchSet) -> None:
        """Make the collection of a set, indexed; by a client that goes, as one that wrote reads at a quorum."""
        with self.client() as client:
            name = self.name(bench_set)
            if name not in client.list_collections():
                own.fill(client.create_collection(name, dimension=bench_set.space.dimension), bench_set)

    def cpu_s(self, kind: str) -> float:
        """Processor time that the processes of one kind have used."""
        return sum(_cpu_s(pid) for pid in self._pids[kind])

    def address(self, purpose: str) -> str:
        """Where the router is."""
        return self.fleet.plan.of("router")[0].address(purpose)


def _cpu_s(pid: int) -> float:
    """Processor time of a process, in user code and in the kernel."""
    # The command's name, in brackets, may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pass(running: Fleeting, load: Callable[[], list[float]]) -> dict[str, float]:
    """One pass of a load: rates, and processor time per search. The load gives each search's seconds."""
    before, began = (running.cpu_s("router"), running.cpu_s("datanode")), time.perf_counter()
    times = load()
    took_s = time.perf_counter() - began
    made = len(times)
    return {
        "per_s": made / took_s,
        "router_us": (running.cpu_s("router") - before[0]) / made * 1e6,
        "datanode_us": (running.cpu_s("datanode") - before[1]) / made * 1e6,
        "p50_ms": float(np.median(times)) * 1e3,
        "p99_ms": float(np.percentile(times, 99)) * 1e3,
    }


def _searches(running: Fleeting, bench_set: BenchSet, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every face, every number in flight: the medians over the rounds, which take turns."""
    asks = [
        Ask(face, include, "one", n)  # so that ways compare, and with what earlier releases took
        for face in arguments.faces
        for include in ANSWERED
        for n in arguments.in_flight
        if (face, include) not in (("python", "id,distance"), ("python, grpc", "id,distance"))
    ]
    asks += [Ask(_named(arguments), "", level, n) for level in LEVELS for n in arguments.in_flight]
    queries = bench_set.queries(1000)
    passes: dict[Ask, list[dict[str, float]]] = {ask: [] for ask in asks}
    here, there = multiprocessing.Pipe()
    target = (there, running.address("http"), running.address("grpc"), running.name(bench_set), queries)
    loader = multiprocessing.get_context("spawn").Process(target=fleet_load.work, args=target, daemon=True)
    loader.start()

    def load(ask: Ask, seconds: float) -> list[float]:
        here.send((*ask, seconds))
        times = here.recv()
        if isinstance(times, str):
            raise RuntimeError(times)
        return list(times)

    for ask in asks:
        load(ask, 0.3)
    for _ in range(arguments.rounds):
        for ask in asks:
            passes[ask].append(_pass(running, partial(load, ask, arguments.seconds)))
    here.send(None)
    loader.join(timeout=10)
    found: dict[str, Any] = {}
    for ask, told in passes.items():
        row = {name: round(float(np.median([one[name] for one in told])), 3) for name in told[0]}
        name = f"{ask.face}, {ANSWERED[ask.include]}" + (f", {ask.level}" if ask.level else "")
        found.setdefault(name, {})[str(ask.n)] = row
    return found


def _batches(fleet: omendb.Collection, embedded: omendb.Collection, queries: Any, rounds: int) -> dict[str, float]:
    """Queries per second of one call with many, through the fleet and embedded, in turns; hits are looked at."""
    rates: dict[str, list[float]] = {"fleet": [], "embedded": []}

    def call(collection: omendb.Collection) -> float:
        began = time.perf_counter()
        for result in collection.search(vectors=queries, k=K, include=("id", "distance")):
            assert len(result.ids) == len(result.distances) == K
        return len(queries) / (time.perf_counter() - began)

    for number in range(rounds + 1):
        for name, collection in (("fleet", fleet), ("embedded", embedded)):
            rate = call(collection)
            if number:  # the first one warms up
                rates[name].append(rate)
    return {name: float(np.median(told)) for name, told in rates.items()}


def run(arguments: argparse.Namespace) -> None:
    """Measure and print a table, a line of JSON, and what it means."""
    small = sets.prepare(f"{arguments.kind}:{arguments.rows}")
    large = sets.prepare(f"{arguments.kind}:{arguments.batch_rows}")
    with own.scratch(arguments.work) as folder:
        running = Fleeting(folder / "fleet", arguments)
        with running:
            running.fill(small)
            found = _searches(running, small, arguments)
            _print(found)
            database, embedded = own.create(folder / "db", large)
            own.fill(embedded, large)
            running.fill(large)
            with running.client() as client:
                remote = client.collection(running.name(large))
                batches = _batches(remote, embedded, large.queries(BATCH), max(arguments.rounds, 3))
            database.close()
    _conclude(found, batches, arguments)


def _named(arguments: argparse.Namespace) -> str:
    """The face that goals and levels are told of."""
    return "frames" if "frames" in arguments.faces else str(arguments.faces[0])


def _print(found: dict[str, Any]) -> None:
    heads = ("in flight", "per s", "router us", "node us", "both us", "p50 ms", "p99 ms")
    print(f"{'':28}" + "".join(f"{head:>11}" for head in heads))
    for name, rows in found.items():
        for n, row in rows.items():
            both = row["router_us"] + row["datanode_us"]
            numbers: Sequence[float] = (row["per_s"], row["router_us"], row["datanode_us"], both)
            told = "".join(f"{number:>11.0f}" for number in numbers)
            print(f"{name:28}{n:>11}{told}{row['p50_ms']:>11.2f}{row['p99_ms']:>11.2f}")


def _conclude(found: dict[str, Any], batches: dict[str, float], arguments: argparse.Namespace) -> None:
    most = str(max(arguments.in_flight))
    least = str(min(arguments.in_flight))
    named = _named(arguments)
    best, single = found[f"{named}, ids"][most], found.get("python, metadata", {}).get(least)
    ratio = batches["embedded"] / batches["fleet"]
    own.conclude(
        "fleet",
        {"rows": arguments.rows, "datanodes": arguments.datanodes, "searches": found, "batches": batches},
        f"{named}, {most} in flight: {best['router_us'] + best['datanode_us']:.0f} µs of CPU per search in router and "
        f"data nodes (goal ≤ {CPU_US_MAX}), {best['per_s']:,.0f} searches/s (goal ≥ {PER_S_MIN:,}); one at a time "
        f"through the Python client {single['p50_ms'] if single else float('nan'):.2f} ms (goal ≤ {P50_MS_MAX:g}); "
        f"{BATCH:,} queries in a call {batches['fleet']:,.0f}/s, embedded {batches['embedded']:,.0f}/s, {ratio:.1f} "
        f"times as many (goal ≤ {BATCH_RATIO_MAX:g})",
    )
