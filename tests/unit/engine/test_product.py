"""Exact search by matrix product finds what a plain one finds: by blocks, masked, tied, with huge numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.schema import METRICS, Metric
from omendb_engine.index import flat, product
from omendb_engine.index.flat import scan
from omendb_engine.index.metric import prepare_queries
from omendb_engine.index.product import K_MAX, QUERIES_MIN, ROWS_MIN, fits, nearest_by_product


def test_where_it_is_used() -> None:
    assert fits(ROWS_MIN, QUERIES_MIN, K_MAX)
    assert not fits(ROWS_MIN - 1, QUERIES_MIN, K_MAX)
    assert not fits(ROWS_MIN, QUERIES_MIN - 1, K_MAX)
    assert not fits(ROWS_MIN, QUERIES_MIN, K_MAX + 1)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 700),
    m=st.integers(1, 70),
    k=st.integers(1, 20),
    block=st.sampled_from([70, 300, 1 << 19]),
    l2=st.booleans(),
    share=st.sampled_from([None, 0.0, 0.02, 0.5, 1.0]),
    seed=st.integers(0, 1 << 20),
)
def test_whole_numbers_give_just_the_first_of_the_nearest(
    n: int, m: int, k: int, block: int, l2: bool, share: float | None, seed: int
) -> None:
    """Small whole numbers are exact in float32, and full of ties: the earlier row wins, as in a stable sort."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, (n, 3)).astype(np.float32)
    q = rng.integers(-2, 3, (m, 3)).astype(np.float32)
    mask = None if share is None else rng.random(n) < share
    before = product._BLOCK_VALUES
    product._BLOCK_VALUES = block
    try:
        values, rows = nearest_by_product(x, q, k, l2=l2, mask=mask)
    finally:
        product._BLOCK_VALUES = before
    truth = ((q[:, None] - x[None]) ** 2).sum(axis=2) if l2 else -(q @ x.T)
    if mask is not None:
        truth[:, ~mask] = np.inf
    order = np.argsort(truth, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(truth, order, axis=1)
    width = order.shape[1]
    expected = np.full((m, k), -1)
    expected[:, :width] = np.where(np.isinf(best), -1, order)
    assert (rows == expected).all()
    there = rows >= 0
    assert (values[there] == (best if l2 else -best)[there[:, :width]]).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("how", ["all", "mask", "rows", "few"])
def test_a_batch_finds_what_each_query_finds_alone(metric: Metric, how: str) -> None:
    rng = np.random.default_rng(7)
    n, d = 3 * ROWS_MIN, 32
    x = rng.standard_normal((n, d)).astype(np.float32)
    queries = prepare_queries(rng.standard_normal((40, d)), metric)
    allowed = rng.random(n) < (0.6 if how != "few" else 5 / n)
    arguments: dict[str, Any] = {} if how == "all" else {"mask": allowed}
    if how == "rows":
        arguments = {"rows": np.flatnonzero(allowed)}
    values, rows = scan(x, queries, 10, metric, **arguments)
    for i in range(len(queries)):
        alone, one = scan(x, queries[i : i + 1], 10, metric, **arguments)
        assert (one[0] == rows[i]).all()
        np.testing.assert_allclose(values[i], alone[0], rtol=1e-5, atol=0 if metric == "l2" else 1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_numbers_whose_squares_overflow_are_compared_one_by_one(masked: bool) -> None:
    """A product of such numbers is infinite or none, where a difference of two of them is small."""
    rng = np.random.default_rng(8)
    x = (np.float32(3e19) + rng.standard_normal((ROWS_MIN, 4)).astype(np.float32) * np.float32(1e17)).astype(np.float32)
    queries = x[: QUERIES_MIN + 3].copy()
    mask = np.ones(len(x), np.bool_)
    mask[-100:] = not masked
    values, rows = scan(x, queries, 5, "l2", mask=mask)
    assert (rows[:, 0] == np.arange(len(queries))).all()
    assert (values[:, 0] == 0).all()
    assert (rows >= 0).all()
    assert mask[rows].all()


def test_a_batch_of_the_least_size_goes_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def watched(x: npt.NDArray[Any], q: npt.NDArray[Any], k: int, **more: Any) -> Any:
        sizes.append(len(q))
        return nearest_by_product(x, q, k, **more)

    monkeypatch.setattr(flat, "nearest_by_product", watched)
    x = np.random.default_rng(9).standard_normal((ROWS_MIN, 8)).astype(np.float32)
    for m in (1, QUERIES_MIN - 1, QUERIES_MIN, 100):
        scan(x, x[:m].copy(), 3, "l2")
    assert sizes == [QUERIES_MIN, 100]
