"""Work that goes on as long as its process, in a task of its own that cannot end without a sound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

AGAIN_S = 1.0


class Unending:
    """A task that does ``work``, which returns only by mistake.

    A watch, a heartbeat or a dialler that raised what nobody expected, in a library or here, would be missing for good,
    and nobody would know why. So a fault is told to the event loop's exception handler, and the work begins anew.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]], name: str, *, again_s: float = AGAIN_S) -> None:
        """Begin at once; belongs to the running event loop. ``again_s``: the pause after a fault."""
        self._work = work
        self._name = name
        self._again_s = again_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._task = self._begin()

    def _begin(self) -> asyncio.Task[None]:
        self._timer = None
        task = self._task = self._loop.create_task(self._work(), name=self._name)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        # Cancelled by nobody here: a library took its own end for this task's.
        fault = None if task.cancelled() else task.exception()
        if self._stopped:
            return
        told: dict[str, Any] = {"message": f"{self._name} ended, and begins anew", "task": task}
        if fault is not None:
            told["exception"] = fault
        self._loop.call_exception_handler(told)
        self._timer = self._loop.call_later(self._again_s, self._begin)

    async def stop(self) -> None:
        """End it, and wait until it has ended."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


__all__ = ["AGAIN_S", "Unending"]
