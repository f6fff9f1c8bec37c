"""How far the event loop lags behind: what every request of this process waits before anybody looks at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

EVERY_S = 0.05
SHED_ABOVE_S = 0.5
# A stall is remembered for about a second.
_DECAY = 0.9


class LoopLag:
    """Measures the lag of the running loop with a timer. ``lag_s`` falls slowly, so that one stall is not missed."""

    def __init__(
        self,
        *,
        every_s: float = EVERY_S,
        shed_above_s: float = SHED_ABOVE_S,
        observe: Callable[[float], object] | None = None,
    ) -> None:
        """Prepare to measure; :meth:`start` begins.

        Args:
            every_s: time between two measurements.
            shed_above_s: lag above which new work that may be refused should be.
            observe: given every measurement, in seconds.
        """
        self.lag_s = 0.0
        self.worst_s = 0.0
        """The greatest lag since the start."""
        self._every_s = every_s
        self._shed_above_s = shed_above_s
        self._observe = observe
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0

    def start(self) -> None:
        """Measure the running loop until :meth:`stop`."""
        self._again(asyncio.get_running_loop())

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def shed(self) -> bool:
        """Whether this process is so late that it should refuse what can wait."""
        return self.lag_s > self._shed_above_s

    def _again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due_s = loop.time() + self._every_s
        self._timer = loop.call_at(self._due_s, self._measure, loop)

    def _measure(self, loop: asyncio.AbstractEventLoop) -> None:
        lag_s = max(0.0, loop.time() - self._due_s)
        self.lag_s = max(lag_s, self.lag_s * _DECAY)
        self.worst_s = max(self.worst_s, lag_s)
        # First: whatever the observer does, a process must not go by the lag of long ago.
        self._again(loop)
        if self._observe is not None:
            self._observe(lag_s)


__all__ = ["EVERY_S", "SHED_ABOVE_S", "LoopLag"]
