"""What the benchmarks of OmenDB alone share: a scratch folder, filling a collection, timing, last words."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import omendb
from benchmarks import measure, sets
from benchmarks.adapters.adapter import BUCKET, LABEL, Batch
from benchmarks.benchset import BenchSet
from omendb import Collection, Database, ResourceExhaustedError

INDEX_LIMIT_S = 3600.0
COLLECTION = "bench"
WARM_UP_ROWS = 200


def add_common_arguments(parser: argparse.ArgumentParser, *, rows: int) -> None:
    """Declare the arguments that all of these benchmarks take."""
    parser.add_argument("--rows", type=int, default=rows, help="rows of the set")
    parser.add_argument("--kind", default="siftlike", help="kind of the set: siftlike, smoothlike or emblike")
    parser.add_argument("--work", type=Path, default=sets.CACHE / "work", help="where the database is written")


@contextlib.contextmanager
def scratch(work: Path) -> Iterator[Path]:
    """Give an empty folder below `work` that is removed at the end."""
    folder = work / f"own-{time.time_ns()}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def create(folder: Path, bench_set: BenchSet, durability: str = "fsync") -> tuple[Database, Collection]:
    """Make a database with one collection for the set, at default settings but for the durability."""
    database = omendb.open(folder, durability="os" if durability == "os" else "fsync")
    space = bench_set.space
    return database, database.create_collection(
        COLLECTION, dimension=space.dimension, metric="cosine" if space.metric == "cosine" else "l2"
    )


def warm_up(folder: Path, bench_set: BenchSet) -> None:
    """Write and search a few rows of a throwaway database: what loads on first use is not a write's time."""
    database, collection = create(folder, bench_set)
    batch = next(bench_set.batches(WARM_UP_ROWS))
    write(collection, batch)
    collection.search(batch.vectors[0], k=10, filters={BUCKET: {"$lt": 500}})
    database.close()


def write(collection: Collection, batch: Batch) -> int:
    """Write one batch as a user would, waiting when told to; gives how often it had to wait."""
    waits = 0
    while True:
        try:
            collection.upsert(
                ids=batch.ids, vectors=batch.vectors, metadata={BUCKET: batch.buckets, LABEL: batch.labels}
            )
        except ResourceExhaustedError as error:
            waits += 1
            time.sleep(error.retry_after or 0.05)
        else:
            return waits


def fill(collection: Collection, bench_set: BenchSet, batch_rows: int = 10_000) -> None:
    """Write the whole set and wait until it is indexed."""
    start = time.perf_counter()
    for batch in bench_set.batches(batch_rows):
        write(collection, batch)
    written = time.perf_counter()
    wait_indexed(collection)
    now = time.perf_counter()
    print(
        f"filled with {bench_set.n:,} rows in {written - start:.1f} s, indexed {now - written:.1f} s later", flush=True
    )


def wait_indexed(collection: Collection) -> None:
    """Wait until the background has nothing left to index."""
    if not collection.wait_until_indexed(timeout=INDEX_LIMIT_S):
        raise TimeoutError(f"not indexed after {INDEX_LIMIT_S} s")


def timed(call: Callable[[Any], Any], arguments: Sequence[Any] | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Call with each argument in turn; gives each call's seconds."""
    times = np.empty(len(arguments))
    for number, argument in enumerate(arguments):
        start = time.perf_counter()
        call(argument)
        times[number] = time.perf_counter() - start
    return times


def conclude(name: str, figures: dict[str, Any], sentence: str) -> None:
    """Print the machine and the figures as one line of JSON, and last the sentence that sums them up."""
    print(json.dumps({"benchmark": name, "machine": measure.machine(), **figures}))
    print(f"{name}: {sentence}")
