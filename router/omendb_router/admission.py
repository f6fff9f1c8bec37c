"""Admission: how many requests are at work, how many wait, and when one more is refused."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, ResourceExhaustedError
from omendb_router.settings import RouterSettings

_RETRY_MIN_S = 0.05
_RETRY_MAX_S = 5.0


@dataclass(slots=True)
class _Gate:
    """Requests of one collection."""

    working: int = 0
    waiting: deque[tuple[asyncio.Future[None], int]] = field(default_factory=deque)


class Place(NamedTuple):
    """A place among the requests at work; as a context it leaves by itself."""

    admission: Admission
    collection: str
    size_bytes: int
    clock: Clock
    since_s: float

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *exc: object) -> None:
        self.admission.leave(self)


class Admission:
    """Bounds on requests at work and requests that wait, for the router and for each collection.

    Collections take turns: one that fills its queue neither fills the router's nor delays the others' turns.
    """

    def __init__(self, settings: RouterSettings) -> None:
        self._settings = settings
        self._gates: dict[str, _Gate] = {}
        self._turns: deque[str] = deque()
        self._working = 0
        self._waiting = 0
        self._bytes = 0
        self._mean_s = 0.01

    @property
    def working(self) -> int:
        """Requests at work."""
        return self._working

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return self._waiting

    async def enter(self, collection: str, deadline: Deadline, size_bytes: int = 0) -> Place:
        """A place among the requests at work; whoever got it must leave it.

        Args:
            size_bytes: what the request holds in memory meanwhile.

        Raises:
            ResourceExhaustedError: the queue is full; ``retry_after`` says when it may be shorter.
            DeadlineExceededError: the turn did not come in time; nothing was done.
        """
        gate = self._gates.setdefault(collection, _Gate())
        if not self._may_start(gate, size_bytes) or gate.waiting:
            await self._wait(collection, gate, deadline, size_bytes)
        else:
            self._start(gate, size_bytes)
        return Place(self, collection, size_bytes, deadline.clock, deadline.clock.mono_s())

    def leave(self, place: Place) -> None:
        """Give a place back; the next who waits gets it."""
        gate = self._gates[place.collection]
        self._mean_s += 0.05 * (place.clock.mono_s() - place.since_s - self._mean_s)
        self._working -= 1
        self._bytes -= place.size_bytes
        gate.working -= 1
        self._hand_on()
        self._forget(place.collection, gate)

    def _forget(self, collection: str, gate: _Gate) -> None:
        if not gate.working and not gate.waiting:
            self._gates.pop(collection, None)

    def _may_start(self, gate: _Gate, size_bytes: int) -> bool:
        s = self._settings
        # A batch larger than the bound runs alone rather than never.
        fits = self._bytes == 0 or self._bytes + size_bytes <= s.request_bytes_max
        return self._working < s.requests_max and gate.working < s.requests_per_collection_max and fits

    def _start(self, gate: _Gate, size_bytes: int) -> None:
        self._working += 1
        self._bytes += size_bytes
        gate.working += 1

    async def _wait(self, collection: str, gate: _Gate, deadline: Deadline, size_bytes: int) -> None:
        s = self._settings
        if self._waiting >= s.queue_max or len(gate.waiting) >= s.queue_per_collection_max:
            self._forget(collection, gate)
            raise ResourceExhaustedError(
                f"{self._waiting} requests are waiting, {len(gate.waiting)} of them for this collection",
                field=collection,
                bound=f"at most {s.queue_max} and {s.queue_per_collection_max}",
                mend="send fewer at a time",
                retry_after=self._retry_after_s(),
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = turn, size_bytes
        gate.waiting.append(entry)
        self._turns.append(collection)
        self._waiting += 1
        try:
            async with asyncio.timeout(deadline.left_s):
                await turn
        except TimeoutError:
            self._left(collection, gate, entry)
            raise DeadlineExceededError(
                "the deadline passed in the queue", field=collection, mend="allow more time", outcome="none"
            ) from None
        except asyncio.CancelledError:
            self._left(collection, gate, entry)
            raise

    def _left(self, collection: str, gate: _Gate, entry: tuple[asyncio.Future[None], int]) -> None:
        """The waiter gives up; a place that it was given just now goes to the next."""
        turn, size_bytes = entry
        if turn.done() and not turn.cancelled():
            self._working -= 1
            self._bytes -= size_bytes
            gate.working -= 1
            self._hand_on()
        else:
            gate.waiting.remove(entry)
            self._turns.remove(collection)
            self._waiting -= 1
            self._hand_on()
        self._forget(collection, gate)

    def _hand_on(self) -> None:
        """Give free places to those who wait, collection by collection in the order in which they came."""
        for _ in range(len(self._turns)):
            if self._working >= self._settings.requests_max:
                return
            collection = self._turns.popleft()
            gate = self._gates[collection]
            turn, size_bytes = gate.waiting[0]
            # One that gave up is still in the queue until its task has run.
            if turn.done() or not self._may_start(gate, size_bytes):
                self._turns.append(collection)
                continue
            gate.waiting.popleft()
            self._waiting -= 1
            self._start(gate, size_bytes)
            turn.set_result(None)

    def _retry_after_s(self) -> float:
        """When about half of those who wait will have had their turn."""
        expected_s = self._mean_s * self._waiting / (2 * max(1, self._settings.requests_max))
        return min(max(expected_s, _RETRY_MIN_S), _RETRY_MAX_S)


__all__ = ["Admission", "Place"]
