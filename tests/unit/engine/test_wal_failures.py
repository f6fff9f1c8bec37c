"""A failed write or fsync stops the log for good; a full disk that was noticed in time does not."""

from __future__ import annotations

import errno
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from omendb_chaos.sim.disk import SimDisk
from omendb_chaos.sim.faults import SYNC_KINDS, WRITE_KINDS
from omendb_chaos.sim.oplog import SyncFile, SyncFolder
from omendb_common.errors import DatabaseClosedError, DiskFullError, ReplicaFailedError
from omendb_engine.wal.prepare import WalFailedError, WalSettings
from omendb_engine.wal.writer import WalWriter
from tests.unit.engine.wal_cases import append, check, new_disk, open_writer, scan, segment_path, segment_paths


def workload(disk: SimDisk) -> tuple[list[int], WalWriter | None, BaseException | None]:
    """Two runs of a dozen groups over several segments; (acknowledged lsns, last writer, what stopped it)."""
    acknowledged: list[int] = []
    writer = None
    try:
        for run in range(2):
            writer = open_writer(disk, incarnation=run)
            for at in range(12):
                append(writer, 2000 + at, 500)
                acknowledged.append(writer.sync())
                if at == 8:
                    writer.drop_through(0)
            writer.close()
            acknowledged.append(writer.last_lsn)
    except (ReplicaFailedError, DiskFullError, OSError) as error:
        return acknowledged, writer, error
    return acknowledged, writer, None


def calls_of_the_workload() -> dict[str, int]:
    disk = new_disk()
    disk.faults.calls.clear()
    assert workload(disk)[2] is None
    return dict(disk.faults.calls)


def failed_syncs(disk: SimDisk) -> list[int]:
    return [at for at, op in enumerate(disk.log) if isinstance(op, SyncFile | SyncFolder) and not op.ok]


@pytest.mark.parametrize("kind", SYNC_KINDS)
def test_after_any_failed_sync_there_is_no_other_one(kind: str) -> None:
    total = calls_of_the_workload()[kind]
    assert total >= 2
    for nth in range(1, total + 1):
        disk = new_disk()
        disk.faults.fail(kind, nth)
        acknowledged, writer, error = workload(disk)
        assert isinstance(error, WalFailedError), (kind, nth)
        assert error.outcome == "unknown"
        assert isinstance(error.__cause__, OSError)
        (failure,) = failed_syncs(disk)
        assert not any(isinstance(op, SyncFile | SyncFolder) for op in disk.log[failure + 1 :])
        if writer is not None:
            assert_dead(disk, writer)
        # The machine goes on without a power cut: what was acknowledged is there, and stays.
        disk.faults.clear()
        last = max(acknowledged, default=0)
        records = list(scan(disk))
        assert len(records) >= last
        check(records, 1, len(records))


def assert_dead(disk: SimDisk, writer: WalWriter) -> None:
    before = disk.position
    for call in (lambda: append(writer, 10), writer.sync, writer.publish):
        # It may have been the closing that failed.
        with pytest.raises((WalFailedError, DatabaseClosedError)) as caught:
            call()
        assert getattr(caught.value, "outcome", "none") == "none"
    assert writer.failed
    writer.close()
    assert disk.position == before


@pytest.mark.parametrize("kind", WRITE_KINDS)
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_after_any_failed_write_everything_acknowledged_is_there(kind: str, code: int) -> None:
    for nth in range(1, calls_of_the_workload().get(kind, 0) + 1):
        for sticky in (False, True):
            disk = new_disk()
            disk.faults.fail(kind, nth, code, sticky=sticky)
            acknowledged, writer, _ = workload(disk)
            disk.faults.clear()
            if writer is not None:
                writer.close()
            found = scan(disk, known_durable_lsn=max(acknowledged, default=0))
            records = list(found)
            check(records, 1, len(records))
            # And the log goes on from there.
            writer = open_writer(disk, found.end, incarnation=9)
            append(writer, 10)
            writer.close()
            check(list(scan(disk))[:-1], 1, len(records) + 1)


def test_what_a_failed_fsync_lost_is_written_again_before_it_counts() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 3000)
    writer.sync()
    append(writer, 3000)
    disk.faults.fail("datasync")
    with pytest.raises(WalFailedError):
        writer.sync()
    # The page cache still shows record 2, so recovery takes it as good, although the disk has it not.
    disk.faults.clear()
    found = scan(disk)
    assert len(list(found)) == 2
    assert found.end.unsynced is not None
    writer = open_writer(disk, found.end, incarnation=1)
    append(writer, 100)
    writer.sync()
    for survivor in disk.crash_states(200, random.Random(1)):
        assert survivor.crash is not None
        if survivor.crash.at == disk.position:
            check(list(scan(survivor)), 1, 3)


def test_a_full_disk_before_the_first_byte_of_a_record_is_harmless() -> None:
    for kind in ("open", "allocate", "sync", "pwrite"):
        for nth in (1, 2):
            disk = new_disk()
            writer = open_writer(disk)
            disk.faults.fail(kind, nth, errno.ENOSPC)
            refused = 0
            for _ in range(2):
                try:
                    append(writer, 1000)
                except DiskFullError as error:
                    refused += 1
                    assert error.field == "disk"
                    assert error.mend
                    assert not writer.failed
            if not refused:
                continue
            while writer.last_lsn < 5:
                append(writer, 1000)
            writer.sync()
            check(list(scan(disk)), 1, 5)


def test_a_full_disk_at_rotation_leaves_the_log_usable_once_space_returns() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 9000)
    writer.sync()
    disk.capacity_bytes = disk.used_bytes() + 4096
    for _ in range(3):
        with pytest.raises(DiskFullError):
            append(writer, 9000)
    # Smaller ones still fit into the segment that is there.
    append(writer, 1000)
    assert writer.sync() == 2
    disk.capacity_bytes += 1 << 20
    append(writer, 9000)
    writer.close()
    assert len(segment_paths(disk)) == 2
    check(list(scan(disk))[:-1], 1, 3)


def test_a_failure_in_the_background_stops_the_next_operation() -> None:
    disk = new_disk()
    with ThreadPoolExecutor(1) as executor:
        writer = open_writer(disk, prepare=executor)
        disk.faults.fail("datasync", path_part=segment_path(2))
        append(writer, 9000)
        executor.submit(lambda: None).result()
        assert_dead(disk, writer)
    assert len(failed_syncs(disk)) == 1


def test_a_full_disk_in_the_background_is_tried_again_when_needed() -> None:
    disk = new_disk()
    with ThreadPoolExecutor(1) as executor:
        writer = open_writer(disk, prepare=executor)
        disk.faults.fail("allocate", 2, errno.ENOSPC)
        append(writer, 9000)
        executor.submit(lambda: None).result()
        append(writer, 9000)
        writer.close()
    check(list(scan(disk))[:-1], 1, 2)


def test_a_segment_that_cannot_be_removed_is_tried_again() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    for _ in range(6):
        append(writer, 6000)
    disk.faults.fail("unlink", 1)
    writer.drop_through(4)
    assert len(segment_paths(disk)) == 2
    assert not writer.failed
    writer.drop_through(4)
    assert len(segment_paths(disk)) == 1


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_large_group_goes_to_the_disk_in_pieces_and_fails_as_one(nth: int) -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 100)
    assert writer.sync() == 1
    before = disk.faults.calls["pwrite"]
    disk.faults.fail("pwrite", nth, path_part=segment_path(2))
    if nth == 1:  # the segment's header
        with pytest.raises(WalFailedError):
            append(writer, 3 << 20)
        return
    with pytest.raises(WalFailedError):
        append(writer, 3 << 20)
    assert disk.faults.calls["pwrite"] - before >= nth
    assert_dead(disk, writer)
    disk.faults.clear()
    found = scan(disk)
    check(list(found), 1, 1)
    writer = open_writer(disk, found.end, incarnation=1)
    append(writer, 3 << 20, 10, 1 << 20)
    writer.close()
    check(list(scan(disk))[:-1], 1, 4)


def test_what_nobody_synced_is_synced_behind_the_writes() -> None:
    disk = new_disk()
    with ThreadPoolExecutor(1) as behind:
        writer = open_writer(
            disk, settings=WalSettings(segment_bytes=16 << 20, first_segment_bytes=16 << 20), prepare=behind
        )
        for _ in range(6):
            append(writer, 1 << 20)
            writer.publish()
    assert 4 <= writer.durable_lsn <= writer.last_lsn
    writer.close()


def test_a_sync_behind_the_writes_that_fails_stops_the_log() -> None:
    disk = new_disk()
    with ThreadPoolExecutor(1) as behind:
        writer = open_writer(
            disk, settings=WalSettings(segment_bytes=16 << 20, first_segment_bytes=16 << 20), prepare=behind
        )
        append(writer, 8 << 20)
        # The next sync of the only segment with records is one that nobody asked for.
        disk.faults.fail("datasync", path_part=segment_paths(disk)[0])
        writer.publish()
    assert writer.failed
    with pytest.raises(WalFailedError) as refused:
        append(writer, 100)
    assert refused.value.outcome == "none"
    assert writer.durable_lsn == 0
    writer.close()
    assert not any(isinstance(op, SyncFile) for op in disk.log[failed_syncs(disk)[0] + 1 :])
