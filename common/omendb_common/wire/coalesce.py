"""Calls that ask the same of the same shard travel as one call with many questions, and come back apart.

What queues in one turn of the event loop, or while ``calls_max`` of its kind are under way, goes into the next call. A
call that comes alone leaves in the same turn: nothing waits for company. Which calls may be joined, and how, is said
by :class:`Kind`; see :mod:`omendb_common.wire.joined_calls`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, OmenDBError, ResourceExhaustedError, UnavailableError
from omendb_common.wire import status

CALLS_MAX = 2
"""Calls of one kind that are under way at a time: one is worked on, the next one is there when it ends. With more,
each holds fewer questions, and a call costs a data node as much as several of these."""
_TURNS_MAX = 8
"""Turns of the loop that a call waits for others to join it, as long as each brings some."""
WAITING_MAX = 4096
"""Calls of one kind that may wait; the next one is told to come back later."""

C = TypeVar("C")
A = TypeVar("A")


class Kind(Protocol[C, A]):
    """How calls of one method are joined and their answers taken apart."""

    @property
    def size_max(self) -> int:
        """Questions of one joined call; more wait for the next."""

    def key(self, call: C) -> Hashable:
        """Equal for calls that one call can ask together; None: it travels alone."""

    def size(self, call: C) -> int:
        """How many questions a call has."""

    def joined(self, calls: Sequence[C]) -> C:
        """One call with the questions of all, in order."""

    def split(self, answer: A, sizes: Sequence[int]) -> Sequence[A]:
        """The answers to the first ``sizes[0]`` questions, to the next ``sizes[1]``, and so on.

        Raises:
            UnavailableError: the answer is not to that many questions.
        """


class _Waiting(Generic[C, A]):
    """One call: who waits for it, and, once it is under way, with which others."""

    __slots__ = ("batch", "call", "deadline", "future", "size")

    def __init__(self, call: C, size: int, deadline: Deadline, future: asyncio.Future[A]) -> None:
        self.call = call
        self.size = size
        self.deadline = deadline
        self.future = future
        self.batch: _Batch | None = None


class _Batch:
    """Calls that travel together, and the task that waits for their answer."""

    __slots__ = ("task", "waiting")

    def __init__(self, waiting: list[_Waiting[Any, Any]]) -> None:
        self.waiting = waiting
        self.task: asyncio.Task[None] | None = None
        for one in waiting:
            one.batch = self

    def leave(self) -> None:
        """Somebody waits no more; the last one ends the call."""
        if self.task is not None and all(one.future.done() for one in self.waiting):
            self.task.cancel()


class _Lane(Generic[C, A]):
    """The calls of one key: those that wait, and how many are under way."""

    __slots__ = ("due", "sending", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Waiting[C, A]] = deque()
        self.sending = 0
        self.due = False


class Coalescer(Generic[C, A]):
    """Joins calls of one kind that are made at the same moment. Belongs to one event loop."""

    def __init__(
        self,
        send: Callable[[C, Deadline], Awaitable[A]],
        kind: Kind[C, A],
        *,
        size_max: int = 0,
        calls_max: int = CALLS_MAX,
    ) -> None:
        """Calls go out through ``send``, at most ``size_max`` questions together, in ``calls_max`` calls at a time."""
        self._send = send
        self._kind = kind
        self._size_max = size_max or kind.size_max
        self._calls_max = calls_max
        self._lanes: dict[Hashable, _Lane[C, A]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    async def ask(self, call: C, deadline: Deadline) -> A:
        """As the method of ``DataNode``; the error of a joined call is raised to everybody who is in it.

        Raises:
            ResourceExhaustedError: too many calls of the kind wait already.
        """
        size, key = self._kind.size(call), self._kind.key(call)
        if size >= self._size_max or key is None:
            return await self._send(call, deadline)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane()
        elif len(lane.waiting) >= WAITING_MAX:
            raise ResourceExhaustedError(f"{len(lane.waiting)} calls wait", field="node", retry_after=0.05)
        waiting: _Waiting[C, A] = _Waiting(call, size, deadline, self._loop.create_future())
        lane.waiting.append(waiting)
        if not lane.due and lane.sending < self._calls_max:
            lane.due = True
            self._loop.call_soon(self._gather, key, lane, 0, _TURNS_MAX)
        # A timer of the loop's: a timeout scope around every call costs three times as much.
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

    def _late(self, waiting: _Waiting[C, A]) -> None:
        if not waiting.future.done():
            late = DeadlineExceededError("no answer in time", field="timeout", mend="allow more time")
            waiting.future.set_exception(late)
            self._leave(waiting)

    def _leave(self, waiting: _Waiting[C, A]) -> None:
        waiting.future.cancel()
        if waiting.batch is not None:
            waiting.batch.leave()

    def _gather(self, key: Hashable, lane: _Lane[C, A], before: int, turns: int) -> None:
        """Send in the first turn of the loop that has brought no more; ``before``: how many waited in the last one."""
        here = len(lane.waiting)
        if here > before and turns:
            self._loop.call_soon(self._gather, key, lane, here, turns - 1)
        else:
            self._flush(key, lane)

    def _flush(self, key: Hashable, lane: _Lane[C, A]) -> None:
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

    def _take(self, lane: _Lane[C, A]) -> _Batch | None:
        """The first that wait, as many as fit; None when nobody waits for them any more."""
        taken: list[_Waiting[C, A]] = []
        questions = 0
        while lane.waiting:
            size = lane.waiting[0].size
            if taken and questions + size > self._size_max:
                break
            waiting = lane.waiting.popleft()
            if not waiting.future.done():
                taken.append(waiting)
                questions += size
        return _Batch(taken) if taken else None

    async def _run(self, key: Hashable, lane: _Lane[C, A], batch: _Batch) -> None:
        waiting: list[_Waiting[C, A]] = batch.waiting
        error: OmenDBError = UnavailableError("the call was ended", outcome="unknown")
        try:
            parts: Sequence[A]
            if len(waiting) == 1:
                parts = [await self._send(waiting[0].call, waiting[0].deadline)]
            else:
                # Nobody's call is cut short by another's haste: each ends at its own deadline.
                latest = max((one.deadline for one in waiting), key=lambda deadline: deadline.at_s)
                answer = await self._send(self._kind.joined([one.call for one in waiting]), latest)
                parts = self._kind.split(answer, [one.size for one in waiting])
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


__all__ = ["CALLS_MAX", "WAITING_MAX", "Coalescer", "Kind"]
