"""``omendb demo``: real data in, searched, filtered, the writer killed, and everything still there."""

from __future__ import annotations

import contextlib
import json as json_text
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

import omendb
from omendb.cli import crash
from omendb.cli.terminal import FAULT, AsJson, out, print_json, reported, size, table
from omendb.database import Database
from omendb_common.errors import InvalidArgumentError, NotFoundError
from omendb_common.inputs import table_columns

BATCH_ROWS = 1_000
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
    metric: str
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


@reported
def demo(
    data: Annotated[Path | None, typer.Option("--data", help="The folder of the data set.")] = None,
    path: Annotated[Path | None, typer.Option("--path", help="Keep the database here.")] = None,
    kills: Annotated[int, typer.Option("--kills", min=1, max=100, help="How often the writer is killed.")] = 3,
    json: AsJson = False,
) -> None:
    """Stream 10,000 real texts in durably, search and filter them, kill a writer in mid-ingest, and check.

    Ends with 1 when recall is below 0.95, or a row was lost or appeared from nowhere.
    """
    corpus = read_corpus(find_data(data))
    with _workplace(path) as folder, contextlib.ExitStack() as stack:
        say: Callable[[str], None] = _silent if json else _say
        say(f"OmenDB {omendb.__version__}, {len(corpus.ids):,} WordNet glosses of {corpus.vectors.shape[1]} dimensions")
        database = stack.enter_context(omendb.open(folder / "demo.db", metric=corpus.metric))  # type: ignore[arg-type]
        rate = _ingest(database, corpus)
        say(f"stored   {rate:,.0f} rows/s in batches of {BATCH_ROWS:,}, each fsynced before it is acknowledged")
        first = _measure(database, corpus, "at once", None, _corpus_truth(corpus))
        say(f"searched at once: recall@{K} {first.recall:.4f}, p50 {first.p50_ms:.2f} ms (nothing indexed yet)")
        waited = time.perf_counter()
        database.flush()
        database.wait_until_indexed(timeout=300)
        say(f"settled  in {time.perf_counter() - waited:.1f} s more, behind the searches: {_indexes(database)}")
        reports = list(_measure_all(database, corpus))
        if not json:
            _show_example(database, corpus)
            _show_reports(reports)
        disk = sum(file.stat().st_size for file in (folder / "demo.db").rglob("*") if file.is_file())
        say(f"on disk  {size(disk)}, {disk / len(corpus.ids):,.0f} bytes per point")
        crashes = [crash.kill_and_check(folder / f"crash-{n}.db", seed=n) for n in range(kills)]
        if not json:
            _show_crashes(crashes)
    lost, phantom = sum(c.lost for c in crashes), sum(c.phantom for c in crashes)
    recall = min(report.recall for report in [first, *reports])
    if json:
        print_json(
            {
                "rows": len(corpus.ids),
                "rows_per_second": rate,
                "searches": [_vars_of(report) for report in [first, *reports]],
                "crashes": [_vars_of(c) for c in crashes],
            }
        )
    if recall < RECALL_FLOOR or lost or phantom:
        raise typer.Exit(FAULT)


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
    return Corpus(ids, vectors, columns, queries, texts, str(meta["metric"]), filters)


def _corpus_truth(corpus: Corpus) -> npt.NDArray[Any]:
    """The true neighbours of every query without a filter, as rows."""
    return corpus.filters["none"][3]


def _ingest(database: Database, corpus: Corpus) -> float:
    """Store the corpus batch by batch; returns rows per second, acknowledged durably."""
    started = time.perf_counter()
    for start in range(0, len(corpus.ids), BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        metadata = {name: column[part] for name, column in corpus.metadata.items()}
        database.add_batch(corpus.vectors[part], metadata, corpus.ids[part])
    return len(corpus.ids) / (time.perf_counter() - started)


def _measure_all(database: Database, corpus: Corpus) -> Iterator[SearchReport]:
    """Recall and latency without a filter and with each of the data set's filters."""
    for name, (_, condition, _, truth) in corpus.filters.items():
        yield _measure(database, corpus, name, condition, truth)


def _measure(database: Database, corpus: Corpus, name: str, condition: Any, truth: npt.NDArray[Any]) -> SearchReport:
    """Search every query once, one at a time, and compare the hits with the truth."""
    database.search(corpus.queries[0], k=K, filters=condition)  # the first search of a filter fills its cache
    taken, found = [], []
    for query in corpus.queries:
        started = time.perf_counter()
        results = database.search(query, k=K, filters=condition)
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


def _show_example(database: Database, corpus: Corpus) -> None:
    """Print one query and its nearest texts."""
    out.print(f"\n“{corpus.query_texts[0]}” is nearest to", markup=False)
    for hit in database.search(corpus.queries[0], k=3):
        text = "" if hit.metadata is None else hit.metadata["text"]
        out.print(f"  {hit.score:.3f}  {text}", markup=False, overflow="ellipsis", no_wrap=True)
    out.print()


def _show_reports(reports: list[SearchReport]) -> None:
    """Print recall and latency per filter."""
    rows = table("filter", "matches", f"recall@{K}", "p50 ms", "p99 ms")
    for r in reports:
        name = r.condition or "no filter"
        rows.add_row(name, f"{r.selectivity:.2%}", f"{r.recall:.4f}", f"{r.p50_ms:.3f}", f"{r.p99_ms:.3f}")
    out.print(rows)


def _show_crashes(crashes: list[crash.CrashReport]) -> None:
    """Print what the kills left."""
    for c in crashes:
        out.print(
            f"kill -9  after {c.acknowledged:,} acknowledged rows: {c.found:,} found, reopened in {c.reopen_ms:.0f} ms"
        )
    out.print(
        f"[bold]{sum(c.lost for c in crashes)} acknowledged rows lost, {sum(c.phantom for c in crashes)} phantom[/bold]"
    )


def _vars_of(report: SearchReport | crash.CrashReport) -> dict[str, Any]:
    """A report as a JSON object."""
    return {name: getattr(report, name) for name in report.__dataclass_fields__}


def _indexes(database: Database) -> str:
    """The segments by their index, in words."""
    kinds = [segment.index for segment in database.stats().segments]
    told = {"flat": "scanned exactly (up to index.flat_rows_max rows)", "hnsw": "with a graph"}
    return ", ".join(f"{kinds.count(kind)} segment(s) {words}" for kind, words in told.items() if kind in kinds)


def _say(line: str) -> None:
    out.print(line, soft_wrap=True)


def _silent(line: str) -> None:
    """For ``--json``, which prints one document at the end."""


@contextlib.contextmanager
def _workplace(path: Path | None) -> Iterator[Path]:
    """A folder for the demo's databases: ``path``, kept, or a temporary one, removed."""
    if path is not None:
        if path.exists() and any(path.iterdir()):
            raise InvalidArgumentError("the folder is not empty", field=str(path), bound="a new or empty folder")
        path.mkdir(parents=True, exist_ok=True)
        yield path
        return
    folder = Path(tempfile.mkdtemp(prefix="omendb-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


__all__ = ["Corpus", "SearchReport", "demo", "find_data", "read_corpus", "recall_of"]
