"""Exact search: SIMD scans over stored vectors, whole, by row list or by mask.

``float32`` rows are scanned where they lie, mapped files included. The other element types are brought to
float32 a block at a time, so memory stays bounded by the block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.schema import Float32Array, Metric, VectorDType
from omendb_engine.index.metric import is_l2, to_index_space
from omendb_engine.index.native import faiss
from omendb_engine.index.product import fits, nearest_by_product

I64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

BLOCK_ROWS = 8_192
# At 20 queries Faiss goes over to a matrix product of its own, slower than ours; below, it subtracts and squares.
_DIRECT_QUERIES_MAX = 19
# Few queries over a row list: follow the list for each instead of gathering the rows once.
_BY_LIST_QUERIES_MAX = 4
_GATHER_ROWS = 65_536
_EPSILON = np.float32(np.finfo(np.float32).eps)
# What |q|^2 + |x|^2 - 2qx may lose, as multiples of epsilon * |q|^2, and what loss is let pass.
_LOSS = np.float32(16)
_TOLERANCE = np.float32(1e-5)


def scan(
    vectors: npt.NDArray[Any],
    queries: Float32Array,
    k: int,
    metric: Metric,
    *,
    dtype: VectorDType = "float32",
    norms: Float32Array | None = None,
    rows: npt.NDArray[Any] | None = None,
    mask: BoolArray | None = None,
) -> tuple[Float32Array, I64Array]:
    """The exact ``k`` nearest rows of each query.

    Args:
        vectors: (n, d) C-contiguous in ``dtype``, as stored in a segment (float32 cosine: normalised).
        queries: (m, d) float32 C-contiguous, from ``metric.prepare_queries``.
        k: 1 or more; it may exceed the rows searched.
        norms: lengths (n) of raw rows, for cosine over a dtype other than float32.
        rows: search only these rows (ascending integers); at most one of ``rows`` and ``mask``.
        mask: search only the rows where this (n) is true.

    Returns:
        Native values (m, k) float32 (squared L2 or inner product), best first, and rows (m, k) int64,
        -1 where there are fewer. A query alone and in a batch agree within 1e-5, relative.
    """
    if mask is not None:
        if rows is not None:
            raise ValueError("give rows or mask, not both")
        if mask.all():
            mask = None
        elif dtype != "float32" or not (len(queries) <= _DIRECT_QUERIES_MAX or fits(len(vectors), len(queries), k)):
            rows, mask = np.flatnonzero(mask), None
    if (rows is not None and len(rows) == 0) or len(vectors) == 0 or len(queries) == 0:
        return empty_result(len(queries), k, metric)
    if dtype != "float32":
        return _scan_converted(vectors, queries, k, metric, dtype, norms, rows)
    if rows is None:
        return _scan_all(vectors, queries, k, metric, mask)
    return _scan_rows(vectors, queries, k, metric, np.ascontiguousarray(rows, np.int64))


def empty_result(m: int, k: int, metric: Metric) -> tuple[Float32Array, I64Array]:
    """No neighbour for any of ``m`` queries."""
    worst = np.float32(np.inf if is_l2(metric) else -np.inf)
    return np.full((m, k), worst, np.float32), np.full((m, k), -1, np.int64)


def _scan_all(
    x: Float32Array, q: Float32Array, k: int, metric: Metric, mask: BoolArray | None
) -> tuple[Float32Array, I64Array]:
    if fits(len(x), len(q), k):
        values, rows = nearest_by_product(x, q, k, l2=is_l2(metric), mask=mask)
        _mend_product(x, q, metric, mask, values, rows)
    else:
        values, rows = np.empty((len(q), k), np.float32), np.empty((len(q), k), np.int64)
        _knn(x, q, k, metric, values, rows, mask)
        if is_l2(metric) and len(q) > _DIRECT_QUERIES_MAX:
            _mend_l2(x, q, values, rows, mask)
    return _worst_where_absent(values, rows, metric)


def _knn(
    x: Float32Array,
    q: Float32Array,
    k: int,
    metric: Metric,
    values: Float32Array,
    rows: I64Array,
    mask: BoolArray | None,
) -> None:
    bits = np.packbits(mask, bitorder="little") if mask is not None else None
    selector = faiss.IDSelectorBitmap(len(x), faiss.swig_ptr(bits)) if bits is not None else None
    arguments = (faiss.swig_ptr(q), faiss.swig_ptr(x), x.shape[1], len(q), len(x), k)
    outputs = (faiss.swig_ptr(values), faiss.swig_ptr(rows))
    if is_l2(metric):
        faiss.knn_L2sqr(*arguments, *outputs, None, selector)
    else:
        faiss.knn_inner_product(*arguments, *outputs, selector)


def _mend_product(
    x: Float32Array, q: Float32Array, metric: Metric, mask: BoolArray | None, values: Float32Array, rows: I64Array
) -> None:
    """Undo what a matrix product does to huge numbers, of which it makes none, and to small differences."""
    wanted = min(rows.shape[1], len(x) if mask is None else int(np.count_nonzero(mask)))
    if wanted and (rows[:, wanted - 1] < 0).any():
        _again(x, q, metric, np.flatnonzero(rows[:, wanted - 1] < 0), values, rows, mask)
    if is_l2(metric):
        _mend_l2(x, q, values, rows, mask)


def _again(
    x: Float32Array,
    q: Float32Array,
    metric: Metric,
    some: I64Array,
    values: Float32Array,
    rows: I64Array,
    mask: BoolArray | None,
) -> None:
    """Answer queries ``some`` again, without a matrix product."""
    k = values.shape[1]
    for start in range(0, len(some), _DIRECT_QUERIES_MAX):
        few = some[start : start + _DIRECT_QUERIES_MAX]
        v, r = np.empty((len(few), k), np.float32), np.empty((len(few), k), np.int64)
        _knn(x, np.ascontiguousarray(q[few]), k, metric, v, r, mask)
        values[few], rows[few] = v, r


def _mend_l2(x: Float32Array, q: Float32Array, values: Float32Array, rows: I64Array, mask: BoolArray | None) -> None:
    """Undo the cancellation of the matrix product.

    Its error is a few epsilon of the squared lengths, however small the distance. Where that could have
    changed who is among the nearest, the query runs again by subtraction; elsewhere the values of the found
    rows are computed again, so that a query's answer does not depend on its neighbours in the batch.
    """
    lengths = np.einsum("ij,ij->i", q, q)
    loss = _LOSS * _EPSILON * lengths
    unsafe = np.flatnonzero(~(loss <= _TOLERANCE * values[:, -1]) & (rows[:, 0] >= 0))
    if len(unsafe):
        _again(x, q, "l2", unsafe, values, rows, mask)
    if len(unsafe) < len(q):
        safe = np.setdiff1d(np.arange(len(q)), unsafe, assume_unique=True)
        step = max(1, _GATHER_ROWS // max(values.shape[1], 1))
        for start in range(0, len(safe), step):
            _recompute(x, q, values, rows, safe[start : start + step])


def _recompute(x: Float32Array, q: Float32Array, values: Float32Array, rows: I64Array, some: I64Array) -> None:
    """The values of the rows found for queries ``some``, by subtraction, best first again."""
    wanted = np.ascontiguousarray(rows[some])
    exact = np.empty(wanted.shape, np.float32)
    ask = np.ascontiguousarray(q[some])
    k = wanted.shape[1]
    faiss.fvec_L2sqr_by_idx(
        faiss.swig_ptr(exact), faiss.swig_ptr(ask), faiss.swig_ptr(x), faiss.swig_ptr(wanted), x.shape[1], len(some), k
    )
    exact[wanted < 0] = np.inf
    order = np.argsort(exact, axis=1, kind="stable")
    values[some] = np.take_along_axis(exact, order, axis=1)
    rows[some] = np.take_along_axis(wanted, order, axis=1)


def _scan_rows(
    x: Float32Array, q: Float32Array, k: int, metric: Metric, rows: I64Array
) -> tuple[Float32Array, I64Array]:
    if len(q) > _BY_LIST_QUERIES_MAX:
        return _scan_gathered(x, q, k, metric, rows)
    m, take = len(q), min(k, len(rows))
    values, found = np.empty((m, take), np.float32), np.empty((m, take), np.int64)
    by_list = faiss.knn_L2sqr_by_idx if is_l2(metric) else faiss.knn_inner_products_by_idx
    # The last argument makes one list serve all queries.
    # fmt: off
    by_list(
        faiss.swig_ptr(q), faiss.swig_ptr(x), faiss.swig_ptr(rows), x.shape[1], m, len(x), len(rows), take,
        faiss.swig_ptr(values), faiss.swig_ptr(found), 0,
    )
    # fmt: on
    if take == k:
        return values, found
    padded = empty_result(m, k, metric)
    padded[0][:, :take], padded[1][:, :take] = values, found
    return padded


def _scan_gathered(
    x: Float32Array, q: Float32Array, k: int, metric: Metric, rows: I64Array
) -> tuple[Float32Array, I64Array]:
    best: tuple[Float32Array, I64Array] | None = None
    for start in range(0, len(rows), _GATHER_ROWS):
        some = rows[start : start + _GATHER_ROWS]
        values, found = _scan_all(np.ascontiguousarray(x[some]), q, min(k, len(some)), metric, None)
        best = merge(best, (values, _renumber(found, some)), k, metric)
    return _padded(best, len(q), k, metric)


def _scan_converted(
    vectors: npt.NDArray[Any],
    q: Float32Array,
    k: int,
    metric: Metric,
    dtype: VectorDType,
    norms: Float32Array | None,
    rows: npt.NDArray[Any] | None,
) -> tuple[Float32Array, I64Array]:
    best: tuple[Float32Array, I64Array] | None = None
    total = len(vectors) if rows is None else len(rows)
    for start in range(0, total, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, total)
        some: Any = slice(start, stop) if rows is None else rows[start:stop]
        block = to_index_space(vectors[some], norms[some] if norms is not None else None, metric, dtype)
        values, found = _scan_all(block, q, min(k, len(block)), metric, None)
        numbers = found + start if rows is None else _renumber(found, some)
        numbers[found < 0] = -1
        best = merge(best, (values, numbers), k, metric)
    return _padded(best, len(q), k, metric)


def _renumber(found: I64Array, rows: npt.NDArray[Any]) -> I64Array:
    numbers = rows[np.maximum(found, 0)].astype(np.int64)
    numbers[found < 0] = -1
    return numbers


def merge(
    left: tuple[Float32Array, I64Array] | None, right: tuple[Float32Array, I64Array], k: int, metric: Metric
) -> tuple[Float32Array, I64Array]:
    """The ``k`` best of two results over different rows; earlier rows win ties."""
    if left is None:
        return right
    values = np.concatenate((left[0], right[0]), axis=1)
    rows = np.concatenate((left[1], right[1]), axis=1)
    order = np.argsort(values if is_l2(metric) else -values, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _padded(
    best: tuple[Float32Array, I64Array] | None, m: int, k: int, metric: Metric
) -> tuple[Float32Array, I64Array]:
    values, rows = empty_result(m, k, metric)
    if best is not None:
        width = min(k, best[0].shape[1])
        values[:, :width], rows[:, :width] = best[0][:, :width], best[1][:, :width]
    return _worst_where_absent(values, rows, metric)


def _worst_where_absent(values: Float32Array, rows: I64Array, metric: Metric) -> tuple[Float32Array, I64Array]:
    """Faiss marks absent results with its own extreme values; here they are infinite, and no square is negative."""
    if is_l2(metric):
        np.maximum(values, np.float32(0), out=values)
    if len(rows) and (rows[:, -1] < 0).any():
        values[rows < 0] = np.float32(np.inf if is_l2(metric) else -np.inf)
    return values, rows


__all__ = [
    "BLOCK_ROWS",
    "empty_result",
    "merge",
    "scan",
]
