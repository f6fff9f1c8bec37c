"""Every kind of index in one place: what a specification builds, what that takes, and how it is loaded again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.schema import Float32Array, VectorField
from omendb_engine.index.base import VectorIndex
from omendb_engine.index.hnsw import HnswBuild, build_hnsw, load_hnsw
from omendb_engine.index.ivf import IvfBuild, load_ivf
from omendb_engine.index.ivf_build import build_ivf, training_rows
from omendb_engine.index.policy import IndexSpec

U8Array = npt.NDArray[np.uint8]
IndexBuild = HnswBuild | IvfBuild

_LINK_BYTES = 16
"""Of a node's links at one ``m``, all levels together, with what building adds."""
_ROW_BYTES = 32
"""Of a row in inverted lists beside its code, with room that lists are given to grow."""
_CODE_BITS = {"none": 32, "float16": 16, "scalar8": 8, "product": 4, "binary": 1}


def build_index(
    spec: IndexSpec,
    field: VectorField,
    vectors: npt.NDArray[Any],
    *,
    norms: Float32Array | None,
    threads: int,
    cancelled: Callable[[], bool],
    progress: Callable[[int], None],
    reuse: tuple[U8Array, int] | None = None,
) -> IndexBuild:
    """Build what ``spec`` says (not ``flat``) over the stored rows (n, d) of a field.

    Args:
        threads, cancelled, progress: see :func:`omendb_engine.index.hnsw.build_hnsw`.
        reuse: a graph over the first rows, and how many; only graphs grow.

    Raises:
        BuildCancelledError: ``cancelled()`` was true.
    """
    if spec.kind == "ivf":
        return build_ivf(
            vectors,
            field.metric,
            spec.nlist,
            spec.quantization,
            dtype=field.dtype,
            norms=norms,
            threads=threads,
            cancelled=cancelled,
            progress=progress,
        )
    return build_hnsw(
        vectors,
        field.metric,
        spec.m,
        spec.ef_construction,
        dtype=field.dtype,
        quantization=spec.quantization,
        norms=norms,
        threads=threads,
        cancelled=cancelled,
        progress=progress,
        reuse=reuse,
    )


def load_index(
    built: IndexBuild,
    field: VectorField,
    vectors: npt.NDArray[Any],
    *,
    norms: Float32Array | None,
    path: str,
) -> VectorIndex:
    """Attach what was built, or mapped from the files where that was written, to the stored rows (n, d) of a field.

    Raises:
        CorruptionError: it is unreadable, or was built over other rows.
    """
    if isinstance(built, IvfBuild):
        return load_ivf(
            built.lists,
            vectors,
            field.metric,
            field.dtype,
            quantization=built.quantization,
            ladder=built.ladder,
            curve=built.curve,
            norms=norms,
            path=path,
        )
    return load_hnsw(
        built.graph,
        vectors,
        field.metric,
        field.dtype,
        curve=built.curve,
        norms=norms,
        codes=built.codes,
        quantization=built.quantization,
        path=path,
    )


def file_bytes(built: IndexBuild) -> int:
    """Bytes of its files."""
    if isinstance(built, IvfBuild):
        return built.lists.nbytes
    return built.graph.nbytes + (0 if built.codes is None else built.codes.nbytes)


def build_bytes(spec: IndexSpec, rows: int, field: VectorField) -> int:
    """Memory that a build takes, at most: to be reserved before it begins."""
    compared = rows * field.dimension * _CODE_BITS[spec.quantization] // 8
    if spec.kind == "ivf":
        sample = training_rows(rows, spec.nlist) * field.dimension * 4
        # The codes are there twice while they are written out, the sample while it is gathered.
        return 2 * (sample + compared + rows * _ROW_BYTES + spec.nlist * field.dimension * 4)
    codes = compared if spec.quantization != "none" else 0
    return rows * (field.row_bytes + _LINK_BYTES * spec.m) + codes


def may_grow(kind: str) -> bool:
    """Whether an index of this kind can be continued with more rows, instead of building it anew."""
    return kind == "hnsw"


__all__ = ["IndexBuild", "build_bytes", "build_index", "file_bytes", "load_index", "may_grow"]
