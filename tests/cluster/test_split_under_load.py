"""A shard is split again and again while clients write and search, and a node is killed in the middle of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omendb.fleet.fleet import Fleet
from omendb_chaos.fleet.replicas import soon, topology_of, with_coordinators
from omendb_chaos.fleet.traffic import (
    DIMENSION,
    NAME,
    PATIENCE_S,
    check_available,
    check_kept,
    fleet_of,
    traffic_on,
    wait_rest,
)
from omendb_common.errors import OmenDBError
from omendb_common.ring import RING

NODES = {"d1", "d2", "d3"}


def split(fleet: Fleet) -> None:
    """Begin to split the widest shard."""
    info = topology_of(fleet).collection(NAME)
    widest = max(info.shards, key=lambda s: s.high - s.low)
    uuid = info.schema.uuid
    with_coordinators(fleet, lambda c: c.begin_split(uuid, widest.shard_id, widest.epoch, soon()))


def wait_shards(fleet: Fleet, count: int) -> None:
    """Wait until nothing splits and the collection has so many shards."""

    def done(status: dict[str, Any]) -> bool:
        return not status["splits"] and sum(len(c["shards"]) for c in status["collections"]) == count

    fleet.wait_status(done, PATIENCE_S, f"{count} shards")


def test_split_under_load(tmp_path: Path) -> None:
    with fleet_of(tmp_path / "fleet", 3) as fleet, fleet.client(timeout=20) as client:
        client.create_collection(NAME, DIMENSION, replication=3, shards=1)
        with traffic_on(fleet, client) as traffic:
            for count in (2, 3):
                split(fleet)
                wait_shards(fleet, count)
            split(fleet)
            fleet.kill("d2")
            fleet.start("d2")
            wait_shards(fleet, 4)
            wait_rest(fleet, NODES)
        report = traffic.stop()
        shards = topology_of(fleet).collection(NAME).shards
        assert [(s.low * 4 // RING, s.high * 4 // RING) for s in shards] == [(0, 1), (1, 2), (2, 3), (3, 4)]
        check_kept(fleet, report)
        check_available("splits, and a node killed", report)
        points = client.collection(NAME)
        ids = {batch * 20 + n for batch in report.acknowledged for n in range(20)}
        assert len(ids) <= points.count() <= len(ids) + 20 * (len(report.acknowledged) + 100)
        seen = [point.id for point in points.iterate()]
        assert len(seen) == len(set(seen)) and ids <= set(seen), "every point once"


def test_a_shard_above_its_bound_splits_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMENDB_COORDINATOR_SPLIT_ROWS", "400")
    with fleet_of(tmp_path / "fleet", 3) as fleet, fleet.client(timeout=20) as client:
        client.create_collection(NAME, DIMENSION, replication=3, shards=1, partition_key="tenant")
        points = client.collection(NAME)
        for first in range(0, 600, 50):
            ids = list(range(first, first + 50))
            points.upsert(ids, [[float(n)] * DIMENSION for n in ids], [{"tenant": f"t{n % 40}"} for n in ids])
        points.delete([5])

        def halved(status: dict[str, Any]) -> bool:
            return not status["splits"] and sum(len(c["shards"]) for c in status["collections"]) >= 2

        fleet.wait_status(halved, PATIENCE_S, "two shards")
        assert points.count() == 599
        points.update([7], metadata=[{"seen": True}])
        assert points.count({"seen": True}) == 1
        points.delete([6])
        for n in (6, 7, 8):
            (hit,) = points.search([float(n)] * DIMENSION, k=1, consistency="majority")
            assert hit.id == (n if n != 6 else hit.id) and hit.id != 6
        with pytest.raises(OmenDBError):
            points.update([6], metadata=[{"seen": True}])
