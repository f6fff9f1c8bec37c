"""Processes of a simulated cluster: all on one event loop, and each can be stopped, go on, or die, by itself.

Whatever a process does runs in its context: tasks, callbacks and timers know whose they are. What falls due for one
that stands still waits until it goes on; a timer of one that died is forgotten, and its tasks are ended, cut off from
every port, as whatever a real one had under way.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from omendb_chaos.sim.virtual_time import VirtualLoop
from omendb_common.errors import OmenDBError

T = TypeVar("T")
FAULTS = (OmenDBError, OSError, MemoryError, RuntimeError, ValueError, TypeError, LookupError, AttributeError)
"""What work that is done at once may raise, and its caller gets as if a thread had done it."""
_PRUNE_AT = 64


class Process:
    """One life of one process. ``name`` is its place in the cluster, ``life`` counts its starts."""

    def __init__(self, loop: ProcessLoop, name: str, life: int = 1) -> None:
        self.loop = loop
        self.name = name
        self.life = life
        self.alive = True
        self.paused = False
        self.steps = 0
        self._strike_at = 0
        self._strike: Callable[[], object] = int
        self._parked: list[asyncio.Handle] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._prune_at = _PRUNE_AT
        self._context = contextvars.Context()
        self._context.run(_PROCESS.set, self)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of this process."""
        return self.loop.create_task(work, context=self._context.copy())

    def pause(self) -> None:
        """Stand still: as SIGSTOP, or a machine that swaps."""
        self.paused = self.alive

    def resume(self) -> None:
        """Go on: what fell due meanwhile happens now, in its order."""
        self.paused = False
        parked, self._parked = self._parked, []
        self.loop.again(parked)

    def strike_after(self, steps: int, strike: Callable[[], object]) -> None:
        """Do something between two steps of this process, so many from now."""
        self._strike_at, self._strike = self.steps + steps, strike

    def step(self) -> None:
        """It is about to run one more callback."""
        self.steps += 1
        if self.steps == self._strike_at:
            self._strike()

    def kill(self) -> None:
        """End it, whatever it does."""
        self.alive = False
        self.resume()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()

    def park(self, handle: asyncio.Handle) -> None:
        """Keep for later what falls due while it stands still."""
        self._parked.append(handle)

    def owns(self, task: asyncio.Task[Any]) -> None:
        """A task was begun in this process."""
        if not self.alive:
            task.cancel()
            return
        self._tasks.append(task)
        if len(self._tasks) >= self._prune_at:
            self._tasks = [t for t in self._tasks if not t.done()]
            self._prune_at = max(_PRUNE_AT, 2 * len(self._tasks))

    def tasks_left(self) -> list[asyncio.Task[Any]]:
        """Tasks that have not ended."""
        return [task for task in self._tasks if not task.done()]


_PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def current_process() -> Process | None:
    """Whose code is running; None: the world's own."""
    return _PROCESS.get()


class _Handle(asyncio.Handle):
    """A callback that knows its process."""

    __slots__ = ()

    def _run(self) -> None:
        process = self._context.get(_PROCESS)  # type: ignore[attr-defined]
        if process is not None:
            if process.paused:
                process.park(self)
                return
            process.step()
        super()._run()


class _TimerHandle(asyncio.TimerHandle):
    """A timer that knows its process."""

    __slots__ = ()

    def _run(self) -> None:
        process = self._context.get(_PROCESS)  # type: ignore[attr-defined]
        if process is None:
            super()._run()
        elif process.paused:
            process.park(self)
        elif process.alive:
            process.step()
            super()._run()


class ProcessLoop(VirtualLoop):
    """The loop of all processes. ``faults``: what was told to its exception handler by processes that live."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.faults: list[str] = []
        self.set_exception_handler(self._fault)
        self._outside = contextvars.Context()

    # The loop's own way of making handles, so that each may ask its process before it runs.

    def _call_soon(self, callback: Any, args: Any, context: Any) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        self.steps += 1
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """See ``AbstractEventLoop``."""
        timer = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        self.steps += 1
        return timer

    def again(self, handles: list[asyncio.Handle]) -> None:
        """Run handles that were kept back."""
        self._ready.extend(handles)  # type: ignore[attr-defined]

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """See ``AbstractEventLoop``; the task belongs to the process in whose context it runs."""
        task = super().create_task(coro, **options)
        context = options.get("context")
        process = _PROCESS.get() if context is None else context.get(_PROCESS)
        if process is not None:
            process.owns(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """See ``AbstractEventLoop``: there are no threads, it is done at once."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except FAULTS as error:
            future.set_exception(error)
        return future

    def outside(self, delay_s: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Do something later that is no process's doing: what a network, a disk or a fault does."""
        return self.call_later(delay_s, callback, *args, context=self._outside)

    def _fault(self, loop: asyncio.AbstractEventLoop, told: dict[str, Any]) -> None:
        process = _PROCESS.get()
        if process is None or process.alive:
            self.faults.append(f"{process.name if process else 'world'}: {told['message']}: {told.get('exception')!r}")


__all__ = ["FAULTS", "Process", "ProcessLoop", "current_process"]
