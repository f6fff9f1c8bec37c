"""The demos' data: real texts with vectors, queries, filters and the true neighbours; and how recall is measured."""

from __future__ import annotations

import json as json_text
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from omendb.cli.terminal import out, table
from omendb.collection import Collection
from omendb_common.errors import InvalidArgumentError, NotFoundError
from omendb_common.inputs import table_columns
from omendb_common.schema import Metric

K = 10
RECALL_FLOOR = 0.95
_DATA = Path("data") / "wordnet10k"


@dataclass(frozen=True)
class Corpus:
    """Texts with vectors, held-out queries, and per filter the true neighbours (rows) of each query."""

    ids: list[str]
    vectors: npt.NDArray[np.float32]
    metadata: dict[str, Any]
    queries: npt.NDArray[np.float32]
    query_texts: list[str]
    metric: Metric
    filters: dict[str, tuple[str, Any, float, npt.NDArray[Any]]]


@dataclass(frozen=True)
class SearchReport:
    """One row of the demo's table."""

    name: str
    condition: str
    selectivity: float
    recall: float
    p50_ms: float
    p99_ms: float


def find_data(given: Path | None) -> Path:
    """The data set's folder: ``given``, or data/wordnet10k beside or above the working folder or this package."""
    if given is not None:
        if not (given / "meta.json").is_file():
            raise NotFoundError("no data set here", field=str(given), bound="a folder with meta.json and vectors.npy")
        return given
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / _DATA / "meta.json").is_file():
                return folder / _DATA
    raise NotFoundError(
        f"no {_DATA} in this folder or above it", field="--data", mend="run it in a checkout, or pass --data FOLDER"
    )


def read_corpus(folder: Path) -> Corpus:
    """Read a data set made of vectors.npy, records.parquet, queries.npy, queries.parquet, gt*.npy and meta.json."""
    import pyarrow.parquet as pq  # slow to import, and only the demo needs it here

    meta = json_text.loads((folder / "meta.json").read_text(encoding="utf-8"))
    records = pq.read_table(folder / "records.parquet")
    columns = table_columns(records)
    ids = columns.pop("id").to_pylist()
    vectors = np.load(folder / "vectors.npy").astype(np.float32)
    queries = np.load(folder / "queries.npy").astype(np.float32)
    if not (len(ids) == len(vectors) == int(meta["n"]) and queries.shape[1] == vectors.shape[1]):
        raise InvalidArgumentError("its files do not fit together", field=str(folder), bound="a whole data set")
    texts = pq.read_table(folder / "queries.parquet").column("text").to_pylist()
    filters = {"none": ("", None, 1.0, np.load(folder / "gt.npy"))}
    for name, about in meta["filters"].items():
        truth = np.load(folder / f"gt_{name}.npy")
        filters[name] = (about["expr"], about["filter"], float(about["selectivity"]), truth)
    return Corpus(ids, vectors, columns, queries, texts, cast(Metric, str(meta["metric"])), filters)


def measure(points: Collection, corpus: Corpus, name: str, condition: Any, truth: npt.NDArray[Any]) -> SearchReport:
    """Search every query once, one at a time, and compare the hits with the truth."""
    points.search(
        corpus.queries[0], k=K, filters=condition, include=["id"]
    )  # the first search of a filter fills its cache
    taken, found = [], []
    for query in corpus.queries:
        started = time.perf_counter()
        results = points.search(query, k=K, filters=condition, include=["id", "distance"])
        found.append(results.ids)
        taken.append((time.perf_counter() - started) * 1e3)
    expression, _, selectivity, _ = corpus.filters.get(name, ("", None, 1.0, None))
    p50, p99 = np.percentile(taken, [50, 99]).tolist()
    return SearchReport(name, expression, selectivity, recall_of(found, truth, corpus.ids), p50, p99)


def recall_of(found: list[npt.NDArray[Any]], truth: npt.NDArray[Any], ids: list[str]) -> float:
    """Share of the true ``K`` nearest that were found; rows of ``truth`` are padded with -1 when fewer match."""
    hits = wanted = 0
    for got, rows in zip(found, truth[:, :K].tolist(), strict=True):
        true_ids = {ids[row] for row in rows if row >= 0}
        hits += len(true_ids.intersection(got.tolist()))
        wanted += len(true_ids)
    return hits / wanted if wanted else 1.0


def show_reports(reports: list[SearchReport]) -> None:
    """Print recall and latency per filter."""
    rows = table("filter", "matches", f"recall@{K}", "p50 ms", "p99 ms")
    for r in reports:
        name = r.condition or "no filter"
        rows.add_row(name, f"{r.selectivity:.2%}", f"{r.recall:.4f}", f"{r.p50_ms:.3f}", f"{r.p99_ms:.3f}")
    out.print(rows)


__all__ = [
    "RECALL_FLOOR",
    "Corpus",
    "K",
    "SearchReport",
    "find_data",
    "measure",
    "read_corpus",
    "recall_of",
    "show_reports",
]
