"""One suite for every disk: the simulated one must behave like the real one."""

from __future__ import annotations

import errno
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omendb_chaos.sim.disk import SimDisk
from omendb_common.disk import IOV_MAX, Disk, DiskFile, RealDisk, make_folder, parent_of, replace_file


@pytest.fixture(params=["real", "real-no-mmap", "sim"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Disk, str]:
    if request.param == "sim":
        disk = SimDisk()
        disk.mkdir("/data/x")
        return disk, "/data/x"
    return RealDisk(no_mmap=request.param == "real-no-mmap"), str(tmp_path)


def test_is_the_port(place: tuple[Disk, str]) -> None:
    disk, folder = place
    assert isinstance(disk, Disk)
    assert isinstance(disk.open(f"{folder}/f", "create"), DiskFile)


def test_gather_write_of_any_buffers(place: tuple[Disk, str]) -> None:
    disk, folder = place
    parts: list[Any] = [
        b"abc",
        bytearray(b"de"),
        memoryview(b"fgh")[1:],
        np.arange(3, dtype=np.float32),
        np.arange(4, dtype=np.float16).reshape(2, 2),
        np.zeros((0, 4)),
        b"",
    ]
    expected = b"".join(bytes(memoryview(p).cast("B")) if memoryview(p).nbytes else b"" for p in parts)
    file = disk.open(f"{folder}/f", "create")
    assert file.pwrite(parts, 5) == len(expected)
    assert file.pread(1000, 0) == bytes(5) + expected
    assert file.size() == disk.size(f"{folder}/f") == 5 + len(expected)
    assert file.pwrite([], 0) == 0
    file.close()


def test_more_parts_than_one_system_call_takes(place: tuple[Disk, str]) -> None:
    disk, folder = place
    parts = [bytes([i % 251]) * 3 for i in range(2 * IOV_MAX + 7)]
    file = disk.open(f"{folder}/f", "create")
    assert file.pwrite(parts, 0) == 3 * len(parts)
    assert file.pread(1 << 20, 0) == b"".join(parts)


def test_reading_past_the_end_is_short(place: tuple[Disk, str]) -> None:
    disk, folder = place
    disk.write_file(f"{folder}/f", [b"0123456789"])
    file = disk.open(f"{folder}/f", "r")
    assert (file.pread(4, 3), file.pread(100, 7), file.pread(5, 10), file.pread(5, 99)) == (b"3456", b"789", b"", b"")


def test_allocate_writes_zeros_and_never_shrinks(place: tuple[Disk, str]) -> None:
    disk, folder = place
    file = disk.open(f"{folder}/f", "create")
    file.pwrite([b"xy"], 0)
    file.allocate(10_000)
    assert file.pread(20_000, 0) == b"xy" + bytes(9_998)
    file.allocate(5)
    assert file.size() == 10_000
    file.datasync()
    file.sync()


def test_reserve_reads_as_zeros_and_never_shrinks(place: tuple[Disk, str]) -> None:
    disk, folder = place
    file = disk.open(f"{folder}/f", "create")
    file.pwrite([b"xy"], 0)
    file.reserve(10_000)
    assert file.pread(20_000, 0) == b"xy" + bytes(9_998)
    file.reserve(5)
    assert file.size() == 10_000
    file.pwrite([b"z"], 9_999)
    file.allocate(10_000)
    assert file.pread(20_000, 0) == b"xy" + bytes(9_997) + b"z"
    file.sync()


def test_to_begin_a_sync_changes_nothing(place: tuple[Disk, str]) -> None:
    disk, folder = place
    file = disk.open(f"{folder}/f", "create")
    file.pwrite([b"x" * 10_000], 0)
    file.begin_sync(0, 5000)
    file.begin_sync(50_000, 10)
    assert file.pread(20_000, 0) == b"x" * 10_000
    file.datasync()


def test_truncate_cuts_and_extends_with_zeros(place: tuple[Disk, str]) -> None:
    disk, folder = place
    file = disk.open(f"{folder}/f", "create")
    file.pwrite([b"a" * 5000], 0)
    file.truncate(4100)
    file.truncate(4200)
    assert file.pread(9000, 0) == b"a" * 4100 + bytes(100)


def test_open_modes(place: tuple[Disk, str]) -> None:
    disk, folder = place
    for mode in ("r", "rw"):
        with pytest.raises(FileNotFoundError):
            disk.open(f"{folder}/f", mode)
    with pytest.raises(FileNotFoundError):
        disk.open(f"{folder}/missing/f", "create")
    disk.open(f"{folder}/f", "create").close()
    with pytest.raises(FileExistsError):
        disk.open(f"{folder}/f", "create")
    with pytest.raises(OSError) as caught:
        disk.open(f"{folder}/f", "r").pwrite([b"x"], 0)
    assert caught.value.errno == errno.EBADF
    with pytest.raises(NotADirectoryError):
        disk.open(f"{folder}/f/g", "create")


def test_a_closed_file_refuses(place: tuple[Disk, str]) -> None:
    disk, folder = place
    file = disk.open(f"{folder}/f", "create")
    file.close()
    file.close()
    calls: list[Callable[[], object]] = [
        lambda: file.pread(1, 0),
        lambda: file.pwrite([b"x"], 0),
        lambda: file.reserve(10),
        lambda: file.begin_sync(0, 1),
        file.datasync,
        file.sync,
        file.size,
    ]
    for call in calls:
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EBADF


def test_read_and_map(place: tuple[Disk, str]) -> None:
    disk, folder = place
    data = random.Random(1).randbytes(10_000)
    assert disk.write_file(f"{folder}/f", [data[:5], data[5:]]) == len(data)
    view = disk.map(f"{folder}/f")
    assert disk.read(f"{folder}/f") == view == data
    assert view.readonly
    disk.unlink(f"{folder}/f")
    assert view == data
    disk.write_file(f"{folder}/empty", [])
    assert len(disk.map(f"{folder}/empty")) == 0
    assert disk.read(f"{folder}/empty") == b""
    for call in (disk.read, disk.map, disk.size, disk.unlink):
        with pytest.raises(FileNotFoundError):
            call(f"{folder}/f")
    with pytest.raises(FileExistsError):
        disk.write_file(f"{folder}/empty", [b"x"])
    assert disk.read(f"{folder}/empty") == b""


def test_an_unlinked_file_lives_while_it_is_open(place: tuple[Disk, str]) -> None:
    disk, folder = place
    disk.write_file(f"{folder}/f", [b"old"])
    file = disk.open(f"{folder}/f", "rw")
    disk.unlink(f"{folder}/f")
    assert not disk.exists(f"{folder}/f")
    disk.write_file(f"{folder}/f", [b"new"])
    file.pwrite([b"OLD"], 0)
    file.datasync()
    assert (file.pread(3, 0), disk.read(f"{folder}/f")) == (b"OLD", b"new")
    file.close()


def test_rename(place: tuple[Disk, str]) -> None:
    disk, folder = place
    disk.write_file(f"{folder}/a", [b"a"])
    disk.write_file(f"{folder}/b", [b"b"])
    disk.rename(f"{folder}/a", f"{folder}/b")
    assert disk.listdir(folder) == ["b"]
    assert disk.read(f"{folder}/b") == b"a"
    disk.rename(f"{folder}/b", f"{folder}/b")
    disk.mkdir(f"{folder}/d/e")
    disk.write_file(f"{folder}/d/e/f", [b"f"])
    disk.rename(f"{folder}/d/e", f"{folder}/moved")
    assert disk.read(f"{folder}/moved/f") == b"f"
    assert disk.listdir(f"{folder}/d") == []
    with pytest.raises(FileNotFoundError):
        disk.rename(f"{folder}/a", f"{folder}/c")
    with pytest.raises(IsADirectoryError):
        disk.rename(f"{folder}/b", f"{folder}/d")
    with pytest.raises(NotADirectoryError):
        disk.rename(f"{folder}/d", f"{folder}/b")
    with pytest.raises(OSError) as caught:
        disk.rename(f"{folder}/d", f"{folder}/moved")
    assert caught.value.errno == errno.ENOTEMPTY
    disk.rename(f"{folder}/moved", f"{folder}/d")
    assert disk.read(f"{folder}/d/f") == b"f"


def test_folders(place: tuple[Disk, str]) -> None:
    disk, folder = place
    make_folder(disk, f"{folder}/a/b/c")
    disk.mkdir(f"{folder}/a/b")
    disk.write_file(f"{folder}/a/z", [b""])
    disk.write_file(f"{folder}/a/c", [b""])
    assert disk.listdir(f"{folder}/a") == ["b", "c", "z"]
    disk.sync_dir(f"{folder}/a")
    with pytest.raises(OSError) as caught:
        disk.rmdir(f"{folder}/a/b")
    assert caught.value.errno == errno.ENOTEMPTY
    disk.rmdir(f"{folder}/a/b/c")
    assert not disk.exists(f"{folder}/a/b/c")
    with pytest.raises(FileExistsError):
        disk.mkdir(f"{folder}/a/z")
    with pytest.raises(NotADirectoryError):
        disk.listdir(f"{folder}/a/z")
    with pytest.raises(NotADirectoryError):
        disk.rmdir(f"{folder}/a/z")
    for call in (disk.listdir, disk.sync_dir, disk.rmdir):
        with pytest.raises(FileNotFoundError):
            call(f"{folder}/none")


def test_replace_file_leaves_no_trace(place: tuple[Disk, str]) -> None:
    disk, folder = place
    disk.write_file(f"{folder}/f.tmp", [b"left behind by a crash"])
    assert replace_file(disk, f"{folder}/f", [b"one"]) == 3
    assert replace_file(disk, f"{folder}/f", [b"t", b"wo!"]) == 4
    assert disk.listdir(folder) == ["f"]
    assert disk.read(f"{folder}/f") == b"two!"


def test_usage_adds_up(place: tuple[Disk, str]) -> None:
    disk, folder = place
    usage = disk.usage(folder)
    assert 0 <= usage.free_bytes <= usage.total_bytes
    assert 0.0 <= usage.used_fraction <= 1.0


def test_parent_of() -> None:
    assert [parent_of(p) for p in ("a", "/a", "a/b", "/a/b/", "/")] == [".", "/", "a", "/a", "."]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere what is reserved is written")
def test_what_is_reserved_has_its_blocks(tmp_path: Path) -> None:
    file = RealDisk().open(f"{tmp_path}/f", "create")
    file.reserve(1 << 20)
    assert os.stat(f"{tmp_path}/f").st_blocks * 512 >= 1 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere what is reserved is written")
@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_cannot_reserve_is_given_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    file = RealDisk().open(f"{tmp_path}/f", "create")
    file.pwrite([b"xy"], 0)
    file.reserve(10_000)
    assert file.pread(20_000, 0) == b"xy" + bytes(9_998)
    assert os.stat(f"{tmp_path}/f").st_blocks * 512 >= 10_000


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere what is reserved is written")
def test_no_room_for_a_reservation_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError) as caught:
        RealDisk().open(f"{tmp_path}/f", "create").reserve(10_000)
    assert caught.value.errno == errno.ENOSPC
