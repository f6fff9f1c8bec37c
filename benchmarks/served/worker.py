"""The client of one server, one job, one process: run by `servers` as `python -m benchmarks.served.worker JOB.json`.

A process of its own, in the virtualenv of the peer's client. The result is written after every phase.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.adapters.adapter import Batch
from benchmarks.benchset import BenchSet
from benchmarks.passes import WARM_UP_QUERIES, K, Vectors, point, write_all
from benchmarks.served.client import COLLECTION, WARM_UP, ServerClient, load_client

WARM_UP_ROWS = 200
CONNECT_LIMIT_S = 90.0
CONNECT_EVERY_S = 0.02
SEARCHABLE_LIMIT_S = 60.0
# A pass of concurrent searches, and how many passes a median is taken of.
CONCURRENT_S = 4.0
CONCURRENT_PASSES = 3
CLIENT_START_LIMIT_S = 300.0
LOOKUP_ROWS = 500


@dataclass(frozen=True, slots=True)
class ServedJob:
    """What to run: ``phases`` of ingest, index, effort, search, concurrent, stream, check."""

    peer: str
    server: str
    mode: str
    address: str
    roots: tuple[int, ...]
    set_folder: str
    folder: str
    out: str
    phases: tuple[str, ...]
    batch: int = 1000
    rows: int = 0
    queries: int = 500
    repeats: int = 3
    budget_s: float = float("inf")
    effort: int | None = None
    below: int | None = None
    clients: int = 8
    progress: str = ""

    @staticmethod
    def read(path: Path) -> ServedJob:
        """Read a job that `servers` wrote."""
        told = json.loads(path.read_text(encoding="utf-8"))
        return ServedJob(**{**told, "phases": tuple(told["phases"]), "roots": tuple(told["roots"])})


class ServedRun:
    """One job being run."""

    def __init__(self, job: ServedJob) -> None:
        self._job = job
        self._set = BenchSet.open(Path(job.set_folder))
        self._client: ServerClient = load_client(job.server)
        self.result: dict[str, Any] = {"server": job.server, "mode": job.mode}

    def run(self) -> None:
        """Run the phases in order and save after each."""
        steps: dict[str, Callable[[], dict[str, Any]]] = {
            "ingest": self._ingest,
            "index": self._index,
            "effort": self._effort,
            "search": self._search,
            "concurrent": self._concurrent,
            "stream": self._stream,
            "check": self._check,
        }
        if "check" in self._job.phases:
            # Everything is imported: whoever started this process may start the server now.
            Path(self._job.progress).write_text("ready", encoding="ascii")
        connect(self._client, self._job.address)
        self.result |= {
            "version": self._client.server_version(),
            "efforts": self._client.efforts,
            "effort_name": self._client.effort_name,
            "index_note": self._client.index_note,
            "effort_needs_restart": self._client.effort_needs_restart,
        }
        for phase in self._job.phases:
            self.result[phase] = steps[phase]()
            self._save()
        self._client.close()

    def _save(self) -> None:
        out = Path(self._job.out)
        partial = out.with_suffix(".partial")
        partial.write_text(json.dumps(self.result), encoding="utf-8")
        partial.rename(out)

    def _use(self) -> None:
        self._client.use(COLLECTION, self._set.space, self._job.mode)
        if self._job.effort is not None and not self._client.effort_needs_restart:
            self._client.set_effort(self._job.effort)

    def _warm_up(self) -> None:
        """Write and search a few rows of a throwaway collection: what loads on first use is not a write's time."""
        batch = next(self._set.batches(WARM_UP_ROWS))
        self._client.create(WARM_UP, self._set.space, self._job.mode)
        self._client.insert(self._client.prepare(batch))
        self._client.search(batch.vectors[0], K, None)
        self._client.drop(WARM_UP)

    def _ingest(self) -> dict[str, Any]:
        job, client = self._job, self._client
        self._warm_up()
        client.create(COLLECTION, self._set.space, job.mode)
        cpu, began = self._server_cpu_s(), time.time()
        written = write_all(client, self._set.batches(job.batch, job.rows), job.budget_s)
        ended, cpu = time.time(), self._server_cpu_s() - cpu
        told = written.to_json(min(job.rows, self._set.n))
        searchable_s = self._until_found(written.last.vectors[-1], written.rows - 1)
        return {**told, "began": began, "ended": ended, "server_cpu_s": cpu, "searchable_s": searchable_s}

    def _until_found(self, vector: Vectors, row: int) -> float | None:
        """Time from the last acknowledgement until a search finds the last row; None if it never does."""
        start = time.perf_counter()
        while True:
            # Depth 100: other rows may hold the very same vector.
            answer = self._client.search(vector, 100, None)
            now = time.perf_counter() - start
            if row in self._client.rows(answer):
                return now
            if now > SEARCHABLE_LIMIT_S:
                return None

    def _index(self) -> dict[str, Any]:
        cpu, start = self._server_cpu_s(), time.perf_counter()
        self._client.finish()
        return {"seconds": time.perf_counter() - start, "cpu_s": self._server_cpu_s() - cpu}

    def _server_cpu_s(self) -> float:
        return sum(measure.tree_cpu_seconds(pid) for pid in self._job.roots)

    def _effort(self) -> dict[str, Any]:
        """Set the effort of a server that reads it when it starts."""
        self._client.use(COLLECTION, self._set.space, self._job.mode)
        self._client.set_effort(self._job.effort or self._client.efforts[-1])
        return {}

    def _search(self) -> dict[str, Any]:
        self._use()
        job, client = self._job, self._client
        found = point(
            lambda query: client.search(query, K, job.below),
            client.rows,
            self._set.queries(job.queries),
            self._set.truth(job.below),
            job.repeats,
        )
        return {"effort": job.effort, **found}

    def _concurrent(self) -> dict[str, Any]:
        """Searches per second of several clients, each a process that asks one search after the other."""
        there = multiprocessing.get_context("spawn")
        barrier, answered = there.Barrier(self._job.clients + 1), there.Queue()
        members = [
            there.Process(target=search_for_a_while, args=(self._job, number, barrier, answered), daemon=True)
            for number in range(self._job.clients)
        ]
        for member in members:
            member.start()
        passes = []
        for _ in range(CONCURRENT_PASSES):
            barrier.wait(CLIENT_START_LIMIT_S)
            cpu = self._server_cpu_s()
            times = [seconds for _ in members for seconds in answered.get(timeout=CLIENT_START_LIMIT_S)]
            cpu = self._server_cpu_s() - cpu
            spread = measure.Spread.of(times)
            passes.append((len(times) / CONCURRENT_S, spread.p50_ms, spread.p99_ms, 1000 * cpu / max(len(times), 1)))
        for member in members:
            member.join()
        rate, p50, p99, cpu_ms = (measure.median(column) for column in zip(*passes, strict=True))
        return {"clients": len(members), "qps": rate, "p50_ms": p50, "p99_ms": p99, "server_cpu_ms": cpu_ms}

    def _stream(self) -> dict[str, Any]:
        """Write until the server is gone; every acknowledged row is counted in the progress file."""
        self._warm_up()
        self._client.create(COLLECTION, self._set.space, self._job.mode)
        with Path(self._job.progress).open("a", encoding="ascii") as progress:
            for batch in self._endless():
                self._client.insert(self._client.prepare(batch))
                progress.write(f"{batch.first + batch.n}\n")
                progress.flush()
        return {}

    def _endless(self) -> Iterator[Batch]:
        """The rows of the set over and over, under ever new numbers, up to `rows`."""
        first = 0
        for batch in itertools.chain.from_iterable(self._set.batches(self._job.batch) for _ in itertools.count()):
            if first >= self._job.rows:
                return
            yield replace(batch, first=first)
            first += batch.n

    def _check(self) -> dict[str, Any]:
        """Count which of the first ``rows`` rows are there after a restart, and when a search first answered."""
        query = self._set.queries(1)[0]
        retried(lambda: self._client.use(COLLECTION, self._set.space, self._job.mode))
        retried(lambda: self._client.search(query, K, None))
        answered = time.time()
        found = 0
        for start in range(0, self._job.rows, LOOKUP_ROWS):
            found += self._client.present(range(start, min(start + LOOKUP_ROWS, self._job.rows)))
        return {"answered": answered, "acknowledged": self._job.rows, "found": found}


def connect(client: ServerClient, address: str) -> None:
    """Connect as soon as the server serves."""
    retried(lambda: client.connect(address))


def retried(call: Callable[[], Any]) -> None:
    """Call until it raises nothing; what it raises after a while is raised."""
    deadline = time.monotonic() + CONNECT_LIMIT_S
    while True:
        try:
            call()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(CONNECT_EVERY_S)
        else:
            return


def search_for_a_while(job: ServedJob, number: int, barrier: Any, answered: Any) -> None:
    """One of several clients: passes of searches that begin together; gives the seconds of each search."""
    bench_set, client = BenchSet.open(Path(job.set_folder)), load_client(job.server)
    connect(client, job.address)
    client.use(COLLECTION, bench_set.space, job.mode)
    if job.effort is not None and not client.effort_needs_restart:
        client.set_effort(job.effort)
    # Every client asks in an order of its own.
    queries = np.roll(bench_set.queries(job.queries), number * job.queries // job.clients, axis=0)
    for query in queries[:WARM_UP_QUERIES]:
        client.search(query, K, job.below)
    for _ in range(CONCURRENT_PASSES):
        times: list[float] = []
        barrier.wait(CLIENT_START_LIMIT_S)
        began = start = time.perf_counter()
        for query in itertools.cycle(queries):
            client.search(query, K, job.below)
            now = time.perf_counter()
            times.append(now - start)
            start = now
            if now - began >= CONCURRENT_S:
                break
        answered.put(times)
    client.close()


def main() -> None:
    """Run the job named on the command line."""
    ServedRun(ServedJob.read(Path(sys.argv[1]))).run()
    sys.stdout.flush()
    # Some clients keep threads that would hold this process.
    os._exit(0)


if __name__ == "__main__":
    main()
