"""Makes log segments ahead of need: zero-filled, fsynced, and their name fsynced too.

Overwriting zeros that are on disk changes no metadata, so a commit's fdatasync costs one data write; and a full
disk is met here, before any byte of a record is written, where it harms nothing. The zeros of the next segment keep
step with the records in this one. Where groups are large, or a writer comes too early, the rest is reserved instead:
the file system takes the blocks and notes that they read as zeros. A first write there costs it another note, and
nobody waits for zeros.
"""

from __future__ import annotations

import errno
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field

from omendb_common.disk import PACE_BYTES, Disk, DiskFile
from omendb_common.errors import DiskFullError, ReplicaFailedError
from omendb_engine.wal.record import HEADER_PAGE_BYTES, segment_name

_PAGE_BYTES = 4096
# Groups that a segment made ahead has room for, however small the one before it was.
_GROUPS_AHEAD = 2
# Where groups are larger, zeros do not pay: the disk takes as long for them as the file system for its notes, and
# the processor longer.
_ZEROED_GROUP_BYTES_MAX = 256 << 10
# The zeros are all there when this share of the segment in use is full.
_WHOLE_AT = 0.875
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

    @property
    def step_bytes(self) -> int:
        """Zeros that are written and synced at a time."""
        return max(_PAGE_BYTES, min(PACE_BYTES, self.segment_bytes // 32))


@dataclass(frozen=True, slots=True)
class BlankSegment:
    """A segment file that durably reads as zeros, its blocks taken."""

    seq: int
    path: str
    file: DiskFile
    size: int


@dataclass(slots=True)
class _Making:
    """A segment in the making; it belongs to ``step`` while that runs.

    ``zeros`` of its ``size`` bytes are on disk; ``whole``: all of it is, and its name.
    """

    seq: int
    path: str
    size: int
    file: DiskFile | None = None
    zeros: int = 0
    whole: bool = False
    step: Future[None] = field(default_factory=Future)

    @property
    def resting(self) -> bool:
        """Whether nobody works on it, and nothing went wrong."""
        return self.step.done() and not self.step.cancelled() and self.step.exception() is None


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
    """Hands out blank segments, doubling in size, and keeps at most one in the making.

    Calls must not overlap; only steps of the making run in ``executor`` (there is none: all is made when it is
    needed). Sequence numbers are never used twice, not even after a failure.
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
        self._step_bytes = settings.step_bytes
        self._making: _Making | None = None

    def prepare_ahead(self, group_bytes: int, used: float) -> None:
        """Take the next step, in the background, if it is time for one.

        Args:
            group_bytes: how large the groups are that the segment is for.
            used: share of the segment in use that is full, 0.0..1.0.
        """
        if self._executor is None:
            return
        making = self._making
        if making is None:
            # One that held a single group would be waited for by every group.
            several = min(_round_up(HEADER_PAGE_BYTES + _GROUPS_AHEAD * group_bytes), self._size_max)
            self._next_size = max(self._next_size, several)
            making = self._making = self._plan(0)
        elif making.whole or not making.resting:
            return
        if group_bytes > _ZEROED_GROUP_BYTES_MAX:
            making.step = self._executor.submit(self._reserve, making)
        elif making.zeros < min(making.size * used / _WHOLE_AT, making.size):
            making.step = self._executor.submit(self._take_step, making)

    def background_failure(self) -> WalFailedError | None:
        """What went wrong in the background, if it was worse than a full disk."""
        making = self._making
        if making is None or not making.step.done() or making.step.cancelled():
            return None
        error = making.step.exception()
        return error if isinstance(error, WalFailedError) else None

    def take(self, needed_bytes: int) -> BlankSegment:
        """A blank segment of at least this size; waits for the step that is being taken.

        Raises:
            DiskFullError: there is no room; nothing was changed, and it can be tried again.
            WalFailedError: the disk failed.
        """
        making, self._making = self._making, None
        if making is not None:
            # Full a while ago need not be full now: try once more in that case.
            with suppress(DiskFullError):
                self._await_step(making)
                return self._finished(making, needed_bytes)
        try:
            return self._finished(self._plan(needed_bytes), needed_bytes)
        except DiskFullError:
            # There may still be room for just this, and a delete that goes through makes more.
            self._next_size = self._first_size
            making = self._plan(0)
            smallest = _round_up(needed_bytes)
            if smallest >= making.size:
                raise
            making.size = smallest
            return self._finished(making, needed_bytes)

    def discard(self) -> None:
        """Remove the segment that was begun and not needed."""
        making, self._making = self._making, None
        if making is not None:
            with suppress(DiskFullError, WalFailedError):
                self._await_step(making)
            self._remove(making)

    def remove(self, blank: BlankSegment) -> None:
        """Throw a blank segment away."""
        # An unused file that stays behind costs space only, and the next open removes it.
        with suppress(OSError):
            blank.file.close()
            self._disk.unlink(blank.path)

    def _remove(self, making: _Making) -> None:
        if making.file is not None:
            self.remove(BlankSegment(making.seq, making.path, making.file, making.size))
            making.file = None

    def _plan(self, needed_bytes: int) -> _Making:
        seq, size = self._next_seq, max(self._next_size, _round_up(needed_bytes))
        self._next_seq += 1
        self._next_size = min(self._next_size * 2, self._size_max)
        making = _Making(seq, f"{self._folder}/{segment_name(seq)}", size)
        making.step.set_result(None)
        return making

    @staticmethod
    def _await_step(making: _Making) -> None:
        """Have nobody work on it; raises what went wrong."""
        if not making.step.cancel():
            making.step.result()

    def _take_step(self, making: _Making) -> None:
        """Zeros for the next piece, durable: a commit's fdatasync waits for whatever is being flushed beside it."""
        file = self._begun(making)
        zeros = min(making.zeros + self._step_bytes, making.size)
        self._allocate(making, file, zeros)
        if zeros == making.size:
            self._settle(making, file)

    def _begun(self, making: _Making) -> DiskFile:
        if making.file is None:
            try:
                making.file = self._disk.open(making.path, "create")
            except OSError as error:
                raise disk_full(error) if is_full(error) else log_failed(error, "creating a log segment") from error
        return making.file

    def _spoiled(self, making: _Making, error: OSError) -> DiskFullError | WalFailedError:
        # The file goes, and whatever its failed fsync left in doubt goes with it.
        self._remove(making)
        return disk_full(error) if is_full(error) else log_failed(error, "making a log segment")

    def _finished(self, making: _Making, needed_bytes: int) -> BlankSegment:
        """A whole segment, at once: what lacks is reserved, but for a first step, for the logs of small databases."""
        file = self._begun(making)
        size = max(making.size, _round_up(needed_bytes))
        if not making.whole or size > making.size:
            making.size = size
            if not making.zeros and needed_bytes <= _ZEROED_GROUP_BYTES_MAX:
                self._allocate(making, file, min(self._step_bytes, size))
            self._reserve(making)
        return BlankSegment(making.seq, making.path, file, size)

    def _allocate(self, making: _Making, file: DiskFile, zeros: int) -> None:
        try:
            file.allocate(zeros)
            file.datasync()
        except OSError as error:
            raise self._spoiled(making, error) from error
        making.zeros = zeros

    def _reserve(self, making: _Making) -> None:
        """All that lacks, without writing it."""
        file = self._begun(making)
        try:
            file.reserve(making.size)
        except OSError as error:
            raise self._spoiled(making, error) from error
        self._settle(making, file)

    def _settle(self, making: _Making, file: DiskFile) -> None:
        """Make the file and its name last."""
        try:
            file.sync()
        except OSError as error:
            raise self._spoiled(making, error) from error
        try:
            self._disk.sync_dir(self._folder)
        except OSError as error:
            # A folder cannot be thrown away, so not even a full disk is harmless here.
            self._remove(making)
            raise log_failed(error, "syncing the log folder") from error
        making.whole = True


def _round_up(size: int) -> int:
    size = max(size, HEADER_PAGE_BYTES + _PAGE_BYTES)
    return size + (-size % _PAGE_BYTES)


__all__ = ["BlankSegment", "SegmentPreparer", "WalFailedError", "WalSettings", "disk_full", "is_full", "log_failed"]
