"""A real disk that kills its own process at a named call: ``OMENDB_FAILPOINT=datasync.wal.before:7``.

The product knows nothing of it. A failpoint is a kind of call, a class of files, and whether the call was done when the
process died; the number says at which such call. ``os.kill`` with SIGKILL leaves the process no last word.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Sequence
from typing import Literal

from omendb_common.checksum import Buffer, byte_view
from omendb_common.disk import Disk, DiskFile, DiskUsage, OpenMode, write_new_file

VARIABLE = "OMENDB_FAILPOINT"
Moment = Literal["before", "torn", "after"]

# (kind, class of files, moments): together the 42 failpoints of the table.
_POINTS: tuple[tuple[str, str, tuple[Moment, ...]], ...] = (
    ("pwrite", "wal", ("before", "torn", "after")),
    ("datasync", "wal", ("before", "after")),
    ("open", "wal", ("after",)),
    ("allocate", "wal", ("before", "after")),
    ("reserve", "wal", ("before", "after")),
    ("sync", "wal", ("after",)),
    ("sync_dir", "wal", ("before", "after")),
    ("unlink", "wal", ("before", "after")),
    ("pwrite", "commit", ("before", "after")),
    ("pwrite", "segment", ("before", "torn", "after")),
    ("sync", "segment", ("before",)),
    ("rename", "segment", ("before", "after")),
    ("sync_dir", "segment", ("before", "after")),
    ("unlink", "segment", ("before", "after")),
    ("rmdir", "segment", ("before",)),
    ("pwrite", "deletes", ("torn", "after")),
    ("sync_dir", "deletes", ("before",)),
    ("unlink", "deletes", ("after",)),
    ("pwrite", "manifest", ("torn", "after")),
    ("rename", "manifest", ("before", "after")),
    ("sync_dir", "manifest", ("before", "after")),
    ("unlink", "manifest", ("before",)),
    ("pwrite", "current", ("torn",)),
    ("rename", "current", ("before", "after")),
)
FAILPOINTS: tuple[str, ...] = tuple(f"{kind}.{files}.{at}" for kind, files, moments in _POINTS for at in moments)


def class_of(path: str) -> str:
    """What kind of file a path is."""
    name = path.rpartition("/")[2]
    if "/wal" in path:
        return "commit" if name == "COMMIT" else "wal"
    for part, files in (("/segments", "segment"), ("/deletes", "deletes"), ("/CURRENT", "current")):
        if part in path:
            return files
    return "manifest" if "/collections/" in path else "catalog"


class DyingDisk:
    """A disk that behaves like ``disk`` until the ``nth`` passage of a failpoint.

    Args:
        failpoint: one of ``FAILPOINTS``.
        nth: 1 for the first time that it is passed.
    """

    def __init__(self, disk: Disk, failpoint: str, nth: int) -> None:
        self.kind, self.files, self.moment = failpoint.split(".")
        self._disk = disk
        self._left = nth

    @staticmethod
    def from_environment(disk: Disk) -> Disk:
        """``disk`` as it is, or with the failpoint that the environment names."""
        name, _, nth = os.environ.get(VARIABLE, "").partition(":")
        return DyingDisk(disk, name, int(nth or 1)) if name else disk

    def due(self, kind: str, path: str) -> bool:
        """Count a call; whether the process dies in it."""
        if kind != self.kind or class_of(path) != self.files:
            return False
        self._left -= 1
        return self._left == 0

    def before(self, due: bool) -> None:
        """Die now, if it is due before the call."""
        if due and self.moment == "before":
            _die()

    def after(self, due: bool) -> None:
        """Die now, if it is due after the call."""
        if due:
            _die()

    def open(self, path: str, mode: OpenMode) -> DyingFile:
        """See ``Disk``."""
        due = self.due("open", path) if mode == "create" else False
        self.before(due)
        file = DyingFile(self, self._disk.open(path, mode))
        self.after(due)
        return file

    def map(self, path: str) -> memoryview:
        """See ``Disk``."""
        return self._disk.map(path)

    def read(self, path: str) -> bytes:
        """See ``Disk``."""
        return self._disk.read(path)

    def write_file(self, path: str, parts: Sequence[Buffer]) -> int:
        """See ``Disk``."""
        return write_new_file(self, path, parts)

    def rename(self, src: str, dst: str) -> None:
        """See ``Disk``."""
        due = self.due("rename", dst)
        self.before(due)
        self._disk.rename(src, dst)
        self.after(due)

    def unlink(self, path: str) -> None:
        """See ``Disk``."""
        due = self.due("unlink", path)
        self.before(due)
        self._disk.unlink(path)
        self.after(due)

    def mkdir(self, path: str) -> None:
        """See ``Disk``."""
        self._disk.mkdir(path)

    def rmdir(self, path: str) -> None:
        """See ``Disk``."""
        due = self.due("rmdir", path)
        self.before(due)
        self._disk.rmdir(path)
        self.after(due)

    def listdir(self, path: str) -> list[str]:
        """See ``Disk``."""
        return self._disk.listdir(path)

    def exists(self, path: str) -> bool:
        """See ``Disk``."""
        return self._disk.exists(path)

    def size(self, path: str) -> int:
        """See ``Disk``."""
        return self._disk.size(path)

    def sync_dir(self, path: str) -> None:
        """See ``Disk``."""
        due = self.due("sync_dir", path)
        self.before(due)
        self._disk.sync_dir(path)
        self.after(due)

    def usage(self, path: str) -> DiskUsage:
        """See ``Disk``."""
        return self._disk.usage(path)


class DyingFile:
    """A file of a DyingDisk."""

    def __init__(self, disk: DyingDisk, file: DiskFile) -> None:
        self._disk = disk
        self._file = file

    @property
    def path(self) -> str:
        """See ``DiskFile``."""
        return self._file.path

    def pwrite(self, parts: Sequence[Buffer], offset: int) -> int:
        """See ``DiskFile``."""
        due = self._disk.due("pwrite", self.path)
        self._disk.before(due)
        if due and self._disk.moment == "torn":
            data = b"".join(map(byte_view, parts))
            self._file.pwrite([data[: random.Random(offset).randint(0, len(data))]], offset)
            _die()
        written = self._file.pwrite(parts, offset)
        self._disk.after(due)
        return written

    def pread(self, length: int, offset: int) -> bytes:
        """See ``DiskFile``."""
        return self._file.pread(length, offset)

    def datasync(self) -> None:
        """See ``DiskFile``."""
        due = self._disk.due("datasync", self.path)
        self._disk.before(due)
        self._file.datasync()
        self._disk.after(due)

    def sync(self) -> None:
        """See ``DiskFile``."""
        due = self._disk.due("sync", self.path)
        self._disk.before(due)
        self._file.sync()
        self._disk.after(due)

    def begin_sync(self, offset: int, length: int) -> None:
        """See ``DiskFile``."""
        self._file.begin_sync(offset, length)

    def allocate(self, length: int) -> None:
        """See ``DiskFile``."""
        due = self._disk.due("allocate", self.path)
        self._disk.before(due)
        self._file.allocate(length)
        self._disk.after(due)

    def reserve(self, length: int) -> None:
        """See ``DiskFile``."""
        due = self._disk.due("reserve", self.path)
        self._disk.before(due)
        self._file.reserve(length)
        self._disk.after(due)

    def truncate(self, length: int) -> None:
        """See ``DiskFile``."""
        self._file.truncate(length)

    def size(self) -> int:
        """See ``DiskFile``."""
        return self._file.size()

    def close(self) -> None:
        """See ``DiskFile``."""
        self._file.close()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


__all__ = ["FAILPOINTS", "VARIABLE", "DyingDisk", "DyingFile", "class_of"]
