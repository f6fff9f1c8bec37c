"""Reads the log back, and tells a torn tail from corruption.

The recovery rule, which the README states in full: where the first record that does not verify stands, the log
*ends* only if nothing shows that it went on. A later segment that names a later end, a durable mark beyond it,
or a later record whose loss cannot be explained by sectors that never reached the disk make it corruption.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from omendb_common.disk import Disk
from omendb_common.errors import CorruptionError
from omendb_engine.wal.record import (
    COMMIT_NAME,
    HEADER_BYTES,
    HEADER_PAGE_BYTES,
    CommitPoint,
    RecordHeader,
    SegmentFlag,
    SegmentHeader,
    WalIdentity,
    WalRecord,
    decode_commit,
    decode_record,
    decode_record_header,
    decode_segment_header,
    segment_name,
    segment_seq,
)

_SECTOR_BYTES = 512
_RECORD_BYTES_MIN = 64
_REPAIR = "restore a copy, or run `omendb repair` to keep what is before the damage"


@dataclass(frozen=True, slots=True)
class TornTail:
    """Where the log ends in bytes that were never acknowledged: ``path`` from ``offset`` on."""

    path: str
    offset: int


class SegmentSpan(NamedTuple):
    """One segment file: its records are first_lsn..last_lsn (none when last < first), in its first ``used_bytes``."""

    seq: int
    first_lsn: int
    last_lsn: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class WalEnd:
    """Where a log ends; what a writer needs to go on.

    ``unsynced`` is (seq, start, end) of the good bytes that no known mark says were fsynced; ``unused`` are
    segments that hold nothing.
    """

    last_lsn: int = 0
    last_crc: int = 0
    next_seq: int = 1
    torn: TornTail | None = None
    last_seq: int = 0
    segments: tuple[SegmentSpan, ...] = ()
    unused: tuple[int, ...] = ()
    unsynced: tuple[int, int, int] | None = None


def list_segments(disk: Disk, folder: str) -> list[int]:
    """The segments of a log folder, oldest first; none when there is no folder."""
    if not disk.exists(folder):
        return []
    found = (segment_seq(name) for name in disk.listdir(folder))
    return sorted(seq for seq in found if seq is not None)


def read_commit(disk: Disk, folder: str, identity: WalIdentity) -> CommitPoint | None:
    """What the writer last published, or None: it is advice, so an unreadable or damaged file is no error."""
    try:
        return decode_commit(disk.read(f"{folder}/{COMMIT_NAME}"), identity)
    except OSError:
        return None


def read_header(disk: Disk, folder: str, seq: int, identity: WalIdentity) -> SegmentHeader | None:
    """A segment's header, or None when its page does not verify.

    Raises:
        CorruptionError: the page verifies but belongs to another log or another segment.
        FormatVersionError: a newer release wrote it.
    """
    path = f"{folder}/{segment_name(seq)}"
    file = disk.open(path, "r")
    try:
        page = file.pread(HEADER_PAGE_BYTES, 0)
    finally:
        file.close()
    header = decode_segment_header(page, path)
    if header is None:
        return None
    if header.identity.seed != identity.seed:
        raise CorruptionError("the segment belongs to another log", path=path, offset=0, mend=_REPAIR)
    if header.seq != seq:
        raise CorruptionError(f"the segment is number {header.seq}", path=path, offset=0, bound=f"number {seq}")
    return header


@dataclass(frozen=True, slots=True)
class _Chain:
    """The segments that hold everything after some lsn, oldest first, and the files around them."""

    headers: tuple[SegmentHeader, ...]
    older: tuple[int, ...]
    empty: tuple[int, ...]
    next_seq: int


def _find_chain(disk: Disk, folder: str, identity: WalIdentity, after_lsn: int) -> _Chain:
    """Walk back from the newest segment to the one that holds ``after_lsn + 1``; older ones are not even read."""
    seqs = list_segments(disk, folder)
    headers: list[SegmentHeader] = []
    bad: list[int] = []
    passed: list[int] = []
    while seqs and not (headers and headers[-1].first_lsn <= after_lsn + 1):
        seq = seqs.pop()
        header = read_header(disk, folder, seq, identity)
        if header is not None:
            headers.append(header)
        elif headers and headers[-1].prev_seq < seq:
            # A later segment vouches that the chain passes this one by.
            passed.append(seq)
        else:
            bad.append(seq)
    for seq in bad:
        _check_unused(disk, f"{folder}/{segment_name(seq)}")
    headers.reverse()
    if headers and headers[0].first_lsn > after_lsn + 1:
        path = f"{folder}/{segment_name(headers[0].seq)}"
        raise CorruptionError(
            f"the log begins at lsn {headers[0].first_lsn}", path=path, bound=f"at most {after_lsn + 1}", mend=_REPAIR
        )
    newest = max([h.seq for h in headers] + bad + seqs, default=0)
    return _Chain(tuple(headers), tuple(seqs), tuple(sorted(bad + passed)), newest + 1)


def _check_unused(disk: Disk, path: str) -> None:
    """A segment without a good header holds nothing: zeros, but for a header page torn before any record followed."""
    data = np.frombuffer(disk.read(path), np.uint8)
    whole = data.size > HEADER_PAGE_BYTES
    if data[HEADER_PAGE_BYTES if whole else 0 :].any():
        raise CorruptionError("the segment header does not verify", path=path, offset=0, mend=_REPAIR)


class WalScan:
    """The records after some lsn, in order; then ``end``.

    Iterate once. One segment's bytes are in memory at a time, kept alive by the bodies that view them.

    Raises (when made, and from the iteration):
        CorruptionError: with the file and the offset of the first byte that cannot be trusted.
        FormatVersionError: a newer release wrote the log.
        OSError: a read failed.
    """

    def __init__(
        self, disk: Disk, folder: str, *, identity: WalIdentity, after_lsn: int, known_durable_lsn: int
    ) -> None:
        self._disk = disk
        self._folder = folder
        # Before the segments: a live writer may publish more while they are read, never less.
        commit = read_commit(disk, folder, identity)
        self._durable_lsn = max(known_durable_lsn, commit.durable_lsn if commit else 0)
        self._chain = _find_chain(disk, folder, identity, after_lsn)
        self._after_lsn = after_lsn
        self._lsn = after_lsn
        self._crc = 0
        self._end: WalEnd | None = None
        self._records = self._read_all()

    def __iter__(self) -> Iterator[WalRecord]:
        return self._records

    @property
    def end(self) -> WalEnd:
        """Where the log ends; reads and verifies what was not iterated yet."""
        for _ in self._records:
            pass
        if self._end is None:
            raise RuntimeError("the scan was stopped by an error")
        return self._end

    def _read_all(self) -> Iterator[WalRecord]:
        chain = self._chain.headers
        spans = [
            SegmentSpan(seq, 0, chain[0].first_lsn - 1 if chain else self._after_lsn, 0) for seq in self._chain.older
        ]
        torn: TornTail | None = None
        last: _Segment | None = None
        for at, header in enumerate(chain):
            if last is not None:
                last.check_followed_by(header)
            following = chain[at + 1] if at + 1 < len(chain) else None
            last = _Segment(self._disk, self._folder, header, following)
            for record in last.records():
                if record.lsn > self._after_lsn:
                    yield record
            torn = last.judge_end()
            spans.append(SegmentSpan(header.seq, header.first_lsn, last.lsn, last.position))
            self._lsn, self._crc = last.lsn, last.crc
        self._check_marks(last)
        self._end = WalEnd(
            last_lsn=self._lsn,
            last_crc=self._crc,
            next_seq=self._chain.next_seq,
            torn=torn,
            last_seq=chain[-1].seq if chain else 0,
            segments=tuple(spans),
            unused=self._chain.empty,
            unsynced=last.region_after(self._durable_lsn) if last else None,
        )

    def _check_marks(self, last: _Segment | None) -> None:
        known = max(self._durable_lsn, self._after_lsn)
        if self._lsn >= known:
            return
        raise CorruptionError(
            f"the log ends at lsn {self._lsn}",
            path=last.path if last else self._folder,
            offset=last.position if last else None,
            bound=f"at least {known}, which was on stable storage",
            mend=_REPAIR,
        )


class _Segment:
    """One segment being read: ``lsn``, ``crc`` and ``position`` stand after its last good record."""

    def __init__(self, disk: Disk, folder: str, header: SegmentHeader, following: SegmentHeader | None) -> None:
        self.path = f"{folder}/{segment_name(header.seq)}"
        self.lsn = header.prev_last_lsn
        self.crc = header.prev_last_crc
        self.position = HEADER_PAGE_BYTES
        self._disk = disk
        self._header = header
        self._following = following
        self._offsets: list[int] = []
        self._mark = header.prev_last_lsn
        self._data = memoryview(b"")

    def records(self) -> Iterator[WalRecord]:
        """The good records up to where the next segment says that this one ends."""
        self._data = memoryview(self._disk.read(self.path))
        yield from self._good_records()
        # A live writer may have been at work behind the place being read. What was missing is then there now.
        while self._following is None and self._position_is_bad() and self._reread():
            yield from self._good_records()

    def _good_records(self) -> Iterator[WalRecord]:
        salt = self._header.salt
        last_lsn = self._following.prev_last_lsn if self._following else None
        while last_lsn is None or self.lsn < last_lsn:
            header = decode_record_header(self._data, self.position, salt)
            if header is None or header.lsn != self.lsn + 1 or header.prev_crc != self.crc:
                return
            found = decode_record(self._data, self.position, header, salt)
            if found is None:
                return
            record, self.crc = found
            self._offsets.append(self.position)
            self.position += header.total_bytes
            self.lsn = header.lsn
            self._mark = max(self._mark, header.durable_lsn)
            yield record

    def _position_is_bad(self) -> bool:
        return bool(np.frombuffer(self._data, np.uint8)[self.position :].any())

    def _reread(self) -> bool:
        """Read the file again; whether it changed."""
        data = memoryview(self._disk.read(self.path))
        changed = data[self.position :] != self._data[self.position :]
        if changed:
            self._data = data
        return changed

    def check_followed_by(self, header: SegmentHeader) -> None:
        """The next segment must go on exactly where this one ended."""
        if (header.prev_seq, header.prev_last_lsn, header.prev_last_crc) != (self._header.seq, self.lsn, self.crc):
            raise CorruptionError(
                f"the log ends at lsn {self.lsn} of segment {self._header.seq}",
                path=self.path,
                offset=self.position,
                bound=f"lsn {header.prev_last_lsn} of segment {header.prev_seq}, says segment {header.seq}",
                mend=_REPAIR,
            )

    def judge_end(self) -> TornTail | None:
        """None for a clean end, where it is torn, or CorruptionError."""
        rest = np.frombuffer(self._data, np.uint8)[self.position :]
        following = self._following
        if following is None:
            return self._judge_tail() if rest.any() else None
        if self.lsn == following.prev_last_lsn and rest.any() and SegmentFlag.AFTER_OPEN not in following.flags:
            # The writer went on to the next segment by itself, so this one ends in the zeros it was made of.
            offset = self.position + int(np.flatnonzero(rest)[0])
            raise CorruptionError("bytes after the last record", path=self.path, offset=offset, mend=_REPAIR)
        return None

    def _judge_tail(self) -> TornTail:
        later = list(self._later_headers())
        if any(header.durable_lsn > self.lsn for _, header in later):
            self._refuse("a later record says that this one was on stable storage")
        if later and not self._lost_a_sector(later[0][0]):
            self._refuse("a later record is intact, and no sector is missing before it")
        return TornTail(self.path, self.position)

    def _refuse(self, reason: str) -> None:
        raise CorruptionError(f"damaged record: {reason}", path=self.path, offset=self.position, mend=_REPAIR)

    def _bad_header(self) -> RecordHeader | None:
        """The header of the bad record, when at least that verifies."""
        header = decode_record_header(self._data, self.position, self._header.salt)
        return header if header is not None and header.lsn == self.lsn + 1 else None

    def _later_headers(self) -> Iterator[tuple[int, RecordHeader]]:
        """Offsets and headers of later records whose header verifies."""
        header = self._bad_header()
        start = self.position + (header.total_bytes if header else 8)
        left = len(self._data) - start
        if left < HEADER_BYTES:
            return
        words = np.frombuffer(self._data, "<u8", count=left // 8, offset=start)
        # A header's lsn is its second word. Zeros, which most of the tail is, are ruled out by that.
        newest = self.lsn + left // _RECORD_BYTES_MIN + 2
        plausible = (words[1:] > self.lsn) & (words[1:] <= newest) & (words[:-1] >> 32 <= left)
        for word in np.flatnonzero(plausible):
            offset = start + int(word) * 8
            found = decode_record_header(self._data, offset, self._header.salt)
            if found is not None and found.lsn > self.lsn:
                yield offset, found

    def _lost_a_sector(self, later: int) -> bool:
        """Whether the bad record misses a whole sector, as after a power cut: segments are zeros until written."""
        header = self._bad_header()
        end = min(later, self.position + (header.total_bytes if header else HEADER_BYTES))
        data = np.frombuffer(self._data, np.uint8)
        first = self.position // _SECTOR_BYTES * _SECTOR_BYTES
        return any(
            not data[max(at, self.position) : min(at + _SECTOR_BYTES, end)].any()
            for at in range(first, end, _SECTOR_BYTES)
        )

    def region_after(self, durable_lsn: int) -> tuple[int, int, int] | None:
        """(seq, start, end) of the good bytes that are not known to have been fsynced."""
        if not self._offsets:
            # Only a record shows that the header before it was durable.
            return self._header.seq, 0, HEADER_PAGE_BYTES
        known = max(durable_lsn, self._mark) - self._header.first_lsn + 1
        if known >= len(self._offsets):
            return None
        return self._header.seq, self._offsets[max(known, 0)], self.position


def read_wal(
    disk: Disk, folder: str, *, identity: WalIdentity, after_lsn: int = 0, known_durable_lsn: int = 0
) -> WalScan:
    """The records after ``after_lsn``; ``known_durable_lsn`` is what the manifest says was fsynced."""
    return WalScan(disk, folder, identity=identity, after_lsn=after_lsn, known_durable_lsn=known_durable_lsn)


def wal_covers(disk: Disk, folder: str, identity: WalIdentity, after_lsn: int) -> bool:
    """Whether everything after ``after_lsn`` can be read from the log's segments (their contents are not verified)."""
    try:
        chain = _find_chain(disk, folder, identity, after_lsn)
    except CorruptionError:
        return False
    if chain.headers:
        return True
    if not disk.exists(f"{folder}/{COMMIT_NAME}"):
        return True
    commit = read_commit(disk, folder, identity)
    return commit is not None and commit.committed_lsn <= after_lsn


__all__ = [
    "SegmentSpan",
    "TornTail",
    "WalEnd",
    "WalScan",
    "list_segments",
    "read_commit",
    "read_header",
    "read_wal",
    "wal_covers",
]
