"""The threads in which the engine works, so that the event loop never does: reads, writes, chores, comparisons apart.

A search that takes long must not hold up a write, nor a merge that somebody asked for either of them. What waits is
bounded by number: beyond it calls are refused, with a time to come back.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, ResourceExhaustedError
from omendb_datanode.read_threads import ReadThreads
from omendb_engine.priority import give_way

_log = logging.getLogger(__name__)

T = TypeVar("T")
RETRY_AFTER_S = 0.05


class EngineThreads:
    """Threads for one node's replicas. Used from one event loop.

    Args:
        readers, writers: threads of each kind; None: by the number of cores. Zero of both runs everything where it is
            called, for simulations.
        reads_max: reads that run or wait; more are refused.
    """

    def __init__(self, *, readers: int | None = None, writers: int | None = None, reads_max: int = 1024) -> None:
        cores = os.cpu_count() or 1
        readers = cores + 2 if readers is None else readers
        writers = max(2, cores) if writers is None else writers
        self.reads_max = reads_max
        self._readers = ReadThreads(readers, "omendb-read") if readers else None
        self._writers = ThreadPoolExecutor(writers, "omendb-write") if writers else None
        self._chores = ThreadPoolExecutor(2, "omendb-chore") if readers else None
        self._trees = ThreadPoolExecutor(1, "omendb-tree", initializer=give_way) if readers else None
        self._had_its_turn = False

    @property
    def reads(self) -> int:
        """Reads that run or wait."""
        return 0 if self._readers is None else self._readers.under_way

    async def read(self, work: Callable[[], T], deadline: Deadline, *, short: bool = False) -> T:
        """Run a read in a thread.

        Args:
            short: whether it takes less than going to a thread and back twice. Then it is run where it is called, if
                nothing else reads, and not twice in one turn of the loop: alone it is quicker so, and many have cores.

        Raises:
            ResourceExhaustedError: too many wait already.
            DeadlineExceededError: it did not end in time; it ends for nobody.
        """
        if self._readers is None:
            return work()
        reads = self._readers.under_way
        if reads >= self.reads_max:
            raise ResourceExhaustedError(
                f"{reads} reads wait",
                field="reads",
                bound=f"at most {self.reads_max}",
                retry_after=RETRY_AFTER_S,
            )
        if short and not reads and not self._had_its_turn:
            self._had_its_turn = True
            asyncio.get_running_loop().call_soon(self._end_turn)
            return work()
        return await self._readers.run(work, deadline)

    def _end_turn(self) -> None:
        self._had_its_turn = False

    async def chore(self, work: Callable[[], T], deadline: Deadline) -> T:
        """Run something long in a thread; DeadlineExceededError when it goes on for nobody."""
        return work() if self._chores is None else await self._run(self._chores, work, deadline)

    async def compare(self, work: Callable[[], T], deadline: Deadline) -> T:
        """Read for a comparison of replicas: one at a time, in a thread that gives way to all others."""
        return work() if self._trees is None else await self._run(self._trees, work, deadline)

    @staticmethod
    async def _run(pool: ThreadPoolExecutor, work: Callable[[], T], deadline: Deadline) -> T:
        def begin() -> T:
            deadline.check("waiting for a thread")
            return work()

        try:
            async with asyncio.timeout(deadline.left_s):
                return await asyncio.wrap_future(pool.submit(begin))
        except TimeoutError:
            raise DeadlineExceededError(
                "the deadline passed while the replica worked", field="timeout", mend="allow more time"
            ) from None

    @property
    def inline(self) -> bool:
        """Whether writes run where they are called."""
        return self._writers is None

    def write(self, work: Callable[[], None]) -> None:
        """Have ``work`` done by a writing thread."""
        if self._writers is None:
            work()
        else:
            self._writers.submit(work).add_done_callback(_log_fault)

    def close(self) -> None:
        """Wait for what runs and end the threads; what waits is dropped."""
        if self._readers is not None:
            self._readers.close()
        for pool in (self._chores, self._trees):
            if pool is not None:
                pool.shutdown(cancel_futures=True)
        if self._writers is not None:
            self._writers.shutdown()


def _log_fault(future: Future[None]) -> None:
    fault = future.exception()
    if fault is not None:
        _log.error("a fault while writing", exc_info=fault)


__all__ = ["RETRY_AFTER_S", "EngineThreads"]
