"""Durable ingest against a bare append loop over the same bytes, and how even it is while indexes are built.

Each repeat runs the two bare loops, then OmenDB with durability fsync, with durability os, and with fsync
while another thread searches; so all see the same machine. Rows/s count the write calls only: reading the
rows from the set's files happens between them, for all alike. Indexing and compaction run as they do by
default. A write that is told to come back later waits within its own time.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import bare, measure, own, sets
from benchmarks.benchset import BenchSet
from omendb import Collection

# A reader beside the stream, not a second load: it rests between its queries.
SEARCH_PAUSE_S = 0.01
RATIOS = {1_000: 1 / 3, 10_000: 1 / 2}
EVENNESS_MAX = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    own.add_common_arguments(parser, rows=100_000)
    parser.add_argument("--batch", type=int, default=1_000, help="rows of a write")
    parser.add_argument("--repeats", type=int, default=3, help="repeats that medians are taken of")


class _Searcher:
    """Searches in a thread until told to stop."""

    def __init__(self, collection: Collection, queries: np.ndarray[Any, Any]) -> None:
        self.times: list[float] = []
        self._collection = collection
        self._queries = queries
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="searcher")
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(SEARCH_PAUSE_S):
            query = self._queries[number % len(self._queries)]
            start = time.perf_counter()
            self._collection.search(query, k=10).ids  # noqa: B018 - reading the ids is part of the search
            self.times.append(time.perf_counter() - start)
            number += 1


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    bench_set = sets.prepare(f"{arguments.kind}:{arguments.rows}")
    size: int = arguments.batch
    first = next(bench_set.batches(size))
    capacity = bare.batch_bytes(first) * (bench_set.n // first.n + 1) * 5 // 4
    samples: dict[str, list[dict[str, Any]]] = {}
    with own.scratch(arguments.work) as folder:
        own.warm_up(folder / "db", bench_set)
    for _ in range(arguments.repeats):
        with own.scratch(arguments.work) as folder:
            for kind in bare.KINDS:
                times = bare.run_bare(folder / "bare.log", kind, bench_set.batches(size), capacity)
                samples.setdefault(f"bare {kind}", []).append(_figures(bench_set.n, times))
            for name, durability, searching in (
                ("omendb fsync", "fsync", False),
                ("omendb os", "os", False),
                ("omendb fsync, searched meanwhile", "fsync", True),
            ):
                found = _stream(folder / name.replace(" ", "-"), bench_set, size, durability, searching)
                samples.setdefault(name, []).append(found)
    medians = {name: _median_of(found) for name, found in samples.items()}
    for name, found in medians.items():
        print(_line(name, found))
    _conclude(arguments, bench_set, medians, samples)


def _stream(folder: Path, bench_set: BenchSet, size: int, durability: str, searching: bool) -> dict[str, Any]:
    database, collection = own.create(folder, bench_set, durability)
    searcher = None
    times, waits = [], 0
    started = time.perf_counter()
    for batch in bench_set.batches(size):
        start = time.perf_counter()
        waits += own.write(collection, batch)
        times.append(time.perf_counter() - start)
        if searching and searcher is None:
            searcher = _Searcher(collection, bench_set.queries())
    wall_s = time.perf_counter() - started
    searches = []
    if searcher is not None:
        searcher.stop()
        searches = searcher.times
    stats = collection.stats()
    database.close()
    return {
        **_figures(bench_set.n, times),
        "wall_rows_per_s": bench_set.n / wall_s,
        "waits": waits,
        "segments_at_end": len(stats.segments),
        "unindexed_at_end": stats.unindexed_rows,
        **(
            {"search_" + key: value for key, value in measure.Spread.of(searches).to_json().items()} if searches else {}
        ),
    }


def _figures(rows: int, times: list[float]) -> dict[str, Any]:
    return {"rows_per_s": rows / sum(times), **measure.Spread.of(times).to_json()}


def _median_of(found: list[dict[str, Any]]) -> dict[str, float]:
    return {name: measure.median([sample[name] for sample in found]) for name in found[0]}


def _line(name: str, found: dict[str, float]) -> str:
    line = (
        f"{name:34s} {found['rows_per_s']:>11,.0f} rows/s · batch p50 {found['p50_ms']:.2f} p99 {found['p99_ms']:.2f} "
        f"max {found['max_ms']:.1f} ms · p99/p50 {found['p99_ms'] / found['p50_ms']:.1f}"
    )
    if "waits" in found:
        line += f" · told to wait {found['waits']:.0f} ×"
    if "search_p99_ms" in found:
        line += (
            f" · {found['search_count']:.0f} searches p50 {found['search_p50_ms']:.2f} "
            f"p99 {found['search_p99_ms']:.2f} max {found['search_max_ms']:.1f} ms"
        )
    return line


def _conclude(
    arguments: argparse.Namespace,
    bench_set: BenchSet,
    medians: dict[str, dict[str, float]],
    samples: dict[str, list[dict[str, Any]]],
) -> None:
    ours, append = medians["omendb fsync"], medians["bare append"]
    ratio = ours["rows_per_s"] / append["rows_per_s"]
    ratio_prepared = ours["rows_per_s"] / medians["bare preallocated"]["rows_per_s"]
    evenness = ours["p99_ms"] / ours["p50_ms"]
    wanted = RATIOS.get(arguments.batch)
    goal = "" if wanted is None else f" (goal {wanted:.2f})"
    searched = medians["omendb fsync, searched meanwhile"]
    own.conclude(
        "ingest",
        {
            "rows": bench_set.n,
            "batch": arguments.batch,
            "medians": medians,
            "rows_per_s_samples": {
                name: [round(one["rows_per_s"]) for one in found] for name, found in samples.items()
            },
            "ratio_to_append": ratio,
            "ratio_to_preallocated": ratio_prepared,
            "p99_to_p50": evenness,
        },
        f"{ours['rows_per_s']:,.0f} rows/s durable at batches of {arguments.batch:,} of {bench_set.n:,} rows: "
        f"{ratio:.2f} of a bare append loop{goal}, {ratio_prepared:.2f} of one into prepared blocks; "
        f"durability=os {medians['omendb os']['rows_per_s']:,.0f}; batch p99/p50 {evenness:.1f} (goal "
        f"≤ {EVENNESS_MAX:g}); search p99 meanwhile {searched.get('search_p99_ms', float('nan')):.2f} ms",
    )
