"""R1: ``kill -9``. Real processes on a real disk, killed at any time and at named failpoints, compared with their logs.

Four threads of a child write; each owns its ids, and what its k-th operation does follows from the seed, so a log of
"begun" and "acknowledged" says everything. The child logs with one ``write`` each, which a SIGKILL does not take back.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from omendb_chaos.failpoints import FAILPOINTS, VARIABLE, DyingDisk
from omendb_chaos.oracle import Collection, Point, Violation, difference, observe_collection
from omendb_chaos.rows.outcome import Budget, Outcome, dice
from omendb_common.config import EngineSettings, settings_from
from omendb_common.disk import RealDisk
from omendb_common.errors import NotFoundError, OmenDBError
from omendb_common.ids import IdColumn, PointId
from omendb_common.payload import columns_from_rows
from omendb_common.schema import CollectionSchema, VectorField
from omendb_engine.folder import Folder
from omendb_engine.replica import Replica

WRITERS = 4
_IDS = 150
_DIMENSION = 8
_KILLS = {"small": 12, "full": 500}
_RUNS_PER_DATABASE = 25
_LONGEST_S = 0.9
_PATIENCE_S = 3.0
_NAME = "points"
_SETTINGS: Mapping[str, Any] = {
    "storage.wal_segment_bytes": 64 << 10,
    "buffer.buffer_rows_max": 800,
    "index.flat_rows_max": 100,
    "index.hnsw_m": 4,
    "index.hnsw_ef_construction": 16,
    "index.index_delay_s": 0.05,
    "index.build_threads": 1,
    "compaction.interval_s": 0.05,
    "compaction.merge_fanin": 3,
    "memory.memory_limit_bytes": 256 << 20,
}


def settings(threads: int) -> EngineSettings:
    """Small buffers and eager workers, so that seals, merges and indexes happen all the time."""
    return settings_from({**_SETTINGS, "workers.background_threads": threads})


@dataclass(frozen=True, slots=True)
class Operation:
    """What a thread does at one time; for updates ``vectors`` and ``payloads`` may be empty."""

    kind: str
    ids: list[PointId]
    vectors: Any
    payloads: list[dict[str, Any]]

    def effect(self, before: Collection) -> Collection:
        """The thread's points afterwards."""
        if self.kind == "delete":
            gone = set(self.ids)
            return {i: p for i, p in before.items() if i not in gone}
        if self.kind == "upsert":
            new = {i: Point.of({"": v}, p) for i, v, p in zip(self.ids, self.vectors, self.payloads, strict=True)}
            return {**before, **new}
        if any(i not in before for i in self.ids):
            return before  # refused as a whole
        changed = {i: before[i].updated({}, p, ()) for i, p in zip(self.ids, self.payloads, strict=True)}
        return {**before, **changed}

    def run(self, replica: Replica) -> None:
        """Do it."""
        ids = IdColumn.of(self.ids)
        if self.kind == "delete":
            replica.delete(ids)
        elif self.kind == "upsert":
            replica.upsert(ids, {"": self.vectors}, columns_from_rows(self.payloads), len(self.ids))
        else:
            try:
                replica.update(ids, None, columns_from_rows(self.payloads))
            except NotFoundError:
                return


def operation(seed: int, run: int, thread: int, number: int) -> Operation:
    """The ``number``-th operation of a thread in a run: a function of its arguments."""
    rng = np.random.default_rng([seed, run, thread, number])
    kind = ("upsert", "upsert", "upsert", "update", "delete")[int(rng.integers(5))]
    count = int(rng.integers(1, 5 if kind == "update" else 30))
    ids = cast("list[PointId]", (thread * 1000 + rng.choice(_IDS, count, replace=False)).tolist())
    vectors = (rng.integers(1, 64, (count, _DIMENSION)) / 8).astype(np.float32)
    values = rng.integers(0, 1000, count).tolist()
    if kind == "update":
        return Operation(kind, ids, None, [{"n": v, "by": f"{run}.{number}"} for v in values])
    return Operation(kind, ids, vectors, [{"n": v, "run": run, "thread": thread} for v in values])


# -- the child


def _write_for_ever(command: Mapping[str, Any]) -> None:
    disk = DyingDisk.from_environment(RealDisk())
    log = os.open(command["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    folder = Folder.open(command["path"], settings=settings(2), disk=disk)
    if _NAME not in folder.names():
        schema = folder.new_schema(CollectionSchema("", (VectorField(_DIMENSION),)))
        folder.create(_NAME, schema)
    replica = folder.replica(_NAME)
    errors: list[BaseException] = []

    def write(thread: int) -> None:
        number = 0
        try:
            while True:
                what = operation(command["seed"], command["run"], thread, number)
                os.write(log, f"B {thread} {number}\n".encode())
                what.run(replica)
                os.write(log, f"A {thread} {number}\n".encode())
                number += 1
        except OmenDBError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(t,), daemon=True) for t in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    raise errors[0]


def _zygote() -> None:
    """Fork a child for every line of input: it has all modules loaded, so that a run costs no start of Python."""
    # Arrow imports pandas, where there is one, when it first sees a list; that would take all the time of a run.
    for module in ("pandas", "pyarrow.parquet"):
        with suppress(ImportError):
            importlib.import_module(module)
    columns_from_rows([{"n": 1, "by": "text"}])
    for line in sys.stdin:
        command = json.loads(line)
        pid = os.fork()
        if pid == 0:
            if command["failpoint"]:
                os.environ[VARIABLE] = command["failpoint"]
            try:
                _write_for_ever(command)
            finally:
                sys.stderr.flush()
                os._exit(3)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


# -- the parent


@dataclass(slots=True)
class _Tally:
    uniform: int = 0
    at_failpoints: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    opening_s: list[float] = field(default_factory=list)


class _Zygote:
    """The process that forks writers."""

    def __init__(self, errors: str) -> None:
        self._errors = open(errors, "w+", encoding="utf-8")  # noqa: SIM115
        # A module of its own, so that nothing is imported twice under two names.
        command = [sys.executable, "-c", "from omendb_chaos.rows import kills; kills._zygote()"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def run(self, command: Mapping[str, Any], wait_s: float) -> tuple[bool, int]:
        """Start a writer and kill it after so long, if it did not kill itself; (killed by us, exit code)."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        status = threading.Event()
        answer: list[int] = []

        def read() -> None:
            assert self._process.stdout is not None
            answer.append(int(self._process.stdout.readline()))
            status.set()

        reader = threading.Thread(target=read)
        reader.start()
        killed = not status.wait(wait_s)
        if killed:
            # The zygote waits for it, so the number cannot belong to anybody else.
            os.kill(pid, signal.SIGKILL)
        reader.join()
        return killed, answer[0]

    def close(self) -> str:
        """End it; returns what the writers complained of."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._errors.seek(0)
        text = self._errors.read()
        self._errors.close()
        return text


def run(seed: int, budget: Budget) -> Outcome:
    """Kill writers, and look at what they left."""
    outcome = Outcome("R1", seed, budget)
    tally = _Tally()
    folder = tempfile.mkdtemp(prefix="omendb-kills-")
    zygote = _Zygote(f"{folder}/errors")
    try:
        for first in range(0, _KILLS[budget], _RUNS_PER_DATABASE):
            runs = range(first, min(first + _RUNS_PER_DATABASE, _KILLS[budget]))
            _one_database(outcome, zygote, tally, f"{folder}/db{first}", runs)
            shutil.rmtree(f"{folder}/db{first}", ignore_errors=True)
    finally:
        complaints = zygote.close()
        shutil.rmtree(folder, ignore_errors=True)
    if "Error" in complaints:
        outcome.violated(f"a writer ended by itself: {complaints[-2000:]}")
    slow = sorted(tally.opening_s)[min(len(tally.opening_s) - 1, int(len(tally.opening_s) * 0.99))]
    kills = tally.uniform + tally.at_failpoints.total()
    outcome.figure = (
        f"{kills} kill -9 ({tally.uniform} at any time, {tally.at_failpoints.total()} at {len(tally.at_failpoints)} of "
        f"{len(FAILPOINTS)} failpoints), {tally.acknowledged} acknowledged operations, {len(outcome.violations)} runs "
        f"lost or invented something, recovery p99 {slow:.3f} s"
    )
    return outcome


def _one_database(outcome: Outcome, zygote: _Zygote, tally: _Tally, path: str, runs: range) -> None:
    """Kill the writers of one database again and again; what every thread may have is carried along."""
    may_have: list[list[Collection]] = [[{}] for _ in range(WRITERS)]
    for number in runs:
        rng = dice("R1", outcome.seed, number)
        failpoint = ""
        if number % 2:
            name = FAILPOINTS[number // 2 % len(FAILPOINTS)]
            failpoint = f"{name}:{rng.randint(1, 40 if '.wal.' in name and name.startswith(('pw', 'da')) else 6)}"
        log = f"{path}.log"
        command = {"path": path, "log": log, "seed": outcome.seed, "run": number, "failpoint": failpoint}
        killed, code = zygote.run(command, _PATIENCE_S if failpoint else rng.uniform(0.01, _LONGEST_S))
        where = f"run {number}{' at ' + failpoint if failpoint else ''}"
        if code != -signal.SIGKILL:
            outcome.violated(f"{where}: the writer ended with {code}")
        if failpoint and not killed:
            tally.at_failpoints[failpoint.partition(":")[0]] += 1
        else:
            tally.uniform += 1
        acknowledged = _advance(outcome.seed, number, log, may_have)
        tally.acknowledged += acknowledged
        try:
            _verify(path, may_have, rng, tally)
        except (Violation, OmenDBError) as problem:
            outcome.violated(f"{where}, after {acknowledged} acknowledgements: {type(problem).__name__}: {problem}")
            return


def _advance(seed: int, run_number: int, log: str, may_have: list[list[Collection]]) -> int:
    """Add to what every thread may have what its log says; returns how many operations were acknowledged."""
    begun, done = [0] * WRITERS, [0] * WRITERS
    if os.path.exists(log):
        with open(log, encoding="ascii") as file:
            for line in file:
                kind, who, count = line.split()
                (begun if kind == "B" else done)[int(who)] = int(count) + 1
        os.unlink(log)
    for thread in range(WRITERS):
        states: list[Collection] = []
        for state in may_have[thread]:
            for number in range(done[thread]):
                state = operation(seed, run_number, thread, number).effect(state)
            states.append(state)
            if begun[thread] > done[thread]:
                states.append(operation(seed, run_number, thread, done[thread]).effect(state))
        may_have[thread] = states
    return sum(done)


def _verify(path: str, may_have: list[list[Collection]], rng: random.Random, tally: _Tally) -> None:
    """Read with a reader's eyes, which changes nothing, or recover as a writer does; sometimes both."""
    if not os.path.exists(f"{path}/catalog.json"):
        return
    if rng.random() < 0.5:
        # Published is what was acknowledged; what was in flight is seen by recovery only.
        with_reader = Folder.open(path, mode="r", settings=settings(0))
        _compare(with_reader, may_have, settle=False)
        with_reader.close()
        if rng.random() < 0.5 and max(map(len, may_have)) <= 4:
            return
    started = time.perf_counter()
    folder = Folder.open(path, settings=settings(0))
    tally.opening_s.append(time.perf_counter() - started)
    _compare(folder, may_have, settle=True)
    folder.close()


def _compare(folder: Folder, may_have: list[list[Collection]], *, settle: bool) -> None:
    if _NAME not in folder.names():
        seen: Collection = {}
    else:
        known = [t * 1000 + i for t in range(WRITERS) for i in range(_IDS)]
        seen = observe_collection(folder.replica(_NAME), known)
    for thread in range(WRITERS):
        mine = {i: p for i, p in seen.items() if int(i) // 1000 == thread}
        if mine not in may_have[thread]:
            said = "; or ".join(difference({"points": s}, {"points": mine}) for s in may_have[thread])
            raise Violation(f"thread {thread}: {said}")
        if settle:
            may_have[thread] = [mine]
    if any(int(i) // 1000 >= WRITERS for i in seen):
        raise Violation("points that nobody wrote")


__all__ = ["WRITERS", "Operation", "operation", "run", "settings"]
