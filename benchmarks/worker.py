"""One database, one job, one process: run by `compare` as `python -m benchmarks.worker JOB.json`.

A process of its own gives each database its own memory figure, and a crash or a hang costs one row of the
table. The result is written after every phase, so that a job that dies keeps what it had found.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.adapters.adapter import Adapter, load_adapter
from benchmarks.benchset import SELECTIVITIES, BenchSet
from benchmarks.passes import RECALL_WANTED, K, point, write_all

WARM_UP_ROWS = 200
SEARCHABLE_LIMIT_S = 60.0
# strace is told what to count by these failing calls around the writes.
MARK_BEGIN = "/omendb-benchmark-begin"
MARK_END = "/omendb-benchmark-end"


@dataclass(frozen=True, slots=True)
class Job:
    """What to run: `phases` of ingest, index, search, filter, reopen."""

    peer: str
    mode: str
    set_folder: str
    folder: str
    out: str
    batch: int
    rows: int
    phases: tuple[str, ...]
    queries: int
    repeats: int
    budget_s: float

    @staticmethod
    def read(path: Path) -> Job:
        """Read a job that `compare` wrote."""
        told = json.loads(path.read_text(encoding="utf-8"))
        return Job(**{**told, "phases": tuple(told["phases"])})


class Run:
    """One job being run."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._set = BenchSet.open(Path(job.set_folder))
        self._adapter: Adapter = load_adapter(job.peer)
        self._effort = self._adapter.efforts[-1]
        self.result: dict[str, Any] = {
            "peer": job.peer,
            "mode": job.mode,
            "batch": job.batch,
            "version": _version(self._adapter.package),
            "effort_name": self._adapter.effort_name,
            "index_note": self._adapter.index_note,
            "memory_imported": measure.tree_memory().resident,
        }

    def run(self) -> None:
        """Run the phases in order and save after each."""
        steps = {
            "ingest": self._ingest,
            "index": self._index,
            "search": self._search,
            "filter": self._filter,
            "reopen": self._reopen,
        }
        for phase in self._job.phases:
            self.result[phase] = steps[phase]()
            self.result[phase]["memory_after"] = measure.tree_memory().resident
            self._save()
        self._adapter.close()
        if "reopen" not in self._job.phases:
            folder = Path(self._job.folder)
            self.result["disk_bytes"] = measure.disk_bytes(folder)
            self.result["disk_bytes_per_row"] = self.result["disk_bytes"] / max(self.result["ingest"]["rows"], 1)
        self._save()

    def _save(self) -> None:
        out = Path(self._job.out)
        partial = out.with_suffix(".partial")
        partial.write_text(json.dumps(self.result), encoding="utf-8")
        partial.rename(out)

    def _warm_up(self) -> None:
        """Write and search a few rows of a throwaway database: what loads on first use is not a write's time."""
        folder = Path(self._job.folder).parent / f"warm-up-{time.time_ns()}"
        batch = next(self._set.batches(WARM_UP_ROWS))
        self._adapter.create(folder, self._set.space, self._job.mode)
        self._adapter.insert(self._adapter.prepare(batch))
        self._adapter.search(batch.vectors[0], K, self._effort, None)
        self._adapter.close()
        # Some close in the background and still write: what is left goes with the job's folder.
        shutil.rmtree(folder, ignore_errors=True)

    def _ingest(self) -> dict[str, Any]:
        adapter, job = self._adapter, self._job
        self._warm_up()
        adapter.create(Path(job.folder), self._set.space, job.mode)
        _mark(MARK_BEGIN)
        written = write_all(adapter, self._set.batches(job.batch, job.rows), job.budget_s)
        _mark(MARK_END)
        searchable_s = self._until_found(written.last.vectors[-1], written.rows - 1)
        return {**written.to_json(min(job.rows, self._set.n)), "searchable_s": searchable_s}

    def _until_found(self, vector: np.ndarray[Any, Any], row: int) -> float | None:
        """Time from the last acknowledgement until a search finds the last row; None if it never does."""
        start = time.perf_counter()
        while True:
            # Depth 100: other rows may hold the very same vector.
            answer = self._adapter.search(vector, 100, self._effort, None)
            now = time.perf_counter() - start
            if row in self._adapter.rows(answer):
                return now
            if now > SEARCHABLE_LIMIT_S:
                return None

    def _index(self) -> dict[str, Any]:
        cpu, start = measure.tree_cpu_seconds(), time.perf_counter()
        self._adapter.finish()
        return {"seconds": time.perf_counter() - start, "cpu_s": measure.tree_cpu_seconds() - cpu}

    def _search(self) -> dict[str, Any]:
        curve = []
        for effort in self._adapter.efforts:
            point = self._point(effort, None)
            curve.append(point)
            # Past this nothing is won; the curve needs one point beyond the recall that counts.
            if point["recall"] >= 0.998:
                break
        good = [point for point in curve if point["recall"] >= RECALL_WANTED]
        best = min(good, key=lambda point: float(point["p50_ms"])) if good else None
        self._effort = best["effort"] if best else self._adapter.efforts[-1]
        return {"curve": curve, "at_recall": best}

    def _filter(self) -> dict[str, Any]:
        """Search under each filter with the least effort that reaches the recall wanted, else the most."""
        points = {}
        first = list(self._adapter.efforts).index(self._effort)
        for selectivity, below in SELECTIVITIES.items():
            for effort in self._adapter.efforts[first:]:
                point = self._point(effort, below)
                if point["recall"] >= RECALL_WANTED:
                    break
            points[str(selectivity)] = point
        return {"points": points}

    def _point(self, effort: int, below: int | None) -> dict[str, Any]:
        """Measure one effort: recall, and the median over the repeats of queries/s, p50 and p99."""
        found = point(
            lambda query: self._adapter.search(query, K, effort, below),
            self._adapter.rows,
            self._set.queries(self._job.queries),
            self._set.truth(below),
            self._job.repeats,
        )
        return {"effort": effort, **found}

    def _reopen(self) -> dict[str, Any]:
        self._warm_up()
        query, start = self._set.queries(1)[0], time.perf_counter()
        self._adapter.open(Path(self._job.folder), self._set.space)
        opened = time.perf_counter()
        self._adapter.search(query, K, self._adapter.efforts[0], None)
        return {"open_s": opened - start, "open_and_search_s": time.perf_counter() - start}


def _mark(name: str) -> None:
    try:
        os.unlink(name)
    except FileNotFoundError:
        return


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def main() -> None:
    """Run the job named on the command line."""
    Run(Job.read(Path(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
