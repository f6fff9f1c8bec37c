"""Vectors, ids, metadata and scalars: every form that is taken, and every wrong one refused by name."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from omendb_common import inputs
from omendb_common.errors import InvalidArgumentError
from omendb_common.matrices import as_matrix, as_queries, as_vectors, infer_dimension
from omendb_common.schema import K_MAX, CollectionSchema, VectorDType, VectorField

FIELD = VectorField(3)
ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
MATRIX = np.array(ROWS, np.float32)


def fixed_size_list(values: np.ndarray[Any, Any]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


FORMS: dict[str, Any] = {
    "float32": MATRIX,
    "float64": MATRIX.astype(np.float64),
    "float16": MATRIX.astype(np.float16),
    "int64": MATRIX.astype(np.int64),
    "fortran": np.asfortranarray(MATRIX),
    "strided": np.repeat(MATRIX, 2, axis=0)[::2],
    "big-endian": MATRIX.astype(">f4"),
    "lists": ROWS,
    "tuples": tuple(map(tuple, ROWS)),
    "list of arrays": list(MATRIX),
    "object array": np.array([*MATRIX, None], object)[:2],
    "generator": (row for row in ROWS),
    "fixed size list": fixed_size_list(MATRIX),
    "sliced fixed size list": fixed_size_list(np.vstack([MATRIX, MATRIX]))[2:],
    "chunked": pa.chunked_array([fixed_size_list(MATRIX[:1]), fixed_size_list(MATRIX[1:])]),
    "list array": pa.array(ROWS),
    "large list array": pa.array(ROWS, pa.large_list(pa.float64())),
    "pandas": pd.Series(list(MATRIX)),
    "pandas of lists": pd.Series(ROWS),
    "pandas frame values": pd.DataFrame(ROWS).to_numpy(),
    "polars array": pl.Series(ROWS, dtype=pl.Array(pl.Float32, 3)),
    "polars list": pl.Series(ROWS),
}


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_of_vectors_is_read(form: str) -> None:
    value = list(FORMS[form]) if form == "generator" else FORMS[form]
    matrix = as_matrix(value, FIELD)
    assert matrix.dtype == np.float32 and matrix.flags.c_contiguous
    np.testing.assert_array_equal(matrix, MATRIX)


def test_what_needs_no_copy_gets_none() -> None:
    assert as_matrix(MATRIX, FIELD) is MATRIX
    assert np.shares_memory(as_matrix(MATRIX[1:], FIELD), MATRIX)
    arrow = fixed_size_list(MATRIX)
    assert np.shares_memory(as_matrix(arrow, FIELD), arrow.values.to_numpy())
    half = MATRIX.astype(np.float16)
    assert as_matrix(half, VectorField(3, dtype="float16")) is half
    query = MATRIX[0]
    assert np.shares_memory(as_queries(query, FIELD)[0], MATRIX)


@pytest.mark.parametrize(
    ("value", "bound"),
    [
        pytest.param(MATRIX[:, :2], "dimension 3", id="too short"),
        pytest.param(np.zeros((2, 4), np.float32), "dimension 3", id="too long"),
        pytest.param([[1, 2, 3], [4, 5]], "rows of equal length", id="ragged lists"),
        pytest.param([MATRIX[0], MATRIX[1][:2]], "rows of equal length", id="ragged arrays"),
        pytest.param(pa.array([[1.0, 2.0, 3.0], [4.0]]), "rows of equal length", id="ragged arrow"),
        pytest.param(pd.Series([[1, 2, 3], [4, 5]]), "rows of equal length", id="ragged pandas"),
        pytest.param(pl.Series([[1, 2, 3], [4, 5]]), "rows of equal length", id="ragged polars"),
        pytest.param([[1, 2, [3]], [4, 5, 6]], "shape (n, dimension)", id="deep ragged"),
        pytest.param([], "at least 1 vector", id="empty list"),
        pytest.param(np.empty((0, 3), np.float32), "at least 1 vector", id="empty array"),
        pytest.param(pa.array([], pa.list_(pa.float32())), "at least 1 vector", id="empty arrow"),
        pytest.param(pa.chunked_array([], pa.list_(pa.float32())), "at least 1 vector", id="empty chunked"),
        pytest.param(MATRIX[0], "shape (n, dimension)", id="one vector"),
        pytest.param([1.0, 2.0, 3.0], "shape (n, dimension)", id="one list"),
        pytest.param(MATRIX[None], "shape (n, dimension)", id="three dimensions"),
        pytest.param([["a", "b", "c"]], "real numbers", id="strings"),
        pytest.param([[True, False, True]], "real numbers", id="booleans"),
        pytest.param(MATRIX.astype(np.complex64), "real numbers", id="complex"),
        pytest.param([[1, 2, None]], "real numbers", id="null element"),
        pytest.param(pa.array([[1.0, 2.0, None]]), "no nulls", id="null arrow element"),
        pytest.param(pa.array([[1.0, 2.0, 3.0], None]), "no nulls", id="null arrow vector"),
        pytest.param([[1, 2, 3], None], "shape (n, dimension)", id="null row"),
        pytest.param(None, "shape (n, dimension)", id="None"),
        pytest.param("abc", "shape (n, dimension)", id="a string"),
        pytest.param(7, "shape (n, dimension)", id="a number"),
        pytest.param([[1, 2, float("nan")]], "finite numbers", id="nan"),
        pytest.param([[1, 2, float("inf")]], "finite numbers", id="infinity"),
        pytest.param(np.array([[1, 2, -np.inf]], np.float32), "finite numbers", id="minus infinity"),
        pytest.param([[1, 2, 1e39]], "float32 numbers", id="beyond float32"),
    ],
)
def test_wrong_vectors_are_refused(value: Any, bound: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        as_matrix(value, FIELD)
    assert caught.value.field == "vectors"
    assert bound in (caught.value.bound or "")


def test_the_place_of_a_bad_element_is_named() -> None:
    bad = np.ones((5, 3), np.float32)
    bad[3, 2] = np.nan
    with pytest.raises(InvalidArgumentError, match="row 3 has nan at position 2"):
        as_matrix(bad, FIELD)


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        ("int8", [[-128, 127, 0]], [[-129, 0, 0]]),
        ("int8", [[-128.0, 127.0, 3.0]], [[0.5, 0, 0]]),
        ("uint8", [[0, 255, 1]], [[-1, 0, 0]]),
        ("uint8", np.array([[0, 255, 1]], np.uint16), np.array([[0, 256, 1]], np.uint16)),
        ("uint8", [[1.0, 2.0, 3.0]], [[1.0, float("nan"), 2.0]]),
        ("float16", [[65504.0, 1, 2]], [[70000.0, 1, 2]]),
    ],
)
def test_small_element_types_take_what_fits(dtype: VectorDType, good: Any, bad: Any) -> None:
    field = VectorField(3, dtype=dtype)
    matrix = as_matrix(good, field)
    assert matrix.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(matrix.astype(np.float64), np.asarray(good, np.float64))
    with pytest.raises(InvalidArgumentError) as caught:
        as_matrix(bad, field)
    assert caught.value.field == "vectors"


def test_a_query_is_one_vector_or_many() -> None:
    for one in (MATRIX[0], ROWS[0], tuple(ROWS[0]), pa.array(ROWS[0]), pl.Series(ROWS[0]), pd.Series(ROWS[0])):
        queries, single = as_queries(one, FIELD)
        assert single and queries.dtype == np.float32
        np.testing.assert_array_equal(queries, MATRIX[:1])
    for many in (MATRIX, ROWS, fixed_size_list(MATRIX), MATRIX.astype(np.float64)):
        queries, single = as_queries(many, FIELD)
        assert not single
        np.testing.assert_array_equal(queries, MATRIX)
    assert as_queries([], FIELD)[0].shape[0] == 0


@pytest.mark.parametrize(
    ("query", "bound"),
    [
        (MATRIX[0][:2], "dimension 3"),
        ([1.0, 2.0], "dimension 3"),
        (np.array([1, np.nan, 2], np.float32), "finite"),
        ([1.0, 2.0, float("inf")], "finite"),
        ([1e300, 0, 0], "float32"),
        ("abc", "array"),
        ({"a": 1}, "array"),
        (3.0, "array"),
        ([["a"]], "real numbers"),
        (np.zeros((65_537, 3), np.float32), "at most 65536"),
    ],
)
def test_wrong_queries_are_refused(query: Any, bound: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        as_queries(query, FIELD)
    assert caught.value.field == "vector"
    assert bound in (caught.value.bound or "")


def test_named_fields_must_agree_on_rows() -> None:
    schema = CollectionSchema("u", (VectorField(3, name="a"), VectorField(2, name="b")))
    both = as_vectors({"a": ROWS, "b": [[1, 2], [3, 4]]}, schema)
    assert set(both) == {"a", "b"}
    with pytest.raises(InvalidArgumentError, match="same number of rows"):
        as_vectors({"a": ROWS, "b": [[1, 2]]}, schema)
    with pytest.raises(InvalidArgumentError, match="no vector field 'c'"):
        as_vectors({"c": ROWS}, schema)


def test_infer_dimension() -> None:
    assert infer_dimension(ROWS) == 3
    wrongs: list[Any] = [[], [[]], {"a": ROWS}, np.zeros((1, 65_537), np.int8)]
    for wrong in wrongs:
        with pytest.raises(InvalidArgumentError):
            infer_dimension(wrong)


def test_ids_must_match_the_vectors() -> None:
    assert inputs.as_ids(["a", "b"], 2).to_list() == ["a", "b"]
    assert inputs.as_ids(np.array([1, 2]), 2).to_list() == [1, 2]
    key = uuid.uuid4()
    assert inputs.as_ids([key], 1).to_list() == [str(key)]
    for wrong in (["a"], b"ab", {"a": 1}, 1.5, True, [1.5, 2.5], [-1, 2], ["", "a"], ["x" * 513, "y"], [None, "a"]):
        with pytest.raises(InvalidArgumentError) as caught:
            inputs.as_ids(wrong, 2)
        assert caught.value.field == "ids"


def test_metadata_in_every_form() -> None:
    mapping = {"category": ["a", "b"], "price": [1, 2]}
    rows = [{"category": "a", "price": 1}, {"category": "b", "price": 2}]
    expected = inputs.as_payload(mapping, 2)
    assert expected is not None
    for form in (rows, pa.table(mapping), pd.DataFrame(mapping), pl.DataFrame(mapping)):
        found = inputs.as_payload(form, 2)
        assert found is not None
        assert sorted(found.schema.names) == sorted(expected.schema.names) == ["category#s", "price#i"]
        assert found.to_pydict() == expected.to_pydict()
    assert inputs.as_payload(None, 2) is None
    assert inputs.as_payload({}, 2) is None


@pytest.mark.parametrize(
    "metadata",
    [{"category": ["a"]}, [{"a": 1}], [{"a": 1}, 3], "ab", 7, {"a": [b"x", b"y"]}, {"a": [1 << 70, 1]}, {3: [1, 2]}],
    ids=str,
)
def test_wrong_metadata_is_refused(metadata: Any) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        inputs.as_payload(metadata, 2)
    assert "metadata" in str(caught.value)


@pytest.mark.parametrize("table", [pa.table, pd.DataFrame, pl.DataFrame])
def test_a_table_is_taken_apart(table: Any) -> None:
    frame = table({"id": ["a", "b"], "vector": ROWS, "price": [1, 2]})
    assert inputs.is_table(frame)
    columns = inputs.split_table(frame, "id", "vector")
    np.testing.assert_array_equal(as_matrix(columns.vectors, FIELD), MATRIX)
    assert inputs.as_ids(columns.ids, 2).to_list() == ["a", "b"]
    assert list(columns.metadata or []) == ["price"]
    with pytest.raises(InvalidArgumentError, match="a column 'embedding'"):
        inputs.split_table(frame, "id", "embedding")
    assert inputs.split_table(table({"vector": ROWS}), "id", "vector").ids is None


def test_k_at_its_bounds() -> None:
    assert inputs.check_k(1) == 1 and inputs.check_k(K_MAX) == K_MAX and inputs.check_k(np.int64(5)) == 5
    for k in (0, -1, K_MAX + 1, 1.5, "10", None, True):
        with pytest.raises(InvalidArgumentError, match=rf"k: .*1\.\.{K_MAX}"):
            inputs.check_k(k)


def test_include_names_are_checked() -> None:
    assert inputs.check_include(["id", "distance"]) == {"id", "distance"}
    for include in (["payload"], "metadata", [1]):
        with pytest.raises(InvalidArgumentError, match="include"):
            inputs.check_include(include)  # type: ignore[arg-type]
