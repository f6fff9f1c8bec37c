"""Memory with the graph in use, bytes of the id table, bytes on disk, and the time to reopen.

The database is filled by one process and measured by others, so that what filling left behind in memory
does not count. Resident memory includes the pages of mapped files that searches touched; the anonymous
share is what the process itself allocated. File pages are in the system's cache when it is reopened.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import omendb
from benchmarks import measure, own, sets
from benchmarks.benchset import BenchSet
from benchmarks.setup_competitors import ROOT

REOPEN_GOAL_S = 2.0
MILLION = 1_000_000
# What finds the row of an id: the segments' key files and bloom filters.
ID_FILES = ("keys.arrow", "bloom.bin")
INDEX_FILES = ("index",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    own.add_common_arguments(parser, rows=100_000)
    parser.add_argument("--repeats", type=int, default=5, help="processes that reopen it, for the medians")
    parser.add_argument("--step", choices=("fill", "reopen"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> None:
    """Measure and print; with a step, do that part in this process and print what it found."""
    bench_set = sets.prepare(f"{arguments.kind}:{arguments.rows}")
    if arguments.step:
        step = _fill if arguments.step == "fill" else _reopen
        print(json.dumps(step(bench_set, arguments.folder)))
        return
    with own.scratch(arguments.work) as folder:
        filled = _in_process(arguments, "fill", folder / "db")
        sizes = _file_sizes(folder / "db")
        opened = [_in_process(arguments, "reopen", folder / "db") for _ in range(arguments.repeats)]
    reopened = {name: measure.median([one[name] for one in opened]) for name in opened[0]}
    _print(bench_set, filled, sizes, reopened)


def _in_process(arguments: argparse.Namespace, step: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks", "footprint", "--step", step, "--folder", str(folder)]
    command += ["--rows", str(arguments.rows), "--kind", arguments.kind]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    found: dict[str, float] = json.loads(output.strip().splitlines()[-1])
    return found


def _fill(bench_set: BenchSet, folder: Path) -> dict[str, float]:
    with measure.MemoryWatch() as watch:
        database, collection = own.create(folder, bench_set)
        own.fill(collection, bench_set)
        disk = measure.disk_bytes(folder)
        database.close()
    return {"peak": watch.peak.resident, "peak_anonymous": watch.peak.anonymous, "disk_open": disk}


def _reopen(bench_set: BenchSet, folder: Path) -> dict[str, float]:
    queries = bench_set.queries()
    own.warm_up(folder.parent / f"warm-up-{time.time_ns()}", bench_set)
    before = measure.tree_memory()
    start = time.perf_counter()
    database = omendb.open(folder)
    collection = database.collection(own.COLLECTION)
    opened = time.perf_counter()
    collection.search(queries[0], k=10)
    searched = time.perf_counter()
    for query in queries:
        collection.search(query, k=10)
    after = measure.tree_memory()
    database.close()
    return {
        "open_s": opened - start,
        "open_and_search_s": searched - start,
        "resident": after.resident - before.resident,
        "anonymous": after.anonymous - before.anonymous,
        "resident_whole": after.resident,
    }


def _file_sizes(folder: Path) -> dict[str, int]:
    """Add up the bytes of all files by name."""
    sizes: dict[str, int] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            sizes[path.name] = sizes.get(path.name, 0) + path.stat().st_size
    return sizes


def _share(sizes: dict[str, int], starts: tuple[str, ...]) -> int:
    return sum(size for name, size in sizes.items() if name.startswith(starts))


def _print(bench_set: BenchSet, filled: dict[str, Any], sizes: dict[str, int], reopened: dict[str, float]) -> None:
    per_row = {name: size / bench_set.n for name, size in sorted(sizes.items(), key=lambda item: -item[1])}
    for name, size in list(per_row.items())[:12]:
        print(f"{name:24s} {size:8.1f} bytes/row")
    vectors = bench_set.n * bench_set.space.dimension * 4
    per_million = MILLION / bench_set.n
    figures = {
        "rows": bench_set.n,
        "resident_mib_per_million": reopened["resident"] * per_million / measure.MIB,
        "anonymous_mib_per_million": reopened["anonymous"] * per_million / measure.MIB,
        "peak_mib_while_filling": filled["peak"] / measure.MIB,
        "peak_anonymous_mib_while_filling": filled["peak_anonymous"] / measure.MIB,
        "id_table_bytes_per_id": _share(sizes, ID_FILES) / bench_set.n,
        "disk_bytes_per_row": sum(sizes.values()) / bench_set.n,
        "index_to_vectors": _share(sizes, INDEX_FILES) / vectors,
        "reopen": reopened,
        "bytes_per_row": per_row,
    }
    own.conclude(
        "footprint",
        figures,
        f"per million rows {figures['resident_mib_per_million']:,.0f} MiB resident, of it "
        f"{figures['anonymous_mib_per_million']:,.0f} MiB anonymous; id table {figures['id_table_bytes_per_id']:.1f} "
        f"bytes/id; disk {figures['disk_bytes_per_row']:,.0f} bytes/row; index {figures['index_to_vectors']:.2f} of "
        f"the vectors' size (goal < 2); reopened in {reopened['open_s']:.2f} s, first answer after "
        f"{reopened['open_and_search_s']:.2f} s (goal ≤ {REOPEN_GOAL_S:g} s); peak while filling "
        f"{figures['peak_mib_while_filling']:,.0f} MiB",
    )
