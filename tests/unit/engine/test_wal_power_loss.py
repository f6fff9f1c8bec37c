"""A power cut at any moment: every acknowledged record is there, none that was never written, and no false alarm."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

import pytest

from omendb_chaos.sim.disk import SimDisk
from omendb_engine.wal.prepare import SegmentPreparer, WalFailedError
from omendb_engine.wal.record import SegmentHeader, encode_segment_header
from omendb_engine.wal.writer import WalWriter
from tests.unit.engine.wal_cases import FOLDER, IDENTITY, SMALL, append, check, new_disk, open_writer, scan

# (operations done when it was acknowledged, last lsn acknowledged)
Acknowledged = list[tuple[int, int]]


def acknowledge(disk: SimDisk, writer: WalWriter, acknowledged: Acknowledged) -> None:
    lsn = writer.sync()
    acknowledged.append((disk.position, lsn))


def synced_groups(disk: SimDisk, acknowledged: Acknowledged, draw: random.Random) -> None:
    writer = open_writer(disk)
    for _ in range(25):
        append(writer, *(draw.choice([10, 900, 5000]) for _ in range(draw.randint(1, 4))))
        acknowledge(disk, writer, acknowledged)
    writer.close()
    acknowledged.append((disk.position, writer.last_lsn))


def unsynced_groups(disk: SimDisk, acknowledged: Acknowledged, draw: random.Random) -> None:
    writer = open_writer(disk)
    for at in range(40):
        append(writer, draw.choice([10, 900, 3000]))
        writer.publish()
        if at % 7 == 6:
            acknowledge(disk, writer, acknowledged)


def many_runs(disk: SimDisk, acknowledged: Acknowledged, draw: random.Random) -> None:
    for run in range(6):
        writer = open_writer(disk, incarnation=run)
        for _ in range(draw.randint(0, 4)):
            append(writer, 700, 60)
            if draw.random() < 0.6:
                acknowledge(disk, writer, acknowledged)
        if draw.random() < 0.4:
            writer.close()


def failing_syncs(disk: SimDisk, acknowledged: Acknowledged, draw: random.Random) -> None:
    for run in range(5):
        disk.faults.fail("datasync", draw.randint(2, 5))
        with suppress(WalFailedError):
            writer = open_writer(disk, incarnation=run)
            for _ in range(4):
                append(writer, 800, 60)
                acknowledge(disk, writer, acknowledged)
        disk.faults.clear()


WORKLOADS = [synced_groups, unsynced_groups, many_runs, failing_syncs]


@pytest.mark.parametrize("workload", WORKLOADS)
def test_no_acknowledged_record_is_lost(
    workload: Callable[[SimDisk, Acknowledged, random.Random], None],
) -> None:
    for seed in range(2):
        disk = new_disk(seed)
        acknowledged: Acknowledged = []
        workload(disk, acknowledged, random.Random(seed))
        states = 0
        for survivor in disk.crash_states(300, random.Random(seed)):
            states += 1
            check_survivor(survivor, promised(survivor, acknowledged))
        assert states > 100


def promised(survivor: SimDisk, acknowledged: Acknowledged) -> int:
    assert survivor.crash is not None
    at = survivor.crash.at
    return max((lsn for position, lsn in acknowledged if position <= at), default=0)


def check_survivor(survivor: SimDisk, at_least: int) -> None:
    found = scan(survivor)
    records = list(found)
    check(records, 1, len(records))
    assert len(records) >= at_least, survivor.crash


def test_a_second_power_cut_during_recovery_loses_nothing_either() -> None:
    disk = new_disk(4)
    acknowledged: Acknowledged = []
    unsynced_groups(disk, acknowledged, random.Random(4))
    for survivor in disk.crash_states(40, random.Random(4)):
        at_least = promised(survivor, acknowledged)
        before = len(list(scan(survivor)))
        writer = open_writer(survivor, incarnation=1)
        append(writer, 600, 600)
        later: Acknowledged = []
        acknowledge(survivor, writer, later)
        assert later[0][1] == before + 2
        for again in survivor.crash_states(25, random.Random(5)):
            check_survivor(again, max(at_least, promised(again, later)))


def test_dropped_segments_may_come_back_in_any_order() -> None:
    disk = new_disk(6)
    writer = open_writer(disk)
    for _ in range(20):
        append(writer, 5000)
        writer.sync()
    disk.settle()
    writer.drop_through(15)
    for survivor in disk.crash_states(300, random.Random(6)):
        found = scan(survivor, after_lsn=15)
        check(list(found), 16, 20)
        resumed = open_writer(survivor, found.end, incarnation=1)
        append(resumed, 10)
        resumed.drop_through(15)
        resumed.close()
        check(list(scan(survivor, after_lsn=15))[:-1], 16, 21)


def test_a_process_killed_between_a_header_and_its_fsync_leaves_no_trap() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 100)
    writer.sync()
    end = scan(disk).end
    blank = SegmentPreparer(disk, FOLDER, SMALL, next_seq=2, executor=None).take(0)
    header = SegmentHeader(IDENTITY, 2, 2, 1, end.last_lsn, end.last_crc)
    blank.file.pwrite([encode_segment_header(header)], 0)
    # Killed here. The page cache shows the header, so the next run builds on it.
    writer = open_writer(disk, incarnation=1)
    append(writer, 100)
    acknowledged: Acknowledged = []
    acknowledge(disk, writer, acknowledged)
    for survivor in disk.crash_states(300, random.Random(1)):
        check_survivor(survivor, promised(survivor, acknowledged))
