"""Stamps: 64-bit hybrid-logical-clock integers that order all writes.

``stamp = ms42 (since 2024-01-01 UTC) << 22 | counter10 << 12 | origin12`` (design: replication,
section 1). One integer, so a NumPy column compares a million of them at once. A full counter
borrows the next millisecond, so stamps stay unique and increasing at any rate.
"""

from __future__ import annotations

from omendb_common.clock import Clock
from omendb_common.errors import InvalidArgumentError

EPOCH_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z
ORIGIN_BITS = 12
COUNTER_BITS = 10
ORIGIN_MAX = (1 << ORIGIN_BITS) - 1
STAMP_MAX = (1 << 64) - 1
_TICK = 1 << ORIGIN_BITS
_MS_SHIFT = ORIGIN_BITS + COUNTER_BITS


class HybridLogicalClock:
    """Makes stamps that only grow, whatever the wall clock does. Not thread-safe: one writer owns it."""

    def __init__(self, clock: Clock, *, origin: int = 0, last: int = 0) -> None:
        if not 0 <= origin <= ORIGIN_MAX:
            raise InvalidArgumentError(f"got {origin}", field="origin", bound=f"0..{ORIGIN_MAX}")
        self._clock = clock
        self._origin = origin
        self._last = last

    @property
    def last(self) -> int:
        """The greatest stamp made or observed."""
        return self._last

    def tick(self) -> int:
        """A stamp greater than every stamp made or observed before."""
        physical = max(self._clock.wall_ms() - EPOCH_MS, 0) << _MS_SHIFT
        base = (self._last | ORIGIN_MAX) - ORIGIN_MAX
        candidate = max(physical, base + _TICK) | self._origin
        self._last = candidate
        return candidate

    def now(self) -> int:
        """The present without making a stamp: whoever observes it makes none below what was seen here."""
        return max(self._last, max(self._clock.wall_ms() - EPOCH_MS, 0) << _MS_SHIFT)

    def observe(self, stamp: int) -> None:
        """Make every later stamp greater than ``stamp``."""
        self._last = max(self._last, stamp)


def stamp_wall_ms(stamp: int) -> int:
    """The wall-clock part of a stamp, milliseconds since 1970-01-01 UTC."""
    return (stamp >> _MS_SHIFT) + EPOCH_MS


def stamp_at(wall_ms: int) -> int:
    """The first stamp of a millisecond since 1970-01-01 UTC; 0 before there were any."""
    return max(wall_ms - EPOCH_MS, 0) << _MS_SHIFT


def stamp_step(seconds: float) -> int:
    """How far two stamps lie apart that were made so many seconds after each other."""
    return int(seconds * 1000) << _MS_SHIFT


__all__ = ["EPOCH_MS", "ORIGIN_MAX", "STAMP_MAX", "HybridLogicalClock", "stamp_at", "stamp_step", "stamp_wall_ms"]
