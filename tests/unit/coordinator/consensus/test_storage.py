"""A member's folder: the order of its files, what may be missing, and what a crash anywhere leaves."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

import pytest

from omendb_chaos.sim.disk import SimDisk
from omendb_chaos.sim.faults import SYNC_KINDS, WRITE_KINDS
from omendb_common.errors import CorruptionError, FormatVersionError, InvalidArgumentError
from omendb_coordinator.consensus.effects import Save
from omendb_coordinator.consensus.identity import Identity, cluster_id_of
from omendb_coordinator.consensus.messages import COMMAND, Entry, Snapshot
from omendb_coordinator.consensus.snapshots import read_newest, write_snapshot
from omendb_coordinator.consensus.storage import Storage
from omendb_coordinator.consensus.vote import read_vote, write_vote

FOLDER = "data/raft"
ME = Identity("cluster", "a", ("a", "b", "c"), "birth")


def entries(first: int, last: int, term: int = 1) -> list[Entry]:
    return [Entry(index, term, COMMAND, b"%d" % index) for index in range(first, last + 1)]


def made(seed: int = 0, identity: Identity = ME) -> tuple[SimDisk, Storage]:
    disk = SimDisk(seed)
    Storage.create(disk, FOLDER, identity)
    return disk, Storage.open(disk, FOLDER)


def used() -> tuple[SimDisk, Storage]:
    """A member with a term, a vote, a snapshot and a log after it."""
    disk, storage = made()
    storage.save([Save(vote=(3, "b")), Save(entries=entries(1, 6, 2)), Save(entries=entries(7, 9, 3))])
    storage.compact(Snapshot.of(5, 2, b"five"), 4, 2)
    return disk, storage


def test_everything_comes_back() -> None:
    disk, storage = used()
    storage.close()
    found = Storage.open(disk, FOLDER).recovered
    assert (found.term, found.voted_for, found.rejoining) == (3, "b", False)
    assert (found.log.base_index, found.log.base_term, found.log.last_index) == (4, 2, 9)
    assert found.snapshot == Snapshot.of(5, 2, b"five")


@pytest.mark.parametrize("name", ["raft.vote", "raft.log", "IDENTITY", "snapshot-0000000000000005.snap"])
def test_a_missing_file_is_refused(name: str) -> None:
    disk, storage = used()
    storage.close()
    disk.unlink(f"{FOLDER}/{name}")
    with pytest.raises((CorruptionError, InvalidArgumentError)):
        Storage.open(disk, FOLDER)
    if name == "IDENTITY":
        # Whoever says bootstrap again must not wipe a vote.
        with pytest.raises(InvalidArgumentError):
            Storage.create(disk, FOLDER, ME)


@pytest.mark.parametrize("name", ["raft.vote", "IDENTITY", "snapshot-0000000000000005.snap"])
def test_a_damaged_file_is_refused_whatever_byte_and_length(name: str) -> None:
    """D4, D5: neither an empty state nor a forgotten vote is served in its place."""
    disk, storage = used()
    storage.close()
    path = f"{FOLDER}/{name}"
    data = disk.peek(path)
    for at in range(len(data)):
        broken = disk.copy()
        broken.damage(path, at, bytes([data[at] ^ 0x10]))
        with pytest.raises((CorruptionError, FormatVersionError)):
            Storage.open(broken, FOLDER)
        broken = disk.copy()
        broken.cut(path, at)
        with pytest.raises((CorruptionError, FormatVersionError)):
            Storage.open(broken, FOLDER)


def test_a_vote_that_is_older_than_the_log_is_refused() -> None:
    disk, storage = used()
    storage.close()
    write_vote(disk, f"{FOLDER}/raft.vote", 2, None)
    with pytest.raises(CorruptionError):
        Storage.open(disk, FOLDER)


def test_a_snapshot_that_ends_before_the_log_begins_is_refused() -> None:
    disk, storage = used()
    storage.close()
    disk.unlink(f"{FOLDER}/snapshot-0000000000000005.snap")
    write_snapshot(disk, FOLDER, Snapshot.of(3, 1, b"three"))
    with pytest.raises(CorruptionError):
        Storage.open(disk, FOLDER)


def test_the_snapshot_before_the_newest_is_kept() -> None:
    disk, storage = made()
    storage.save([Save(vote=(1, "a"), entries=entries(1, 9))])
    for index in (3, 5, 7):
        storage.compact(Snapshot.of(index, 1, b"%d" % index), index, 1)
    names = [name for name in disk.listdir(FOLDER) if name.startswith("snapshot")]
    assert names == ["snapshot-0000000000000005.snap", "snapshot-0000000000000007.snap"]
    assert read_newest(disk, FOLDER) == Snapshot.of(7, 1, b"7")


def test_one_batch_costs_one_sync() -> None:
    disk, storage = made()
    before = disk.faults.calls["datasync"] + disk.faults.calls["sync"]
    storage.save([Save(entries=entries(1, 5, 0)), Save(), Save(entries=entries(6, 9, 0))])
    assert disk.faults.calls["datasync"] + disk.faults.calls["sync"] == before + 1
    storage.save([Save()])
    assert disk.faults.calls["datasync"] + disk.faults.calls["sync"] == before + 1


def test_of_several_votes_the_last_is_kept() -> None:
    disk, storage = made()
    storage.save([Save(vote=(1, "a")), Save(vote=(2, None)), Save(vote=(2, "c"))])
    assert read_vote(disk, f"{FOLDER}/raft.vote") == (2, "c")


def test_an_installed_snapshot_cuts_the_log() -> None:
    for keep, last in ((True, 9), (False, 7)):
        disk, storage = made()
        storage.save([Save(vote=(1, None), entries=entries(1, 9))])
        storage.save([Save(snapshot=Snapshot.of(7, 1, b"seven"), keep_suffix=keep)])
        storage.close()
        log = Storage.open(disk, FOLDER).recovered.log
        assert (log.base_index, log.last_index) == (7, last)


def test_a_crash_while_a_snapshot_is_installed_leaves_the_old_or_the_new() -> None:
    def install(storage: Storage) -> None:
        storage.save([Save(snapshot=Snapshot.of(20, 4, b"twenty"), vote=(4, None)), Save(entries=entries(21, 22, 4))])

    for disk in _crashes(install):
        found = Storage.open(disk, FOLDER).recovered
        assert (found.term, found.voted_for) in ((3, "b"), (4, None))
        assert found.snapshot is not None
        if found.snapshot.index == 5:
            assert (found.log.base_index, found.log.last_index) == (4, 9)
        else:
            assert found.log.base_index == 20
            assert 20 <= found.log.last_index <= 22


def test_a_crash_while_a_snapshot_is_taken_loses_nothing() -> None:
    """D6: killed at any moment of it, everything that was acknowledged is there."""
    for disk in _crashes(lambda storage: storage.compact(Snapshot.of(8, 3, b"eight"), 7, 3)):
        found = Storage.open(disk, FOLDER).recovered
        assert found.snapshot is not None
        assert (found.snapshot.index, found.log.base_index) in ((5, 4), (8, 4), (8, 7))
        assert found.log.last_index == 9


def test_a_crash_while_the_folder_is_made_leaves_a_member_or_none() -> None:
    for nth in range(1, 80):
        disk = SimDisk(nth)
        fault = disk.faults.fail([*WRITE_KINDS, *SYNC_KINDS], nth, sticky=True)
        with suppress(OSError):
            Storage.create(disk, FOLDER, ME)
        disk.faults.clear()
        for survivor in (disk.power_cut(random.Random(nth)), disk):
            if not Storage.exists(survivor, FOLDER):
                Storage.create(survivor, FOLDER, ME)
            assert Storage.open(survivor, FOLDER).identity == ME
        if not fault.fired:
            return
    pytest.fail("the sweep did not end")


def _crashes(act: Callable[[Storage], None]) -> list[SimDisk]:
    """Disks that are left when ``act`` is cut short at any call, by a kill or by a power cut."""
    left = []
    for nth in range(1, 100):
        disk, storage = used()
        fault = disk.faults.fail([*WRITE_KINDS, *SYNC_KINDS], nth, sticky=True)
        with suppress(OSError):
            act(storage)
        disk.faults.clear()
        left += [disk, *(disk.power_cut(random.Random(seed)) for seed in range(4))]
        if not fault.fired:
            return left
    raise AssertionError("the sweep did not end")


def test_the_mark_of_a_lost_disk_stays_until_it_has_caught_up() -> None:
    disk, storage = made(identity=Identity("cluster", "a", ("a", "b", "c"), "second", "rejoin"))
    assert storage.recovered.rejoining
    storage.save([Save(entries=entries(1, 2, 0))])
    storage.close()
    storage = Storage.open(disk, FOLDER)
    assert storage.recovered.rejoining
    storage.save([Save(end_rejoin=True)])
    storage.close()
    assert not Storage.open(disk.power_cut(random.Random(0)), FOLDER).recovered.rejoining


def test_a_member_that_lost_its_disk_and_does_not_say_so_is_found_out() -> None:
    disk, storage = made()
    assert storage.meet("b", "first", "bootstrap")
    assert storage.meet("b", "first", "bootstrap")
    assert not storage.meet("b", "second", "bootstrap")
    storage.close()
    storage = Storage.open(disk.power_cut(random.Random(0)), FOLDER)
    assert not storage.meet("b", "second", "bootstrap")
    assert storage.meet("b", "third", "rejoin")
    assert not storage.meet("b", "first", "bootstrap")  # the old disk is back


@pytest.mark.parametrize(
    ("node_id", "members", "cluster_id"),
    [("b", ("a", "b", "c"), None), ("a", ("a", "b"), None), ("a", ("a", "b", "c"), "another")],
)
def test_a_folder_serves_the_member_it_was_made_for(
    node_id: str, members: tuple[str, ...], cluster_id: str | None
) -> None:
    _, storage = made()
    storage.identity.check("a", ("a", "b", "c"), None, FOLDER)
    with pytest.raises(InvalidArgumentError):
        storage.identity.check(node_id, members, cluster_id, FOLDER)


def test_a_cluster_that_nobody_named_is_named_after_its_members() -> None:
    one = cluster_id_of({"a": ("h", 1), "b": ("h", 2)})
    assert one == cluster_id_of({"b": ("h", 2), "a": ("h", 1)})
    assert one != cluster_id_of({"a": ("h", 1), "b": ("h", 3)})


def test_a_folder_without_a_member_says_what_to_do() -> None:
    with pytest.raises(InvalidArgumentError, match="bootstrap"):
        Storage.open(SimDisk(), FOLDER)
