"""Searches that say the same of the same shard travel as one call with many queries, and come back apart.

What queues in one turn of the event loop, or while ``calls_max`` of its kind are under way, goes into the next call. A
search that comes alone leaves in the same turn: nothing waits for company.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, OmenDBError, ResourceExhaustedError, UnavailableError
from omendb_common.shard_calls import Search, ShardHits, Verdict, Work
from omendb_common.wire import status
from omendb_common.wire.convert import filter_to_text

QUERIES_MAX = 256
"""Queries of one call; more wait for the next."""
CALLS_MAX = 2
"""Calls of one kind that are under way at a time: one is worked on, the next one is there when it ends. With more,
each holds fewer searches, and a call costs a data node as much as several of these."""
_TURNS_MAX = 8
"""Turns of the loop that a call waits for searches to join it, as long as each brings some."""
WAITING_MAX = 4096
"""Searches of one kind that may wait; the next one is told to come back later."""

_Send = Callable[[Search, Deadline], Awaitable[ShardHits]]
_Key = tuple[Any, ...]


class _Waiting:
    """One search: who waits for it, and, once it is under way, with which others."""

    __slots__ = ("batch", "call", "deadline", "future")

    def __init__(self, call: Search, deadline: Deadline, future: asyncio.Future[ShardHits]) -> None:
        self.call = call
        self.deadline = deadline
        self.future = future
        self.batch: _Batch | None = None


class _Batch:
    """Searches that travel together, and the task that waits for their answer."""

    __slots__ = ("task", "waiting")

    def __init__(self, waiting: list[_Waiting]) -> None:
        self.waiting = waiting
        self.task: asyncio.Task[None] | None = None
        for one in waiting:
            one.batch = self

    def leave(self) -> None:
        """Somebody waits no more; the last one ends the call."""
        if self.task is not None and all(one.future.done() for one in self.waiting):
            self.task.cancel()


class _Lane:
    """The searches of one kind: those that wait, and how many calls are under way."""

    __slots__ = ("due", "sending", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Waiting] = deque()
        self.sending = 0
        self.due = False


class Coalescer:
    """Joins searches that are asked at the same moment. Belongs to one event loop."""

    def __init__(self, send: _Send, *, queries_max: int = QUERIES_MAX, calls_max: int = CALLS_MAX) -> None:
        """Searches go out through ``send``, at most ``queries_max`` together, in ``calls_max`` calls at a time."""
        self._send = send
        self._queries_max = queries_max
        self._calls_max = calls_max
        self._lanes: dict[_Key, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    async def search(self, call: Search, deadline: Deadline) -> ShardHits:
        """As ``DataNode.search``; the error of a call is raised to everybody who is in it.

        Raises:
            ResourceExhaustedError: too many searches of the kind wait already.
        """
        if len(call.queries) >= self._queries_max:
            return await self._send(call, deadline)
        key = _key(call)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane()
        elif len(lane.waiting) >= WAITING_MAX:
            raise ResourceExhaustedError(f"{len(lane.waiting)} searches wait", field="node", retry_after=0.05)
        waiting = _Waiting(call, deadline, self._loop.create_future())
        lane.waiting.append(waiting)
        if not lane.due and lane.sending < self._calls_max:
            lane.due = True
            self._loop.call_soon(self._gather, key, lane, 0, _TURNS_MAX)
        # A timer of the loop's: a timeout scope around every search costs three times as much.
        timer = self._loop.call_later(deadline.left_s, self._late, waiting)
        try:
            return await waiting.future
        except asyncio.CancelledError:
            self._leave(waiting)
            raise
        finally:
            timer.cancel()

    async def close(self) -> None:
        """End what is under way and what waits."""
        for lane in self._lanes.values():
            while lane.waiting:
                lane.waiting.popleft().future.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _late(self, waiting: _Waiting) -> None:
        if not waiting.future.done():
            late = DeadlineExceededError("no answer in time", field="timeout", mend="allow more time")
            waiting.future.set_exception(late)
            self._leave(waiting)

    def _leave(self, waiting: _Waiting) -> None:
        waiting.future.cancel()
        if waiting.batch is not None:
            waiting.batch.leave()

    def _gather(self, key: _Key, lane: _Lane, before: int, turns: int) -> None:
        """Send in the first turn of the loop that has brought no more; ``before``: how many waited in the last one."""
        here = len(lane.waiting)
        if here > before and turns:
            self._loop.call_soon(self._gather, key, lane, here, turns - 1)
        else:
            self._flush(key, lane)

    def _flush(self, key: _Key, lane: _Lane) -> None:
        lane.due = False
        while lane.waiting and lane.sending < self._calls_max:
            batch = self._take(lane)
            if batch is None:
                continue
            lane.sending += 1
            batch.task = self._loop.create_task(self._run(key, lane, batch))
            self._tasks.add(batch.task)
            batch.task.add_done_callback(self._tasks.discard)
        if not lane.waiting and not lane.sending:
            self._lanes.pop(key, None)

    def _take(self, lane: _Lane) -> _Batch | None:
        """The first that wait, as many as fit; None when nobody waits for them any more."""
        taken: list[_Waiting] = []
        queries = 0
        while lane.waiting:
            size = len(lane.waiting[0].call.queries)
            if taken and queries + size > self._queries_max:
                break
            waiting = lane.waiting.popleft()
            if not waiting.future.done():
                taken.append(waiting)
                queries += size
        return _Batch(taken) if taken else None

    async def _run(self, key: _Key, lane: _Lane, batch: _Batch) -> None:
        waiting = batch.waiting
        error: OmenDBError = UnavailableError("the search was ended", outcome="unknown")
        try:
            if len(waiting) == 1:
                parts = [await self._send(waiting[0].call, waiting[0].deadline)]
            else:
                # Nobody's search is cut short by another's haste: each ends at its own deadline.
                latest = max((one.deadline for one in waiting), key=lambda deadline: deadline.at_s)
                parts = split_hits(await self._send(_joined(waiting), latest), [len(o.call.queries) for o in waiting])
            for one, part in zip(waiting, parts, strict=True):
                if not one.future.done():
                    one.future.set_result(part)
        except OmenDBError as failure:
            error = failure
        finally:
            for one in waiting:
                if not one.future.done():
                    # Each its own: an exception that is raised twice collects the frames of both.
                    one.future.set_exception(status.from_proto(status.to_proto(error)))
            lane.sending -= 1
            self._flush(key, lane)


def _key(call: Search) -> _Key:
    """Equal for searches that one call can ask together."""
    return (
        call.shard,
        call.k,
        call.field,
        # Not the filter itself: in Python True equals 1, and in a filter it does not.
        filter_to_text(call.condition),
        call.exact,
        call.ef,
        call.recall_target,
        call.score_threshold,
        call.payload,
        call.vectors,
        call.queries.dtype.str,
        call.queries.shape[1],
    )


def _joined(waiting: list[_Waiting]) -> Search:
    return waiting[0].call._replace(queries=np.concatenate([one.call.queries for one in waiting]))


def split_hits(hits: ShardHits, rows: list[int]) -> list[ShardHits]:
    """The answers to the first ``rows[0]`` queries, to the next ``rows[1]``, and so on.

    Raises:
        UnavailableError: the answer is not to that many queries.
    """
    if hits.verdict is not Verdict.OK:
        return [hits] * len(rows)
    total = sum(rows)
    if len(hits.counts) != total:
        raise UnavailableError(f"answers to {len(hits.counts)} queries", bound=f"{total}", outcome="unknown")
    ends = [0, *np.cumsum(hits.counts).tolist()]
    parts = []
    start = 0
    for count in rows:
        stop = start + count
        first, last = ends[start], ends[stop]
        payload = hits.payload
        if payload is not None and payload.num_columns:
            payload = payload.slice(first, last - first)
        parts.append(
            ShardHits(
                hits.verdict,
                hits.distances[start:stop],
                hits.counts[start:stop],
                hits.ids.slice(first, last),
                hits.stamps[first:last],
                payload,
                None if hits.vectors is None else hits.vectors[first:last],
                _share(hits.work, count, total),
                hits.hlc,
                hits.error,
                hits.overlays.cut(first, last),
            )
        )
        start = stop
    return parts


def _share(work: Work, count: int, total: int) -> Work:
    return Work(
        work.vectors_scanned * count // total,
        work.segments_searched,
        work.segments_skipped,
        work.cache_hit_rate,
        work.cost_estimate * count / total,
    )


__all__ = ["CALLS_MAX", "QUERIES_MAX", "WAITING_MAX", "Coalescer", "split_hits"]
