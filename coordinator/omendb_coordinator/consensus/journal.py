"""The log on disk: one file, a checksum per record, one sync per batch.

::

    header   magic 8 | version u32 | crc u32 | base index u64 | base term u64
    record   length u32 | crc u32 | index u64 | term u64 | synced u64 | kind u8 | command

``synced`` is the index that was known to be on stable storage when the record was written. It tells a torn tail from
damage: a bad record is damage when a later one says that it had been safe, and what a power cut left of a batch that
nobody was told about when none does.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from omendb_common.checksum import crc32c
from omendb_common.disk import Disk, DiskFile, replace_file
from omendb_common.errors import CorruptionError, FormatVersionError
from omendb_coordinator.consensus.messages import COMMAND, NOOP, Entry
from omendb_coordinator.consensus.seam import COMMAND_BYTES_MAX

_MAGIC = b"OMRAFTLG"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQQ")
_RECORD = struct.Struct("<IIQQQB")
# The part of a record's header that its checksum covers, after length and checksum.
_SUMMED = struct.Struct("<IQQQB")


class JournalFailedError(RuntimeError):
    """A write or sync failed before; what is on disk is not known until it is read again."""


class Journal:
    """The open file. Not thread-safe; an OSError from any method is final, as every later call says.

    Use :meth:`create` or :meth:`open`.
    """

    def __init__(self, disk: Disk, path: str, file: DiskFile, base: tuple[int, int]) -> None:
        self._disk = disk
        self._path = path
        self._file = file
        self.base_index, self.base_term = base
        # Where each entry after the base begins, and the end.
        self._starts: list[int] = [_HEADER.size]
        self._synced = base[0]
        self._dirty = False
        self._failed = False

    @staticmethod
    def create(disk: Disk, path: str, base_index: int = 0, base_term: int = 0) -> Journal:
        """A new, empty journal, durably; FileExistsError when there is one."""
        if disk.exists(path):
            raise FileExistsError(path)
        replace_file(disk, path, [_header(base_index, base_term)])
        return Journal(disk, path, disk.open(path, "rw"), (base_index, base_term))

    @staticmethod
    def open(disk: Disk, path: str) -> tuple[Journal, list[Entry]]:
        """Read a journal, and write it again without a torn tail, durably.

        Again, because what was read may be in memory only: after a sync that failed, the system takes what it could
        not write for written, and a killed process has synced nothing.

        Raises:
            CorruptionError: something that had been safe is damaged.
            FormatVersionError: a newer release wrote it.
            FileNotFoundError: there is none.
        """
        data = disk.read(path)
        base_index, base_term = _read_header(data, path)
        entries, starts = _read_records(data, path, base_index, base_term)
        file = disk.open(path, "r")
        journal = Journal(disk, path, file, (base_index, base_term))
        journal._begin_again(base_index, base_term, data[_HEADER.size : starts[-1]], starts)
        return journal, entries

    @property
    def last_index(self) -> int:
        """Index of the last entry, or the base."""
        return self.base_index + len(self._starts) - 1

    @property
    def size_bytes(self) -> int:
        """Length of what counts."""
        return self._starts[-1]

    def append(self, entries: Iterable[Entry]) -> None:
        """Write the next entries; safe after :meth:`sync`."""
        self._begin()
        parts: list[bytes] = []
        end = self._starts[-1]
        starts: list[int] = []
        for entry in entries:
            if entry.index != self.last_index + 1 + len(starts):
                raise ValueError(f"entry {entry.index} after {self.last_index + len(starts)}")
            parts += (_record_header(entry, self._synced), entry.command)
            end += _RECORD.size + len(entry.command)
            starts.append(end)
        self._file.pwrite(parts, self._starts[-1])
        self._starts += starts
        self._dirty = True
        self._failed = False

    def truncate(self, index: int) -> None:
        """Remove ``index`` and what follows, durably: nothing of it may turn up among what is written next."""
        self._begin()
        if not self.base_index < index <= self.last_index:
            raise ValueError(f"truncate at {index} of {self.base_index + 1}..{self.last_index}")
        del self._starts[index - self.base_index :]
        self._file.truncate(self._starts[-1])
        self._file.sync()
        self._synced = self.last_index
        self._dirty = False
        self._failed = False

    def sync(self) -> None:
        """Make everything durable that was appended. One that failed is never tried again."""
        if not self._dirty:
            return
        self._begin()
        self._file.datasync()
        self._synced = self.last_index
        self._dirty = False
        self._failed = False

    def cut(self, index: int, term: int) -> None:
        """Begin after ``index``, atomically and durably, with the entries after it; all of them are synced by it."""
        self._begin()
        if not self.base_index <= index <= self.last_index:
            raise ValueError(f"cut at {index} of {self.base_index}..{self.last_index}")
        start = self._starts[index - self.base_index]
        kept = self._file.pread(self._starts[-1] - start, start)
        if len(kept) != self._starts[-1] - start:
            raise CorruptionError("the file is shorter than what was written", path=self._path)
        starts = [at - start + _HEADER.size for at in self._starts[index - self.base_index :]]
        self._begin_again(index, term, kept, starts)

    def reset(self, index: int, term: int) -> None:
        """Begin after ``index`` with nothing, atomically and durably."""
        self._begin()
        self._begin_again(index, term, b"", [_HEADER.size])

    def close(self) -> None:
        """Close without syncing."""
        self._file.close()

    def _begin(self) -> None:
        # Cleared by whoever gets to the end.
        if self._failed:
            raise JournalFailedError(f"{self._path} failed before")
        self._failed = True

    def _begin_again(self, index: int, term: int, kept: bytes, starts: list[int]) -> None:
        replace_file(self._disk, self._path, [_header(index, term), kept])
        self._file.close()
        self._file = self._disk.open(self._path, "rw")
        self.base_index, self.base_term = index, term
        self._starts = starts
        self._synced = self.last_index
        self._dirty = False
        self._failed = False


def _header(base_index: int, base_term: int) -> bytes:
    crc = crc32c(struct.pack("<IQQ", _VERSION, base_index, base_term))
    return _HEADER.pack(_MAGIC, _VERSION, crc, base_index, base_term)


def _read_header(data: bytes, path: str) -> tuple[int, int]:
    if len(data) < _HEADER.size or data[: len(_MAGIC)] != _MAGIC:
        raise CorruptionError("not a journal", path=path, offset=0)
    _, version, crc, index, term = _HEADER.unpack_from(data)
    if crc != crc32c(struct.pack("<IQQ", version, index, term)):
        raise CorruptionError("the header's checksum does not match", path=path, offset=0)
    if version > _VERSION:
        raise FormatVersionError(f"format {version}", field=path, bound=f"at most {_VERSION}")
    return index, term


def _read_records(data: bytes, path: str, base_index: int, base_term: int) -> tuple[list[Entry], list[int]]:
    """All entries, and where each begins and the last one ends; what follows is a torn tail."""
    entries: list[Entry] = []
    starts = [_HEADER.size]
    last = Entry(base_index, base_term, NOOP, b"")
    while (found := _entry_at(data, starts[-1])) is not None:
        entry, end = found
        if entry.index != last.index + 1 or entry.term < last.term:
            raise CorruptionError(
                f"entry {entry.index} of term {entry.term}",
                path=path,
                offset=starts[-1],
                bound=f"{last.index + 1} of term {last.term} or later",
            )
        entries.append(entry)
        starts.append(end)
        last = entry
    _check_torn(data, path, starts[-1], last.index)
    return entries, starts


def _check_torn(data: bytes, path: str, bad: int, last_index: int) -> None:
    """Raise if something after the bad record says that it had been safe."""
    for at in range(bad + 1, len(data) - _RECORD.size + 1):
        # Cheap questions first: hardly any place looks like a record that knows more than what was read.
        length, _, index, _, synced, kind = _RECORD.unpack_from(data, at)
        if kind > COMMAND or length > COMMAND_BYTES_MAX or not last_index < synced < index:
            continue
        if _entry_at(data, at) is not None:
            raise CorruptionError(
                "a record that had been safe is damaged",
                path=path,
                offset=bad,
                mend="empty this member's folder and let it rejoin",
            )


def _record_header(entry: Entry, synced: int) -> bytes:
    length = len(entry.command)
    crc = crc32c([_SUMMED.pack(length, entry.index, entry.term, synced, entry.kind), entry.command])
    return _RECORD.pack(length, crc, entry.index, entry.term, synced, entry.kind)


def _entry_at(data: bytes, at: int) -> tuple[Entry, int] | None:
    """The entry and its end; None if no intact record is there."""
    body = at + _RECORD.size
    if body > len(data):
        return None
    length, crc, index, term, synced, kind = _RECORD.unpack_from(data, at)
    if length > COMMAND_BYTES_MAX or kind not in (NOOP, COMMAND) or body + length > len(data):
        return None
    command = data[body : body + length]
    if crc != crc32c([_SUMMED.pack(length, index, term, synced, kind), command]):
        return None
    return Entry(index, term, kind, command), body + length


__all__ = ["Journal", "JournalFailedError"]
