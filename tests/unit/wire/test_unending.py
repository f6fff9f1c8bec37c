"""Work that goes on for ever: no fault ends it without a sound, and nothing but its owner ends it for good."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from pytest import mark

from omendb_common.telemetry.loop_lag import LoopLag
from omendb_common.wire.unending import Unending
from tests.unit.wire.frame_cases import until

LOOPS = mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


class Told(list[dict[str, Any]]):
    """What the loop's exception handler was told."""

    def listen(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.append(context))

    @property
    def faults(self) -> list[str]:
        return [repr(one.get("exception")) for one in self]


@LOOPS
def test_work_that_raises_returns_or_is_cancelled_by_a_library_begins_anew(run: Any) -> None:
    told = Told()

    async def story() -> None:
        told.listen()
        begun = 0

        async def work() -> None:
            nonlocal begun
            begun += 1
            if begun == 1:
                raise RuntimeError("unable to perform operation; the handler is closed")
            if begun == 2:
                return
            if begun == 3:
                raise asyncio.CancelledError
            await asyncio.Event().wait()

        kept = Unending(work, "watch", again_s=0.001)
        await until(lambda: begun == 4)
        await kept.stop()
        assert begun == 4

    run(story())
    assert told.faults == ["RuntimeError('unable to perform operation; the handler is closed')", "None", "None"]
    assert {one["message"] for one in told} == {"watch ended, and begins anew"}


@LOOPS
def test_nothing_begins_anew_after_the_end(run: Any) -> None:
    told = Told()

    async def story() -> None:
        told.listen()
        begun = 0

        async def faulty() -> None:
            nonlocal begun
            begun += 1
            raise ZeroDivisionError

        async def stubborn() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise ZeroDivisionError

        waiting = Unending(faulty, "between two tries", again_s=0.001)
        await until(lambda: begun > 0)
        working = Unending(stubborn, "at work")
        await asyncio.sleep(0)
        for kept in waiting, working:
            await kept.stop()
        before = begun
        for _ in range(100):
            await asyncio.sleep(0)
        assert begun == before
        told.clear()

    run(story())
    assert not told


def test_the_lag_is_measured_whatever_its_observer_does() -> None:
    """A process must not go by the lag of long ago: it would turn work away for ever."""
    told = Told()

    async def story() -> None:
        told.listen()

        def observe(_: float) -> None:
            raise ZeroDivisionError("a fault")

        lag = LoopLag(every_s=0.001, observe=observe)
        lag.start()
        await until(lambda: len(told) > 2)
        lag.stop()

    asyncio.run(story())
    assert set(told.faults) == {"ZeroDivisionError('a fault')"}
