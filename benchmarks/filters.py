"""Recall and latency under the six filters of the WordNet set, from half of the rows to a thousandth.

Some filters are independent of the vectors, some are correlated with them, which is harder for an index.
Passes over all queries take turns, filter by filter, and each figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import omendb
from benchmarks import measure, own, sets
from benchmarks.datasets.make_wordnet_subset import FILTERS
from omendb import Collection

K = 10
RECALL_WANTED = 0.95
UNFILTERED = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--data", type=Path, default=sets.WORDNET, help="a folder with the layout of data/wordnet10k")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that medians are taken of")
    parser.add_argument("--index", choices=("auto", "hnsw"), default="auto", help="hnsw: however few the rows")
    parser.add_argument("--work", type=Path, default=sets.CACHE / "work", help="where the database is written")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    data: Path = arguments.data
    meta = json.loads((data / "meta.json").read_text(encoding="utf-8"))
    queries = np.load(data / "queries.npy").astype(np.float32)
    with own.scratch(arguments.work) as folder, omendb.open(folder / "db") as database:
        collection = database.create_collection(
            "wordnet", dimension=meta["dim"], metric=meta["metric"], index=arguments.index
        )
        _fill(collection, data)
        forms = {UNFILTERED: None, **{item.name: item.json_form for item in FILTERS}}
        found = {name: _recall(collection, data, queries, name, form) for name, form in forms.items()}
        first_ms = {name: found[name].pop("first_ms") for name in forms}
        rounds: dict[str, list[measure.Spread]] = {name: [] for name in forms}
        for _ in range(arguments.rounds):
            for name, form in forms.items():
                rounds[name].append(measure.Spread.of(_timed(collection, queries, form)))
        indexes = [segment.index for segment in collection.stats().segments]
    figures = {
        name: {
            **found[name],
            "first_ms": first_ms[name],
            "p50_ms": measure.median([spread.p50_ms for spread in rounds[name]]),
            "p99_ms": measure.median([spread.p99_ms for spread in rounds[name]]),
            "selectivity": 1.0 if name == UNFILTERED else meta["filters"][name]["selectivity"],
        }
        for name in forms
    }
    _print(figures, meta["n"], indexes)


def _fill(collection: Collection, data: Path) -> None:
    vectors = np.load(data / "vectors.npy").astype(np.float32)
    records = pq.read_table(data / "records.parquet")
    payload = records.drop_columns(["id"])
    for start in range(0, len(vectors), 10_000):
        part = slice(start, start + 10_000)
        columns = {name: payload[name].slice(start, 10_000) for name in payload.column_names}
        collection.upsert(ids=np.arange(len(vectors))[part], vectors=vectors[part], metadata=columns)
    own.wait_indexed(collection)


def _recall(
    collection: Collection, data: Path, queries: np.ndarray[Any, Any], name: str, form: dict[str, Any] | None
) -> dict[str, float]:
    truth = np.load(data / ("gt.npy" if name == UNFILTERED else f"gt_{name}.npy"))
    first = own.timed(lambda query: collection.search(query, k=K, filters=form), queries[:1])
    hits = [collection.search(query, k=K, filters=form).ids.tolist() for query in queries]
    return {"recall": measure.recall(hits, truth, K), "first_ms": float(first[0]) * 1000}


def _timed(collection: Collection, queries: np.ndarray[Any, Any], form: dict[str, Any] | None) -> np.ndarray[Any, Any]:
    return own.timed(lambda query: collection.search(query, k=K, filters=form, include=("id", "distance")).ids, queries)


def _print(figures: dict[str, dict[str, float]], rows: int, indexes: list[str]) -> None:
    plain = figures[UNFILTERED]["p50_ms"]
    for name, found in figures.items():
        print(
            f"{name:16s} keeps {found['selectivity']:.4f} · recall@10 {found['recall']:.3f} · "
            f"p50 {found['p50_ms']:.3f} ms ({found['p50_ms'] / plain:.2f} of unfiltered) · "
            f"p99 {found['p99_ms']:.3f} ms · first {found['first_ms']:.2f} ms"
        )
    filtered = {name: found for name, found in figures.items() if name != UNFILTERED}
    worst = min(found["recall"] for found in filtered.values())
    rarest = min(filtered.values(), key=lambda found: found["selectivity"])
    own.conclude(
        "filters",
        {"rows": rows, "indexes": indexes, "filters": figures},
        f"lowest recall@10 of six filters over {rows:,} rows {worst:.3f} (goal ≥ {RECALL_WANTED}); at selectivity "
        f"{rarest['selectivity']:.4f} p50 {rarest['p50_ms']:.3f} ms against {plain:.3f} ms unfiltered (goal: no worse)",
    )
