"""Makes log segments ahead of need: zero-filled, fsynced, and their name fsynced too.

Overwriting zeros that are on disk changes no metadata, so a commit's fdatasync costs one data write; and a full
disk is met here, before any byte of a record is written, where it harms nothing.
"""

from __future__ import annotations

import errno
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass

from omendb_common.disk import PACE_BYTES, Disk, DiskFile
from omendb_common.errors import DiskFullError, ReplicaFailedError
from omendb_engine.wal.record import HEADER_PAGE_BYTES, segment_name

_PAGE_BYTES = 4096
# Groups that a segment made ahead has room for, however small the one before it was.
_GROUPS_AHEAD = 2
_FULL = (errno.ENOSPC, errno.EDQUOT)


class WalFailedError(ReplicaFailedError):
    """A write or fsync of the log failed. The writer that raised it does no I/O any more; open again to recover.

    ``outcome`` is "unknown" for the operation that met the failure, "none" for those refused afterwards.
    """


@dataclass(frozen=True, slots=True)
class WalSettings:
    """Sizes of the log's files, in bytes: the first one of a run, and what they double up to."""

    segment_bytes: int = 64 << 20
    first_segment_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True)
class BlankSegment:
    """A segment file of durable zeros."""

    seq: int
    path: str
    file: DiskFile
    size: int


def log_failed(error: OSError, doing: str) -> WalFailedError:
    """The error for a failure after which nothing on disk is certain."""
    failure = WalFailedError(
        f"{doing} failed: {error}",
        field=str(error.filename or "wal"),
        mend="close and open the database again; it recovers what is on disk",
        outcome="unknown",
    )
    failure.__cause__ = error
    return failure


def disk_full(error: OSError) -> DiskFullError:
    """The error for a disk that has no room for another segment."""
    failure = DiskFullError(
        f"no space for a log segment: {error}",
        field="disk",
        bound="room for one log segment",
        mend="delete points or free space on the volume",
        retry_after=1.0,
    )
    failure.__cause__ = error
    return failure


def is_full(error: OSError) -> bool:
    """Whether an error says that there is no space, and nothing worse."""
    return error.errno in _FULL


class SegmentPreparer:
    """Hands out blank segments, doubling in size, and keeps at most one ready.

    Calls must not overlap; only the making itself runs in ``executor`` (inline when None). Sequence numbers
    are never used twice, not even after a failure.
    """

    def __init__(
        self, disk: Disk, folder: str, settings: WalSettings, *, next_seq: int, executor: Executor | None
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._executor = executor
        self._next_seq = next_seq
        self._size_max = _round_up(settings.segment_bytes)
        self._first_size = min(_round_up(settings.first_segment_bytes), self._size_max)
        self._next_size = self._first_size
        self._ready: Future[BlankSegment] | None = None

    def prepare_ahead(self, group_bytes: int) -> None:
        """Start making the next segment, for groups of about this size, in the background, unless that was done."""
        if self._executor is not None and self._ready is None:
            # One that held a single group would be waited for by every group.
            several = min(_round_up(HEADER_PAGE_BYTES + _GROUPS_AHEAD * group_bytes), self._size_max)
            self._next_size = max(self._next_size, several)
            self._ready = self._executor.submit(self._make, *self._plan(0))

    def background_failure(self) -> WalFailedError | None:
        """What went wrong in the background, if it was worse than a full disk."""
        if self._ready is None or not self._ready.done():
            return None
        error = self._ready.exception()
        return error if isinstance(error, WalFailedError) else None

    def take(self, needed_bytes: int) -> BlankSegment:
        """A blank segment of at least this size; waits for the one in the making.

        Raises:
            DiskFullError: there is no room; nothing was changed, and it can be tried again.
            WalFailedError: the disk failed.
        """
        ready, self._ready = self._ready, None
        if ready is not None:
            # Full a while ago need not be full now: try once more in that case.
            with suppress(DiskFullError):
                return self._grown(ready.result(), needed_bytes)
        try:
            return self._make(*self._plan(needed_bytes))
        except DiskFullError:
            # There may still be room for just this, and a delete that goes through makes more.
            self._next_size = self._first_size
            seq, size = self._plan(0)
            smallest = _round_up(needed_bytes)
            if smallest >= size:
                raise
            return self._make(seq, smallest)

    def discard(self) -> None:
        """Remove the segment that was made and not needed."""
        ready, self._ready = self._ready, None
        if ready is None or ready.cancel():
            return
        with suppress(DiskFullError, WalFailedError):
            self.remove(ready.result())

    def remove(self, blank: BlankSegment) -> None:
        """Throw a blank segment away."""
        # An unused file that stays behind costs space only, and the next open removes it.
        with suppress(OSError):
            blank.file.close()
            self._disk.unlink(blank.path)

    def _plan(self, needed_bytes: int) -> tuple[int, int]:
        seq, size = self._next_seq, max(self._next_size, _round_up(needed_bytes))
        self._next_seq += 1
        self._next_size = min(self._next_size * 2, self._size_max)
        return seq, size

    def _make(self, seq: int, size: int) -> BlankSegment:
        path = f"{self._folder}/{segment_name(seq)}"
        try:
            file = self._disk.open(path, "create")
        except OSError as error:
            raise disk_full(error) if is_full(error) else log_failed(error, "creating a log segment") from error
        blank = BlankSegment(seq, path, file, size)
        try:
            for step in range(PACE_BYTES, size, PACE_BYTES):
                # In steps, because a commit's fdatasync waits for whatever is being flushed beside it.
                file.allocate(step)
                file.datasync()
            file.allocate(size)
            file.sync()
        except OSError as error:
            # The file goes, and whatever its failed fsync left in doubt goes with it.
            self.remove(blank)
            raise disk_full(error) if is_full(error) else log_failed(error, "making a log segment") from error
        try:
            self._disk.sync_dir(self._folder)
        except OSError as error:
            # A folder cannot be thrown away, so not even a full disk is harmless here.
            self.remove(blank)
            raise log_failed(error, "syncing the log folder") from error
        return blank

    def _grown(self, blank: BlankSegment, needed_bytes: int) -> BlankSegment:
        if blank.size >= needed_bytes:
            return blank
        size = _round_up(needed_bytes)
        try:
            blank.file.allocate(size)
            blank.file.sync()
        except OSError as error:
            self.remove(blank)
            raise disk_full(error) if is_full(error) else log_failed(error, "growing a log segment") from error
        return BlankSegment(blank.seq, blank.path, blank.file, size)


def _round_up(size: int) -> int:
    size = max(size, HEADER_PAGE_BYTES + _PAGE_BYTES)
    return size + (-size % _PAGE_BYTES)


__all__ = ["BlankSegment", "SegmentPreparer", "WalFailedError", "WalSettings", "disk_full", "is_full", "log_failed"]
