"""The search for one order of all calls, within their times, that explains every answer.

The search of Wing and Gong with the memory of Lowe: calls are put in order one by one, each while it was under way, and
a set of ordered calls that led to the same state before is not tried again. Objects that do not know each other are
checked apart (``by_key``), which is what makes long histories possible.

A call without an answer is *open*: it may have taken effect at any time after it began, or never. It is tried only
right before a call that would go otherwise without it: in any other order it could as well come later, or not at all.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)

STEPS_MAX = 2_000_000


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()
"""The answer of an open call."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one client.

    ``began`` and ``ended`` are times of one clock; ``ended`` is infinite for an open call, whose ``result`` is
    :data:`UNKNOWN`. A call that certainly had no effect does not belong into a history.
    """

    client: str
    key: Hashable
    call: Any
    result: Any
    began: float
    ended: float = math.inf

    @property
    def is_open(self) -> bool:
        """Whether nobody knows if it took effect."""
        return self.ended == math.inf

    def __str__(self) -> str:
        until = "…" if self.is_open else f"{self.ended:.4f}"
        return f"[{self.began:.4f}..{until}] {self.client}: {self.key} {self.call} -> {self.result}"


class Specification(Protocol[S]):
    """A sequential object: what every call answers, and the state it leaves. States are hashable values."""

    def initial(self, key: Hashable) -> S:
        """The state before the first call."""

    def step(self, state: S, call: Any) -> tuple[S, Any]:
        """The state after a call, and its answer."""

    def agrees(self, expected: Any, result: Any) -> bool:
        """Whether an answer that was seen is the one expected. Not asked of open calls."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found. ``undecided``: the search was given up after ``STEPS_MAX`` steps."""

    ok: bool
    steps: int
    undecided: bool = False
    why: str = ""


def check(history: Iterable[Operation], specification: Specification[S], *, steps_max: int = STEPS_MAX) -> Verdict:
    """Check a history, key by key; the first key that cannot be explained is the verdict."""
    steps = 0
    undecided: Verdict | None = None
    for key, operations in by_key(history).items():
        verdict = _Search(operations, specification, key, steps_max).run()
        steps += verdict.steps
        if not verdict.ok and not verdict.undecided:
            return Verdict(False, steps, why=verdict.why)
        if verdict.undecided:
            undecided = verdict
    if undecided is not None:
        return Verdict(False, steps, undecided=True, why=undecided.why)
    return Verdict(True, steps)


def by_key(history: Iterable[Operation]) -> dict[Hashable, list[Operation]]:
    """Calls to every object, in the order in which they began."""
    found: defaultdict[Hashable, list[Operation]] = defaultdict(list)
    for operation in history:
        found[operation.key].append(operation)
    return {key: sorted(operations, key=lambda o: o.began) for key, operations in found.items()}


_IMPOSSIBLE: Any = object()


@dataclass(slots=True)
class _Level(Generic[S]):
    """One call was put next in order: what it led to, and what else could come after it."""

    done: int
    low: int
    left: int
    state: S
    choices: Iterator[int]
    # When the call was an open one: its position, and the state that it found.
    opened: tuple[int, S] | None = None


class _Search(Generic[S]):
    """One search. Positions below ``_closed`` are calls with an answer, the rest are open ones."""

    def __init__(
        self, operations: Sequence[Operation], specification: Specification[S], key: Hashable, steps_max: int
    ) -> None:
        answered = [o for o in operations if not o.is_open]
        self._operations = answered + [o for o in operations if o.is_open]
        self._closed = len(answered)
        self._specification = specification
        self._key = key
        self._steps_max = steps_max
        self._seen: set[tuple[int, S, tuple[int, S] | None]] = set()

    def run(self) -> Verdict:
        """Search, depth first, without recursion."""
        first = self._level(0, 0, self._closed, self._specification.initial(self._key))
        stack, deepest = [first], first
        steps = 0
        while stack:
            level = stack[-1]
            if level.left == 0:
                return Verdict(True, steps)
            if level.left < deepest.left:
                deepest = level
            following = self._next(level)
            if following is None:
                stack.pop()
                continue
            stack.append(following)
            steps += 1
            if steps >= self._steps_max:
                return Verdict(False, steps, undecided=True, why=f"{self._key}: given up after {steps} steps")
        return Verdict(False, steps, why=self._explain(deepest))

    def _next(self, level: _Level[S]) -> _Level[S] | None:
        """The next call that fits and was not tried from the same place."""
        for position in level.choices:
            state = self._after(level.state, position)
            if state is _IMPOSSIBLE or (position >= self._closed and state == level.state):
                continue
            if level.opened is not None and self._needless(level.opened, position, state):
                continue
            done = level.done | (1 << position)
            opened = (position, level.state) if position >= self._closed else None
            if (done, state, opened) in self._seen:
                continue
            self._seen.add((done, state, opened))
            return self._level(done, level.low, level.left - (opened is None), state, opened)
        return None

    def _after(self, state: S, position: int) -> Any:
        """The state after a call, ``_IMPOSSIBLE`` when it would have answered otherwise."""
        operation = self._operations[position]
        following, expected = self._specification.step(state, operation.call)
        if operation.is_open or self._specification.agrees(expected, operation.result):
            return following
        return _IMPOSSIBLE

    def _needless(self, opened: tuple[int, S], position: int, state: Any) -> bool:
        """Whether the open call just before may as well come after this one, or had no effect."""
        before_position, before = opened
        without = self._after(before, position)
        if without is _IMPOSSIBLE:
            return False
        if without == state:
            return True
        # Of two open calls that may come in either order one order is enough.
        later = position < self._closed or position < before_position
        return bool(later and self._after(without, before_position) == state)

    def _level(self, done: int, low: int, left: int, state: S, opened: tuple[int, S] | None = None) -> _Level[S]:
        while low < self._closed and done >> low & 1:
            low += 1
        return _Level(done, low, left, state, iter(self._candidates(done, low)), opened)

    def _candidates(self, done: int, low: int) -> list[int]:
        """What may come next: no call that ended before it began is still to come. Answered ones first."""
        first_end = math.inf
        found = []
        for position in range(low, self._closed):
            operation = self._operations[position]
            if operation.began > first_end:
                break
            if not done >> position & 1:
                found.append(position)
                first_end = min(first_end, operation.ended)
        answered = [p for p in found if self._operations[p].began <= first_end]
        answered.sort(key=lambda p: self._operations[p].ended)
        still_open = [
            p
            for p in range(self._closed, len(self._operations))
            if not done >> p & 1 and self._operations[p].began <= first_end
        ]
        return answered + still_open

    def _explain(self, level: _Level[S]) -> str:
        """The longest order found, and what could not follow it."""
        lines = [f"{self._key}: {self._closed - level.left} of {self._closed} calls can be put in order,", "then from"]
        lines.append(f"  {level.state}")
        lines.append("none of these can follow:")
        for position in self._candidates(level.done, level.low):
            operation = self._operations[position]
            expected = self._specification.step(level.state, operation.call)[1]
            lines.append(f"  {operation} (would be {expected})")
        return "\n".join(lines)


class Register:
    """One value per key: ``("write", value)``, ``("read",)``, ``("swap", old, new)``.

    A write answers None, a read the value, a swap whether it took place. A deletion is a write of None.
    """

    def initial(self, key: Hashable) -> Any:
        """Nothing."""
        return None

    def step(self, state: Any, call: Any) -> tuple[Any, Any]:
        """See ``Specification``."""
        match call:
            case ("write", value):
                return value, None
            case ("read",):
                return state, state
            case ("swap", old, new):
                return (new, True) if state == old else (state, False)
        raise ValueError(f"no call of a register: {call!r}")

    def agrees(self, expected: Any, result: Any) -> bool:
        """See ``Specification``."""
        return bool(expected == result)


class Recorder:
    """Collects a history as it happens. ``now`` is one clock for all clients."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._operations: list[Operation] = []
        self._begun: dict[int, tuple[str, Hashable, Any, float]] = {}
        self._next = 0

    def begin(self, client: str, key: Hashable, call: Any) -> int:
        """A call begins; the number is for :meth:`end`, :meth:`leave_open` or :meth:`forget`."""
        number = self._next
        self._next += 1
        self._begun[number] = (client, key, call, self._now())
        return number

    def end(self, number: int, result: Any) -> None:
        """It was answered."""
        client, key, call, began = self._begun.pop(number)
        self._operations.append(Operation(client, key, call, result, began, self._now()))

    def forget(self, number: int) -> None:
        """It certainly had no effect."""
        del self._begun[number]

    def leave_open(self, number: int) -> None:
        """Nobody knows whether it had, or will have, an effect."""
        client, key, call, began = self._begun.pop(number)
        self._operations.append(Operation(client, key, call, UNKNOWN, began))

    def history(self) -> list[Operation]:
        """Everything so far; what is still under way is open."""
        waiting = [Operation(*begun[:3], UNKNOWN, begun[3]) for begun in self._begun.values()]
        return [*self._operations, *waiting]


__all__ = [
    "STEPS_MAX",
    "UNKNOWN",
    "Operation",
    "Recorder",
    "Register",
    "Specification",
    "Verdict",
    "by_key",
    "check",
]
