"""Work handed to threads: what comes back, what is dropped, and what does not go to a thread at all."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, NotFoundError
from omendb_datanode.engine_threads import EngineThreads
from omendb_datanode.read_threads import ReadThreads


def soon(timeout_s: float = 20.0) -> Deadline:
    return Deadline.after(SystemClock(), timeout_s)


class Gate:
    """Work that goes on until it is let go."""

    def __init__(self) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()
        self.times = 0

    def __call__(self) -> str:
        self.times += 1
        self.begun.set()
        assert self.let_go.wait(20)
        return "done"

    async def until_begun(self) -> None:
        await asyncio.to_thread(self.begun.wait, 20)


def test_results_and_errors_come_back() -> None:
    async def story() -> None:
        threads = ReadThreads(2, "test")
        found = await asyncio.gather(*(threads.run(lambda n=n: n * n, soon()) for n in range(100)))  # type: ignore[misc]
        assert found == [n * n for n in range(100)]

        def fail() -> None:
            raise NotFoundError("gone")

        with pytest.raises(NotFoundError):
            await threads.run(fail, soon())
        assert threads.under_way == 0
        threads.close()

    asyncio.run(story())


def test_work_whose_time_is_up_ends_for_nobody() -> None:
    async def story() -> None:
        threads, gate = ReadThreads(1, "test"), Gate()
        with pytest.raises(DeadlineExceededError):
            await threads.run(gate, soon(0.05))
        assert threads.under_way == 1, "it still has the thread"
        with pytest.raises(DeadlineExceededError):
            await threads.run(gate, soon(0.05))
        gate.let_go.set()
        assert await threads.run(lambda: 3, soon()) == 3
        assert gate.times == 1, "what had not begun in time never begins"
        threads.close()

    asyncio.run(story())


def test_work_of_a_caller_that_went_away_is_not_begun() -> None:
    async def story() -> None:
        threads, gate = ReadThreads(1, "test"), Gate()
        first = asyncio.create_task(threads.run(gate, soon()))
        await gate.until_begun()
        other = Gate()
        second = asyncio.create_task(threads.run(other, soon()))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.let_go.set()
        assert await first == "done"
        assert await threads.run(lambda: 4, soon()) == 4 and other.times == 0
        threads.close()

    asyncio.run(story())


def test_closing_waits_for_what_runs_and_drops_what_waits() -> None:
    async def story() -> None:
        threads, gate, other = ReadThreads(1, "test"), Gate(), Gate()
        running = asyncio.create_task(threads.run(gate, soon()))
        await gate.until_begun()
        waiting = asyncio.create_task(threads.run(other, soon()))
        await asyncio.sleep(0)
        gate.let_go.set()
        threads.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert other.times == 0 and await running == "done"

    asyncio.run(story())


def test_something_short_is_done_at_once_when_it_is_alone() -> None:
    async def where(threads: EngineThreads, short: bool) -> Any:
        return await threads.read(threading.current_thread, soon(), short=short)

    async def story() -> None:
        threads, here = EngineThreads(readers=2, writers=1), threading.current_thread()
        assert await where(threads, False) is not here
        assert await where(threads, True) is here
        # Of those that come in one turn of the loop only the first: the others have cores of their own.
        await asyncio.sleep(0)
        both = await asyncio.gather(where(threads, True), where(threads, True))
        assert both[0] is here and both[1] is not here
        gate = Gate()
        busy = asyncio.create_task(threads.read(gate, soon()))
        await gate.until_begun()
        assert await where(threads, True) is not here
        gate.let_go.set()
        await busy
        threads.close()

    asyncio.run(story())
