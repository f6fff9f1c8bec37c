"""R28: gray failure on a real cluster: one data node's disk ten times as slow, then another one's link 200 ms long.

Healthy and gray phases alternate in one run, while clients write at W=2 of 3, get and search at a quorum, and search at
one replica. Every answer must be right and none may fail. How far the slow node is felt is the figure: the 99th
percentile of each kind of call while gray, by that of the healthy phases. It is no violation, for it is as good as the
machine is quiet.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from omendb.client import Client
from omendb.collection import Collection
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize, free_ports
from omendb.fleet.process import FleetProcess, wait_until
from omendb_chaos.fleet import slow_disk
from omendb_chaos.fleet.knob import Knob
from omendb_chaos.fleet.replicas import held
from omendb_chaos.fleet.running import START_S, running_fleet
from omendb_chaos.rows.outcome import Budget, Outcome
from omendb_common.errors import OmenDBError
from omendb_common.shard_calls import State

GOAL = 2.0
DISK_TIMES = 10.0
LINK_MS = 200.0
_CYCLES = {"small": 1, "full": 10}
_PHASE_S = {"small": 1.5, "full": 5.0}
# After a gray phase the slow node has work left over; that is not what healthy means.
_SETTLE_S = 1.0
_SIZE = FleetSize(1, 1, 3)
_SLOW_DISK, _SLOW_LINK = "d1", "d3"
_TIMEOUT_S = 5.0
_DIMENSION = 32
_BASE = 2000
_OWN = 500
_BATCH = 10
_WORKERS = 2
_NAME = "points"
KINDS = ("write", "get at quorum", "search at one", "search at quorum")


@dataclass
class Faults:
    """The two faults, and the process that is the link."""

    disk: Knob
    link: Knob
    process: FleetProcess

    def set(self, phase: str) -> None:
        """Let a phase begin."""
        self.disk.turn(DISK_TIMES if phase == "disk" else 0)
        self.link.turn(LINK_MS if phase == "link" else 0)

    def felt(self, phase: str) -> int:
        """How often the fault of a phase struck so far."""
        return {"disk": self.disk, "link": self.link}[phase].felt


@dataclass
class Worker:
    """One caller: the only writer of its ids, so that it knows what a read must show.

    ``phase``: what its times count for now; none while it is empty.
    """

    first: int
    phase: str = ""
    calls: int = 0
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    times_s: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    _last: dict[int, int] = field(default_factory=dict)
    _number: int = 0

    def round(self, collection: Collection) -> None:
        """One call of every kind."""
        self._number += 1
        offset = self._number * _BATCH % _OWN
        ids = [self.first + offset + i for i in range(_BATCH)]
        self._timed("write", lambda: self._write(collection, ids))
        self._timed("get at quorum", lambda: self._get(collection, ids[self._number % _BATCH]))
        self._timed("search at one", lambda: self._search(collection, "one"))
        self._timed("search at quorum", lambda: self._search(collection, "quorum"))

    def _timed(self, kind: str, call: Callable[[], None]) -> None:
        # A call counts for the phase in which it begins.
        phase, started_s = self.phase, time.perf_counter()
        self.calls += 1
        try:
            call()
        except OmenDBError as error:
            self.failed.append(f"{phase or 'in between'}: {kind}: {type(error).__name__}: {error}")
        if phase:
            self.times_s[phase, kind].append(time.perf_counter() - started_s)

    def _write(self, collection: Collection, ids: list[int]) -> None:
        for point_id in ids:
            self._last.pop(point_id, None)  # nobody knows, until it is acknowledged
        vectors = np.stack([vector_of(i) for i in ids])
        collection.upsert(ids, vectors, [{"number": self._number}] * len(ids))
        self._last.update(dict.fromkeys(ids, self._number))

    def _get(self, collection: Collection, point_id: int) -> None:
        if point_id not in self._last:
            return
        record: Any = collection.get(point_id, consistency="quorum")
        if record is None or record.metadata != {"number": self._last[point_id]}:
            self.wrong.append(f"point {point_id} of the acknowledged write {self._last[point_id]} is {record}")

    def _search(self, collection: Collection, consistency: Any) -> None:
        """For a point that every replica has had from the start."""
        wanted = self._number * 7919 % _BASE
        hits = collection.search(vector_of(wanted), k=1, consistency=consistency)
        if [hit.id for hit in hits] != [wanted]:
            self.wrong.append(f"a search at {consistency} for point {wanted} found {[hit.id for hit in hits]}")


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row."""
    outcome = Outcome("R28", seed, budget)
    faults: list[Faults] = []
    workers = [Worker((number + 1) * 10_000) for number in range(_WORKERS)]
    try:
        with (
            running_fleet(outcome, _SIZE, lambda fleet: faults.append(_prepared(fleet))) as fleet,
            fleet.client(timeout=_TIMEOUT_S) as client,
        ):
            try:
                _load(fleet, client)
                _phases(outcome, client.collection(_NAME), workers, faults[0], budget)
                outcome.notes.append(f"felt {faults[0].disk.felt} times by the disk, {faults[0].link.felt} by the link")
            finally:
                # While the folder is there: it says which process the link is.
                faults[0].process.stop(_TIMEOUT_S)
    finally:
        for fault in faults:
            fault.process.stop(_TIMEOUT_S)
    for worker in workers:
        outcome.violations += [*worker.wrong, *worker.failed]
    _tell(outcome, workers)
    return outcome


def vector_of(point_id: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The vector of a point, which no other one has."""
    return np.random.default_rng(point_id).standard_normal(_DIMENSION, np.float32)


def _prepared(fleet: Fleet) -> Faults:
    """Put a slow disk under one data node, and a link in front of another one, neither slow yet."""
    folder = fleet.folder
    faults = Faults(
        Knob(folder / "disk.knob"),
        Knob(folder / "link.knob"),
        FleetProcess("link", "omendb_chaos.fleet.slow_link", [], folder / "run"),
    )
    node = fleet.process(_SLOW_DISK)
    node.module, node.environment = slow_disk.__name__, {slow_disk.VARIABLE: str(folder / "disk.knob")}
    listen = f"127.0.0.1:{next(free_ports())}"
    fleet.process(_SLOW_LINK).arguments += ["--advertise", listen]
    faults.process.arguments = [listen, fleet.plan.node(_SLOW_LINK).address("data"), str(folder / "link.knob")]
    faults.process.start()
    faults.process.wait_ready(START_S)
    return faults


def _load(fleet: Fleet, client: Client) -> None:
    """Store what is searched for, and wait until every replica has it."""
    client.create_collection(_NAME, _DIMENSION, replication=3, write_quorum=2, read_quorum=2, timeout=START_S)
    ids = list(range(_BASE))
    client.upsert(ids, np.stack([vector_of(i) for i in ids]), [{"number": 0}] * _BASE, collection=_NAME)

    def everywhere() -> bool:
        return all([one.state for one in found] == [State.LIVE] * 3 for found in held(fleet, _NAME, ids).values())

    wait_until(everywhere, START_S, "every replica to have every point")


def _phases(outcome: Outcome, collection: Collection, workers: list[Worker], faults: Faults, budget: Budget) -> None:
    stop = threading.Event()

    def work(worker: Worker) -> None:
        while not stop.is_set():
            worker.round(collection)

    with ThreadPoolExecutor(len(workers)) as pool:
        working = [pool.submit(work, worker) for worker in workers]
        try:
            for _ in range(_CYCLES[budget]):
                for phase in ("healthy", "disk", "healthy", "link"):
                    _phase(outcome, workers, faults, phase, _PHASE_S[budget])
        finally:
            faults.set("healthy")
            stop.set()
    for done in working:
        done.result()


def _phase(outcome: Outcome, workers: list[Worker], faults: Faults, phase: str, phase_s: float) -> None:
    before = 0 if phase == "healthy" else faults.felt(phase)
    faults.set(phase)
    if phase == "healthy":
        time.sleep(_SETTLE_S)
    for worker in workers:
        worker.phase = phase
    time.sleep(phase_s)
    for worker in workers:
        worker.phase = ""
    if phase != "healthy" and faults.felt(phase) == before:
        outcome.violated(f"nothing went over the slow {phase}: the phase shows nothing")


def _tell(outcome: Outcome, workers: list[Worker]) -> None:
    """The percentiles of every kind of call, and how many times the healthy one each of the gray ones is."""
    worst = {"disk": (0.0, ""), "link": (0.0, "")}
    for kind in KINDS:
        times = {
            phase: np.array([t for worker in workers for t in worker.times_s[phase, kind]]) * 1e3
            for phase in ("healthy", *worst)
        }
        if not all(len(values) for values in times.values()):
            outcome.violated(f"{kind}: no call in some phase: { ({p: len(v) for p, v in times.items()}) }")
            continue
        healthy_ms = float(np.percentile(times["healthy"], 99))
        told = []
        for phase, values in times.items():
            p99_ms = float(np.percentile(values, 99))
            told.append(f"{phase} p50 {np.median(values):.2f} p99 {p99_ms:.2f} ms of {len(values)}")
            if phase in worst:
                told[-1] += f" ({p99_ms / healthy_ms:.2f} times)"
                worst[phase] = max(worst[phase], (p99_ms / healthy_ms, kind))
        outcome.notes.append(f"{kind}: {', '.join(told)}")
    outcome.figure = (
        f"p99 of the worst kind of call while gray, by healthy: slow disk {worst['disk'][0]:.2f} ({worst['disk'][1]}), "
        f"slow link {worst['link'][0]:.2f} ({worst['link'][1]}), goal {GOAL:g}; "
        f"{sum(w.calls for w in workers)} calls, {sum(len(w.failed) for w in workers)} failed, "
        f"{sum(len(w.wrong) for w in workers)} wrong"
    )


__all__ = ["DISK_TIMES", "GOAL", "KINDS", "LINK_MS", "Faults", "Worker", "run", "vector_of"]
