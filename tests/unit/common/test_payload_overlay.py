"""Payload batches one after the other, and an update over a base."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from omendb_common.errors import ResourceExhaustedError
from omendb_common.payload import (
    columns_from_rows,
    concat_batches,
    concat_column,
    key_masks,
    overlay,
    rows_from_columns,
)

EMPTY = columns_from_rows([])


def test_concat_fills_what_a_batch_does_not_have() -> None:
    batches = [columns_from_rows([{"a": 1}]), None, columns_from_rows([{"b": [1]}, {"a": "x"}]), EMPTY]
    whole = concat_batches(batches, [1, 2, 2, 1])
    assert whole.num_rows == 6
    assert rows_from_columns(whole) == [{"a": 1}, {}, {}, {"b": [1]}, {"a": "x"}, {}]


def test_concat_of_nothing() -> None:
    assert concat_batches([]).num_columns == 0
    assert concat_batches([None, None], [1, 2]).num_columns == 0
    one = columns_from_rows([{"a": 1}])
    assert concat_batches([one]) is one


def test_concat_refuses_more_text_than_arrow_can_address() -> None:
    # Memory that nobody touches costs nothing: only the offsets are looked at.
    offsets = np.array([0, 1 << 30], np.int32)
    huge = pa.StringArray.from_buffers(1, pa.py_buffer(offsets), pa.py_buffer(np.zeros(1 << 30, np.uint8)))
    with pytest.raises(ResourceExhaustedError, match="2 GiB"):
        concat_column([huge, huge], [1, 1], "a#s")


def test_update_replaces_whole_keys_and_keeps_the_others() -> None:
    base = columns_from_rows([{"a": {"x": 1, "y": 2}, "b": 1}, {"a": 1, "c": "k"}])
    update = columns_from_rows([{"a": {"x": "new"}}, {"a": 2.5, "b": 9}])
    assert rows_from_columns(overlay(base, update, {"a", "b"})) == [{"a": {"x": "new"}}, {"c": "k", "a": 2.5, "b": 9}]
    # "b" is not among the keys: what the update says of it does not count.
    assert rows_from_columns(overlay(base, update, {"a"})) == [{"a": {"x": "new"}, "b": 1}, {"c": "k", "a": 2.5}]


def test_update_row_by_row() -> None:
    base = columns_from_rows([{"a": 1, "b": 1}, {"a": 2, "b": 2}])
    update = columns_from_rows([{"a": "x"}, {"b": "y"}])
    assert rows_from_columns(overlay(base, update, key_masks(update, 2))) == [{"a": "x", "b": 1}, {"a": 2, "b": "y"}]
    masks = {"b": np.array([False, True])}
    assert rows_from_columns(overlay(base, EMPTY, masks, 2)) == [{"a": 1, "b": 1}, {"a": 2}]


def test_update_of_nothing_and_over_nothing() -> None:
    row = columns_from_rows([{"a": 1}])
    assert rows_from_columns(overlay(row, EMPTY, set())) == [{"a": 1}]
    assert overlay(row, EMPTY, {"a"}).num_columns == 0
    assert rows_from_columns(overlay(EMPTY, row, {"a"})) == [{"a": 1}]
    assert overlay(EMPTY, EMPTY, {"a"}, 3).num_columns == 0


def test_key_masks_join_the_columns_of_a_key() -> None:
    batch = columns_from_rows([{"a": 1}, {"a": {"b": "x"}}, {"c": 1}, None])
    masks = {key: mask.tolist() for key, mask in key_masks(batch, 4).items()}
    assert masks == {"a": [True, True, False, False], "c": [False, False, True, False]}
