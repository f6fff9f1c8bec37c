"""Exact nearest neighbours, computed block by block, for any number of row subsets at once.

The ground truth of every data set of the repository comes from here, so that recall always means
the same thing: the share of these rows that a search returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import faiss
import numpy as np
import numpy.typing as npt

Metric = Literal["l2", "cosine"]
Float32Matrix = npt.NDArray[np.float32]

__all__ = ["Truth", "exact_truths", "normalized"]


@dataclass(frozen=True, slots=True)
class Truth:
    """The exact best rows of every query.

    `rows` is int32 of shape (queries, k), best first, padded with -1 where fewer than k rows qualify.
    `scores` is float32 of the same shape: the cosine (greater is nearer) for `cosine`, the squared
    Euclidean distance (smaller is nearer) for `l2`; NaN where `rows` is -1.
    """

    rows: npt.NDArray[np.int32]
    scores: Float32Matrix


def normalized(vectors: npt.NDArray[Any]) -> Float32Matrix:
    """Give a float32 copy of `vectors` (n, d) whose rows have length 1; an all-zero row stays zero."""
    matrix = np.array(vectors, dtype=np.float32, order="C")
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    matrix /= np.where(lengths > 0, lengths, 1)
    return matrix


def exact_truths(
    blocks: Iterable[npt.NDArray[Any]],
    queries: npt.NDArray[Any],
    subsets: Mapping[str, npt.NDArray[np.bool_] | None],
    *,
    metric: Metric,
    k: int = 100,
) -> dict[str, Truth]:
    """Find the exact `k` best rows of every query (m, d), in each of the named `subsets`.

    `blocks` are the vectors in row order, each (n_i, d), read once. A subset is a mask over all rows,
    or None for all rows. Equal scores are ordered by row, so that the answer does not depend on the
    size of the blocks.
    """
    prepared = _prepared(queries, metric)
    best = {name: _Best.empty(len(prepared), k) for name in subsets}
    start = 0
    for block in blocks:
        vectors = _prepared(block, metric)
        for name, mask in subsets.items():
            local = np.arange(len(vectors)) if mask is None else np.flatnonzero(mask[start : start + len(vectors)])
            if local.size:
                chosen = vectors if mask is None else vectors[local]
                best[name].offer(_nearest(prepared, chosen, k, metric), local + start)
        start += len(vectors)
    return {name: found.truth(metric) for name, found in best.items()}


@dataclass(slots=True)
class _Best:
    """The best rows so far: costs ascending (a cost is smaller where a row is nearer), -1 where none."""

    costs: Float32Matrix
    rows: npt.NDArray[np.int64]

    @staticmethod
    def empty(queries: int, k: int) -> _Best:
        return _Best(np.full((queries, k), np.inf, np.float32), np.full((queries, k), -1, np.int64))

    def offer(self, found: tuple[Float32Matrix, npt.NDArray[np.int64]], rows: npt.NDArray[np.int64]) -> None:
        """Merge the hits of one block, whose local positions stand for `rows`."""
        costs, positions = found
        k = self.costs.shape[1]
        all_costs = np.concatenate([self.costs, costs], axis=1)
        all_rows = np.concatenate([self.rows, rows[positions]], axis=1)
        order = np.lexsort((all_rows, all_costs), axis=1)[:, :k]
        self.costs = np.take_along_axis(all_costs, order, axis=1)
        self.rows = np.take_along_axis(all_rows, order, axis=1)

    def truth(self, metric: Metric) -> Truth:
        """Give what was found, in the units that a reader of the truth expects."""
        scores = -self.costs if metric == "cosine" else self.costs
        return Truth(self.rows.astype(np.int32), np.where(self.rows < 0, np.nan, scores).astype(np.float32))


def _prepared(vectors: npt.NDArray[Any], metric: Metric) -> Float32Matrix:
    if metric == "cosine":
        return normalized(vectors)
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _nearest(
    queries: Float32Matrix, vectors: Float32Matrix, k: int, metric: Metric
) -> tuple[Float32Matrix, npt.NDArray[np.int64]]:
    """Scan one block exactly: costs and positions, both (m, min(k, n))."""
    depth = min(k, len(vectors))
    if metric == "cosine":
        similarities, positions = faiss.knn(queries, vectors, depth, metric=faiss.METRIC_INNER_PRODUCT)
        return -similarities, positions
    distances, positions = faiss.knn(queries, vectors, depth, metric=faiss.METRIC_L2)
    return distances, positions
