"""Payload columns from every kind of input, and back."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from omendb_common.errors import CorruptionError, InvalidArgumentError
from omendb_common.payload import (
    TYPES,
    columns_from_mapping,
    columns_from_rows,
    join_name,
    rows_from_columns,
    split_name,
    top_level_key,
    values_of,
)

DAY = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def names(batch: pa.RecordBatch) -> set[str]:
    return set(batch.schema.names)


def back(column: Any, n: int = 3) -> list[Any]:
    """What a column called "a" comes back as; None where absent."""
    batch = columns_from_mapping({"a": column}, n)
    for name in batch.schema.names:
        assert batch.column(name).type == TYPES[split_name(name)[1]]
        batch.column(name).validate(full=True)
    return [row.get("a") for row in rows_from_columns(batch, n=n)]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (np.array([1, 2, 3]), [1, 2, 3]),
        (np.array([1, 2, 3], np.uint8), [1, 2, 3]),
        (np.array([1, 2, 2**63 - 1], np.uint64), [1, 2, 2**63 - 1]),
        (np.array([1, 2, 3], ">i4"), [1, 2, 3]),
        (np.array([1.5, 2, 3], np.float16), [1.5, 2.0, 3.0]),
        (np.array([1.5, 2, 3], np.float32), [1.5, 2.0, 3.0]),
        (np.array([1.5, 2, 3], np.longdouble), [1.5, 2.0, 3.0]),
        (np.array([True, False, True]), [True, False, True]),
        (np.array(["a", "", "ccc"]), ["a", "", "ccc"]),
        (np.array(["a", "é", "\U0001f600c"]), ["a", "é", "\U0001f600c"]),
        (np.array(["a", "b\0c", "d"]), ["a", "b\0c", "d"]),
        (np.array(["a", "bb", "c"], ">U2"), ["a", "bb", "c"]),
        (np.array(["x" * 100, "y", "z"]), ["x" * 100, "y", "z"]),
        (np.array(["abc", "def", "ghi"])[::-1], ["ghi", "def", "abc"]),
        (np.array(["", "", ""]), ["", "", ""]),
        (np.array(["a", None, 1], object), ["a", None, 1]),
        (np.array(["2024-01-01", "NaT", "2024-01-01"], "M8[D]"), [DAY, None, DAY]),
        (np.array(["2024-01-01"] * 3, "M8[ns]"), [DAY] * 3),
        (np.arange(6).reshape(3, 2), [[0, 1], [2, 3], [4, 5]]),
        (np.arange(6)[::2], [0, 2, 4]),
        (np.ma.masked_array([1, 2, 3], [False, True, False]), [1, None, 3]),
    ],
)
def test_numpy_columns(column: Any, expected: list[Any]) -> None:
    result = back(column)
    assert result == expected
    assert [type(v) for v in result] == [type(v) for v in expected]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([1, 2, None], [1, 2, None]),
        (["a", None, "c"], ["a", None, "c"]),
        ([1, 2.5, "x"], [1, 2.5, "x"]),
        ([1, 2.5, None], [1, 2.5, None]),
        ([True, 1, "1"], [True, 1, "1"]),
        ([1.0, 2, 2**53 + 1], [1.0, 2, 2**53 + 1]),
        ([np.float32(1.5), np.int8(2), np.bool_(True)], [1.5, 2, True]),
        ([np.str_("a"), "b", None], ["a", "b", None]),
        ([dt.date(2024, 1, 1), DAY, None], [DAY, DAY, None]),
        ([dt.date(2024, 1, 1), dt.date(2024, 1, 1), None], [DAY, DAY, None]),
        ([DAY, 0, None], [DAY, 0, None]),
        (
            [DAY.replace(tzinfo=None), dt.datetime(2024, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))), None],
            [DAY, DAY, None],
        ),
        ([np.datetime64("2024-01-01"), np.datetime64("NaT"), None], [DAY, None, None]),
        ([pd.Timestamp(DAY), pd.NaT, pd.NA], [DAY, None, None]),
        ([uuid.UUID(int=1), None, "x"], [str(uuid.UUID(int=1)), None, "x"]),
        ([[1, 2], [], None], [[1, 2], [], None]),
        ([[1], ["a"], [2.5]], [[1], ["a"], [2.5]]),
        ([[1, 2.5], [1, None], [2.5]], [[1.0, 2.5], [1, None], [2.5]]),
        ([[1, "a"], [True, 1], [[1], [2]]], [[1, "a"], [True, 1], [[1], [2]]]),
        ([[2**53 + 1, 0.5], [None], [[]]], [[2**53 + 1, 0.5], [None], [[]]]),
        ([[DAY], [DAY, None], [DAY, "x"]], [[DAY], [DAY, None], [DAY.isoformat(), "x"]]),
        ([{}, {"x": 1}, {"x": {"y": "z"}}], [{}, {"x": 1}, {"x": {"y": "z"}}]),
        ([{"x": None}, {"x": [{"y": 1}]}, None], [None, {"x": [{"y": 1}]}, None]),
        ([(1, 2), {1}, frozenset([2])], [[1, 2], [1], [2]]),
        ([None, None, None], [None, None, None]),
        (["a\0b", "\U0001f600", ""], ["a\0b", "\U0001f600", ""]),
    ],
)
def test_python_columns_keep_each_values_type(column: list[Any], expected: list[Any]) -> None:
    result = back(column)
    assert result == expected
    assert [type(v) for v in result] == [type(v) for v in expected]
    assert [row.get("a") for row in rows_from_columns(columns_from_rows([{"a": v} for v in column]), n=3)] == expected


def test_a_value_does_not_change_with_its_neighbours() -> None:
    alone = rows_from_columns(columns_from_rows([{"a": 1}]))
    beside = rows_from_columns(columns_from_rows([{"a": 1}, {"a": 2.5}]))
    assert type(alone[0]["a"]) is type(beside[0]["a"]) is int


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, None, 3], pa.int8()), [1, None, 3]),
        (pa.array([1, None, 3], pa.uint64()), [1, None, 3]),
        (pa.array([1.5, None, 3], pa.float32()), [1.5, None, 3.0]),
        (pa.array(["a", None, "c"], pa.large_string()), ["a", None, "c"]),
        (pa.array(["a", None, "c"], pa.string_view()), ["a", None, "c"]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.array([DAY.date(), None, DAY.date()], pa.date32()), [DAY, None, DAY]),
        (pa.array([DAY.date(), None, DAY.date()], pa.date64()), [DAY, None, DAY]),
        (pa.array([DAY, None, DAY], pa.timestamp("s")), [DAY, None, DAY]),
        (pa.array([DAY, None, DAY], pa.timestamp("ms", tz="America/New_York")), [DAY, None, DAY]),
        (pa.array([1_704_067_200_000_000_001, None, None], pa.timestamp("ns")), [DAY, None, None]),
        (pa.array([[1, 2], [], None], pa.large_list(pa.int16())), [[1, 2], [], None]),
        (pa.array([[1, 2], [3, 4], None], pa.list_(pa.float32(), 2)), [[1.0, 2.0], [3.0, 4.0], None]),
        (pa.array([[1], [], None], pa.list_view(pa.int32())), [[1], [], None]),
        (pa.array([[["a"]], [], None]), [[["a"]], [], None]),
        (pa.array([[{"x": 1}], [], None]), [[{"x": 1}], [], None]),
        (pa.array([{"x": 1, "y": {"z": "q"}}, None, {"x": None, "y": None}]), [{"x": 1, "y": {"z": "q"}}, None, None]),
        (pa.array([{"x": [1]}, {"x": []}, None]), [{"x": [1]}, {"x": []}, None]),
        (pa.nulls(3), [None, None, None]),
        (pa.array([uuid.UUID(int=1), None], pa.uuid()), [str(uuid.UUID(int=1)), None]),
        (pa.chunked_array([pa.array([1]), pa.array([2, 3])]), [1, 2, 3]),
        (pa.chunked_array([], pa.int64()), []),
        (pa.array([0, 1, 2, 3]).slice(1), [1, 2, 3]),
        (pa.array([["x"], ["a", "b"], None, ["c"]]).slice(1), [["a", "b"], None, ["c"]]),
        (pa.array([True, None, False]), [True, None, False]),
    ],
)
def test_arrow_columns(column: Any, expected: list[Any]) -> None:
    assert back(column, len(column)) == expected


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series([1.5, np.nan, 2]), [1.5, None, 2.0]),
        (pd.Series([1, 2, 3]), [1, 2, 3]),
        (pd.Series(["a", None, np.nan], dtype=object), ["a", None, None]),
        (pd.Series([1, "a", pd.NA], dtype=object), [1, "a", None]),
        (pd.Series(["a", None, "c"]), ["a", None, "c"]),
        (pd.Series(["x", "y", None], dtype="category"), ["x", "y", None]),
        (pd.Series([1, None, 3], dtype="Int64"), [1, None, 3]),
        (pd.Series([DAY, pd.NaT, DAY]), [DAY, None, DAY]),
        (pd.Series([[1, 2], None, ["a"]]), [[1, 2], None, ["a"]]),
        (pd.Series([1, 2, 3], index=[7, 8, 9]), [1, 2, 3]),
        (pd.Series([1, 0, 3], dtype="Sparse[int]"), [1, 0, 3]),
        (pl.Series([1, None, 3]), [1, None, 3]),
        (pl.Series(["a", None, "c"], dtype=pl.Categorical), ["a", None, "c"]),
        (pl.Series([[1], None, []]), [[1], None, []]),
        (pl.Series([{"x": 1}, None, {"x": 2}]), [{"x": 1}, None, {"x": 2}]),
    ],
)
def test_frame_columns(column: Any, expected: list[Any]) -> None:
    assert back(column) == expected


def test_whole_frames() -> None:
    expected = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    data = {"a": [1, 2], "b": ["x", "y"]}
    for frame in (data, pd.DataFrame(data), pl.DataFrame(data), pa.table(data), pa.RecordBatch.from_pydict(data)):
        assert rows_from_columns(columns_from_mapping(frame, 2)) == expected
    with pytest.raises(InvalidArgumentError, match="metadata: got int"):
        columns_from_mapping(7, 2)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ([1.0, float("nan"), 2.0], ["row 1 is nan", "metadata['a']", "use None"]),
        (np.array([1.0, 2.0, np.inf]), ["row 2 is inf"]),
        (pa.array([1.0, None, float("-inf")]), ["row 2 is -inf"]),
        (pl.Series([1.0, float("nan"), None]), ["row 1 is nan"]),
        (pd.Series([1.0, np.inf, None]), ["row 1 is inf"]),
        ([[1.0], [2.0, float("nan")], []], ["row 1 is nan"]),
        (pa.array([[1.0], [2.0, 3.0], [float("inf")]]), ["row 2 is inf"]),
        ([{"x": 1.0}, {"x": float("nan")}, None], ["row 1 is nan", "metadata['a.x']"]),
        ([1, 2**63, 3], ["row 1 is 9223372036854775808", "2**63-1"]),
        ([1, 2, -(2**63) - 1], ["row 2 is"]),
        (np.array([1, 2**63, 3], np.uint64), ["row 1 is 9223372036854775808"]),
        ([[1, 2**64], None, None], ["row 0 is 18446744073709551616"]),
        ([b"x", "y", "z"], ["row 0 has type bytes", "convert it"]),
        (np.array([b"x", b"y", b"z"]), ["bytes"]),
        ([1 + 2j, 1, 1], ["row 0 has type complex"]),
        (np.array([1 + 2j, 1, 1]), ["complex"]),
        ([decimal.Decimal(1), None, None], ["row 0 has type Decimal"]),
        (pa.array([decimal.Decimal(1)] * 3), ["decimal128", "cast it to double or string"]),
        (pa.array([b"x", b"y", b"z"]), ["Arrow type binary"]),
        (pa.array([dt.timedelta(1)] * 3), ["Arrow type duration"]),
        ([dt.timedelta(1), None, None], ["has type timedelta"]),
        ([object(), None, None], ["row 0 has type object"]),
        ([enum.Enum("E", "x"), None, None], ["has type"]),
        ([{1: 2}, None, None], ["the key 1 is a int", "string keys"]),
        ([[{1: 2}], None, None], ["the key 1 is a int"]),
        ([{"x.y": 1, "x": {"y": 2}}, None, None], ["row 0 gives the path twice", "a.x.y"]),
        (["\ud800", "x", "y"], ["not UTF-8"]),
        ([1, "\ud800", "y"], ["not UTF-8"]),
        ([{"\ud800": 1}, None, None], ["not UTF-8"]),
        (np.array(["10000-01-01", "2024", "2024"], "M8[D]"), ["years 1..9999"]),
        (np.array([2**62, 0, 0], "M8[s]"), ["years 1..9999"]),
        (pa.array([2**62, 0, 0], pa.timestamp("s")), ["years 1..9999"]),
        (pa.array([2**31 - 1, 0, 0], pa.date32()), ["years 1..9999"]),
        ([np.datetime64("10000-01-01"), "x", 1], ["years 1..9999"]),
        ([dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))), "x", 1], ["years 1..9999"]),
        ([1, 2], ["metadata['a']", "2 values", "expected 3"]),
        (pd.Series(pd.period_range("2024", periods=3)), ["Arrow type", "cast it"]),
        (pd.Series([1 + 2j] * 3), ["type complex"]),
        (np.array(5), ["a scalar"]),
        ("abc", ["got a str"]),
        (5, ["got a int"]),
        ({"x": 1}, ["got a dict"]),
    ],
)
def test_refused_columns_name_the_field_and_the_row(column: Any, words: list[str]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        columns_from_mapping({"a": column}, 3)
    for word in words:
        assert word in str(caught.value)


def test_rows_must_be_mappings() -> None:
    with pytest.raises(InvalidArgumentError, match="row 1 is a list"):
        columns_from_rows([{"a": 1}, [1]])  # type: ignore[list-item]
    with pytest.raises(InvalidArgumentError, match="the key 1 is a int"):
        columns_from_rows([{1: 1}])  # type: ignore[dict-item]


def test_dots_and_nesting_are_one() -> None:
    dotted = columns_from_rows([{"a.b": 1, "a.c.d": "x"}])
    deep = columns_from_rows([{"a": {"b": 1, "c": {"d": "x"}}}])
    assert dotted.equals(deep)
    assert rows_from_columns(dotted) == [{"a": {"b": 1, "c": {"d": "x"}}}]
    # In other rows, another spelling of the same path is no conflict.
    assert rows_from_columns(columns_from_rows([{"a.b": [1]}, {"a": {"b": [2]}}])) == [
        {"a": {"b": [1]}},
        {"a": {"b": [2]}},
    ]
    with pytest.raises(InvalidArgumentError, match="row 1 gives the path twice"):
        columns_from_mapping({"a.b": [None, 1], "a": [None, {"b": 2}]}, 2)
    with pytest.raises(InvalidArgumentError, match="row 1 gives the path twice"):
        columns_from_mapping({"a.b": [None, 1], "a": [None, {"b": "x"}]}, 2)


def test_a_value_beside_deeper_ones_loses_nothing() -> None:
    rows: list[dict[str, Any]] = [{"a": 1, "a.b": 2, "a.b.c": 3}, {"x.y": 1, "x": "s"}]
    assert rows_from_columns(columns_from_rows(rows)) == [{"a": 1, "a.b": 2, "a.b.c": 3}, {"x": "s", "x.y": 1}]


def test_odd_field_names_come_back() -> None:
    rows = [{"": 1, "a#i": 2, "#": "x", "b": {"": 3}, "é ü": True, "$x": 1}]
    assert rows_from_columns(columns_from_rows(rows)) == rows


def test_names() -> None:
    assert join_name("a.b", "li") == "a.b#li"
    assert split_name("a#b#li") == ("a#b", "li")
    assert top_level_key("a.b.c") == "a"
    for wrong in ("a", "a#", "a#zz", ""):
        with pytest.raises(CorruptionError):
            split_name(wrong)


def test_columns_without_a_value_are_left_out() -> None:
    assert columns_from_mapping({"a": [None], "b": pa.nulls(1, pa.int64())}, 1).num_columns == 0
    assert columns_from_mapping({}, 5).num_columns == 0
    assert columns_from_rows([None, {}, {"a": None}]).num_columns == 0
    assert rows_from_columns(columns_from_rows([None, {}]), n=2) == [{}, {}]
    assert columns_from_mapping({"a": []}, 0).num_rows == 0


def test_homogeneous_columns_share_memory_or_copy_once() -> None:
    numbers = np.arange(10)
    batch = columns_from_mapping({"a": numbers}, 10)
    assert np.shares_memory(batch.column(0).to_numpy(), numbers)


def test_any_choice_of_rows() -> None:
    rows: list[dict[str, Any]] = [
        {"n": i, "t": DAY + dt.timedelta(hours=i), "l": [DAY], "j": [1, "a"]} for i in range(50)
    ]
    batch = columns_from_rows(rows)
    for chosen in ([], [3], [49, 0, 0], list(range(50))[::-1]):
        expected = [rows[i] for i in chosen]
        assert rows_from_columns(batch, np.array(chosen, np.int64)) == expected
        assert rows_from_columns(batch, chosen) == expected
        table = pa.concat_tables(
            [pa.Table.from_batches([batch.slice(0, 20)]), pa.Table.from_batches([batch.slice(20)])]
        )
        assert rows_from_columns(table, chosen) == expected
    (moment,) = values_of(batch.column("t#t"), "t", [0])
    assert moment.tzinfo is dt.UTC
