"""R2: processes of a real cluster killed while it is written to at W=2 of 3; nothing acknowledged may be lost.

Four writers share the ids among them and know, of every point, what it may be. Any one, two or all three of the data
nodes are killed at any moment, or the routers. When all run again, every settled point must lie in its newest version
on two replicas at least, and every point read at the majority must be one that it may be.
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from omendb.client import Client
from omendb.collection import Collection
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb_chaos.fleet.possible import DIMENSION, Possible, Told, Write, payload_of, seen, shown, vector_of
from omendb_chaos.fleet.replicas import held
from omendb_chaos.fleet.running import START_S, running_fleet
from omendb_chaos.rows.outcome import Budget, Outcome, dice
from omendb_common.errors import NotFoundError, OmenDBError

WRITERS = 4
SHARDS = 3
_IDS = 60
_BATCH_MAX = 8
_KILLS = {"small": 4, "full": 150}
_SIZE = {"small": FleetSize(1, 2, 3), "full": FleetSize(3, 2, 3)}
_TOLD_EVERY = 10
_TIMEOUT_S = 3.0
_LONGEST_S = 1.2
_NAME = "points"


@dataclass
class Writer:
    """One writer: the only one of its ids."""

    first: int
    rng: random.Random
    points: dict[int, Possible] = field(init=False)
    told: Counter[Told] = field(default_factory=Counter)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.points = {self.first + i: Possible() for i in range(_IDS)}

    def write(self, collection: Collection) -> None:
        """One write of some of its points, and what it was told."""
        ids = self.rng.sample(sorted(self.points), self.rng.randint(1, _BATCH_MAX))
        kind = self.rng.choice(["upsert", "upsert", "update", "delete"])
        write = Write(kind, next(self._numbers))  # type: ignore[arg-type]  # one of its three
        told = _told(collection, write, ids)
        self.told[told] += 1
        for point_id in ids:
            self.points[point_id].note(write, told)


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row."""
    outcome = Outcome("R2", seed, budget)
    rng = dice("R2", seed)
    writers = [Writer(1 + number * 1000, dice("R2", seed, number)) for number in range(WRITERS)]
    victims: Counter[str] = Counter()
    slowest_s = 0.0
    with running_fleet(outcome, _SIZE[budget]) as fleet, fleet.client(timeout=_TIMEOUT_S) as client:
        client.create_collection(
            _NAME, DIMENSION, replication=3, write_quorum=2, read_quorum=2, shards=SHARDS, timeout=START_S
        )
        for kill in range(_KILLS[budget]):
            names = _choose(fleet, rng)
            victims["+".join(sorted({fleet.plan.node(n).kind for n in names})) + f" x{len(names)}"] += 1
            _write_and_kill(fleet, client, writers, names, rng)
            back = time.monotonic()
            for name in names:
                fleet.process(name).start()
            for name in names:
                fleet.start(name, START_S)
                fleet.wait_member(name, START_S)
            _wait_readable(client)
            slowest_s = max(slowest_s, time.monotonic() - back)
            _verify(outcome, fleet, client.collection(_NAME), writers, f"kill {kill} of {'+'.join(names)}")
            if not outcome.passed:
                break
            if not (kill + 1) % _TOLD_EVERY:
                sys.stderr.write(f"R2: {kill + 1} of {_KILLS[budget]} kills\n")
    told = sum((writer.told for writer in writers), Counter[Told]())
    outcome.notes.append(f"killed: {', '.join(f'{what} ({n})' for what, n in sorted(victims.items()))}")
    outcome.notes.append(f"back, up and readable after {slowest_s:.1f} s at most")
    outcome.figure = (
        f"{victims.total()} kills at W=2 of 3, {told['acknowledged']} writes acknowledged, "
        f"{told['unknown']} of unknown outcome, {told['none']} refused: {len(outcome.violations)} violations"
    )
    return outcome


def _choose(fleet: Fleet, rng: random.Random) -> list[str]:
    """Who dies: one to three data nodes, a router, or both at once."""
    datanodes = [node.name for node in fleet.plan.of("datanode")]
    routers = [node.name for node in fleet.plan.of("router")]
    match rng.choice(["data", "data", "data", "router", "both"]):
        case "data":
            return rng.sample(datanodes, rng.randint(1, 3))
        case "router":
            return rng.sample(routers, rng.randint(1, len(routers)))
    return [rng.choice(datanodes), rng.choice(routers)]


def _write_and_kill(fleet: Fleet, client: Client, writers: list[Writer], names: list[str], rng: random.Random) -> None:
    """Let all writers write, kill, let them feel it for a moment, and stop them."""
    stop = threading.Event()

    def work(writer: Writer) -> None:
        collection = client.collection(_NAME)
        while not stop.is_set():
            writer.write(collection)

    with ThreadPoolExecutor(len(writers)) as pool:
        working = [pool.submit(work, writer) for writer in writers]
        try:
            time.sleep(rng.uniform(0.1, _LONGEST_S))  # the kill falls anywhere
            for name in names:
                fleet.kill(name)
            time.sleep(rng.uniform(0.0, _LONGEST_S))
        finally:
            stop.set()
    for done in working:
        done.result()


def _told(collection: Collection, write: Write, ids: list[int]) -> Told:
    """Send a write; what its writer learns of it."""
    try:
        match write.kind:
            case "upsert":
                vectors = np.stack([vector_of(i, write.number) for i in ids])
                collection.upsert(ids, vectors, [{"value": write.number}] * len(ids))
            case "update":
                collection.update(ids, metadata=[{"extra": write.number}] * len(ids))
            case "delete":
                collection.delete(ids)
    except NotFoundError:
        return "none"
    except OmenDBError as error:
        return "unknown" if getattr(error, "outcome", "none") == "unknown" else "none"
    return "acknowledged"


def _wait_readable(client: Client) -> None:
    """Wait until a majority answers."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            client.count(collection=_NAME, consistency="majority")
            return
        except OmenDBError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _verify(outcome: Outcome, fleet: Fleet, collection: Collection, writers: list[Writer], when: str) -> None:
    possible = {point_id: p for writer in writers for point_id, p in writer.points.items()}
    # First the replicas themselves: a read at the majority would mend them.
    for point_id, versions in held(fleet, _NAME, sorted(possible)).items():
        newest = max(one.stamp for one in versions)
        copies = [one for one in versions if one.stamp == newest]
        if newest and possible[point_id].settled and len(copies) < 2:
            outcome.violated(f"after {when}: point {point_id} has its newest version on {copies} only, of {versions}")
        if possible[point_id].whole and len({(one.state, one.digest) for one in copies}) > 1:
            outcome.violated(f"after {when}: point {point_id} differs under one stamp: {copies}")
    records = collection.get(sorted(possible), include=["metadata", "vector"], consistency="majority", timeout=START_S)
    for point_id, record in zip(sorted(possible), records, strict=True):
        point: Any = None
        if record is not None:
            assert record.metadata is not None and record.vector is not None, "both were asked for"
            point = seen(point_id, record.metadata, record.vector)
        expected = possible[point_id].states
        if not possible[point_id].show(point):
            what = "absent" if point is None else point
            outcome.violated(f"after {when}: point {point_id} is {what}, not {shown(expected)}")
    stored = collection.iterate(include=[], consistency="majority", page_rows=1000, timeout=START_S)
    strangers = {record.id for record in stored} - set(possible)
    if strangers:
        outcome.violated(f"after {when}: points that nobody wrote: {sorted(strangers)[:5]}")


__all__ = ["SHARDS", "WRITERS", "Writer", "payload_of", "run"]
