"""Figures about a folder's collections for the metrics, read at most every few seconds."""

from __future__ import annotations

from dataclasses import dataclass

from omendb_common.clock import Clock
from omendb_common.errors import OmenDBError
from omendb_common.telemetry.metrics import Metrics
from omendb_engine.folder import Folder

EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Sums:
    """Of all collections: live points, bytes on disk, segments that wait for their index."""

    points: int = 0
    disk_bytes: int = 0
    index_queue: int = 0


class Figures:
    """Sums over the collections; whoever asks again within ``EVERY_S`` gets the same."""

    def __init__(self, folder: Folder, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._read_s = float("-inf")
        self._sums = Sums()

    def show(self, metrics: Metrics) -> None:
        """Let the gauges of the specification that concern data be read from here."""
        metrics.sample("omendb_total_vectors", lambda: self.sums().points)
        metrics.sample("omendb_disk_usage_bytes", lambda: self.sums().disk_bytes)
        metrics.sample("omendb_index_build_queue_size", lambda: self.sums().index_queue)

    def sums(self) -> Sums:
        """The newest sums."""
        now = self._clock.mono_s()
        if now - self._read_s >= EVERY_S:
            self._read_s = now
            self._sums = self._read()
        return self._sums

    def _read(self) -> Sums:
        points = disk_bytes = index_queue = 0
        for name in self._folder.names():
            try:
                stats = self._folder.replica(name).stats()
            except OmenDBError:
                # It was dropped since its name was read, or has failed: what is left is what there is to count.
                continue
            points += stats.points
            disk_bytes += stats.disk_bytes
            index_queue += stats.index_queue
        return Sums(points, disk_bytes, index_queue)


__all__ = ["EVERY_S", "Figures", "Sums"]
