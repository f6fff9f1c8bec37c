"""The log's bytes: segment header page, records, and the COMMIT file.

All integers are little-endian; the layout tables stand in this folder's README. Nothing here does I/O.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import NamedTuple

from omendb_common.checksum import Buffer, byte_length, crc32c
from omendb_common.errors import CorruptionError, FormatVersionError

HEADER_PAGE_BYTES = 4096
HEADER_BYTES = 56
TRAILER_BYTES = 8
BODY_BYTES_MAX = (1 << 30) + (1 << 20)
COMMIT_NAME = "COMMIT"
COMMIT_BYTES = 24
FORMAT = 1

_PAGE_MAGIC = b"OMWALv1\0"
_PAGE = struct.Struct("<8sHHI16s16sQQQQQQII")
_PAGE_CRC = struct.Struct("<I")
_HEADER = struct.Struct("<IQIBBHQQIIQ")
_HEADER_CRC = struct.Struct("<I")
_TRAILER = struct.Struct("<II")
_COMMIT = struct.Struct("<QQ")
_COMMIT_CRC = struct.Struct("<II")
_PADS = tuple(bytes(n) for n in range(8))
_U32 = 0xFFFFFFFF


class RecordType(IntEnum):
    """What a record is for. Only OPS has a body that changes points."""

    OPS = 1
    SKIP = 2
    DURABLE_MARK = 3
    CHECKPOINT = 4
    EPOCH = 5
    SEAL = 6


_TYPE_MAX = max(RecordType)


class SegmentFlag(IntFlag):
    """Flags of a segment header."""

    # The first segment of a run: the one before may end in a torn tail, which recovery has judged.
    AFTER_OPEN = 1


_NO_FLAGS = SegmentFlag(0)


@dataclass(frozen=True, slots=True)
class WalIdentity:
    """Whose log this is. A segment with another identity is refused, never read.

    ``cluster`` and ``replica`` are 16 raw uuid bytes. ``log_id`` changes when a log is abandoned and begun
    anew; ``incarnation`` counts the runs of the writer and is recorded, not compared.
    """

    replica: bytes
    log_id: int = 1
    cluster: bytes = bytes(16)
    incarnation: int = 0

    def __post_init__(self) -> None:
        assert len(self.replica) == 16 and len(self.cluster) == 16, "uuids are 16 bytes"

    @property
    def seed(self) -> int:
        """Folds identity into checksums, so that another log's bytes never verify here."""
        return crc32c([self.cluster, self.replica, self.log_id.to_bytes(8, "little")])


class WalRecord(NamedTuple):
    """One record as read back.

    ``body`` is a view of the bytes that were verified; ``durable_lsn`` what was fsynced when it was written.
    """

    lsn: int
    type: RecordType
    flags: int
    schema: int
    stamp: int
    origin_seq: int
    epoch: int
    nops: int
    body: memoryview
    durable_lsn: int


@dataclass(frozen=True, slots=True)
class WalEntry:
    """One record to be appended; ``parts`` are the body's buffers, written one after the other without copying."""

    type: RecordType
    stamp: int = 0
    nops: int = 0
    parts: Sequence[Buffer] = ()
    flags: int = 0
    schema: int = 0
    origin_seq: int = 0
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The header page of one segment."""

    identity: WalIdentity
    seq: int
    first_lsn: int
    prev_seq: int
    prev_last_lsn: int
    prev_last_crc: int
    flags: SegmentFlag = _NO_FLAGS

    @property
    def salt(self) -> int:
        """Seed of this segment's record checksums: a record copied from another segment does not verify."""
        words = struct.pack(
            "<QQQI", self.seq, self.first_lsn, self.identity.incarnation & (1 << 64) - 1, self.prev_last_crc
        )
        return crc32c(words, self.identity.seed)


class RecordHeader(NamedTuple):
    """The fixed part of a record, verified."""

    lsn: int
    body_bytes: int
    prev_crc: int
    type: RecordType
    flags: int
    schema: int
    stamp: int
    origin_seq: int
    epoch: int
    nops: int
    durable_lsn: int

    @property
    def total_bytes(self) -> int:
        """Header, body, padding and trailer."""
        return record_bytes(self.body_bytes)


def segment_name(seq: int) -> str:
    """File name of a segment."""
    return f"wal-{seq:016x}.log"


def segment_seq(name: str) -> int | None:
    """The segment a file name stands for, or None when it is no segment's name."""
    digits = name[4:-4]
    if name[:4] != "wal-" or name[-4:] != ".log" or len(digits) != 16:
        return None
    try:
        seq = int(digits, 16)
    except ValueError:
        return None
    return seq if segment_name(seq) == name else None


def record_bytes(body_bytes: int) -> int:
    """Bytes that a record with such a body takes in the file; a multiple of 8."""
    return HEADER_BYTES + body_bytes + (-body_bytes % 8) + TRAILER_BYTES


def encode_segment_header(header: SegmentHeader) -> bytes:
    """The header page, HEADER_PAGE_BYTES long."""
    who = header.identity
    page = _PAGE.pack(
        _PAGE_MAGIC,
        FORMAT,
        int(header.flags),
        header.salt,
        who.cluster,
        who.replica,
        who.incarnation,
        who.log_id,
        header.seq,
        header.first_lsn,
        header.prev_seq,
        header.prev_last_lsn,
        header.prev_last_crc,
        0,
    ).ljust(HEADER_PAGE_BYTES - _PAGE_CRC.size, b"\0")
    return page + _PAGE_CRC.pack(crc32c(page))


def decode_segment_header(page: bytes | memoryview, path: str) -> SegmentHeader | None:
    """The header of a segment, or None when the page does not verify (torn, damaged, or never written).

    Raises:
        FormatVersionError: a newer release wrote it.
        CorruptionError: the page verifies and yet contradicts itself.
    """
    if len(page) < HEADER_PAGE_BYTES or page[:8] != _PAGE_MAGIC:
        return None
    (crc,) = _PAGE_CRC.unpack_from(page, HEADER_PAGE_BYTES - _PAGE_CRC.size)
    if crc32c(memoryview(page)[: HEADER_PAGE_BYTES - _PAGE_CRC.size]) != crc:
        return None
    (_, fmt, flags, salt, cluster, replica, incarnation, log_id, seq, first, prev_seq, prev_lsn, prev_crc, _) = (
        _PAGE.unpack_from(page)
    )
    if fmt > FORMAT:
        raise FormatVersionError(f"log format {fmt}", field=path, bound=f"at most {FORMAT}", mend="upgrade omendb")
    identity = WalIdentity(replica, log_id, cluster, incarnation)
    header = SegmentHeader(identity, seq, first, prev_seq, prev_lsn, prev_crc, SegmentFlag(flags))
    if header.salt != salt or first != prev_lsn + 1:
        raise CorruptionError("the segment header contradicts itself", path=path, offset=0)
    return header


def encode_record(
    entry: WalEntry, *, lsn: int, prev_crc: int, durable_lsn: int, salt: int, out: list[Buffer]
) -> tuple[int, int]:
    """Append the buffers of one record to ``out``, the caller's body buffers among them uncopied.

    Returns:
        (bytes in the file, the record's checksum, which the next record chains to)
    """
    parts = entry.parts
    body = sum(map(byte_length, parts))
    assert body <= BODY_BYTES_MAX, "a record's body is bounded where the batch is validated"
    fields = _HEADER.pack(
        body,
        lsn,
        prev_crc,
        entry.type,
        entry.flags,
        entry.schema,
        entry.stamp,
        entry.origin_seq,
        entry.epoch,
        entry.nops,
        durable_lsn,
    )
    head = _HEADER_CRC.pack(crc32c(fields, salt)) + fields
    pad = _PADS[-body % 8]
    crc = crc32c(head, salt)
    for part in parts:
        crc = crc32c(part, crc)
    if pad:
        crc = crc32c(pad, crc)
    out.append(head)
    out.extend(parts)
    out.append(pad + _TRAILER.pack(crc, lsn & _U32))
    return record_bytes(body), crc


def decode_record_header(data: Buffer, at: int, salt: int) -> RecordHeader | None:
    """The header at ``at``, or None when there are no HEADER_BYTES left or it does not verify."""
    view = memoryview(data)[at : at + HEADER_BYTES]  # type: ignore[arg-type]
    if len(view) < HEADER_BYTES:
        return None
    (crc,) = _HEADER_CRC.unpack_from(view)
    if crc32c(view[_HEADER_CRC.size :], salt) != crc:
        return None
    (body, lsn, prev_crc, kind, flags, schema, stamp, origin_seq, epoch, nops, durable_lsn) = _HEADER.unpack_from(
        view, _HEADER_CRC.size
    )
    # A forged or impossible header is as bad as one that fails its checksum.
    if not 1 <= kind <= _TYPE_MAX or body > BODY_BYTES_MAX or durable_lsn >= lsn:
        return None
    return RecordHeader(
        lsn, body, prev_crc, RecordType(kind), flags, schema, stamp, origin_seq, epoch, nops, durable_lsn
    )


def decode_record(data: memoryview, at: int, header: RecordHeader, salt: int) -> tuple[WalRecord, int] | None:
    """The record at ``at`` with its checksum, or None when it is cut short or does not verify."""
    end = at + header.total_bytes
    if end > len(data):
        return None
    crc, lsn_lo = _TRAILER.unpack_from(data, end - TRAILER_BYTES)
    if lsn_lo != header.lsn & _U32 or crc32c(data[at : end - TRAILER_BYTES], salt) != crc:
        return None
    body = data[at + HEADER_BYTES : at + HEADER_BYTES + header.body_bytes]
    record = WalRecord(
        header.lsn,
        header.type,
        header.flags,
        header.schema,
        header.stamp,
        header.origin_seq,
        header.epoch,
        header.nops,
        body,
        header.durable_lsn,
    )
    return record, crc


@dataclass(frozen=True, slots=True)
class CommitPoint:
    """What the writer last published: everything through ``committed_lsn`` may be read, ``durable_lsn`` was fsynced."""

    committed_lsn: int
    durable_lsn: int


def encode_commit(point: CommitPoint, identity: WalIdentity) -> bytes:
    """The COMMIT file's contents, COMMIT_BYTES long."""
    words = _COMMIT.pack(point.committed_lsn, point.durable_lsn)
    crc = crc32c(words, identity.seed)
    # The inverse beside the checksum: four bytes alone would pass garbage once in 2**32.
    return words + _COMMIT_CRC.pack(crc, crc ^ _U32)


def decode_commit(data: bytes, identity: WalIdentity) -> CommitPoint | None:
    """The published point, or None for anything else than an intact one of this log."""
    if len(data) != COMMIT_BYTES:
        return None
    crc, inverse = _COMMIT_CRC.unpack_from(data, _COMMIT.size)
    if crc ^ _U32 != inverse or crc32c(data[: _COMMIT.size], identity.seed) != crc:
        return None
    committed, durable = _COMMIT.unpack_from(data)
    return CommitPoint(committed, durable) if durable <= committed else None


__all__ = [
    "BODY_BYTES_MAX",
    "COMMIT_BYTES",
    "COMMIT_NAME",
    "FORMAT",
    "HEADER_BYTES",
    "HEADER_PAGE_BYTES",
    "TRAILER_BYTES",
    "CommitPoint",
    "RecordHeader",
    "RecordType",
    "SegmentFlag",
    "SegmentHeader",
    "WalEntry",
    "WalIdentity",
    "WalRecord",
    "decode_commit",
    "decode_record",
    "decode_record_header",
    "decode_segment_header",
    "encode_commit",
    "encode_record",
    "encode_segment_header",
    "record_bytes",
    "segment_name",
    "segment_seq",
]
