"""A data node whose disk can become slow while it runs: ``python -m omendb_chaos.fleet.slow_disk``, flags as usual.

The product knows nothing of it. ``OMENDB_SLOW_DISK`` names the file of a knob: how many times as long as the real disk
every read, write and sync takes. A sync then takes ``SYNC_S_MIN`` at least, lest a real disk that only pretends to sync
make the fault too small to be seen.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from omendb_chaos.fleet.knob import Knob
from omendb_chaos.rows.planting import replaced
from omendb_common.checksum import Buffer
from omendb_common.disk import DiskFile, OpenMode, RealDisk

VARIABLE = "OMENDB_SLOW_DISK"
SYNC_S_MIN = 0.02
T = TypeVar("T")


class SlowDisk(RealDisk):
    """The real disk, as slow as a knob says."""

    def __init__(self, no_mmap: bool = False, *, knob: Knob) -> None:
        super().__init__(no_mmap)
        self._knob = knob

    def open(self, path: str, mode: OpenMode) -> DiskFile:  # type: ignore[override]  # as the port, not as the real one
        """See ``Disk``."""
        return SlowFile(super().open(path, mode), self)

    def sync_dir(self, path: str) -> None:
        """See ``Disk``."""
        self.slowly(lambda: super(SlowDisk, self).sync_dir(path), SYNC_S_MIN)

    def slowly(self, work: Callable[[], T], least_s: float = 0.0) -> T:
        """Do it, and take as many times as long as the knob says; one that failed fails at once."""
        times = self._knob.value
        started_s = time.perf_counter()
        result = work()
        if times > 1:
            took_s = time.perf_counter() - started_s
            time.sleep(max(took_s * times, least_s) - took_s)
            self._knob.feel()
        return result


class SlowFile:
    """A file of a SlowDisk."""

    def __init__(self, file: DiskFile, disk: SlowDisk) -> None:
        self._file = file
        self._disk = disk

    @property
    def path(self) -> str:
        """See ``DiskFile``."""
        return self._file.path

    def pwrite(self, parts: Sequence[Buffer], offset: int) -> int:
        """See ``DiskFile``."""
        return self._disk.slowly(lambda: self._file.pwrite(parts, offset))

    def pread(self, length: int, offset: int) -> bytes:
        """See ``DiskFile``."""
        return self._disk.slowly(lambda: self._file.pread(length, offset))

    def datasync(self) -> None:
        """See ``DiskFile``."""
        self._disk.slowly(self._file.datasync, SYNC_S_MIN)

    def sync(self) -> None:
        """See ``DiskFile``."""
        self._disk.slowly(self._file.sync, SYNC_S_MIN)

    def begin_sync(self, offset: int, length: int) -> None:
        """See ``DiskFile``."""
        self._file.begin_sync(offset, length)

    def allocate(self, length: int) -> None:
        """See ``DiskFile``."""
        self._disk.slowly(lambda: self._file.allocate(length))

    def reserve(self, length: int) -> None:
        """See ``DiskFile``."""
        self._disk.slowly(lambda: self._file.reserve(length))

    def truncate(self, length: int) -> None:
        """See ``DiskFile``."""
        self._file.truncate(length)

    def size(self) -> int:
        """See ``DiskFile``."""
        return self._file.size()

    def close(self) -> None:
        """See ``DiskFile``."""
        self._file.close()


def main() -> int:
    """Run a data node on such a disk."""
    from omendb_datanode import __main__ as datanode
    from omendb_datanode import node

    knob = Knob(Path(os.environ[VARIABLE]))
    with replaced(node, "RealDisk", lambda no_mmap=False: SlowDisk(no_mmap, knob=knob)):
        return datanode.main()


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["SYNC_S_MIN", "VARIABLE", "SlowDisk", "SlowFile", "main"]
