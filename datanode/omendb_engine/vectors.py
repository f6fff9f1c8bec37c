"""Vectors in the form the engine searches: float32 rows, normalised where the metric is cosine.

A vector of a ``float32`` field is stored as it is searched; for cosine that is the normalised vector, with
its original length beside it, so that the caller gets back what was written (to one rounding of float32, and
exactly when the vector had length one). Fields of the small types keep the caller's elements as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.matrices import few_finite
from omendb_common.schema import CollectionSchema, Float32Array, VectorField
from omendb_engine.index.metric import normalise

# Below this distance from one a length is rounding, not scale: the vector is left bit for bit as it came.
_UNIT_TOLERANCE = np.float32(1e-5)
# Up to here a test per element is faster than a product and keeping NumPy from warning of it.
_FEW_ELEMENTS = 4096


@dataclass(frozen=True, slots=True)
class Prepared:
    """n vectors of one field. ``space`` (n, d) float32 is searched; ``norms`` (n,) float32 for cosine;
    ``raw`` (n, d) in the field's dtype unless that is float32."""

    space: Float32Array
    norms: Float32Array | None
    raw: npt.NDArray[Any] | None

    def take(self, rows: npt.NDArray[Any]) -> Prepared:
        """The vectors at ``rows``."""
        return Prepared(
            self.space[rows],
            self.norms[rows] if self.norms is not None else None,
            self.raw[rows] if self.raw is not None else None,
        )

    def stored(self) -> npt.NDArray[Any]:
        """What a segment file holds: the field's own elements."""
        return self.space if self.raw is None else self.raw


def _is_unit(norms: Float32Array) -> bool:
    return bool((np.abs(norms - 1) <= _UNIT_TOLERANCE).all())


def all_finite(array: npt.NDArray[Any]) -> bool:
    """Whether no element is NaN or Inf: a sum of squares is finite only then, or it overflowed."""
    if array.dtype.kind != "f":
        return True
    if array.size <= _FEW_ELEMENTS:
        return few_finite(array)
    flat = array.ravel() if array.dtype != np.float16 else array.astype(np.float32).ravel()
    # Whether a BLAS call sets the floating-point flags that make NumPy warn differs from build to build.
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.dot(flat, flat)
    return math.isfinite(total) or bool(np.isfinite(array).all())


def prepare(field: VectorField, vectors: npt.NDArray[Any]) -> Prepared:
    """Bring vectors (n, d) of the field's dtype into searched form; no copy when none is needed."""
    space = vectors if vectors.dtype == np.float32 else vectors.astype(np.float32)
    raw = None if field.dtype == "float32" else vectors
    if field.metric != "cosine":
        return Prepared(space, None, raw)
    with np.errstate(over="ignore"):
        norms: Float32Array = np.sqrt(np.einsum("ij,ij->i", space, space))
    if _is_unit(norms):
        return Prepared(space, np.ones(len(space), np.float32), raw)
    space, norms = normalise(space)
    return Prepared(space, norms, raw)


def restore(prepared: Prepared) -> npt.NDArray[Any]:
    """The vectors as the caller wrote them."""
    if prepared.raw is not None:
        return prepared.raw
    if prepared.norms is None or (prepared.norms == 1).all():
        return prepared.space
    return prepared.space * prepared.norms[:, None]


class VectorColumns:
    """Preallocated vector columns of one growing buffer: one copy per row, from the caller's array to here."""

    def __init__(self, schema: CollectionSchema, capacity: int) -> None:
        self._fields = schema.vectors
        self.space = {f.name: np.empty((capacity, f.dimension), np.float32) for f in schema.vectors}
        self.norms = {f.name: np.empty(capacity, np.float32) for f in schema.vectors if f.metric == "cosine"}
        self.raw = {
            f.name: np.empty((capacity, f.dimension), f.numpy_dtype) for f in schema.vectors if f.dtype != "float32"
        }

    def put(self, first: int, vectors: Mapping[str, Prepared]) -> None:
        """Write rows ``first …`` of every field."""
        for field in self._fields:
            given = vectors[field.name]
            stop = first + len(given.space)
            self.space[field.name][first:stop] = given.space
            if given.norms is not None:
                self.norms[field.name][first:stop] = given.norms
            if given.raw is not None:
                self.raw[field.name][first:stop] = given.raw

    def at(self, name: str, rows: npt.NDArray[Any]) -> Prepared:
        """The vectors of field ``name`` at ``rows``."""
        return Prepared(
            self.space[name][rows],
            self.norms[name][rows] if name in self.norms else None,
            self.raw[name][rows] if name in self.raw else None,
        )


def vector_row_bytes(schema: CollectionSchema) -> int:
    """Bytes one row takes in :class:`VectorColumns`."""
    size = 0
    for field in schema.vectors:
        size += field.dimension * 4
        size += 4 if field.metric == "cosine" else 0
        size += field.row_bytes if field.dtype != "float32" else 0
    return size


__all__ = [
    "Prepared",
    "VectorColumns",
    "all_finite",
    "prepare",
    "restore",
    "vector_row_bytes",
]
