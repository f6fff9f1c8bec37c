"""A router stands still while a shard moves away from the nodes that it knows: what it has under way counts nowhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import omendb
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb_chaos.fleet.replicas import held, soon, topology_of, with_coordinators
from omendb_chaos.fleet.traffic import DIMENSION, NAME, vectors, wait_rest
from omendb_common.shard_calls import State
from omendb_common.topology import CollectionInfo


def test_router_paused_across_a_move(tmp_path: Path) -> None:
    fleet = Fleet.make(tmp_path / "fleet", FleetSize(1, 2, 4), tls=False, usual_ports=False)
    try:
        fleet.up()
        sleeper, awake = (omendb.Client(url, timeout=20) for url in fleet.urls())
        with sleeper, awake:
            made = awake.create_collection(NAME, DIMENSION, replication=3, shards=1)
            made.upsert(list(range(100)), vectors(0, 100))
            assert sleeper.collection(NAME).get([7])[0] is not None, "both routers know the map"
            nodes = {"d1", "d2", "d3", "d4"}
            fleet.pause("r1")
            before = topology_of(fleet).collection(NAME).shards[0]
            # Two of three go elsewhere: first one to the node without a replica, then another to the one it left.
            for _ in range(2):
                info = topology_of(fleet).collection(NAME)
                shard = info.shards[0]
                (free,) = nodes - set(shard.nodes("active"))
                source = next(n for n in before.nodes("active") if n in shard.nodes("active"))
                move(fleet, info, source, free)
                wait_rest(fleet, nodes)
            made.upsert([3], vectors(1003, 1))
            made.delete(ids=[4])
            fleet.resume("r1")
            # It wakes with the old map, is refused, looks at the new one, and stamps above what it did not see.
            late = sleeper.collection(NAME)
            late.upsert(list(range(100, 120)), vectors(100, 20))
            late.upsert([4], vectors(2004, 1))
            found = {p.id: p.vector for p in late.get(list(range(120)), include=["vector"]) if p is not None}
            assert set(found) == set(range(120))
            assert [np.asarray(found[i])[0] for i in (3, 4, 5)] == [1003, 2004, 5]
            for point_id, versions in held(fleet, NAME, list(range(120))).items():
                assert sum(v.state is State.LIVE for v in versions) >= 2, (point_id, versions)
    finally:
        Fleet.open(tmp_path / "fleet").down(5)


def move(fleet: Fleet, info: CollectionInfo, source: str, target: str) -> None:
    """Begin to move the replica of the one shard."""
    epoch = info.shards[0].epoch
    with_coordinators(fleet, lambda c: c.begin_move(info.schema.uuid, 0, epoch, source, target, soon()))
