"""R13: what clients of a cluster saw at W=R=2, and whether one order of all calls per id explains it.

First of the simulated cluster under all its faults, then of a real one, whose processes are killed and stopped. A write
whose outcome is unknown may take effect at any later time, or never; one that was refused certainly did not.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from omendb.client import Client
from omendb.collection import Collection
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb_chaos.checkers.linearizability import Operation, Recorder, Register, check
from omendb_chaos.fleet.possible import DIMENSION, vector_of
from omendb_chaos.fleet.running import START_S, running_fleet
from omendb_chaos.rows.outcome import Budget, Outcome, dice
from omendb_chaos.rows.simulated import simulate
from omendb_common.errors import AlreadyExistsError, OmenDBError

CLIENTS = 5
IDS = 6
OPERATIONS = 200
SHARDS = 2
_HISTORIES = {"small": 2, "full": 50}
_SIMULATED = {"small": 6, "full": 2000}
_SIZE = {"small": FleetSize(1, 2, 3), "full": FleetSize(3, 2, 3)}
_TIMEOUT_S = 1.5
_NAME = "registers"
_FAULTS = ("kill", "stop", "kill two", "none")
_STOPPED_S = 2.0
_WORDS = {"answered": "answered", "unknown": "of unknown outcome", "none": "without effect"}


class History:
    """One history: clients that call, a fault that strikes, and everything that was answered. Thread-safe."""

    def __init__(self, first_id: int, rng: random.Random) -> None:
        self._ids = [first_id + i for i in range(IDS)]
        self._rng = rng
        self._lock = threading.Lock()
        self._recorder = Recorder(time.monotonic)
        self._left = OPERATIONS
        self._value = 0
        self.half_done = threading.Event()
        self.answers: Counter[str] = Counter()

    def operations(self) -> list[Operation]:
        """What was recorded."""
        return self._recorder.history()

    def run(self, client_name: str, collection: Collection, rng: random.Random) -> None:
        """One client, until all calls are made."""
        while True:
            with self._lock:
                if not self._left:
                    return
                self._left -= 1
                if self._left * 2 <= OPERATIONS:
                    self.half_done.set()
            self.call(client_name, collection, rng)

    def call(self, client_name: str, collection: Collection, rng: random.Random, *, reads_only: bool = False) -> None:
        """One call, and what became of it."""
        key = rng.choice(self._ids)
        kind = "read" if reads_only else rng.choice(["read", "read", "write", "write", "delete", "create"])
        with self._lock:
            self._value += 1
            what: tuple[Any, ...] = ("write", self._value if kind == "write" else None)
            if kind in ("read", "create"):
                what = ("read",) if kind == "read" else ("swap", None, self._value)
            number = self._recorder.begin(client_name, key, what)
        told, result = _made(collection, key, what)
        with self._lock:
            self.answers[told] += 1
            match told:
                case "answered":
                    self._recorder.end(number, result)
                case "unknown":
                    self._recorder.leave_open(number)
                case _:
                    self._recorder.forget(number)


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row."""
    outcome = Outcome("R13", seed, budget)
    sums = simulate(outcome, "R13", _SIMULATED[budget])
    answers: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    calls = steps = 0
    with running_fleet(outcome, _SIZE[budget]) as fleet, fleet.client(timeout=START_S) as admin:
        admin.create_collection(_NAME, DIMENSION, replication=3, write_quorum=2, read_quorum=2, shards=SHARDS)
        admin.count(collection=_NAME, consistency="majority")
        for number in range(_HISTORIES[budget]):
            rng = dice("R13", seed, number)
            history = History(1 + number * IDS, rng)
            fault = rng.choice(_FAULTS)
            faults[fault] += 1
            _record(fleet, history, fault, rng)
            answers += history.answers
            operations = history.operations()
            verdict = check(operations, Register())
            calls, steps = calls + len(operations), steps + verdict.steps
            if verdict.undecided:
                outcome.violated(f"history {number} ({fault}): not decided: {verdict.why}")
            elif not verdict.ok:
                outcome.violated(f"history {number} ({fault}) has no order:\n{verdict.why}")
    outcome.notes.append(f"faults: {', '.join(f'{what} ({n})' for what, n in sorted(faults.items()))}")
    told = ", ".join(f"{answers[name]} {words}" for name, words in _WORDS.items())
    outcome.notes.append(f"calls {told}; {steps} steps of the checker")
    outcome.figure = (
        f"{sums.runs} simulated histories of 200 calls ({sums.calls} recorded, {sums.undecided} undecided) and "
        f"{_HISTORIES[budget]} real ones of {OPERATIONS} ({calls} recorded) at W=R=2: "
        f"{len(outcome.violations)} without an order"
    )
    return outcome


def _record(fleet: Fleet, history: History, fault: str, rng: random.Random) -> None:
    """Run the clients, strike when half of the calls are made, and bring everything back."""
    urls = fleet.urls()
    clients = [Client(urls[n % len(urls)], timeout=_TIMEOUT_S) for n in range(CLIENTS)]
    seeds = [rng.getrandbits(64) for _ in clients]

    def work(number: int) -> None:
        collection = clients[number].collection(_NAME, timeout=START_S)
        history.run(f"client {number}", collection, random.Random(seeds[number]))

    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            working = [pool.submit(work, number) for number in range(CLIENTS)]
            history.half_done.wait(START_S)
            struck = _strike(fleet, fault, rng)
        for done in working:
            done.result()
    finally:
        for client in clients:
            client.close()
    for name in struck:
        fleet.start(name, START_S)
        fleet.wait_member(name, START_S)


def _strike(fleet: Fleet, fault: str, rng: random.Random) -> list[str]:
    """Do what the history is to survive; the processes that must be started again."""
    datanodes = [node.name for node in fleet.plan.of("datanode")]
    candidates = [*datanodes, *(node.name for node in fleet.plan.of("router"))]
    if fault == "none":
        return []
    if fault == "stop":
        victim = rng.choice(candidates)
        fleet.pause(victim)
        time.sleep(_STOPPED_S)
        fleet.resume(victim)
        return []
    victims = rng.sample(datanodes, 2) if fault == "kill two" else [rng.choice(candidates)]
    for victim in victims:
        fleet.kill(victim)
    if fault == "kill two":
        for victim in victims:  # without a majority little would be left to record
            fleet.process(victim).start()
    return victims


def _made(collection: Collection, key: int, call: tuple[Any, ...]) -> tuple[str, Any]:
    """Make a call; ``answered`` with its result, ``unknown``, or ``none`` when it certainly had no effect."""
    try:
        match call:
            case ("read",):
                record = collection.get(key, include=["metadata"], consistency="majority")
                return "answered", None if record is None else (record.metadata or {}).get("value")
            case ("write", None):
                collection.delete([key])
            case ("write", value):
                collection.upsert([key], vector_of(key, value)[None, :], [{"value": value}])
            case ("swap", None, value):
                collection.add_batch(vector_of(key, value)[None, :], [{"value": value}], [key], create_only=True)
                return "answered", True
    except AlreadyExistsError:
        return "answered", False
    except OmenDBError as error:
        if call == ("read",):
            return "none", None
        return ("unknown" if getattr(error, "outcome", "none") == "unknown" else "none"), None
    return "answered", None


__all__ = ["CLIENTS", "IDS", "OPERATIONS", "SHARDS", "History", "run"]
