"""What a filter asks of the values of one kind: intervals, sets of values, substrings.

A leaf of a filter is turned, once for each kind of column, into a condition in that kind's own domain
(int64, float64, microseconds, UTF-8 text), where comparing is exact and needs no conversion per row.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from omendb_common.filters import Compare, Contains, In, StartsWith, Value
from omendb_common.payload import Kind

_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)

Leaf = Compare | In | Contains | StartsWith

ELEMENT_KINDS: dict[Kind, Kind] = {"li": "i", "lf": "f", "ls": "s", "lb": "b", "lt": "t"}


@dataclass(frozen=True, slots=True)
class Interval:
    """Values from ``low`` to ``high``, None where unbounded; only text needs the open ends."""

    low: Any = None
    high: Any = None
    low_open: bool = False
    high_open: bool = False

    @property
    def is_point(self) -> bool:
        """Whether exactly one value is inside."""
        return self.low is not None and self.low == self.high

    def accepts(self, value: Any) -> bool:
        """Whether ``value``, of the interval's domain, is inside."""
        if self.low is not None and (value < self.low or (self.low_open and value == self.low)):
            return False
        return self.high is None or not (value > self.high or (self.high_open and value == self.high))

    def meet(self, other: Interval) -> Interval | None:
        """The values in both; None when there are none."""
        low, low_open = self.low, self.low_open
        if low is None or (other.low is not None and (other.low, other.low_open) > (low, low_open)):
            low, low_open = other.low, other.low_open
        high, high_open = self.high, self.high_open
        if high is None or (other.high is not None and (other.high, not other.high_open) < (high, not high_open)):
            high, high_open = other.high, other.high_open
        if low is not None and high is not None and (low > high or (low == high and (low_open or high_open))):
            return None
        return Interval(low, high, low_open, high_open)


@dataclass(frozen=True, slots=True)
class Members:
    """One of ``values``, which are sorted, without doubles, and at least one."""

    values: tuple[Any, ...]

    def accepts(self, value: Any) -> bool:
        """Whether ``value`` is among them."""
        return value in self.values


@dataclass(frozen=True, slots=True)
class Substring:
    """Text with ``text`` in it."""

    text: str

    def accepts(self, value: Any) -> bool:
        """Whether ``value`` has it."""
        return self.text in value


Condition = Interval | Members | Substring


def condition_for(leaf: Leaf, kind: Kind) -> Condition | None:
    """What ``leaf`` asks of a value of ``kind`` (for a list: of one element); None when nothing can pass.

    ``ne`` and a negated ``in`` give the condition of their positive form: the caller negates the rows.
    """
    element = ELEMENT_KINDS.get(kind, kind)
    if isinstance(leaf, In):
        return _members(leaf.values, element)
    if isinstance(leaf, Compare):
        return _interval("eq" if leaf.op == "ne" else leaf.op, leaf.value, element)
    if isinstance(leaf, StartsWith):
        return _prefix(leaf.prefix) if element == "s" else None
    if kind == "s":
        return Substring(leaf.value) if isinstance(leaf.value, str) else None
    return _interval("eq", leaf.value, element) if kind in ELEMENT_KINDS else None


def meet_all(leaves: Iterable[Leaf], kind: Kind) -> Condition | None:
    """The condition that one value of ``kind`` passes all of ``leaves``, which must all give intervals."""
    met: Interval | None = Interval()
    for leaf in leaves:
        condition = condition_for(leaf, kind)
        if met is None or not isinstance(condition, Interval):
            return None
        met = met.meet(condition)
    return met


def _interval(op: str, value: Value, kind: Kind) -> Interval | None:
    if isinstance(value, bool):
        return _whole(op, int(value), 0, 1) if kind == "b" else None
    if isinstance(value, (int, float)):
        if kind == "i":
            return _int_interval(op, value)
        return _float_interval(op, value) if kind == "f" else None
    if kind == "t":
        micros = _micros(value)
        return None if micros is None else _whole(op, micros, _INT_MIN, _INT_MAX)
    return _text_interval(op, value) if kind == "s" and isinstance(value, str) else None


def _micros(value: Value) -> int | None:
    """Microseconds since 1970 of a datetime or of ISO 8601 text; None for anything else."""
    if isinstance(value, str):
        try:
            moment = dt.datetime.fromisoformat(value)
            moment = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
        except (ValueError, OverflowError):
            return None
    elif isinstance(value, dt.datetime):
        moment = value
    else:
        return None
    return (moment - _EPOCH) // _MICROSECOND


def _whole(op: str, value: int, low: int, high: int) -> Interval | None:
    """The interval of integers in low..high that compare so with ``value``."""
    if op == "gt":
        low = max(low, value + 1)
    elif op == "gte":
        low = max(low, value)
    elif op == "lt":
        high = min(high, value - 1)
    elif op == "lte":
        high = min(high, value)
    else:
        low, high = max(low, value), min(high, value)
    return Interval(low, high) if low <= high else None


def _int_interval(op: str, value: float) -> Interval | None:
    if isinstance(value, int) or value.is_integer():
        return _whole(op, int(value), _INT_MIN, _INT_MAX)
    # Between two integers: greater than 2.5 is at least 3, at most 2.5 is at most 2.
    if op in ("gt", "gte"):
        return _whole("gte", math.ceil(value), _INT_MIN, _INT_MAX)
    return _whole("lte", math.floor(value), _INT_MIN, _INT_MAX) if op in ("lt", "lte") else None


def _float_interval(op: str, value: float) -> Interval | None:
    near = float(value)
    # An integer above 2**53 may lie between two floats; Python compares int with float exactly.
    if near == value:
        below, above = math.nextafter(near, -math.inf), math.nextafter(near, math.inf)
        if op in ("gt", "lt"):
            return Interval(low=above) if op == "gt" else Interval(high=below)
        if op == "eq":
            return Interval(near, near)
        return Interval(low=near) if op == "gte" else Interval(high=near)
    if op in ("gt", "gte"):
        return Interval(low=near if near > value else math.nextafter(near, math.inf))
    return Interval(high=near if near < value else math.nextafter(near, -math.inf)) if op in ("lt", "lte") else None


def _text_interval(op: str, value: str) -> Interval:
    if op in ("gt", "gte"):
        return Interval(low=value, low_open=op == "gt")
    if op in ("lt", "lte"):
        return Interval(high=value, high_open=op == "lt")
    return Interval(value, value)


def _prefix(prefix: str) -> Interval:
    """Text that begins with ``prefix``: from it to the first text after all of those."""
    for end in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[end])
        if code < 0x10FFFF:
            # No text holds a surrogate: the code point after U+D7FF is U+E000.
            following = 0xE000 if code == 0xD7FF else code + 1
            return Interval(prefix, prefix[:end] + chr(following), high_open=True)
    return Interval(low=prefix)


def _members(values: Iterable[Value], kind: Kind) -> Condition | None:
    points = _points(values, kind)
    if len(points) <= 1:
        point = points.pop() if points else None
        return None if point is None else Interval(point, point)
    return Members(tuple(sorted(points)))


def _points(values: Iterable[Value], kind: Kind) -> set[Any]:
    """The values that a value of ``kind`` can equal, in its domain; no object per value, for there may be many."""
    if kind == "s":
        return {v for v in values if isinstance(v, str)}
    if kind == "b":
        return {int(v) for v in values if isinstance(v, bool)}
    if kind == "t":
        return {micros for micros in map(_micros, values) if micros is not None}
    numbers = (v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool))
    if kind == "f":
        return {float(v) for v in numbers if float(v) == v}
    return {int(v) for v in numbers if _INT_MIN <= v <= _INT_MAX and v == int(v)}


def numpy_type(kind: Kind) -> type[np.generic]:
    """The NumPy type of the values of a numeric or time kind."""
    return np.float64 if kind in ("f", "lf") else np.int64


__all__ = [
    "ELEMENT_KINDS",
    "Condition",
    "Interval",
    "Leaf",
    "Members",
    "Substring",
    "condition_for",
    "meet_all",
    "numpy_type",
]
