"""A data node comes: shards flow to it while clients write and search."""

from __future__ import annotations

from pathlib import Path

import pytest

from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb_chaos.fleet.replicas import topology_of
from omendb_chaos.fleet.traffic import (
    DIMENSION,
    NAME,
    check_available,
    check_kept,
    fleet_of,
    places,
    traffic_on,
    wait_rest,
)


def test_add_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMENDB_COORDINATOR_MOVES_MAX", "4")
    with fleet_of(tmp_path / "fleet", 3) as fleet, fleet.client(timeout=10) as client:
        client.create_collection(NAME, DIMENSION, replication=3, shards=4)
        with traffic_on(fleet, client) as traffic:
            fleet = Fleet.make(fleet.folder, FleetSize(1, 1, 4), tls=False)
            fleet.up()
            wait_rest(
                fleet,
                {"d1", "d2", "d3", "d4"},
                lambda status: {m["node_id"]: m["replicas"] for m in status["members"]}.get("d4") == 3,
            )
        report = traffic.stop()
        assert sorted(places(topology_of(fleet)).values()) == [3, 3, 3, 3]
        check_kept(fleet, report)
        check_available("a node comes", report)
