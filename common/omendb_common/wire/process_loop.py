"""The event loop of a server process: uvloop where it is installed, and no garbage collection of what never is garbage.

A full collection walks everything that the process holds. Most of that are modules and schemas that stay until the
end: tens of milliseconds in which a loop answers nobody. They are set aside once they are loaded.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

SETTLED_S = 5.0
"""Seconds after which what a process made for its start is taken to stay."""
_YOUNG_OBJECTS = 5_000
"""New objects between two collections of the youngest. A request's objects go by their reference counts; Python's
own 700 are made by a few requests, all of which are still waiting for their answers and so live to be walked again."""


def run_loop(work: Coroutine[Any, Any, None], *, settled_s: float = SETTLED_S) -> None:
    """Run ``work`` to its end in this thread, in a process that does nothing else."""
    set_aside()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
    try:
        import uvloop  # here, because Windows has none
    except ImportError:
        asyncio.run(_settling(work, settled_s))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_settling(work, settled_s))


def set_aside() -> None:
    """Collect what is garbage, and leave what is left out of later collections."""
    gc.collect()
    gc.freeze()


async def _settling(work: Coroutine[Any, Any, None], settled_s: float) -> None:
    timer = asyncio.get_running_loop().call_later(settled_s, set_aside)
    try:
        await work
    finally:
        timer.cancel()


__all__ = ["SETTLED_S", "run_loop", "set_aside"]
