"""Metric arithmetic: what is indexed, how queries are prepared, and how results are told.

=======  =====================  ======================  ==================  ==================
metric   indexed rows           native value            distance            score
=======  =====================  ======================  ==================  ==================
l2       as they are            squared L2, less first  its square root     1 / (1 + distance)
cosine   divided by length      inner product           1 - inner product   1 - distance
dot      as they are            inner product           minus that          the inner product
=======  =====================  ======================  ==================  ==================

A smaller distance is always nearer; a greater score is always better.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.schema import Float32Array, Metric, VectorDType

_ZERO = np.float32(0)
_SQUARE_MIN = 1e-36


def is_l2(metric: Metric) -> bool:
    """Whether native values are squared distances (else inner products, greatest first)."""
    return metric == "l2"


def normalise(vectors: npt.NDArray[Any]) -> tuple[Float32Array, Float32Array]:
    """Rows (n, d) divided by their Euclidean length, and the lengths (n), both float32.

    A zero row stays zero: its inner product with anything is 0, its cosine distance 1.
    """
    rows = np.ascontiguousarray(vectors, np.float32)
    if len(rows) == 1:
        square = float(np.einsum("j,j->", rows[0], rows[0]))
        if _SQUARE_MIN < square < math.inf:  # else the square left float32's range
            norm = np.float32(math.sqrt(square))
            return rows / norm, np.full(1, norm, np.float32)
    squares: Float32Array = np.einsum("ij,ij->i", rows, rows)
    norms = np.sqrt(squares)
    odd = ~np.isfinite(norms) | (norms < 1e-18)
    if odd.any():  # the squares left float32's range
        norms[odd] = np.linalg.norm(rows[odd].astype(np.float64), axis=1).astype(np.float32)
    divisors = norms.copy()
    divisors[norms == 0] = 1
    unit: Float32Array = np.divide(rows, divisors[:, None], dtype=np.float32)
    return unit, norms


def prepare_queries(queries: npt.NDArray[Any], metric: Metric) -> Float32Array:
    """Queries (m, d) of any number type as C-contiguous float32, of length 1 for cosine."""
    if metric == "cosine":
        return normalise(queries)[0]
    return np.ascontiguousarray(queries, np.float32)


def to_index_space(
    vectors: npt.NDArray[Any], norms: Float32Array | None, metric: Metric, dtype: VectorDType
) -> Float32Array:
    """Stored rows (n, d) as the float32 rows that are compared.

    ``float32`` rows are stored that way already and come back as they are, without a copy. For cosine over
    the small dtypes the raw values are stored and divided here by ``norms`` (computed when None).
    """
    if dtype == "float32":
        return vectors
    rows = vectors.astype(np.float32)
    if metric != "cosine":
        return rows
    if norms is None:
        return normalise(rows)[0]
    rows /= np.where(norms == 0, np.float32(1), norms)[:, None]
    return rows


def native_to_distance(native: Float32Array, metric: Metric) -> Float32Array:
    """Distances of native values, any shape; a new float32 array, smaller is nearer."""
    if metric == "l2":
        clamped = np.maximum(native, _ZERO)  # rounding may leave a square a little below zero
        return np.sqrt(clamped, out=clamped)
    if metric == "cosine":
        return np.float32(1) - native
    return np.negative(native)


def distance_to_native(distance: float, metric: Metric) -> float:
    """The native value of a distance: the threshold to cut native results at."""
    if metric == "l2":
        return distance * distance if distance > 0 else 0.0
    return 1.0 - distance if metric == "cosine" else -distance


__all__ = [
    "distance_to_native",
    "is_l2",
    "native_to_distance",
    "normalise",
    "prepare_queries",
    "to_index_space",
]
