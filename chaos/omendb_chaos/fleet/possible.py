"""What a point may be, given what its only writer was told: a set of states that acknowledgements narrow down.

An acknowledged write leaves one state of each; one of unknown outcome adds what it would have left to what was there;
one that certainly did not happen changes nothing.
"""

from __future__ import annotations

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
    """The possible states of one point. ``settled``: nothing of unknown outcome came after the last acknowledgement."""

    states: set[State] = field(default_factory=lambda: {None})
    settled: bool = True

    def note(self, write: Write, told: Told) -> None:
        """A write was answered so."""
        after = {write.effect(state) for state in self.states}
        if told == "acknowledged":
            # An update that was acknowledged found the point.
            self.states = {s for s in after if s is not None} if write.kind == "update" else after
            self.settled = True
        elif told == "unknown":
            self.states |= after
            self.settled = False


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
