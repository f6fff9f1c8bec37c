"""The filter tree, its builders, its JSON form and its limits."""

from __future__ import annotations

import copy
import datetime as dt
import math
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from omendb_common.errors import InvalidArgumentError
from omendb_common.filters import (
    FILTER_DEPTH_MAX,
    FILTER_NODES_MAX,
    IN_VALUES_MAX,
    And,
    Compare,
    Contains,
    Exists,
    Filter,
    In,
    IsNull,
    MatchAll,
    Not,
    Or,
    StartsWith,
    canonical_key,
    check_filter,
    form,
    parse_filter,
    to_json,
)
from omendb_common.filters import FilterOp as F

DAY = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.float32(1.5), 1.5),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.datetime64("2024-01-01"), DAY),
        (pd.Timestamp("2024-01-01T00:00:00.000000999Z"), DAY),
        (dt.date(2024, 1, 1), DAY),
        (dt.datetime(2024, 1, 1), DAY),  # noqa: DTZ001
        (dt.datetime(2024, 1, 1, 3, tzinfo=dt.timezone(dt.timedelta(hours=3))), DAY),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (2**1023 - 1, 2**1023 - 1),
    ],
)
def test_values_become_plain(value: Any, expected: Any) -> None:
    node = F.eq("a", value)
    assert isinstance(node, Compare)
    assert node.value == expected
    assert type(node.value) is type(expected)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "use is_null"),
        (float("nan"), "a finite number"),
        (float("inf"), "a finite number"),
        (2**1023, "at most 1023 bits"),
        (-(2**1023), "at most 1023 bits"),
        ([1], "use in for alternatives"),
        (b"x", "bool, int, float, str or datetime"),
        (object(), "bool, int, float, str or datetime"),
        (pd.NaT, "years 1..9999"),
        (np.datetime64("NaT"), "use is_null"),
        (dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))), "years 1..9999"),
        ("\ud800", "valid UTF-8"),
    ],
)
def test_refused_values_name_the_field(value: Any, words: str) -> None:
    makers: list[Callable[[], object]] = [
        lambda: F.gt("price", value),
        lambda: F.contains("price", value),
        lambda: parse_filter({"price": {"$gt": value}}),
    ]
    for make in makers:
        with pytest.raises(InvalidArgumentError) as caught:
            make()
        assert "price" in str(caught.value)
        assert words in str(caught.value)


def test_builders_make_the_tree() -> None:
    assert F.eq("a", None) == IsNull("a")
    assert F.ne("a", None) == Exists("a")
    assert F.exists("a", False) == F.is_null("a") == IsNull("a")
    assert F.in_("a", [1, None]) == Or((IsNull("a"), In("a", (1,))))
    assert F.nin("a", [1, None]) == Not(Or((IsNull("a"), In("a", (1,)))))
    assert F.isin("a", (v for v in "xy")) == F.IN("a", {"x": 1, "y": 2}.keys()) == In("a", ("x", "y"))
    assert F.not_in("a", []) == F.NIN("a", ()) == In("a", (), True)
    assert F.in_("a", np.array([1, 2])) == In("a", (1, 2))
    assert F.startswith("a", "x") == F.starts_with("a", "x") == StartsWith("a", "x")
    assert F.AND({"a": 1}, F.eq("b", 2)) == F.AND([{"a": 1}, F.eq("b", 2)])
    assert F.NOT({"a": 1}) == Not(Compare("a", "eq", 1))


def test_operators_flatten() -> None:
    a, b, c = F.eq("a", 1), F.eq("b", 1), F.eq("c", 1)
    assert a & b & c == And((a, b, c))
    assert a | b | c == Or((a, b, c))
    assert a & b | ~c == Or((And((a, b)), Not(c)))
    long = a
    for _ in range(500):
        long = long & b
    assert check_filter(long) is long


@pytest.mark.parametrize(
    "misuse",
    [
        lambda f: f and f,
        lambda f: f or f,
        lambda f: not f,
        lambda f: bool(f),
        list,
        lambda f: f & True,
        lambda f: f | {"a": 1},
        lambda f: F.AND(f, None),  # type: ignore[arg-type]
        lambda f: F.NOT(None),  # type: ignore[arg-type]
        lambda f: F.AND(),
        lambda f: F.OR([]),
        lambda f: And(()),
        lambda f: And((1,)),  # type: ignore[arg-type]
        lambda f: Not(1),  # type: ignore[arg-type]
        lambda f: F.eq(1, 1),  # type: ignore[arg-type]
        lambda f: F.eq("$a", 1),
        lambda f: F.eq("x" * 513, 1),
        lambda f: F.in_("a", "text"),
        lambda f: F.in_("a", 5),  # type: ignore[arg-type]
        lambda f: F.in_("a", [[1]]),
        lambda f: F.exists("a", 1),  # type: ignore[arg-type]
        lambda f: F.startswith("a", 1),  # type: ignore[arg-type]
        lambda f: Compare("a", "like", 1),  # type: ignore[arg-type]
    ],
)
def test_misuse_is_refused(misuse: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        misuse(F.eq("a", 1))


def test_and_between_filters_says_what_to_write() -> None:
    with pytest.raises(InvalidArgumentError, match=r"F\.AND.*&"):
        F.eq("a", 1) and F.eq("b", 2)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({}, MatchAll()),
        ({"a": 1}, Compare("a", "eq", 1)),
        ({"a": None}, IsNull("a")),
        ({"a": 1, "b": 2}, And((Compare("a", "eq", 1), Compare("b", "eq", 2)))),
        ({"a": {"$gt": 1, "$lte": 2}}, And((Compare("a", "gt", 1), Compare("a", "lte", 2)))),
        ({"$and": [{"a": 1}]}, And((Compare("a", "eq", 1),))),
        (
            {"$or": [{"a": 1}, {"b": 2}], "c": 3},
            And((Or((Compare("a", "eq", 1), Compare("b", "eq", 2))), Compare("c", "eq", 3))),
        ),
        ({"$not": {"a": 1}}, Not(Compare("a", "eq", 1))),
        ({"a": {"$not": {"$gt": 1}}}, Not(Compare("a", "gt", 1))),
        ({"a": {"$not": 1}}, Not(Compare("a", "eq", 1))),
        ({"a": {"$in": [1, "x"]}}, In("a", (1, "x"))),
        ({"a": {"$nin": [1]}}, In("a", (1,), True)),
        ({"a": {"$not_in": [1]}}, In("a", (1,), True)),
        ({"a": {"$exists": True}}, Exists("a")),
        ({"a": {"$exists": False}}, IsNull("a")),
        ({"a": {"$isNull": True}}, IsNull("a")),
        ({"a": {"$is_null": False}}, Exists("a")),
        ({"a": {"$contains": "x"}}, Contains("a", "x")),
        ({"a": {"$startsWith": "x"}}, StartsWith("a", "x")),
        ({"a": {"$starts_with": "x"}}, StartsWith("a", "x")),
        ({"a": {"$date": "2024-01-01T01:00:00+01:00"}}, Compare("a", "eq", DAY)),
        ({"a": {"$in": [{"$date": "2024-01-01"}]}}, In("a", (DAY,))),
        ({"a": {"$gte": DAY}}, Compare("a", "gte", DAY)),
        ({"$and": [F.eq("a", 1), {"b": 2}]}, And((Compare("a", "eq", 1), Compare("b", "eq", 2)))),
    ],
)
def test_json_form(written: dict[str, Any], expected: Filter) -> None:
    assert parse_filter(written) == expected
    assert parse_filter(to_json(expected)) == expected


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"a": {"$like": 1}}, ["unknown operator '$like'", "$startsWith"]),
        ({"a": {"b": 1}}, ["unknown operator 'b'", "'a.b'"]),
        ({"a": {"$gt": 1, "b": 1}}, ["unknown operator 'b'"]),
        ({"$nor": []}, ["unknown operator '$nor'", "$and"]),
        ({"a": {}}, ["no operator"]),
        ({"$and": {"a": 1}}, ["$and", "a list of filters"]),
        ({"$or": []}, ["at least one"]),
        ({"$and": [1]}, ["got a int"]),
        ({"$not": [1]}, ["got a list"]),
        ({1: 2}, ["no string"]),
        ([], ["got a list"]),
        ("price > 3", ["got a str"]),
        ({"a": {"$in": 1}}, ["a list of values"]),
        ({"a": {"$exists": "yes"}}, ["true or false"]),
        ({"a": {"$isNull": 1}}, ["true or false"]),
        ({"a": {"$date": "yesterday"}}, ["an ISO 8601 time"]),
        ({"a": {"$gt": {"$date": 5}}}, ["$date"]),
        ({"a": {"$gt": {"x": 5}}}, ["a value"]),
        ({"a": [1, 2]}, ["use in for alternatives"]),
    ],
)
def test_wrong_json_is_explained(written: Any, words: list[str]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_filter(written)
    for word in words:
        assert word in str(caught.value)


def test_no_filter() -> None:
    assert parse_filter(None) is None
    node = F.eq("a", 1)
    assert parse_filter(node) is node


def nested_not(depth: int) -> Filter:
    node: Filter = Compare("a", "eq", 1)
    for _ in range(depth - 1):
        node = Not(node)
    return node


def test_depth_limit() -> None:
    assert parse_filter(nested_not(FILTER_DEPTH_MAX)) is not None
    for depth in (FILTER_DEPTH_MAX + 1, 100_000):
        with pytest.raises(InvalidArgumentError, match="at most 32 levels"):
            parse_filter(nested_not(depth))
    written: dict[str, Any] = {"a": 1}
    for _ in range(FILTER_DEPTH_MAX - 1):
        written = {"$not": written}
    assert parse_filter(written) is not None
    for _ in range(100_000):
        written = {"$not": written}
        if _ in (0, 99_999):
            with pytest.raises(InvalidArgumentError, match="at most 32 levels"):
                parse_filter(written)
    operand: Any = 1
    for _ in range(100_000):
        operand = {"$not": operand}
    with pytest.raises(InvalidArgumentError, match="at most 32 levels"):
        parse_filter({"a": operand})


def test_node_limit() -> None:
    leaf = Compare("a", "eq", 1)
    assert parse_filter(Or((leaf,) * (FILTER_NODES_MAX - 1))) is not None
    with pytest.raises(InvalidArgumentError, match="at most 1024 nodes"):
        parse_filter(Or((leaf,) * FILTER_NODES_MAX))
    with pytest.raises(InvalidArgumentError, match="at most 1024 nodes"):
        parse_filter({"$or": [{"a": 1}] * FILTER_NODES_MAX})


def test_in_limit() -> None:
    assert isinstance(F.in_("a", range(IN_VALUES_MAX)), In)
    with pytest.raises(InvalidArgumentError, match="at most 65536 values"):
        F.in_("a", range(IN_VALUES_MAX + 1))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (F.eq("a", 1), F.eq("a", 1.0)),
        (F.eq("a", 0.0), F.eq("a", -0.0)),
        (F.eq("a", 1), F.in_("a", [1, 1.0])),
        (F.ne("a", 1), F.NOT(F.eq("a", 1))),
        (F.nin("a", [1, 2]), F.NOT(F.in_("a", [2, 1]))),
        (F.is_null("a"), F.NOT(F.exists("a"))),
        (F.NOT(F.NOT(F.eq("a", 1))), F.eq("a", 1)),
        (F.AND(F.eq("a", 1), F.eq("b", 2)), F.AND(F.eq("b", 2), F.AND(F.eq("a", 1), F.eq("b", 2)))),
        (F.OR(F.eq("a", 1)), F.eq("a", 1)),
    ],
)
def test_one_key_for_one_meaning(one: Filter, two: Filter) -> None:
    assert canonical_key(one) == canonical_key(two)


def test_keys_tell_meanings_apart() -> None:
    filters = [
        F.eq("a", 1),
        F.eq("a", True),
        F.eq("a", "1"),
        F.eq("a", 1.5),
        F.eq("a", DAY),
        F.eq("a", DAY.isoformat()),
        F.eq("b", 1),
        F.gt("a", 1),
        F.contains("a", 1),
        F.startswith("a", "1"),
        F.exists("a"),
        F.is_null("a"),
        F.in_("a", [1, 2]),
        F.nin("a", [1, 2]),
        F.in_("a", []),
        F.eq("a", 2**63),
        F.eq("a", 2**63 + 1),
        F.AND(F.eq("a", 1), F.eq("a", 2)),
        F.OR(F.eq("a", 1), F.eq("a", 2)),
        MatchAll(),
    ]
    assert len({canonical_key(f) for f in filters}) == len(filters)


def test_long_keys_are_hashed() -> None:
    long, longer = F.in_("a", range(1000)), F.in_("a", range(1001))
    assert len(canonical_key(long)) < 100
    assert canonical_key(long) != canonical_key(longer)
    assert canonical_key(long) == canonical_key(F.in_("a", range(999, -1, -1)))


def test_a_filter_that_was_read_before_is_read_no_more() -> None:
    asked = {"bucket": {"$lt": 500}, "$or": [{"a": "x"}, {"b": None}]}
    first = parse_filter(asked)
    assert parse_filter({"bucket": {"$lt": 500}, "$or": [{"a": "x"}, {"b": None}]}) is first
    asked["bucket"]["$lt"] = 501  # type: ignore[index]
    assert parse_filter(asked) == F.AND(F.lt("bucket", 501), F.OR(F.eq("a", "x"), F.is_null("b")))


@pytest.mark.parametrize(
    "several",
    [
        [{"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}, {"a": "True"}],
        [{"a": 0.0}, {"a": -0.0}, {"a": 0}, {"a": False}, {"a": None}],
        [{"a": {"$in": [1, 2]}}, {"a": {"$in": ["1", 2]}}, {"a": {"$in": [1.0, 2]}}],
        [{"a": np.int64(4607182418800017408)}, {"a": np.float64(1.0)}, {"a": 4607182418800017408}, {"a": 1.0}],
    ],
)
def test_what_is_kept_is_never_taken_for_another(several: list[dict[str, Any]]) -> None:
    for asked in [*several, *reversed(several)]:
        tree = parse_filter(asked)
        (value,) = asked.values()
        if value is None:
            assert tree == F.is_null("a")
        elif isinstance(value, dict):
            assert isinstance(tree, In)
            assert [(type(v), v) for v in tree.values] == [(type(v), v) for v in value["$in"]]
        else:
            assert isinstance(tree, Compare)
            plain = value.item() if isinstance(value, np.generic) else value
            assert (type(tree.value), repr(tree.value)) == (type(plain), repr(plain))


@pytest.mark.parametrize(
    "odd", [{1: 2}, {"a": {1: 2}}, {"a": math.nan}, {"a": {"$lt": 10**5000}}, {"a": object()}, [{"a": 1}], {"$and": []}]
)
def test_what_is_refused_is_refused_again(odd: Any) -> None:
    parse_filter({"1": 2})
    for _ in range(2):
        with pytest.raises(InvalidArgumentError):
            parse_filter(odd)


def test_few_filters_are_kept() -> None:
    for number in range(3 * form._KEPT_MAX):
        parse_filter({"n": number})
        assert len(form._kept) <= form._KEPT_MAX
    before = dict(form._kept)
    for large in ({"a": "x" * 600}, {"a": {"$in": list(range(17))}}, {"$not": {"$not": {"$not": {"$not": {"a": 1}}}}}):
        parse_filter(large)
    parse_filter({f"k{n}": "x" * 60 for n in range(16)})
    assert form._kept == before


def test_a_key_that_was_found_is_no_part_of_the_filter() -> None:
    asked, fresh = F.eq("a", 1) & F.lt("b", 2.5), F.eq("a", 1) & F.lt("b", 2.5)
    key = canonical_key(asked)
    assert canonical_key(asked) is key
    assert asked == fresh
    assert hash(asked) == hash(fresh)
    assert repr(asked) == repr(fresh)
    again = copy.deepcopy(asked)
    assert again == fresh
    assert canonical_key(again) == canonical_key(fresh) == key
