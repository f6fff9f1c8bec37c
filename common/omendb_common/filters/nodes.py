"""The nodes of a filter tree; immutable and checked when made."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from omendb_common.errors import InvalidArgumentError
from omendb_common.filters.geo import Box, Circle, Polygon, Region, Span
from omendb_common.payload.names import check_path

Value = bool | int | float | str | dt.datetime
CompareOp = Literal["eq", "ne", "gt", "gte", "lt", "lte"]
COMPARE_OPS: tuple[CompareOp, ...] = ("eq", "ne", "gt", "gte", "lt", "lte")

# Limits. Each is tested at L and at L+1.
FILTER_DEPTH_MAX = 32
FILTER_NODES_MAX = 1024
IN_VALUES_MAX = 65_536

# Within these, every integer has a nearest float: comparisons stay exact and cannot overflow.
_INT_BITS_MAX = 1023
_COMBINE = "combine filters with F.AND, F.OR, F.NOT or with &, |, ~"


class Filter:
    """A condition on payloads. Combine with ``&``, ``|`` and ``~``; it has no truth value of its own.

    ``_key``: what ``canonical_key`` found, once it was asked.
    """

    __slots__ = ("_key",)

    _key: str

    def __bool__(self) -> bool:
        raise InvalidArgumentError("a filter is neither true nor false", field="filters", mend=_COMBINE)

    def __iter__(self) -> Iterator[Any]:
        raise InvalidArgumentError("a filter cannot be iterated", field="filters", mend=_COMBINE)

    def __and__(self, other: Filter) -> Filter:
        return And((*_terms(self, And), *_terms(_operand(other), And)))

    def __or__(self, other: Filter) -> Filter:
        return Or((*_terms(self, Or), *_terms(_operand(other), Or)))

    def __invert__(self) -> Filter:
        return Not(self)


def _operand(other: object) -> Filter:
    if not isinstance(other, Filter):
        raise InvalidArgumentError(f"got a {type(other).__name__}", field="filters", bound="a filter", mend=_COMBINE)
    return other


def _terms(node: Filter, kind: type[And] | type[Or]) -> tuple[Filter, ...]:
    # a & b & c is one flat node, so that long chains stay within the depth limit.
    return node.children if isinstance(node, kind) else (node,)


@dataclass(frozen=True, slots=True)
class MatchAll(Filter):
    """Every point."""


@dataclass(frozen=True, slots=True)
class Compare(Filter):
    """The field compared with a value; ``ne`` is the negation of ``eq``."""

    path: str
    op: CompareOp
    value: Value

    def __post_init__(self) -> None:
        _check_field(self.path)
        if self.op not in COMPARE_OPS:
            raise InvalidArgumentError(
                f"unknown comparison {self.op!r}", field=self.path, bound=f"one of {COMPARE_OPS}"
            )
        object.__setattr__(self, "value", as_value(self.path, self.value))


@dataclass(frozen=True, slots=True)
class In(Filter):
    """The field equals one of the values; with ``negate``, it equals none of them."""

    path: str
    values: tuple[Value, ...]
    negate: bool = False

    def __post_init__(self) -> None:
        _check_field(self.path)
        if len(self.values) > IN_VALUES_MAX:
            raise InvalidArgumentError(
                f"got {len(self.values)} values", field=self.path, bound=f"at most {IN_VALUES_MAX} values"
            )
        object.__setattr__(self, "values", tuple(as_value(self.path, value) for value in self.values))


@dataclass(frozen=True, slots=True)
class Exists(Filter):
    """The field has a value, or a field below it has."""

    path: str

    def __post_init__(self) -> None:
        _check_field(self.path)


@dataclass(frozen=True, slots=True)
class IsNull(Filter):
    """The negation of :class:`Exists`."""

    path: str

    def __post_init__(self) -> None:
        _check_field(self.path)


@dataclass(frozen=True, slots=True)
class Contains(Filter):
    """The list has the element, or the string has the substring."""

    path: str
    value: Value

    def __post_init__(self) -> None:
        _check_field(self.path)
        object.__setattr__(self, "value", as_value(self.path, self.value))


@dataclass(frozen=True, slots=True)
class StartsWith(Filter):
    """The string, or an element of the list, begins with the prefix."""

    path: str
    prefix: str

    def __post_init__(self) -> None:
        _check_field(self.path)
        if not isinstance(self.prefix, str):
            raise _bad_value(self.path, self.prefix, "a string prefix")
        object.__setattr__(self, "prefix", as_value(self.path, self.prefix))


@dataclass(frozen=True, slots=True)
class Geo(Filter):
    """The field is a place within a region: an object whose ``lat`` and ``lon`` are numbers."""

    path: str
    region: Region

    def __post_init__(self) -> None:
        _check_field(self.path)
        check_path(f"{self.path}.lat")
        if not isinstance(self.region, (Box, Circle, Polygon)):
            raise InvalidArgumentError(
                f"got a {type(self.region).__name__}", field=self.path, bound="a box, a circle or a polygon"
            )

    def around(self) -> Filter:
        """What every place in the region passes: comparisons, which indexes and statistics know."""
        found = [self._within(span) for span in self.region.spans()]
        return found[0] if len(found) == 1 else Or(tuple(found))

    def _within(self, span: Span) -> Filter:
        lat, lon = f"{self.path}.lat", f"{self.path}.lon"
        return And(
            (
                Compare(lat, "gte", span.south),
                Compare(lat, "lte", span.north),
                Compare(lon, "gte", span.west),
                Compare(lon, "lte", span.east),
            )
        )


@dataclass(frozen=True, slots=True)
class And(Filter):
    """All of the children; at least one."""

    children: tuple[Filter, ...]

    def __post_init__(self) -> None:
        _check_children(self.children)


@dataclass(frozen=True, slots=True)
class Or(Filter):
    """Any of the children; at least one."""

    children: tuple[Filter, ...]

    def __post_init__(self) -> None:
        _check_children(self.children)


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """The points that the child does not match."""

    child: Filter

    def __post_init__(self) -> None:
        _operand(self.child)


def check_filter(node: Filter) -> Filter:
    """Return ``node`` if it is within the limits on depth and nodes, else raise InvalidArgumentError."""
    level: list[Filter] = [_operand(node)]
    nodes = depth = 0
    while level:
        nodes += len(level)
        depth += 1
        if depth > FILTER_DEPTH_MAX:
            raise InvalidArgumentError(
                f"nested {depth} levels deep", field="filters", bound=f"at most {FILTER_DEPTH_MAX} levels"
            )
        if nodes > FILTER_NODES_MAX:
            raise InvalidArgumentError(
                f"at least {nodes} conditions",
                field="filters",
                bound=f"at most {FILTER_NODES_MAX} nodes",
                mend="use 'in' for many values of one field",
            )
        level = [child for parent in level for child in _children(parent)]
    return node


def _children(node: Filter) -> tuple[Filter, ...]:
    if isinstance(node, (And, Or)):
        return node.children
    return (node.child,) if isinstance(node, Not) else ()


def _check_children(children: tuple[Filter, ...]) -> None:
    # An empty AND would match every point: a deletion by a list of conditions that came out empty, all of them.
    if not children:
        raise InvalidArgumentError("no conditions to combine", field="filters", bound="at least one")
    for child in children:
        _operand(child)


def _check_field(path: object) -> None:
    if not isinstance(path, str):
        raise InvalidArgumentError(f"the field is a {type(path).__name__}", field="filters", bound="a field name")
    if path.startswith("$"):
        raise InvalidArgumentError(
            f"{path!r} is no field", field="filters", bound="a field name that does not begin with '$'"
        )
    check_path(path)


def as_value(path: str, value: Any) -> Value:
    """``value`` as a plain Python scalar; dates become midnight UTC, UUIDs their text.

    Raises:
        InvalidArgumentError: None, a container, a number that is not finite or of more than 1,023 bits, or
            another type.
    """
    if isinstance(value, np.generic) and not isinstance(value, str):
        value = value.astype("M8[us]").item() if isinstance(value, np.datetime64) else value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(path, value)
    if isinstance(value, int):
        if value.bit_length() > _INT_BITS_MAX:
            raise _bad_value(path, value, f"at most {_INT_BITS_MAX} bits")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _bad_value(path, value, "a finite number")
        return float(value)
    if isinstance(value, dt.date):
        return _utc(path, value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if value is None:
        raise _bad_value(path, value, "a value", "use is_null or exists")
    if isinstance(value, (list, tuple, set, frozenset)):
        raise _bad_value(path, value, "one value", "use in for alternatives, contains for an element")
    raise _bad_value(path, value, "bool, int, float, str or datetime")


def _text(path: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"not UTF-8: {error}", field=path, bound="valid UTF-8 text") from None
    return str.__str__(value)


def _utc(path: str, value: dt.date) -> dt.datetime:
    try:
        if not isinstance(value, dt.datetime):
            return dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)
        moment = value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)
        # Made anew, so that a subclass (a pandas Timestamp) leaves its nanoseconds and its arithmetic behind.
        return dt.datetime.combine(dt.date(moment.year, moment.month, moment.day), moment.timetz())
    except (OverflowError, ValueError, TypeError):
        raise _bad_value(path, value, "a time in the years 1..9999") from None


def _bad_value(path: str, value: object, bound: str, mend: str | None = None) -> InvalidArgumentError:
    shown = repr(value) if not isinstance(value, int) else f"an integer of {value.bit_length()} bits"
    return InvalidArgumentError(
        f"cannot compare with {shown if len(shown) <= 60 else shown[:57] + '...'}", field=path, bound=bound, mend=mend
    )


__all__ = [
    "COMPARE_OPS",
    "FILTER_DEPTH_MAX",
    "FILTER_NODES_MAX",
    "IN_VALUES_MAX",
    "And",
    "Compare",
    "CompareOp",
    "Contains",
    "Exists",
    "Filter",
    "Geo",
    "In",
    "IsNull",
    "MatchAll",
    "Not",
    "Or",
    "StartsWith",
    "Value",
    "as_value",
    "check_filter",
]
