"""Clients race to create the same points through two routers, one of which is killed meanwhile: nobody wins twice."""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import omendb
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb_common.errors import AlreadyExistsError, OmenDBError

NAME, POINTS, CLIENTS = "locks", 120, 4


class Race:
    """Who was told that it created which point. Thread-safe."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.half_done = threading.Event()
        self.lock = threading.Lock()
        self.won: dict[int, list[int]] = defaultdict(list)
        self.told: dict[str, int] = defaultdict(int)

    def run(self, number: int) -> None:
        """One client: every point in turn, through its router first, and the other one where that is gone."""
        urls = self.fleet.urls()
        with omendb.Client([urls[number % 2], urls[1 - number % 2]], timeout=10) as client:
            locks = client.collection(NAME)
            for point_id in range(POINTS):
                told = self.create(locks, point_id, number)
                with self.lock:
                    self.told[told] += 1
                    if told == "done":
                        self.won[point_id].append(number)
                if point_id == POINTS // 2:
                    self.half_done.set()

    def create(self, locks: omendb.Collection, point_id: int, number: int) -> str:
        """How the creation of a point ended."""
        try:
            locks.add_batch(np.full((1, 2), number, np.float32), None, [point_id], create_only=True)
        except AlreadyExistsError:
            return "refused"
        except OmenDBError as error:
            return str(getattr(error, "outcome", "none"))
        return "done"


def test_creations_while_a_router_dies(tmp_path: Path) -> None:
    fleet = Fleet.make(tmp_path / "fleet", FleetSize(1, 2, 3), tls=False, usual_ports=False)
    try:
        fleet.up()
        with omendb.Client(fleet.urls(), timeout=20) as client:
            client.create_collection(NAME, 2, replication=3, shards=2)
            race = Race(fleet)
            with ThreadPoolExecutor(CLIENTS) as pool:
                running = [pool.submit(race.run, number) for number in range(CLIENTS)]
                assert race.half_done.wait(60)
                fleet.kill("r1")
                for done in running:
                    done.result()
            locks = client.collection(NAME)
            found = locks.get(list(range(POINTS)), include=["vector"])
            assert all(len(winners) == 1 for winners in race.won.values())
            assert len(race.won) + race.told["unknown"] >= POINTS and len(race.won) > POINTS // 2
            for point_id, winners in race.won.items():
                record = found[point_id]
                assert record is not None and record.vector is not None, point_id
                assert int(record.vector[0]) == winners[0], (point_id, winners)
            # Where the router died in the middle the point is there or not, and either way it can be used.
            for point_id in range(POINTS):
                locks.delete([point_id])
                assert race.create(locks, point_id, 9) == "done"
    finally:
        Fleet.open(tmp_path / "fleet").down(5)
