"""Bulk ingest through a real local fleet, and where its processor time goes.

Starts coordinators, routers and data nodes as `omendb cluster up` does (mutual TLS between them, durability fsync), and
writes from this one process with one thread. A row counts when W of its N replicas have it on disk. Every repeat makes
a new collection for every size of batch, beside whatever the fleet still does with the last one (seals, index builds),
and drops the one before: what a stream of jobs meets. Processor time is that of each process while the batches were
under way, background work included.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure, own, sets
from omendb import Client
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize

DIMENSION = 128
ROWS_PER_S_MIN = 50_000
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--rows", type=int, default=100_000, help="rows of a stream")
    parser.add_argument("--work", type=Path, default=sets.CACHE / "work", help="where the fleet's data is written")
    parser.add_argument("--batch", type=int, nargs="+", default=[1_000, 10_000], help="rows of a write")
    parser.add_argument("--repeats", type=int, default=3, help="repeats that medians are taken of")
    parser.add_argument("--coordinators", type=int, default=3, help="coordinators of the fleet")
    parser.add_argument("--routers", type=int, default=2, help="routers of the fleet")
    parser.add_argument("--datanodes", type=int, default=3, help="data nodes of the fleet")
    parser.add_argument("--no-tls", dest="tls", action="store_false", help="speak in the clear inside the fleet")


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Processor seconds that each process has used so far, by name."""

    seconds: dict[str, float]

    @staticmethod
    def of(fleet: Fleet) -> CpuTimes:
        """Of the fleet's processes and of this one; of nobody where the system does not tell."""
        pids = {state.name: state.pid for state in fleet.states() if state.pid is not None}
        return CpuTimes({name: _cpu_s(pid) for name, pid in {**pids, "client": os.getpid()}.items()})

    def since(self, before: CpuTimes) -> dict[str, float]:
        """What each has used since then, those of one kind together."""
        kinds = {"c": "coordinators", "r": "routers", "d": "data nodes"}
        used: dict[str, float] = {}
        for name, now in self.seconds.items():
            kind = name if name == "client" else kinds[name[0]]
            used[kind] = used.get(kind, 0.0) + now - before.seconds.get(name, 0.0)
        return used


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    size = FleetSize(arguments.coordinators, arguments.routers, arguments.datanodes)
    samples: dict[int, list[dict[str, Any]]] = {batch: [] for batch in arguments.batch}
    with own.scratch(arguments.work) as folder:
        fleet = Fleet.make(folder, size, tls=arguments.tls, usual_ports=False)
        try:
            fleet.up()
            with fleet.client() as client:
                _stream(fleet, client, "warm-up", 2 * own.WARM_UP_ROWS, own.WARM_UP_ROWS)
                last = "warm-up"
                for number, batch in itertools.product(range(arguments.repeats), arguments.batch):
                    client.drop_collection(last)
                    last = f"bench-{batch}-{number}"
                    samples[batch].append(_stream(fleet, client, last, arguments.rows, batch))
        finally:
            fleet.down()
    medians = {batch: _median_of(found) for batch, found in samples.items()}
    for batch, found in medians.items():
        print(_line(batch, found))
    _conclude(arguments, medians, samples)


def _stream(fleet: Fleet, client: Client, name: str, rows: int, batch: int) -> dict[str, Any]:
    collection = client.create_collection(name, dimension=DIMENSION)
    vectors = np.random.default_rng(0).normal(size=(batch, DIMENSION)).astype(np.float32)
    metadata = {"label": [f"label-{row % 7}" for row in range(batch)], "bucket": np.arange(batch) % 1000}
    times = []
    before = CpuTimes.of(fleet)
    for start in range(0, rows - batch + 1, batch):
        begun = time.perf_counter()
        collection.upsert(np.arange(start, start + batch), vectors, metadata)
        times.append(time.perf_counter() - begun)
    used = CpuTimes.of(fleet).since(before)
    written = len(times) * batch
    assert collection.count() == written
    return {
        "rows_per_s": written / sum(times),
        **measure.Spread.of(times).to_json(),
        "load": os.getloadavg()[0],
        **{f"cpu_us_per_row {kind}": seconds * 1e6 / written for kind, seconds in used.items()},
    }


def _median_of(found: list[dict[str, Any]]) -> dict[str, float]:
    return {name: measure.median([sample[name] for sample in found]) for name in found[0]}


def _line(batch: int, found: dict[str, float]) -> str:
    cpu = {name.partition(" ")[2]: value for name, value in found.items() if name.startswith("cpu_us_per_row ")}
    told = ", ".join(f"{kind} {value:.1f}" for kind, value in cpu.items())
    return (
        f"batches of {batch:>6,} {found['rows_per_s']:>9,.0f} rows/s · batch p50 {found['p50_ms']:.1f} "
        f"p99 {found['p99_ms']:.1f} max {found['max_ms']:.0f} ms · µs of processor a row: {told}; "
        f"together {sum(cpu.values()):.1f}"
    )


def _conclude(
    arguments: argparse.Namespace, medians: dict[int, dict[str, float]], samples: dict[int, list[dict[str, Any]]]
) -> None:
    told = ", ".join(f"{found['rows_per_s']:,.0f} at batches of {batch:,}" for batch, found in medians.items())
    slowest = max(found["max_ms"] for found in medians.values())
    own.conclude(
        "fleet-ingest",
        {"rows": arguments.rows, "tls": arguments.tls, "medians": medians, "samples": samples},
        f"rows/s acknowledged by a quorum: {told} (goal {ROWS_PER_S_MIN:,}); slowest batch {slowest:.0f} ms; "
        f"load of the machine meanwhile {max(found['load'] for found in medians.values()):.1f}",
    )
