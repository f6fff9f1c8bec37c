"""OmenDB as a server, single and as a fleet, beside other real servers: the same load, the same machine, one run.

Every server is a real process on the loopback over a fresh folder, driven through its own client by processes in its
own virtualenv. The ingest runs are interleaved, so that a slow minute of the machine hits everybody.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import measure, sets
from benchmarks.benchset import BenchSet
from benchmarks.jobs import run_job
from benchmarks.passes import RECALL_WANTED
from benchmarks.served import report
from benchmarks.served.client import MODES, NAMES, venv
from benchmarks.served.processes import FleetServer, PeakMemory, Server, SyncTrace, make_server, resident_bytes
from benchmarks.served.worker import ServedJob
from benchmarks.setup_competitors import ROOT, ensure
from omendb import OmenDBError

RESULTS = ROOT / "benchmarks" / "results"
PHASES = ("ingest", "search", "crash")
SELECTIVITIES = {0.1: 100, 0.01: 10}
SYNC_PROBE_BATCHES = 10
SYNC_PROBE_ROWS = 1000
CRASH_BATCH = 1000
CRASH_BATCHES_MIN = 5
CRASH_ROWS_MAX = 400_000
CRASH_AFTER_S = (0.8, 1.6)
CRASH_LIMIT_S = 120.0
LOOK_EVERY_S = 0.002


@dataclass(frozen=True, slots=True)
class Settings:
    """How much to run."""

    servers: tuple[str, ...]
    phases: tuple[str, ...]
    batches: tuple[int, ...]
    ingest_rows: int
    queries: int
    repeats: int
    clients: int
    budget_s: float
    timeout_s: float
    work: Path


class Here:
    """One server in a fresh folder for one measurement, and the jobs that are run against it; a context manager."""

    def __init__(self, name: str, mode: str, bench_set: BenchSet, settings: Settings) -> None:
        settings.work.mkdir(parents=True, exist_ok=True)
        self.folder = settings.work / f"{time.time_ns()}-{name}"
        self.folder.mkdir()
        self.server: Server | FleetServer = make_server(name, mode, self.folder / "server")
        self._settings = settings
        self._job = ServedJob(
            peer=venv(name),
            server=name,
            mode=mode,
            address=self.server.address,
            roots=(),
            set_folder=str(bench_set.folder),
            folder=str(self.folder / "client"),
            out="",
            phases=(),
            queries=settings.queries,
            repeats=settings.repeats,
            clients=settings.clients,
            progress=str(self.folder / "progress"),
        )

    def __enter__(self) -> Here:
        try:
            self.server.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def job(self, *phases: str, **changes: Any) -> dict[str, Any]:
        """Run phases in a client process of their own; raises when they failed."""
        result = self.tried(*phases, **changes)
        if "failed" in result:
            raise RuntimeError(result["failed"])
        return result

    def tried(self, *phases: str, **changes: Any) -> dict[str, Any]:
        """Run phases in a client process of their own; `failed` tells why they did not end well."""
        out = str(self.folder / f"{time.time_ns()}.json")
        job = replace(self._job, phases=phases, roots=tuple(self.server.roots()), out=out, **changes)
        return run_job(job, self._settings.timeout_s, module="benchmarks.served.worker")


class ServerComparison:
    """One run over one set."""

    def __init__(self, bench_set: BenchSet, settings: Settings) -> None:
        self._set = bench_set
        self._settings = settings
        self.failed: list[str] = []

    def run(self) -> dict[str, Any]:
        """Run everything; gives what the report is written from."""
        started, load = time.time(), os.getloadavg()[0]
        settings = self._settings
        skipped = {name: reason for name in settings.servers if (reason := ensure(venv(name), install=True))}
        present = [name for name in settings.servers if name not in skipped]
        ingest = self._ingest(present) if "ingest" in settings.phases else []
        found = {name: self._tried(name, "search", self._search) for name in present if "search" in settings.phases}
        crashes = {name: self._crashes(name) for name in present if "crash" in settings.phases}
        space = self._set.space
        return {
            "set": {
                "name": self._set.name,
                "rows": self._set.n,
                "dimension": space.dimension,
                "metric": space.metric,
            },
            "machine": measure.machine(),
            "load_before": round(load, 2),
            "day": time.strftime("%Y-%m-%d", time.gmtime(started)),
            "seconds": round(time.time() - started),
            "settings": {
                "ingest_rows": min(settings.ingest_rows, self._set.n),
                "batches": settings.batches,
                "queries": settings.queries,
                "repeats": settings.repeats,
                "clients": settings.clients,
                "ingest_budget_s": settings.budget_s,
                "recall_wanted": RECALL_WANTED,
            },
            "skipped": skipped,
            "failed": self.failed,
            "ingest": ingest,
            "servers": found,
            "crashes": crashes,
        }

    def _tried(self, name: str, what: str, call: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        """What a measurement found; a server that fails costs its row and no other."""
        _say(f"{what} {name}")
        try:
            return call(name)
        except (RuntimeError, OSError, subprocess.SubprocessError, OmenDBError) as error:
            self.failed.append(f"{name}, {what}: {error}")
            _say(self.failed[-1])
            return {}

    def _ingest(self, present: list[str]) -> list[dict[str, Any]]:
        """Measure the writes, interleaved: every server once, then all of them again."""
        settings = self._settings
        runs: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
        ways = [(name, mode.name) for name in present for mode in MODES[name]]
        for repeat, batch, (name, mode) in itertools.product(range(settings.repeats), settings.batches, ways):
            told = f"ingest {repeat + 1}/{settings.repeats} ({mode}), batches of {batch}"
            found = self._tried(name, told, lambda name, mode=mode, batch=batch: self._write(name, mode, batch))  # type: ignore[misc]
            runs.setdefault((name, mode, batch), []).extend([found] if found else [])
        syncs = {(name, mode): self._syncs(name, mode) for name, mode in ways} if SyncTrace.possible() else {}
        return [
            ingest_row(name, mode, batch, samples, syncs.get((name, mode)))
            for (name, mode, batch), samples in runs.items()
        ]

    def _write(self, name: str, mode: str, batch: int) -> dict[str, Any]:
        with Here(name, mode, self._set, self._settings) as here:
            found = here.job("ingest", batch=batch, rows=self._settings.ingest_rows, budget_s=self._settings.budget_s)
            ingest: dict[str, Any] = found["ingest"]
            return ingest

    def _syncs(self, name: str, mode: str) -> float | None:
        """Count the sync calls of all of the server's processes per batch; None where they cannot be counted."""

        def probe(name: str) -> dict[str, Any]:
            with Here(name, mode, self._set, self._settings) as here:
                with SyncTrace(here.server.roots(), here.folder / "strace") as trace:
                    rows = SYNC_PROBE_BATCHES * SYNC_PROBE_ROWS
                    ingest = here.job("ingest", batch=SYNC_PROBE_ROWS, rows=rows)["ingest"]
                return {"syncs": trace.count(ingest["began"], ingest["ended"]) / SYNC_PROBE_BATCHES}

        return self._tried(name, f"syncs ({mode})", probe).get("syncs")

    def _search(self, name: str) -> dict[str, Any]:
        mode = MODES[name][0].name
        with Here(name, mode, self._set, self._settings) as here:
            before = resident_bytes(here.server.roots())
            with PeakMemory(here.server) as memory:
                result = here.job("ingest", "index", batch=max(self._settings.batches), rows=self._set.n)
                curve = self._curve(here, result, None, result["efforts"])
                at = next((point for point in curve if point["recall"] >= RECALL_WANTED), None)
                effort = (at or curve[-1])["effort"]
                concurrent = here.job("concurrent", effort=effort)["concurrent"]
                after = resident_bytes(here.server.roots())
                later = [one for one in result["efforts"] if one >= effort]
                filtered = {
                    str(share): self._curve(here, result, below, later)[-1] for share, below in SELECTIVITIES.items()
                }
            return {
                "version": result["version"],
                "index_note": result["index_note"],
                "effort_name": result["effort_name"],
                "ingest": result["ingest"],
                "index": result["index"],
                "curve": curve,
                "at_recall": at,
                "concurrent": concurrent,
                "filtered": filtered,
                "memory_before": before,
                "memory_after": after,
                "memory_peak": memory.peak,
                "disk_bytes": measure.disk_bytes(here.server.folder),
            }

    def _curve(self, here: Here, told: dict[str, Any], below: int | None, efforts: list[int]) -> list[dict[str, Any]]:
        """Points of rising effort up to the first that reaches the recall wanted."""
        curve: list[dict[str, Any]] = []
        for effort in efforts:
            if told["effort_needs_restart"]:
                here.job("effort", effort=effort)
                here.server.restart()
            curve.append(here.job("search", effort=effort, below=below)["search"])
            if curve[-1]["recall"] >= RECALL_WANTED:
                break
        return curve

    def _crashes(self, name: str) -> list[dict[str, Any]]:
        found = [
            self._tried(name, f"crash {number + 1}/{self._settings.repeats}", self._crash)
            for number in range(self._settings.repeats)
        ]
        return [one for one in found if one]

    def _crash(self, name: str) -> dict[str, Any]:
        """``kill -9`` of every process of the server in mid-ingest; what was acknowledged is looked up after."""
        with Here(name, MODES[name][0].name, self._set, self._settings) as here:
            progress = here.folder / "progress"
            writer = threading.Thread(
                target=here.tried, args=("stream",), kwargs={"batch": CRASH_BATCH, "rows": CRASH_ROWS_MAX}
            )
            writer.start()
            _wait_for(lambda: acknowledged(progress) >= CRASH_BATCHES_MIN * CRASH_BATCH, "the first acknowledgements")
            time.sleep(random.uniform(*CRASH_AFTER_S))
            here.server.kill()
            writer.join()
            rows = acknowledged(progress)
            progress.unlink()
            results: list[dict[str, Any]] = []
            reader = threading.Thread(target=lambda: results.append(here.tried("check", rows=rows)))
            reader.start()
            _wait_for(progress.exists, "the client to start")
            started = time.time()
            here.server.start()
            reader.join()
            if "failed" in results[0]:
                raise RuntimeError(results[0]["failed"])
            check = results[0]["check"]
            return {
                "acknowledged": rows,
                "lost": rows - check["found"],
                "back_s": check["answered"] - started,
            }


def acknowledged(progress: Path) -> int:
    """The rows that a writer was told are written, by the last whole line of its progress file."""
    try:
        lines = progress.read_text(encoding="ascii").split("\n")[:-1]
    except FileNotFoundError:
        return 0
    return int(lines[-1]) if lines else 0


def _wait_for(predicate: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + CRASH_LIMIT_S
    while not predicate():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {CRASH_LIMIT_S:.0f} s for {what}")
        time.sleep(LOOK_EVERY_S)


def ingest_row(name: str, mode: str, batch: int, samples: list[dict[str, Any]], syncs: float | None) -> dict[str, Any]:
    """Sum the repeats of one way to write up: medians of the rates and times."""
    meaning = next(one.meaning for one in MODES[name] if one.name == mode)
    row: dict[str, Any] = {"server": name, "mode": mode, "meaning": meaning, "batch": batch, "syncs_per_batch": syncs}
    if not samples:
        return {**row, "rows_per_s": None}
    for key in ("rows", "rows_per_s", "rows_per_s_call"):
        row[key] = measure.median([sample[key] for sample in samples])
    for key in ("p50_ms", "p99_ms"):
        row[key] = measure.median([sample["batch_ms"][key] for sample in samples])
    row["server_cpu_us_per_row"] = measure.median([1e6 * one["server_cpu_s"] / one["rows"] for one in samples])
    found = [sample["searchable_s"] for sample in samples if sample["searchable_s"] is not None]
    row["searchable_s"] = measure.median(found) if found else None
    row["whole"] = all(sample["whole"] for sample in samples)
    row["samples_rows_per_s"] = [round(sample["rows_per_s"]) for sample in samples]
    return row


def _say(text: str) -> None:
    print(f"… {text}", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--set", default="siftlike:20000", help="KIND:ROWS, or a folder like data/wordnet10k")
    parser.add_argument("--servers", default="all", help=f"all, or some of {','.join(NAMES)}")
    parser.add_argument("--phases", default=",".join(PHASES), help="what to measure, comma between")
    parser.add_argument("--batches", default="1000,10000", help="rows per write, comma between")
    parser.add_argument("--ingest-rows", type=int, default=100_000, help="rows of an ingest run at most")
    parser.add_argument("--queries", type=int, default=500, help="queries of a search measurement")
    parser.add_argument("--repeats", type=int, default=3, help="repeats that medians are taken of")
    parser.add_argument("--clients", type=int, default=8, help="clients that search at the same time")
    parser.add_argument("--budget", type=float, default=20, help="seconds after which an ingest run stops")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds after which a client is ended")
    parser.add_argument("--name", default=None, help="folder below benchmarks/results; default: servers_ and the set")
    parser.add_argument("--work", type=Path, default=sets.CACHE / "work", help="where the databases are written")


def run(arguments: argparse.Namespace) -> None:
    """Compare, write the report, print its Markdown."""
    servers = NAMES if arguments.servers == "all" else tuple(arguments.servers.split(","))
    unknown = sorted(set(servers) - set(NAMES))
    if unknown:
        sys.exit(f"unknown servers: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    bench_set = sets.prepare(arguments.set)
    work = arguments.work / f"servers-{time.strftime('%Y%m%d-%H%M%S')}"
    settings = Settings(
        servers=servers,
        phases=tuple(arguments.phases.split(",")),
        batches=tuple(int(size) for size in arguments.batches.split(",")),
        ingest_rows=arguments.ingest_rows,
        queries=arguments.queries,
        repeats=arguments.repeats,
        clients=arguments.clients,
        budget_s=arguments.budget,
        timeout_s=arguments.timeout,
        work=work,
    )
    try:
        outcome = ServerComparison(bench_set, settings).run()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    folder = RESULTS / (arguments.name or f"servers_{bench_set.name}")
    print(report.write(outcome, folder))
    print(f"written to {folder.relative_to(ROOT)}")
