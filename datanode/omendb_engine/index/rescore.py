"""Candidates that codes named, compared again with the stored rows: results are exact, however coarse the codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.schema import Float32Array, Metric, VectorDType
from omendb_engine.index.metric import is_l2, to_index_space
from omendb_engine.index.native import faiss, on_one_thread

I64Array = npt.NDArray[np.int64]

# Candidates gathered at a time where rows have to be converted before they are compared.
_GATHERED_ROWS = 16_384


class Rescorer:
    """The stored rows (n, d) of a segment, read where they are mapped; only rows asked for are touched."""

    __slots__ = ("_dtype", "_metric", "_norms", "_vectors")

    def __init__(
        self, vectors: npt.NDArray[Any], norms: Float32Array | None, metric: Metric, dtype: VectorDType
    ) -> None:
        self._vectors = vectors
        self._norms = norms
        self._metric: Metric = metric
        self._dtype: VectorDType = dtype

    @property
    def ascending(self) -> bool:
        """Whether the least native value is the best."""
        return is_l2(self._metric)

    def best(self, queries: Float32Array, rows: I64Array, k: int) -> tuple[Float32Array, I64Array]:
        """The ``k`` best of the candidates (m, c), -1 where there are fewer; c is at least k."""
        values = self.values(queries, rows)
        l2 = is_l2(self._metric)
        if len(rows) == 1:  # what most searches are, without the cost of picking along an axis
            order = np.argsort(values[0] if l2 else -values[0], kind="stable")[:k]
            return values.take(order, axis=1), rows.take(order, axis=1)
        order = np.argsort(values if l2 else -values, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(values, order, axis=1), np.take_along_axis(rows, order, axis=1)

    def values(self, queries: Float32Array, rows: I64Array) -> Float32Array:
        """Native values (m, c) of the candidates, infinite (and last) where there is none."""
        values = np.empty(rows.shape, np.float32)
        if self._dtype == "float32":
            self._compare(queries, rows, values)
        else:
            step = max(1, _GATHERED_ROWS // rows.shape[1])
            for start in range(0, len(queries), step):
                part = slice(start, start + step)
                values[part] = self._converted(queries[part], rows[part])
        values[rows < 0] = np.float32(np.inf if is_l2(self._metric) else -np.inf)
        return values

    def _compare(self, queries: Float32Array, rows: I64Array, values: Float32Array) -> None:
        by_rows = faiss.fvec_L2sqr_by_idx if is_l2(self._metric) else faiss.fvec_inner_products_by_idx
        arguments = (
            faiss.swig_ptr(values),
            faiss.swig_ptr(queries),
            faiss.swig_ptr(self._vectors),
            faiss.swig_ptr(rows),
            queries.shape[1],
            len(queries),
            rows.shape[1],
        )
        if len(queries) == 1:
            on_one_thread(by_rows, *arguments)
        else:
            by_rows(*arguments)

    def _converted(self, queries: Float32Array, rows: I64Array) -> Float32Array:
        flat = np.maximum(rows, 0).reshape(-1)
        norms = self._norms[flat] if self._norms is not None else None
        near = to_index_space(self._vectors[flat], norms, self._metric, self._dtype).reshape(*rows.shape, -1)
        if is_l2(self._metric):
            near = near - queries[:, None]
            values: Float32Array = np.einsum("mkd,mkd->mk", near, near)
        else:
            values = np.einsum("mkd,md->mk", near, queries)
        return values


__all__ = ["Rescorer"]
