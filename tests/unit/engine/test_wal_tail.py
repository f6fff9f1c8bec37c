"""A reader process follows the log: what is published comes, each record once, whatever the writer does meanwhile."""

from __future__ import annotations

import random

import pytest

from omendb_chaos.sim.disk import SimDisk
from omendb_common.errors import CorruptionError
from omendb_engine.wal.prepare import WalFailedError, WalSettings
from omendb_engine.wal.reader import read_commit
from omendb_engine.wal.record import COMMIT_NAME, CommitPoint, RecordType
from omendb_engine.wal.tail import WalGapError, WalTail
from tests.unit.engine.wal_cases import (
    FOLDER,
    IDENTITY,
    append,
    check,
    new_disk,
    open_writer,
    scan,
    segment_path,
    segment_paths,
)


def open_tail(disk: SimDisk, after_lsn: int = 0) -> WalTail:
    return WalTail(disk, FOLDER, IDENTITY, after_lsn)


def test_nothing_is_there_before_the_first_commit() -> None:
    disk = new_disk()
    tail = open_tail(disk)
    assert tail.poll() == []
    writer = open_writer(disk)
    assert tail.poll() == []
    append(writer, 10)
    # Appended, not synced: nobody may see it yet.
    assert tail.poll() == []
    writer.sync()
    check(tail.poll(), 1, 1)
    assert tail.poll() == []
    assert tail.last_lsn == 1


def test_published_records_are_seen_without_a_sync() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    tail = open_tail(disk)
    append(writer, 10, 20)
    writer.publish()
    check(tail.poll(), 1, 2)
    assert read_commit(disk, FOLDER, IDENTITY) == CommitPoint(2, 0)
    writer.sync()
    assert read_commit(disk, FOLDER, IDENTITY) == CommitPoint(2, 2)


def test_an_idle_poll_is_one_small_read() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 10)
    writer.sync()
    tail = open_tail(disk)
    tail.poll()
    disk.faults.calls.clear()
    for _ in range(5):
        assert tail.poll() == []
    assert dict(disk.faults.calls) == {"pread": 5}


def test_follows_a_live_writer_through_everything_it_does() -> None:
    for seed in range(5):
        draw = random.Random(seed)
        disk = new_disk(seed)
        writer = open_writer(disk)
        tail = open_tail(disk)
        seen = 0
        for run in range(120):
            action = draw.random()
            if action < 0.6:
                append(writer, *(draw.choice([5, 300, 4000, 40_000]) for _ in range(draw.randint(1, 3))))
            elif action < 0.8:
                writer.sync()
            elif action < 0.85:
                writer.sync()
                writer.drop_through(seen)
            elif action < 0.95:
                records = tail.poll(upto_lsn=None if draw.random() < 0.7 else seen + draw.randint(0, 4))
                check(records, seen + 1, seen + len(records))
                seen += len(records)
            else:
                if draw.random() < 0.5:
                    writer.close()
                writer = open_writer(disk, scan(disk, after_lsn=seen).end, incarnation=run)
        writer.close()
        check(tail.poll(), seen + 1, writer.last_lsn)
        assert tail.last_lsn == writer.last_lsn


def test_a_segment_being_read_may_be_dropped() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 1000, 1000)
    writer.sync()
    tail = open_tail(disk)
    check(tail.poll(upto_lsn=1), 1, 1)
    append(writer, 13_000)
    writer.sync()
    writer.drop_through(2)
    assert segment_paths(disk) == [segment_path(2)]
    check(tail.poll(), 2, 3)


def test_a_tail_left_behind_says_so() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 1000)
    writer.sync()
    tail = open_tail(disk)
    tail.poll()
    for _ in range(4):
        append(writer, 13_000)
        writer.sync()
    writer.drop_through(4)
    with pytest.raises(WalGapError):
        tail.poll()
    with pytest.raises(WalGapError):
        open_tail(disk, after_lsn=2).poll()
    fresh = open_tail(disk, after_lsn=4)
    check(fresh.poll(), 5, 5)
    fresh.close()
    assert fresh.poll() == []


def test_starts_in_the_middle_of_a_segment() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    for _ in range(20):
        append(writer, 1500)
    writer.close()
    for after in range(21):
        records = open_tail(disk, after).poll()
        check(records, after + 1, 21)
        assert records[-1].type is RecordType.DURABLE_MARK


def test_steps_over_a_torn_tail_into_the_next_run() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 100)
    writer.sync()
    tail = open_tail(disk)
    tail.poll()
    append(writer, 2000)
    disk.damage(segment_path(1), 4096 + 700, bytes(700))
    writer = open_writer(disk, incarnation=1)
    append(writer, 50)
    writer.sync()
    check(tail.poll(), 2, 2)


def test_a_damaged_published_record_is_corruption() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 100, 100)
    writer.sync()
    data = disk.peek(segment_path(1))
    for at in range(4096 + 168, 4096 + 336):
        disk.damage(segment_path(1), at, bytes([data[at] ^ 1]))
        tail = open_tail(disk)
        with pytest.raises(CorruptionError) as caught:
            tail.poll()
        assert (caught.value.path, caught.value.offset) == (segment_path(1), 4096 + 168)
        disk.damage(segment_path(1), at, data[at : at + 1])


def test_a_record_damaged_before_a_rotation_is_corruption_not_a_gap() -> None:
    disk = new_disk()
    writer = open_writer(disk, settings=WalSettings(8192, 8192))
    append(writer, 1500)
    append(writer, 1500)
    append(writer, 3000)
    writer.sync()
    disk.damage(segment_path(1), 4096 + 2000, b"\xff")
    with pytest.raises(CorruptionError) as caught:
        open_tail(disk).poll()
    assert caught.value.path == segment_path(1)


def test_garbage_in_commit_waits_for_the_next_publication() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 10)
    writer.sync()
    disk.damage(f"{FOLDER}/{COMMIT_NAME}", 3, b"\x55")
    tail = open_tail(disk)
    assert tail.poll() == []
    append(writer, 10)
    writer.sync()
    check(tail.poll(), 1, 2)


def test_a_new_run_mends_the_commit_file() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 10)
    writer.close()
    for garbage in (b"", b"x" * 24, bytes(24)):
        disk.unlink(f"{FOLDER}/{COMMIT_NAME}")
        disk.write_file(f"{FOLDER}/{COMMIT_NAME}", [garbage])
        open_writer(disk).close()
        check(open_tail(disk).poll(), 1, 2)


def test_what_could_not_be_synced_is_never_published() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 10)
    writer.sync()
    tail = open_tail(disk)
    check(tail.poll(), 1, 1)
    append(writer, 10)
    disk.faults.fail("datasync")
    with pytest.raises(WalFailedError):
        writer.sync()
    assert tail.poll() == []
