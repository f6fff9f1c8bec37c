"""Every limit of a payload at the limit and one past it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omendb_common.errors import InvalidArgumentError
from omendb_common.payload import (
    DEPTH_MAX,
    FIELDS_MAX,
    PATH_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    columns_from_mapping,
    columns_from_rows,
    overlay,
    rows_from_columns,
)


@pytest.mark.parametrize("key", ["x" * PATH_BYTES_MAX, "é" * (PATH_BYTES_MAX // 2)])
def test_path_bytes(key: str) -> None:
    assert rows_from_columns(columns_from_rows([{key: 1}])) == [{key: 1}]
    with pytest.raises(InvalidArgumentError, match="at most 512 bytes"):
        columns_from_rows([{key + "x": 1}])
    with pytest.raises(InvalidArgumentError, match="at most 512 bytes"):
        columns_from_rows([{"aa": {key[1:]: 1}}])


def nest(depth: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(depth):
        value = {"k": value}
    assert isinstance(value, dict)
    return value


def test_depth() -> None:
    assert rows_from_columns(columns_from_rows([nest(DEPTH_MAX)])) == [nest(DEPTH_MAX)]
    for too_deep in (nest(DEPTH_MAX + 1), {".".join("k" * (DEPTH_MAX + 1)): 1}, {"." * DEPTH_MAX: 1}, nest(5000)):
        with pytest.raises(InvalidArgumentError, match="at most 16 levels"):
            columns_from_rows([too_deep])
    assert columns_from_rows([{"." * (DEPTH_MAX - 1): 1}]).num_columns == 1


def test_depth_inside_lists() -> None:
    def lists(depth: int) -> list[Any]:
        value: list[Any] = [1, "x"]
        for _ in range(depth - 1):
            value = [value]
        return value

    assert rows_from_columns(columns_from_rows([{"a": lists(DEPTH_MAX)}])) == [{"a": lists(DEPTH_MAX)}]
    for too_deep in (lists(DEPTH_MAX + 1), lists(5000)):
        with pytest.raises(InvalidArgumentError, match="at most 16 levels"):
            columns_from_rows([{"a": too_deep}])


def test_fields() -> None:
    row = {f"f{i}": i for i in range(FIELDS_MAX)}
    assert columns_from_rows([row]).num_columns == FIELDS_MAX
    with pytest.raises(InvalidArgumentError, match="at most 4096 fields"):
        columns_from_rows([{**row, "one more": 1}])
    with pytest.raises(InvalidArgumentError, match="at most 4096 fields"):
        overlay(columns_from_rows([row]), columns_from_rows([{"one more": 1}]), {"one more"})


@pytest.mark.parametrize(
    ("unit", "size"),
    [("x", 1), ("é", 2), ([1], 8), ([1.5], 8), (["ab"], 2), ([True], 1), ([None, "ab"], 2)],
)
def test_payload_bytes(unit: Any, size: int) -> None:
    fits = unit * (PAYLOAD_BYTES_MAX // size)
    # Neighbours must not count: the second row is small, the batch is above the limit.
    assert columns_from_rows([{"a": fits}, {"a": unit, "b": 1}]).num_columns >= 1
    with pytest.raises(InvalidArgumentError, match=r"row 1 has \d+ bytes .*at most 1048576 bytes"):
        columns_from_rows([{"a": unit, "b": 1}, {"a": fits, "b": 1}])


def test_payload_bytes_add_up_over_columns() -> None:
    half = "x" * (PAYLOAD_BYTES_MAX // 2)
    assert columns_from_mapping({"a": [half, None], "b": [half, "y"]}, 2).num_columns == 2
    with pytest.raises(InvalidArgumentError, match="row 1 has 1048577 bytes"):
        columns_from_mapping({"a": ["", half], "b": [None, half + "x"]}, 2)
    with pytest.raises(InvalidArgumentError, match="row 0 has 1048577 bytes"):
        overlay(columns_from_rows([{"a": half}]), columns_from_rows([{"b": half + "x"}]), {"b"})


def test_int64_range() -> None:
    for good in (2**63 - 1, -(2**63)):
        assert rows_from_columns(columns_from_rows([{"a": good}])) == [{"a": good}]
    for bad in (2**63, -(2**63) - 1):
        with pytest.raises(InvalidArgumentError, match="store it as a string"):
            columns_from_rows([{"a": bad}])
    top = np.array([2**63 - 1], np.uint64)
    assert rows_from_columns(columns_from_mapping({"a": top}, 1)) == [{"a": 2**63 - 1}]
    with pytest.raises(InvalidArgumentError):
        columns_from_mapping({"a": top + np.uint64(1)}, 1)
