"""Timing, percentiles, memory of a process tree, bytes on disk and the description of the machine.

Standard library and NumPy only: this module also runs inside the peers' own virtualenvs.
"""

from __future__ import annotations

import os
import platform
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Spread:
    """How a set of times is spread, in milliseconds."""

    count: int
    mean_ms: float
    p50_ms: float
    p99_ms: float
    max_ms: float

    @staticmethod
    def of(seconds: Sequence[float] | np.ndarray[Any, Any]) -> Spread:
        """Summarize `seconds`; an empty set gives zeros."""
        times = np.asarray(seconds, dtype=np.float64) * 1000
        if not times.size:
            return Spread(0, 0.0, 0.0, 0.0, 0.0)
        p50, p99 = np.percentile(times, [50, 99])
        return Spread(times.size, float(times.mean()), float(p50), float(p99), float(times.max()))

    def to_json(self) -> dict[str, float]:
        """Give the fields as a mapping."""
        return asdict(self)


def median(values: Sequence[float]) -> float:
    """Give the median of `values`; NaN when there are none."""
    return float(np.median(values)) if len(values) else float("nan")


def recall(found: Sequence[Sequence[int]], truth: np.ndarray[Any, Any], k: int) -> float:
    """Give the mean share of the true best `k` rows that was found.

    `truth` is (queries, >= k) rows, best first, padded with -1 where fewer than k rows qualify: a query
    is judged by the rows that exist, and one without any counts as perfect only when it found nothing.
    """
    shares = []
    for hits, best in zip(found, truth, strict=False):
        wanted = {int(row) for row in best[:k] if row >= 0}
        if not wanted:
            shares.append(0.0 if len(hits) else 1.0)
            continue
        shares.append(len(wanted.intersection(int(row) for row in hits[:k])) / len(wanted))
    return float(np.mean(shares)) if shares else float("nan")


def disk_bytes(folder: Path) -> int:
    """Give the bytes that the files below `folder` take on disk: allocated blocks, so holes cost nothing."""
    if folder.is_file():
        return folder.stat().st_blocks * 512
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
            except FileNotFoundError:  # a background worker removed it between the listing and the look
                continue
    return total


def _status_kib(pid: int, fields: tuple[str, ...]) -> int:
    """Sum `fields` of /proc/PID/status, in KiB; 0 when the process is gone."""
    total = 0
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    for line in lines:
        name, _, value = line.partition(":")
        if name in fields:
            total += int(value.split()[0])
    return total


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            text = Path(f"/proc/{pid}/task/{thread}/children").read_text(encoding="ascii")
        except OSError:
            continue
        found.extend(int(child) for child in text.split())
    return found


def process_tree(pid: int) -> list[int]:
    """List `pid` and all its living descendants."""
    tree = [pid]
    for member in tree:
        tree.extend(child for child in _children(member) if child not in tree)
    return tree


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a process tree, in bytes; `anonymous` leaves out pages backed by files."""

    resident: int
    anonymous: int


def tree_memory(pid: int | None = None) -> Memory:
    """Measure what the process `pid` (default: this one) and its descendants hold now."""
    tree = process_tree(os.getpid() if pid is None else pid)
    resident = sum(_status_kib(member, ("VmRSS",)) for member in tree)
    anonymous = sum(_status_kib(member, ("RssAnon", "RssShmem")) for member in tree)
    return Memory(resident * 1024, anonymous * 1024)


class Sampler(ABC):
    """Takes a sample in a thread, again and again; a context manager."""

    def __init__(self, interval_s: float) -> None:
        """Rest `interval_s` between two samples."""
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    @abstractmethod
    def sample(self) -> None:
        """Look once."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.sample()
            self._stop.wait(self._interval_s)


class MemoryWatch(Sampler):
    """Samples a process tree and keeps the peaks."""

    def __init__(self, pid: int | None = None, interval_s: float = 0.05) -> None:
        """Watch the process `pid`, by default this one."""
        super().__init__(interval_s)
        self.peak = Memory(0, 0)
        self._pid = os.getpid() if pid is None else pid

    def sample(self) -> None:
        """Look once."""
        now = tree_memory(self._pid)
        self.peak = Memory(max(self.peak.resident, now.resident), max(self.peak.anonymous, now.anonymous))


def tree_cpu_seconds(pid: int | None = None) -> float:
    """Give the processor time that a process (default: this one) and its living descendants have used."""
    ticks = 0
    for member in process_tree(os.getpid() if pid is None else pid):
        try:
            text = Path(f"/proc/{member}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        # The name stands in brackets and may hold spaces; user and system time are fields 14 and 15.
        fields = text.rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, Any]:
    """Describe the machine: cores, processor, memory, system. No host names, no paths."""
    model, flags = "unknown", set()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            model = value.strip()
        elif name.strip() == "flags":
            flags = set(value.split())
    memory_kib = 0
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemTotal:"):
            memory_kib = int(line.split()[1])
    return {
        "cores": os.cpu_count(),
        "processor": model,
        "simd": [name for name in ("sse4_2", "avx2", "avx512f") if name in flags],
        "memory_gib": round(memory_kib / (1 << 20), 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }
