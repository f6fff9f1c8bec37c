"""Exact search by matrix product: many queries share each row that is read.

Comparing one query with one row is bound by arithmetic, and keeping the best of each query by its bookkeeping. A
product of matrices does the first three times as fast; for the second, the rows of a block are taken in groups: the
``k``-th smallest of the groups' minima bounds the ``k``-th smallest value, and few values lie below that.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from omendb_common.schema import Float32Array
from omendb_engine.index.native import faiss

I64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

QUERIES_MIN = 12
"""Below, reading every row for each query is as fast."""
ROWS_MIN = 2_048
"""Below, a block costs more than it saves."""
K_MAX = 64
"""Above, groups of rows bound too little."""
_BLOCK_QUERIES = 64
# Values at a time: few enough to stay in the processor's cache.
_BLOCK_VALUES = 1 << 19
_GROUP = 64


def fits(n: int, m: int, k: int) -> bool:
    """Whether ``m`` queries for ``k`` of ``n`` rows are faster this way."""
    return m >= QUERIES_MIN and n >= ROWS_MIN and k <= K_MAX


def nearest_by_product(
    x: Float32Array, q: Float32Array, k: int, *, l2: bool, mask: BoolArray | None = None
) -> tuple[Float32Array, I64Array]:
    """The ``k`` rows of ``x`` (n, d) with the least squared distance, or the greatest inner product, for every query.

    Args:
        q: (m, d) queries.
        k: at most ``K_MAX``; :func:`fits` says when this is worth it.
        mask: only rows where this (n) is true.

    Returns:
        Values (m, k) float32, best first, and rows (m, k) int64, -1 where there are fewer. Squared distances are
        |q|² + |x|² - 2qx, with the rounding of the lengths.
    """
    values, rows = np.empty((len(q), k), np.float32), np.empty((len(q), k), np.int64)
    for start in range(0, len(q), _BLOCK_QUERIES):
        some = slice(start, start + _BLOCK_QUERIES)
        values[some], rows[some] = _few(x, np.ascontiguousarray(q[some]), k, l2, mask)
    if not l2:
        np.negative(values, out=values)
    return values, rows


def _few(x: Float32Array, q: Float32Array, k: int, l2: bool, mask: BoolArray | None) -> tuple[Float32Array, I64Array]:
    """For at most ``_BLOCK_QUERIES`` queries; inner products are negated, so that the least is the best."""
    m = len(q)
    values, rows = np.full((m, k), np.inf, np.float32), np.full((m, k), -1, np.int64)
    step = _BLOCK_VALUES // m
    product = _Squares(q, min(step, len(x))) if l2 else _Products(q, min(step, len(x)))
    for start in range(0, len(x), step):
        near = product.of(x[start : start + step])
        if mask is not None:
            near += np.where(mask[start : start + step], np.float32(0), np.float32(np.inf))
        # A row that was found before wins a tie, and what is infinite is no hit.
        bound = np.minimum(_bound(near, k), np.nextafter(values[:, -1], np.float32(-np.inf)))
        found = np.flatnonzero(near <= bound[:, None])
        if len(found):
            query, column = np.divmod(found, near.shape[1])
            _take(values, rows, query, column + start, near.ravel()[found])
    return values, rows


class _Squares:
    """Squared distances of some queries to blocks of rows."""

    def __init__(self, q: Float32Array, rows_max: int) -> None:
        self._q = q
        self._out = np.empty(len(q) * rows_max, np.float32)

    def of(self, block: Float32Array) -> Float32Array:
        """(m, rows of the block), valid until the next call."""
        (n, d), m = block.shape, len(self._q)
        out = self._out[: m * n]
        faiss.pairwise_L2sqr(d, m, faiss.swig_ptr(self._q), n, faiss.swig_ptr(block), faiss.swig_ptr(out))
        return out.reshape(m, n)


class _Products:
    """Negated inner products of some queries with blocks of rows."""

    def __init__(self, q: Float32Array, rows_max: int) -> None:
        m, d = q.shape
        self._transform = faiss.LinearTransform(d, m, False)
        faiss.copy_array_to_vector(np.negative(q).reshape(-1), self._transform.A)
        self._transform.is_trained = True
        self._out = np.empty((rows_max, m), np.float32)

    def of(self, block: Float32Array) -> Float32Array:
        """(m, rows of the block), valid until the next call."""
        self._transform.apply_noalloc(len(block), faiss.swig_ptr(block), faiss.swig_ptr(self._out))
        return np.ascontiguousarray(self._out[: len(block)].T)


def _bound(near: Float32Array, k: int) -> Float32Array:
    """A bound (m) on the ``k``-th smallest value of each row."""
    m, n = near.shape
    even = n // _GROUP * _GROUP
    # Of a group, every n/_GROUP-th: so minima are taken of whole stretches at a time.
    least = near[:, :even].reshape(m, _GROUP, -1).min(axis=1)
    if even < n:
        least = np.concatenate((least, near[:, even:]), axis=1)
    if least.shape[1] < k:
        return np.full(m, np.inf, np.float32)
    return np.ascontiguousarray(np.partition(least, k - 1, axis=1)[:, k - 1])


def _take(values: Float32Array, rows: I64Array, query: I64Array, found: I64Array, near: Float32Array) -> None:
    """Put what was found, ordered by query, among the best so far."""
    k = values.shape[1]
    counts = np.bincount(query, minlength=len(values))
    place = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
    all_values = np.full((len(values), k + int(counts.max())), np.inf, np.float32)
    all_rows = np.full(all_values.shape, -1, np.int64)
    all_values[:, :k], all_rows[:, :k] = values, rows
    all_values[query, k + place], all_rows[query, k + place] = near, found
    order = np.argsort(all_values, axis=1, kind="stable")[:, :k]
    values[:], rows[:] = np.take_along_axis(all_values, order, axis=1), np.take_along_axis(all_rows, order, axis=1)


__all__ = ["K_MAX", "QUERIES_MIN", "ROWS_MIN", "fits", "nearest_by_product"]
