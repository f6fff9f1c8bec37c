"""A disk in memory that forgets at a power cut what was not synced, and fails when it is told to.

It implements the engine's disk port. Everything it is asked to do is kept in order, so that ``crash_states`` can draw
what a power cut at any moment would leave. One seed makes one history.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from omendb_chaos.sim.content import EMPTY, PAGE_BYTES, Content
from omendb_chaos.sim.crash import crash_image, crash_images
from omendb_chaos.sim.faults import FaultPlan
from omendb_chaos.sim.oplog import (
    ROOT,
    Image,
    Link,
    Move,
    Op,
    Resize,
    SyncFile,
    SyncFolder,
    Unlink,
    Write,
)
from omendb_common.checksum import Buffer, byte_view
from omendb_common.disk import DiskUsage, OpenMode, write_new_file

_UNLIMITED = 1 << 40


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """A power cut after ``at`` operations (compare ``SimDisk.position``), and what survived it, in words."""

    at: int
    label: str


class SimFile:
    """One open file of a SimDisk."""

    def __init__(self, disk: SimDisk, path: str, node: int, writable: bool) -> None:
        self.path = path
        self._disk = disk
        self._node = node
        self._writable = writable
        self._open = True

    def pwrite(self, parts: Sequence[Buffer], offset: int) -> int:
        """See ``DiskFile``. A failing write may leave a prefix behind."""
        with self._disk.lock:
            self._check(writing=True)
            return self._disk.write(self._node, self.path, offset, b"".join(map(byte_view, parts)))

    def pread(self, length: int, offset: int) -> bytes:
        """See ``DiskFile``."""
        with self._disk.lock:
            self._check()
            self._disk.enter("pread", self.path)
            return self._disk.content(self._node).read(offset, length)

    def datasync(self) -> None:
        """See ``DiskFile``."""
        self._sync("datasync")

    def sync(self) -> None:
        """See ``DiskFile``."""
        self._sync("sync")

    def begin_sync(self, offset: int, length: int) -> None:
        """See ``DiskFile``. Any sector may reach the disk at any time without it."""
        with self._disk.lock:
            self._check()

    def allocate(self, length: int) -> None:
        """See ``DiskFile``."""
        with self._disk.lock:
            self._check(writing=True)
            if length > self.size():
                self._disk.resize(self._node, self.path, length, "allocate")

    def reserve(self, length: int) -> None:
        """See ``DiskFile``."""
        with self._disk.lock:
            self._check(writing=True)
            if length > self.size():
                self._disk.resize(self._node, self.path, length, "reserve")

    def truncate(self, length: int) -> None:
        """See ``DiskFile``."""
        with self._disk.lock:
            self._check(writing=True)
            self._disk.resize(self._node, self.path, length, "truncate")

    def size(self) -> int:
        """See ``DiskFile``."""
        with self._disk.lock:
            self._check()
            return self._disk.content(self._node).size

    def close(self) -> None:
        """See ``DiskFile``."""
        with self._disk.lock:
            if self._open:
                self._open = False
                self._disk.closed(self._node)

    def _sync(self, kind: str) -> None:
        with self._disk.lock:
            self._check()
            self._disk.sync_node(self._node, self.path, kind)

    def _check(self, *, writing: bool = False) -> None:
        if not self._open or (writing and not self._writable):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self.path)


class SimDisk:
    """A simulated file system; paths are absolute or relative alike, and the root always exists.

    Args:
        seed: decides how much of a failing write gets through.
        capacity_bytes: size of the volume; writes past it fail with ENOSPC after what fits.
        image: what is on it, durably; empty when None.

    ``faults`` plans failures and counts calls. ``crash`` says of which power cut this disk is the survivor.
    """

    def __init__(self, seed: int = 0, *, capacity_bytes: int | None = None, image: Image | None = None) -> None:
        self.faults = FaultPlan()
        self.crash: CrashPoint | None = None
        self.capacity_bytes = capacity_bytes
        self.lock = threading.RLock()
        self._rng = random.Random(seed)
        self._seed = seed
        self._usage: DiskUsage | None = None
        self._live = image or Image()
        self._base = self._live.copy()
        self._log: list[Op] = []
        self._next_node = 1 + max([*self._live.files, *self._live.folders])
        self._handles: Counter[int] = Counter()
        self._unlinked: set[int] = set()
        # What a page held before it was last written: a lost write shows it again.
        self._previous: dict[tuple[int, int], bytes] = {}

    # -- the disk port

    def open(self, path: str, mode: OpenMode) -> SimFile:
        """See ``Disk``."""
        with self.lock:
            self.enter("open", path)
            folder, name = self._parent(path)
            node = self._live.folders[folder].get(name)
            if mode == "create":
                if node is not None:
                    raise _error(FileExistsError, errno.EEXIST, path)
                self._check_space(path)
                node = self._add(folder, name, is_folder=False)
            elif node is None:
                raise _error(FileNotFoundError, errno.ENOENT, path)
            if node in self._live.folders:
                raise _error(IsADirectoryError, errno.EISDIR, path)
            self._handles[node] += 1
            return SimFile(self, path, node, mode != "r")

    def map(self, path: str) -> memoryview:
        """See ``Disk``."""
        return memoryview(self.read(path))

    def read(self, path: str) -> bytes:
        """See ``Disk``. Counts as a "pread"."""
        with self.lock:
            self.enter("pread", path)
            content = self._live.files[self._file(path)]
            return content.read(0, content.size)

    def write_file(self, path: str, parts: Sequence[Buffer]) -> int:
        """See ``Disk``."""
        return write_new_file(self, path, parts)

    def rename(self, src: str, dst: str) -> None:
        """See ``Disk``."""
        with self.lock:
            self.enter("rename", src)
            src_folder, src_name = self._parent(src)
            folder, name = self._parent(dst)
            node = self._live.folders[src_folder].get(src_name)
            if node is None:
                raise _error(FileNotFoundError, errno.ENOENT, src)
            replaced = self._live.folders[folder].get(name)
            if replaced == node:
                return
            if replaced is not None:
                self._check_replaceable(node, replaced, dst)
                self._dropped(replaced)
            self._do(Move(src_folder, src_name, folder, name, node))

    def unlink(self, path: str) -> None:
        """See ``Disk``."""
        with self.lock:
            self.enter("unlink", path)
            node = self._file(path)
            folder, name = self._parent(path)
            self._do(Unlink(folder, name))
            self._dropped(node)

    def mkdir(self, path: str) -> None:
        """See ``Disk``."""
        with self.lock:
            self.enter("mkdir", path)
            folder = ROOT
            for name in _names(path):
                node = self._live.folders[folder].get(name)
                if node is None:
                    self._check_space(path)
                    node = self._add(folder, name, is_folder=True)
                elif node not in self._live.folders:
                    raise _error(FileExistsError, errno.EEXIST, path)
                folder = node

    def rmdir(self, path: str) -> None:
        """See ``Disk``."""
        with self.lock:
            self.enter("rmdir", path)
            node = self._folder(path)
            if self._live.folders[node]:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
            folder, name = self._parent(path)
            self._do(Unlink(folder, name))

    def listdir(self, path: str) -> list[str]:
        """See ``Disk``."""
        with self.lock:
            self.enter("listdir", path)
            return sorted(self._live.folders[self._folder(path)])

    def exists(self, path: str) -> bool:
        """See ``Disk``."""
        with self.lock:
            return self._find(path) is not None

    def size(self, path: str) -> int:
        """See ``Disk``."""
        with self.lock:
            return self._live.files[self._file(path)].size

    def sync_dir(self, path: str) -> None:
        """See ``Disk``."""
        with self.lock:
            node = self._folder(path)
            failed = self.faults.error_for("sync_dir", path)
            self._log.append(SyncFolder(node, ok=failed is None))
            if failed is not None:
                raise OSError(failed, os.strerror(failed), path)

    def usage(self, path: str) -> DiskUsage:
        """See ``Disk``; what ``set_usage`` said, or else the capacity and what is left of it."""
        with self.lock:
            self.enter("usage", path)
            if self._usage is not None:
                return self._usage
            total = self.capacity_bytes if self.capacity_bytes is not None else _UNLIMITED
            return DiskUsage(total, max(total - self.used_bytes(), 0))

    # -- the simulation's side

    @property
    def position(self) -> int:
        """Operations done so far; what was acknowledged at a position must be in every later crash state."""
        return len(self._log)

    @property
    def log(self) -> Sequence[Op]:
        """The operations in order."""
        return self._log

    def set_usage(self, usage: DiskUsage | None) -> None:
        """Fake the answer of ``usage``; None ends that."""
        self._usage = usage

    def settle(self) -> None:
        """Take everything as durable and forget the history: crash states start from here."""
        with self.lock:
            self._live = self._live.reachable() if not self._handles.total() else self._live
            self._base = self._live.copy()
            self._log = []

    def copy(self) -> SimDisk:
        """A disk with the same files, all durable, without faults."""
        with self.lock:
            return SimDisk(self._seed, capacity_bytes=self.capacity_bytes, image=self._live.copy().reachable())

    def crash_states(self, limit: int, rng: random.Random) -> Iterator[SimDisk]:
        """Distinct disks that a power cut at any moment since the start may leave, at most ``limit``."""
        for at, label, image in crash_images(self._base, list(self._log), limit, rng):
            survivor = SimDisk(self._seed, capacity_bytes=self.capacity_bytes, image=image)
            survivor.crash = CrashPoint(at, label)
            yield survivor

    def power_cut(self, rng: random.Random) -> SimDisk:
        """A disk that a power cut at this moment may leave."""
        with self.lock:
            label, image = crash_image(self._base, self._log, rng)
            survivor = SimDisk(self._seed, capacity_bytes=self.capacity_bytes, image=image)
            survivor.crash = CrashPoint(len(self._log), label)
            return survivor

    def used_bytes(self) -> int:
        """Space taken by contents, in whole pages."""
        return sum(len(content.pages) for content in self._live.files.values()) * PAGE_BYTES

    def paths(self) -> list[str]:
        """Every file, sorted by folder."""
        with self.lock:
            return [path for path, node in self._live.walk() if node in self._live.files]

    def peek(self, path: str) -> bytes:
        """A whole file, without counting as a call."""
        with self.lock:
            content = self._live.files[self._file(path)]
            return content.read(0, content.size)

    def damage(self, path: str, offset: int, data: bytes) -> None:
        """Change bytes on the medium itself, behind everybody's back."""
        with self.lock:
            self._do(Write(self._file(path), offset, data, rot=True))

    def cut(self, path: str, length: int) -> None:
        """Shorten (or lengthen) a file on the medium itself."""
        with self.lock:
            self._do(Resize(self._file(path), length, rot=True))

    def previous_page(self, path: str, page: int) -> bytes | None:
        """What a 4096-byte page of a file held before it was last written; None if it was written at most once."""
        with self.lock:
            return self._previous.get((self._file(path), page))

    # -- for SimFile

    def enter(self, kind: str, path: str) -> None:
        """Count a call, and fail it if that is planned."""
        failed = self.faults.error_for(kind, path)
        if failed is not None:
            raise OSError(failed, os.strerror(failed), path)

    def content(self, node: int) -> Content:
        """What a file holds now."""
        return self._live.files[node]

    def write(self, node: int, path: str, offset: int, data: bytes) -> int:
        """Write, or fail after a prefix."""
        failed = self.faults.error_for("pwrite", path)
        if failed is not None:
            self._write_some(node, offset, data[: self._rng.randint(0, len(data))])
            raise OSError(failed, os.strerror(failed), path)
        fits = self._room_end(node) - offset
        if fits < len(data):
            self._write_some(node, offset, data[: max(fits, 0)])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        self._write_some(node, offset, data)
        return len(data)

    def resize(self, node: int, path: str, length: int, kind: str) -> None:
        """Allocate, reserve or truncate, or fail (but for truncating: after a part)."""
        size = self._live.files[node].size
        failed = self.faults.error_for(kind, path)
        end = self._room_end(node)
        if failed is None and (kind == "truncate" or length <= end):
            self._do(Resize(node, length))
            return
        if kind != "truncate":
            stop = min(length, end) if failed is None else self._rng.randint(size, length)
            self._do(Resize(node, max(stop, size)))
        code = errno.ENOSPC if failed is None else failed
        raise OSError(code, os.strerror(code), path)

    def sync_node(self, node: int, path: str, kind: str) -> None:
        """Sync a file, or fail and lose its unsynced bytes."""
        failed = self.faults.error_for(kind, path)
        self._log.append(SyncFile(node, ok=failed is None))
        if failed is not None:
            raise OSError(failed, os.strerror(failed), path)

    def closed(self, node: int) -> None:
        """A handle went away; a file without handles and names goes too."""
        self._handles[node] -= 1
        if not self._handles[node]:
            del self._handles[node]
            if node in self._unlinked:
                self._unlinked.discard(node)
                del self._live.files[node]

    # -- inside

    def _do(self, op: Write | Resize | Link | Unlink | Move) -> None:
        op.apply(self._live)
        self._log.append(op)

    def _write_some(self, node: int, offset: int, data: bytes) -> None:
        if not data:
            return
        pages = self._live.files[node].pages
        for page in range(offset // PAGE_BYTES, min(-(-(offset + len(data)) // PAGE_BYTES), len(pages))):
            self._previous[(node, page)] = pages[page]
        self._do(Write(node, offset, data))

    def _room_end(self, node: int) -> int:
        """How far a file can reach before the volume is full."""
        if self.capacity_bytes is None:
            return _UNLIMITED
        free_pages = max(self.capacity_bytes - self.used_bytes(), 0) // PAGE_BYTES
        return (len(self._live.files[node].pages) + free_pages) * PAGE_BYTES

    def _check_space(self, path: str) -> None:
        """A new name takes an inode: none is to be had on a volume without a free page."""
        if self.capacity_bytes is not None and self.capacity_bytes - self.used_bytes() < PAGE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def _add(self, folder: int, name: str, *, is_folder: bool) -> int:
        node = self._next_node
        self._next_node += 1
        if is_folder:
            self._live.folders[node] = {}
        else:
            self._live.files[node] = EMPTY
        self._do(Link(folder, name, node, is_folder))
        return node

    def _dropped(self, node: int) -> None:
        """A node lost its name."""
        if node in self._live.folders:
            return
        if self._handles[node]:
            self._unlinked.add(node)
        else:
            del self._live.files[node]

    def _check_replaceable(self, node: int, replaced: int, path: str) -> None:
        folders = self._live.folders
        if replaced in folders and node not in folders:
            raise _error(IsADirectoryError, errno.EISDIR, path)
        if node in folders and replaced not in folders:
            raise _error(NotADirectoryError, errno.ENOTDIR, path)
        if folders.get(replaced):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)

    def _find(self, path: str) -> int | None:
        node = ROOT
        for name in _names(path):
            entries = self._live.folders.get(node)
            found = entries.get(name) if entries is not None else None
            if found is None:
                return None
            node = found
        return node

    def _parent(self, path: str) -> tuple[int, str]:
        names = _names(path)
        if not names:
            raise _error(IsADirectoryError, errno.EISDIR, path)
        return self._folder("/".join(names[:-1])), names[-1]

    def _folder(self, path: str) -> int:
        node = self._find(path)
        if node is None:
            raise _error(FileNotFoundError, errno.ENOENT, path)
        if node not in self._live.folders:
            raise _error(NotADirectoryError, errno.ENOTDIR, path)
        return node

    def _file(self, path: str) -> int:
        node = self._find(path)
        if node is None:
            raise _error(FileNotFoundError, errno.ENOENT, path)
        if node in self._live.folders:
            raise _error(IsADirectoryError, errno.EISDIR, path)
        return node


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _error(kind: type[OSError], code: int, path: str) -> OSError:
    return kind(code, os.strerror(code), path)


__all__ = ["CrashPoint", "SimDisk", "SimFile"]
