"""A torn tail ends the log quietly; damage anywhere else is refused, with the file and the place."""

from __future__ import annotations

import random

import pytest

from omendb_chaos.sim import rot
from omendb_chaos.sim.disk import SimDisk
from omendb_common.checksum import Buffer
from omendb_common.errors import CorruptionError, OmenDBError
from omendb_engine.wal.prepare import WalSettings
from omendb_engine.wal.record import (
    COMMIT_NAME,
    HEADER_BYTES,
    HEADER_PAGE_BYTES,
    RecordType,
    SegmentFlag,
    SegmentHeader,
    WalEntry,
    encode_record,
    record_bytes,
)
from tests.unit.engine.wal_cases import (
    FOLDER,
    IDENTITY,
    append,
    check,
    entry,
    new_disk,
    open_writer,
    scan,
    segment_path,
    segment_paths,
)

COMMIT = f"{FOLDER}/{COMMIT_NAME}"
TINY = WalSettings(segment_bytes=8 << 10, first_segment_bytes=8 << 10)
LAST_GROUP = (40, 700, 9)


def log_of_two_groups(*, synced: bool) -> tuple[SimDisk, int, int]:
    """Records 1..3 synced, then a group 4..6; (disk, start of that group, its end)."""
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 30, 600, 50)
    writer.sync()
    start = HEADER_PAGE_BYTES + sum(map(record_bytes, (30, 600, 50)))
    append(writer, *LAST_GROUP)
    if synced:
        writer.sync()
    return disk, start, start + sum(map(record_bytes, LAST_GROUP))


def outcome(disk: SimDisk) -> tuple[str, int]:
    """("refused", offset) or ("torn" | "clean", last lsn); whatever is read is right."""
    try:
        found = scan(disk)
        records = list(found)
    except CorruptionError as error:
        assert error.path.startswith(FOLDER)
        return "refused", -1 if error.offset is None else error.offset
    check(records, 1, len(records))
    return ("torn" if found.end.torn else "clean"), found.end.last_lsn


def ends_of_records(start: int) -> list[int]:
    ends = [start]
    for length in LAST_GROUP:
        ends.append(ends[-1] + record_bytes(length))
    return ends


@pytest.mark.parametrize("zeroed", [True, False], ids=["zeros follow", "file is cut"])
def test_an_unsynced_group_may_be_torn_at_every_byte(zeroed: bool) -> None:
    disk, start, end = log_of_two_groups(synced=False)
    whole = disk.peek(segment_path(1))
    ends = ends_of_records(start)
    for at in range(start, end):
        image = disk.copy()
        if zeroed:
            image.damage(segment_path(1), at, bytes(len(whole) - at))
        else:
            image.cut(segment_path(1), at)
        # A record whose last bytes were zeros anyway is whole without them.
        complete = sum(at >= (len(whole[:e].rstrip(b"\0")) if zeroed else e) for e in ends[1:])
        kind, last = outcome(image)
        assert last == 3 + complete, at
        torn = any(image.peek(segment_path(1))[ends[complete] :])
        assert kind == ("torn" if torn else "clean"), at


def test_a_synced_group_may_not_be_torn_at_any_byte() -> None:
    disk, start, end = log_of_two_groups(synced=True)
    whole = disk.peek(segment_path(1))
    for at in range(start, end):
        for zeroed in (True, False):
            image = disk.copy()
            if zeroed:
                image.damage(segment_path(1), at, bytes(end - at))
                if image.peek(segment_path(1)) == whole:
                    continue
            else:
                image.cut(segment_path(1), at)
            kind, offset = outcome(image)
            assert kind == "refused", at
            assert offset <= at + 3  # the last three bytes of these records are zeros


def test_the_manifests_mark_catches_what_the_commit_file_cannot() -> None:
    disk, start, _ = log_of_two_groups(synced=True)
    disk.unlink(COMMIT)
    disk.cut(segment_path(1), start)
    # Nothing in the log tells that there ever was more.
    assert scan(disk).end.last_lsn == 3
    with pytest.raises(CorruptionError, match="at least 6") as caught:
        list(scan(disk, known_durable_lsn=6))
    assert (caught.value.path, caught.value.offset) == (segment_path(1), start)
    with pytest.raises(CorruptionError):
        list(scan(disk, after_lsn=4))


def log_of_three_segments() -> SimDisk:
    """Two full segments, a reopening, and a third that was closed cleanly."""
    disk = new_disk()
    writer = open_writer(disk, settings=TINY)
    for length in (1000, 900, 1200, 700, 800):
        append(writer, length)
        writer.sync()
    writer = open_writer(disk, settings=TINY, incarnation=1)
    append(writer, 300, 200)
    writer.sync()
    append(writer, 100)
    writer.close()
    assert len(segment_paths(disk)) == 3
    return disk


def test_every_damaged_byte_of_a_synced_log_is_noticed() -> None:
    disk = log_of_three_segments()
    good = [bytes(record.body) for record in scan(disk)]
    last = scan(disk).end.last_lsn
    draw = random.Random(5)
    for path in segment_paths(disk):
        # Behind a segment that a crash ended, anything may stand: recovery has judged it, and reads it no more.
        judged = scan(disk).end.segments[1].used_bytes if path == segment_path(2) else 1 << 30
        data = disk.peek(path)
        for at in range(len(data)):
            value = draw.choice([data[at] ^ (1 << draw.randrange(8)), 0, 255])
            if value == data[at]:
                continue
            disk.damage(path, at, bytes([value]))
            try:
                records = [bytes(record.body) for record in scan(disk)]
            except OmenDBError:
                records = None
            if at < judged:
                assert records is None, (path, at)
            else:
                assert records == good
            disk.damage(path, at, data[at : at + 1])
    assert scan(disk).end.last_lsn == last


def test_every_damaged_byte_of_an_unpublished_last_group_is_refused_or_torn() -> None:
    disk, start, end = log_of_two_groups(synced=False)
    data = disk.peek(segment_path(1))
    first_end = ends_of_records(start)[1]
    last_start = ends_of_records(start)[2]
    for at in range(HEADER_PAGE_BYTES, end):
        disk.damage(segment_path(1), at, bytes([data[at] ^ 16]))
        kind, last = outcome(disk)
        if at < start:
            # It was synced, and what was written later says so.
            assert kind == "refused", at
        elif at < last_start:
            # An intact record follows and no sector is missing: a power cut does not look like that.
            assert kind == "refused", (at, first_end)
        else:
            assert (kind, last) == ("torn", 5), at
        disk.damage(segment_path(1), at, data[at : at + 1])


def test_lost_sectors_inside_an_unsynced_group_are_a_torn_tail() -> None:
    disk, start, end = log_of_two_groups(synced=False)
    data = disk.peek(segment_path(1))
    ends = ends_of_records(start)
    for sector in range(start // 512, -(-end // 512)):
        begin, stop = max(sector * 512, start), min(sector * 512 + 512, end)
        disk.damage(segment_path(1), begin, bytes(stop - begin))
        complete = sum(begin >= e for e in ends) - 1
        assert outcome(disk) == ("torn" if complete < 3 else "clean", 3 + complete)
        disk.damage(segment_path(1), begin, data[begin:stop])


def test_lost_sectors_that_were_synced_are_corruption_even_without_commit() -> None:
    disk, start, _ = log_of_two_groups(synced=False)
    disk.damage(COMMIT, 0, bytes(24))
    for begin in range(HEADER_PAGE_BYTES, start, 512):
        data = disk.peek(segment_path(1))[begin : min(begin + 512, start)]
        disk.damage(segment_path(1), begin, bytes(len(data)))
        assert outcome(disk)[0] == "refused"
        disk.damage(segment_path(1), begin, data)


def test_garbage_in_commit_is_tolerated() -> None:
    disk, _, _ = log_of_two_groups(synced=True)
    draw = random.Random(1)
    for length in (0, 1, 23, 24, 25, 4096):
        disk.unlink(COMMIT)
        disk.write_file(COMMIT, [draw.randbytes(length)])
        assert outcome(disk) == ("clean", 6)
    disk.unlink(COMMIT)
    assert outcome(disk) == ("clean", 6)
    disk.faults.fail("pread", sticky=True, path_part=COMMIT_NAME)
    assert outcome(disk) == ("clean", 6)


def test_a_missing_segment_is_corruption() -> None:
    whole = log_of_three_segments()
    last = scan(whole).end.last_lsn
    for seq in (1, 2, 3):
        disk = whole.copy()
        disk.unlink(segment_path(seq))
        assert outcome(disk)[0] == "refused"
    disk = whole.copy()
    # The checkpoint covers the first two: they are not even looked at.
    after = scan(whole).end.segments[1].last_lsn
    for seq in (1, 2):
        disk.damage(segment_path(seq), 0, bytes(6000))
    check(list(scan(disk, after_lsn=after)), after + 1, last)


def test_exchanged_segments_are_noticed() -> None:
    disk = log_of_three_segments()
    disk.rename(segment_path(1), f"{FOLDER}/x")
    disk.rename(segment_path(2), segment_path(1))
    disk.rename(f"{FOLDER}/x", segment_path(2))
    assert outcome(disk)[0] == "refused"


def test_block_faults_are_noticed() -> None:
    whole = log_of_three_segments()
    paths = segment_paths(whole)
    expected = [bytes(record.body) for record in scan(whole)]
    draw = random.Random(11)
    for _ in range(600):
        disk = whole.copy()
        path, other = draw.choice(paths), draw.choice(paths)
        block = draw.randrange(-(-disk.size(path) // 4096))
        other_block = draw.randrange(-(-disk.size(other) // 4096))
        kind = draw.choice(["zero", "swap", "misdirect", "cut"])
        if kind == "zero":
            changed = rot.zero_block(disk, path, block)
        elif kind == "swap":
            changed = rot.swap_blocks(disk, path, block, other, other_block)
        elif kind == "misdirect":
            changed = rot.misdirect(disk, path, block, other, other_block)
        else:
            length = draw.randrange(disk.size(path))
            changed = any(disk.peek(path)[length:]) and rot.truncate_file(disk, path, length)
        if not changed:
            continue
        try:
            found = [bytes(record.body) for record in scan(disk)]
        except OmenDBError:
            continue
        # Only what recovery has judged already, behind the crashed segment's end, may change unnoticed.
        assert found == expected
        used = scan(whole).end.segments[1].used_bytes
        assert disk.peek(paths[1])[:used] == whole.peek(paths[1])[:used]
        for path in (paths[0], paths[2]):
            assert disk.peek(path).rstrip(b"\0") == whole.peek(path).rstrip(b"\0")


def test_stale_blocks_are_noticed() -> None:
    disk = new_disk()
    writer = open_writer(disk, settings=TINY)
    for _ in range(12):
        append(writer, 900)
        writer.sync()
    for path in segment_paths(disk):
        for block in range(disk.size(path) // 4096):
            data = disk.peek(path)
            if rot.stale_block(disk, path, block):
                assert outcome(disk)[0] == "refused"
                disk.damage(path, 0, data)
    assert outcome(disk) == ("clean", 12)


def test_after_a_torn_tail_the_log_goes_on_in_a_new_segment() -> None:
    disk, start, _ = log_of_two_groups(synced=False)
    disk.damage(segment_path(1), start + record_bytes(40) + 512, bytes(400))
    torn = disk.peek(segment_path(1))
    for run in range(3):
        end = scan(disk).end
        assert end.last_lsn == 4 + run
        assert (end.torn is not None) == (run == 0)
        writer = open_writer(disk, end)
        append(writer, 20)
        writer.sync()
    check(list(scan(disk)), 1, 7)
    assert disk.peek(segment_path(1)) == torn
    # The judgement stands only as long as the segment that passed it.
    disk.unlink(segment_path(2))
    assert outcome(disk)[0] == "refused"


def test_a_torn_header_page_without_records_is_passed_by() -> None:
    disk, _, _ = log_of_two_groups(synced=True)
    writer = open_writer(disk)
    append(writer, 20)
    header = disk.peek(segment_path(2))[:HEADER_PAGE_BYTES]
    blank = disk.size(segment_path(2))
    disk.damage(segment_path(2), 0, header[:512] + bytes(blank - 512))
    end = scan(disk).end
    # Its checksum sits in the last sector, which did not get through.
    assert (end.last_lsn, end.unused, end.next_seq) == (6, (2,), 3)
    writer = open_writer(disk, end)
    append(writer, 20)
    writer.sync()
    check(list(scan(disk)), 1, 7)


def test_bytes_that_imitate_records_do_not_end_the_search_for_real_ones() -> None:
    disk = new_disk()
    writer = open_writer(disk, settings=WalSettings(1 << 20, 1 << 20))
    append(writer, 100)
    writer.sync()
    # Small integers, as columns of ids are, look like lsns.
    numbers = b"".join(i.to_bytes(8, "little") for i in range(20_000))
    writer.append([WalEntry(RecordType.OPS, parts=[numbers])])
    begin = HEADER_PAGE_BYTES + record_bytes(100)
    disk.damage(segment_path(1), begin + HEADER_BYTES + 80_000, bytes(4096))
    found = scan(disk)
    assert len(list(found)) == 1
    assert found.end.torn is not None
    assert found.end.torn.offset == begin


def test_a_record_that_follows_another_history_is_not_read() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 100)
    writer.sync()
    salt = SegmentHeader(IDENTITY, 1, 1, 0, 0, 0, SegmentFlag.AFTER_OPEN).salt
    crc = scan(disk).end.last_crc
    for prev_crc, lsn, records in ((crc, 2, 2), (crc ^ 1, 2, 1), (crc, 3, 1)):
        parts: list[Buffer] = []
        encode_record(entry(lsn), lsn=lsn, prev_crc=prev_crc, durable_lsn=1, salt=salt, out=parts)
        disk.damage(segment_path(1), HEADER_PAGE_BYTES + record_bytes(100), b"".join(map(bytes, parts)))
        try:
            assert len(list(scan(disk))) == records
        except CorruptionError:
            assert lsn == 3
