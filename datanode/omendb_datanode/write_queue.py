"""Writes on their way into one replica: queued on the event loop, taken in bulk by a thread.

A thread per waiting call would be the other way to let many share one sync; handing the interpreter from thread to
thread costs more than the writes. For the same reason one thread works for a replica at a time: a second one, to check
and encode while the first waits for the disk, was measured to win nothing and to cost a third of the calls.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, OmenDBError, ResourceExhaustedError, UnavailableError
from omendb_common.records import body_bytes
from omendb_datanode.engine_threads import RETRY_AFTER_S, EngineThreads
from omendb_datanode.hosted import Follower
from omendb_engine.replica import Replica
from omendb_engine.stamped import StampedResult, StampedWrite

_log = logging.getLogger(__name__)

Outcome = StampedResult | BaseException

GROUP_BYTES = 4 << 20
GROUP_CALLS = 512


@dataclass(frozen=True, slots=True)
class WriteLimits:
    """What may wait for one replica: calls, and bytes of their batches."""

    calls_max: int = 4096
    bytes_max: int = 256 << 20


@dataclass(slots=True)
class _Call:
    writes: Sequence[StampedWrite]
    size: int
    deadline: Deadline
    future: asyncio.Future[list[Outcome]]


def _nobody() -> Follower | None:
    return None


Take = Callable[[], list[Outcome]]
Counted = Callable[[Take, Sequence[StampedWrite]], list[Outcome]]
"""Has the replica take writes, and counts what that costs."""


def _uncounted(take: Take, writes: Sequence[StampedWrite]) -> list[Outcome]:
    return take()


class WriteQueue:
    """The writes of one replica. Used from one event loop.

    Args:
        follower: who must have every write before it is acknowledged, if anybody; asked after each group.
        counted: what a group costs is its replica's load; it is called in the thread that writes.
    """

    def __init__(
        self,
        replica: Replica,
        threads: EngineThreads,
        limits: WriteLimits,
        follower: Callable[[], Follower | None] = _nobody,
        counted: Counted = _uncounted,
    ) -> None:
        self.replica = replica
        self._counted = counted
        self._follower = follower
        self._threads = threads
        self._limits = limits
        self._lock = threading.Lock()
        self._calls: deque[_Call] = deque()
        self._bytes = 0
        self._taking = False

    async def write(self, writes: Sequence[StampedWrite], deadline: Deadline) -> list[Outcome]:
        """Write batches one after the other; what became of each.

        Raises:
            ResourceExhaustedError: too much waits already; nothing was written.
            DeadlineExceededError: no answer in time (``outcome`` "unknown": it may still be written).
        """
        if self._threads.inline:
            return self._write(writes)
        call = _Call(writes, sum(map(size_of, writes)), deadline, asyncio.get_running_loop().create_future())
        self._queue(call)
        await asyncio.wait((call.future,), timeout=deadline.left_s)
        if not call.future.done():
            raise DeadlineExceededError(
                "the deadline passed while the write waited for the disk", field="timeout", outcome="unknown"
            )
        return call.future.result()

    async def drained(self) -> None:
        """Wait until every write that was queued before is written or refused."""
        if self._threads.inline:
            return
        loop = asyncio.get_running_loop()
        # One more in the queue: whatever stands before it is done when it is taken.
        last = _Call((), 0, Deadline(SystemClock(), float("inf")), loop.create_future())
        with self._lock:
            self._calls.append(last)
            start, self._taking = not self._taking, True
        if start:
            self._threads.write(self._take)
        await last.future

    def _queue(self, call: _Call) -> None:
        with self._lock:
            if len(self._calls) >= self._limits.calls_max or self._bytes + call.size > self._limits.bytes_max:
                raise ResourceExhaustedError(
                    f"{len(self._calls)} writes with {self._bytes} bytes wait",
                    field="writes",
                    bound=f"at most {self._limits.calls_max} calls and {self._limits.bytes_max} bytes",
                    mend="send it again, or smaller batches",
                    retry_after=RETRY_AFTER_S,
                )
            self._calls.append(call)
            self._bytes += call.size
            start, self._taking = not self._taking, True
        if start:
            self._threads.write(self._take)

    def _take(self) -> None:
        """In a thread: write one group; go on as long as there is one, but behind the other replicas."""
        try:
            group = self._group()
            if group:
                self._answer(group)
        finally:
            with self._lock:
                more = self._taking = bool(self._calls)
            if more:
                self._threads.write(self._take)

    def _group(self) -> list[_Call]:
        group: list[_Call] = []
        size = 0
        with self._lock:
            while self._calls and size < GROUP_BYTES and len(group) < GROUP_CALLS:
                call = self._calls.popleft()
                group.append(call)
                size += call.size
            self._bytes -= size
        return group

    def _answer(self, group: list[_Call]) -> None:
        fresh = [call for call in group if not call.deadline.passed]
        late = DeadlineExceededError("the deadline passed in the queue of writes", field="timeout", outcome="none")
        answers: dict[int, list[Outcome]] = {id(call): [late] for call in group}
        writes = [write for call in fresh for write in call.writes]
        fault: Outcome = UnavailableError("a fault in this node while writing", field="datanode", outcome="unknown")
        outcomes = [fault] * len(writes)
        try:
            outcomes = self._write(writes)
        finally:  # whatever went wrong, everybody who waits must hear of it
            self._tell(group, fresh, outcomes, answers)

    def _write(self, writes: Sequence[StampedWrite]) -> list[Outcome]:
        if not writes:
            return []
        outcomes = self._counted(lambda: self.replica.write_all(writes), writes)
        follower = self._follower()
        if follower is None:
            return outcomes
        try:
            # Of all: what was refused now may be there from an earlier call that ended between the two.
            follower.follow(writes)
        except (OmenDBError, OSError) as error:
            _log.error("a write into %s was not followed", self.replica.path, exc_info=error)
            unfollowed: Outcome = UnavailableError(
                f"what the shard becomes did not take it: {error}", field="shard", outcome="unknown"
            )
            return [o if isinstance(o, BaseException) else unfollowed for o in outcomes]
        return outcomes

    def _tell(
        self, group: list[_Call], fresh: list[_Call], outcomes: list[Outcome], answers: dict[int, list[Outcome]]
    ) -> None:
        at = 0
        for call in fresh:
            answers[id(call)] = outcomes[at : at + len(call.writes)]
            at += len(call.writes)
        # One call into the loop for the whole group.
        loop = group[0].future.get_loop()
        loop.call_soon_threadsafe(_deliver, [(call.future, answers[id(call)]) for call in group])


def _deliver(answers: list[tuple[asyncio.Future[list[Outcome]], list[Outcome]]]) -> None:
    for future, outcomes in answers:
        if not future.done():
            future.set_result(outcomes)


def size_of(write: StampedWrite) -> int:
    """Bytes that a write takes while it waits, nearly."""
    if write.body is not None:
        return body_bytes(write.body)
    batch = write.batch
    payload = 0 if batch.payload is None else int(batch.payload.nbytes)
    return 32 * batch.rows + payload + sum(array.nbytes for array in batch.vectors.values())


__all__ = ["Outcome", "WriteLimits", "WriteQueue", "size_of"]
