"""An event loop whose time is a number: it never waits, and it runs the same way every time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

START_MS = 1_750_000_000_000
"""Wall clock of a simulation's beginning, milliseconds since 1970."""


class Standstill(RuntimeError):
    """Everything waits for something that will never happen."""


class _Skipping(selectors.SelectSelector):
    """Instead of waiting for files, lets the time pass for which the loop would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Standstill("no task can go on and no timer is set")
        self.now_s += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Timers fire in their order, at once. No threads, no sockets."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now_s


class VirtualClock:
    """A :class:`omendb_common.clock.Clock` on a virtual loop; its wall clock is ``skew_ms`` off."""

    def __init__(self, loop: VirtualLoop, skew_ms: float = 0.0) -> None:
        self._loop = loop
        self.skew_ms = skew_ms

    def wall_ms(self) -> int:
        return START_MS + int(self._loop.time() * 1e3 + self.skew_ms)

    def mono_s(self) -> float:
        return self._loop.time()


def run_virtually(loop: VirtualLoop, main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end, then cancel what it left behind, and close the loop."""
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(_end_the_rest())
        loop.close()


async def _end_the_rest() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


__all__ = ["START_MS", "Standstill", "VirtualClock", "VirtualLoop", "run_virtually"]
