"""Numbers about a replica, for people and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from omendb_common.disk import Disk
from omendb_engine.maintenance import Progress
from omendb_engine.parts import BufferPart, SegmentPart, Snapshot


@dataclass(frozen=True, slots=True)
class SegmentStats:
    """One segment: rows, dead ones among them, its index (``flat``, ``hnsw`` or ``ivf``), bytes on disk."""

    segment_id: int
    rows: int
    dead: int
    index: str
    bytes_on_disk: int


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """A replica at one moment.

    ``points``: live points. ``growing_rows``: rows in no segment yet. ``unindexed_rows``: rows searched exactly
    that will get an index, or wait in the buffer. ``memory_bytes``: by purpose, reserved in the budget of the whole
    folder. ``last_error``: what went wrong last in the background, None when all is well.
    """

    points: int
    growing_rows: int
    segments: tuple[SegmentStats, ...]
    unindexed_rows: int
    index_queue: int
    index_progress: float
    durable_lsn: int
    applied_lsn: int
    durability: str
    disk_bytes: int
    memory_bytes: Mapping[str, int]
    memory_limit_bytes: int
    failed: bool
    last_error: str | None


def segment_stats(snapshot: Snapshot) -> tuple[SegmentStats, ...]:
    """The segments of a snapshot, oldest first."""
    return tuple(
        SegmentStats(p.part_id, p.n, p.dead.count, p.index.kind if p.index else "flat", p.segment.bytes_on_disk)
        for p in snapshot.parts
        if isinstance(p, SegmentPart)
    )


def growing_rows(snapshot: Snapshot) -> int:
    """Rows that are in no segment yet."""
    return sum(p.n for p in snapshot.parts if isinstance(p, BufferPart))


def index_progress(progress: Progress) -> float:
    """Share of the index being built that is done, 1.0 when none is."""
    return progress.building_rows / progress.building_total if progress.building_total else 1.0


def folder_bytes(disk: Disk, path: str) -> int:
    """Bytes of all files below a folder; files that vanish meanwhile count as nothing."""
    total = 0
    for name in disk.listdir(path):
        child = f"{path}/{name}"
        try:
            total += folder_bytes(disk, child)
        except NotADirectoryError:
            with suppress(FileNotFoundError):
                total += disk.size(child)
        except FileNotFoundError:
            continue
    return total


__all__ = ["ReplicaStats", "SegmentStats", "folder_bytes", "growing_rows", "index_progress", "segment_stats"]
