"""What earlier releases wrote is read, as long as there is OmenDB: files that are never made again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import omendb
from omendb_common.catalog_copy import read_copy
from omendb_common.disk import RealDisk
from omendb_common.errors import FormatVersionError
from omendb_coordinator.catalog import Catalog, state_of
from omendb_coordinator.consensus.messages import COMMAND, NOOP
from omendb_coordinator.consensus.storage import Storage
from omendb_coordinator.restored_changes import restore
from omendb_coordinator.restoring import restore_member
from omendb_datanode.node_folder import Held, open_identity, read_held
from tests.compat.golden import DELETED, HERE, POINTS, RENUMBERED, TAKEN_MS, point_ids, unpacked, vectors

LEVEL_1, LEVEL_2 = HERE / "level_1", HERE / "level_2"
FILES = {
    "level_1/catalog.copy": "1d507037d812fc38",
    "level_1/catalog.json": "d6fcf0c592931159",
    "level_1/coordinator.tar.xz": "bfa9529daaf8b6dd",
    "level_1/database.tar.xz": "b9f81dcdaf097e00",
    "level_1/datanode.tar.xz": "50119b5e59ec0724",
    "level_2/catalog.json": "13b8946205a013a0",
    "level_2/coordinator.tar.xz": "7b95a1082ee7f330",
    "level_2/datanode.tar.xz": "d777e89139de2eae",
}


def test_the_files_are_those_that_were_written_then() -> None:
    found = {
        str(path.relative_to(HERE)): hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for path in sorted(HERE.rglob("*"))
        if path.is_file()
    }
    assert found == FILES, "golden files are added, never made again"


def test_a_database_of_level_1_opens_and_goes_on(tmp_path: Path) -> None:
    folder = unpacked(LEVEL_1 / "database.tar.xz", tmp_path)
    for start in range(2):
        with omendb.open(folder) as db:
            assert db.count() == POINTS - len(DELETED) + start
            for at, point_id in enumerate(point_ids()):
                record = db.get(point_id, include=("metadata", "vector"))
                if point_id in DELETED:
                    assert record is None
                    continue
                assert record is not None and record.vector is not None and record.metadata is not None
                assert record.metadata["n"] == (400 if point_id == RENUMBERED else at)
                assert record.vector.tolist() == vectors()[at].tolist()
                assert db.search(vectors()[at], k=1)[0].id == point_id
            assert [hit.id for hit in db.search(vectors()[0], k=5, filters={"n": {"$gte": 39}})] == ["s9", RENUMBERED][
                ::-1
            ]
            db.add_batch(vectors=vectors()[:1] + 1000, ids=["since"])
            db.flush()


def recovered(folder: Path) -> Catalog:
    """The catalog of a coordinator's folder, once all of its log is committed."""
    storage = Storage.open(RealDisk(), str(folder))
    try:
        assert storage.identity.node_id == "c1" and storage.identity.members == ("c1", "c2", "c3")
        snapshot, log = storage.recovered.snapshot, storage.recovered.log
        assert snapshot is not None
        catalog = Catalog()
        catalog.restore(snapshot.data, snapshot.index)
        for entry in log.between(snapshot.index, log.last_index):
            assert entry.kind in (COMMAND, NOOP)
            if entry.kind == COMMAND:
                catalog.apply(entry.index, entry.command)
        return catalog
    finally:
        storage.close()


@pytest.mark.parametrize("level", [LEVEL_1, LEVEL_2], ids=lambda path: path.name)
def test_a_coordinators_folder_gives_the_catalog_that_it_held(level: Path, tmp_path: Path) -> None:
    folder = unpacked(level / "coordinator.tar.xz", tmp_path)
    wanted = json.loads((level / "catalog.json").read_text())
    for _ in range(2):
        assert recovered(folder).state.to_json() == wanted


def test_the_level_before_does_not_read_what_came_after_it(tmp_path: Path) -> None:
    folder = unpacked(LEVEL_2 / "coordinator.tar.xz", tmp_path)
    storage = Storage.open(RealDisk(), str(folder))
    storage.close()
    assert storage.recovered.snapshot is not None
    with pytest.raises(FormatVersionError):
        Catalog(level=1).restore(storage.recovered.snapshot.data, storage.recovered.snapshot.index)
    with pytest.raises(FormatVersionError):
        read_held(RealDisk(), str(unpacked(LEVEL_2 / "datanode.tar.xz", tmp_path)), 1)


def test_a_data_nodes_folder_says_whose_it_is_and_what_it_holds(tmp_path: Path) -> None:
    first = unpacked(LEVEL_1 / "datanode.tar.xz", tmp_path / "1")
    identity = open_identity(RealDisk(), str(first), "golden cluster", "d1", "another one")
    assert identity.incarnation == "folder of d1"
    held = read_held(RealDisk(), str(first))
    assert held == Held(frozenset({"u.0", "u.1.77"}), 14)
    later = read_held(RealDisk(), str(unpacked(LEVEL_2 / "datanode.tar.xz", tmp_path / "2")))
    assert sorted(later.names) == ["u.0", "v.0"] and sorted(later.kept) == ["v.0"]
    assert (
        later.restored == later.revision == json.loads((LEVEL_2 / "catalog.json").read_text())["topology"]["restored"]
    )


def test_a_copy_of_a_catalog_makes_the_same_group_as_it_did(tmp_path: Path) -> None:
    copy = read_copy(RealDisk(), str(LEVEL_1 / "catalog.copy"))
    assert copy.taken_ms == TAKEN_MS
    assert state_of(copy.catalog).to_json() == json.loads((LEVEL_1 / "catalog.json").read_text())
    restored = restore(state_of(copy.catalog), TAKEN_MS, TAKEN_MS + 1000)
    assert restored.to_json() == json.loads((LEVEL_2 / "catalog.json").read_text())
    group = f"{TAKEN_MS + 1000}-golden"
    restore_member(RealDisk(), str(tmp_path / "c1"), copy, "c1", ("c1", "c2", "c3"), group, "birth")
    assert recovered(tmp_path / "c1").state == restored
