"""Of several rows with one id in a batch the last wins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.ids import IdColumn
from omendb_engine.folding import last_occurrences, last_rows

KEYS = st.tuples(st.integers(0, 3), st.integers(0, 2))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(keys=st.lists(KEYS, max_size=30))
def test_the_last_row_of_each_key_in_order(keys: list[tuple[int, int]]) -> None:
    hi, lo = (np.array([k[i] for k in keys], np.uint64) for i in (0, 1))
    rows = last_occurrences(hi, lo)
    expected = sorted({key: row for row, key in enumerate(keys)}.values())
    if len(expected) == len(keys):
        assert rows is None, "nothing to fold costs no copy"
    else:
        assert rows is not None and rows.tolist() == expected


def test_equal_halves_are_not_equal_keys() -> None:
    hi = np.array([5, 5, 5], np.uint64)
    assert last_occurrences(hi, np.array([1, 2, 3], np.uint64)) is None
    rows = last_occurrences(hi, np.array([1, 2, 1], np.uint64))
    assert rows is not None and rows.tolist() == [1, 2]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(ids=st.lists(st.one_of(st.integers(0, 5), st.sampled_from(["a", "b", "1"])), min_size=1, max_size=8))
def test_the_last_row_of_each_id(ids: list[int | str]) -> None:
    rows = last_rows(IdColumn.of(ids))
    expected = sorted({key: row for row, key in enumerate(ids)}.values())
    assert (list(range(len(ids))) if rows is None else rows.tolist()) == expected


def test_rising_integers_need_no_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(IdColumn, "hashes")
    assert last_rows(IdColumn(np.array([1, 5, 6, 2**64 - 1], np.uint64), None)) is None
