"""What a point may be, given what its only writer was told and what readers saw of it.

An acknowledged write happened; one that was refused did not; one of unknown outcome may have happened, or may yet:
whichever replica has it hands it on. Writes take effect in the order of their stamps, which is the writer's order, so
what a point may be is what the acknowledged writes make of it together with any of the unknown ones. A reader at the
majority shows that some of those happened, and what has been shown stays; it does not show that the others never will.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

DIMENSION = 8
Told = Literal["acknowledged", "unknown", "none"]


class Point(NamedTuple):
    """A stored point: what the last upsert gave it, and what an update after that put into its second field."""

    value: int
    extra: int | None = None


State = Point | None


class Write(NamedTuple):
    """One write: ``upsert`` with a value, ``update`` with an extra, or ``delete``."""

    kind: Literal["upsert", "update", "delete"]
    number: int = 0

    def effect(self, state: State) -> State:
        """What it leaves of a state. An update of nothing leaves nothing."""
        if self.kind == "delete":
            return None
        if self.kind == "upsert":
            return Point(self.number)
        return None if state is None else Point(state.value, self.number)


@dataclass(slots=True)
class Possible:
    """The possible states of one point."""

    _base: State = None
    _writes: list[tuple[Write, Told]] = field(default_factory=list)
    # Which unknown writes have happened for certain: one of these sets of their places in ``_writes``.
    _happened: set[frozenset[int]] = field(default_factory=lambda: {frozenset()})

    @property
    def settled(self) -> bool:
        """Whether there is only one state that it can be in."""
        return all(told == "acknowledged" for _, told in self._writes)

    @property
    def whole(self) -> bool:
        """Whether its newest version came in one piece: an update leaves the rest as each replica has it (P8)."""
        return all(write.kind != "update" for write, _ in self._writes)

    @property
    def states(self) -> set[State]:
        """What a reader at the majority may see next."""
        return {self._after(chosen) for chosen in self._choices()}

    def note(self, write: Write, told: Told) -> None:
        """A write was answered so."""
        if told == "none":
            return
        self._writes.append((write, told))
        if told == "unknown":
            return
        if write.kind == "update":
            # It found the point, and that is a state that was shown.
            self._keep([c for c in self._choices() if self._after(c) is not None])
        else:
            # Whatever was before it has an older stamp.
            self._base, self._writes, self._happened = write.effect(None), [], {frozenset()}

    def show(self, state: State) -> bool:
        """A reader at the majority saw this state; whether it may have."""
        fitting = [chosen for chosen in self._choices() if self._after(chosen) == state]
        self._keep(fitting)
        return bool(fitting)

    def _keep(self, choices: list[frozenset[int]]) -> None:
        """These are the unknown writes that may have happened by now; others may follow."""
        self._happened = {c for c in choices if not any(other < c for other in choices)}

    def _choices(self) -> list[frozenset[int]]:
        """Every set of unknown writes that may have happened when a reader comes."""
        unknown = [at for at, (_, told) in enumerate(self._writes) if told == "unknown"]
        every = (frozenset(c) for n in range(len(unknown) + 1) for c in itertools.combinations(unknown, n))
        return [chosen for chosen in every if any(sure <= chosen for sure in self._happened)]

    def _after(self, chosen: frozenset[int]) -> State:
        state = self._base
        for at, (write, told) in enumerate(self._writes):
            if told == "acknowledged" or at in chosen:
                state = write.effect(state)
        return state


def vector_of(point_id: int, value: int) -> npt.NDArray[np.float32]:
    """The vector of a point: it follows from id and value, so that a torn one is seen."""
    return np.random.default_rng((point_id, value)).random(DIMENSION, np.float32)


def payload_of(point: Point) -> dict[str, Any]:
    """The payload of a point."""
    return {"value": point.value} if point.extra is None else {"value": point.value, "extra": point.extra}


def seen(point_id: int, metadata: Mapping[str, Any], vector: npt.NDArray[Any]) -> Point | str:
    """The point that a reader found, or what is wrong with it."""
    value, extra = metadata.get("value"), metadata.get("extra")
    if not isinstance(value, int) or set(metadata) - {"value", "extra"}:
        return f"payload {metadata} was never written"
    if not np.array_equal(vector, vector_of(point_id, value)):
        return f"vector and payload {metadata} are not of one write"
    return Point(value, extra)


def shown(states: Iterable[State]) -> str:
    """Possible states in words."""
    return " or ".join(sorted("absent" if s is None else f"{s.value}/{s.extra}" for s in states))


__all__ = ["DIMENSION", "Point", "Possible", "State", "Told", "Write", "payload_of", "seen", "shown", "vector_of"]
