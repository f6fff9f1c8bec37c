"""A data node is put back on an old image of its disk: what it forgot comes from the others, and nothing comes back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from omendb.cli.main import app
from omendb.fleet.process import wait_until
from omendb_chaos.fleet.replicas import held
from omendb_common.shard_calls import State
from tests.cluster.moving import DIMENSION, NAME, PATIENCE_S, fleet_of, vectors


def test_old_disk_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Records settle at once, and replicas are compared every second instead of every ten minutes.
    for name, value in {"SETTLE_S": "0", "INTERVAL_S": "1", "RETRY_S": "0.5"}.items():
        monkeypatch.setenv(f"OMENDB_REPAIR_{name}", value)
    with fleet_of(tmp_path / "fleet", 3) as fleet, fleet.client(timeout=10) as client:
        points = client.create_collection(NAME, DIMENSION, replication=3, shards=1)
        points.upsert(list(range(60)), vectors(0, 60))
        fleet.process("d1").stop(10)
        shutil.copytree(fleet.folder / "d1", tmp_path / "image")
        fleet.start("d1")
        fleet.wait_serving(30)
        points.upsert(list(range(60, 100)), vectors(60, 40))
        points.upsert([5], vectors(1000, 1))
        points.delete(ids=list(range(10, 20)))
        fleet.process("d1").stop(10)
        shutil.rmtree(fleet.folder / "d1")
        shutil.move(tmp_path / "image", fleet.folder / "d1")
        fleet.start("d1")
        gone = set(range(10, 20))
        # Whoever asks a majority is never shown the past, however soon.
        shown = {p.id for p in points.get(list(range(100))) if p is not None}
        assert shown == set(range(100)) - gone

        def equal() -> bool:
            versions = held(fleet, NAME, list(range(100)))
            return all(len(v) == 3 and len({(o.state, o.stamp, o.digest) for o in v}) == 1 for v in versions.values())

        wait_until(equal, PATIENCE_S, "every replica to have the same")
        alone = held(fleet, NAME, list(range(100)), only="d1")
        assert {i for i, (v,) in alone.items() if v.state is State.LIVE} == set(range(100)) - gone
        told = CliRunner().invoke(app, ["cluster", "verify", NAME, "--dir", str(fleet.folder)])
        assert told.exit_code == 0 and "all replicas are equal" in told.output
