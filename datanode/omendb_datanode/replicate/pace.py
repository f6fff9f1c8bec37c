"""How fast replicas are brought together: so many bytes a second, and slower the more clients ask of the node.

Bytes say little of what upkeep takes from clients on a machine whose processors are full. So the time counts, too, in
which a call of ours and calls of clients were at work at once: only that share of the time may be spent so, and the
rest belongs to clients. Where nobody calls, nothing is waited for; where everybody does, it goes on all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from omendb_common.clock import Clock
from omendb_datanode.config import RepairSettings

BURST_S = 1.0
"""What was not spent counts for so long."""
PRESSED_S = 0.5
"""Pause between two looks at a node that is busy."""
REST_MAX_S = 4.0
"""What one call costs at most: however long it took beside clients, upkeep goes on."""


class Pace:
    """Shared by all exchanges of a node, so that together they keep to one rate. Belongs to one event loop.

    Args:
        pressed: whether this node has more urgent things to do.
        clients_s: for how long calls of clients have been at work on this node.
        bytes_per_s: for other work than exchanges, with a rate of its own.
    """

    def __init__(
        self,
        clock: Clock,
        settings: RepairSettings,
        pressed: Callable[[], bool] = lambda: False,
        *,
        clients_s: Callable[[], float] = lambda: 0.0,
        bytes_per_s: int | None = None,
    ) -> None:
        self._clock = clock
        self._bytes_per_s = settings.bytes_per_s if bytes_per_s is None else bytes_per_s
        self._share = settings.clients_share
        self._pressed = pressed
        self._clients_s = clients_s
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

    @contextmanager
    def beside_clients(self) -> Iterator[None]:
        """A call of ours is at work in the block: what of it met clients is paid for by what begins next."""
        began_s, before_s = self._clock.mono_s(), self._clients_s()
        try:
            yield
        finally:
            met_s = self._clients_s() - before_s
            if met_s > 0.0:
                starts_s = max(self._free_at_s, began_s - BURST_S)
                self._free_at_s = starts_s + min(met_s / self._share, REST_MAX_S)

    async def pause(self, seconds: float) -> None:
        """Leave a node that is busy alone."""
        await asyncio.sleep(max(seconds, 0.0))


__all__ = ["BURST_S", "PRESSED_S", "REST_MAX_S", "Pace"]
