"""The simulated disk forgets, fails and rots as it is told, and the same way each time."""

from __future__ import annotations

import errno
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_chaos.sim import rot
from omendb_chaos.sim.content import EMPTY, Content
from omendb_chaos.sim.disk import SimDisk
from omendb_chaos.sim.faults import FaultPlan
from omendb_common.disk import replace_file


def survivors(disk: SimDisk, limit: int = 500, seed: int = 1) -> list[SimDisk]:
    return list(disk.crash_states(limit, random.Random(seed)))


def at_the_end(disk: SimDisk) -> list[SimDisk]:
    return [s for s in survivors(disk) if s.crash is not None and s.crash.at == disk.position]


def contents(disk: SimDisk) -> dict[str, bytes]:
    return {path: disk.peek(path) for path in disk.paths()}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 20_000), st.binary(min_size=1, max_size=9000)),
        st.tuples(st.just("resize"), st.integers(0, 20_000), st.just(b"")),
    ),
    max_size=8,
)


@given(steps, st.integers(0, 25_000), st.integers(0, 9000))
@settings(max_examples=100, deadline=None)
def test_content_is_like_a_bytearray(todo: list[tuple[str, int, bytes]], offset: int, length: int) -> None:
    content, plain = EMPTY, bytearray()
    for kind, at, data in todo:
        if kind == "write":
            content = content.write(at, data)
            plain.extend(bytes(max(at + len(data) - len(plain), 0)))
            plain[at : at + len(data)] = data
        else:
            content = content.resize(at)
            del plain[at:]
            plain.extend(bytes(at - len(plain)))
    assert content.size == len(plain)
    assert content.read(0, 1 << 20) == plain
    assert content.read(offset, length) == plain[offset : offset + length]
    again = Content(content.size, content.pages)
    assert (again, hash(again)) == (content, hash(content))


def test_only_what_was_synced_is_sure() -> None:
    disk = SimDisk()
    disk.mkdir("/d")
    disk.sync_dir("/")
    file = disk.open("/d/f", "create")
    file.pwrite([b"first"], 0)
    # Neither the name nor the bytes are sure; syncing the file does not save its name.
    assert {b"first", None} <= {contents(s).get("/d/f") for s in at_the_end(disk)}
    file.datasync()
    assert {contents(s).get("/d/f") for s in at_the_end(disk)} == {b"first", None}
    disk.sync_dir("/d")
    assert {contents(s).get("/d/f") for s in at_the_end(disk)} == {b"first"}
    file.pwrite([b"FIRST"], 0)
    assert {contents(s)["/d/f"] for s in at_the_end(disk)} == {b"first", b"FIRST"}


def test_a_rename_is_all_or_nothing_until_its_folder_is_synced() -> None:
    disk = SimDisk()
    disk.write_file("/CURRENT", [b"one"])
    disk.settle()
    disk.write_file("/CURRENT.tmp", [b"two"])
    disk.rename("/CURRENT.tmp", "/CURRENT")
    assert {contents(s)["/CURRENT"] for s in survivors(disk)} == {b"one", b"two"}
    disk.sync_dir("/")
    assert {contents(s)["/CURRENT"] for s in at_the_end(disk)} == {b"two"}


def test_replacing_a_file_is_atomic_and_forgetting_its_fsync_is_found_out() -> None:
    disk = SimDisk()
    replace_file(disk, "/CURRENT", [b"a" * 2000])
    disk.settle()
    replace_file(disk, "/CURRENT", [b"b" * 2000])
    assert {contents(s)["/CURRENT"] for s in survivors(disk)} == {b"a" * 2000, b"b" * 2000}

    careless = SimDisk()
    file = careless.open("/CURRENT.tmp", "create")
    file.pwrite([b"b" * 2000], 0)
    careless.rename("/CURRENT.tmp", "/CURRENT")
    careless.sync_dir("/")
    assert b"" in {contents(s).get("/CURRENT") for s in at_the_end(careless)}


def test_a_write_tears_between_sectors_only() -> None:
    disk = SimDisk()
    disk.write_file("/f", [b"o" * 4096])
    disk.settle()
    file = disk.open("/f", "rw")
    file.pwrite([b"n" * 3000], 300)
    seen = {contents(s)["/f"] for s in survivors(disk)}
    torn = [data for data in seen if data not in (b"o" * 4096, b"o" * 300 + b"n" * 3000 + b"o" * 796)]
    assert len(torn) > 5
    for data in torn:
        for begin in range(0, 4096, 512):
            sector = data[max(begin, 300) : min(begin + 512, 3300)]
            assert len(set(sector)) <= 1


def test_unlinked_names_may_come_back() -> None:
    disk = SimDisk()
    disk.write_file("/a", [b"a"])
    disk.settle()
    disk.unlink("/a")
    assert {tuple(s.paths()) for s in at_the_end(disk)} == {("/a",), ()}
    disk.sync_dir("/")
    assert {tuple(s.paths()) for s in at_the_end(disk)} == {()}


def test_a_failed_fsync_drops_what_was_pending_for_good() -> None:
    disk = SimDisk()
    disk.write_file("/f", [b"old"])
    disk.settle()
    file = disk.open("/f", "rw")
    file.pwrite([b"new"], 0)
    disk.faults.fail("datasync")
    with pytest.raises(OSError) as caught:
        file.datasync()
    assert caught.value.errno == errno.EIO
    # The page cache shows it, and the next fsync says that all is well. It is not.
    assert file.pread(3, 0) == b"new"
    file.datasync()
    assert {contents(s)["/f"] for s in at_the_end(disk)} == {b"old"}
    file.pwrite([b"new"], 0)
    file.datasync()
    assert {contents(s)["/f"] for s in at_the_end(disk)} == {b"new"}


def test_crash_states_are_distinct_and_the_same_from_the_same_seed() -> None:
    def run() -> list[tuple[int, str, dict[str, bytes]]]:
        disk = SimDisk(3)
        for at in range(20):
            file = disk.open(f"/f{at % 4}", "create" if at < 4 else "rw")
            file.pwrite([bytes([at]) * 3000], at * 100)
            if at % 3 == 0:
                file.datasync()
            if at % 5 == 0:
                disk.sync_dir("/")
        return [(s.crash.at, s.crash.label, contents(s)) for s in survivors(disk, 400) if s.crash is not None]

    first, second = run(), run()
    assert first == second
    assert len(first) == 400


def test_a_crash_image_is_independent_of_its_source() -> None:
    disk = SimDisk()
    disk.mkdir("/d")
    disk.write_file("/d/f", [b"abc"])
    images = [disk.copy(), *survivors(disk)]
    before = [contents(image) for image in images]
    disk.open("/d/f", "rw").pwrite([b"xyz"], 0)
    disk.write_file("/d/g", [b"new"])
    for at, image in enumerate(images):
        assert contents(image) == before[at]
        image.mkdir("/e")
        image.write_file("/e/own", [b"1"])
    assert not disk.exists("/e")
    assert images[0].read("/d/f") == b"abc"


def test_a_crash_image_is_cheap() -> None:
    disk = SimDisk()
    for at in range(20):
        disk.write_file(f"/f{at}", [random.Random(at).randbytes(10_000)])
    disk.sync_dir("/")
    disk.settle()
    for at in range(40):
        disk.open(f"/f{at % 20}", "rw").pwrite([b"x" * 700], at * 100)
    started = time.process_time()
    count = len(survivors(disk, 400))
    assert count == 400
    assert (time.process_time() - started) / count < 0.005


@pytest.mark.parametrize("sticky", [False, True])
def test_the_nth_call_fails(sticky: bool) -> None:
    disk = SimDisk()
    disk.write_file("/f", [bytes(100)])
    fault = disk.faults.fail("pread", 3, errno.EIO, sticky=sticky, path_part="f")
    file = disk.open("/f", "r")
    results = []
    for _ in range(6):
        try:
            file.pread(1, 0)
            results.append(True)
        except OSError:
            results.append(False)
    assert results == ([True, True, False, False, False, False] if sticky else [True, True, False, True, True, True])
    assert fault.fired == results.count(False)
    disk.faults.clear()
    file.pread(1, 0)
    assert disk.faults.calls["pread"] == 7
    with pytest.raises(ValueError, match="unknown kinds"):
        FaultPlan().fail("fsnyc")


def test_a_full_volume_takes_what_fits() -> None:
    disk = SimDisk(capacity_bytes=5 * 4096)
    file = disk.open("/f", "create")
    assert file.pwrite([b"a" * 8192], 0) == 8192
    with pytest.raises(OSError) as caught:
        file.pwrite([b"b" * 20_000], 8192)
    assert caught.value.errno == errno.ENOSPC
    assert file.size() == 5 * 4096
    # Overwriting needs no space.
    file.pwrite([b"c" * 8192], 0)
    assert disk.usage("/").free_bytes == 0
    with pytest.raises(OSError):
        disk.open("/g", "create")
    file.truncate(4096)
    with pytest.raises(OSError):
        file.allocate(10 * 4096)
    file.truncate(0)
    assert disk.usage("/").free_bytes == 5 * 4096


def test_rot_changes_the_medium_itself() -> None:
    disk = SimDisk()
    data = random.Random(2).randbytes(3 * 4096 + 100)
    disk.write_file("/f", [data])
    disk.write_file("/g", [b"g" * 8192])
    disk.sync_dir("/")
    disk.settle()
    assert rot.flip_bit(disk, "/f", 5, 3)
    assert disk.peek("/f")[5] == data[5] ^ 8
    assert contents(survivors(disk)[-1])["/f"][5] in (data[5], data[5] ^ 8)
    assert {contents(s)["/f"][5] for s in at_the_end(disk)} == {data[5] ^ 8}
    assert rot.flip_bit(disk, "/f", 5, 3)
    assert rot.zero_block(disk, "/f", 1)
    assert disk.peek("/f")[4096:8192] == bytes(4096)
    assert not rot.zero_block(disk, "/f", 1)
    assert rot.swap_blocks(disk, "/f", 0, "/g", 1)
    assert disk.peek("/f")[:4096] == b"g" * 4096
    assert disk.peek("/g")[4096:] == data[:4096]
    assert not rot.stale_block(disk, "/g", 0)
    file = disk.open("/g", "rw")
    file.pwrite([b"h" * 4096], 0)
    assert rot.stale_block(disk, "/g", 0)
    assert disk.peek("/g")[:4096] == b"g" * 4096
    file.pwrite([b"i" * 4096], 0)
    assert rot.misdirect(disk, "/g", 0, "/f", 2)
    assert disk.peek("/f")[8192 : 3 * 4096] == b"i" * 4096
    assert disk.peek("/g")[:4096] == b"g" * 4096
    # The last block of a file is short, and stays so.
    assert rot.zero_block(disk, "/f", 3)
    assert rot.truncate_file(disk, "/f", 12_300)
    assert len(disk.peek("/f")) == 12_300
    assert not rot.truncate_file(disk, "/f", 12_300)


def test_a_power_cut_now_keeps_what_was_synced_and_may_lose_the_rest() -> None:
    disk = SimDisk()
    file = disk.open("/log", "create")
    file.pwrite([b"synced"], 0)
    file.datasync()
    disk.sync_dir("/")
    file.pwrite([b" and not"], 6)
    disk.write_file("/new", [b"unnamed"])
    left = {survivor.peek("/log") for seed in range(40) for survivor in [disk.power_cut(random.Random(seed))]}
    names = {tuple(disk.power_cut(random.Random(seed)).paths()) for seed in range(40)}
    assert left == {b"synced", b"synced and not"}
    assert names == {("/log",), ("/log", "/new")}
    assert disk.peek("/log") == b"synced and not"


def test_a_rename_that_lasts_late_leaves_what_has_its_old_name_by_now() -> None:
    disk = SimDisk()
    for folder in ("/here", "/there"):
        disk.mkdir(folder)
    disk.sync_dir("/")
    disk.write_file("/here/name", [b"old"])
    disk.sync_dir("/here")
    disk.rename("/here/name", "/there/name")
    disk.sync_dir("/here")
    disk.write_file("/here/name", [b"new"])
    disk.sync_dir("/here")
    left = [disk.power_cut(random.Random(seed)) for seed in range(40)]
    assert all(survivor.exists("/here/name") for survivor in left)
    assert {survivor.exists("/there/name") for survivor in left} == {True, False}


def test_a_copy_does_not_change_with_the_disk_that_it_was_made_of() -> None:
    disk = SimDisk()
    disk.mkdir("/folder")
    disk.write_file("/folder/before", [b"there"])
    image = disk.copy()
    disk.write_file("/folder/after", [b"new"])
    disk.unlink("/folder/before")
    assert image.paths() == ["/folder/before"] and image.peek("/folder/before") == b"there"
