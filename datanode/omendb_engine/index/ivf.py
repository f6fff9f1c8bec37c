"""Inverted lists: rows by the nearest of some hundred centroids, each as a short code.

A search compares the query with the centroids, then with the codes in the nearest lists, and the best candidates again
with the stored rows, which are read where the segment maps them. What a row costs in ``index.ivf``:

============  ==========================================  ===================  =================
quantization  code                                        bytes (d elements)   where
============  ==========================================  ===================  =================
none          float32; float16 for the small types        4 d or 2 d, + 8      mapped
float16       float16                                     2 d + 8              mapped
scalar8       a byte an element                           d + 8                mapped
product       4 bits for every 4 elements (or fewer)      d / 8 + 8            own memory
binary        a bit an element and two numbers (RaBitQ)   d / 8 + 8 + 8        mapped
============  ==========================================  ===================  =================

Product codes are scanned 32 at a time, in a layout that Faiss keeps in memory of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.errors import CorruptionError
from omendb_common.index_options import Quantization
from omendb_common.schema import Float32Array, Metric, VectorDType
from omendb_engine.index.curve import RecallCurve
from omendb_engine.index.ivf_effort import EffortLadder, candidates
from omendb_engine.index.metric import is_l2
from omendb_engine.index.native import faiss, on_one_thread
from omendb_engine.index.rescore import Rescorer

I64Array = npt.NDArray[np.int64]
U8Array = npt.NDArray[np.uint8]

_CACHED_MAX = 64
_LIST_BYTES = 96
"""What a list costs in memory beside its codes."""


@dataclass(frozen=True, slots=True)
class IvfBuild:
    """Finished lists. ``lists``: bytes of ``index.ivf``."""

    lists: U8Array
    n: int
    nlist: int
    quantization: Quantization
    ladder: EffortLadder
    curve: RecallCurve


def in_own_memory(quantization: Quantization) -> bool:
    """Whether codes are held in memory rather than in the mapped file."""
    return quantization == "product"


def is_exact(quantization: Quantization, dtype: VectorDType) -> bool:
    """Whether a code says as much as the stored row does, so that nothing is compared again."""
    return quantization == "none" and dtype == "float32"


class IvfIndex:
    """Lists over the rows of a segment; searches from any number of threads at once."""

    kind = "ivf"

    def __init__(
        self,
        index: Any,
        keep: tuple[Any, ...],
        *,
        quantization: Quantization,
        ladder: EffortLadder,
        curve: RecallCurve,
        rescorer: Rescorer | None,
        memory_bytes: int,
    ) -> None:
        self._index = index
        self._keep = keep  # the memory that Faiss points into
        self._ladder = ladder
        self._rescorer = rescorer
        self._parameters: dict[int, Any] = {}
        self._plans: dict[tuple[int, int], tuple[int, int]] = {}
        self._efforts: dict[tuple[float, int], int] = {}
        self._worst = np.float32(np.inf if index.metric_type == faiss.METRIC_L2 else -np.inf)
        self._dimension = int(index.d)
        self.nlist = int(index.nlist)
        self.n = int(index.ntotal)
        self.quantization: Quantization = quantization
        self.curve = curve
        self.memory_bytes = memory_bytes

    def effort_for(self, recall_target: float, k: int) -> int:
        """See ``VectorIndex``."""
        found = self._efforts.get((recall_target, k))
        if found is None:
            if len(self._efforts) >= _CACHED_MAX:
                self._efforts = {}
            found = self._efforts[recall_target, k] = self.curve.effort_for(recall_target, k)
        return found

    def recall_for(self, ef: int, k: int) -> float:
        """See ``VectorIndex``."""
        return self.curve.recall_for(ef, k)

    def plan(self, ef: int, k: int) -> tuple[int, int]:
        """Lists to look into, and candidates to compare again, for ``k`` neighbours at an effort."""
        found = self._plans.get((ef, k))
        if found is None:
            if len(self._plans) >= _CACHED_MAX:
                self._plans = {}
            probes, oversampling = self._ladder.at(ef)
            wide = k if self._rescorer is None else max(k, min(candidates(k, oversampling), self.n))
            found = self._plans[ef, k] = min(self.nlist, math.ceil(probes)), wide
        return found

    def search(
        self, queries: Float32Array, k: int, *, ef: int, allowed: U8Array | None = None
    ) -> tuple[Float32Array, I64Array]:
        """See ``VectorIndex``."""
        if queries.shape[1] != self._dimension:
            raise ValueError(f"queries of dimension {queries.shape[1]} for an index of {self._dimension}")
        probes, wide = self.plan(ef, k)
        parameters = self._plain(probes) if allowed is None else self._selecting(probes, allowed)
        values, rows = search_lists(self._index, queries, wide, parameters)
        if self._rescorer is None:
            values[rows < 0] = self._worst  # where Faiss says its own extreme
            return values, rows
        return self._rescorer.best(queries, rows, k)

    def _plain(self, probes: int) -> Any:
        found = self._parameters.get(probes)
        if found is None:
            if len(self._parameters) >= _CACHED_MAX:
                self._parameters = {}
            found = self._parameters[probes] = faiss.IVFSearchParameters(nprobe=probes)
        return found

    def _selecting(self, probes: int, allowed: U8Array) -> Any:
        if allowed.nbytes * 8 < self.n:
            raise ValueError(f"{allowed.nbytes * 8} bits for {self.n} rows")
        selector = faiss.IDSelectorBitmap(self.n, faiss.swig_ptr(allowed))
        return faiss.IVFSearchParameters(nprobe=probes, sel=selector)


def search_lists(index: Any, queries: Float32Array, k: int, parameters: Any) -> tuple[Float32Array, I64Array]:
    """What Faiss finds: values (m, k) by its codes, best first, and rows, -1 where there are fewer."""
    m = len(queries)
    values, rows = np.empty((m, k), np.float32), np.empty((m, k), np.int64)
    outputs = (faiss.swig_ptr(values), faiss.swig_ptr(rows))
    if m > 1:
        index.search_c(m, faiss.swig_ptr(queries), k, *outputs, parameters)
        return values, rows
    on_one_thread(index.search_c, m, faiss.swig_ptr(queries), k, *outputs, parameters)
    return values, rows


def load_ivf(
    lists: U8Array,
    vectors: npt.NDArray[Any],
    metric: Metric,
    dtype: VectorDType,
    *,
    quantization: Quantization,
    ladder: EffortLadder,
    curve: RecallCurve,
    norms: Float32Array | None = None,
    path: str = "index.ivf",
) -> IvfIndex:
    """Attach verified lists to a segment's stored vectors; codes that can stay in ``lists`` do.

    Args:
        lists: bytes of ``index.ivf``; kept alive by the index, as ``vectors`` and ``norms`` are.
        vectors: (n, d) in ``dtype``, C-contiguous.

    Raises:
        CorruptionError: lists that are unreadable or of another shape.
    """
    n, dimension = vectors.shape
    try:
        index = faiss.read_index(
            faiss.ZeroCopyIOReader(faiss.swig_ptr(lists), lists.nbytes), faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE
        )
    except RuntimeError as error:
        raise CorruptionError(f"not an index this release can read: {error}", path=path) from None
    fits = isinstance(index, faiss.IndexIVF) and (index.d, index.ntotal) == (dimension, n)
    if not fits or (index.metric_type == faiss.METRIC_L2) != is_l2(metric) or not ladder.steps:
        raise CorruptionError("the lists belong to other vectors", path=path, bound=f"{n} rows of {dimension}")
    rescorer = None if is_exact(quantization, dtype) else Rescorer(vectors, norms, metric, dtype)
    own = lists.nbytes if in_own_memory(quantization) else 0
    return IvfIndex(
        index,
        (lists, vectors),
        quantization=quantization,
        ladder=ladder,
        curve=curve,
        rescorer=rescorer,
        memory_bytes=own + _LIST_BYTES * int(index.nlist),
    )


__all__ = ["IvfBuild", "IvfIndex", "in_own_memory", "is_exact", "load_ivf", "search_lists"]
