"""Sorted indexes and scans of arrays as they really come: sliced, with nulls, with repeated elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from omendb_common.filters import Compare, Contains, In, StartsWith
from omendb_common.payload import TYPES, Kind, columns_from_rows
from omendb_engine.payload.columns import BatchColumns
from omendb_engine.payload.conditions import Leaf, condition_for
from omendb_engine.payload.scan import scan
from omendb_engine.payload.sorted_index import SortedIndex
from omendb_engine.query.filter import evaluate

N = 200
NUMBERS = [None if i % 7 == 0 else (i * 37) % 50 for i in range(N)]
COLUMNS: dict[Kind, list[Any]] = {
    "i": NUMBERS,
    "f": [None if v is None else v / 2 for v in NUMBERS],
    "s": [None if v is None else f"text {v}" for v in NUMBERS],
    "li": [None if v is None else [v, None, v, v + 1] for v in NUMBERS],
    "ls": [None if v is None else [] if v == 3 else [f"text {v}", f"text {v}"] for v in NUMBERS],
}
LEAVES: list[Leaf] = [
    Compare("a", "eq", 5),
    Compare("a", "gt", 20),
    Compare("a", "lte", 2.5),
    Compare("a", "eq", "text 5"),
    Compare("a", "lt", "text 3"),
    Compare("a", "gte", "zzz"),
    In("a", (1, 5, 5.0, 7, 1000, "text 9", "text 11", "nothing")),
    Contains("a", "9"),
    Contains("a", "text 9"),
    StartsWith("a", "text 1"),
]


@pytest.mark.parametrize("kind", list(COLUMNS))
@pytest.mark.parametrize("cut", [(0, N), (13, N), (13, 101), (5, 5)])
def test_index_and_scan_agree_with_one_value_at_a_time(kind: Kind, cut: tuple[int, int]) -> None:
    array = pa.array(COLUMNS[kind], TYPES[kind]).slice(cut[0], cut[1] - cut[0])
    index = SortedIndex(array, kind)
    assert index.nbytes > 0
    for leaf in LEAVES:
        condition = condition_for(leaf, kind)
        if condition is None:
            continue
        expected = []
        for row, value in enumerate(array.to_pylist()):
            elements = value if isinstance(value, list) else [value]
            if any(condition.accepts(e) for e in elements or () if e is not None):
                expected.append(row)
        assert np.flatnonzero(scan(array, kind, condition)).tolist() == expected
        spans = index.spans(condition)
        assert index.rows(spans).tolist() == expected
        assert spans.count >= len(expected)
        mask = index.text_mask(condition)
        assert (mask is None) == (kind != "s")
        if mask is not None:
            assert np.flatnonzero(mask).tolist() == expected
            chosen = np.arange(len(array))[::3]
            some = index.text_mask(condition, chosen)
            assert some is not None
            assert chosen[some].tolist() == [row for row in expected if row % 3 == 0]


def test_many_distinct_texts_are_not_listed() -> None:
    texts = [f"user {i:06}" for i in range(10_000)]
    index = SortedIndex(pa.array(texts[::-1]), "s")
    asked: list[tuple[Leaf, list[int]]] = [
        (Compare("a", "eq", "user 000042"), [9957]),
        (Compare("a", "lt", "user 000002"), [9998, 9999]),
        (Compare("a", "eq", "user"), []),
        (In("a", ("user 000000", "user 009999", "x")), [0, 9999]),
    ]
    for leaf, expected in asked:
        condition = condition_for(leaf, "s")
        assert condition is not None
        assert index.rows(index.spans(condition)).tolist() == expected


def test_a_row_with_equal_elements_is_found_once_among_many() -> None:
    rows: list[dict[str, Any]] = [{"a": [7, 7, 7]} if i == 50 else {"a": [i + 100]} for i in range(1000)]
    column = columns_from_rows(rows).column("a#li")
    index = SortedIndex(column, "li")
    condition = condition_for(Compare("a", "eq", 7), "li")
    assert condition is not None
    assert index.rows(index.spans(condition)).tolist() == [50]


def test_slices_of_one_batch_are_read_at_their_place() -> None:
    whole = columns_from_rows([{"n": i, "f": i / 2, "b": i % 3 == 0, "l": [i]} for i in range(100)])
    store = BatchColumns.of([whole.slice(30, 20), whole.slice(70, 10)])
    expected = [i for i, v in enumerate([*range(30, 50), *range(70, 80)]) if v > 40]
    for leaf in (Compare("n", "gt", 40), Compare("f", "gt", 20), Compare("l", "gt", 40)):
        assert evaluate(leaf, store).rows().tolist() == expected
    only = BatchColumns.of([whole.slice(30, 20)])
    assert evaluate(Compare("n", "eq", 31), only).rows().tolist() == [1]
