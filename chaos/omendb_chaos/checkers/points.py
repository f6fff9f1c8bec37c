"""A point as a sequential object: a value that writes replace, and an extra that updates put over what there is."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from omendb_chaos.checkers.linearizability import Operation

State = tuple[int, int] | None


class PointOfTwo:
    """``("write", value or None)`` replaces both parts, ``("extra", value)`` changes the second of a point that exists.

    ``("read",)`` answers what there is, ``("exists",)`` whether there is anything; ``("swap", state, value or None)``
    writes where there is just that, and says whether.
    """

    def initial(self, key: Hashable) -> State:
        """No point."""
        return None

    def step(self, state: State, call: Any) -> tuple[State, Any]:
        """See ``Specification``."""
        if call[0] == "read":
            return state, state
        if call[0] == "exists":
            return state, state is not None
        if call[0] == "write":
            return (None if call[1] is None else (call[1], 0)), None
        if call[0] == "swap":
            written = None if call[2] is None else (call[2], 0)
            return (written, True) if state == call[1] else (state, False)
        return (None if state is None else (state[0], call[1])), None

    def agrees(self, expected: Any, result: Any) -> bool:
        """See ``Specification``."""
        return bool(expected == result)


class FieldOfPoint:
    """One part of a point alone: ``("write", value)`` sets it, ``("put", value)`` too where the point exists."""

    def initial(self, key: Hashable) -> int | None:
        """No point."""
        return None

    def step(self, state: int | None, call: Any) -> tuple[int | None, Any]:
        """See ``Specification``."""
        if call[0] == "read":
            return state, state
        return (None if call[0] == "put" and state is None else call[1]), None

    def agrees(self, expected: Any, result: Any) -> bool:
        """See ``Specification``."""
        return bool(expected == result)


def field_by_field(history: Iterable[Operation]) -> Iterator[Operation]:
    """A history of :class:`PointOfTwo` as one of the two fields of every point, each with a key of its own.

    A write of unknown outcome that few replicas have may land after an update whose stamp is greater: then its value
    is seen under the extra of that update, which was made over another value. Each field is in order all the same.
    """
    for operation in history:
        kind, result = operation.call[0], operation.result
        if kind == "exists":
            continue  # of both parts together, too
        value, extra = (operation.key, "value"), (operation.key, "extra")
        if kind == "swap":
            if result is False:
                continue  # what it says is about both parts together
            kind, operation = "write", replace(operation, call=("write", operation.call[2]))
            operation = operation if operation.is_open else replace(operation, result=None)
        if kind == "extra":
            yield replace(operation, key=extra, call=("put", operation.call[1]))
        elif kind == "write":
            written = operation.call[1]
            yield replace(operation, key=value)
            yield replace(operation, key=extra, call=("write", None if written is None else 0))
        else:
            yield replace(operation, key=value, result=None if result is None else result[0])
            yield replace(operation, key=extra, result=None if result is None else result[1])


def never_older(
    writes: Sequence[Operation], seen: int | None, called: float, replaced_by: Sequence[Operation] | None = None
) -> bool:
    """Whether ``seen`` is no older than what was acknowledged before ``called``: what a search at majority promises.

    ``writes``: the ``("write", value)`` operations on one point. ``replaced_by``: those that must have been seen, when
    it is not all that were acknowledged by then.
    """
    first = Operation("", None, ("write", None), None, -2.0, -1.0)
    done = [w for w in writes if w.ended < called] if replaced_by is None else replaced_by
    return any(w.call[1] == seen and not any(other.began > w.ended for other in done) for w in [first, *writes])


__all__ = ["FieldOfPoint", "PointOfTwo", "State", "field_by_field", "never_older"]
