"""Refusing writes before the disk is full, and a reserve for when it is full all the same."""

from __future__ import annotations

import errno

import pytest

from omendb_chaos.sim.disk import SimDisk
from omendb_common.disk import DiskUsage
from omendb_common.errors import DiskFullError
from omendb_engine.ballast import BALLAST_NAME, Ballast, DiskGuard, DiskWatermarks, WriteKind

PATH = f"/db/{BALLAST_NAME}"


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)

    def mono_s(self) -> float:
        return self.now_s


def new_disk(capacity_bytes: int | None = None) -> SimDisk:
    disk = SimDisk(capacity_bytes=capacity_bytes)
    disk.mkdir("/db")
    return disk


def guard_at(disk: SimDisk, clock: Clock, used_percent: float, marks: DiskWatermarks | None = None) -> DiskGuard:
    set_used(disk, used_percent)
    return DiskGuard(disk, "/db", clock, marks)


def set_used(disk: SimDisk, used_percent: float) -> None:
    disk.set_usage(DiskUsage(1_000_000, round(10_000 * (100 - used_percent))))


@pytest.mark.parametrize(
    ("used_percent", "refused"),
    [
        (0, set()),
        (89.99, set()),
        (90, {"upsert"}),
        (94.99, {"upsert"}),
        (95, {"upsert", "update"}),
        (100, {"upsert", "update"}),
    ],
)
def test_watermarks_at_the_bound_and_beside_it(used_percent: float, refused: set[str]) -> None:
    guard = guard_at(new_disk(), Clock(), used_percent)
    kinds: tuple[WriteKind, ...] = ("upsert", "update", "delete")
    for kind in kinds:
        if kind not in refused:
            guard.check(kind, 100)
            continue
        with pytest.raises(DiskFullError) as caught:
            guard.check(kind, 100)
        error = caught.value
        assert error.field == "disk"
        assert error.bound == ("below 90 % used" if kind == "upsert" else "below 95 % used")
        assert error.mend
        assert "storage.disk_" in error.mend
    assert guard.may_compact(1000) == (used_percent < 90)


def test_compaction_must_fit() -> None:
    guard = guard_at(new_disk(), Clock(), 80)
    assert guard.may_compact(149_999)
    assert not guard.may_compact(150_001)


def test_the_volume_is_asked_only_now_and_then() -> None:
    disk, clock = new_disk(), Clock()
    guard = guard_at(disk, clock, 10, DiskWatermarks(poll_ms=1000, poll_writes=50, poll_bytes=1 << 20))

    def asked() -> int:
        return disk.faults.calls["usage"]

    for _ in range(50):
        guard.check("upsert")
    assert asked() == 1
    guard.check("upsert")
    assert asked() == 2
    guard.check("upsert", 2 << 20)
    assert asked() == 3
    clock.now_s += 0.9
    guard.check("upsert")
    assert asked() == 3
    clock.now_s += 0.2
    guard.check("upsert")
    assert asked() == 4
    guard.refresh()
    assert asked() == 5


def test_writes_resume_when_space_returns() -> None:
    disk, clock = new_disk(), Clock()
    guard = guard_at(disk, clock, 93)
    with pytest.raises(DiskFullError):
        guard.check("upsert")
    set_used(disk, 50)
    clock.now_s += 10
    guard.check("upsert")


def test_the_ballast_is_real_blocks_that_grow_and_can_be_released() -> None:
    disk = new_disk()
    ballast = Ballast(disk, "/db")
    assert ballast.size_bytes == 0
    assert ballast.release() == 0
    assert ballast.establish(1 << 20, 8 << 20)
    assert ballast.size_bytes == disk.used_bytes() == 2 << 20
    assert ballast.establish(2 << 20, 8 << 20)
    assert ballast.establish(1 << 20, 8 << 20)
    assert ballast.size_bytes == 4 << 20
    assert ballast.establish(64 << 20, 8 << 20)
    assert ballast.size_bytes == 8 << 20
    assert ballast.release() == 8 << 20
    assert disk.used_bytes() == 0
    assert ballast.establish(1 << 20, 8 << 20)


def test_no_ballast_is_wanted() -> None:
    disk = new_disk()
    assert Ballast(disk, "/db").establish(1 << 20, 0)
    assert not disk.exists(PATH)


def test_released_space_can_be_used_at_once() -> None:
    disk = new_disk(capacity_bytes=4 << 20)
    ballast = Ballast(disk, "/db")
    assert ballast.establish(1 << 20, 8 << 20)
    disk.write_file("/db/other", [bytes(2 << 20)])
    with pytest.raises(OSError):
        disk.write_file("/db/more", [b"x"])
    ballast.release()
    disk.write_file("/db/more", [b"x"])
    # There is no room for it now, and half of it is not kept.
    assert not ballast.establish(1 << 20, 8 << 20)
    assert ballast.size_bytes == 0
    disk.unlink("/db/other")
    assert ballast.establish(1 << 20, 8 << 20)


def test_other_errors_are_not_taken_for_a_full_disk() -> None:
    disk = new_disk()
    disk.faults.fail("reserve", 1, errno.EIO)
    with pytest.raises(OSError):
        Ballast(disk, "/db").establish(1 << 20, 8 << 20)
