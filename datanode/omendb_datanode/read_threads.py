"""Threads that answer an event loop: what is handed over is run, and its result comes back into the loop.

A pool of the standard library's has a future with a lock for every piece of work, another one for the loop, and a scope
for the timeout; together they cost a third of a small search.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError

T = TypeVar("T")


class ReadThreads:
    """At most ``count`` threads, begun when they are needed. Used from one event loop."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._waiting: set[_Job] = set()

    @property
    def under_way(self) -> int:
        """Pieces of work that run or wait."""
        return len(self._waiting)

    async def run(self, work: Callable[[], T], deadline: Deadline) -> T:
        """What ``work`` returns, or raises, in a thread.

        Raises:
            DeadlineExceededError: it did not begin, or end, in time; it ends for nobody.
        """
        loop = asyncio.get_running_loop()
        job = _Job(work, deadline, loop, self)
        self._waiting.add(job)
        if len(self._waiting) > len(self._threads) < self._count:
            self._begin_thread()
        self._queue.put(job)
        timer = loop.call_later(deadline.left_s, job.late)
        try:
            return await job.answer  # type: ignore[no-any-return]  # the work's own
        except asyncio.CancelledError:
            job.dropped = True
            raise
        finally:
            timer.cancel()

    def ended(self, job: _Job) -> None:
        """In the loop: a piece of work runs and waits no more."""
        self._waiting.discard(job)

    def close(self) -> None:
        """Wait for what runs and end the threads; what waits is dropped."""
        for job in self._waiting:
            job.dropped = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        for job in self._waiting:
            # What ran is told in the loop's next turn.
            if not job.ran:
                job.answer.cancel()

    def _begin_thread(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self._name}_{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            job.run()
            # Nothing of it is kept until the next one comes.
            del job


class _Kept:
    """Keeps what a piece of work raises, whatever it is: it is its caller's, and the thread goes on."""

    __slots__ = ("fault",)

    def __init__(self) -> None:
        self.fault: BaseException | None = None

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.fault = fault
        return True


class _Job:
    """One piece of work, and the future that its caller waits for."""

    __slots__ = ("_deadline", "_loop", "_threads", "_work", "answer", "dropped", "ran")

    def __init__(
        self, work: Callable[[], Any], deadline: Deadline, loop: asyncio.AbstractEventLoop, threads: ReadThreads
    ) -> None:
        self._work = work
        self._deadline = deadline
        self._loop = loop
        self._threads = threads
        self.answer: asyncio.Future[Any] = loop.create_future()
        self.dropped = False
        self.ran = False

    def run(self) -> None:
        """In a thread."""
        result, kept = None, _Kept()
        if not self.dropped:
            self.ran = True
            with kept:
                self._deadline.check("waiting for a thread")
                result = self._work()
        try:
            self._loop.call_soon_threadsafe(self._tell, result, kept.fault)
        except RuntimeError:
            # The loop has been closed: nobody waits.
            return

    def _tell(self, result: Any, fault: BaseException | None) -> None:
        self._threads.ended(self)
        if self.answer.done():
            return
        if fault is None:
            self.answer.set_result(result)
        else:
            self.answer.set_exception(fault)

    def late(self) -> None:
        """In the loop: the time is up."""
        if not self.answer.done():
            self.dropped = True
            self.answer.set_exception(
                DeadlineExceededError(
                    "the deadline passed while the replica worked", field="timeout", mend="allow more time"
                )
            )


__all__ = ["ReadThreads"]
