"""Every filter selects the same points everywhere: in counts, searches, scrolls and deletes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omendb import FilterOp as F
from omendb.collection import Collection
from omendb.database import Database
from omendb_common.errors import InvalidArgumentError
from omendb_common.filters import Filter, to_json
from tests.property.test_filter_semantics import FILTERS, clean, flat, naive, nested, payloads

NAMES = (f"example-{number}" for number in itertools.count())
ROWS: list[dict[str, Any]] = [
    {"at": {"lat": 52.52, "lon": 13.405}, "n": 1, "s": "apple", "b": True, "tags": ["x", "y"], "deep": {"k": 1.5}},
    {"n": 2, "s": "apricot", "b": False, "tags": ["y"], "deep": {"k": 2}},
    {"n": 2.5, "s": "banana", "tags": []},
    {"n": "two", "deep": {"k": None}, "at": {"lat": -17.7, "lon": 178.1}},
    {},
]
CASES: list[tuple[str, Filter, set[int]]] = [
    ("eq", F.eq("n", 2), {1}),
    ("eq of a list", F.eq("tags", "y"), {0, 1}),
    ("ne", F.ne("n", 2), {0, 2, 3, 4}),
    ("gt", F.gt("n", 1), {1, 2}),
    ("gte", F.gte("n", 2), {1, 2}),
    ("lt", F.lt("s", "b"), {0, 1}),
    ("lte", F.lte("deep.k", 1.5), {0}),
    ("in", F.in_("n", [1, "two"]), {0, 3}),
    ("nin", F.nin("n", [1, "two"]), {1, 2, 4}),
    ("exists", F.exists("deep"), {0, 1}),
    ("is null", F.is_null("tags"), {3, 4}),
    ("contains an element", F.contains("tags", "x"), {0}),
    ("contains a piece", F.contains("s", "an"), {2}),
    ("starts with", F.startswith("s", "ap"), {0, 1}),
    ("in a circle", F.geo_radius("at", 52.4, 13.1, 30_000), {0}),
    ("in a box over the 180th meridian", F.geo_box("at", south=-20, west=170, north=-10, east=-170), {3}),
    ("in a polygon", F.geo_polygon("at", [(50, 10), (55, 10), (53, 20)]), {0}),
    ("not in a circle", F.NOT(F.geo_radius("at", 52.4, 13.1, 30_000)), {1, 2, 3, 4}),
    ("and", F.AND(F.gte("n", 2), F.eq("b", False)), {1}),
    ("or", F.OR(F.eq("b", True), F.startswith("s", "ban")), {0, 2}),
    ("not", F.NOT(F.exists("s")), {3, 4}),
    ("nested", F.NOT(F.OR(F.eq("n", 1), F.AND(F.exists("tags"), F.ne("s", "banana")))), {2, 3, 4}),
]


def selected(collection: Collection, condition: Filter | dict[str, Any]) -> set[Any]:
    """The matching ids, told the same by a search, a scroll and a count."""
    found = {hit.id for hit in collection.search([0.0, 0.0], k=100, filters=condition, include=["id"])}
    assert {record.id for record in collection.iterate(condition, page_rows=2)} == found
    assert collection.count(condition) == len(found)
    return found


@pytest.fixture
def rows(engine_db: Database) -> Collection:
    collection = engine_db.create_collection("rows", 2)
    collection.upsert(list(range(len(ROWS))), np.zeros((len(ROWS), 2), np.float32), ROWS)
    return collection


def test_every_operator(rows: Collection) -> None:
    for name, condition, expected in CASES:
        assert selected(rows, condition) == expected, name
        assert selected(rows, to_json(condition)) == expected, name


def test_every_operator_deletes_what_it_selects(engine_db: Database) -> None:
    for number, (name, condition, expected) in enumerate(CASES):
        collection = engine_db.create_collection(f"rows-{number}", 2)
        collection.upsert(list(range(len(ROWS))), np.zeros((len(ROWS), 2), np.float32), ROWS)
        assert collection.delete(filters=condition) == len(expected), name
        assert {r.id for r in collection.iterate()} == set(range(len(ROWS))) - expected, name


def test_bad_filters_are_refused(rows: Collection) -> None:
    wrongs: list[dict[str, Any]] = [
        {"n": {"$near": 1}},
        {"$xor": []},
        {"n": {"$gt": [1]}},
        {"$and": {}},
        {"n": {"$in": 3}},
    ]
    for wrong in wrongs:
        with pytest.raises(InvalidArgumentError):
            rows.count(wrong)
    assert rows.count() == len(ROWS)


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(payloads(), min_size=1, max_size=12), st.lists(FILTERS, min_size=1, max_size=6))
def test_any_filter_on_any_payload(
    engine_db: Database, rows: list[dict[str, Any] | None], filters: list[Filter]
) -> None:
    collection = engine_db.create_collection(next(NAMES), 2)
    ids = list(range(len(rows)))
    collection.upsert(ids, np.zeros((len(rows), 2), np.float32), rows)
    flattened = [flat(row) for row in rows]
    expected = [clean(nested(row)) for row in flattened]
    assert [record and record.metadata for record in collection.get(ids)] == expected
    for condition in filters:
        assert selected(collection, condition) == {i for i in ids if naive(condition, flattened[i])}
    engine_db.drop_collection(collection.name)
