"""What a database must hold: a model of every operation, and a check of the engine against it.

The oracle knows only what was asked and what was acknowledged. Operations stand in one order, so what the engine may
hold is the state after the first k of them, where k covers every operation that was promised and none that had
not begun; an operation whose outcome was reported as unknown may be missing among them. An operation is there whole
or not at all, because there is no state in between.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.ids import IdColumn, PointId
from omendb_engine.folder import Folder
from omendb_engine.query.answer import Picked
from omendb_engine.query.reads import Reader

_PAGE = 7


class Violation(AssertionError):
    """The engine broke a promise."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point's content: ``vectors`` by field as tuples (three decimals), ``payload`` as canonical JSON."""

    vectors: tuple[tuple[str, tuple[float, ...]], ...]
    payload: str

    @staticmethod
    def of(vectors: Mapping[str, Sequence[float] | npt.NDArray[Any]], payload: Mapping[str, Any]) -> Point:
        """The content of one point."""
        rounded = {name: tuple(np.round(np.asarray(v, np.float64), 3).tolist()) for name, v in vectors.items()}
        return Point(tuple(sorted(rounded.items())), json.dumps(payload, sort_keys=True))

    def updated(
        self, vectors: Mapping[str, npt.NDArray[Any]], payload: Mapping[str, Any], unset: Sequence[str]
    ) -> Point:
        """The content after a partial update."""
        fields: dict[str, Any] = {**dict(self.vectors), **vectors}
        values = {k: v for k, v in {**json.loads(self.payload), **payload}.items() if k not in unset}
        return Point.of(fields, values)


Collection = Mapping[PointId, Point]
State = Mapping[str, Collection]
"""Collections by name, points by id. Never changed in place."""


Effect = Callable[[State], State]


@dataclass(slots=True)
class Step:
    """One operation: what it does to the state, where on the disk's log it began, and from where on it must last.

    ``acked``: it was acknowledged, so it outlives the process. ``promised``: the position from which on it outlives a
    power cut; None while nothing was promised (not acknowledged, or with a durability that promises nothing yet).
    ``refused``: the position at which the caller was told that it did not happen; until then it is in flight.
    """

    label: str
    effect: Effect
    begun: int
    acked: bool = False
    promised: int | None = None
    refused: int | None = None

    def may_be_there(self, at: int | None) -> bool:
        """Whether it may have taken effect after a power cut at ``at``, or now."""
        if at is None:
            return self.refused is None
        return self.begun < at and (self.refused is None or at < self.refused)

    def must_be_there(self, at: int | None) -> bool:
        """Whether it was promised before a power cut at ``at``, or acknowledged."""
        return self.acked if at is None else self.promised is not None and self.promised <= at


@dataclass(slots=True)
class History:
    """Every operation that took effect or may have, in order."""

    steps: list[Step] = field(default_factory=list)

    @property
    def newest(self) -> State:
        """The state after everything that was acknowledged."""
        return self.after([n for n, step in enumerate(self.steps) if step.acked])

    def after(self, applied: Iterable[int]) -> State:
        """The state after just these operations."""
        state: State = {}
        for n in applied:
            state = self.steps[n].effect(state)
        return state

    def candidates(self, at: int | None) -> Iterator[tuple[int, ...]]:
        """Every allowed choice of operations that took effect, the most of them first.

        ``at``: the position of a power cut; None: now, with no power cut.
        """
        begun = [n for n, step in enumerate(self.steps) if step.may_be_there(at)]
        fewest = max((count for count, n in enumerate(begun, 1) if self.steps[n].must_be_there(at)), default=0)
        for count in range(len(begun), fewest - 1, -1):
            unknown = [n for n in begun[:count] if not self.steps[n].acked]
            for left_out in range(len(unknown) + 1):
                for choice in combinations(unknown, left_out):
                    yield tuple(n for n in begun[:count] if n not in choice)

    def promise_all(self, position: int) -> None:
        """Everything acknowledged so far is on stable storage from ``position`` on."""
        for step in self.steps:
            if step.acked and step.promised is None:
                step.promised = position

    def settle(self, applied: Sequence[int], position: int) -> None:
        """Recovery has shown which operations took effect: those must last, and no other may come."""
        for n, step in enumerate(self.steps):
            if n in applied:
                step.acked = True
            elif step.refused is None:
                step.refused = position
        self.promise_all(position)


def match(history: History, seen: State, at: int | None = None) -> tuple[int, ...]:
    """Which operations took effect; Violation when no allowed choice of them explains what was seen."""
    best: tuple[int, str] | None = None
    for applied in history.candidates(at):
        state = history.after(applied)
        if state == seen:
            return applied
        distance = _distance(state, seen)
        if best is None or distance < best[0]:
            last = history.steps[applied[-1]].label if applied else "nothing"
            best = distance, f"after {len(applied)} ({last}): {difference(state, seen)}"
    allowed = list(map(len, history.candidates(at)))
    nearest = best[1] if best is not None else "nothing"
    raise Violation(
        f"no {min(allowed)}..{max(allowed)} of {len(history.steps)} operations explain what is there; nearest {nearest}"
    )


def _distance(expected: State, seen: State) -> int:
    count = len(set(expected) ^ set(seen)) * 1000
    for name in set(expected) & set(seen):
        count += len(set(expected[name].items()) ^ set(seen[name].items()))
    return count


def difference(expected: State, seen: State) -> str:
    """In words, what is missing, different or not supposed to be there."""
    said: list[str] = []
    for name in sorted(set(expected) | set(seen)):
        if name not in seen or name not in expected:
            said.append(f"collection {name!r} {'missing' if name not in seen else 'not expected'}")
            continue
        want, have = expected[name], seen[name]
        missing = [i for i in want if i not in have]
        phantom = [i for i in have if i not in want]
        changed = [i for i in want if i in have and want[i] != have[i]]
        for kind, ids in (("missing", missing), ("phantom", phantom), ("different", changed)):
            if ids:
                said.append(f"{name!r}: {len(ids)} {kind}, such as {ids[:3]}")
        if changed:
            said.append(f"{want[changed[0]]} != {have[changed[0]]}")
    return "; ".join(said) or "nothing"


def observe(folder: Folder, known: Sequence[PointId] = ()) -> State:
    """All that a database holds, read in every way there is; Violation when two ways disagree.

    ``known``: every id that was ever used, to be asked for by name.
    """
    return {name: observe_collection(folder.replica(name), known) for name in folder.names()}


def observe_collection(reader: Reader, known: Sequence[PointId] = ()) -> Collection:
    """The points of one collection."""
    page = reader.scroll(None, 100_000)
    seen = _points(page.picked, reader)
    if len(seen) != len(page.picked):
        raise Violation(f"scroll returned an id twice: {sorted(map(str, page.picked.ids().to_list()))}")
    _agree("count", reader.count(), len(seen))
    _check_pages(reader, set(seen))
    _check_get(reader, seen, known)
    _check_search(reader, seen)
    return seen


def _points(picked: Picked, reader: Reader) -> dict[PointId, Point]:
    vectors = {f.name: picked.vectors(f.name, reader.schema) for f in reader.schema.vectors}
    payloads = picked.payload() if len(picked) else []
    ids = picked.ids().to_list()
    return {
        point_id: Point.of({name: rows[at] for name, rows in vectors.items()}, payloads[at])
        for at, point_id in enumerate(ids)
    }


def _agree(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise Violation(f"{what} says {got}, scroll says {expected}")


def _check_pages(reader: Reader, expected: set[PointId]) -> None:
    found: list[PointId] = []
    cursor = None
    while True:
        page = reader.scroll(cursor, _PAGE)
        found += page.picked.ids().to_list()
        cursor = page.cursor
        if cursor is None:
            break
    if len(found) != len(expected) or set(found) != expected:
        raise Violation(f"scrolling by pages gave {len(found)} points, at once {len(expected)}")


def _check_get(reader: Reader, seen: Mapping[PointId, Point], known: Sequence[PointId]) -> None:
    asked = sorted({*seen, *known}, key=str)
    if not asked:
        return
    picked, _ = reader.get(IdColumn.of(asked))
    found = _points(picked, reader)
    if found != seen:
        raise Violation(f"get and scroll disagree: {difference({'get': found}, {'get': seen})}")


def _check_search(reader: Reader, seen: Mapping[PointId, Point]) -> None:
    for spec in reader.schema.vectors:
        query = np.full((1, spec.dimension), 0.5, np.float32)
        k = min(len(seen) + 3, 16_384)
        exact = reader.search(query, k, field=spec.name, exact=True).picked(0).ids().to_list()
        if len(exact) != len(seen) or set(exact) != set(seen):
            raise Violation(f"an exact search for all found {len(exact)} hits of {len(seen)} points")
        found = reader.search(query, k, field=spec.name).picked(0).ids().to_list()
        if len(set(found)) != len(found) or not set(found) <= set(seen):
            raise Violation("a search returned a dead point, or one twice")


__all__ = [
    "Collection",
    "Effect",
    "History",
    "Point",
    "State",
    "Step",
    "Violation",
    "difference",
    "match",
    "observe",
    "observe_collection",
]
