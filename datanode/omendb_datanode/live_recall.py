"""How well this node's searches find, measured on searches that clients made.

Of the searches that are answered a few are drawn and made again later, at the lowest priority: once as they were and
once exactly, both over one snapshot, so that no write in between is taken for a miss.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import OmenDBError
from omendb_common.shard_calls import Search, ShardRef
from omendb_datanode.config import DataNodeSettings
from omendb_engine.replica import Replica

_log = logging.getLogger(__name__)

K = 10
_WAITING_MAX = 16
"""Searches that wait to be made again; while so many do, the oldest give way to newer ones."""
_REMEMBERED_MAX = 512
"""Measurements that the figures are the means of, the newest ones."""
_TIME_S = 60.0
_PAUSE_S_MIN = 0.01


class _Measured(NamedTuple):
    collection_uuid: str
    shard_id: int
    recall: float


class LiveRecall:
    """Draws searches and measures them. Belongs to one event loop; ``run`` to a task of the process.

    Args:
        find: the replica of a shard, None where there is none any more.
        work: has a thread do it that gives way to all others.
        dice: which searches are drawn.
    """

    def __init__(
        self,
        clock: Clock,
        settings: DataNodeSettings,
        find: Callable[[ShardRef], Replica | None],
        work: Callable[[Callable[[], float | None], Deadline], Awaitable[float | None]],
        dice: random.Random,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._find = find
        self._work = work
        self._dice = dice
        self._waiting: deque[Search] = deque(maxlen=_WAITING_MAX)
        self._measured: deque[_Measured] = deque(maxlen=_REMEMBERED_MAX)
        self._wake = asyncio.Event()

    def saw(self, call: Search) -> None:
        """A search was answered; one that compares everything, or a part only, tells nothing."""
        if call.exact or call.unproven or self._dice.random() >= self._settings.recall_sample_share:
            return
        # A copy: the queries may be a view into a whole message.
        self._waiting.append(call._replace(queries=call.queries[:1].copy(), payload=False, vectors=False))
        self._wake.set()

    def mean(self) -> float:
        """The mean of what was measured lately; NaN before anything was."""
        return _mean([one.recall for one in self._measured])

    def of(self, shard: ShardRef) -> float | None:
        """The mean of one replica's; None where nothing was measured lately."""
        key = shard.collection_uuid, shard.shard_id
        found = [one.recall for one in self._measured if (one.collection_uuid, one.shard_id) == key]
        return _mean(found) if found else None

    async def run(self) -> None:
        """Measure what was drawn, and rest so long after each that it takes no more than its share; until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                spent_s = await self._measure(self._waiting.popleft())
                share = self._settings.recall_time_share
                await asyncio.sleep(max(_PAUSE_S_MIN, spent_s / share - spent_s))

    async def _measure(self, call: Search) -> float:
        """Measure one search; the seconds that took."""
        started_s = self._clock.mono_s()
        try:
            recall = await self._work(lambda: self._recall(call), Deadline.after(self._clock, _TIME_S))
            if recall is not None:
                self._measured.append(_Measured(call.shard.collection_uuid, call.shard.shard_id, recall))
        except OmenDBError as error:  # a replica that was closed, or is too slow: the next one tells as much
            _log.info("a search could not be measured: %s", error)
        return self._clock.mono_s() - started_s

    def _recall(self, call: Search) -> float | None:
        replica = self._find(call.shard)
        if replica is None:
            return None
        told = replica.explain(
            *(call.queries, K),
            field=call.field,
            condition=call.condition,
            ef=call.ef,
            recall_target=call.recall_target,
            measure=True,
        )
        return told.measured_recall if told.matching else None


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


__all__ = ["K", "LiveRecall"]
