"""A fleet under traffic: what the stories of moves, splits and lost disks have in common."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from omendb.client import Client
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb.fleet.traffic import Traffic, TrafficReport
from omendb_chaos.fleet.replicas import held
from omendb_common.shard_calls import State
from omendb_common.topology import Topology

DIMENSION = 8
BATCH = 20
NAME = "points"
PATIENCE_S = 90.0
AVAILABLE = 0.999


@contextmanager
def fleet_of(folder: Path, datanodes: int) -> Iterator[Fleet]:
    """A running fleet, ended whatever happens."""
    fleet = Fleet.make(folder, FleetSize(1, 1, datanodes), tls=False, usual_ports=False)
    try:
        fleet.up()
        yield fleet
    finally:
        Fleet.open(folder).down(5)


def vectors(first: int, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Row i is (first + i, 0, …): the nearest to (n, 0, …) is n."""
    rows = np.zeros((count, DIMENSION), np.float32)
    rows[:, 0] = np.arange(first, first + count)
    return rows


@contextmanager
def traffic_on(fleet: Fleet, client: Client) -> Iterator[Traffic]:
    """Batches of new points, and searches at majority for points that were acknowledged, one after the other."""
    points = client.collection(NAME)
    written = [0]
    lock = threading.Lock()

    def write(number: int) -> None:
        first = number * BATCH
        points.upsert(list(range(first, first + BATCH)), vectors(first, BATCH))
        with lock:
            written[0] = max(written[0], first + BATCH)

    def search(number: int) -> None:
        with lock:
            if not written[0]:
                return
            wanted = (number * 7919) % written[0]
        (hit,) = points.search(vectors(wanted, 1)[0], k=1, consistency="majority")
        assert hit.id == wanted, f"acknowledged {wanted}, and the nearest is {hit.id}"

    traffic = Traffic(write, search, searchers=1, pause_s=0.01)
    traffic.start()
    try:
        yield traffic
    finally:
        traffic.end()  # its threads would keep a story that failed from ending


def places(topology: Topology, name: str = NAME) -> Counter[str]:
    """How many active replicas each node has of a collection."""
    return Counter(n for shard in topology.collection(name).shards for n in shard.nodes("active"))


def at_rest(status: dict[str, Any], nodes: set[str]) -> bool:
    """Whether nothing moves, and every replica is active and on one of ``nodes``."""
    replicas = [r for c in status["collections"] for s in c["shards"] for r in s["replicas"]]
    return not status["moves"] and all(r["state"] == "active" and r["node_id"] in nodes for r in replicas)


def wait_rest(fleet: Fleet, nodes: set[str], more: Callable[[dict[str, Any]], bool] = lambda _: True) -> None:
    """Wait until the fleet's replicas are where they should be."""
    fleet.wait_status(lambda status: at_rest(status, nodes) and more(status), PATIENCE_S, "every replica in its place")


def check_available(what: str, report: TrafficReport) -> None:
    """Of all calls at least 99.9 % succeeded within the client's deadline, with the retries it makes by itself."""
    calls, again = report.begun + report.searches, report.writes_again + report.searches_again
    print(
        f"\n{what}: {calls} calls ({report.begun} writes), {again} failed in their deadline; the longest write took "
        f"{report.pause_write_s:.2f} s, the longest search {report.pause_search_s:.2f} s"
    )
    assert again <= calls * (1 - AVAILABLE), (again, calls, report.errors)


def check_kept(fleet: Fleet, report: TrafficReport) -> None:
    """No search went wrong, and of every acknowledged point a majority of replicas has the newest version.

    The third has it with the next round, and until then perhaps none, or what an earlier attempt of the write left.
    """
    assert not report.searches_failed and not report.writes_given_up, report.errors
    ids = [batch * BATCH + n for batch in report.acknowledged for n in range(BATCH)]
    assert len(ids) > 10 * BATCH, "there was traffic"
    for point_id, versions in held(fleet, NAME, ids).items():
        live = [v for v in versions if v.state is State.LIVE]
        newest = [v for v in live if v.stamp == max(w.stamp for w in versions)]
        assert len(newest) >= 2 and len({v.digest for v in newest}) == 1, (point_id, versions)


__all__ = [
    "BATCH",
    "DIMENSION",
    "NAME",
    "PATIENCE_S",
    "at_rest",
    "check_available",
    "check_kept",
    "fleet_of",
    "places",
    "traffic_on",
    "vectors",
    "wait_rest",
]
