"""How fast replicas are brought together: so many bytes a second, and slower while this node or the other is busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from omendb_common.clock import Clock
from omendb_datanode.config import RepairSettings

BURST_S = 1.0
"""What was not spent counts for so long."""
PRESSED_S = 0.5
"""Pause between two looks at a node that is busy."""


class Pace:
    """Shared by all exchanges of a node, so that together they keep to one rate. Belongs to one event loop.

    Args:
        pressed: whether this node has more urgent things to do.
        bytes_per_s: for other work than exchanges, with a rate of its own.
    """

    def __init__(
        self,
        clock: Clock,
        settings: RepairSettings,
        pressed: Callable[[], bool] = lambda: False,
        *,
        bytes_per_s: int | None = None,
    ) -> None:
        self._clock = clock
        self._bytes_per_s = settings.bytes_per_s if bytes_per_s is None else bytes_per_s
        self._pressed = pressed
        self._free_at_s = clock.mono_s() - BURST_S

    async def spend(self, size: int) -> None:
        """Wait for the turn of ``size`` bytes."""
        while self._pressed():
            await asyncio.sleep(PRESSED_S)
        now_s = self._clock.mono_s()
        starts_s = max(self._free_at_s, now_s - BURST_S)
        self._free_at_s = starts_s + size / self._bytes_per_s
        # What begins now is paid for by what begins next: a piece larger than a second's worth must not wait for ever.
        if starts_s > now_s:
            await asyncio.sleep(starts_s - now_s)

    async def pause(self, seconds: float) -> None:
        """Leave a node that is busy alone."""
        await asyncio.sleep(max(seconds, 0.0))


__all__ = ["BURST_S", "PRESSED_S", "Pace"]
