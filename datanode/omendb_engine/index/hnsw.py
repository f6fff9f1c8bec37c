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
quantized to float16       float16             index.codes (2 * n * d bytes)
quantized to scalar8       a byte an element   index.codes (8 * d + n * d bytes)
=========================  ==================  ====================================

What is returned for bytes, for codes and for cosine over small types is computed again from the stored rows.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.errors import CorruptionError
from omendb_common.index_options import Quantization
from omendb_common.schema import Float32Array, Metric, VectorDType
from omendb_engine.index.base import BuildCancelledError
from omendb_engine.index.codes import graph_oversampling, graph_quantization
from omendb_engine.index.curve import CURVE_KS, SAMPLE_ROWS, RecallCurve, measure, sample_rows
from omendb_engine.index.flat import scan
from omendb_engine.index.metric import is_l2, prepare_queries, to_index_space
from omendb_engine.index.native import faiss
from omendb_engine.index.rescore import Rescorer
from omendb_engine.index.stored import StoredRows
from omendb_engine.priority import give_way

I64Array = npt.NDArray[np.int64]
U8Array = npt.NDArray[np.uint8]

CHUNK_ROWS = 4_096
_RNG_SEED = 12_345
# Of each element, ahead of the codes: the least value and the span that a byte stands for.
_RANGE_BYTES = 8
# Fewer rows held back than this measure nothing.
_HELD_MIN = 50
# Of codes the nearest few are too close to call: no fewer are compared again than for as many neighbours as this.
_K_MIN = CURVE_KS[0]
_PARAMETERS_CACHED_MAX = 64
# A view into foreign memory wants an owner: this index lends its empty one, since Python keeps the bytes alive.
# The index must live as long as the module, for ``owner`` is a bare pointer into it.
_OWNERLESS = faiss.IndexFlatL2(1)


@dataclass(frozen=True, slots=True)
class HnswBuild:
    """A finished graph. ``graph``: bytes of ``index.hnsw``. ``codes``: bytes of ``index.codes``, or None."""

    graph: U8Array
    codes: U8Array | None
    n: int
    m: int
    ef_construction: int
    curve: RecallCurve
    quantization: Quantization = "none"


def needs_codes(metric: Metric, dtype: VectorDType, quantization: Quantization = "none") -> bool:
    """Whether the compared form differs from the stored one, so that it is kept in ``index.codes``."""
    return quantization != "none" or dtype == "int8" or (metric == "cosine" and dtype != "float32")


def encode_codes(
    vectors: npt.NDArray[Any], norms: Float32Array | None, metric: Metric, dtype: VectorDType
) -> npt.NDArray[Any]:
    """Stored rows (n, d) in the compared form of ``index.codes``: uint8 or float16 (n, d)."""
    if metric == "cosine":
        return to_index_space(vectors, norms, metric, dtype).astype(np.float16)
    return vectors.view(np.uint8) ^ np.uint8(0x80)


def _storage(dimension: int, metric: Metric, dtype: VectorDType, quantization: Quantization = "none") -> Any:
    """An empty Faiss store of the compared form."""
    faiss_metric = faiss.METRIC_L2 if is_l2(metric) else faiss.METRIC_INNER_PRODUCT
    if quantization != "none":
        kind = faiss.ScalarQuantizer.QT_fp16 if quantization == "float16" else faiss.ScalarQuantizer.QT_8bit
        return faiss.IndexScalarQuantizer(dimension, kind, faiss_metric)
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

    def __init__(
        self,
        index: Any,
        keep: tuple[Any, ...],
        curve: RecallCurve,
        rescorer: Rescorer | None,
        *,
        whole_numbers: bool = False,
        quantization: Quantization = "none",
    ) -> None:
        """``whole_numbers``: queries of these are answered exactly, and need no ``rescorer``."""
        self._index = index
        self._keep = keep  # the store, and the memory that Faiss points into
        self._rescorer = rescorer
        self._whole_numbers = whole_numbers
        self._oversampling = graph_oversampling(quantization)
        self.quantization: Quantization = quantization
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

    def recall_for(self, ef: int, k: int) -> float:
        """See ``VectorIndex``."""
        return self.curve.recall_for(ef, k)

    def search(
        self, queries: Float32Array, k: int, *, ef: int, allowed: U8Array | None = None
    ) -> tuple[Float32Array, I64Array]:
        """See ``VectorIndex``."""
        m, d = queries.shape
        if d != self._dimension:
            raise ValueError(f"queries of dimension {d} for an index of {self._dimension}")
        rescored = self._rescorer is not None and not (self._whole_numbers and _are_whole(queries))
        wide = self._oversampling * (k if self.quantization == "none" else max(k, _K_MIN)) if rescored else k
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


def _are_whole(queries: Float32Array) -> bool:
    return bool((queries == np.rint(queries)).all())


def load_hnsw(
    graph: U8Array,
    vectors: npt.NDArray[Any],
    metric: Metric,
    dtype: VectorDType,
    *,
    curve: RecallCurve,
    norms: Float32Array | None = None,
    codes: U8Array | None = None,
    quantization: Quantization = "none",
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
    storage = _storage(dimension, metric, dtype, quantization)
    ahead = _RANGE_BYTES * dimension if quantization == "scalar8" else 0
    if raw.nbytes != ahead + n * storage.code_size or (codes is None) == needs_codes(metric, dtype, quantization):
        raise CorruptionError(f"{raw.nbytes} bytes of codes", path=path, bound=f"{ahead + n * storage.code_size}")
    if ahead:
        _set_ranges(storage, raw[:ahead].view(np.float32))
        raw = raw[ahead:]
    storage.codes = faiss.MaybeOwnedVectorUInt8.create_view(faiss.swig_ptr(raw), raw.nbytes, _OWNERLESS.codes.owner)
    storage.ntotal = n
    index.storage = storage
    index.own_fields = False
    of_bytes = dtype in ("int8", "uint8")
    rescorer = None
    if of_bytes or needs_codes(metric, dtype, quantization):
        rescorer = Rescorer(vectors, norms, metric, dtype)
    # Faiss compares bytes with a query cut to integers where the dimension divides by 16.
    whole = of_bytes and metric != "cosine" and quantization == "none"
    keep = (storage, graph, raw, vectors)
    return HnswIndex(index, keep, curve, rescorer, whole_numbers=whole, quantization=quantization)


def _set_ranges(storage: Any, ranges: Float32Array) -> None:
    """Tell a store of bytes what they mean: the least value (d) and the span (d) of every element."""
    faiss.copy_array_to_vector(np.ascontiguousarray(ranges), storage.sq.trained)
    storage.sq.is_trained = storage.is_trained = True


def build_hnsw(
    vectors: npt.NDArray[Any],
    metric: Metric,
    m: int,
    ef_construction: int,
    *,
    dtype: VectorDType = "float32",
    quantization: Quantization = "none",
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
        quantization: what the graph compares in place of the rows, where that is smaller than they are.
        threads: of this build only; other threads keep their setting, and go first (see :mod:`omendb_engine.priority`).
        chunk_rows: rows between two looks at ``cancelled``; ``progress`` gets the rows done so far.
        reuse: a graph over the first rows of ``vectors``, and how many; only the rest is inserted.

    Raises:
        BuildCancelledError: ``cancelled()`` was true.
    """
    quantization = graph_quantization(quantization, metric, dtype)
    source = StoredRows(vectors, norms, metric, dtype, clipped=quantization == "float16")
    n = len(vectors)

    def begin() -> None:
        give_way()
        faiss.omp_set_num_threads(threads)

    # The native calls, which take nearly all the time and no interpreter lock, run in a thread that gives way.
    with ThreadPoolExecutor(1, "omendb-build", initializer=begin) as native:
        index, done = _start(source, quantization, m, reuse)
        index.hnsw.efConstruction = ef_construction
        held = sample_rows(done, n, min(SAMPLE_ROWS, (n - done) // 4))
        order = np.concatenate((np.setdiff1d(np.arange(done, n), held, assume_unique=True), held))
        first_held = n - len(held)

        def insert(start: int, stop: int) -> None:
            for at in range(start, stop, chunk_rows):
                if cancelled():
                    raise BuildCancelledError(f"{at} of {n} rows done")
                end = min(at + chunk_rows, stop)
                block = source.space(order[at - done : end - done])
                native.submit(index.add_c, end - at, faiss.swig_ptr(block)).result()
                progress(end)

        insert(done, first_held)
        curve = native.submit(_measure, index, source, quantization, order, done, held).result()
        insert(first_held, n)
        if len(held):
            _restore_order(index, order, done)
        writer = faiss.VectorIOWriter()
        faiss.write_index(index, writer, faiss.IO_FLAG_SKIP_STORAGE)
    graph = faiss.vector_to_array(writer.data)
    codes = _encode(source, quantization, faiss.downcast_index(index.storage))
    return HnswBuild(graph, codes, n, m, ef_construction, curve, quantization)


def _store_of(source: StoredRows, quantization: Quantization) -> Any:
    """An empty Faiss store of what is compared."""
    storage = _storage(source.vectors.shape[1], source.metric, source.dtype, quantization)
    if quantization == "scalar8":
        _set_ranges(storage, source.ranges())
    return storage


def _encode(source: StoredRows, quantization: Quantization, storage: Any) -> U8Array | None:
    """The bytes of ``index.codes``, by row; None where the stored rows are compared."""
    if not needs_codes(source.metric, source.dtype, quantization):
        return None
    if quantization == "none":
        return encode_codes(source.vectors, source.norms, source.metric, source.dtype).reshape(-1).view(np.uint8)
    parts = []
    if quantization == "scalar8":
        parts.append(faiss.vector_to_array(storage.sq.trained).view(np.uint8))
    for rows in source.blocks():
        block, codes = source.space(rows), np.empty(len(rows) * storage.code_size, np.uint8)
        storage.sa_encode_c(len(rows), faiss.swig_ptr(block), faiss.swig_ptr(codes))
        parts.append(codes)
    return np.concatenate(parts)


def _start(
    source: StoredRows, quantization: Quantization, m: int, reuse: tuple[U8Array, int] | None
) -> tuple[Any, int]:
    """An index to add rows to, and how many rows it has already."""
    dimension = source.vectors.shape[1]
    storage = _store_of(source, quantization)
    done = 0
    if reuse is None:
        index = faiss.IndexHNSWFlat(dimension, m, storage.metric_type)
    else:
        graph, done = reuse
        index = _read_graph(graph, dimension, done, "index.hnsw", copy=True)
        for start in range(0, done, CHUNK_ROWS):
            block = source.space(np.arange(start, min(start + CHUNK_ROWS, done)))
            storage.add_c(len(block), faiss.swig_ptr(block))
        # A fresh generator would repeat the levels of the first rows for the new ones.
        index.hnsw.rng = faiss.RandomGenerator(_RNG_SEED + done)
    index.storage = storage
    index.own_fields = False
    index.referenced_objects = [storage]  # Faiss has a bare pointer
    return index, done


def _restore_order(index: Any, order: I64Array, done: int) -> None:
    """Number the nodes by row again, after rows were inserted in ``order``."""
    node_of_row = np.arange(done + len(order))
    node_of_row[order] = np.arange(done, done + len(order))
    index.hnsw.permute_entries(faiss.swig_ptr(node_of_row))


def _measure(
    index: Any, source: StoredRows, quantization: Quantization, order: I64Array, done: int, held: I64Array
) -> RecallCurve:
    """The recall curve with the rows held back as queries, over the rows inserted so far."""
    inserted = int(index.ntotal)
    if inserted < 2:
        return RecallCurve({})
    if len(held) < _HELD_MIN:
        # Too few new rows to hold some back: ask between rows instead, which is harder than real queries.
        sample = sample_rows(0, inserted)
        queries = source.space(sample) + source.space(np.roll(sample, len(sample) // 2))
        queries = prepare_queries(queries / np.float32(2), source.metric)
    else:
        queries = source.space(held)
    mask = np.zeros(len(source.vectors), np.bool_)
    row_of_node = np.concatenate((np.arange(done), order))[:inserted]
    mask[row_of_node] = True
    k = min(max(CURVE_KS), inserted)
    _, truth = scan(source.vectors, queries, k, source.metric, dtype=source.dtype, norms=source.norms, mask=mask)

    rescorer = Rescorer(source.vectors, source.norms, source.metric, source.dtype)
    oversampling = graph_oversampling(quantization) if quantization != "none" else 1

    def search(asked: Float32Array, k: int, ef: int) -> I64Array:
        wide = oversampling * k
        values, nodes = np.empty((len(asked), wide), np.float32), np.empty((len(asked), wide), np.int64)
        outputs = (faiss.swig_ptr(values), faiss.swig_ptr(nodes))
        index.search_c(len(asked), faiss.swig_ptr(asked), wide, *outputs, faiss.SearchParametersHNSW(efSearch=ef))
        rows = np.where(nodes < 0, -1, row_of_node[nodes])
        return rows if oversampling == 1 else rescorer.best(asked, rows, k)[1]

    return measure(queries, truth, search)


__all__ = [
    "CHUNK_ROWS",
    "HnswBuild",
    "HnswIndex",
    "build_hnsw",
    "encode_codes",
    "load_hnsw",
    "needs_codes",
]
