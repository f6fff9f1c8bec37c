"""HNSW graphs (Malkov and Yashunin, 2016) over vectors that stay where the segment stores them.

The graph file holds links only. At search time Faiss reads the rows from the segment's mapped vectors
whenever these are what the graph compares; otherwise from ``index.codes``, a mapped copy in the form it does:

=========================  ==================  ====================================
elements and metric        compared form       where
=========================  ==================  ====================================
float32, any metric        float32             the segment's vectors
float16, l2 or dot         float16             the segment's vectors
uint8, l2 or dot           bytes               the segment's vectors
int8, l2 or dot            bytes offset 128    index.codes (n * d bytes)
small types, cosine        float16 normalised  index.codes (2 * n * d bytes)
=========================  ==================  ====================================

What is returned for bytes and for cosine over small types is computed again from the stored rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.errors import CorruptionError
from omendb_common.schema import Float32Array, Metric, VectorDType
from omendb_engine.index.curve import CURVE_KS, RecallCurve, measure, sample_rows
from omendb_engine.index.flat import scan
from omendb_engine.index.metric import is_l2, to_index_space
from omendb_engine.index.native import faiss

I64Array = npt.NDArray[np.int64]
U8Array = npt.NDArray[np.uint8]

CHUNK_ROWS = 4_096
_RNG_SEED = 12_345
_PARAMETERS_CACHED_MAX = 64
# Candidates gathered at a time when results are restated.
_RESCORED_ROWS = 16_384
# A view into foreign memory wants an owner: this index lends its empty one, since Python keeps the bytes alive.
# The index must live as long as the module, for ``owner`` is a bare pointer into it.
_OWNERLESS = faiss.IndexFlatL2(1)


class BuildCancelledError(Exception):
    """The caller asked an index build to stop; nothing was written."""


@dataclass(frozen=True, slots=True)
class HnswBuild:
    """A finished graph. ``graph``: bytes of ``index.hnsw``. ``codes``: bytes of ``index.codes``, or None."""

    graph: U8Array
    codes: U8Array | None
    n: int
    m: int
    ef_construction: int
    curve: RecallCurve


def needs_codes(metric: Metric, dtype: VectorDType) -> bool:
    """Whether the compared form differs from the stored one, so that it is kept in ``index.codes``."""
    return dtype == "int8" or (metric == "cosine" and dtype != "float32")


def encode_codes(
    vectors: npt.NDArray[Any], norms: Float32Array | None, metric: Metric, dtype: VectorDType
) -> npt.NDArray[Any]:
    """Stored rows (n, d) in the compared form of ``index.codes``: uint8 or float16 (n, d)."""
    if metric == "cosine":
        return to_index_space(vectors, norms, metric, dtype).astype(np.float16)
    return vectors.view(np.uint8) ^ np.uint8(0x80)


def _storage(dimension: int, metric: Metric, dtype: VectorDType) -> Any:
    """An empty Faiss store of the compared form."""
    faiss_metric = faiss.METRIC_L2 if is_l2(metric) else faiss.METRIC_INNER_PRODUCT
    if dtype == "float32":
        return faiss.IndexFlatL2(dimension) if is_l2(metric) else faiss.IndexFlatIP(dimension)
    kinds = faiss.ScalarQuantizer
    byte_kinds = {"float16": kinds.QT_fp16, "uint8": kinds.QT_8bit_direct, "int8": kinds.QT_8bit_direct_signed}
    kind = kinds.QT_fp16 if metric == "cosine" else byte_kinds[dtype]
    return faiss.IndexScalarQuantizer(dimension, kind, faiss_metric)


def _read_graph(graph: U8Array, dimension: int, n: int, path: str, *, copy: bool) -> Any:
    """A Faiss index without storage; ``copy=False`` leaves the links in ``graph``, which must stay alive."""
    if copy:
        reader = faiss.VectorIOReader()
        faiss.copy_array_to_vector(graph, reader.data)
    else:
        reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(graph), graph.nbytes)
    try:
        index = faiss.read_index(reader, faiss.IO_FLAG_SKIP_STORAGE)
    except RuntimeError as error:
        raise CorruptionError(f"not a graph this release can read: {error}", path=path) from None
    if not isinstance(index, faiss.IndexHNSW) or index.d != dimension or index.ntotal != n:
        raise CorruptionError("the graph belongs to other vectors", path=path, bound=f"{n} rows of {dimension}")
    return index


class HnswIndex:
    """A graph attached to its vectors; searches from any number of threads at once."""

    kind = "hnsw"

    def __init__(self, index: Any, keep: tuple[Any, ...], curve: RecallCurve, rescorer: _Rescorer | None) -> None:
        self._index = index
        self._keep = keep  # the store, and the memory that Faiss points into
        self._rescorer = rescorer
        self._parameters: dict[int, Any] = {}
        self._efforts: dict[tuple[float, int], int] = {}
        self._dimension = int(index.d)
        self.n = int(index.ntotal)
        self.curve = curve

    @property
    def memory_bytes(self) -> int:
        """Own memory: the node tables are copied (12 bytes a row); links and vectors are in mapped files."""
        return self.n * 12

    def effort_for(self, recall_target: float, k: int) -> int:
        """See ``VectorIndex``."""
        found = self._efforts.get((recall_target, k))
        if found is None:
            if len(self._efforts) >= _PARAMETERS_CACHED_MAX:
                self._efforts = {}
            found = self._efforts[recall_target, k] = self.curve.effort_for(recall_target, k)
        return found

    def search(
        self, queries: Float32Array, k: int, *, ef: int, allowed: U8Array | None = None
    ) -> tuple[Float32Array, I64Array]:
        """See ``VectorIndex``."""
        m, d = queries.shape
        if d != self._dimension:
            raise ValueError(f"queries of dimension {d} for an index of {self._dimension}")
        rescored = self._rescorer is not None and self._rescorer.wanted(queries)
        wide = 2 * k if rescored else k
        values, rows = np.empty((m, wide), np.float32), np.empty((m, wide), np.int64)
        parameters = self._plain(ef) if allowed is None else self._selecting(ef, allowed)
        outputs = (faiss.swig_ptr(values), faiss.swig_ptr(rows))
        self._index.search_c(m, faiss.swig_ptr(queries), wide, *outputs, parameters)
        if self._rescorer is not None and rescored:
            return self._rescorer.best(queries, rows, k)
        return values, rows

    def _plain(self, ef: int) -> Any:
        """Search parameters are costly to make (microseconds) and never change, so each ef's are kept."""
        found = self._parameters.get(ef)
        if found is None:
            if len(self._parameters) >= _PARAMETERS_CACHED_MAX:
                self._parameters = {}
            found = self._parameters[ef] = faiss.SearchParametersHNSW(efSearch=ef)
        return found

    def _selecting(self, ef: int, allowed: U8Array) -> Any:
        if allowed.nbytes * 8 < self.n:
            raise ValueError(f"{allowed.nbytes * 8} bits for {self.n} rows")
        selector = faiss.IDSelectorBitmap(self.n, faiss.swig_ptr(allowed))
        return faiss.SearchParametersHNSW(efSearch=ef, sel=selector)


class _Rescorer:
    """Restates results from the stored vectors where the graph compares something less exact.

    That is cosine over small types (float16 copies), and bytes asked with fractions: Faiss truncates a query
    to integers when the dimension divides by 16.
    """

    __slots__ = ("_dtype", "_metric", "_norms", "_vectors")

    def __init__(
        self, vectors: npt.NDArray[Any], norms: Float32Array | None, metric: Metric, dtype: VectorDType
    ) -> None:
        self._vectors = vectors
        self._norms = norms
        self._metric: Metric = metric
        self._dtype: VectorDType = dtype

    def wanted(self, queries: Float32Array) -> bool:
        """Whether results for these queries need restating."""
        return self._metric == "cosine" or not bool((queries == np.rint(queries)).all())

    def best(self, queries: Float32Array, rows: I64Array, k: int) -> tuple[Float32Array, I64Array]:
        """The ``k`` best of the candidates (m, c) in float32; c is at least k."""
        values = np.empty(rows.shape, np.float32)
        step = max(1, _RESCORED_ROWS // rows.shape[1])
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            values[part] = self._values(queries[part], rows[part])
        l2 = is_l2(self._metric)
        values[rows < 0] = np.float32(np.inf if l2 else -np.inf)
        order = np.argsort(values if l2 else -values, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(values, order, axis=1), np.take_along_axis(rows, order, axis=1)

    def _values(self, queries: Float32Array, rows: I64Array) -> Float32Array:
        flat = np.maximum(rows, 0).reshape(-1)
        norms = self._norms[flat] if self._norms is not None else None
        near = to_index_space(self._vectors[flat], norms, self._metric, self._dtype).reshape(*rows.shape, -1)
        if is_l2(self._metric):
            near = near - queries[:, None]
            values: Float32Array = np.einsum("mkd,mkd->mk", near, near)
        else:
            values = np.einsum("mkd,md->mk", near, queries)
        return values


def load_hnsw(
    graph: U8Array,
    vectors: npt.NDArray[Any],
    metric: Metric,
    dtype: VectorDType,
    *,
    curve: RecallCurve,
    norms: Float32Array | None = None,
    codes: U8Array | None = None,
    path: str = "index.hnsw",
) -> HnswIndex:
    """Attach a verified graph to a segment's stored vectors without copying either.

    Args:
        graph: bytes of ``index.hnsw``; ``codes``: bytes of ``index.codes`` when ``needs_codes``.
        vectors: (n, d) in ``dtype``, C-contiguous; all arrays are kept alive by the index.
        norms: lengths (n) of the rows for cosine over a small dtype; computed as needed when None.

    Raises:
        CorruptionError: a graph that is unreadable or of another shape.
    """
    n, dimension = vectors.shape
    index = _read_graph(graph, dimension, n, path, copy=False)
    raw = vectors.reshape(-1).view(np.uint8) if codes is None else codes
    storage = _storage(dimension, metric, dtype)
    if raw.nbytes != n * storage.code_size or (codes is None) == needs_codes(metric, dtype):
        raise CorruptionError(f"{raw.nbytes} bytes of codes", path=path, bound=f"{n * storage.code_size}")
    storage.codes = faiss.MaybeOwnedVectorUInt8.create_view(faiss.swig_ptr(raw), raw.nbytes, _OWNERLESS.codes.owner)
    storage.ntotal = n
    index.storage = storage
    index.own_fields = False
    compares_less = dtype in ("int8", "uint8") or needs_codes(metric, dtype)
    rescorer = _Rescorer(vectors, norms, metric, dtype) if compares_less else None
    return HnswIndex(index, (storage, graph, raw, vectors), curve, rescorer)


def build_hnsw(
    vectors: npt.NDArray[Any],
    metric: Metric,
    m: int,
    ef_construction: int,
    *,
    dtype: VectorDType = "float32",
    norms: Float32Array | None = None,
    threads: int = 1,
    chunk_rows: int = CHUNK_ROWS,
    cancelled: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda rows: None,
    reuse: tuple[U8Array, int] | None = None,
) -> HnswBuild:
    """Build a graph over stored rows (n, d) and measure its recall curve.

    Takes memory for the compared form of the rows (n * d * 4 bytes for float32) and the graph while it runs:
    Faiss can only grow a store of its own.

    Args:
        threads: of this build only; other threads keep their setting.
        chunk_rows: rows between two looks at ``cancelled``; ``progress`` gets the rows done so far.
        reuse: a graph over the first rows of ``vectors``, and how many; only the rest is inserted.

    Raises:
        BuildCancelledError: ``cancelled()`` was true.
    """
    n = len(vectors)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        index, storage, done = _start(vectors, norms, metric, dtype, m, reuse)
        index.hnsw.efConstruction = ef_construction
        for start in range(done, n, chunk_rows):
            if cancelled():
                raise BuildCancelledError(f"{start} of {n} rows done")
            stop = min(start + chunk_rows, n)
            block = to_index_space(vectors[start:stop], norms[start:stop] if norms is not None else None, metric, dtype)
            index.add_c(stop - start, faiss.swig_ptr(np.ascontiguousarray(block)))
            progress(stop)
        writer = faiss.VectorIOWriter()
        faiss.write_index(index, writer, faiss.IO_FLAG_SKIP_STORAGE)
        graph = faiss.vector_to_array(writer.data)
        codes = faiss.vector_to_array(storage.codes) if needs_codes(metric, dtype) else None
        del index, storage, writer  # the curve is measured on what will be served, without a second copy
        if cancelled():
            raise BuildCancelledError(f"{n} rows done")
        curve = _measure(vectors, norms, metric, dtype, graph, codes)
    finally:
        faiss.omp_set_num_threads(before)
    return HnswBuild(graph, codes, n, m, ef_construction, curve)


def _start(
    vectors: npt.NDArray[Any],
    norms: Float32Array | None,
    metric: Metric,
    dtype: VectorDType,
    m: int,
    reuse: tuple[U8Array, int] | None,
) -> tuple[Any, Any, int]:
    """An index to add rows to, its store, and how many rows it has already."""
    dimension = vectors.shape[1]
    storage = _storage(dimension, metric, dtype)
    if reuse is None:
        index = faiss.IndexHNSWFlat(dimension, m, storage.metric_type)
        index.own_fields = False
        done = 0
    else:
        graph, done = reuse
        index = _read_graph(graph, dimension, done, "index.hnsw", copy=True)
        for start in range(0, done, CHUNK_ROWS):
            part = slice(start, min(start + CHUNK_ROWS, done))
            block = to_index_space(vectors[part], norms[part] if norms is not None else None, metric, dtype)
            storage.add_c(len(block), faiss.swig_ptr(np.ascontiguousarray(block)))
        # A fresh generator would repeat the levels of the first rows for the new ones.
        index.hnsw.rng = faiss.RandomGenerator(_RNG_SEED + done)
    index.storage = storage
    index.own_fields = False
    return index, storage, done


def _measure(
    vectors: npt.NDArray[Any],
    norms: Float32Array | None,
    metric: Metric,
    dtype: VectorDType,
    graph: U8Array,
    codes: U8Array | None,
) -> RecallCurve:
    n = len(vectors)
    if n < 2:
        return RecallCurve({})
    rows = sample_rows(n)
    queries = np.ascontiguousarray(
        to_index_space(vectors[rows], norms[rows] if norms is not None else None, metric, dtype)
    )
    most = min(max(CURVE_KS), n - 1)
    _, found = scan(vectors, queries, most + 1, metric, dtype=dtype, norms=norms)
    others = _without_self(found, rows, most)
    truth = {k: others[:, :k] for k in CURVE_KS if k <= most}
    index = load_hnsw(graph, vectors, metric, dtype, curve=RecallCurve({}), norms=norms, codes=codes)
    return measure(rows, queries, truth, lambda q, k, ef: index.search(q, k, ef=ef)[1], n)


def _without_self(found: I64Array, rows: I64Array, k: int) -> I64Array:
    """Drop each query's own row, or the last one when it is not there (dot product need not find itself)."""
    own = found == rows[:, None]
    own[:, -1] |= ~own.any(axis=1)
    others: I64Array = found[~own].reshape(len(found), k)
    return others


__all__ = [
    "CHUNK_ROWS",
    "BuildCancelledError",
    "HnswBuild",
    "HnswIndex",
    "build_hnsw",
    "encode_codes",
    "load_hnsw",
    "needs_codes",
]
