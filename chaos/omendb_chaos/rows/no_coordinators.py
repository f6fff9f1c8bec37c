"""R-coordinators: every coordinator killed; reads and writes of what exists go on, and changes resume when they return.

While none of them runs, clients write, read and search without a break. Nothing may fail beyond one retry, nothing
acknowledged may be lost, and a change of the catalog is refused with a typed error. Afterwards it works again.
"""

from __future__ import annotations

import time
from contextlib import suppress

import numpy as np

from omendb.client import Client
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb.fleet.process import wait_until
from omendb.fleet.traffic import Traffic, TrafficReport
from omendb_chaos.fleet.possible import DIMENSION, vector_of
from omendb_chaos.fleet.running import START_S, running_fleet
from omendb_chaos.rows.outcome import Budget, Outcome
from omendb_common.errors import DeadlineExceededError, OmenDBError, UnavailableError

_AWAY_S = {"small": 15.0, "full": 600.0}
_SIZE = FleetSize(3, 2, 3)
_TIMEOUT_S = 5.0
_ROWS = 5
_PAUSE_S = 0.02
# A data node loads its native library with its first search; that is not what is looked at here.
_WARM = 60
_NAME = "points"


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row."""
    outcome = Outcome("R-coordinators", seed, budget)
    with running_fleet(outcome, _SIZE) as fleet, fleet.client(timeout=_TIMEOUT_S) as client:
        client.create_collection(_NAME, DIMENSION, replication=3, write_quorum=2, read_quorum=2, timeout=START_S)
        traffic = Traffic(lambda n: _write(client, n), lambda n: _read(client, n), pause_s=_PAUSE_S)
        _write(client, 0)
        for number in range(_WARM):
            _read(client, number)
        coordinators = [node.name for node in fleet.plan.of("coordinator")]
        for name in coordinators:
            fleet.kill(name)
        killed = time.monotonic()
        traffic.start()
        try:
            refused = _change_is_refused(outcome, client)
            left_s = _AWAY_S[budget] - (time.monotonic() - killed)
            with suppress(UnavailableError):  # it ends early only when a process of the data path does
                wait_until(lambda: not _all_run(fleet), left_s, "nothing")
                outcome.violated("a router or a data node ended while the coordinators were away")
        finally:
            report = traffic.stop()
        away_s = time.monotonic() - killed
        resumed_s = _resumed(fleet, client, coordinators)
        _verify(outcome, client, report)
    outcome.notes.append(f"a change was refused with {refused}; changes worked {resumed_s:.1f} s after the start")
    outcome.notes.append(f"longest pause: write {report.pause_write_s:.2f} s, read {report.pause_search_s:.2f} s")
    outcome.notes += report.errors
    outcome.figure = (
        f"{away_s:.0f} s without coordinators: {len(report.acknowledged)} writes and {report.searches} reads, "
        f"{report.writes_again} and {report.searches_again} made again, {report.searches_failed} failed: "
        f"{len(outcome.violations)} violations"
    )
    return outcome


def _write(client: Client, number: int) -> None:
    ids = [number * _ROWS + i for i in range(_ROWS)]
    vectors = np.stack([vector_of(i, number) for i in ids])
    client.upsert(ids, vectors, [{"value": number}] * _ROWS, collection=_NAME)


def _read(client: Client, number: int) -> None:
    """By turns a search, a read by id and a count."""
    match number % 3:
        case 0:
            assert client.search(vector_of(0, 0), k=_ROWS, collection=_NAME), "the first batch is there"
        case 1:
            record = client.get(0, collection=_NAME, consistency="majority")
            assert record is not None and record.metadata == {"value": 0}
        case _:
            assert client.count(collection=_NAME) >= _ROWS


def _change_is_refused(outcome: Outcome, client: Client) -> str:
    """Try to make a collection; how that was refused."""
    try:
        client.create_collection("new", DIMENSION, timeout=_TIMEOUT_S)
    except (UnavailableError, DeadlineExceededError) as error:
        return type(error).__name__
    except OmenDBError as error:
        outcome.violated(f"a change without coordinators was refused with {type(error).__name__}: {error}")
        return type(error).__name__
    outcome.violated("a collection was made without coordinators")
    return "nothing"


def _all_run(fleet: Fleet) -> bool:
    return all(fleet.process(node.name).pid for node in fleet.plan.nodes if node.kind != "coordinator")


def _resumed(fleet: Fleet, client: Client, coordinators: list[str]) -> float:
    """Start the coordinators again; seconds until a change is made."""
    started = time.monotonic()
    for name in coordinators:
        fleet.process(name).start()

    def changed() -> bool:
        try:
            client.create_collection("later", DIMENSION, timeout=_TIMEOUT_S, if_not_exists=True)
        except OmenDBError:
            return False
        return True

    wait_until(changed, START_S, "a change of the catalog")
    return time.monotonic() - started


def _verify(outcome: Outcome, client: Client, report: TrafficReport) -> None:
    if report.searches_failed:
        outcome.violated(f"{report.searches_failed} reads failed beyond one retry")
    if report.writes_again > len(report.acknowledged) // 10:
        outcome.violated(f"{report.writes_again} writes had to be made again")
    if report.writes_given_up:
        outcome.violated("a write did not succeed, however often it was made again")
    if not report.acknowledged or not report.searches:
        outcome.violated("nothing was written or read meanwhile")
    ids = [number * _ROWS + i for number in report.acknowledged for i in range(_ROWS)]
    for start in range(0, len(ids), 1000):
        part = ids[start : start + 1000]
        records = client.get(part, collection=_NAME, consistency="majority", include=["metadata", "vector"])
        for point_id, record in zip(part, records, strict=True):
            number = point_id // _ROWS
            if record is None or record.metadata != {"value": number}:
                outcome.violated(f"point {point_id} of the acknowledged write {number} is {record}")
            elif not np.array_equal(record.vector, vector_of(point_id, number)):  # type: ignore[arg-type]
                outcome.violated(f"point {point_id} of the acknowledged write {number} has another vector")


__all__ = ["run"]
