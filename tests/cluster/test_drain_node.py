"""A data node is drained: every replica leaves it while clients write and search, and then it can go."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from omendb.cli.main import app
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


def test_drain_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMENDB_COORDINATOR_MOVES_MAX", "4")
    with fleet_of(tmp_path / "fleet", 4) as fleet, fleet.client(timeout=10) as client:
        client.create_collection(NAME, DIMENSION, replication=3, shards=4)
        leaves = max(places(topology_of(fleet)))
        with traffic_on(fleet, client) as traffic:
            told = CliRunner().invoke(app, ["cluster", "drain", leaves, "--dir", str(fleet.folder)])
            assert told.exit_code == 0 and f"{leaves} is draining" in told.output
            wait_rest(fleet, {"d1", "d2", "d3", "d4"} - {leaves})
            fleet.process(leaves).stop(10)
        report = traffic.stop()
        assert places(topology_of(fleet))[leaves] == 0
        check_kept(fleet, report)
        check_available("a node is drained", report)
