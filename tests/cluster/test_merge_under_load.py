"""Shards are put together again while clients write and search, and a node is killed in the middle of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from omendb.cli.main import app
from omendb.fleet.fleet import Fleet
from omendb_chaos.fleet.replicas import topology_of
from omendb_chaos.fleet.traffic import (
    DIMENSION,
    NAME,
    PATIENCE_S,
    check_available,
    check_kept,
    fleet_of,
    traffic_on,
    vectors,
    wait_rest,
)
from omendb_common.feature_level import CURRENT
from omendb_common.ring import RING

NODES = {"d1", "d2", "d3"}


def cluster(fleet: Fleet, *arguments: str) -> str:
    told = CliRunner().invoke(app, ["cluster", *arguments, "--dir", str(fleet.folder)])
    assert told.exit_code == 0, told.output
    return " ".join(told.output.split())


def wait_level(fleet: Fleet) -> None:
    """A collection that is made before would keep the cluster at the level that it has."""
    fleet.wait_status(lambda told: told["feature_level"] == CURRENT, PATIENCE_S, f"level {CURRENT}")


def wait_shards(fleet: Fleet, count: int) -> None:
    """Wait until nothing splits or merges and the collection has so many shards."""

    def done(status: dict[str, Any]) -> bool:
        busy = status["splits"] or status["merges"]
        return not busy and sum(len(c["shards"]) for c in status["collections"]) == count

    fleet.wait_status(done, PATIENCE_S, f"{count} shards")


def compare(fleet: Fleet) -> None:
    """Have the replicas compared now: of shards that were compared at other times the floors may differ by too much."""

    def proven(status: dict[str, Any]) -> bool:
        return all(s["repaired_through"] > 0 for c in status["collections"] for s in c["shards"])

    cluster(fleet, "repair", NAME)
    fleet.wait_status(proven, PATIENCE_S, "the replicas of every shard to be known as equal")


def first_two(fleet: Fleet) -> list[str]:
    return [str(shard.shard_id) for shard in topology_of(fleet).collection(NAME).shards[:2]]


def test_merge_under_load(tmp_path: Path) -> None:
    with fleet_of(tmp_path / "fleet", 3) as fleet, fleet.client(timeout=20) as client:
        wait_level(fleet)
        client.create_collection(NAME, DIMENSION, replication=3, shards=4)
        compare(fleet)
        with traffic_on(fleet, client) as traffic:
            assert "become 4" in cluster(fleet, "merge", NAME, *first_two(fleet))
            wait_shards(fleet, 3)
            cluster(fleet, "moves", "--pause")
            cluster(fleet, "merge", NAME, *first_two(fleet))
            low, _ = first_two(fleet)
            told = cluster(fleet, "moves")
            assert all(word in told for word in ("paused", "merging", "d1, d2, d3"))
            assert "stays a shard of its own" in cluster(fleet, "merge", NAME, low, "--cancel")
            cluster(fleet, "moves", "--resume")
            cluster(fleet, "merge", NAME, low)
            fleet.kill("d2")
            fleet.start("d2")
            wait_shards(fleet, 2)
            wait_rest(fleet, NODES)
            cluster(fleet, "merge", NAME, first_two(fleet)[1])
            wait_shards(fleet, 1)
            wait_rest(fleet, NODES)
        report = traffic.stop()
        (joint,) = topology_of(fleet).collection(NAME).shards
        assert (joint.low, joint.high) == (0, RING)
        check_kept(fleet, report)
        check_available("merges, and a node killed", report)
        points = client.collection(NAME)
        ids = {batch * 20 + n for batch in report.acknowledged for n in range(20)}
        seen = [point.id for point in points.iterate()]
        assert len(seen) == len(set(seen)) and ids <= set(seen), "every point once"


def test_two_small_halves_become_one_again_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMENDB_COORDINATOR_SPLIT_ROWS", "400")
    monkeypatch.setenv("OMENDB_COORDINATOR_MERGE_AFTER_S", "2")
    with fleet_of(tmp_path / "fleet", 3) as fleet, fleet.client(timeout=20) as client:
        wait_level(fleet)
        client.create_collection(NAME, DIMENSION, replication=3, shards=1)
        points = client.collection(NAME)
        points.upsert(list(range(600)), vectors(0, 600))
        wait_shards(fleet, 2)
        points.delete(list(range(550)))
        wait_shards(fleet, 1)
        assert points.count() == 50
        (hit,) = points.search(vectors(580, 1)[0], k=1, consistency="majority")
        assert hit.id == 580
