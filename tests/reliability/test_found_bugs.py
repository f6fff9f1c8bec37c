"""Bugs of the track record in chaos/README.md that the short slices do not reach: the run that shows each."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from omendb_chaos.rows.power import problems_of
from omendb_chaos.session import PATH, BusyDisk, Session, open_folder
from omendb_common.disk import DiskUsage
from omendb_common.errors import CorruptionError, DiskFullError, ReplicaFailedError, UnavailableError
from omendb_common.ids import IdColumn
from omendb_engine.segment.check import check_replica_files


def filled(changes: Mapping[str, Any] | None = None) -> Session:
    session = Session(changes=changes).open()
    session.create()
    session.upsert(session.rows(range(12)))
    return session


def test_a_lost_catalog_is_damage_and_no_reason_to_delete_collections() -> None:
    session = filled()
    session.close()
    session.disk.unlink(f"{PATH}/catalog.json")
    with pytest.raises(CorruptionError, match=r"catalog\.json"):
        open_folder(session.disk, session.settings)
    assert any("/wal/" in path for path in session.disk.paths()), "the collection is still there"


def test_writers_do_not_hang_when_the_volume_cannot_be_asked() -> None:
    session = filled()
    session.clock.pass_time(10)
    session.disk.faults.fail("usage", sticky=True)
    replica = session.replica()
    errors: list[BaseException] = []

    def delete() -> None:
        try:
            replica.delete(IdColumn.of([1]))
        except UnavailableError as error:
            errors.append(error)

    threads = [threading.Thread(target=delete, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(errors) == 3
    assert all(isinstance(e, UnavailableError) and e.outcome == "none" for e in errors)
    session.disk.faults.clear()
    assert session.delete([1])
    session.check()


def test_a_collection_whose_drop_is_in_doubt_promises_nothing() -> None:
    session = filled()
    session.disk.faults.fail("sync_dir", path_part=PATH)
    with pytest.raises(UnavailableError) as caught:
        session.folder.drop("points")
    assert caught.value.outcome == "unknown"
    with pytest.raises(ReplicaFailedError):
        session.replica().delete(IdColumn.of([1]))


def test_a_catalog_change_that_found_no_space_says_that_nothing_happened() -> None:
    session = filled()
    session.disk.faults.fail("pwrite", error=errno.ENOSPC, path_part="catalog.json")
    with pytest.raises(DiskFullError):
        session.folder.rename("points", "other")
    session.disk.faults.clear()
    assert session.folder.names() == ["points"]
    session.reopen()


@pytest.mark.parametrize("kind", ["unlink", "listdir"])
def test_old_manifests_that_cannot_be_removed_are_in_nobodys_way(kind: str) -> None:
    session = filled({"index.kind": "flat"})
    session.disk.faults.fail(kind, sticky=True, path_part="collections")
    session.tolerant = True
    for start in range(20, 40, 4):
        session.upsert(session.rows(range(start, start + 4)))
        session.flush()
    session.disk.faults.clear()
    session.tolerant = False
    session.compact()
    session.check()
    session.reopen(clean=False)
    assert session.folder.replica("points").count() == len(session.points())


def test_deletes_free_space_on_a_volume_above_its_mark() -> None:
    session = filled({"index.kind": "flat"})
    session.flush()
    session.disk.set_usage(DiskUsage(100 << 20, 8 << 20))
    session.clock.pass_time(10)
    session.delete(list(range(11)))
    session.compact()
    session.retire()
    assert session.replica().stats().segments[0].rows == 1
    assert session.disk.listdir(f"{session.replica().path}/segments") == ["segment_000003"]
    session.check()


def test_the_others_are_closed_when_one_collection_cannot_be() -> None:
    session = filled({"storage.durability": "os"})
    session.create("second")
    session.upsert(session.rows(range(3)), "second")
    session.disk.faults.fail("datasync", path_part="/wal/")
    with pytest.raises(UnavailableError):
        session.folder.close()
    session.abandon()
    second = open_folder(session.disk.copy(), session.settings).replica("second")
    assert second.count() == 3
    assert session.disk._handles.total() == 0, "a file was left open"


def test_a_full_disk_asks_for_the_smallest_log_file_that_will_do() -> None:
    disk = BusyDisk(capacity_bytes=1 << 20)
    session = Session(disk, {"storage.wal_segment_bytes": 4 << 20}).open()
    session.create()
    for number in range(12):
        session.upsert(session.rows([number], text_bytes=500))
    assert session.history.newest["points"], f"nothing was stored on a disk of 1 MiB: {session.refused[-1:]}"
    session.check()


def power_cuts(session: Session) -> list[str]:
    """What is wrong with disks that a power cut at the end of the session may leave."""
    last = session.disk.position - 20
    survivors = session.disk.crash_states(4 * session.disk.position, random.Random(0))
    late = [d for d in survivors if d.crash is not None and d.crash.at > last]
    return [problem for disk in late for problem in problems_of(session, disk, deep=False)]


@pytest.mark.parametrize("nth", range(1, 8))
def test_a_folder_whose_name_could_not_be_synced_is_not_taken_for_durable(nth: int) -> None:
    session = filled({"index.kind": "flat"})
    session.disk.faults.fail("sync_dir", nth, path_part=session.replica().path)
    session.tolerant = True
    session.flush()  # makes the folder of delete sets, among others
    session.disk.faults.clear()
    session.reopen(clean=False)
    for number in range(5):  # until no kept manifest is older than the first delete set
        session.delete([number])
        session.upsert(session.rows([number + 50]))
        session.flush()
    session.tolerant = False
    session.check(settle=True)
    assert power_cuts(session) == []


def test_an_orphan_goes_only_after_the_catalog_that_names_it() -> None:
    session = filled()
    session.tolerant = True
    session.disk.faults.fail("sync_dir", path_part=PATH)
    session.drop("points")
    session.disk.faults.clear()
    session.reopen(clean=False)
    session.tolerant = False
    session.check(settle=True)
    assert power_cuts(session) == []


@pytest.mark.parametrize("nth", range(1, 8))
def test_files_of_a_manifest_of_unknown_fate_are_not_removed(nth: int) -> None:
    session = filled()
    session.flush()
    session.upsert(session.rows(range(20, 23)))
    session.disk.faults.fail("sync_dir", nth, path_part=session.replica().path)
    session.tolerant = True
    session.flush()
    session.disk.faults.clear()
    session.retire()
    session.abandon()
    folder = f"{PATH}/collections"
    for uuid in session.disk.listdir(folder):
        assert check_replica_files(session.disk, f"{folder}/{uuid}") == []
