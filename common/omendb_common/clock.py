"""Time as a port, so that a simulation can hand in its own."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for stamps, monotonic time for durations."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        ...

    def mono_s(self) -> float:
        """Seconds of a clock that never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1_000_000

    def mono_s(self) -> float:
        """Seconds of the monotonic performance counter."""
        return time.perf_counter()


def thread_s() -> float:
    """Seconds of processor time that the calling thread has had: waiting, and other threads, do not count."""
    return time.thread_time()


__all__ = ["Clock", "SystemClock", "thread_s"]
