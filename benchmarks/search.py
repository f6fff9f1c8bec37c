"""What OmenDB adds to the bare Faiss call on the very same index, one query at a time and in batches.

The bare call gets the index objects out of the engine's own segments and runs at the effort that the search
itself chooses, with its parameters and answer arrays made beforehand. Passes over all queries take turns, so
that none finds the caches warmed by the same query a moment ago; each figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss as untyped_faiss
import numpy as np

from benchmarks import measure, own, sets
from benchmarks.benchset import BenchSet
from omendb import Collection

# Without types, because its stubs lag behind its interface.
faiss: Any = untyped_faiss

K = 10
EXACT_ROWS = 10_000
ADDED_US_MAX = 60
ADDED_WITH_METADATA_US_MAX = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    own.add_common_arguments(parser, rows=100_000)
    parser.add_argument("--rounds", type=int, default=5, help="rounds that medians are taken of")
    parser.add_argument("--queries", type=int, default=1000, help="queries of a pass")


class BareIndexes:
    """The Faiss indexes of all segments of a collection, searched with nothing around them."""

    def __init__(self, collection: Collection, k: int) -> None:
        # The engine's insides, on purpose: the comparison must run on the same objects.
        replica: Any = collection._reader()
        snapshot = replica.snapshot()
        field = replica.schema.vectors[0].name
        parts = [part for part in snapshot.parts if part.n]
        indexes = [part.index_of(field) if hasattr(part, "index_of") else None for part in parts]
        self.exact_rows = sum(part.n for part, index in zip(parts, indexes, strict=True) if index is None)
        target = replica.settings.index.recall_target
        found = [index for index in indexes if index is not None]
        self.efforts = [max(index.effort_for(target, k), k) for index in found]
        self._keep = snapshot
        self._indexes = [index._index for index in found]
        self._parameters = [faiss.SearchParametersHNSW(efSearch=effort) for effort in self.efforts]
        self._k = k

    def __len__(self) -> int:
        return len(self._indexes)

    def prepare(self, most: int) -> None:
        """Make the answer arrays for calls of at most `most` queries."""
        self._values = np.empty((most, self._k), np.float32)
        self._rows = np.empty((most, self._k), np.int64)
        self._pointers = (faiss.swig_ptr(self._values), faiss.swig_ptr(self._rows))

    def search(self, queries: np.ndarray[Any, Any]) -> None:
        """Search every index for the queries, float32 (m, d)."""
        pointer = faiss.swig_ptr(queries)
        for index, parameters in zip(self._indexes, self._parameters, strict=True):
            index.search_c(len(queries), pointer, self._k, *self._pointers, parameters)


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    bench_set = sets.prepare(f"{arguments.kind}:{arguments.rows}")
    with own.scratch(arguments.work) as folder:
        database, collection = own.create(folder / "db", bench_set)
        own.fill(collection, bench_set)
        figures = _measure(collection, bench_set, arguments)
        database.close()
        exact = _exact(folder / "exact", arguments)
    added = (figures["p50_us"]["search"] - figures["p50_us"]["bare"]) if figures["indexes"] else float("nan")
    added_more = (
        (figures["p50_us"]["search, metadata"] - figures["p50_us"]["bare"]) if figures["indexes"] else float("nan")
    )
    own.conclude(
        "search",
        {"rows": bench_set.n, **figures, "added_us": added, "added_with_metadata_us": added_more, "exact": exact},
        f"recall@10 {figures['recall']:.3f} over {bench_set.n:,} rows in {figures['indexes']} indexes; p50 "
        f"{figures['p50_us']['search']:.0f} µs, {added:+.0f} µs to bare Faiss (goal ≤ {ADDED_US_MAX}), "
        f"{added_more:+.0f} µs with metadata (goal ≤ {ADDED_WITH_METADATA_US_MAX}); batched "
        f"{figures['batch_ratio']:.2f} of bare Faiss (goal ≥ 0.90); {EXACT_ROWS:,} rows exactly in "
        f"{exact['exact']['p50_ms']:.2f} ms (goal < 1 ms), by default in {exact['default']['p50_ms']:.2f} ms at recall "
        f"{exact['default']['recall']:.3f}",
    )


def _measure(collection: Collection, bench_set: BenchSet, arguments: argparse.Namespace) -> dict[str, Any]:
    queries = bench_set.queries(arguments.queries)
    bare = BareIndexes(collection, K)
    if bare.exact_rows:
        print(f"{bare.exact_rows:,} rows are in no index: the bare call does not cover them")
    prepared = np.ascontiguousarray(_in_search_form(queries, bench_set))
    bare.prepare(len(queries))
    found = [collection.search(query, k=K).ids for query in queries]
    singles = [prepared[number : number + 1] for number in range(len(prepared))]
    passes: dict[str, Callable[[], np.ndarray[Any, Any]]] = {
        "bare": lambda: own.timed(bare.search, singles),
        "search": lambda: own.timed(
            lambda query: collection.search(query, k=K, include=("id", "distance")).ids, queries
        ),
        "search, metadata": lambda: own.timed(
            lambda query: collection.search(query, k=K, include=("id", "distance", "metadata")).metadata, queries
        ),
        "bare batch": lambda: own.timed(bare.search, [prepared]),
        "search batch": lambda: own.timed(
            lambda many: collection.search(vectors=many, k=K, include=("id",)), [queries]
        ),
    }
    times: dict[str, list[Any]] = {name: [] for name in passes}
    for _ in range(arguments.rounds):
        for name, one_pass in passes.items():
            times[name].append(one_pass())
    spreads = {name: [measure.Spread.of(taken) for taken in found_times] for name, found_times in times.items()}
    p50 = {name: 1000 * measure.median([spread.p50_ms for spread in taken]) for name, taken in spreads.items()}
    p99 = {name: 1000 * measure.median([spread.p99_ms for spread in taken]) for name, taken in spreads.items()}
    for name in ("bare", "search", "search, metadata"):
        print(f"{name:18s} p50 {p50[name]:8.1f} µs   p99 {p99[name]:8.1f} µs")
    rates = {name: len(queries) / p50[name] * 1e6 for name in ("bare batch", "search batch")}
    for name, rate in rates.items():
        print(f"{name:18s} {rate:,.0f} queries/s")
    return {
        "indexes": len(bare),
        "efforts": bare.efforts,
        "recall": measure.recall([ids.tolist() for ids in found], bench_set.truth()[: len(queries)], K),
        "p50_us": p50,
        "p99_us": p99,
        "batch_queries_per_s": rates,
        "batch_ratio": rates["search batch"] / rates["bare batch"],
    }


def _in_search_form(queries: np.ndarray[Any, Any], bench_set: BenchSet) -> np.ndarray[Any, Any]:
    if bench_set.space.metric != "cosine":
        return queries
    lengths: np.ndarray[Any, Any] = np.linalg.norm(queries, axis=1, keepdims=True)
    normalized: np.ndarray[Any, Any] = queries / lengths
    return normalized


def _exact(folder: Path, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Time a small collection, as it is searched by default and exactly."""
    bench_set = sets.prepare(f"{arguments.kind}:{EXACT_ROWS}")
    database, collection = own.create(folder, bench_set)
    own.fill(collection, bench_set)
    queries, found = bench_set.queries(arguments.queries), {}
    for name, exact in (("default", False), ("exact", True)):
        hits = [collection.search(query, k=K, exact=exact).ids.tolist() for query in queries]
        spread = measure.Spread.of(own.timed(_search_of(collection, exact), queries))
        recall = measure.recall(hits, bench_set.truth()[: len(queries)], K)
        found[name] = {"recall": recall, "p50_ms": spread.p50_ms, "p99_ms": spread.p99_ms}
    database.close()
    return found


def _search_of(collection: Collection, exact: bool) -> Callable[[Any], Any]:
    return lambda query: collection.search(query, k=K, exact=exact, include=("id", "distance")).ids
