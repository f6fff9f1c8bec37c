"""The next log segment keeps step with this one; whoever needs it early gets the rest reserved."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from omendb_chaos.sim.disk import SimDisk
from omendb_common.errors import DiskFullError
from omendb_engine.wal.prepare import SegmentPreparer, WalFailedError, WalSettings
from tests.unit.engine.wal_cases import FOLDER, append, check, new_disk, open_writer, scan, segment_path, segment_paths

STEP = 4096
SIZES = WalSettings(segment_bytes=32 * STEP, first_segment_bytes=8 * STEP)


class ByHand(Executor):
    """Runs what was submitted when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run(self) -> int:
        """Run all that waits; how many that were."""
        tasks, self.waiting = self.waiting, []
        for future, task in tasks:
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(task())
            except Exception as error:
                future.set_exception(error)
        return len(tasks)


def preparer(disk: SimDisk, executor: Executor | None) -> SegmentPreparer:
    disk.mkdir(FOLDER)
    disk.settle()
    disk.faults.calls.clear()
    return SegmentPreparer(disk, FOLDER, SIZES, next_seq=1, executor=executor)


def size_of(disk: SimDisk, seq: int = 1) -> int:
    return disk.size(segment_path(seq))


def test_zeros_keep_step_with_what_is_written() -> None:
    disk, hand = new_disk(), ByHand()
    making = preparer(disk, hand)
    for used in range(8):
        making.prepare_ahead(100, used / 8)
        making.prepare_ahead(100, used / 8)
        assert hand.run() <= 1, "one step at a time"
        assert used / 8 * 8 * STEP <= size_of(disk) if used else not segment_paths(disk)
        assert not used or size_of(disk) <= (used + 1) * STEP
    making.prepare_ahead(100, 0.9)
    hand.run()
    assert size_of(disk) == 8 * STEP
    calls = disk.faults.calls.copy()
    blank = making.take(100)
    assert (blank.seq, blank.size) == (1, 8 * STEP)
    assert disk.faults.calls == calls, "made whole in the background, name and all"
    assert "reserve" not in calls


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_what_lacks_when_it_is_needed_is_reserved(steps: int) -> None:
    disk, hand = new_disk(), ByHand()
    making = preparer(disk, hand)
    for _ in range(steps):
        making.prepare_ahead(100, 1.0)
        hand.run()
    making.prepare_ahead(100, 1.0)  # one step that nobody comes to take
    blank = making.take(100)
    assert (blank.size, disk.faults.calls["allocate"], disk.faults.calls["reserve"]) == (8 * STEP, max(steps, 1), 1)
    assert blank.file.pread(blank.size + 1, 0) == bytes(blank.size)
    assert hand.run() == 1
    assert disk.faults.calls["allocate"] == max(steps, 1), "the step was withdrawn"
    for survivor in disk.crash_states(50, random.Random(1)):
        assert survivor.crash is not None
        if survivor.crash.at == disk.position:
            assert size_of(survivor) == blank.size


def test_for_large_groups_all_is_reserved_at_once() -> None:
    disk, hand = new_disk(), ByHand()
    preparer(disk, hand)
    making = SegmentPreparer(disk, FOLDER, WalSettings(), next_seq=1, executor=hand)
    making.prepare_ahead(1 << 20, 0.1)
    assert hand.run() == 1
    making.prepare_ahead(1 << 20, 0.9)
    making.prepare_ahead(100, 0.9)
    assert hand.run() == 0, "it is whole"
    calls = disk.faults.calls.copy()
    blank = making.take(1 << 20)
    assert blank.size == size_of(disk) > 2 << 20
    assert disk.faults.calls == calls
    assert (calls["reserve"], calls["allocate"]) == (1, 0)
    making.take(5 << 20)
    assert (disk.faults.calls["reserve"], disk.faults.calls["allocate"]) == (2, 0)


def test_one_that_turns_out_too_small_is_grown() -> None:
    disk, hand = new_disk(), ByHand()
    making = preparer(disk, hand)
    for _ in range(8):
        making.prepare_ahead(100, 1.0)
        hand.run()
    assert making.take(20 * STEP).size == size_of(disk) == 20 * STEP
    assert making.take(40 * STEP).size == size_of(disk, 2) == 40 * STEP


def test_what_was_begun_and_not_needed_is_removed() -> None:
    disk, hand = new_disk(), ByHand()
    making = preparer(disk, hand)
    making.prepare_ahead(100, 1.0)
    hand.run()
    making.prepare_ahead(100, 1.0)
    making.discard()
    hand.run()
    assert not segment_paths(disk)


def test_a_step_that_finds_the_disk_full_is_not_repeated_before_it_is_needed() -> None:
    disk, hand = new_disk(), ByHand()
    making = preparer(disk, hand)
    making.prepare_ahead(100, 1.0)
    hand.run()
    disk.faults.fail("allocate", 1, errno.ENOSPC)
    for _ in range(3):
        making.prepare_ahead(100, 1.0)
        hand.run()
    assert making.background_failure() is None
    assert not segment_paths(disk)
    assert disk.faults.calls["allocate"] == 2
    blank = making.take(100)
    assert blank.seq == 2, "a number is used once"
    assert size_of(disk, 2) == blank.size


def test_a_step_that_fails_otherwise_is_told() -> None:
    disk, hand = new_disk(), ByHand()
    making = preparer(disk, hand)
    disk.faults.fail("datasync", 1)
    making.prepare_ahead(100, 1.0)
    assert making.background_failure() is None
    hand.run()
    assert isinstance(making.background_failure(), WalFailedError)
    with pytest.raises(WalFailedError):
        making.take(100)
    assert not segment_paths(disk)


@pytest.mark.parametrize("kind", ["open", "allocate", "reserve", "sync"])
def test_no_room_when_it_is_needed_leaves_nothing_behind(kind: str) -> None:
    disk = new_disk()
    making = preparer(disk, None)
    fault = disk.faults.fail(kind, 1, errno.ENOSPC, sticky=True)
    with pytest.raises(DiskFullError):
        making.take(8 * STEP)
    assert fault.fired
    assert not segment_paths(disk)
    disk.faults.clear()
    assert making.take(8 * STEP).size >= 8 * STEP


def test_records_span_zeros_and_what_is_reserved() -> None:
    disk, hand = new_disk(), ByHand()
    writer = open_writer(disk, settings=SIZES, prepare=hand)
    acknowledged: list[tuple[int, int]] = []
    for at in range(60):
        append(writer, 2000 + at, 500)
        lsn = writer.sync()
        acknowledged.append((disk.position, lsn))
        if at % 3 == 0:
            hand.run()
    assert disk.faults.calls["allocate"] > 5
    assert disk.faults.calls["reserve"] > 2
    for survivor in disk.crash_states(200, random.Random(2)):
        assert survivor.crash is not None
        at_least = max((lsn for position, lsn in acknowledged if position <= survivor.crash.at), default=0)
        records = list(scan(survivor))
        check(records, 1, len(records))
        assert len(records) >= at_least, survivor.crash
