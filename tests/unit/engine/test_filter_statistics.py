"""Segment statistics: what they hold, what they rule out, and that they come back from JSON."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pytest

from omendb_common.errors import CorruptionError
from omendb_common.filters import Filter, MatchAll
from omendb_common.filters import FilterOp as F
from omendb_common.payload import columns_from_mapping, columns_from_rows
from omendb_engine.payload.columns import BatchColumns
from omendb_engine.payload.statistics import (
    ColumnBounds,
    SegmentStatistics,
    collect_quantiles,
    collect_statistics,
    may_match,
)
from omendb_engine.query.filter import evaluate

DAY = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
ROWS: list[dict[str, Any]] = [
    {"n": 10, "f": 0.5, "s": "kiwi", "b": True, "t": DAY, "l": [1, 9], "o": {"x": 1}, "j": [1, "a"], "e": []},
    {"n": 20, "f": 1.5, "s": "mango", "b": True, "t": DAY + dt.timedelta(1), "l": [5], "j": [1, "a"], "e": []},
]
STATISTICS = collect_statistics(columns_from_rows(ROWS), len(ROWS))


@pytest.mark.parametrize(
    "node",
    [
        F.eq("n", 9),
        F.gt("n", 20),
        F.lt("n", 10),
        F.eq("n", "10"),
        F.in_("n", [1, 2, 21]),
        F.in_("n", []),
        F.ne("b", True),
        F.eq("b", False),
        F.eq("f", 2),
        F.lt("s", "kiwi"),
        F.startswith("s", "z"),
        F.gt("t", DAY + dt.timedelta(2)),
        F.eq("l", 10),
        F.eq("absent", 1),
        F.exists("absent"),
        F.is_null("n"),
        F.NOT(F.gte("n", 10)),
        F.NOT(F.AND(F.gte("n", 10), F.lte("f", 1.5))),
        F.AND(F.eq("n", 10), F.eq("absent", 1)),
        F.OR(F.eq("n", 9), F.eq("f", 9)),
        F.contains("l", 0),
        F.NOT(MatchAll()),
    ],
)
def test_ruled_out(node: Filter) -> None:
    assert not may_match(node, STATISTICS)
    assert evaluate(node, BatchColumns.of([columns_from_rows(ROWS)])).count == 0


@pytest.mark.parametrize(
    "node",
    [
        F.eq("n", 15),
        F.gte("n", 20),
        F.ne("n", 10),
        F.nin("n", [10]),
        F.startswith("s", "l"),
        F.contains("s", "q"),
        F.eq("l", 9),
        F.NOT(F.gte("l", 1)),
        F.NOT(F.exists("o")),
        F.exists("o"),
        F.is_null("o.x"),
        F.is_null("absent"),
        F.eq("j", "zzz"),
        MatchAll(),
    ],
)
def test_not_ruled_out(node: Filter) -> None:
    assert may_match(node, STATISTICS)


def test_json() -> None:
    again = SegmentStatistics.from_json(json.loads(json.dumps(STATISTICS.to_json())))
    assert again.n == STATISTICS.n
    assert again.bounds == STATISTICS.bounds
    assert again.bounds["n#i"] == ColumnBounds(2, 10, 20)
    damaged: list[Any] = [None, [], {}, {"rows": 1}, {"rows": 1, "columns": {"a#i": {}}}, {"rows": "x", "columns": {}}]
    for wrong in damaged:
        with pytest.raises(CorruptionError, match=r"minmax\.json"):
            SegmentStatistics.from_json(wrong)


@pytest.mark.parametrize("tail", ["z", "\ud7ff", "\U0010ffff"])
def test_long_text_is_cut_and_stays_a_bound(tail: str) -> None:
    long = "a" * 63 + tail * 10
    statistics = collect_statistics(columns_from_rows([{"s": long}]), 1)
    bounds = statistics.bounds["s#s"]
    assert len(bounds.low) == 64
    assert bounds.low <= long <= bounds.high
    assert len(bounds.high) <= 64
    for node in (F.eq("s", long), F.gte("s", long), F.lte("s", long), F.startswith("s", long[:70])):
        assert may_match(node, statistics)
    assert not may_match(F.gt("s", "b"), statistics)
    everything = collect_statistics(columns_from_rows([{"s": "\U0010ffff" * 65}]), 1)
    assert everything.bounds["s#s"].high is None
    assert may_match(F.gt("s", "\U0010ffff" * 64), everything)


def test_nothing() -> None:
    empty = collect_statistics(None, 3)
    assert not may_match(F.eq("a", 1), empty)
    assert may_match(F.ne("a", 1), empty)
    assert collect_quantiles(None) == {}


def test_quantiles() -> None:
    n = 100_000
    batch = columns_from_mapping({"n": np.arange(n), "f": [None] * (n - 1) + [2.5], "s": ["x"] * n}, n)
    quantiles = collect_quantiles(batch)
    assert set(quantiles) == {"n#i", "f#f"}
    assert quantiles["f#f"] == [2.5] * 33
    assert np.abs(np.array(quantiles["n#i"]) - np.linspace(0, n, 33)).max() < n / 1000
