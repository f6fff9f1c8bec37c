"""Keeps a full disk from becoming a dead one: watermarks that refuse early, and a ballast to throw off.

The ballast is a file of real blocks. When the volume is full all the same (another program filled it), releasing
it gives deletes and compaction, which free space in the end, the little that they need to begin.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from omendb_common.clock import Clock
from omendb_common.disk import Disk, DiskUsage
from omendb_common.errors import DiskFullError
from omendb_engine.wal.prepare import is_full

BALLAST_NAME = "ballast"
SpaceLevel = Literal["ok", "high", "full"]
WriteKind = Literal["upsert", "update", "delete"]
_MIB = 1 << 20


class Ballast:
    """The file ``ballast`` in a replica's folder. Thread-safe.

    Its name is not fsynced: a ballast that a power cut takes away is made again at the next ``establish``.
    """

    def __init__(self, disk: Disk, folder: str) -> None:
        self._disk = disk
        self._path = f"{folder}/{BALLAST_NAME}"
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """Bytes held in reserve now."""
        return self._disk.size(self._path) if self._disk.exists(self._path) else 0

    def establish(self, segment_bytes: int, limit_bytes: int) -> bool:
        """Hold twice a log segment in reserve, at most ``limit_bytes``; it grows and never shrinks here.

        Returns:
            Whether the reserve is whole. False when the volume has no room for it (then none is held).

        Raises:
            OSError: for anything else than a full disk.
        """
        target = min(2 * segment_bytes, limit_bytes)
        with self._lock:
            return self.size_bytes >= target or self._grow(target)

    def _grow(self, target: int) -> bool:
        file = self._disk.open(self._path, "rw" if self._disk.exists(self._path) else "create")
        try:
            file.reserve(target)
            file.sync()
        except OSError as error:
            if not is_full(error):
                raise
            # Half a reserve on a full disk is what stands in the way of everybody else.
            with suppress(OSError):
                file.truncate(0)
            return False
        finally:
            file.close()
        return True

    def release(self) -> int:
        """Give the space back to the volume; returns how many bytes that was."""
        with self._lock:
            held = self.size_bytes
            if held:
                file = self._disk.open(self._path, "rw")
                try:
                    file.truncate(0)
                    # Some file systems hand blocks out again only once their release is committed.
                    file.sync()
                finally:
                    file.close()
            return held


@dataclass(frozen=True, slots=True)
class DiskWatermarks:
    """When to refuse writes, in percent of the volume, and how stale the knowledge of it may be.

    From ``high_percent`` on upserts are refused and compaction stops growing; from ``full_percent`` on only
    deletes and reads work. The volume is asked again after ``poll_ms``, ``poll_writes`` writes or
    ``poll_bytes`` written, whichever is first.
    """

    high_percent: int = 90
    full_percent: int = 95
    poll_ms: int = 250
    poll_writes: int = 256
    poll_bytes: int = 64 * _MIB


class DiskGuard:
    """Says whether the volume has room for a kind of write."""

    def __init__(self, disk: Disk, folder: str, clock: Clock, marks: DiskWatermarks | None = None) -> None:
        self._disk = disk
        self._folder = folder
        self._clock = clock
        self._marks = marks or DiskWatermarks()
        self._usage: DiskUsage | None = None
        self._asked_s = 0.0
        self._writes = 0
        self._bytes = 0

    def check(self, kind: WriteKind, write_bytes: int = 0) -> None:
        """Pass a write or refuse it, before anything of it was done. Deletes always pass.

        Raises:
            DiskFullError: naming field ``disk``, the bound and the mend.
            OSError: the volume could not be asked.
        """
        self._writes += 1
        self._bytes += write_bytes
        level = self.level()
        if kind == "delete" or level == "ok" or (level == "high" and kind == "update"):
            return
        marks = self._marks
        name, percent = (
            ("storage.disk_high_percent", marks.high_percent)
            if kind == "upsert"
            else ("storage.disk_full_percent", marks.full_percent)
        )
        used = self._usage.used_fraction * 100 if self._usage else 100.0
        raise DiskFullError(
            f"the volume of {self._folder} is {used:.1f} % used; {kind}s are refused",
            field="disk",
            bound=f"below {percent} % used",
            mend=f"delete points, free space on the volume, or raise {name}",
            retry_after=1.0,
        )

    def level(self) -> SpaceLevel:
        """How full the volume was when last asked, which is not long ago."""
        if self._is_stale():
            self.refresh()
        usage = self._usage
        used = usage.used_fraction * 100 if usage else 100.0
        if used >= self._marks.full_percent:
            return "full"
        return "high" if used >= self._marks.high_percent else "ok"

    def may_compact(self, output_bytes: int) -> bool:
        """Whether compaction may write this much beside what it will replace."""
        if self.level() != "ok":
            return False
        usage = self._usage
        return usage is not None and usage.free_bytes - output_bytes > usage.total_bytes * (
            1 - self._marks.full_percent / 100
        )

    def refresh(self) -> None:
        """Ask the volume now, as after space was given back."""
        self._usage = self._disk.usage(self._folder)
        self._asked_s = self._clock.mono_s()
        self._writes = 0
        self._bytes = 0

    def _is_stale(self) -> bool:
        marks = self._marks
        return (
            self._usage is None
            or self._writes >= marks.poll_writes
            or self._bytes >= marks.poll_bytes
            or (self._clock.mono_s() - self._asked_s) * 1000 >= marks.poll_ms
        )


__all__ = ["BALLAST_NAME", "Ballast", "DiskGuard", "DiskWatermarks", "SpaceLevel", "WriteKind"]
