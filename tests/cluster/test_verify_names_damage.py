"""A bit of one point is turned on one disk: ``omendb cluster verify`` names the file, and the replica is made anew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import pytest
from typer.testing import CliRunner

from omendb.cli.main import app
from omendb.fleet.fleet import Fleet
from omendb_chaos.fleet.replicas import held, topology_of
from omendb_chaos.fleet.traffic import DIMENSION, NAME, fleet_of, vectors, wait_rest
from omendb_common.shard_calls import State

_POINTS = 500


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_verify_names_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: Literal["l2", "cosine"]) -> None:
    monkeypatch.setenv("OMENDB_REPAIR_SETTLE_S", "0")
    with fleet_of(tmp_path / "fleet", 3) as fleet, fleet.client(timeout=10) as client:
        points = client.create_collection(NAME, DIMENSION, metric=metric, replication=3, write_quorum=3, shards=1)
        points.upsert(list(range(_POINTS)), vectors(1, _POINTS), [{"value": i} for i in range(_POINTS)])
        points.flush()
        status, told = _verify(fleet)
        assert status == 0 and told["equal"] and told["shards"][0]["damage"] == {}, told
        status, told = _run(fleet, "scrub", "--bytes-per-s", str(1 << 30))
        assert (status, told["sound"], told["replicas"], told["unread"]) == (0, True, 3, []) and told["bytes"] > 0, told
        damaged = _turn_a_bit(fleet.folder / "d2")
        status, told = _verify(fleet)
        ((node, (found,)),) = told["shards"][0]["damage"].items()
        assert status == 1 and not told["equal"] and node == "d2" and found["path"] == str(damaged), told
        wait_rest(fleet, {"d1", "d2", "d3"}, lambda _: _session_of(fleet, "d2") > 0)
        status, told = _verify(fleet)
        assert status == 0 and told["equal"], told
        for point_id, versions in held(fleet, NAME, list(range(_POINTS))).items():
            assert {v.state for v in versions} == {State.LIVE} and len({v.digest for v in versions}) == 1, point_id


def _verify(fleet: Fleet) -> tuple[int, dict[str, Any]]:
    return _run(fleet, "verify", NAME)


def test_scrub_names_damage_and_has_it_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMENDB_REPAIR_SETTLE_S", "0")
    with fleet_of(tmp_path / "fleet", 3) as fleet, fleet.client(timeout=10) as client:
        points = client.create_collection(NAME, DIMENSION, replication=3, write_quorum=3, shards=1)
        points.upsert(list(range(_POINTS)), vectors(1, _POINTS), [{"value": i} for i in range(_POINTS)])
        points.flush()
        damaged = _turn_a_bit(fleet.folder / "d2")
        status, told = _run(fleet, "scrub", NAME)
        (found,) = told["findings"]
        assert (status, told["sound"], found["node"], found["path"]) == (1, False, "d2", str(damaged)), told
        assert found["collection"] == NAME and found["shard"] == 0 and found["offset"] is not None
        wait_rest(fleet, {"d1", "d2", "d3"}, lambda _: _session_of(fleet, "d2") > 0)
        status, told = _run(fleet, "scrub", NAME)
        assert status == 0 and told["sound"] and told["replicas"] == 3, told


def _run(fleet: Fleet, *command: str) -> tuple[int, dict[str, Any]]:
    told = CliRunner().invoke(app, ["cluster", *command, "--dir", str(fleet.folder), "--json"])
    return told.exit_code, json.loads(told.stdout)


def _turn_a_bit(folder: Path) -> Path:
    """Change one byte in the vectors of a running data node's disk, below everything that looks."""
    (path,) = folder.glob("replicas/*/segments/*/vectors.arrow")
    at = path.stat().st_size // 2
    file = os.open(path, os.O_RDWR)
    try:
        os.pwrite(file, bytes([os.pread(file, 1, at)[0] ^ 0x10]), at)
    finally:
        os.close(file)
    return path


def _session_of(fleet: Fleet, node: str) -> int:
    (shard,) = topology_of(fleet).collection(NAME).shards
    return max((r.session for r in shard.replicas if r.node_id == node), default=0)
