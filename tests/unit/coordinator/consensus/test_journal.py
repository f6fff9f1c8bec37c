"""The log on disk: torn tails, damage, failing syncs, and compaction cut short anywhere."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from omendb_chaos.sim.disk import SimDisk
from omendb_chaos.sim.faults import SYNC_KINDS, WRITE_KINDS
from omendb_common.errors import CorruptionError, FormatVersionError
from omendb_coordinator.consensus.journal import Journal, JournalFailedError
from omendb_coordinator.consensus.messages import COMMAND, NOOP, Entry

PATH = "raft.log"


def entry(index: int, term: int = 1, size: int = 20) -> Entry:
    return Entry(index, term, COMMAND, b"%d" % index * size)


def written(disk: SimDisk, batches: list[list[Entry]]) -> Journal:
    journal = Journal.create(disk, PATH)
    for batch in batches:
        journal.append(batch)
        journal.sync()
    return journal


def test_what_was_appended_is_read() -> None:
    disk = SimDisk()
    entries = [Entry(1, 1, NOOP, b""), entry(2), entry(3, 2, size=5000)]
    written(disk, [entries[:1], entries[1:]]).close()
    journal, read = Journal.open(disk, PATH)
    assert read == entries
    assert (journal.base_index, journal.last_index) == (0, 3)
    journal.append([entry(4, 3)])
    journal.sync()
    assert Journal.open(disk, PATH)[1] == [*entries, entry(4, 3)]


def test_entries_come_in_order() -> None:
    journal = Journal.create(SimDisk(), PATH)
    with pytest.raises(ValueError, match="after 0"):
        journal.append([entry(2)])


def test_a_tail_that_was_torn_anywhere_is_cut_off() -> None:
    whole = SimDisk()
    journal = written(whole, [[entry(1), entry(2)], [entry(3)]])
    safe = journal.size_bytes
    journal.append([entry(4), entry(5)])
    data = whole.peek(PATH)
    for length in range(safe, len(data)):
        disk = SimDisk()
        disk.write_file(PATH, [data[:length]])
        journal, read = Journal.open(disk, PATH)
        assert read[:3] == [entry(1), entry(2), entry(3)]
        assert len(read) in (3, 4)
        journal.append([entry(len(read) + 1, 7)])
        journal.sync()
        journal.close()
        assert Journal.open(disk, PATH)[1] == [*read, entry(len(read) + 1, 7)]


def test_a_changed_byte_that_had_been_safe_is_refused() -> None:
    whole = SimDisk()
    journal = written(whole, [[entry(1)], [entry(2), entry(3)]])
    safe = journal.size_bytes
    journal.append([entry(4)])
    journal.sync()
    data = whole.peek(PATH)
    for at in range(safe):
        disk = SimDisk()
        disk.write_file(PATH, [data])
        disk.damage(PATH, at, bytes([data[at] ^ 0x40]))
        with pytest.raises((CorruptionError, FormatVersionError)):
            Journal.open(disk, PATH)


def test_a_changed_byte_in_the_last_batch_is_never_served() -> None:
    whole = SimDisk()
    journal = written(whole, [[entry(1)], [entry(2)]])
    start = journal.size_bytes
    journal.append([entry(3)])
    journal.sync()
    data = whole.peek(PATH)
    for at in range(start, len(data)):
        disk = SimDisk()
        disk.write_file(PATH, [data])
        disk.damage(PATH, at, bytes([data[at] ^ 1]))
        assert Journal.open(disk, PATH)[1] == [entry(1), entry(2)]


def test_a_batch_of_which_the_middle_is_missing_is_a_torn_tail() -> None:
    """Sectors of one unsynced batch reach the disk in any order: that is no damage."""
    whole = SimDisk()
    journal = written(whole, [[entry(1)]])
    start = journal.size_bytes
    journal.append([entry(2, size=600), entry(3), entry(4)])
    disk = SimDisk()
    disk.write_file(PATH, [whole.peek(PATH)])
    disk.damage(PATH, start + 100, bytes(512))
    assert Journal.open(disk, PATH)[1] == [entry(1)]


def test_every_power_cut_keeps_what_was_synced() -> None:
    disk = SimDisk()
    journal = Journal.create(disk, PATH)
    log: list[Entry] = []
    history = [(disk.position, list(log))]

    def append(*entries: Entry) -> None:
        log.extend(entries)
        journal.append(entries)
        journal.sync()
        history.append((disk.position, list(log)))

    for index in (1, 3, 5, 7):
        append(entry(index, size=300), entry(index + 1))
    journal.truncate(7)
    del log[6:]
    history.append((disk.position, list(log)))
    append(entry(7, 2, size=300), entry(8, 2))
    journal.cut(3, 1)
    history.append((disk.position, list(log)))
    append(entry(9, 2))
    seen = 0
    for survivor in disk.crash_states(400, random.Random(1)):
        assert survivor.crash is not None
        done = [number for number, (at, _) in enumerate(history) if at <= survivor.crash.at]
        if not done:
            continue
        seen += 1
        promised = history[done[-1]][1]
        following = history[min(done[-1] + 1, len(history) - 1)][1]
        longer = max(promised, following, key=len)
        found, read = Journal.open(survivor, PATH)
        assert found.last_index >= min(len(promised), len(following))
        assert read == longer[found.base_index : found.last_index]
    assert seen > 25


@pytest.mark.parametrize("kinds", [WRITE_KINDS, SYNC_KINDS])
def test_after_a_failed_call_nothing_is_tried_again(kinds: tuple[str, ...]) -> None:
    for nth in range(1, 20):
        disk = SimDisk()
        journal = written(disk, [[entry(1), entry(2), entry(3)]])
        fault = disk.faults.fail(kinds, nth)
        with pytest.raises(OSError):
            journal.append([entry(4)])
            journal.sync()
            journal.truncate(4)
            journal.cut(2, 1)
            journal.append([entry(4)])
            journal.sync()
            journal.reset(9, 2)
            raise OSError
        if not fault.fired:
            return
        calls = disk.position
        with pytest.raises(JournalFailedError):
            journal.append([entry(journal.last_index + 1)])
        with pytest.raises(JournalFailedError):
            journal.cut(3, 1)
        assert disk.position == calls
    pytest.fail("the sweep did not end")


def test_a_sync_that_failed_is_not_believed_after_a_restart() -> None:
    """The system takes what it could not write for written; what is read must be written again."""
    disk = SimDisk()
    journal = written(disk, [[entry(1)]])
    journal.append([entry(2)])
    disk.faults.fail("datasync")
    with pytest.raises(OSError):
        journal.sync()
    assert Journal.open(disk, PATH)[1] == [entry(1), entry(2)]
    for seed in range(20):
        assert Journal.open(disk.power_cut(random.Random(seed)), PATH)[1] == [entry(1), entry(2)]


def test_a_compaction_cut_short_anywhere_loses_nothing() -> None:
    entries = [entry(number) for number in range(1, 9)]
    for nth in range(1, 30):
        disk = SimDisk(nth)
        journal = written(disk, [entries[:5], entries[5:]])
        fault = disk.faults.fail([*WRITE_KINDS, *SYNC_KINDS], nth, sticky=True)
        with suppress(OSError):
            journal.cut(5, 1)
        disk.faults.clear()
        for survivor in (disk.power_cut(random.Random(nth)), disk):
            journal, read = Journal.open(survivor, PATH)
            assert journal.base_index in (0, 5)
            assert read == entries[journal.base_index :]
        if not fault.fired:
            assert nth > 5
            return
    pytest.fail("the sweep did not end")


def test_a_reset_begins_elsewhere() -> None:
    disk = SimDisk()
    written(disk, [[entry(1)]]).reset(40, 6)
    journal, read = Journal.open(disk, PATH)
    assert (journal.base_index, journal.base_term, read) == (40, 6, [])
    journal.append([entry(41, 6)])


def test_a_newer_format_is_refused() -> None:
    disk = SimDisk()
    written(disk, []).close()
    header = bytearray(disk.peek(PATH))
    header[8] = 2
    disk.damage(PATH, 0, bytes(header))
    with pytest.raises((CorruptionError, FormatVersionError)):
        Journal.open(disk, PATH)
