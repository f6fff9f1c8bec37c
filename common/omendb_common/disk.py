"""The disk as a port: every file operation of the engine goes through it, so a simulated disk can take its place.

Errors are ``OSError`` exactly as the operating system gives them; the caller translates once. Nothing
here is durable until ``datasync``/``sync`` of the file and, for a new or renamed name, ``sync_dir``
of its folder. Paths are strings joined with "/".
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, cast, runtime_checkable

from omendb_common.checksum import Buffer, byte_length, byte_view

OpenMode: TypeAlias = Literal["r", "rw", "create"]

# Linux and macOS both accept 1024 buffers in one gather write.
IOV_MAX = 1024
# About a millisecond of a disk that writes 2 GB/s, four of one that writes 500 MB/s.
PACE_BYTES = 2 << 20
_ZEROS = bytes(1 << 20)


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """Space of the volume as this user sees it: blocks reserved for root count as neither used nor free."""

    total_bytes: int
    free_bytes: int

    @property
    def used_fraction(self) -> float:
        """Used share, 0.0..1.0 (what ``df`` prints as Use%); 1.0 for a volume without any space."""
        return 1.0 - self.free_bytes / self.total_bytes if self.total_bytes > 0 else 1.0


@runtime_checkable
class DiskFile(Protocol):
    """One open file. ``close`` may be called twice; anything else after it is an OSError."""

    @property
    def path(self) -> str:
        """The path it was opened by."""

    def pwrite(self, parts: Sequence[Buffer], offset: int) -> int:
        """Write every part, one after the other, from ``offset`` on, whole; returns how many bytes that was."""

    def pread(self, length: int, offset: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; fewer only at the end of the file."""

    def datasync(self) -> None:
        """Make the contents, and the length needed to read them, durable. Never repeat one that failed."""

    def sync(self) -> None:
        """Make contents and all metadata durable. Never repeat one that failed."""

    def begin_sync(self, offset: int, length: int) -> None:
        """Have the disk begin with these bytes, so that the next sync has less to wait for. Promises nothing."""

    def allocate(self, length: int) -> None:
        """Extend to ``length`` bytes with written zeros, so that later overwrites need no new blocks. Never shrinks."""

    def reserve(self, length: int) -> None:
        """Extend to ``length`` bytes that read as zeros and whose space is taken, written or not. Never shrinks."""

    def truncate(self, length: int) -> None:
        """Cut (or extend, sparsely) to ``length`` bytes."""

    def size(self) -> int:
        """Current length in bytes."""

    def close(self) -> None:
        """Close without syncing."""


@runtime_checkable
class Disk(Protocol):
    """A file system."""

    def open(self, path: str, mode: OpenMode) -> DiskFile:
        """Open for reading ("r"), reading and writing ("rw"), or as a new file ("create").

        Raises FileNotFoundError when there is none for "r" and "rw", FileExistsError when there is one for "create".
        """

    def map(self, path: str) -> memoryview:
        """Read-only view of a whole immutable file; it stays valid after unlink. Never map a file that may shrink."""

    def read(self, path: str) -> bytes:
        """The whole file."""

    def write_file(self, path: str, parts: Sequence[Buffer]) -> int:
        """Create a new file, write it and fsync it; returns its length.

        FileExistsError when there is one. On any other error no file is left. The folder is not synced.
        """

    def rename(self, src: str, dst: str) -> None:
        """Rename atomically, replacing a file at ``dst``; durable after ``sync_dir`` of the folder(s)."""

    def unlink(self, path: str) -> None:
        """Remove a file's name; open handles and maps keep working."""

    def mkdir(self, path: str) -> None:
        """Create a folder and its missing parents; fine when it exists. See ``make_folder`` for a durable one."""

    def rmdir(self, path: str) -> None:
        """Remove an empty folder."""

    def listdir(self, path: str) -> list[str]:
        """Names in a folder, sorted."""

    def exists(self, path: str) -> bool:
        """Whether a file or folder has this name."""

    def size(self, path: str) -> int:
        """A file's length in bytes."""

    def sync_dir(self, path: str) -> None:
        """Make creations, renames and removals in this folder durable."""

    def usage(self, path: str) -> DiskUsage:
        """Space of the volume that holds ``path``."""


def parent_of(path: str) -> str:
    """The folder of a path ("." for a bare name)."""
    head, slash, _ = path.rstrip("/").rpartition("/")
    return head if head else ("/" if slash else ".")


def write_new_file(disk: Disk, path: str, parts: Sequence[Buffer]) -> int:
    """``Disk.write_file`` in terms of the rest of the port."""
    file = disk.open(path, "create")
    try:
        written = write_paced(file, parts)
        file.sync()
    except OSError:
        file.close()
        # The half-written file is worthless; that it could not even be removed adds nothing to the error.
        with suppress(OSError):
            disk.unlink(path)
        raise
    file.close()
    return written


def write_paced(file: DiskFile, parts: Sequence[Buffer]) -> int:
    """Write every part from the file's start on, syncing as it goes; returns how many bytes that was.

    A big file that reaches the disk in one flush holds up everybody's next fsync by all of its length; in steps
    it holds them up by one step.
    """
    at = 0
    *pieces, last = in_pieces(parts, PACE_BYTES)
    for piece in pieces:
        at += file.pwrite(piece, at)
        file.datasync()
    return at + file.pwrite(last, at)


def in_pieces(parts: Sequence[Buffer], piece_bytes: int) -> Iterator[list[memoryview]]:
    """The buffers as views in groups of ``piece_bytes`` bytes, the last one of what is left (perhaps nothing)."""
    size = 0
    group: list[memoryview] = []
    for part in parts:
        view = byte_view(part)
        while size + len(view) > piece_bytes:
            room = piece_bytes - size
            yield [*group, view[:room]]
            group, size, view = [], 0, view[room:]
        group.append(view)
        size += len(view)
    yield group


def replace_file(disk: Disk, path: str, parts: Sequence[Buffer]) -> int:
    """Replace a file durably and atomically: write ``path.tmp``, fsync, rename, fsync the folder.

    After a crash either the old or the new contents are there, whole. On an OSError before the rename the
    old contents stand; when only the folder's fsync failed it is unknown which will survive.

    Returns:
        The new length in bytes.
    """
    temporary = path + ".tmp"
    # A crash may have left one behind.
    if disk.exists(temporary):
        disk.unlink(temporary)
    written = disk.write_file(temporary, parts)
    disk.rename(temporary, path)
    disk.sync_dir(parent_of(path))
    return written


def make_folder(disk: Disk, path: str) -> None:
    """Create a folder with its missing parents, durably: the parent of every new one is fsynced."""
    missing: list[str] = []
    at = path
    while not disk.exists(at):
        missing.append(at)
        at = parent_of(at)
    if missing:
        disk.mkdir(path)
    try:
        for made in reversed(missing):
            disk.sync_dir(parent_of(made))
    except OSError:
        # Whoever finds the folder there takes its name for durable, which it may never become now.
        for made in missing:
            with suppress(OSError):
                disk.rmdir(made)
        raise


class RealFile:
    """A file descriptor of the operating system."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    def pwrite(self, parts: Sequence[Buffer], offset: int) -> int:
        """See ``DiskFile``."""
        total = 0
        for at in range(0, len(parts), IOV_MAX):
            total += self._pwrite_some(parts[at : at + IOV_MAX] if len(parts) > IOV_MAX else parts, offset + total)
        return total

    def _pwrite_some(self, parts: Sequence[Buffer], offset: int) -> int:
        """At most IOV_MAX parts."""
        written = os.pwritev(self._fd, cast(Sequence[bytes], parts), offset)
        expected = sum(map(byte_length, parts))
        if written == expected:
            return written
        # Short: a signal, a nearly full disk, or more than 2 GiB. Go on from where it stopped.
        views = [byte_view(part) for part in parts if byte_length(part)]
        done = written
        while done < expected:
            while written:
                head = views[0]
                if head.nbytes > written:
                    views[0] = head[written:]
                    break
                written -= head.nbytes
                del views[0]
            written = os.pwritev(self._fd, views, offset + done)
            if written == 0:
                raise OSError(errno.EIO, "the write made no progress", self.path)
            done += written
        return done

    def pread(self, length: int, offset: int) -> bytes:
        """See ``DiskFile``."""
        data = os.pread(self._fd, length, offset)
        if len(data) == length or not data:
            return data
        pieces = [data]
        got = len(data)
        while got < length:
            data = os.pread(self._fd, length - got, offset + got)
            if not data:
                break
            pieces.append(data)
            got += len(data)
        return b"".join(pieces)

    def datasync(self) -> None:
        """See ``DiskFile``."""
        _datasync(self._checked())

    def sync(self) -> None:
        """See ``DiskFile``."""
        _sync(self._checked())

    def begin_sync(self, offset: int, length: int) -> None:
        """See ``DiskFile``."""
        _start_writeback(self._checked(), offset, length)

    def allocate(self, length: int) -> None:
        """See ``DiskFile``."""
        at = self.size()
        while at < length:
            # Written rather than fallocated: overwriting an unwritten extent changes metadata, and the
            # fdatasync that follows then costs a journal commit (measured four times slower).
            step = min(len(_ZEROS), length - at)
            at += self.pwrite([memoryview(_ZEROS)[:step]], at)

    def reserve(self, length: int) -> None:
        """See ``DiskFile``."""
        at = self.size()
        if at < length and not _take_space(self._checked(), at, length - at):
            self.allocate(length)

    def truncate(self, length: int) -> None:
        """See ``DiskFile``."""
        os.ftruncate(self._fd, length)

    def size(self) -> int:
        """See ``DiskFile``."""
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        """See ``DiskFile``."""
        # -1 rather than the old number: a number that was closed may belong to another file by now.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _checked(self) -> int:
        # Python refuses to sync a negative descriptor with a ValueError; the port knows OSErrors only.
        if self._fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self.path)
        return self._fd


if sys.platform == "darwin":
    import fcntl

    def _sync(fd: int) -> None:
        # fsync on macOS leaves the bytes in the drive's own cache.
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)

    _datasync = _sync
else:
    _sync = os.fsync
    _datasync = os.fdatasync

if sys.platform == "linux":
    # SYNC_FILE_RANGE_WRITE: it begins and waits for nothing, and leaves every error to the sync that follows.
    _WRITE = 2

    def _sync_file_range() -> Callable[[int, int, int, int], object] | None:
        try:
            call = ctypes.CDLL(None).sync_file_range
        except (OSError, AttributeError):  # a C library that hides it
            return None
        call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
        call.restype = ctypes.c_int
        return call

    _begin_sync = _sync_file_range()

    def _start_writeback(fd: int, offset: int, length: int) -> None:
        if _begin_sync is not None:
            _begin_sync(fd, offset, length, _WRITE)

    def _take_space(fd: int, offset: int, length: int) -> bool:
        """Have the file system take blocks without writing them; False where it cannot."""
        try:
            os.posix_fallocate(fd, offset, length)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                return False
            raise
        return True
else:

    def _start_writeback(fd: int, offset: int, length: int) -> None:
        pass

    def _take_space(fd: int, offset: int, length: int) -> bool:
        return False


# A map holds a descriptor, of which a process has few: small files are read.
_MAP_BYTES_MIN = 64 << 10

_FLAGS: dict[OpenMode, int] = {
    "r": os.O_RDONLY,
    "rw": os.O_RDWR,
    "create": os.O_RDWR | os.O_CREAT | os.O_EXCL,
}


class RealDisk:
    """The operating system's files.

    Args:
        no_mmap: ``map`` reads the file into memory, so that a disk fault is an OSError and not a SIGBUS.
    """

    def __init__(self, no_mmap: bool = False) -> None:
        self.no_mmap = no_mmap

    def open(self, path: str, mode: OpenMode) -> RealFile:
        """See ``Disk``."""
        return RealFile(path, os.open(path, _FLAGS[mode], 0o644))

    def map(self, path: str) -> memoryview:
        """See ``Disk``."""
        if self.no_mmap:
            return memoryview(self.read(path))
        fd = os.open(path, os.O_RDONLY)
        try:
            length = os.fstat(fd).st_size
            if length == 0:
                return memoryview(b"")
            if length < _MAP_BYTES_MIN:
                # Anonymous memory, because it is aligned like a map.
                copy = mmap.mmap(-1, length)
                if os.preadv(fd, [copy], 0) != length:
                    raise OSError(errno.EIO, "the read came up short", path)
                return memoryview(copy).toreadonly()
            return memoryview(mmap.mmap(fd, length, access=mmap.ACCESS_READ))
        finally:
            os.close(fd)

    def read(self, path: str) -> bytes:
        """See ``Disk``."""
        file = self.open(path, "r")
        try:
            return file.pread(file.size(), 0)
        finally:
            file.close()

    def write_file(self, path: str, parts: Sequence[Buffer]) -> int:
        """See ``Disk``."""
        return write_new_file(self, path, parts)

    def rename(self, src: str, dst: str) -> None:
        """See ``Disk``."""
        os.replace(src, dst)

    def unlink(self, path: str) -> None:
        """See ``Disk``."""
        os.unlink(path)

    def mkdir(self, path: str) -> None:
        """See ``Disk``."""
        os.makedirs(path, exist_ok=True)

    def rmdir(self, path: str) -> None:
        """See ``Disk``."""
        os.rmdir(path)

    def listdir(self, path: str) -> list[str]:
        """See ``Disk``."""
        return sorted(os.listdir(path))

    def exists(self, path: str) -> bool:
        """See ``Disk``."""
        return os.path.exists(path)

    def size(self, path: str) -> int:
        """See ``Disk``."""
        return os.stat(path).st_size

    def sync_dir(self, path: str) -> None:
        """See ``Disk``."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def usage(self, path: str) -> DiskUsage:
        """See ``Disk``."""
        stat = os.statvfs(path)
        used = stat.f_blocks - stat.f_bfree
        return DiskUsage((used + stat.f_bavail) * stat.f_frsize, stat.f_bavail * stat.f_frsize)


__all__ = [
    "IOV_MAX",
    "PACE_BYTES",
    "Buffer",
    "Disk",
    "DiskFile",
    "DiskUsage",
    "OpenMode",
    "RealDisk",
    "RealFile",
    "in_pieces",
    "make_folder",
    "parent_of",
    "replace_file",
    "write_new_file",
    "write_paced",
]
