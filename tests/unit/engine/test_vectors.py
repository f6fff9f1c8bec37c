"""Vectors come back as written, and are searched in the metric's form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omendb_common.errors import InvalidArgumentError
from omendb_common.schema import METRICS, VECTOR_DTYPES, Metric, VectorDType, VectorField
from omendb_engine.vectors import VectorColumns, prepare, restore, vector_row_bytes
from tests.unit.engine.engine_cases import as_ids, open_replica, put, schema_of


def sample(dtype: VectorDType, n: int = 50, d: int = 6) -> Any:
    """Rows of a dtype, one of them zero, one very short and one very long where the dtype allows it."""
    rows = np.random.default_rng(0).standard_normal((n, d)) * 40
    if dtype == "uint8":
        rows = np.abs(rows)
    rows[0] = 0
    if dtype == "float32":
        rows[1], rows[2] = 1e-25, 1e18
    return rows.astype(dtype)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", VECTOR_DTYPES)
def test_they_come_back_as_written(metric: Metric, dtype: VectorDType) -> None:
    field = VectorField(6, metric, dtype)
    given = sample(dtype)
    prepared = prepare(field, given)
    assert prepared.space.dtype == np.float32 and prepared.stored().dtype == field.numpy_dtype
    columns = VectorColumns(schema_of(field), 60)
    columns.put(3, {"": prepared})
    rows = np.random.default_rng(1).permutation(50)
    for back in (restore(prepared)[rows], restore(columns.at("", rows + 3)), restore(prepared.take(rows))):
        assert back.dtype == field.numpy_dtype
        if dtype == "float32" and metric == "cosine":
            np.testing.assert_allclose(back, given[rows], rtol=3e-7)
        else:
            np.testing.assert_array_equal(back, given[rows])
    if metric == "cosine":
        lengths = np.linalg.norm(prepared.space.astype(np.float64), axis=1)
        np.testing.assert_allclose(lengths[1:], 1, atol=1e-6)
        assert lengths[0] == 0, "a zero vector stays zero"


def test_vectors_of_length_one_are_kept_bit_for_bit() -> None:
    given = np.random.default_rng(3).standard_normal((100, 8)).astype(np.float32)
    given /= np.linalg.norm(given, axis=1, keepdims=True)
    prepared = prepare(VectorField(8, "cosine"), given)
    assert prepared.space is given
    np.testing.assert_array_equal(restore(prepared), given)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", VECTOR_DTYPES)
def test_row_bytes_are_those_of_the_columns(metric: Metric, dtype: VectorDType) -> None:
    schema = schema_of(VectorField(6, metric, dtype), VectorField(3, "dot", "int8", "other"))
    columns = VectorColumns(schema, 1000)
    held = [*columns.space.values(), *columns.norms.values(), *columns.raw.values()]
    assert sum(a.nbytes for a in held) == 1000 * vector_row_bytes(schema)


@pytest.mark.parametrize("sealed", [False, True])
def test_the_zero_vector_is_at_cosine_distance_one(tmp_path: Path, sealed: bool) -> None:
    folder, replica = open_replica(tmp_path / "db", None, VectorField(3, "cosine"))
    vectors = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [-3, 0, 0]], np.float32)
    put(replica, range(4), vectors=vectors)
    if sealed:
        replica.flush()
    answer = replica.search(np.array([[5, 0, 0]], np.float32), 4, exact=True)
    assert answer.picked(0).ids().to_list()[0] == 1
    np.testing.assert_allclose(np.sort(answer.distances[0]), [0, 1, 1, 2], atol=1e-6)
    nothing = replica.search(np.zeros((1, 3), np.float32), 4, exact=True)
    np.testing.assert_allclose(nothing.distances[0], 1, atol=1e-6)
    back, _ = replica.get(as_ids(range(4)))
    np.testing.assert_allclose(back.vectors("", replica.schema), vectors)
    folder.close()


def test_wrong_shapes_types_and_numbers_are_refused_and_change_nothing(tmp_path: Path) -> None:
    folder, replica = open_replica(tmp_path / "db", None, VectorField(3), VectorField(2, "dot", "int8", "b"))
    good, small = np.zeros((2, 3), np.float32), np.zeros((2, 2), np.int8)
    bad: list[tuple[Any, int]] = [
        ({"": good}, 2),
        ({"": good, "b": small, "c": small}, 2),
        ({"": good[:1], "b": small}, 2),
        ({"": good.astype(np.float64), "b": small}, 2),
        ({"": good[:, :2], "b": small}, 2),
        ({"": good, "b": small.astype(np.uint8)}, 2),
        ({"": good[:0], "b": small[:0]}, 0),
        ({"": np.array([[1, 2, 3], [1, np.nan, 3]], np.float32), "b": small}, 2),
        ({"": np.array([[1, 2, 3], [1, -np.inf, 3]], np.float32), "b": small}, 2),
    ]
    for vectors, n in bad:
        with pytest.raises(InvalidArgumentError) as caught:
            replica.upsert(as_ids(range(n)), vectors, None, n)
        assert caught.value.field == "vectors" and caught.value.bound
    with pytest.raises(InvalidArgumentError):
        replica.upsert(as_ids([1]), {"": good, "b": small}, None, 2)
    big = np.array([[3e38, 3e38, 3e38], [1, 2, 3]], np.float32)  # finite, though its squares are not
    put_both = replica.upsert(as_ids([1, 2]), {"": big, "b": small}, None, 2)
    assert put_both.count == replica.count() == 2
    with pytest.raises(InvalidArgumentError):
        replica.update(as_ids([1]), {"": good}, None)
    folder.close()
