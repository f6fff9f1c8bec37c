"""R17: a data node that missed writes is brought up to date by its peers alone; nobody reads meanwhile.

First on simulated clusters, under every fault but a lost disk: after the last one all replicas must be equal within a
minute of simulated time. Then on real processes.

Four writers write upserts, partial updates and deletions at W=2 of 3 while one data node is dead, killed at any moment.
It comes back, the writers stop, and from then on all replicas of every shard must have equal hash trees and the same
version of every point within a minute. Records settle at once here (``settle_s`` 0).
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from omendb.client import Client
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb_chaos.fleet.possible import DIMENSION
from omendb_chaos.fleet.replicas import held, soon, topology_of
from omendb_chaos.fleet.running import START_S, running_fleet
from omendb_chaos.rows.cluster_kills import SHARDS, WRITERS, Writer
from omendb_chaos.rows.outcome import Budget, Outcome, dice
from omendb_chaos.rows.simulated import simulate
from omendb_common.hlc import STAMP_MAX
from omendb_common.shard_calls import ShardRef, Sums, Verdict
from omendb_common.topology import CollectionInfo, Shard, Topology
from omendb_common.wire.datanode_client import RemoteDataNode
from omendb_common.wire.frame_connection import FrameIdentity

BOUND_S = 60.0
_ABSENCES = {"small": 2, "full": 40}
_RUNS = {"small": 4, "full": 1000}
_SETTINGS = {"OMENDB_REPAIR_SETTLE_S": "0", "OMENDB_REPAIR_INTERVAL_S": "5", "OMENDB_REPAIR_RETRY_S": "0.5"}
_NAME = "points"
_TIMEOUT_S = 3.0
_LOOK_S = 0.1


def run(seed: int, budget: Budget) -> Outcome:
    """Run the row."""
    outcome = Outcome("R17", seed, budget)
    rng = dice("R17", seed)
    writers = [Writer(1 + number * 1000, dice("R17", seed, number)) for number in range(WRITERS)]
    sums = simulate(outcome, "R17", _RUNS[budget])
    took: list[float] = []
    missed = 0
    with (
        environment(_SETTINGS),
        running_fleet(outcome, FleetSize(1, 1, 3)) as fleet,
        fleet.client(timeout=_TIMEOUT_S) as client,
    ):
        client.create_collection(
            _NAME, DIMENSION, replication=3, write_quorum=2, read_quorum=2, shards=SHARDS, timeout=START_S
        )
        for number in range(_ABSENCES[budget]):
            name = rng.choice([node.name for node in fleet.plan.of("datanode")])
            missed += _absent(fleet, client, writers, name, rng)
            took.append(_converged(outcome, fleet, writers, f"absence {number} of {name}"))
            if not outcome.passed:
                break
            sys.stderr.write(f"R17: {number + 1} of {_ABSENCES[budget]}: equal after {took[-1]:.1f} s\n")
    outcome.figure = (
        f"{sums.runs} simulated runs, {sums.failed} not equal in time; {len(took)} absences of real nodes, {missed} "
        f"versions missed, all replicas equal after {np.median(took):.1f} s (median; {max(took):.1f} s at most, "
        f"bound {BOUND_S:.0f} s): {len(outcome.violations)} violations"
    )
    return outcome


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """The fleet's processes take their settings from here."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _absent(fleet: Fleet, client: Client, writers: list[Writer], name: str, rng: random.Random) -> int:
    """Write while a node dies, is dead, and comes back; how many versions it then lacks."""
    stop = threading.Event()

    def work(writer: Writer) -> None:
        collection = client.collection(_NAME)
        while not stop.is_set():
            writer.write(collection)

    with ThreadPoolExecutor(len(writers)) as pool:
        working = [pool.submit(work, writer) for writer in writers]
        try:
            time.sleep(rng.uniform(0.1, 1.0))  # the kill falls anywhere
            fleet.kill(name)
            time.sleep(rng.uniform(0.5, 2.0))
        finally:
            stop.set()
    for done in working:
        done.result()
    before = held(fleet, _NAME, _ids(writers), but=name)
    fleet.process(name).start()
    fleet.start(name, START_S)
    fleet.wait_member(name, START_S)
    after = held(fleet, _NAME, _ids(writers), only=name)
    newest = {i: max(one.stamp for one in versions) for i, versions in before.items()}
    return sum(newest[i] > versions[0].stamp for i, versions in after.items())


def _ids(writers: list[Writer]) -> list[int]:
    return sorted(point_id for writer in writers for point_id in writer.points)


def _converged(outcome: Outcome, fleet: Fleet, writers: list[Writer], when: str) -> float:
    """Wait until all hash trees are equal, then compare every version; how long it took."""
    began = time.monotonic()
    while unequal := unequal_shards(fleet, _NAME):
        if time.monotonic() - began > BOUND_S:
            outcome.violated(f"after {when}: shards {unequal} differ {BOUND_S:.0f} s later")
            break
        time.sleep(_LOOK_S)
    took_s = time.monotonic() - began
    for point_id, versions in held(fleet, _NAME, _ids(writers)).items():
        if len({(one.state, one.stamp, one.digest) for one in versions}) != 1:
            outcome.violated(f"after {when}: point {point_id} differs: {versions}")
    return took_s


def unequal_shards(fleet: Fleet, name: str) -> list[int]:
    """Shards of a collection whose replicas do not all have the same root."""
    topology = topology_of(fleet)
    info = topology.collection(name)

    async def look() -> list[int]:
        return [shard.shard_id for shard in info.shards if len(await _roots(topology, info, shard)) != 1]

    return asyncio.run(look())


async def _roots(topology: Topology, info: CollectionInfo, shard: Shard) -> set[tuple[int, ...]]:
    identity = FrameIdentity(topology.cluster_id, "router", "chaos")
    ref = ShardRef(info.schema.uuid, shard.shard_id, shard.epoch, 0)
    call = Sums(ref, STAMP_MAX, shard.gc_floor, 0, np.zeros(1, np.int64), fresh=True)
    roots = set()
    for node_id in shard.nodes("active"):
        node = RemoteDataNode(topology.members[node_id].address, identity=identity, node_id=node_id)
        try:
            told = await node.sums(call, soon())
        finally:
            await node.close()
        assert told.verdict is Verdict.OK, f"{node_id} answers {told.verdict.name}: {told.error}"
        roots.add((*told.counts.tolist(), *told.first.tolist(), *told.second.tolist()))
    return roots


__all__ = ["BOUND_S", "environment", "run", "unequal_shards"]
