"""Replicas are added and taken away, and quorums changed, while clients write and search: no search misses a write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from omendb.cli.main import app
from omendb.fleet.fleet import Fleet
from omendb_chaos.fleet.replicas import topology_of
from omendb_chaos.fleet.traffic import DIMENSION, NAME, PATIENCE_S, check_kept, fleet_of, traffic_on


def wait_numbers(fleet: Fleet, replication: int, write_quorum: int, read_quorum: int) -> None:
    """Wait until the numbers are in force for every shard, on as many replicas."""
    wanted = {"replication": replication, "write_quorum": write_quorum, "read_quorum": read_quorum}

    def there(status: dict[str, Any]) -> bool:
        (found,) = status["collections"]
        return not status["moves"] and all(
            shard["in_force"] == wanted and [r["state"] for r in shard["replicas"]] == ["active"] * replication
            for shard in found["shards"]
        )

    fleet.wait_status(there, PATIENCE_S, f"{wanted} in force")


def test_replication_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMENDB_COORDINATOR_MOVES_MAX", "4")
    with fleet_of(tmp_path / "fleet", 4) as fleet, fleet.client(timeout=10) as client:
        client.create_collection(NAME, DIMENSION, replication=3, shards=2)
        with traffic_on(fleet, client) as traffic:
            wanted = ["collections", "alter", NAME, "--url", fleet.urls()[0], "--replication", "4"]
            told = CliRunner().invoke(app, wanted)
            assert told.exit_code == 0, told.output
            wait_numbers(fleet, 4, 3, 3)
            client.alter_collection(NAME, replication=3)
            wait_numbers(fleet, 3, 2, 2)
            client.alter_collection(NAME, write_quorum=3, read_quorum=1)
            wait_numbers(fleet, 3, 3, 1)
            client.alter_collection(NAME, write_quorum=2, read_quorum=2)
            wait_numbers(fleet, 3, 2, 2)
        report = traffic.stop()
        assert all(len(shard.replicas) == 3 for shard in topology_of(fleet).collection(NAME).shards)
        check_kept(fleet, report)
