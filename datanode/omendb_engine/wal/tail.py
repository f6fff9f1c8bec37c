"""Follows a log that another process writes.

The writer publishes in COMMIT how far readers may go; one small read there tells that nothing changed. Segments
are read with pread, never mapped: the writer cuts the last one when it closes.
"""

from __future__ import annotations

from omendb_common.disk import Disk, DiskFile
from omendb_common.errors import CorruptionError, UnavailableError
from omendb_engine.wal.reader import list_segments, read_header
from omendb_engine.wal.record import (
    COMMIT_BYTES,
    COMMIT_NAME,
    HEADER_BYTES,
    HEADER_PAGE_BYTES,
    CommitPoint,
    SegmentHeader,
    WalIdentity,
    WalRecord,
    decode_commit,
    decode_record,
    decode_record_header,
    segment_name,
)

_CHUNK_BYTES = 1 << 20


class WalGapError(UnavailableError):
    """The records a tail needs next are gone: load the manifest, which has them in segments, and start a new tail."""


class WalTail:
    """Reads what is published after ``after_lsn``, as it comes. For one thread.

    It holds the segment it reads open, so the writer may drop it meanwhile.
    """

    def __init__(self, disk: Disk, folder: str, identity: WalIdentity, after_lsn: int) -> None:
        self._disk = disk
        self._folder = folder
        self._identity = identity
        self._lsn = after_lsn
        self._crc = 0
        self._commit: DiskFile | None = None
        self._file: DiskFile | None = None
        self._path = folder
        self._seq = 0
        self._salt = 0
        self._position = HEADER_PAGE_BYTES
        # The lsn that the record at the position has; below _lsn while the start of a segment is passed over.
        self._next_lsn = after_lsn + 1

    @property
    def last_lsn(self) -> int:
        """Newest record returned (or ``after_lsn``)."""
        return self._lsn

    def commit_point(self) -> CommitPoint | None:
        """What the writer last published; None when there is nothing readable yet."""
        if self._commit is None:
            path = f"{self._folder}/{COMMIT_NAME}"
            if not self._disk.exists(path):
                return None
            self._commit = self._disk.open(path, "r")
        return decode_commit(self._commit.pread(COMMIT_BYTES, 0), self._identity)

    def poll(self, upto_lsn: int | None = None) -> list[WalRecord]:
        """The records after the last one returned, through ``upto_lsn`` or what is published, whichever is less.

        Raises:
            WalGapError: the writer has dropped what comes next.
            CorruptionError: a published record does not verify.
            OSError: a read failed.
        """
        point = self.commit_point()
        # A COMMIT caught in mid-write or damaged says nothing; the next publication replaces all of it.
        limit = point.committed_lsn if point else 0
        if upto_lsn is not None:
            limit = min(limit, upto_lsn)
        found: list[WalRecord] = []
        while self._lsn < limit:
            if self._file is None:
                self._open_first()
            if not self._read_segment(limit, found):
                self._open_next()
        return found

    def close(self) -> None:
        """Close the files."""
        for file in (self._file, self._commit):
            if file is not None:
                file.close()
        self._file = self._commit = None

    def _read_segment(self, limit: int, found: list[WalRecord]) -> bool:
        """Read records through ``limit``; False when this segment has no further one that verifies."""
        assert self._file is not None
        data = memoryview(b"")
        at = 0
        while self._lsn < limit:
            header = decode_record_header(data, at, self._salt)
            needed = header.total_bytes if header else HEADER_BYTES
            if len(data) - at < needed:
                data = memoryview(self._file.pread(max(_CHUNK_BYTES, needed), self._position))
                at = 0
                if len(data) < needed:
                    return False
                continue
            if header is None or header.lsn != self._next_lsn or header.prev_crc != self._crc:
                return False
            decoded = decode_record(data, at, header, self._salt)
            if decoded is None:
                return False
            record, self._crc = decoded
            at += needed
            self._position += needed
            self._next_lsn += 1
            if record.lsn > self._lsn:
                self._lsn = record.lsn
                found.append(record)
        return True

    def _open_first(self) -> None:
        """Open the newest segment that begins at or before the next record."""
        for seq in reversed(list_segments(self._disk, self._folder)):
            header = self._header(seq)
            if header is not None and header.first_lsn <= self._lsn + 1:
                self._start(header)
                return
        raise self._gap()

    def _open_next(self) -> None:
        """Open the segment that goes on where this one ended."""
        for seq in list_segments(self._disk, self._folder):
            header = self._header(seq) if seq > self._seq else None
            if header is None:
                continue
            if header.first_lsn == self._next_lsn and header.prev_last_crc == self._crc:
                self._start(header)
                return
            if header.prev_seq == self._seq:
                # That segment says that more records are in this one.
                break
            raise self._gap()
        file = self._file
        if file is not None and any(file.pread(HEADER_BYTES, self._position)):
            raise CorruptionError(
                f"record {self._next_lsn} was published and does not verify", path=self._path, offset=self._position
            )
        raise self._gap()

    def _header(self, seq: int) -> SegmentHeader | None:
        try:
            return read_header(self._disk, self._folder, seq, self._identity)
        except FileNotFoundError:
            # Dropped since the folder was listed.
            return None

    def _start(self, header: SegmentHeader) -> None:
        path = f"{self._folder}/{segment_name(header.seq)}"
        try:
            file = self._disk.open(path, "r")
        except FileNotFoundError:
            raise self._gap() from None
        if self._file is not None:
            self._file.close()
        self._file, self._path, self._seq, self._salt = file, path, header.seq, header.salt
        self._position = HEADER_PAGE_BYTES
        self._next_lsn = header.first_lsn
        self._crc = header.prev_last_crc

    def _gap(self) -> WalGapError:
        return WalGapError(
            f"record {self._next_lsn} is no longer in the log", field=self._folder, mend="load the manifest again"
        )


__all__ = ["WalGapError", "WalTail"]
