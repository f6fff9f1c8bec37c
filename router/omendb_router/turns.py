"""One after the other: conditional writes of one router to the same points would only beat each other's claims."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np

from omendb_common.deadline import Deadline
from omendb_common.ids import U64Array

_TURNS = 256


class Turns:
    """Turns by the place of points on the ring. For speed alone: other routers know nothing of them."""

    def __init__(self) -> None:
        self._locks = [asyncio.Lock() for _ in range(_TURNS)]

    @asynccontextmanager
    async def of(self, hashes: U64Array, deadline: Deadline) -> AsyncIterator[None]:
        """The turn of points with these ``hashes``; TimeoutError when it does not come in time."""
        # In one order for all, so that no two wait for each other.
        wanted = [self._locks[turn] for turn in np.unique(hashes % np.uint64(_TURNS)).tolist()]
        taken: list[asyncio.Lock] = []
        try:
            async with asyncio.timeout(max(deadline.left_s, 0.0)):
                for lock in wanted:
                    await lock.acquire()
                    taken.append(lock)
            yield
        finally:
            for lock in taken:
                lock.release()


__all__ = ["Turns"]
