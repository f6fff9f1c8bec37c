"""How late the event loop runs: what a node answers depends on it, its heartbeats as well.

A node that is behind sheds load while it can still say so, before its clients run into their deadlines.
"""

from __future__ import annotations

import asyncio
import logging

from omendb_common.clock import Clock

_log = logging.getLogger(__name__)

PERIOD_S = 0.1


class LoopLag:
    """Wakes every ``PERIOD_S`` and sees how late it is. ``run`` belongs to a task of the process.

    ``last_s``: of the last time it woke. ``worst_s``: the longest since it was asked last.
    """

    def __init__(self, clock: Clock, limit_s: float) -> None:
        self.last_s = 0.0
        self.worst_s = 0.0
        self._clock = clock
        self._limit_s = limit_s
        self._late = 0

    @property
    def overloaded(self) -> bool:
        """Whether the loop has been late by more than the limit twice running: one pause may be anything."""
        return self._late >= 2

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            before = self._clock.mono_s()
            await asyncio.sleep(PERIOD_S)
            self.last_s = max(0.0, self._clock.mono_s() - before - PERIOD_S)
            self.worst_s = max(self.worst_s, self.last_s)
            self._late = self._late + 1 if self.last_s > self._limit_s else 0
            if self.overloaded:
                _log.warning("the event loop runs %.2f s late", self.last_s)

    def take_worst_s(self) -> float:
        """The longest since the last call."""
        worst, self.worst_s = self.worst_s, 0.0
        return worst


__all__ = ["PERIOD_S", "LoopLag"]
