"""Two data nodes come back with each other's disk: neither serves, and put right again nothing is missing (P16)."""

from __future__ import annotations

from pathlib import Path

import pytest

from omendb_chaos.fleet.replicas import held
from omendb_common.errors import UnavailableError
from omendb_common.shard_calls import State
from tests.cluster.moving import DIMENSION, NAME, fleet_of, vectors, wait_rest


def test_swapped_disks(tmp_path: Path) -> None:
    with fleet_of(tmp_path / "fleet", 3) as fleet, fleet.client(timeout=10) as client:
        client.create_collection(NAME, DIMENSION, replication=3, shards=1).upsert(list(range(50)), vectors(0, 50))
        for name in ("d1", "d2"):
            fleet.process(name).stop(10)
        swap(fleet.folder)
        for name, other in (("d1", "d2"), ("d2", "d1")):
            process = fleet.process(name)
            process.start()
            with pytest.raises(UnavailableError, match=f"folder is that of '{other}'"):
                process.wait_ready(30)
        # One of three is left: it answers who asks one, and nobody is told that a point is absent by an empty disk.
        assert client.collection(NAME).search(vectors(7, 1)[0], k=1, consistency="one")[0].id == 7
        with pytest.raises(UnavailableError):
            client.collection(NAME).upsert([99], vectors(99, 1))
        swap(fleet.folder)
        for name in ("d1", "d2"):
            fleet.start(name)
        wait_rest(fleet, {"d1", "d2", "d3"})
        fleet.wait_serving(30)
        client.collection(NAME).upsert([50], vectors(50, 1))
        for point_id, versions in held(fleet, NAME, list(range(51))).items():
            assert sum(v.state is State.LIVE for v in versions) >= 2, (point_id, versions)


def swap(folder: Path) -> None:
    """Exchange the disks of the first two data nodes."""
    (folder / "d1").rename(folder / "aside")
    (folder / "d2").rename(folder / "d1")
    (folder / "aside").rename(folder / "d2")
