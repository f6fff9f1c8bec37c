"""What is appended comes back, across rotation, reopening and dropping."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.checksum import crc32c
from omendb_common.disk import RealDisk
from omendb_common.errors import CorruptionError, DatabaseClosedError, FormatVersionError
from omendb_engine.wal.prepare import WalSettings
from omendb_engine.wal.reader import WalEnd, read_wal, wal_covers
from omendb_engine.wal.record import (
    HEADER_PAGE_BYTES,
    CommitPoint,
    RecordType,
    SegmentHeader,
    WalEntry,
    WalIdentity,
    decode_commit,
    decode_segment_header,
    encode_commit,
    encode_segment_header,
    record_bytes,
    segment_name,
    segment_seq,
)
from omendb_engine.wal.writer import WalWriter
from tests.unit.engine.wal_cases import (
    FOLDER,
    IDENTITY,
    SMALL,
    append,
    body_of,
    check,
    entry,
    new_disk,
    open_writer,
    scan,
    segment_paths,
)


def test_a_new_log_is_empty_and_makes_no_segment() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    assert (writer.last_lsn, writer.durable_lsn, writer.failed) == (0, 0, False)
    writer.close()
    writer.close()
    assert segment_paths(disk) == []
    assert scan(disk).end == WalEnd()


def test_every_field_comes_back() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    vectors = np.arange(12, dtype=np.float32).reshape(3, 4)
    sent = WalEntry(
        RecordType.EPOCH,
        stamp=2**64 - 1,
        nops=2**32 - 1,
        parts=[b"head", vectors, memoryview(b"")],
        flags=255,
        schema=65535,
        origin_seq=2**63,
        epoch=2**32 - 2,
    )
    assert writer.append([sent, WalEntry(RecordType.SKIP)]) == 2
    assert writer.sync() == 2
    first, second = scan(disk)
    assert bytes(first.body) == b"head" + vectors.tobytes()
    assert (first.lsn, first.type, first.flags, first.schema) == (1, RecordType.EPOCH, 255, 65535)
    assert (first.stamp, first.nops) == (2**64 - 1, 2**32 - 1)
    assert (first.origin_seq, first.epoch) == (2**63, 2**32 - 2)
    assert (second.lsn, second.type, len(second.body), second.durable_lsn) == (2, RecordType.SKIP, 0, 0)


def test_every_group_carries_the_last_fsynced_lsn() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 10, 10)
    append(writer, 10)
    writer.sync()
    append(writer, 10, 10)
    assert [record.durable_lsn for record in scan(disk)] == [0, 0, 0, 3, 3]


groups = st.lists(st.lists(st.integers(0, 6000), min_size=1, max_size=4), min_size=1, max_size=12)


@given(groups, st.integers(0, 11), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_groups_survive_rotation_and_reopening(sizes: list[list[int]], reopen_at: int, clean: bool) -> None:
    disk = new_disk()
    writer = open_writer(disk)
    for at, lengths in enumerate(sizes):
        if at == reopen_at:
            if clean:
                writer.close()
            writer = open_writer(disk)
        append(writer, *lengths)
        writer.sync()
    last = writer.last_lsn
    records = list(scan(disk))
    check(records, 1, last)
    for after in {0, last // 2, last - 1, last}:
        part = scan(disk, after_lsn=after)
        check(list(part), after + 1, last)
        assert part.end.last_lsn == last
    writer.close()
    end = scan(disk).end
    assert end.last_lsn == last + 1
    assert (end.torn, end.unsynced) == (None, None)


def test_segments_double_up_to_the_setting() -> None:
    disk = new_disk()
    writer = open_writer(disk, settings=WalSettings(segment_bytes=64 << 10, first_segment_bytes=16 << 10))
    for _ in range(80):
        append(writer, 3000)
    sizes = [disk.size(path) >> 10 for path in segment_paths(disk)]
    assert sizes == [16, 32, 64, 64, 64, 64]
    assert writer.segment_bytes == 64 << 10


def test_a_record_larger_than_a_segment_gets_its_own() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 10)
    append(writer, 100_000)
    append(writer, 3000)
    writer.sync()
    check(list(scan(disk)), 1, 3)
    sizes = [disk.size(path) for path in segment_paths(disk)]
    assert len(sizes) == 3
    assert sizes[0] == sizes[2] == 16 << 10
    assert sizes[1] % 4096 == 0
    assert 100_000 < sizes[1] < 112 << 10


def test_a_clean_close_cuts_the_segment_and_marks_it() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 10)
    writer.close()
    (path,) = segment_paths(disk)
    assert disk.size(path) == HEADER_PAGE_BYTES + record_bytes(10) + record_bytes(0)
    mark = list(scan(disk))[-1]
    assert (mark.type, mark.lsn, mark.durable_lsn) == (RecordType.DURABLE_MARK, 2, 1)
    for call in (writer.sync, writer.publish, lambda: append(writer, 1)):
        with pytest.raises(DatabaseClosedError):
            call()


def test_the_mark_of_a_clean_close_always_fits() -> None:
    for length in range(12_000, 12_161, 8):
        disk = new_disk()
        writer = open_writer(disk)
        append(writer, length)
        writer.close()
        assert len(segment_paths(disk)) == 1
        assert scan(disk).end.last_lsn == 2


def test_a_reopened_log_never_writes_to_an_old_segment() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 10)
    writer.sync()
    before = disk.peek(segment_paths(disk)[0])
    writer = open_writer(disk)
    append(writer, 10)
    writer.sync()
    assert len(segment_paths(disk)) == 2
    assert disk.peek(segment_paths(disk)[0]) == before


def test_the_next_segment_is_made_in_the_background() -> None:
    disk = new_disk()
    with ThreadPoolExecutor(1) as executor:
        writer = open_writer(disk, prepare=executor)
        append(writer, 1000)
        assert len(segment_paths(disk)) == 1
        append(writer, 6000)
        executor.submit(lambda: None).result()
        assert len(segment_paths(disk)) == 2
        for _ in range(20):
            append(writer, 6000)
        writer.close()
        check(list(scan(disk))[:-1], 1, 22)
        # The one that was made and not needed is gone.
        assert scan(disk).end.unused == ()
        assert disk.size(segment_paths(disk)[-1]) > HEADER_PAGE_BYTES


def test_leftover_blank_segments_are_removed_at_the_next_open() -> None:
    disk = new_disk()
    with ThreadPoolExecutor(1) as executor:
        writer = open_writer(disk, prepare=executor)
        append(writer, 9000)
        writer.sync()
    assert len(segment_paths(disk)) == 2
    end = scan(disk).end
    assert (end.unused, end.next_seq) == ((2,), 3)
    writer = open_writer(disk, end)
    assert len(segment_paths(disk)) == 1
    append(writer, 10)
    check(list(scan(disk)), 1, 2)


def test_drop_through_removes_only_what_is_covered() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    for _ in range(12):
        append(writer, 3000)
    writer.sync()
    spans = scan(disk).end.segments
    assert len(spans) == 4
    for lsn in range(13):
        writer.drop_through(lsn)
        gone = [span for span in spans[:-1] if span.last_lsn <= lsn]
        assert len(segment_paths(disk)) == len(spans) - len(gone)
        check(list(scan(disk, after_lsn=lsn)), lsn + 1, 12)
    with pytest.raises(CorruptionError):
        list(scan(disk, after_lsn=0))
    covered = [
        wal_covers(disk, FOLDER, IDENTITY, lsn) for lsn in (0, spans[-1].first_lsn - 2, spans[-1].first_lsn - 1, 12)
    ]
    assert covered == [False, False, True, True]


def test_sequence_numbers_rise_even_when_everything_was_dropped() -> None:
    disk = new_disk()
    for run in range(1, 4):
        writer = open_writer(disk, scan(disk, after_lsn=2 * run - 2).end)
        append(writer, 10)
        writer.drop_through(writer.last_lsn)
        writer.close()
        writer.drop_through(writer.last_lsn)
        assert [span.seq for span in scan(disk, after_lsn=2 * run).end.segments] == [run]


def test_bytes_since_counts_what_a_replay_would_read() -> None:
    disk = new_disk()
    writer = open_writer(disk, settings=WalSettings(1 << 20, 1 << 20))
    for _ in range(60):
        append(writer, 20_000)
    total = writer.bytes_since(0)
    assert total >= 60 * record_bytes(20_000)
    half = writer.bytes_since(30)
    assert 30 * record_bytes(20_000) <= half <= 30 * record_bytes(20_000) + (64 << 10) + 30_000
    assert writer.bytes_since(60) <= 64 << 10
    writer.drop_through(40)
    assert 20 * record_bytes(20_000) <= writer.bytes_since(40) <= 20 * record_bytes(20_000) + (64 << 10) + 30_000
    reopened = open_writer(disk, scan(disk, after_lsn=40).end)
    assert reopened.bytes_since(40) >= 20 * record_bytes(20_000)


def test_on_a_real_disk(tmp_path: Path) -> None:
    disk, folder = RealDisk(), str(tmp_path / "db" / "wal")
    with ThreadPoolExecutor(1) as executor:
        writer = WalWriter(disk, folder, identity=IDENTITY, resume=WalEnd(), settings=SMALL, prepare=executor)
        for lsn in range(1, 31):
            writer.append([entry(lsn, 3000)])
            writer.sync()
        writer.close()
    found = read_wal(disk, folder, identity=IDENTITY)
    check(list(found)[:-1], 1, 30)
    assert found.end.unsynced is None


def test_many_small_parts_are_one_group() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    parts = [bytes([at % 256]) for at in range(5000)]
    writer.append([WalEntry(RecordType.OPS, parts=parts)])
    (record,) = scan(disk)
    assert bytes(record.body) == b"".join(parts)


def test_another_logs_segment_is_refused() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 10)
    writer.close()
    for other in (
        WalIdentity(b"x" * 16),
        WalIdentity(IDENTITY.replica, log_id=2),
        WalIdentity(IDENTITY.replica, 1, b"c" * 16),
    ):
        with pytest.raises(CorruptionError, match="another log"):
            list(read_wal(disk, FOLDER, identity=other))


def test_a_newer_format_is_named() -> None:
    page = bytearray(encode_segment_header(SegmentHeader(IDENTITY, 1, 1, 0, 0, 0)))
    page[8] = 9
    page[-4:] = crc32c(bytes(page[:-4])).to_bytes(4, "little")
    with pytest.raises(FormatVersionError, match="log format 9"):
        decode_segment_header(bytes(page), "f")


@given(st.integers(0, 2**64 - 1))
def test_segment_names_sort_and_parse(seq: int) -> None:
    assert segment_seq(segment_name(seq)) == seq
    assert len(segment_name(seq)) == len(segment_name(0))


@pytest.mark.parametrize(
    "name", ["COMMIT", "wal-1.log", "wal-000000000000000G.log", "wal-00000000000000AA.log", "wal-"]
)
def test_other_names_are_no_segments(name: str) -> None:
    assert segment_seq(name) is None


def test_the_commit_file_is_believed_only_whole() -> None:
    point = CommitPoint(9, 7)
    data = encode_commit(point, IDENTITY)
    assert decode_commit(data, IDENTITY) == point
    assert decode_commit(data, WalIdentity(b"x" * 16)) is None
    assert decode_commit(encode_commit(CommitPoint(7, 9), IDENTITY), IDENTITY) is None
    for length in range(len(data)):
        assert decode_commit(data[:length], IDENTITY) is None
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            assert decode_commit(bytes(damaged), IDENTITY) is None


def test_bodies_are_views_of_what_was_verified() -> None:
    disk = new_disk()
    writer = open_writer(disk)
    append(writer, 5000)
    (record,) = scan(disk)
    assert isinstance(record.body, memoryview)
    assert record.body.readonly
    assert record.body == body_of(1, 5000)
