"""OmenDB beside its peers: the same data, the same disk, one run.

Every measurement is a process of its own. The ingest runs are interleaved (every database once, then all of
them again), as is the bare append loop, so that a slow minute of the machine hits everybody.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import bare, measure, report, sets
from benchmarks.adapters.adapter import MODES, NAMES, PEERS
from benchmarks.benchset import BenchSet
from benchmarks.jobs import count_syncs, run_job
from benchmarks.setup_competitors import ROOT, ensure
from benchmarks.worker import Job

RESULTS = ROOT / "benchmarks" / "results"
SYNC_PROBE_BATCHES = 5
SYNC_PROBE_ROWS = 100


@dataclass(frozen=True, slots=True)
class Settings:
    """How much to run."""

    peers: tuple[str, ...]
    batches: tuple[int, ...]
    ingest_rows: int
    queries: int
    repeats: int
    budget_s: float
    timeout_s: float
    work: Path


class Comparison:
    """One run over one set."""

    def __init__(self, bench_set: BenchSet, settings: Settings) -> None:
        self._set = bench_set
        self._settings = settings
        self._jobs = 0
        settings.work.mkdir(parents=True, exist_ok=True)

    def run(self) -> dict[str, Any]:
        """Run everything; gives what the report is written from."""
        started = time.time()
        settings = self._settings
        skipped = {peer: reason for peer in settings.peers if (reason := ensure(peer, install=True))}
        present = [peer for peer in settings.peers if peer not in skipped]
        ingest = self._ingest(present)
        searches = {peer: self._search(peer) for peer in present}
        return {
            "set": {
                "name": self._set.name,
                "rows": self._set.n,
                "dimension": self._set.space.dimension,
                "metric": self._set.space.metric,
            },
            "machine": measure.machine(),
            "day": time.strftime("%Y-%m-%d", time.gmtime(started)),
            "seconds": round(time.time() - started),
            "settings": {
                "ingest_rows": min(settings.ingest_rows, self._set.n),
                "batches": settings.batches,
                "queries": settings.queries,
                "repeats": settings.repeats,
                "ingest_budget_s": settings.budget_s,
            },
            "skipped": skipped,
            "ingest": ingest,
            "databases": searches,
        }

    def _ingest(self, present: list[str]) -> list[dict[str, Any]]:
        """Measure the writes: rows of the table, bare loops among them, with a sample per repeat."""
        runs: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
        for repeat in range(self._settings.repeats):
            for batch in self._settings.batches:
                for kind in bare.KINDS:
                    runs.setdefault(("bare loop", kind, batch), []).append(self._bare(kind, batch))
                for peer in present:
                    for mode in modes_of(peer):
                        key = (peer, mode, batch)
                        if any("failed" in sample for sample in runs.get(key, [])):
                            continue
                        _say(f"ingest {repeat + 1}/{self._settings.repeats} {peer} ({mode}), batches of {batch}")
                        job = self._job(peer, mode, batch, ("ingest",), rows=self._settings.ingest_rows)
                        runs.setdefault(key, []).append(self._finished(job))
        syncs = {(peer, mode): self._syncs(peer, mode) for peer in present for mode in modes_of(peer)}
        return [
            _ingest_row(peer, mode, batch, samples, syncs.get((peer, mode)))
            for (peer, mode, batch), samples in runs.items()
        ]

    def _bare(self, kind: str, batch: int) -> dict[str, Any]:
        rows = min(self._settings.ingest_rows, self._set.n)
        first = next(self._set.batches(batch, rows))
        # A quarter more than the first batch suggests: labels differ in length.
        capacity = bare.batch_bytes(first) * (rows // first.n + 1) * 5 // 4
        path = self._settings.work / "bare.log"
        path.unlink(missing_ok=True)
        times = bare.run_bare(path, kind, self._set.batches(batch, rows), capacity)
        rate = rows / sum(times)
        spread = measure.Spread.of(times).to_json()
        return {
            "ingest": {"rows": rows, "rows_per_s": rate, "rows_per_s_call": rate, "batch_ms": spread, "whole": True}
        }

    def _syncs(self, peer: str, mode: str) -> float | None:
        """Count the sync calls per batch; None where they cannot be counted."""
        rows = SYNC_PROBE_BATCHES * SYNC_PROBE_ROWS
        job = self._job(peer, mode, SYNC_PROBE_ROWS, ("ingest",), rows=rows)
        counts = count_syncs(job, self._settings.timeout_s)
        self._clear(job)
        return None if counts is None else sum(counts.values()) / SYNC_PROBE_BATCHES

    def _search(self, peer: str) -> dict[str, Any]:
        _say(f"search {peer}")
        mode = modes_of(peer)[0]
        phases = ("ingest", "index", "search", "filter")
        job = self._job(peer, mode, max(self._settings.batches), phases, rows=self._set.n, budget_s=float("inf"))
        result = run_job(job, self._settings.timeout_s)
        if "failed" not in result:
            again = [
                run_job(
                    self._job(peer, mode, job.batch, ("reopen",), rows=0, folder=job.folder), self._settings.timeout_s
                )
                for _ in range(self._settings.repeats)
            ]
            whole = [one["reopen"]["open_and_search_s"] for one in again if "failed" not in one]
            result["reopen_s"] = measure.median(whole) if whole else None
        self._clear(job)
        return result

    def _finished(self, job: Job) -> dict[str, Any]:
        result = run_job(job, self._settings.timeout_s)
        self._clear(job)
        return result

    def _job(
        self,
        peer: str,
        mode: str,
        batch: int,
        phases: tuple[str, ...],
        *,
        rows: int,
        budget_s: float | None = None,
        folder: str | None = None,
    ) -> Job:
        self._jobs += 1
        here = self._settings.work / f"{self._jobs:04d}-{peer}"
        here.mkdir(parents=True, exist_ok=True)
        return Job(
            peer=peer,
            mode=mode,
            set_folder=str(self._set.folder),
            folder=folder or str(here / "db"),
            out=str(here / "result.json"),
            batch=batch,
            rows=rows,
            phases=phases,
            queries=self._settings.queries,
            repeats=self._settings.repeats,
            budget_s=self._settings.budget_s if budget_s is None else budget_s,
        )

    def _clear(self, job: Job) -> None:
        shutil.rmtree(Path(job.folder).parent, ignore_errors=True)


def modes_of(peer: str) -> list[str]:
    """Name the modes of a database."""
    return [mode.name for mode in MODES[peer]]


def _ingest_row(peer: str, mode: str, batch: int, samples: list[dict[str, Any]], syncs: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"peer": peer, "mode": mode, "batch": batch, "syncs_per_batch": syncs}
    good = [sample["ingest"] for sample in samples if "failed" not in sample]
    row["meaning"] = next((told.meaning for told in MODES.get(peer, ()) if told.name == mode), "synced")
    row["failed"] = next((sample["failed"] for sample in samples if "failed" in sample), None)
    for name in ("rows_per_s", "rows_per_s_call"):
        row[name] = measure.median([sample[name] for sample in good]) if good else None
        row[f"{name}_samples"] = [round(sample[name]) for sample in good]
    if good:
        row["rows"] = good[0]["rows"]
        row["whole"] = all(sample["whole"] for sample in good)
        for name in ("p50_ms", "p99_ms", "max_ms"):
            row[name] = measure.median([sample["batch_ms"][name] for sample in good])
        found = [sample["searchable_s"] for sample in good if sample.get("searchable_s") is not None]
        row["searchable_s"] = measure.median(found) if found else None
    return row


def _say(text: str) -> None:
    print(f"… {text}", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--set", default="siftlike:20000", help="KIND:ROWS, or a folder like data/wordnet10k")
    parser.add_argument("--peers", default="all", help=f"all, none, or some of {','.join(PEERS)}")
    parser.add_argument("--batches", default="1000,10000", help="rows per write, comma between")
    parser.add_argument("--ingest-rows", type=int, default=100_000, help="rows of an ingest run at most")
    parser.add_argument("--queries", type=int, default=500, help="queries of a search measurement")
    parser.add_argument("--repeats", type=int, default=3, help="repeats that medians are taken of")
    parser.add_argument("--budget", type=float, default=20, help="seconds after which an ingest run stops")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds after which a process is ended")
    parser.add_argument("--name", default=None, help="folder below benchmarks/results; default: the set's name")
    parser.add_argument("--work", type=Path, default=sets.CACHE / "work", help="where the databases are written")


def run(arguments: argparse.Namespace) -> None:
    """Compare, write the report, print its Markdown."""
    wanted = {"all": NAMES, "none": ("omendb",)}.get(arguments.peers)
    peers = wanted or ("omendb", *(name for name in arguments.peers.split(",") if name != "omendb"))
    unknown = sorted(set(peers) - set(NAMES))
    if unknown:
        sys.exit(f"unknown peers: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    bench_set = sets.prepare(arguments.set)
    work = arguments.work / f"run-{time.strftime('%Y%m%d-%H%M%S')}"
    settings = Settings(
        peers=tuple(peers),
        batches=tuple(int(size) for size in arguments.batches.split(",")),
        ingest_rows=arguments.ingest_rows,
        queries=arguments.queries,
        repeats=arguments.repeats,
        budget_s=arguments.budget,
        timeout_s=arguments.timeout,
        work=work,
    )
    try:
        outcome = Comparison(bench_set, settings).run()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    folder = RESULTS / (arguments.name or bench_set.name)
    print(report.write(outcome, folder))
    print(f"written to {folder.relative_to(ROOT)}")
