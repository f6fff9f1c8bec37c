"""Group commit: many callers, one log write and one sync for all that wait.

The first caller to arrive leads: it takes everything queued (up to a size), processes the group, wakes its
followers and hands the lead to the next waiter. A lone caller pays no hand-off at all, which in Python costs
more than the log write itself. While the leader sits in ``fdatasync`` (the GIL is released), other callers
validate, encode and queue; they form the next group.

Order of effects, kept by the processing function: appended, THEN durable, THEN visible, THEN answered.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from omendb_common.errors import UnavailableError
from omendb_engine.interrupts import uninterrupted


class Pending(Protocol):
    """One queued operation."""

    size: int
    solo: bool
    done: bool
    error: BaseException | None


P = TypeVar("P", bound=Pending)


class GroupCommit(Generic[P]):
    """Runs ``process`` on groups of queued operations, one group at a time, in order of arrival.

    ``process`` must set ``done`` or ``error`` on every operation of its group. An operation with ``solo``
    starts a group of its own, because what it does depends on the operations before it being applied.
    """

    def __init__(self, process: Callable[[Sequence[P]], None], *, group_bytes: int) -> None:
        self._process = process
        self._group_bytes = group_bytes
        self._queue: deque[P] = deque()
        self._condition = threading.Condition()
        # The thread that processes a group or acts alone.
        self._leader: int | None = None

    def submit(self, operation: P) -> None:
        """Queue ``operation``, and return when it is done; its error, if any, is raised here."""
        try:
            if self._follow(operation):
                self._lead(operation)
        except BaseException:
            self._step_down()
            self._withdraw(operation)
            raise
        self._settle(operation)

    def submit_all(self, operations: Sequence[P]) -> None:
        """Queue several operations, and return when all are done; what went wrong with one is its ``error``."""
        if not operations:
            return
        last = operations[-1]  # they are done in their order
        try:
            with self._condition:
                self._queue.extend(operations)
            if self._wait_for(last):
                self._lead(last)
        except BaseException:
            self._step_down()
            for operation in operations:
                self._withdraw(operation)
            raise

    def _follow(self, operation: P) -> bool:
        """Queue and wait; whether the caller must lead, because nobody else does and it is not done."""
        with self._condition:
            self._queue.append(operation)
        return self._wait_for(operation)

    def _wait_for(self, operation: P) -> bool:
        with self._condition:
            while self._leader is not None and not operation.done:
                self._condition.wait()
            if operation.done:
                return False
            self._leader = threading.get_ident()
            return True

    def _lead(self, operation: P) -> None:
        try:
            while not operation.done:
                with uninterrupted():  # between the taking and the answers a group is nobody else's
                    self._run(self._take())
        finally:
            self._step_down()

    def _step_down(self) -> None:
        """Let somebody else lead, if this thread does."""
        with self._condition:
            if self._leader == threading.get_ident():
                self._leader = None
                self._condition.notify_all()

    def _withdraw(self, operation: P) -> None:
        """A caller that was interrupted (Ctrl-C) gets its arrays back: nobody may write them any more."""
        with self._condition:
            if operation in self._queue:
                self._queue.remove(operation)
                return
            # A leader has it. That takes as long as one write of the log.
            while self._leader is not None and not operation.done:
                self._condition.wait()

    def _run(self, group: list[P]) -> None:
        try:
            self._process(group)
        except BaseException as error:
            # Whoever waits for this group would wait for ever; and an interrupt is meant for the leader alone.
            told = error if isinstance(error, Exception) else UnavailableError("interrupted", outcome="unknown")
            for operation in group:
                if not operation.done:
                    operation.error, operation.done = told, True
            raise

    def run_exclusive(self, action: Callable[[], None]) -> None:
        """Run ``action`` with no group in progress."""
        try:
            with self._condition:
                while self._leader is not None:
                    self._condition.wait()
                self._leader = threading.get_ident()
            with uninterrupted():
                action()
        finally:
            self._step_down()

    def _take(self) -> list[P]:
        group: list[P] = []
        size = 0
        with self._condition:
            while self._queue:
                head = self._queue[0]
                if group and (head.solo or size + head.size > self._group_bytes):
                    break
                group.append(self._queue.popleft())
                size += head.size
                if head.solo:
                    break
        return group

    @staticmethod
    def _settle(operation: P) -> None:
        if operation.error is not None:
            raise operation.error


__all__ = ["GroupCommit", "Pending"]
