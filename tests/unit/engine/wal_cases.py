"""A small log on a simulated disk, and the questions the log's tests ask of it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

from omendb_chaos.sim.disk import SimDisk
from omendb_engine.wal.prepare import WalSettings
from omendb_engine.wal.reader import WalEnd, WalScan, list_segments, read_wal
from omendb_engine.wal.record import RecordType, WalEntry, WalIdentity, WalRecord, segment_name
from omendb_engine.wal.writer import WalWriter

FOLDER = "/db/wal"
IDENTITY = WalIdentity(b"0123456789abcdef")
SMALL = WalSettings(segment_bytes=16 << 10, first_segment_bytes=16 << 10)
_PATTERN = bytes(i * 7 % 255 + 1 for i in range(255))


def new_disk(seed: int = 0) -> SimDisk:
    disk = SimDisk(seed)
    disk.mkdir("/db")
    disk.settle()
    return disk


def body_of(lsn: int, length: int) -> bytes:
    """Bytes without zeros, different for every lsn."""
    start = lsn * 31 % 255
    return (_PATTERN * (length // len(_PATTERN) + 2))[start : start + length]


def entry(lsn: int, length: int = 100) -> WalEntry:
    """The entry that the record with this lsn should be; its body in two parts."""
    body = body_of(lsn, length)
    return WalEntry(
        RecordType.OPS, stamp=lsn * 1000, nops=lsn, parts=[body[: length // 3], body[length // 3 :]], schema=3, epoch=7
    )


def open_writer(
    disk: SimDisk,
    resume: WalEnd | None = None,
    settings: WalSettings = SMALL,
    prepare: Executor | None = None,
    incarnation: int = 0,
) -> WalWriter:
    identity = WalIdentity(IDENTITY.replica, incarnation=incarnation)
    end = resume if resume is not None else scan(disk).end
    return WalWriter(disk, FOLDER, identity=identity, resume=end, settings=settings, prepare=prepare)


def append(writer: WalWriter, *lengths: int) -> int:
    """One group of records with bodies of these lengths."""
    first = writer.last_lsn + 1
    return writer.append([entry(first + i, length) for i, length in enumerate(lengths)])


def scan(disk: SimDisk, after_lsn: int = 0, known_durable_lsn: int = 0) -> WalScan:
    return read_wal(disk, FOLDER, identity=IDENTITY, after_lsn=after_lsn, known_durable_lsn=known_durable_lsn)


def check(records: Sequence[WalRecord], first_lsn: int, last_lsn: int) -> None:
    """These are exactly the records first..last, each as it was written."""
    assert [record.lsn for record in records] == list(range(first_lsn, last_lsn + 1))
    for record in records:
        if record.type is RecordType.OPS:
            assert bytes(record.body) == body_of(record.lsn, len(record.body))
            assert (record.stamp, record.nops, record.schema, record.epoch) == (
                record.lsn * 1000,
                record.lsn & 0xFFFFFFFF,
                3,
                7,
            )


def segment_path(seq: int) -> str:
    return f"{FOLDER}/{segment_name(seq)}"


def segment_paths(disk: SimDisk) -> list[str]:
    return [segment_path(seq) for seq in list_segments(disk, FOLDER)]
