"""A data node loses its disk: its replicas are made anew from the others while clients write and search."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from omendb_chaos.fleet.replicas import held, topology_of
from omendb_common.shard_calls import State
from tests.cluster.moving import BATCH, DIMENSION, NAME, check_kept, fleet_of, places, traffic_on, wait_rest


def test_lost_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SUSPECT_S": "1", "DOWN_S": "2", "GRACE_S": "2"}.items():
        monkeypatch.setenv(f"OMENDB_COORDINATOR_{name}", value)
    with fleet_of(tmp_path / "fleet", 3) as fleet, fleet.client(timeout=10) as client:
        client.create_collection(NAME, DIMENSION, replication=3, shards=2)
        with traffic_on(fleet, client) as traffic:
            fleet.kill("d1")
            shutil.rmtree(fleet.folder / "d1")
            fleet.start("d1")
            wait_rest(fleet, {"d1", "d2", "d3"}, lambda status: status["revision"] > 0)
        report = traffic.stop()
        shards = topology_of(fleet).collection(NAME).shards
        assert all(r.session for s in shards for r in s.replicas if r.node_id == "d1"), "both were made anew"
        assert places(topology_of(fleet)) == {"d1": 2, "d2": 2, "d3": 2}
        check_kept(fleet, report)
        # What was written before the disk was lost is on the new one.
        early = [batch * BATCH for batch in report.acknowledged[:5]]
        assert all(v[0].state is State.LIVE for v in held(fleet, NAME, early, only="d1").values())
