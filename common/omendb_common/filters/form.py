"""Filters as JSON, and the key under which equal filters share a cached result."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from omendb_common.errors import InvalidArgumentError
from omendb_common.filters.geo import box_of, circle_of, polygon_of
from omendb_common.filters.nodes import (
    FILTER_DEPTH_MAX,
    And,
    Compare,
    CompareOp,
    Contains,
    Exists,
    Filter,
    Geo,
    In,
    IsNull,
    MatchAll,
    Not,
    Or,
    StartsWith,
    Value,
    check_filter,
)

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_COMBINING = ("$and", "$or", "$not")
# Longer keys are hashed: a cache must not hold the text of 65,536 values.
_KEY_LENGTH_MAX = 512
_FLOAT_IS_INT_MAX = float(1 << 63)
# Small filters that were read are kept, since callers send few different ones again and again, and reading one takes
# a quarter as long as searching with it. They are forgotten all at once, at a few hundred KiB.
_KEPT_MAX, _KEPT_TEXT_MAX, _KEPT_ITEMS_MAX, _KEPT_DEPTH_MAX = 256, 512, 16, 4
_kept: dict[str, Filter] = {}
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def parse_filter(value: Filter | Mapping[str, Any] | None) -> Filter | None:
    """Read a filter: a tree made with ``FilterOp``, the JSON form, or None for no filter.

    ``{"price": {"$lte": 1000}, "category": "shoe"}`` holds where both do; a bare value means ``$eq`` and
    ``{}`` matches every point. A time is ``{"$date": "2024-01-01T00:00:00Z"}`` or a Python datetime.

    Raises:
        InvalidArgumentError: an unknown operator, a value of a wrong type, or a broken limit.
    """
    if value is None:
        return None
    if isinstance(value, Filter):
        return check_filter(value)
    if not _is_small(value, _KEPT_DEPTH_MAX):
        return check_filter(_parse_object(value, 1))
    # Exact types only, so that one text never stands for two filters; True, 1 and 1.0 differ in it.
    text = repr(value)
    found = _kept.get(text)
    if found is None:
        found = check_filter(_parse_object(value, 1))
        if len(_kept) >= _KEPT_MAX:
            _kept.clear()
        if len(text) <= _KEPT_TEXT_MAX:
            _kept[text] = found
    return found


def _is_small(value: Any, depth: int) -> bool:
    """Whether a filter is a few plain values in dicts and lists, as most are that are asked for again and again."""
    kind = type(value)
    if kind is str:
        return len(value) <= _KEPT_TEXT_MAX
    if kind is int:  # Python refuses to print the largest
        return bool(value.bit_length() <= 64)
    if kind is float or kind is bool or value is None:
        return True
    if not depth or (kind is not dict and kind is not list) or len(value) > _KEPT_ITEMS_MAX:
        return False
    if kind is dict:
        return all(type(key) is str and _is_small(child, depth - 1) for key, child in value.items())
    return all(_is_small(child, depth - 1) for child in value)


def _parse_object(value: Any, depth: int) -> Filter:
    if isinstance(value, Filter):
        return value
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(
            f"got a {type(value).__name__}", field="filters", bound="an object like {'field': value}"
        )
    if depth > FILTER_DEPTH_MAX:
        raise InvalidArgumentError(
            f"nested {depth} levels deep", field="filters", bound=f"at most {FILTER_DEPTH_MAX} levels"
        )
    terms = [_parse_term(key, child, depth) for key, child in value.items()]
    return _all(terms) if terms else MatchAll()


def _all(terms: list[Filter]) -> Filter:
    return terms[0] if len(terms) == 1 else And(tuple(terms))


def _parse_term(key: Any, value: Any, depth: int) -> Filter:
    if not isinstance(key, str):
        raise InvalidArgumentError(f"the key {key!r} is no string", field="filters", bound="field names")
    if key in ("$and", "$or"):
        if not isinstance(value, (list, tuple)):
            raise InvalidArgumentError(f"got a {type(value).__name__}", field=key, bound="a list of filters")
        children = tuple(_parse_object(child, depth + 1) for child in value)
        return And(children) if key == "$and" else Or(children)
    if key == "$not":
        return Not(_parse_object(value, depth + 1))
    if key.startswith("$"):
        raise _unknown(key, "filters", (*_COMBINING, "field names"))
    return _parse_field(key, value, depth)


def _parse_field(path: str, value: Any, depth: int) -> Filter:
    if not isinstance(value, Mapping) or "$date" in value:
        return equal_to(path, _parse_value(path, value))
    if depth > FILTER_DEPTH_MAX:
        raise InvalidArgumentError(
            f"nested {depth} levels deep", field="filters", bound=f"at most {FILTER_DEPTH_MAX} levels"
        )
    if not value:
        raise InvalidArgumentError("no operator", field=path, bound=f"one of {', '.join(FIELD_OPERATORS)}")
    terms: list[Filter] = []
    for operator, operand in value.items():
        if operator == "$not":
            terms.append(Not(_parse_field(path, operand, depth + 1)))
        elif operator in _OPERATORS:
            terms.append(_OPERATORS[operator](path, operand))
        else:
            raise _unknown(operator, path, FIELD_OPERATORS)
    return _all(terms)


def _unknown(operator: Any, field: str, allowed: Iterable[str]) -> InvalidArgumentError:
    mend = None
    if isinstance(operator, str) and not operator.startswith("$"):
        mend = f"to reach a nested field write '{field}.{operator}'"
    return InvalidArgumentError(
        f"unknown operator {operator!r}", field=field, bound=f"one of {', '.join(allowed)}", mend=mend
    )


def _parse_value(path: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    text = value.get("$date")
    if len(value) != 1 or not isinstance(text, str):
        raise InvalidArgumentError(f"got {value!r}", field=path, bound="a value or {'$date': 'ISO 8601 time'}")
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgumentError(f"{text!r} is no time", field=path, bound="an ISO 8601 time") from None


def equal_to(path: str, value: Any) -> Filter:
    """The field equals ``value``; None means that it is absent."""
    return IsNull(path) if value is None else Compare(path, "eq", value)


def differs_from(path: str, value: Any) -> Filter:
    """The negation of :func:`equal_to`."""
    return Exists(path) if value is None else Compare(path, "ne", value)


def one_of(path: str, values: Any, negate: bool = False) -> Filter:
    """The field equals one of ``values`` (with ``negate``: none of them); None among them means absent."""
    if isinstance(values, (str, bytes, Mapping, Filter)) or not isinstance(values, Iterable):
        raise InvalidArgumentError(f"got a {type(values).__name__}", field=path, bound="a list of values")
    listed = list(values)
    present = tuple(v for v in listed if v is not None)
    if len(present) == len(listed):
        return In(path, present, negate)
    either = Or((IsNull(path), In(path, present)))
    return Not(either) if negate else either


def exists(path: str, wanted: Any = True) -> Filter:
    """The field has a value (``wanted`` False: it has none)."""
    if not isinstance(wanted, bool):
        raise InvalidArgumentError(f"got {wanted!r}", field=path, bound="true or false")
    return Exists(path) if wanted else IsNull(path)


def _comparison(op: CompareOp) -> Callable[[str, Any], Filter]:
    return lambda path, value: Compare(path, op, _parse_value(path, value))


def _parse_values(path: str, values: Any) -> Any:
    return [_parse_value(path, v) for v in values] if isinstance(values, (list, tuple)) else values


def _contains(path: str, value: Any) -> Filter:
    return Contains(path, _parse_value(path, value))


def _is_null(path: str, wanted: Any) -> Filter:
    return exists(path, not wanted if isinstance(wanted, bool) else wanted)


_OPERATORS: dict[str, Callable[[str, Any], Filter]] = {
    "$eq": lambda path, value: equal_to(path, _parse_value(path, value)),
    "$ne": lambda path, value: differs_from(path, _parse_value(path, value)),
    "$gt": _comparison("gt"),
    "$gte": _comparison("gte"),
    "$lt": _comparison("lt"),
    "$lte": _comparison("lte"),
    "$in": lambda path, values: one_of(path, _parse_values(path, values)),
    "$nin": lambda path, values: one_of(path, _parse_values(path, values), negate=True),
    "$exists": exists,
    "$isNull": _is_null,
    "$contains": _contains,
    "$startsWith": StartsWith,
    "$geoBox": lambda path, value: Geo(path, box_of(path, value)),
    "$geoRadius": lambda path, value: Geo(path, circle_of(path, value)),
    "$geoPolygon": lambda path, value: Geo(path, polygon_of(path, value)),
}
FIELD_OPERATORS: tuple[str, ...] = (*_OPERATORS, "$not")
_OPERATORS |= {
    "$not_in": _OPERATORS["$nin"],
    "$is_null": _is_null,
    "$starts_with": StartsWith,
    "$startswith": StartsWith,
}


def to_json(node: Filter) -> dict[str, Any]:
    """The JSON form of a filter; :func:`parse_filter` reads an equal filter back."""
    if isinstance(node, Compare):
        return {node.path: {f"${node.op}": _value_json(node.value)}}
    if isinstance(node, In):
        return {node.path: {"$nin" if node.negate else "$in": [_value_json(v) for v in node.values]}}
    if isinstance(node, Exists):
        return {node.path: {"$exists": True}}
    if isinstance(node, IsNull):
        return {node.path: {"$isNull": True}}
    if isinstance(node, Contains):
        return {node.path: {"$contains": _value_json(node.value)}}
    if isinstance(node, StartsWith):
        return {node.path: {"$startsWith": node.prefix}}
    if isinstance(node, Geo):
        return {node.path: node.region.to_json()}
    if isinstance(node, (And, Or)):
        return {"$and" if isinstance(node, And) else "$or": [to_json(child) for child in node.children]}
    return {"$not": to_json(node.child)} if isinstance(node, Not) else {}


def _value_json(value: Value) -> Any:
    return {"$date": value.isoformat()} if isinstance(value, dt.datetime) else value


def canonical_key(node: Filter) -> str:
    """A string equal for filters that say the same in another order or spelling.

    ``and``/``or`` are flattened, sorted and freed of doubles; ``1`` and ``1.0`` are one number; ``ne``,
    ``nin`` and ``isNull`` are negations. Different keys may still mean the same.
    """
    try:
        return node._key
    except AttributeError:  # not asked before; whoever asks at the same time finds the same
        text = _dump(_canonical(node))
    if len(text) > _KEY_LENGTH_MAX:
        text = "blake2b:" + hashlib.blake2b(text.encode(), digest_size=32).hexdigest()
    object.__setattr__(node, "_key", text)
    return text


def _dump(value: Any) -> str:
    return _ENCODER.encode(value)


def _canonical(node: Filter) -> list[Any]:
    if isinstance(node, Compare):
        if node.op == "ne":
            return _negated(["eq", node.path, _canonical_value(node.value)])
        return [node.op, node.path, _canonical_value(node.value)]
    if isinstance(node, In):
        inner = _canonical_in(node)
        return _negated(inner) if node.negate else inner
    if isinstance(node, (And, Or)):
        return _canonical_set(node)
    if isinstance(node, Not):
        return _negated(_canonical(node.child))
    if isinstance(node, IsNull):
        return _negated(["exists", node.path])
    if isinstance(node, Exists):
        return ["exists", node.path]
    if isinstance(node, Contains):
        return ["contains", node.path, _canonical_value(node.value)]
    if isinstance(node, StartsWith):
        return ["starts", node.path, node.prefix]
    if isinstance(node, Geo):
        return ["geo", node.path, node.region.to_json()]
    return ["all"]


def _negated(inner: list[Any]) -> list[Any]:
    return cast("list[Any]", inner[1]) if inner[0] == "not" else ["not", inner]


def _canonical_in(node: In) -> list[Any]:
    unique = {_dump(v): v for v in map(_canonical_value, node.values)}
    values = [unique[key] for key in sorted(unique)]
    return ["eq", node.path, values[0]] if len(values) == 1 else ["in", node.path, values]


def _canonical_set(node: And | Or) -> list[Any]:
    word = "and" if isinstance(node, And) else "or"
    unique: dict[str, list[Any]] = {}
    for child in map(_canonical, node.children):
        for term in child[1:] if child[0] == word else [child]:
            unique[_dump(term)] = term
    terms = [unique[key] for key in sorted(unique)]
    return terms[0] if len(terms) == 1 else [word, *terms]


def _canonical_value(value: Value) -> Any:
    if isinstance(value, dt.datetime):
        return {"time": (value - _EPOCH) // _MICROSECOND}
    if isinstance(value, float) and value.is_integer() and abs(value) < _FLOAT_IS_INT_MAX:
        return int(value)
    return value


__all__ = ["canonical_key", "differs_from", "equal_to", "exists", "one_of", "parse_filter", "to_json"]
