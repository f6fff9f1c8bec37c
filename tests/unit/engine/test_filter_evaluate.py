"""Filters at the edges: exact numbers, text order, times, lists, and every way of evaluating."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest

from omendb_common.filters import Filter, MatchAll, parse_filter
from omendb_common.filters import FilterOp as F
from omendb_common.payload import columns_from_mapping, columns_from_rows
from omendb_engine.payload import parquet
from omendb_engine.payload.columns import BatchColumns, ColumnCache, ColumnStore, ParquetColumns, write_payload_parquet
from omendb_engine.query.filter import evaluate

BIG = 2**53
DAY = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def stores(rows: list[Any], monkeypatch: pytest.MonkeyPatch) -> list[ColumnStore]:
    """The rows in a buffer, in a scanned segment and in an indexed segment."""
    batch = columns_from_rows(rows)
    data = write_payload_parquet(batch, len(rows))
    scanned = ParquetColumns(data, len(rows), ColumnCache())
    assert all(scanned.index(path, kind) is None for path in ("a", "b") for kind in scanned.kinds(path))
    monkeypatch.setattr(parquet, "_INDEX_ROWS_MIN", 0)
    indexed = ParquetColumns(data, len(rows), ColumnCache())

    class Scanned(ParquetColumns):
        def index(self, path: str, kind: Any) -> None:
            return None

    return [BatchColumns.of([batch], [len(rows)]), Scanned(data, len(rows), ColumnCache()), indexed]


@pytest.mark.parametrize(
    ("values", "node", "expected"),
    [
        # Integers and floats are compared as numbers, not as floats.
        ([BIG, BIG + 1, float(BIG)], F.eq("a", BIG + 1), [1]),
        ([BIG, BIG + 1, float(BIG)], F.eq("a", float(BIG)), [0, 2]),
        ([BIG, BIG + 1, float(BIG), float(BIG + 2)], F.gt("a", BIG + 1), [3]),
        ([BIG, BIG + 1, float(BIG), float(BIG + 2)], F.lt("a", BIG + 1), [0, 2]),
        ([BIG, BIG + 1, float(BIG), float(BIG + 2)], F.gte("a", BIG + 1), [1, 3]),
        ([BIG, BIG + 1, float(BIG), float(BIG + 2)], F.lte("a", BIG + 1), [0, 1, 2]),
        ([BIG, BIG + 1, float(BIG)], F.in_("a", [BIG + 1, 7]), [1]),
        ([1, 2, 3, 2.5], F.gt("a", 2.5), [2]),
        ([1, 2, 3, 2.5], F.lte("a", 2.5), [0, 1, 3]),
        ([1, 2, 3, 2.5], F.eq("a", 2.5), [3]),
        ([2**63 - 1, -(2**63), 1e300, -1e300], F.lt("a", 2**63), [0, 1, 3]),
        ([2**63 - 1, -(2**63), 1e300, -1e300], F.lt("a", 2**70), [0, 1, 3]),
        ([2**63 - 1, -(2**63), 1e300, -1e300], F.gt("a", -(2**70)), [0, 1, 2]),
        ([2**63 - 1, -(2**63), 1e300, -1e300], F.gte("a", 2.0**63), [2]),
        ([2**63 - 1, float(2**63)], F.eq("a", float(2**63)), [1]),
        ([2**63 - 1, 2], F.gt("a", 2**63 - 1), []),
        ([-(2**63), 2], F.lt("a", -(2**63)), []),
        ([0, -0.0, 0.0, 1], F.eq("a", -0.0), [0, 1, 2]),
        ([5e-324, 0.0, -5e-324], F.gt("a", 0), [0]),
        ([1.7976931348623157e308, 1], F.gt("a", 1.7976931348623157e308), []),
        # Classes never mix.
        ([True, 1, "1", 1.0], F.eq("a", 1), [1, 3]),
        ([True, 1, "1", 1.0], F.eq("a", True), [0]),
        ([True, 1, "1", 1.0], F.eq("a", "1"), [2]),
        ([True, 1, "x", None], F.gt("a", 0), [1]),
        ([True, False, None, 1], F.ne("a", True), [1, 2, 3]),
        ([True, False, None, 1], F.gt("a", False), [0]),
        ([True, False, None, 1], F.gte("a", False), [0, 1]),
        ([True, False, None, 1], F.lt("a", False), []),
        ([True, False, None, 1], F.in_("a", [True, False]), [0, 1]),
        # Absent.
        ([1, None, 2], F.ne("a", 1), [1, 2]),
        ([-1.5, 0.0, 2.5, None], F.ne("a", 0.0), [0, 2, 3]),
        ([-1.5, 0.0, 2.5, -0.0], F.ne("a", 0), [0, 2]),
        ([-1, 0.5, 2, 2.5], F.ne("a", 2), [0, 1, 3]),
        ([-1, 0.5, 2, 2.5], F.ne("a", 2.5), [0, 1, 2]),
        ([1, None, 2], F.nin("a", [1]), [1, 2]),
        ([1, None, 2], F.NOT(F.gt("a", 1)), [0, 1]),
        ([1, None, 2], F.in_("a", [None, 2]), [1, 2]),
        ([1, None, 2], F.nin("a", [None, 2]), [0]),
        ([1, None, 2], F.in_("a", []), []),
        ([1, None, 2], F.nin("a", []), [0, 1, 2]),
        ([1, None, {"x": 1}, {}, []], F.exists("a"), [0, 2, 3, 4]),
        ([1, None, {"x": 1}, {}, []], F.is_null("a"), [1]),
        ([1, None, {"x": 1}, {}, []], F.exists("a.x"), [2]),
        ([1, None, {"x": 1}, {}, []], F.eq("a.x", 1), [2]),
        ([1, None], F.exists("b"), []),
        ([1, None], F.ne("b", 1), [0, 1]),
        ([1, None], MatchAll(), [0, 1]),
        # Text is ordered by code point.
        (["a", "B", "é", "\uffff", "\U00010000", ""], F.gt("a", "z"), [2, 3, 4]),
        (["a", "B", "é", "\uffff", "\U00010000", ""], F.lt("a", "\U00010000"), [0, 1, 2, 3, 5]),
        (["a", "ab", "abc", "b"], F.AND(F.gt("a", "a"), F.lte("a", "abc")), [1, 2]),
        (["a", "ab", "abc", "b"], F.startswith("a", "ab"), [1, 2]),
        (["a", "ab"], F.startswith("a", ""), [0, 1]),
        (["\ud7ff1", "\ue000", "\ud7ff"], F.startswith("a", "\ud7ff"), [0, 2]),
        (["\U0010ffff1", "\U0010fffe"], F.startswith("a", "\U0010ffff"), [0]),
        (["x\U0010ffff1", "y"], F.startswith("a", "x\U0010ffff"), [0]),
        (["one", "two", "x.*y"], F.contains("a", "o"), [0, 1]),
        (["one", "two", "x.*y"], F.contains("a", ".*"), [2]),
        (["one", ""], F.contains("a", ""), [0, 1]),
        ([1, 5], F.contains("a", 5), []),
        (["x", "y", "z", None], F.in_("a", ["y", "z", 5]), [1, 2]),
        # Times, from datetimes and from ISO text.
        ([DAY, DAY + dt.timedelta(microseconds=1), "2024-01-01"], F.eq("a", DAY), [0]),
        ([DAY, DAY + dt.timedelta(microseconds=1), "2024-01-01"], F.eq("a", "2024-01-01"), [0, 2]),
        ([DAY, DAY + dt.timedelta(microseconds=1), "2023"], F.gt("a", "2024-01-01T00:00:00Z"), [1]),
        ([DAY, DAY + dt.timedelta(microseconds=1)], F.lte("a", dt.date(2024, 1, 1)), [0]),
        ([DAY, DAY + dt.timedelta(hours=1)], F.eq("a", "2024-01-01T03:00:00+02:00"), [1]),
        ([DAY, DAY + dt.timedelta(hours=1)], F.in_("a", ["2024-01-01", "not a time", 3]), [0]),
        ([DAY, 5], F.gt("a", "not a time"), []),
        ([DAY, "9999-12-31T23:59:59-05:00"], F.lt("a", "9999-12-31T23:59:59-05:00"), []),
        # Lists: any element.
        ([[1, 5], [3], [], None, 5], F.eq("a", 5), [0, 4]),
        ([[1, 5], [3], [], None], F.ne("a", 5), [1, 2, 3]),
        ([[1.5, 5.5], [3.5], [], None], F.ne("a", 5.5), [1, 2, 3]),
        ([[1.5, "x"], [3.5, True], [], None], F.ne("a", 3.5), [0, 2, 3]),
        ([[1, 9], [3], [5]], F.AND(F.gt("a", 2), F.lt("a", 4)), [0, 1]),
        ([[1, 9], [3], [5]], F.AND(F.gt("a", 4), F.lt("a", 4)), [0]),
        ([[1, 5], [3], []], F.contains("a", 5), [0]),
        ([["x", None], ["xy"], []], F.contains("a", "x"), [0]),
        ([["x", None], ["xy"], []], F.startswith("a", "x"), [0, 1]),
        ([["x"], ["y"], ["z", "x"]], F.in_("a", ["x", "z"]), [0, 2]),
        ([[True], [False, None], []], F.eq("a", False), [1]),
        ([[DAY], [DAY - dt.timedelta(1)]], F.lt("a", DAY), [1]),
        ([[1.5], [2.5, 0.5]], F.lt("a", 1), [1]),
        # Mixed lists and lists of objects.
        ([[1, "a"], [True, 2], [{"x": 1}], [[1]], [None, 1.5, "b"]], F.eq("a", 1), [0]),
        ([[1, "a"], [True, 2], [{"x": 1}], [[1]], [None, 1.5, "b"]], F.eq("a", True), [1]),
        ([[1, "a"], [True, 2], [{"x": 1}], [[1]], [None, 1.5, "b"]], F.gt("a", 1), [1, 4]),
        ([[1, "a"], [True, 2], [{"x": 1}], [[1]], [None, 1.5, "b"]], F.contains("a", "a"), [0]),
        ([[1, "a"], [True, 2], [{"x": 1}], [[1]], [None, 1.5, "b"]], F.in_("a", ["b", 2]), [1, 4]),
        ([[1, "a"], [True, 2], [{"x": 1}], [[1]], [None, 1.5, "b"]], F.startswith("a", ""), [0, 4]),
        ([[1, "a"], [{"x": 1}]], F.AND(F.gte("a", 1), F.eq("a", "a")), [0]),
        ([[BIG + 1, "a"], [BIG, "a"]], F.eq("a", BIG + 1), [0]),
        ([[{"x": 1}], []], F.eq("a.x", 1), []),
    ],
)
def test_rules(values: list[Any], node: Filter, expected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"a": value, "always": 1} for value in values]
    for store in stores(rows, monkeypatch):
        assert evaluate(node, store).rows().tolist() == expected
        # Once more behind a rare condition, where only single rows are tested.
        for row in range(len(values)):
            rare = evaluate(F.AND(F.eq("always", 1), node), store)
            assert rare.rows().tolist() == expected
            assert (row in expected) == bool(rare.contains(np.array([row]))[0])


def big_store(n: int = 40_000) -> tuple[ParquetColumns, dict[str, np.ndarray[Any, Any]]]:
    rng = np.random.default_rng(7)
    data: dict[str, np.ndarray[Any, Any]] = {
        "rare": rng.integers(0, n, n),
        "group": rng.integers(0, 20, n),
        "price": rng.random(n),
        "name": np.array([f"name {i}" for i in rng.integers(0, 500, n)]),
        "at": np.datetime64("2024-01-01", "us") + np.arange(n),
    }
    batch = columns_from_mapping(data, n)
    return ParquetColumns(write_payload_parquet(batch, n), n, ColumnCache()), data


def test_every_selectivity_and_order_of_conditions() -> None:
    store, data = big_store()
    names = [f"name {i}" for i in range(0, 500, 7)]
    leaves: list[tuple[Filter, Any]] = [
        (F.eq("rare", 77), data["rare"] == 77),
        (F.in_("rare", list(range(0, 3000, 3))), np.isin(data["rare"], np.arange(0, 3000, 3))),
        (F.in_("rare", list(range(0, 40_000, 2))), data["rare"] % 2 == 0),
        (F.eq("group", 3), data["group"] == 3),
        (F.ne("group", 3), data["group"] != 3),
        (F.lt("price", 0.001), data["price"] < 0.001),
        (F.gte("price", 0.3), data["price"] >= 0.3),
        (F.AND(F.gte("price", 0.3), F.lt("price", 0.302)), (data["price"] >= 0.3) & (data["price"] < 0.302)),
        (F.eq("name", "name 42"), data["name"] == "name 42"),
        (F.startswith("name", "name 4"), np.char.startswith(data["name"], "name 4")),
        (F.contains("name", "99"), np.char.find(data["name"], "99") >= 0),
        (F.in_("name", names), np.isin(data["name"], names)),
        (F.lt("at", np.datetime64("2024-01-01T00:00:00.000100")), np.arange(len(data["rare"])) < 100),
        (F.exists("name"), np.ones(len(data["rare"]), np.bool_)),
        (F.is_null("name"), np.zeros(len(data["rare"]), np.bool_)),
    ]
    for node, mask in leaves:
        assert np.array_equal(evaluate(node, store).mask(), mask)
        for other, other_mask in leaves:
            assert np.array_equal(evaluate(F.AND(node, other), store).mask(), mask & other_mask)
            assert np.array_equal(evaluate(F.AND(node, F.NOT(other)), store).mask(), mask & ~other_mask)
            assert np.array_equal(evaluate(F.OR(node, other), store).mask(), mask | other_mask)
            both = F.AND(F.OR(node, other), F.NOT(F.AND(node, other)), F.lt("price", 0.02))
            assert np.array_equal(evaluate(both, store).mask(), (mask ^ other_mask) & (data["price"] < 0.02))


def test_rare_results_are_sparse() -> None:
    store, _ = big_store()
    assert evaluate(F.eq("rare", 77), store).is_sparse
    assert evaluate(F.AND(F.gte("price", 0.3), F.eq("rare", 77)), store).is_sparse
    assert not evaluate(F.gte("price", 0.3), store).is_sparse


def test_a_store_without_rows_or_columns() -> None:
    for n in (0, 3):
        store = BatchColumns.of([None], [n])
        node = parse_filter({"a": {"$gt": 1}, "b": "x"})
        assert node is not None
        assert evaluate(node, store).count == 0
        assert evaluate(F.ne("a", 1), store).count == n
        assert evaluate(MatchAll(), store).rows().tolist() == list(range(n))
