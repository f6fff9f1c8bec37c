"""Of several rows with one id in a batch the last wins."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_engine.folding import last_occurrences

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
