"""``omendb demo --folder``: real data in, searched, filtered, the writer killed, and everything still there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import omendb
from omendb.cli import crash
from omendb.cli.demo_data import RECALL_FLOOR, Corpus, K, SearchReport, measure, show_reports
from omendb.cli.terminal import out, print_json, size
from omendb.database import Database

BATCH_ROWS = 1_000


def folder_demo(corpus: Corpus, folder: Path, kills: int, *, json: bool) -> bool:
    """Run it in ``folder``; whether recall and every row held."""
    with contextlib.ExitStack() as stack:
        say: Callable[[str], None] = _silent if json else _say
        say(f"OmenDB {omendb.__version__}, {len(corpus.ids):,} WordNet glosses of {corpus.vectors.shape[1]} dimensions")
        database = stack.enter_context(omendb.open(folder / "demo.db", metric=corpus.metric))
        rate = _ingest(database, corpus)
        say(f"stored   {rate:,.0f} rows/s in batches of {BATCH_ROWS:,}, each fsynced before it is acknowledged")
        first = measure(database, corpus, "at once", None, corpus.filters["none"][3])
        say(f"searched at once: recall@{K} {first.recall:.4f}, p50 {first.p50_ms:.2f} ms (nothing indexed yet)")
        waited = time.perf_counter()
        database.flush()
        database.wait_until_indexed(timeout=300)
        say(f"settled  in {time.perf_counter() - waited:.1f} s more, behind the searches: {_indexes(database)}")
        reports = list(_measure_all(database, corpus))
        if not json:
            _show_example(database, corpus)
            show_reports(reports)
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
    return recall >= RECALL_FLOOR and not lost and not phantom


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
        yield measure(database, corpus, name, condition, truth)


def _show_example(database: Database, corpus: Corpus) -> None:
    """Print one query and its nearest texts."""
    out.print(f"\n“{corpus.query_texts[0]}” is nearest to", markup=False)
    for hit in database.search(corpus.queries[0], k=3):
        text = "" if hit.metadata is None else hit.metadata["text"]
        out.print(f"  {hit.score:.3f}  {text}", markup=False, overflow="ellipsis", no_wrap=True)
    out.print()


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
    told = {
        "flat": "scanned exactly (up to index.flat_rows_max rows)",
        "hnsw": "with a graph",
        "ivf": "with inverted lists",
    }
    return ", ".join(f"{kinds.count(kind)} segment(s) {words}" for kind, words in told.items() if kind in kinds)


def _say(line: str) -> None:
    out.print(line, soft_wrap=True)


def _silent(line: str) -> None:
    """For ``--json``, which prints one document at the end."""


__all__ = ["BATCH_ROWS", "folder_demo"]
