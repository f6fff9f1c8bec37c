"""Recall and latency of filtered searches, from all rows to a hundred-thousandth, with, against and by chance.

A condition keeps rows by chance, or those nearest to one row of the set; of the latter, the queries nearest to that
row find all their neighbours kept, and the farthest find none of them. Each case is timed in turns with an unfiltered
pass over the same queries, so that a slow moment hits both; figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import omendb
from benchmarks import measure, own, sets
from benchmarks.benchset import BenchSet
from benchmarks.datasets.truth import exact_truths, normalized
from omendb import Collection

K = 10
SHARES = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01, 1e-3, 1e-4, 1e-5)
RATIO_MAX = 1.5
CHANCE, NEAR = "chance", "near"
Matrix = npt.NDArray[np.float32]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--set", default="siftlike:100000", help="KIND:ROWS, or a folder of the layout of wordnet10k")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that medians are taken of")
    parser.add_argument("--queries", type=int, default=200, help="queries of a pass")
    parser.add_argument("--index", choices=("auto", "hnsw", "flat"), default="auto", help="hnsw: however few the rows")
    parser.add_argument("--work", type=Path, default=sets.CACHE / "work", help="where the database is written")


@dataclass(frozen=True, slots=True)
class Case:
    """One filter, and the queries it is asked with."""

    name: str
    share: float
    form: dict[str, Any]
    queries: Matrix
    truth: npt.NDArray[np.int32]
    unfiltered_truth: npt.NDArray[np.int32]


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    bench_set = sets.prepare(arguments.set)
    vectors = np.concatenate([np.asarray(batch.vectors) for batch in bench_set.batches(50_000)])
    columns = _columns(bench_set, vectors)
    cases = _cases(bench_set, vectors, columns, arguments.queries)
    with own.scratch(arguments.work) as folder, omendb.open(folder / "db") as database:
        metric: Any = "cosine" if bench_set.space.metric == "cosine" else "l2"
        dimension = bench_set.space.dimension
        collection = database.create_collection("set", dimension=dimension, metric=metric, index=arguments.index)
        for start in range(0, bench_set.n, 10_000):
            part = slice(start, start + 10_000)
            some = {name: values[part] for name, values in columns.items()}
            collection.upsert(ids=np.arange(bench_set.n)[part], vectors=vectors[part], metadata=some)
        own.wait_indexed(collection)
        figures = {case.name: _measured(collection, case, arguments.rounds) for case in cases}
    for name, found in figures.items():
        print(
            f"{name:16s} recall@10 {found['recall']:.3f} (unfiltered {found['unfiltered_recall']:.3f}) · "
            f"p50 {found['p50_ms']:.3f} ms, {found['ratio']:.2f} of unfiltered · p99 {found['p99_ms']:.3f} ms · "
            f"processor {found['cpu_ms']:.3f} ms, {found['cpu_ratio']:.2f} of unfiltered · "
            f"evaluated before in {found['cached_ms']:.3f} ms",
            flush=True,
        )
    behind = {name: found["recall"] - found["unfiltered_recall"] for name, found in figures.items()}
    slow = {name: found["ratio"] for name, found in figures.items() if found["ratio"] > RATIO_MAX}
    least, most = min(behind, key=lambda name: behind[name]), max(figures, key=lambda name: figures[name]["ratio"])
    own.conclude(
        "selectivity",
        {"rows": bench_set.n, "cases": figures},
        f"recall@10 under a filter is at least the unfiltered {behind[least]:+.3f} ({least}; goal ≥ 0); p50 at most "
        f"{figures[most]['ratio']:.2f} of unfiltered ({most}); above {RATIO_MAX} (the goal) in {len(slow)} of "
        f"{len(figures)} cases: {', '.join(slow) or 'none'}",
    )


def _columns(bench_set: BenchSet, vectors: Matrix) -> dict[str, npt.NDArray[np.int64]]:
    """Each row's rank: by chance, and by its distance from one row."""
    compared = _compared(bench_set, vectors)
    distances = np.square(compared - compared[0]).sum(axis=1)
    near = np.empty(bench_set.n, np.int64)
    near[np.argsort(distances, kind="stable")] = np.arange(bench_set.n)
    return {CHANCE: np.random.default_rng(77).permutation(bench_set.n).astype(np.int64), NEAR: near}


def _compared(bench_set: BenchSet, vectors: Matrix) -> Matrix:
    return normalized(vectors) if bench_set.space.metric == "cosine" else vectors


def _cases(bench_set: BenchSet, vectors: Matrix, columns: dict[str, npt.NDArray[np.int64]], count: int) -> list[Case]:
    queries = bench_set.queries()
    from_row = np.square(_compared(bench_set, queries) - _compared(bench_set, vectors[:1])).sum(axis=1)
    order = np.argsort(from_row, kind="stable")
    groups = {
        CHANCE: (CHANCE, queries[:count]),
        "with": (NEAR, queries[order[:count]]),
        "against": (NEAR, queries[order[-count:]]),
    }
    metric: Any = "cosine" if bench_set.space.metric == "cosine" else "l2"
    cases = []
    for group, (column, asked) in groups.items():
        below = {share: max(1, round(share * bench_set.n)) for share in SHARES}
        subsets: dict[str, Any] = {str(share): columns[column] < least for share, least in below.items()}
        truths = exact_truths([vectors], asked, {"all": None, **subsets}, metric=metric, k=K)
        for share, least in below.items():
            form = {column: {"$lt": least}}
            truth = truths[str(share)].rows
            cases.append(Case(f"{group} {share:g}", share, form, asked, truth, truths["all"].rows))
    return cases


def _measured(collection: Collection, case: Case, rounds: int) -> dict[str, float]:
    filtered = [collection.search(query, k=K, filters=case.form).ids.tolist() for query in case.queries]
    plain = [collection.search(query, k=K).ids.tolist() for query in case.queries]
    times: dict[str, list[measure.Spread]] = {"filtered": [], "plain": []}
    cpu: dict[str, list[float]] = {"filtered": [], "plain": []}
    for _ in range(rounds):
        for name, form in (("plain", None), ("filtered", case.form)):
            before = time.process_time()
            times[name].append(measure.Spread.of(own.timed(_search(collection, form), case.queries)))
            cpu[name].append((time.process_time() - before) * 1000 / len(case.queries))
    cached = measure.Spread.of(own.timed(lambda form: collection.count(form), [case.form] * 200))
    ratios = [spread.p50_ms / base.p50_ms for spread, base in zip(times["filtered"], times["plain"], strict=True)]
    return {
        "share": case.share,
        "recall": measure.recall(filtered, case.truth, K),
        "unfiltered_recall": measure.recall(plain, case.unfiltered_truth, K),
        "p50_ms": measure.median([spread.p50_ms for spread in times["filtered"]]),
        "p99_ms": measure.median([spread.p99_ms for spread in times["filtered"]]),
        "ratio": measure.median(ratios),
        "cpu_ms": measure.median(cpu["filtered"]),
        "cpu_ratio": measure.median([a / b for a, b in zip(cpu["filtered"], cpu["plain"], strict=True)]),
        "cached_ms": cached.p50_ms,
    }


def _search(collection: Collection, form: dict[str, Any] | None) -> Callable[[Any], Any]:
    return lambda query: collection.search(query, k=K, filters=form, include=("id", "distance")).ids
