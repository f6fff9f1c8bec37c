"""Which segments to merge next: a pure policy over sizes and dead rows.

Size tiers, as in an LSM tree: segments within a factor of ``fanin`` of each other merge once there are
``fanin`` of them, so a row is rewritten about log(n) times. A segment with too many dead rows is rewritten
alone. When the collection is idle, a tail of small segments is folded together even below the fan-in,
because a search pays for every segment, and into the big one when the tail is worth it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SegmentSize:
    """What the policy knows of one segment. ``payload_bytes``: its payload in memory, dead rows' too."""

    segment_id: int
    rows: int
    dead: int
    indexed: bool
    payload_bytes: int = 0

    @property
    def live(self) -> int:
        """Rows that are not dead."""
        return self.rows - self.dead

    @property
    def live_bytes(self) -> int:
        """About how much payload its live rows have."""
        return self.payload_bytes * self.live // max(self.rows, 1)


@dataclass(frozen=True, slots=True)
class CompactionPolicy:
    """Thresholds of the policy.

    rows_max: a merge never makes a segment of more live rows than this.
    payload_max: nor one of about more bytes of payload than this, because an Arrow column of text ends at 2 GiB and
        all of it is in memory at once; a segment that has more already is rewritten alone.
    fanin: how many segments of one tier start a merge.
    dead_percent: share of dead rows at which a segment is rewritten.
    tail_percent: an idle merge folds the tail into the largest segment when the tail has at least this
        share of its rows; below it the cost of indexing the large one again is not worth it.
    busy_segments: while writes stream in, nothing is merged up to this many segments: the disk and the cores
        belong to the stream then, and a pause of a second is enough to catch up.
    """

    rows_max: int = 1_000_000
    payload_max: int = 1 << 62
    fanin: int = 4
    dead_percent: int = 20
    tail_percent: int = 10
    busy_segments: int = 16

    def choose(self, segments: Sequence[SegmentSize], *, idle: bool) -> tuple[int, ...]:
        """Ids of the segments to merge now, oldest first; empty when there is nothing to do."""
        if not idle and len(segments) <= self.busy_segments:
            return self._dead(segments)
        return self._tier(segments) or self._dead(segments) or (self._tail(segments) if idle else ())

    def _tier(self, segments: Sequence[SegmentSize]) -> tuple[int, ...]:
        small = self._small(segments)
        for start in range(len(small) - self.fanin + 1):
            floor = max(small[start].live, 1)
            group: list[SegmentSize] = []
            for candidate in small[start:]:
                if candidate.live > floor * self.fanin or not self._fits([*group, candidate]):
                    break
                group.append(candidate)
            if len(group) >= self.fanin:
                return _ids(group)
        return ()

    def _dead(self, segments: Sequence[SegmentSize]) -> tuple[int, ...]:
        for segment in segments:
            if segment.dead * 100 >= max(segment.rows, 1) * self.dead_percent and segment.dead:
                return (segment.segment_id,)
        return ()

    def _tail(self, segments: Sequence[SegmentSize]) -> tuple[int, ...]:
        by_size = self._small(segments)
        if len(by_size) < 2:
            return ()
        largest, tail = by_size[-1], by_size[:-1]
        rows = sum(s.live for s in tail)
        if self._fits(by_size) and rows * 100 >= largest.live * self.tail_percent:
            return _ids(by_size)
        if len(tail) >= 2 and self._fits(tail):
            return _ids(tail)
        return ()

    def _small(self, segments: Sequence[SegmentSize]) -> list[SegmentSize]:
        """Those that may grow, smallest first."""
        small = [s for s in segments if s.live < self.rows_max and s.live_bytes < self.payload_max]
        return sorted(small, key=lambda s: (s.live, s.segment_id))

    def _fits(self, group: Sequence[SegmentSize]) -> bool:
        rows, size = sum(s.live for s in group), sum(s.live_bytes for s in group)
        return rows <= self.rows_max and size <= self.payload_max


def _ids(group: Sequence[SegmentSize]) -> tuple[int, ...]:
    return tuple(sorted(s.segment_id for s in group))


__all__ = ["CompactionPolicy", "SegmentSize"]
