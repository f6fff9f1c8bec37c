"""Exact scans agree with a plain NumPy search, alone and in batches, by rows and by mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from omendb_common.schema import METRICS, VECTOR_DTYPES, Metric, VectorDType
from omendb_common.scores import distance_to_score
from omendb_engine.index.flat import scan
from omendb_engine.index.metric import (
    distance_to_native,
    native_to_distance,
    normalise,
    prepare_queries,
    to_index_space,
)


def stored(n: int, d: int, metric: Metric, dtype: VectorDType, seed: int = 0) -> tuple[npt.NDArray[Any], Any]:
    """Rows as a segment stores them, with their norms for cosine."""
    rng = np.random.default_rng(seed)
    low, high = {"uint8": (0, 255), "int8": (-128, 127)}.get(dtype, (-3, 3))
    rows = rng.uniform(low, high, (n, d)).astype(dtype)
    if metric != "cosine":
        return rows, None
    unit, norms = normalise(rows)
    return (unit if dtype == "float32" else rows), norms


def brute(space: npt.NDArray[Any], queries: npt.NDArray[Any], metric: Metric) -> npt.NDArray[Any]:
    """Distances (m, n) in float64."""
    x, q = space.astype(np.float64), queries.astype(np.float64)
    if metric == "l2":
        return np.asarray(np.linalg.norm(q[:, None] - x[None], axis=2))
    inner = q @ x.T
    return 1 - inner if metric == "cosine" else -inner


@pytest.mark.parametrize("dtype", VECTOR_DTYPES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("m", [1, 3, 25])
@pytest.mark.parametrize("how", ["all", "rows", "mask", "sparse mask"])
def test_scan_equals_brute_force(metric: Metric, dtype: VectorDType, m: int, how: str) -> None:
    n, d, k = 500, 24, 7
    rows, norms = stored(n, d, metric, dtype)
    queries = prepare_queries(np.random.default_rng(1).normal(0, 2, (m, d)), metric)
    allowed = np.ones(n, np.bool_)
    arguments: dict[str, Any] = {}
    if how != "all":
        allowed = np.random.default_rng(2).random(n) < (0.02 if how == "sparse mask" else 0.6)
        arguments = {"rows": np.flatnonzero(allowed)} if how == "rows" else {"mask": allowed}
    native, found = scan(rows, queries, k, metric, dtype=dtype, norms=norms, **arguments)
    distances = native_to_distance(native, metric)
    truth = brute(to_index_space(rows, norms, metric, dtype), queries, metric)
    truth[:, ~allowed] = np.inf
    wanted = min(k, int(allowed.sum()))
    scale = np.abs(truth[np.isfinite(truth)]).max()
    np.testing.assert_allclose(distances[:, :wanted], np.sort(truth, axis=1)[:, :wanted], rtol=1e-4, atol=1e-6 * scale)
    got = np.take_along_axis(truth, found[:, :wanted], axis=1)
    np.testing.assert_allclose(got, distances[:, :wanted], rtol=1e-4, atol=1e-6 * scale)
    assert (found[:, wanted:] == -1).all()
    assert (np.diff(distances[:, :wanted], axis=1) >= 0).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_a_query_alone_and_in_a_batch_agree(metric: Metric, offset: float) -> None:
    rng = np.random.default_rng(3)
    rows = (rng.standard_normal((2_000, 32)) + offset).astype(np.float32)
    if metric == "cosine":
        rows, _ = normalise(rows)
    queries = prepare_queries(rng.standard_normal((40, 32)) + offset, metric)
    batch, batch_rows = scan(rows, queries, 10, metric)
    for i in range(len(queries)):
        single, single_rows = scan(rows, queries[i : i + 1], 10, metric)
        np.testing.assert_allclose(single[0], batch[i], rtol=1e-4)
        if metric == "l2":
            assert (single_rows[0] == batch_rows[i]).all()


def test_a_row_finds_itself_at_distance_zero_even_far_from_the_origin() -> None:
    rows = (np.random.default_rng(4).standard_normal((1_000, 16)) + 1e4).astype(np.float32)
    native, found = scan(rows, rows[:64].copy(), 3, "l2")
    assert (found[:, 0] == np.arange(64)).all()
    assert (native[:, 0] == 0).all()
    assert (native >= 0).all()


def test_fewer_rows_than_k_and_none_at_all() -> None:
    rows = np.eye(3, dtype=np.float32)
    native, found = scan(rows, rows[:1], 5, "l2")
    assert found.tolist() == [[0, 1, 2, -1, -1]] or sorted(found[0].tolist()) == [-1, -1, 0, 1, 2]
    assert np.isinf(native[0, 3:]).all()
    for empty in (
        scan(rows[:0], rows, 2, "dot"),
        scan(rows, rows, 2, "dot", rows=np.empty(0, np.int64)),
        scan(rows, rows, 2, "dot", mask=np.zeros(3, np.bool_)),
    ):
        assert (empty[1] == -1).all()
        assert empty[1].shape == (3, 2)
    assert scan(rows, rows[:0], 2, "l2")[1].shape == (0, 2)


def test_many_rows_are_scanned_in_blocks() -> None:
    rng = np.random.default_rng(5)
    rows = rng.integers(0, 256, (20_000, 4)).astype(np.uint8)
    queries = rng.uniform(0, 255, (2, 4)).astype(np.float32)
    native, _ = scan(rows, queries, 5, "l2", dtype="uint8")
    truth = ((rows.astype(np.float64)[None] - queries[:, None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(native, np.sort(truth, axis=1)[:, :5], rtol=1e-5)


def test_duplicate_vectors_are_all_found() -> None:
    rows = np.ones((100, 8), np.float32)
    _, found = scan(rows, rows[:1], 100, "l2")
    assert sorted(found[0].tolist()) == list(range(100))


def test_metric_arithmetic() -> None:
    native = np.array([4.0, -1e-9], np.float32)
    assert native_to_distance(native, "l2").tolist() == [2.0, 0.0]
    assert distance_to_native(2.0, "l2") == 4.0
    assert native_to_distance(np.array([0.25], np.float32), "cosine").tolist() == [0.75]
    assert native_to_distance(np.array([0.25], np.float32), "dot").tolist() == [-0.25]
    for metric in METRICS:
        distances = np.array([0.0, 0.5, 2.0], np.float32)
        assert (np.diff(distance_to_score(distances, metric)) < 0).all()
        back = native_to_distance(np.array([distance_to_native(0.5, metric)], np.float32), metric)
        assert back.tolist() == [0.5]


def test_normalise_survives_extreme_lengths_and_zero() -> None:
    rows = np.array([[0, 0], [3e30, 4e30], [3e-30, 4e-30], [3, 4]], np.float32)
    unit, norms = normalise(rows)
    np.testing.assert_allclose(unit, [[0.0, 0.0], [0.6, 0.8], [0.6, 0.8], [0.6, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(norms, [0, 5e30, 5e-30, 5], rtol=1e-6)


def test_rows_and_mask_together_are_refused() -> None:
    rows = np.eye(2, dtype=np.float32)
    with pytest.raises(ValueError, match="not both"):
        scan(rows, rows, 1, "l2", rows=np.array([0]), mask=np.array([True, False]))


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1.0, 1e18, 1e30, 0.0])
def test_a_row_is_normalised_alone_as_among_others(scale: float) -> None:
    rows = np.random.default_rng(5).normal(0, 1, (3, 100)).astype(np.float32) * np.float32(scale)
    with np.errstate(over="ignore"):
        together, lengths = normalise(rows)
        for number, row in enumerate(rows):
            alone, length = normalise(row[None])
            np.testing.assert_array_equal(alone[0], together[number])
            assert length.dtype == alone.dtype == np.dtype(np.float32)
            assert length[0] == lengths[number]
