"""R25: bits flipped in one replica's files at rest are found by one reading, and made good from the peers.

A data node of a real cluster is killed, bits of its segments are flipped, and it comes back. Its scrubber, or whoever
meets the damage first, takes the replica out of service, the coordinators have another one made in its place, and all
replicas must be equal again. Meanwhile points are read, from one replica and from a majority: an error may come back,
wrong bytes never.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import numpy as np

from omendb.client import Client
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb_chaos.fleet.possible import DIMENSION, vector_of
from omendb_chaos.fleet.replicas import held, topology_of
from omendb_chaos.fleet.running import START_S, running_fleet
from omendb_chaos.rows.convergence import environment, unequal_shards
from omendb_chaos.rows.outcome import Budget, Outcome, dice
from omendb_common.errors import OmenDBError

BOUND_S = 90.0
_POINTS = 600
_SHARDS = 2
_FLIPS = {"small": (1, 20), "full": (25, 40)}
"""Times that a node is damaged, and bits flipped each time."""
_SETTINGS = {
    "OMENDB_REPAIR_SETTLE_S": "0",
    "OMENDB_REPAIR_INTERVAL_S": "5",
    "OMENDB_REPAIR_RETRY_S": "0.5",
    "OMENDB_REPAIR_SCRUB_S": "2",
}
_DATA = ("keys.arrow", "vectors.arrow", "metadata.parquet")
_NAME = "points"


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row."""
    outcome = Outcome("R25", seed, budget)
    rng = dice("R25", seed)
    times, flips = _FLIPS[budget]
    flipped = read = refused = 0
    took: list[float] = []
    with (
        environment(_SETTINGS),
        running_fleet(outcome, FleetSize(1, 1, 3)) as fleet,
        fleet.client(timeout=5.0) as client,
    ):
        made = client.create_collection(
            _NAME, DIMENSION, replication=3, write_quorum=2, shards=_SHARDS, timeout=START_S
        )
        ids = list(range(_POINTS))
        made.upsert(ids, np.stack([vector_of(i, i) for i in ids]), [{"value": i} for i in ids])
        for number in range(times):
            _wait_equal(outcome, fleet, f"before damage {number}")
            made.flush()
            name = rng.choice([node.name for node in fleet.plan.of("datanode")])
            before = _sessions(fleet, name)
            fleet.kill(name)
            damaged = _flip(fleet.folder / name, flips, rng)
            flipped += flips
            began = time.monotonic()
            fleet.start(name, START_S)
            good, bad = _read_until_healed(outcome, fleet, client, name, before, damaged)
            read, refused = read + good, refused + bad
            took.append(time.monotonic() - began)
            _wait_equal(outcome, fleet, f"after damage {number} of {name}")
            _compare(outcome, fleet, f"after damage {number} of {name}")
            if not outcome.passed:
                break
            sys.stderr.write(f"R25: {number + 1} of {times}: made good after {took[-1]:.1f} s\n")
    outcome.figure = (
        f"{flipped} bits flipped at rest on one replica at a time, all found and made good from the peers within "
        f"{max(took):.1f} s; {read} points read meanwhile, {refused} refused: {len(outcome.violations)} violations"
    )
    return outcome


def _flip(folder: Path, flips: int, rng: random.Random) -> set[str]:
    """Flip bits in the data of segments; the folders of the replicas that are damaged."""
    files = sorted(p for p in folder.glob("replicas/*/segments/*/*") if p.name in _DATA or p.name.startswith("vectors"))
    assert files, "nothing was sealed"
    damaged = set()
    for path in rng.choices(files, k=flips):
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        damaged.add(path.parents[2].name)
    return damaged


def _sessions(fleet: Fleet, name: str) -> dict[str, int]:
    """The session of every replica of a node that serves, by the name of its folder."""
    info = topology_of(fleet).collection(_NAME)
    places = [(s.shard_id, r) for s in info.shards for r in s.replicas if r.node_id == name and r.state == "active"]
    names = {f"{info.schema.uuid}.{shard}": place for shard, place in places}
    return {f"{key}.{place.session}" if place.session else key: place.session for key, place in names.items()}


def _read_until_healed(
    outcome: Outcome, fleet: Fleet, client: Client, name: str, before: dict[str, int], damaged: set[str]
) -> tuple[int, int]:
    """Read until other replicas serve in the place of the damaged ones; points read, and reads refused."""
    ends = time.monotonic() + BOUND_S
    read = refused = 0
    while not (_sessions(fleet, name).keys().isdisjoint(damaged) and len(_sessions(fleet, name)) == len(before)):
        if time.monotonic() > ends:
            left = sorted(set(_sessions(fleet, name)) & damaged)
            outcome.violated(f"{BOUND_S:.0f} s later {name} serves {left} that were damaged, or misses replicas")
            break
        for consistency in ("one", "majority"):
            try:
                records = client.collection(_NAME).get(
                    list(range(0, _POINTS, 7)), include=["metadata", "vector"], consistency=consistency
                )
            except OmenDBError:
                refused += 1
                continue
            for point_id, record in zip(range(0, _POINTS, 7), records, strict=True):
                read += 1
                if consistency == "one" and record is None:
                    continue  # a replica that is being filled may not have it yet
                if record is None or record.metadata != {"value": point_id}:
                    outcome.violated(f"point {point_id} at {consistency} is {record}")
                elif not np.allclose(np.asarray(record.vector), vector_of(point_id, point_id), rtol=1e-6, atol=0):
                    outcome.violated(f"point {point_id} at {consistency} has another vector")
    return read, refused


def _wait_equal(outcome: Outcome, fleet: Fleet, when: str) -> None:
    ends = time.monotonic() + BOUND_S
    while True:
        shards = topology_of(fleet).collection(_NAME).shards
        if all(len(shard.nodes("active")) == 3 for shard in shards) and not unequal_shards(fleet, _NAME):
            return
        if time.monotonic() > ends:
            outcome.violated(f"{when}: the replicas are not equal after {BOUND_S:.0f} s")
            return
        time.sleep(0.2)


def _compare(outcome: Outcome, fleet: Fleet, when: str) -> None:
    for point_id, versions in held(fleet, _NAME, list(range(_POINTS))).items():
        if len(versions) != 3 or len({(one.state, one.stamp, one.digest) for one in versions}) != 1:
            outcome.violated(f"{when}: point {point_id} differs: {versions}")


__all__ = ["BOUND_S", "run"]
