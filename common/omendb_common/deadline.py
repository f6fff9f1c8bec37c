"""Deadlines: one absolute moment that a request carries through every process it touches."""

from __future__ import annotations

from dataclasses import dataclass

from omendb_common.clock import Clock
from omendb_common.errors import DeadlineExceededError

TIMEOUT_S_MAX = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment of the local monotonic clock. On the wire it is the milliseconds that are left."""

    clock: Clock
    at_s: float

    @staticmethod
    def after(clock: Clock, timeout_s: float) -> Deadline:
        """``timeout_s`` seconds from now, at most a day."""
        return Deadline(clock, clock.mono_s() + min(max(timeout_s, 0.0), TIMEOUT_S_MAX))

    @property
    def left_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at_s - self.clock.mono_s())

    @property
    def passed(self) -> bool:
        """Whether it is too late."""
        return self.clock.mono_s() >= self.at_s

    def check(self, doing: str) -> None:
        """Raise DeadlineExceededError when it is too late."""
        if self.passed:
            raise DeadlineExceededError(f"the deadline passed while {doing}", field="timeout", mend="allow more time")


__all__ = ["TIMEOUT_S_MAX", "Deadline"]
