"""What a search costs at each level of consistency, at rest and while rows are written: through a real local fleet.

Two routers are asked in turns, of which one has every replica of a quorum run the whole search (`router.search_once`
off); a third one takes the writes. All in one run, medians of rounds that take turns.
"""

from __future__ import annotations

import argparse
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import omendb
from benchmarks import fleet_load, own, sets
from benchmarks.benchset import BenchSet
from benchmarks.fleet import Fleeting
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize

ONCE, ALL, WRITING = "r1", "r2", "r3"
WRITES_PER_S = 10
RATIO_MIN = 0.8
SETTLE_S = 10.0


class Ask(NamedTuple):
    """One kind of load: what it is called, the router and the level that it asks, how many at a time."""

    name: str
    router: str
    level: str
    n: int


LEVELS = (
    ("one", ONCE, "one"),
    ("verified", ONCE, "verified"),
    ("quorum", ONCE, "quorum"),
    ("quorum, all search", ALL, "quorum"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    own.add_common_arguments(parser, rows=10_000)
    parser.add_argument("--datanodes", type=int, default=3, help="data nodes, each with a copy")
    parser.add_argument("--tls", action=argparse.BooleanOptionalAction, default=True, help="TLS inside the fleet")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 32], help="searches under way at a time")
    parser.add_argument("--rows-per-s", type=int, default=1000, help="rows written beside the searches")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a pass")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that medians are taken of")


class _Levels(Fleeting):
    """A fleet whose routers differ in one setting."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        super().__init__(folder, arguments)
        size = FleetSize(1, 3, arguments.datanodes)
        self.fleet = Fleet.make(folder / "levels", size, tls=arguments.tls, usual_ports=False)
        self.fleet.process(ALL).environment = {"OMENDB_ROUTER_SEARCH_ONCE": "false"}

    def at(self, router: str) -> str:
        """Where a router is."""
        return self.fleet.plan.node(router).address("http")


class _Loads:
    """A process for each router that is asked, which sends its searches."""

    def __init__(self, running: _Levels, bench_set: BenchSet) -> None:
        queries = bench_set.queries(1000)
        self._pipes: dict[str, Any] = {}
        for router in (ONCE, ALL):
            here, there = multiprocessing.Pipe()
            node = running.fleet.plan.node(router)
            target = (there, node.address("http"), node.address("grpc"), running.name(bench_set), queries)
            made = multiprocessing.get_context("spawn").Process(target=fleet_load.work, args=target, daemon=True)
            made.start()
            self._pipes[router] = here

    def __call__(self, ask: Ask, seconds: float) -> list[float]:
        """The seconds of every search of one pass."""
        self._pipes[ask.router].send(("frames", "", ask.level, ask.n, seconds))
        times = self._pipes[ask.router].recv()
        if isinstance(times, str):
            raise RuntimeError(times)
        return list(times)

    def close(self) -> None:
        """End them."""
        for pipe in self._pipes.values():
            pipe.send(None)


@contextmanager
def _writing(running: _Levels, bench_set: BenchSet, rows_per_s: int) -> Iterator[Callable[[], int]]:
    """Write the set's points again and again at a rate, beside the body; gives how many rows were acknowledged."""
    done, written = threading.Event(), [0]
    size = max(1, rows_per_s // WRITES_PER_S)
    batches = list(bench_set.batches(size))

    def work() -> None:
        with omendb.Client(f"http://{running.at(WRITING)}") as client:
            collection = client.collection(running.name(bench_set))
            due_s = time.perf_counter()
            for number in range(1 << 30):
                batch = batches[number % len(batches)]
                own.write(collection, batch)
                written[0] += len(batch.ids)
                due_s = max(due_s + 1 / WRITES_PER_S, time.perf_counter() - 1.0)
                if done.wait(max(0.0, due_s - time.perf_counter())):
                    return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield lambda: written[0]
    finally:
        done.set()
        thread.join()


def _passes(
    load: Callable[[Ask, float], list[float]], asks: list[Ask], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Medians over rounds that take turns."""
    for ask in asks:
        load(ask, 0.3)
    told: dict[Ask, list[tuple[float, float, float]]] = {ask: [] for ask in asks}
    for number in range(arguments.rounds):
        for ask in asks if number % 2 == 0 else reversed(asks):
            began = time.perf_counter()
            times = load(ask, arguments.seconds)
            took_s = time.perf_counter() - began
            quantiles = np.percentile(times, [50, 99]) * 1e3
            told[ask].append((len(times) / took_s, float(quantiles[0]), float(quantiles[1])))
    return {
        f"{ask.name} at {ask.n}": dict(
            zip(("per_s", "p50_ms", "p99_ms"), np.round(np.median(rows, axis=0), 3).tolist(), strict=True)
        )
        for ask, rows in told.items()
    }


def run(arguments: argparse.Namespace) -> None:
    """Measure and print a table, a line of JSON, and what it means."""
    bench_set = sets.prepare(f"{arguments.kind}:{arguments.rows}")
    asks = [Ask(*level, n) for level in LEVELS for n in arguments.in_flight]
    with own.scratch(arguments.work) as folder:
        running = _Levels(folder, arguments)
        with running:
            found, rate = _measured(running, bench_set, asks, arguments)
    _print(found, asks)
    _conclude(found, rate, arguments)


def _measured(
    running: _Levels, bench_set: BenchSet, asks: list[Ask], arguments: argparse.Namespace
) -> tuple[dict[str, Any], float]:
    """What each load saw at rest and with writes, and how many rows were written a second."""
    found: dict[str, Any] = {}
    running.fill(bench_set)
    load = _Loads(running, bench_set)
    # Time for the replicas to agree on what was filled in.
    time.sleep(SETTLE_S)
    found["at rest"] = _passes(load, asks, arguments)
    with _writing(running, bench_set, arguments.rows_per_s) as written:
        time.sleep(SETTLE_S)
        before, began = written(), time.perf_counter()
        found["with writes"] = _passes(load, asks, arguments)
        rate = (written() - before) / (time.perf_counter() - began)
    load.close()
    return found, rate


def _print(found: dict[str, Any], asks: list[Ask]) -> None:
    print(f"{'':26}" + "".join(f"{head:>12}" for head in ("per s", "p50 ms", "p99 ms") * 2))
    for ask in asks:
        name = f"{ask.name} at {ask.n}"
        numbers = [found[case][name][figure] for case in found for figure in ("per_s", "p50_ms", "p99_ms")]
        print(f"{name:26}" + "".join(f"{number:>12,.2f}" for number in numbers))


def _conclude(found: dict[str, Any], rate: float, arguments: argparse.Namespace) -> None:
    most = max(arguments.in_flight)
    ratios = {
        case: [rows[f"{name} at {most}"]["per_s"] / rows[f"one at {most}"]["per_s"] for name, _, _ in LEVELS[2:]]
        for case, rows in found.items()
    }
    own.conclude(
        "levels",
        {"rows": arguments.rows, "datanodes": arguments.datanodes, "written_per_s": round(rate), "searches": found},
        "; ".join(
            f"{case} a quorum answers {once:.2f} times as many searches as one replica (goal ≥ {RATIO_MIN:g}), "
            f"{every:.2f} where all search"
            for case, (once, every) in ratios.items()
        )
        + f"; {most} in flight, {rate:,.0f} rows/s written",
    )
