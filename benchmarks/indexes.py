"""Every kind of index over every code: bytes, recall, latency, rate and build, over the same rows in one run.

Each index is built and searched as that of a segment would be, at the effort that it chooses for the recall target
by what it measured on its own rows; recall is that of the set's queries, which it never saw. Passes over the queries
take turns, kind by kind, and latencies are medians over the rounds. A build's rate is per second of processor time of
all threads together, which other work on the machine changes least.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure, own, sets
from benchmarks.benchset import BenchSet
from omendb_common.index_options import GRAPH_QUANTIZATIONS, QUANTIZATIONS
from omendb_common.schema import Float32Array, VectorField
from omendb_engine.index.base import VectorIndex
from omendb_engine.index.kinds import build_index, file_bytes, load_index
from omendb_engine.index.metric import normalise, prepare_queries
from omendb_engine.index.policy import IndexPolicy

K = 10
THREADS = 2


@dataclass(slots=True)
class Measured:
    """One kind of index: what it takes and what it finds."""

    kind: str
    quantization: str
    index: VectorIndex
    effort: int
    build_rows_per_cpu_s: float
    file_bytes_per_row: float
    own_bytes_per_row: float
    recall: float
    single_us: list[float]
    batch_queries_per_s: list[float]

    def to_json(self) -> dict[str, Any]:
        """The figures by name."""
        return {
            "index": self.kind,
            "quantization": self.quantization,
            "effort": self.effort,
            "build_rows_per_cpu_s": self.build_rows_per_cpu_s,
            "file_bytes_per_row": self.file_bytes_per_row,
            "own_bytes_per_row": self.own_bytes_per_row,
            "recall": self.recall,
            "p50_us": measure.median(self.single_us),
            "batch_queries_per_s": measure.median(self.batch_queries_per_s),
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    own.add_common_arguments(parser, rows=100_000)
    parser.add_argument("--data", type=Path, default=None, help="a folder with the layout of data/wordnet10k instead")
    parser.add_argument("--target", type=float, default=0.95, help="the recall target")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that medians are taken of")
    parser.add_argument("--queries", type=int, default=500, help="queries of a pass")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    bench_set = sets.prepare(str(arguments.data) if arguments.data else f"{arguments.kind}:{arguments.rows}")
    metric = "cosine" if bench_set.space.metric == "cosine" else "l2"
    field = VectorField(bench_set.space.dimension, "cosine" if metric == "cosine" else "l2")
    rows = np.concatenate([batch.vectors for batch in bench_set.batches(50_000)])
    stored = normalise(rows)[0] if field.metric == "cosine" else rows
    queries = prepare_queries(bench_set.queries(arguments.queries), field.metric)
    kinds = [("hnsw", codes) for codes in GRAPH_QUANTIZATIONS] + [("ivf", codes) for codes in QUANTIZATIONS]
    found = [_built(kind, codes, field, stored, queries, bench_set, arguments.target) for kind, codes in kinds]
    for _ in range(arguments.rounds):
        for one in found:
            _pass(one, queries)
    for one in found:
        print(_line(one), flush=True)
    smallest = min(found, key=lambda one: one.file_bytes_per_row)
    own.conclude(
        "indexes",
        {"set": bench_set.name, "rows": len(rows), "target": arguments.target, "found": [f.to_json() for f in found]},
        f"{len(rows):,} rows of {field.dimension} elements; the smallest is {smallest.kind} {smallest.quantization}: "
        f"{smallest.file_bytes_per_row:.0f} bytes a row, recall@10 {smallest.recall:.3f} (goal at 1,536: 288, 0.90)",
    )


def _built(
    kind: str,
    codes: str,
    field: VectorField,
    stored: Float32Array,
    queries: Float32Array,
    bench_set: BenchSet,
    target: float,
) -> Measured:
    spec = IndexPolicy().decide(
        len(stored), field.dimension, field.dtype, field.metric, {"index": kind, "quantization": codes}
    )
    start = time.process_time()
    built = build_index(
        spec, field, stored, norms=None, threads=THREADS, cancelled=lambda: False, progress=lambda rows: None
    )
    took = time.process_time() - start
    index = load_index(built, field, stored, norms=None, path=kind)
    effort = index.effort_for(target, K)
    rows = index.search(queries, K, ef=effort)[1]
    return Measured(
        kind,
        index.quantization,
        index,
        effort,
        len(stored) / took,
        file_bytes(built) / len(stored),
        index.memory_bytes / len(stored),
        measure.recall(rows.tolist(), bench_set.truth()[: len(queries)], K),
        [],
        [],
    )


def _pass(one: Measured, queries: Float32Array) -> None:
    index, effort = one.index, one.effort
    singles = [queries[at : at + 1] for at in range(len(queries))]
    taken = own.timed(lambda query: index.search(query, K, ef=effort), singles)
    one.single_us.append(1000 * measure.Spread.of(taken).p50_ms)
    start = time.perf_counter()
    index.search(queries, K, ef=effort)
    one.batch_queries_per_s.append(len(queries) / (time.perf_counter() - start))


def _line(one: Measured) -> str:
    told = one.to_json()
    return (
        f"| {one.kind} | {one.quantization} | {told['file_bytes_per_row']:.0f} | {told['own_bytes_per_row']:.0f} | "
        f"{one.recall:.3f} | {told['p50_us']:.0f} | {told['batch_queries_per_s']:,.0f} | "
        f"{told['build_rows_per_cpu_s']:,.0f} |"
    )
