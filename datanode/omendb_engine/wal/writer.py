"""Appends groups of records to the log, and makes them durable.

One gather write per group, with the caller's own buffers; one fdatasync per ``sync``. After any failed write or
fsync the writer is dead: a second fsync would report success for pages that the kernel has thrown away.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from omendb_common.checksum import Buffer, byte_length
from omendb_common.disk import Disk, DiskFile, in_pieces, make_folder
from omendb_common.errors import DatabaseClosedError
from omendb_engine.wal.prepare import (
    BlankSegment,
    SegmentPreparer,
    WalFailedError,
    WalSettings,
    disk_full,
    is_full,
    log_failed,
)
from omendb_engine.wal.reader import SegmentSpan, WalEnd
from omendb_engine.wal.record import (
    COMMIT_NAME,
    HEADER_PAGE_BYTES,
    CommitPoint,
    RecordType,
    SegmentFlag,
    SegmentHeader,
    WalEntry,
    WalIdentity,
    encode_commit,
    encode_record,
    encode_segment_header,
    record_bytes,
    segment_name,
)

# Every segment keeps room for the mark that a clean close writes.
_MARK_BYTES = record_bytes(0)
# How finely ``bytes_since`` remembers where an lsn lies.
_MILESTONE_BYTES = 64 << 10
# A group is copied to the kernel in pieces of this size, and the disk begins with each when it is there: about half of
# the copying of a 5 MB group takes no time any more.
_PIECE_BYTES = 1 << 20
# What nobody asked to be synced is synced behind the writes after so much of it: a new segment waits for the rest.
_BEHIND_BYTES = 4 << 20


class WalWriter:
    """The one writer of a log folder.

    Args:
        folder: made when missing.
        resume: where the log ends, from ``read_wal(...).end`` (``WalEnd()`` for a new log). Good records that
            no mark says were fsynced are written again and fsynced first, because the process that wrote them
            may have died of a failed fsync.
        prepare: runs the making of the next segment in the background, and the syncs that nobody waits for; None
            makes segments when they are needed, and syncs when it is told to.

    ``append`` and ``drop_through`` may be called by any thread, ``sync`` and ``publish`` beside them.

    Raises:
        WalFailedError: a write or fsync failed; see ``failed``.
    """

    def __init__(
        self,
        disk: Disk,
        folder: str,
        *,
        identity: WalIdentity,
        resume: WalEnd,
        settings: WalSettings | None = None,
        prepare: Executor | None = None,
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._identity = identity
        # Lock order: append, then sync, then publish. The sync lock is held over every fsync, so that of two threads
        # that sync one file, none can miss the other's failure (the kernel reports it only once).
        self._append_lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._publish_lock = threading.Lock()
        self._behind = prepare
        self._failure: WalFailedError | None = None
        self._closed = False
        self._file: DiskFile | None = None
        self._salt = 0
        self._size = 0
        self._used = 0
        self._last_lsn = resume.last_lsn
        self._last_crc = resume.last_crc
        self._last_seq = resume.last_seq
        self._durable_lsn = resume.last_lsn
        self._spans = list(resume.segments)
        self._total_bytes = sum(span.used_bytes for span in self._spans)
        # How far a sync was begun, roughly.
        self._asked_bytes = self._total_bytes
        self._milestones = _milestones(self._spans)
        self._first_of_run = True
        self._rotations = 0
        self._commit_file: DiskFile | None = None
        self._published: CommitPoint | None = None
        self._preparer = SegmentPreparer(
            disk, folder, settings or WalSettings(), next_seq=resume.next_seq, executor=prepare
        )
        try:
            make_folder(disk, folder)
            self._settle(resume)
            if disk.exists(f"{folder}/{COMMIT_NAME}"):
                self._open_commit("rw")
                self._publish(self._last_lsn)
        except OSError as error:
            raise self._fail(log_failed(error, "opening the log")) from error

    @property
    def last_lsn(self) -> int:
        """Newest record appended."""
        return self._last_lsn

    @property
    def durable_lsn(self) -> int:
        """Newest record known to be on stable storage."""
        return self._durable_lsn

    @property
    def failed(self) -> bool:
        """Whether a write or fsync failed; it stays so."""
        return self._failure is not None

    @property
    def segment_bytes(self) -> int:
        """Size of the current segment file; 0 before the first append."""
        return self._size

    @property
    def rotations(self) -> int:
        """Segments that this writer went through so far, the current one not counted."""
        return self._rotations

    def append(self, entries: Sequence[WalEntry]) -> int:
        """Write one group; returns its last lsn. It is not durable before ``sync``.

        The buffers of the entries are written where they lie: they must not change during the call.

        Raises:
            DiskFullError: no room for another segment. Nothing was written; it can be tried again.
            WalFailedError: the write failed and its outcome is unknown, or an earlier one did.
            DatabaseClosedError: after ``close``.
        """
        with self._append_lock:
            self._check_usable()
            total = sum(record_bytes(sum(map(byte_length, entry.parts))) for entry in entries)
            file = self._file
            if file is None or self._used + total + _MARK_BYTES > self._size:
                file = self._rotate(total)
            self._write(file, entries, total)
            # From the first segment's second half on, so that a small database stays small; then from the start,
            # because writing zeros takes as long as writing records.
            if self._rotations or self._used > self._size // 2:
                self._preparer.prepare_ahead(total, self._used / self._size)
            return self._last_lsn

    def sync(self) -> int:
        """Make everything appended before the call durable, and publish it; returns the durable lsn.

        Raises:
            WalFailedError: the fsync failed; what was appended since the last one has an unknown outcome.
            DatabaseClosedError: after ``close``.
        """
        with self._sync_lock:
            self._check_usable()
            self._sync_file()
            with self._publish_lock:
                self._publish_or_fail(self._durable_lsn)
            return self._durable_lsn

    def _sync_file(self) -> None:
        # The lsn before the file: a rotation between the two has synced the file that held the lsn.
        target = self._last_lsn
        self._asked_bytes = self._total_bytes
        file = self._file
        if file is not None and target > self._durable_lsn:
            self._datasync(file)
            self._durable_lsn = target

    def publish(self) -> None:
        """Let reader processes see everything appended, without a sync (durability "interval" and "os")."""
        with self._publish_lock:
            self._check_usable()
            self._publish_or_fail(self._last_lsn)
            if self._behind is not None and self._total_bytes - self._asked_bytes > _BEHIND_BYTES:
                self._asked_bytes = self._total_bytes
                self._behind.submit(self._sync_behind)

    def _sync_behind(self) -> None:
        """Sync what there is, so that the next segment need not wait for it; whoever comes next is told if it fails."""
        with self._sync_lock, suppress(WalFailedError):
            if not self._closed and self._failure is None:
                self._sync_file()

    def bytes_since(self, lsn: int) -> int:
        """Log bytes after ``lsn``; up to 64 KiB (or one group) too many."""
        at = bisect_right(self._milestones, (lsn, 1 << 63))
        return self._total_bytes - (self._milestones[at - 1][1] if at else 0)

    def drop_through(self, lsn: int) -> None:
        """Remove the segments whose records are all at or below ``lsn``, but for the newest one.

        The newest stays so that sequence numbers go on rising; a segment that cannot be removed is tried again
        the next time.
        """
        with self._append_lock:
            old = [span for span in self._spans[:-1] if span.last_lsn <= lsn]
            self._spans = [span for span in self._spans if span not in old]
            self._milestones = self._milestones[max(bisect_right(self._milestones, (lsn, 1 << 63)) - 1, 0) :]
        kept = [span for span in old if not self._remove(span.seq)]
        if kept:
            with self._append_lock:
                self._spans = kept + self._spans

    def rotate(self) -> None:
        """Go on in a new segment, so that ``drop_through`` can remove the one there is now.

        Raises:
            DiskFullError: no room for one; nothing was changed.
            WalFailedError, DatabaseClosedError: as ``append``.
        """
        with self._append_lock:
            self._check_usable()
            if self._file is not None and self._used > HEADER_PAGE_BYTES:
                self._rotate(0)

    def close(self) -> None:
        """Sync, write the mark that says so, cut the last segment to its used length, and close. Once is enough.

        After a failure it only closes the files.

        Raises:
            WalFailedError: what was appended since the last ``sync`` has an unknown outcome.
        """
        with self._append_lock, self._sync_lock, self._publish_lock:
            if self._closed:
                return
            self._closed = True
            try:
                if self._failure is None and (failure := self._preparer.background_failure()):
                    raise self._fail(failure)
                if self._failure is None and self._file is not None:
                    self._finish(self._file)
            finally:
                self._preparer.discard()
                for file in (self._file, self._commit_file):
                    if file is not None:
                        with suppress(OSError):
                            file.close()

    def _finish(self, file: DiskFile) -> None:
        if self._last_lsn > self._durable_lsn:
            self._datasync(file)
            self._durable_lsn = self._last_lsn
        self._write(file, [WalEntry(RecordType.DURABLE_MARK)], _MARK_BYTES)
        try:
            file.truncate(self._used)
            file.sync()
        except OSError as error:
            raise self._fail(log_failed(error, "closing the log")) from error
        self._durable_lsn = self._last_lsn
        self._publish_or_fail(self._durable_lsn)

    def _check_usable(self) -> None:
        if self._closed:
            raise DatabaseClosedError("the log was closed")
        failure = self._failure or self._preparer.background_failure()
        if failure is not None:
            self._failure = failure
            raise WalFailedError(failure.message, field=failure.field, mend=failure.mend, outcome="none") from failure

    def _fail(self, failure: WalFailedError) -> WalFailedError:
        self._failure = failure
        return failure

    def _write(self, file: DiskFile, entries: Sequence[WalEntry], total: int) -> None:
        buffers: list[Buffer] = []
        lsn, crc, durable = self._last_lsn, self._last_crc, self._durable_lsn
        for entry in entries:
            lsn += 1
            _, crc = encode_record(entry, lsn=lsn, prev_crc=crc, durable_lsn=durable, salt=self._salt, out=buffers)
        try:
            written = self._pwrite(file, buffers, total)
        except OSError as error:
            raise self._fail(log_failed(error, "writing the log")) from error
        assert written == total, "a group is written whole"
        self._used += total
        self._total_bytes += total
        self._last_crc = crc
        self._last_lsn = lsn
        self._spans[-1] = self._spans[-1]._replace(last_lsn=lsn, used_bytes=self._used)
        if not self._milestones or self._total_bytes - self._milestones[-1][1] >= _MILESTONE_BYTES:
            self._milestones.append((lsn, self._total_bytes))

    def _pwrite(self, file: DiskFile, buffers: Sequence[Buffer], total: int) -> int:
        """One gather write, or several if the disk has something to do meanwhile."""
        if total <= _PIECE_BYTES:
            return file.pwrite(buffers, self._used)
        written = 0
        for piece in in_pieces(buffers, _PIECE_BYTES):
            at = self._used + written
            size = file.pwrite(piece, at)
            file.begin_sync(at, size)
            written += size
        return written

    def _datasync(self, file: DiskFile) -> None:
        try:
            file.datasync()
        except OSError as error:
            raise self._fail(log_failed(error, "syncing the log")) from error

    def _rotate(self, total: int) -> DiskFile:
        """Go on in a new segment: the old one durable BEFORE the new one's header, that BEFORE any record in it."""
        self._ensure_commit()
        try:
            blank = self._preparer.take(HEADER_PAGE_BYTES + total + _MARK_BYTES)
        except WalFailedError as error:
            raise self._fail(error) from error.__cause__
        with self._sync_lock:
            old = self._file
            if old is not None:
                self._sync_file()
            header = self._write_header(blank)
            self._file, self._size, self._used = blank.file, blank.size, HEADER_PAGE_BYTES
            self._salt, self._last_seq, self._first_of_run = header.salt, blank.seq, False
            self._total_bytes += HEADER_PAGE_BYTES
            self._spans.append(SegmentSpan(blank.seq, header.first_lsn, self._last_lsn, HEADER_PAGE_BYTES))
            if old is not None:
                self._rotations += 1
                # Everything in it is durable; what close may still complain of concerns nobody.
                with suppress(OSError):
                    old.close()
        return blank.file

    def _write_header(self, blank: BlankSegment) -> SegmentHeader:
        header = SegmentHeader(
            self._identity, blank.seq, self._last_lsn + 1, self._last_seq, self._last_lsn, self._last_crc
        )
        if self._first_of_run:
            header = replace(header, flags=SegmentFlag.AFTER_OPEN)
        try:
            blank.file.pwrite([encode_segment_header(header)], 0)
            blank.file.datasync()
        except OSError as error:
            # No record is in this file: it can go, and with it the doubt about a full disk.
            self._preparer.remove(blank)
            if is_full(error):
                raise disk_full(error) from error
            raise self._fail(log_failed(error, "writing a segment header")) from error
        return header

    def _ensure_commit(self) -> None:
        """Have the COMMIT file before the first segment, whose folder sync then covers its name."""
        if self._commit_file is not None:
            return
        try:
            self._open_commit("create")
            self._publish(self._last_lsn)
        except OSError as error:
            if not is_full(error):
                raise self._fail(log_failed(error, "creating COMMIT")) from error
            raise disk_full(error) from error

    def _open_commit(self, mode: Literal["rw", "create"]) -> None:
        self._commit_file = self._disk.open(f"{self._folder}/{COMMIT_NAME}", mode)

    def _publish(self, committed_lsn: int) -> None:
        """Publish after the fact: never before the sync that makes ``durable_lsn`` true."""
        published, durable = self._published, self._durable_lsn
        # A sync beside this may have got further than the caller saw.
        point = CommitPoint(max(committed_lsn, durable, published.committed_lsn if published else 0), durable)
        if self._commit_file is not None and point != published:
            self._commit_file.pwrite([encode_commit(point, self._identity)], 0)
            self._published = point

    def _publish_or_fail(self, committed_lsn: int) -> None:
        try:
            self._publish(committed_lsn)
        except OSError as error:
            raise self._fail(log_failed(error, "publishing the commit point")) from error

    def _settle(self, resume: WalEnd) -> None:
        """Make durable what recovery read, and clear away segments that hold nothing."""
        for seq in resume.unused:
            self._remove(seq)
        if resume.unsynced is None:
            return
        seq, start, end = resume.unsynced
        file = self._disk.open(f"{self._folder}/{segment_name(seq)}", "rw")
        try:
            # The same bytes over themselves: that makes the pages dirty again, so this fsync tells the truth.
            file.pwrite([file.pread(end - start, start)], start)
            file.datasync()
        finally:
            file.close()

    def _remove(self, seq: int) -> bool:
        """Unlink a segment; whether it is gone. One that stays costs space only."""
        try:
            self._disk.unlink(f"{self._folder}/{segment_name(seq)}")
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


def _milestones(spans: Sequence[SegmentSpan]) -> list[tuple[int, int]]:
    """(lsn, log bytes through it) at the end of every segment."""
    found: list[tuple[int, int]] = []
    total = 0
    for span in spans:
        total += span.used_bytes
        found.append((span.last_lsn, total))
    return found


__all__ = ["WalFailedError", "WalSettings", "WalWriter"]
