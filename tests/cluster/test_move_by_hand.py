"""An operator moves a replica with the command, holds it up, gives it up, and moves it after all; over mutual TLS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from omendb.cli.main import app
from omendb.fleet.fleet import Fleet
from omendb.fleet.plan import FleetSize
from omendb_chaos.fleet.traffic import DIMENSION, NAME, PATIENCE_S, vectors


def run(fleet: Fleet, *arguments: object, refused: bool = False) -> str:
    result = CliRunner().invoke(app, ["cluster", *map(str, arguments), "--dir", str(fleet.folder)])
    assert (result.exit_code != 0) == refused, result.output
    return result.output


def moving(fleet: Fleet) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run(fleet, "moves", "--json"))
    return told


def places(status: dict[str, Any]) -> dict[str, str]:
    (collection,) = status["collections"]
    return {r["node_id"]: r["state"] for r in collection["shards"][0]["replicas"]}


def test_move_by_hand(tmp_path: Path) -> None:
    fleet = Fleet.make(tmp_path / "fleet", FleetSize(1, 1, 3), usual_ports=False)
    try:
        fleet.up()
        with fleet.client(timeout=10) as client:
            client.create_collection(NAME, DIMENSION, shards=1, replication=2, write_quorum=2).upsert(
                list(range(500)), vectors(0, 500)
            )
            before = places(fleet.status())
            (free,) = {"d1", "d2", "d3"} - set(before)
            leaves, stays = sorted(before)
            assert "no shard 7" in run(fleet, "move", NAME, 7, "--from", leaves, "--to", free, refused=True)
            assert "has a replica" in run(fleet, "move", NAME, 0, "--from", leaves, "--to", stays, refused=True)
            run(fleet, "move", NAME, 0, "--from", leaves, refused=True)
            assert "nothing moves" in run(fleet, "moves")

            run(fleet, "moves", "--pause")
            assert f"{free} joining" in run(fleet, "move", NAME, 0, "--from", leaves, "--to", free)
            assert moving(fleet)["paused"]
            (move,) = moving(fleet)["moves"]
            assert (move["source"], move["target"], move["stage"]) == (leaves, free, "filling")
            assert "moves are paused" in run(fleet, "moves") and f"{NAME}.0" in run(fleet, "status")
            client.collection(NAME).upsert(list(range(500, 600)), vectors(500, 100))
            run(fleet, "move", NAME, 0, "--cancel")
            assert places(fleet.status()) == before

            run(fleet, "move", NAME, 0, "--from", leaves, "--to", free)
            run(fleet, "moves", "--resume")
            there = {stays: "active", free: "active"}
            fleet.wait_status(lambda status: places(status) == there, PATIENCE_S, "the replica in its place")

            run(fleet, "moves", "--pause")
            run(fleet, "split", NAME, 0, "--at", 5, "--cancel", refused=True)
            assert "becomes 1 and 2" in run(fleet, "split", NAME, 0)
            (split,) = moving(fleet)["splits"]
            assert (split["into"], split["waits_for"]) == ([1, 2], sorted(there))
            assert "splitting" in run(fleet, "moves") and "one of its replicas" not in run(fleet, "status")
            assert "stays one shard" in run(fleet, "split", NAME, 0, "--cancel")
            run(fleet, "split", NAME, 0)
            run(fleet, "moves", "--resume")
            fleet.wait_status(
                lambda status: [s["shard_id"] for s in status["collections"][0]["shards"]] == [1, 2],
                PATIENCE_S,
                "two shards",
            )
            fleet.process(stays).stop(10)
            hits = client.collection(NAME).search(vectors(0, 1)[0], k=600, consistency="one")
            assert len(hits) == 600, "the replica that moved has every point"
    finally:
        Fleet.open(tmp_path / "fleet").down(5)
