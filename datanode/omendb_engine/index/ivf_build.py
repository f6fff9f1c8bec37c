"""Building inverted lists: centroids from a sample, every row to its nearest, and what is found at each effort."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.index_options import Quantization
from omendb_common.schema import Float32Array, Metric, VectorDType
from omendb_engine.index.base import BuildCancelledError
from omendb_engine.index.curve import CURVE_KS, SAMPLE_ROWS, RecallCurve, sample_rows
from omendb_engine.index.flat import scan
from omendb_engine.index.ivf import IvfBuild, is_exact, search_lists
from omendb_engine.index.ivf_effort import (
    CANDIDATES_MAX,
    EffortLadder,
    Probed,
    choose_steps,
    probe_ladder,
    saturated,
)
from omendb_engine.index.metric import is_l2
from omendb_engine.index.native import faiss
from omendb_engine.index.rescore import Rescorer
from omendb_engine.index.stored import StoredRows
from omendb_engine.priority import give_way

I64Array = npt.NDArray[np.int64]

CHUNK_ROWS = 16_384
TRAINING_ROUNDS = 8
"""More rounds of k-means than this move the centroids, and change what is found by less than can be measured."""
TRAINING_ROWS_PER_LIST = 40
_TRAINING_ROWS_MIN = 4_096
_PRODUCT_ELEMENTS_MAX = 4
_PRODUCT_BITS = 4


def build_ivf(
    vectors: npt.NDArray[Any],
    metric: Metric,
    nlist: int,
    quantization: Quantization,
    *,
    dtype: VectorDType = "float32",
    norms: Float32Array | None = None,
    threads: int = 1,
    chunk_rows: int = CHUNK_ROWS,
    cancelled: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda rows: None,
) -> IvfBuild:
    """Build ``nlist`` lists over stored rows (n, d) and measure what each effort finds.

    Takes memory for the sample (see :func:`training_rows`) and the codes while it runs.

    Args:
        threads: of this build only; other threads keep their setting, and go first (see :mod:`omendb_engine.priority`).
        chunk_rows: rows between two looks at ``cancelled``; ``progress`` gets the rows done so far.

    Raises:
        BuildCancelledError: ``cancelled()`` was true.
    """
    n = len(vectors)
    source = StoredRows(vectors, norms, metric, dtype, clipped=_as_float16(quantization, dtype))

    def begin() -> None:
        give_way()
        faiss.omp_set_num_threads(threads)

    def go_on(done: int) -> None:
        if cancelled():
            raise BuildCancelledError(f"{done} of {n} rows done")

    # The native calls, which take nearly all the time and no interpreter lock, run in a thread that gives way.
    with ThreadPoolExecutor(1, "omendb-build", initializer=begin) as native:
        sample = source.space(sample_rows(0, n, training_rows(n, nlist)))
        centroids = _centroids(sample, nlist, metric, lambda: go_on(0), native)
        nearest = _quantizer(centroids, faiss.METRIC_L2)
        index = _empty(nearest, source, nlist, quantization)
        if quantization == "scalar8":
            _set_ranges(index, source.ranges())
        else:
            native.submit(index.train_c, len(sample), faiss.swig_ptr(sample)).result()
        for start in range(0, n, chunk_rows):
            go_on(start)
            block = source.space(np.arange(start, min(start + chunk_rows, n)))
            native.submit(index.add_c, len(block), faiss.swig_ptr(block)).result()
            progress(start + len(block))
        # Rows went to the centroid that is nearest; queries go to the lists of the metric's choice.
        asked = _quantizer(centroids, index.metric_type)
        index.quantizer = asked
        ladder, curve = native.submit(_measure, index, source, quantization, lambda: go_on(n)).result()
        writer = faiss.VectorIOWriter()
        faiss.write_index(index, writer)
    return IvfBuild(faiss.vector_to_array(writer.data), n, nlist, quantization, ladder, curve)


def training_rows(n: int, nlist: int) -> int:
    """Rows that the centroids and the codes are learnt from."""
    return min(n, max(TRAINING_ROWS_PER_LIST * nlist, _TRAINING_ROWS_MIN))


def _as_float16(quantization: Quantization, dtype: VectorDType) -> bool:
    """Whether codes are float16: also of small types that keep all they have, as integers to 2,048 fit."""
    return quantization == "float16" or (quantization == "none" and dtype != "float32")


def _centroids(
    sample: Float32Array, nlist: int, metric: Metric, go_on: Callable[[], None], native: ThreadPoolExecutor
) -> Float32Array:
    """The centres (nlist, d) of the sample's clusters, by k-means, one round at a time."""
    means = faiss.Clustering(sample.shape[1], nlist)
    means.niter = 1
    means.min_points_per_centroid = 1
    means.max_points_per_centroid = max(TRAINING_ROWS_PER_LIST, -(-len(sample) // nlist))
    means.spherical = metric == "cosine"
    for _ in range(TRAINING_ROUNDS):
        go_on()
        rows = faiss.IndexFlatL2(sample.shape[1])
        # It starts from the centroids of the round before.
        native.submit(means.train_c, len(sample), faiss.swig_ptr(sample), rows).result()
    found: Float32Array = faiss.vector_to_array(means.centroids).reshape(nlist, -1)
    return found


def _quantizer(centroids: Float32Array, metric_type: int) -> Any:
    store = faiss.IndexFlat(centroids.shape[1], metric_type)
    store.add_c(len(centroids), faiss.swig_ptr(centroids))
    return store


def _empty(nearest: Any, source: StoredRows, nlist: int, quantization: Quantization) -> Any:
    """A Faiss index without rows, with centroids, and codes to be trained."""
    d = source.vectors.shape[1]
    metric_type = faiss.METRIC_L2 if is_l2(source.metric) else faiss.METRIC_INNER_PRODUCT
    if quantization == "binary":
        index = faiss.IndexIVFRaBitQ(nearest, d, nlist, metric_type)
    elif quantization == "product":
        parts = d // _elements_together(d)
        index = faiss.IndexIVFPQFastScan(nearest, d, nlist, parts, _PRODUCT_BITS, metric_type)
        index.pq.cp.min_points_per_centroid = 1
    elif quantization == "none" and source.dtype == "float32":
        index = faiss.IndexIVFFlat(nearest, d, nlist, metric_type)
    else:
        kinds = faiss.ScalarQuantizer
        kind = kinds.QT_fp16 if _as_float16(quantization, source.dtype) else kinds.QT_8bit
        index = faiss.IndexIVFScalarQuantizer(nearest, d, nlist, kind, metric_type, False)
    index.own_fields = False
    return index


def _elements_together(d: int) -> int:
    """How many elements share a code of the product quantizer: a divisor of the dimension."""
    return next(size for size in range(_PRODUCT_ELEMENTS_MAX, 0, -1) if d % size == 0)


def _set_ranges(index: Any, ranges: Float32Array) -> None:
    faiss.copy_array_to_vector(ranges, index.sq.trained)
    index.sq.is_trained = index.is_trained = True


def _measure(
    index: Any, source: StoredRows, quantization: Quantization, go_on: Callable[[], None]
) -> tuple[EffortLadder, RecallCurve]:
    """What some of the rows find of their neighbours, themselves left out, at every number of lists."""
    n, nlist = len(source.vectors), int(index.nlist)
    asking = sample_rows(0, n, min(SAMPLE_ROWS, n))
    queries = source.space(asking)
    rescorer = Rescorer(source.vectors, source.norms, source.metric, source.dtype)
    k = min(max(CURVE_KS), n - 1)
    _, near = scan(source.vectors, queries, k + 1, source.metric, dtype=source.dtype, norms=source.norms)
    truth = np.sort(_nearness(rescorer, queries, near, asking), axis=1)[:, :k]
    exact = is_exact(quantization, source.dtype)
    wide = min(n, (k if exact else max(CANDIDATES_MAX, k)) + 1)
    found: list[Probed] = []
    for probes in probe_ladder(nlist):
        go_on()
        _, rows = search_lists(index, queries, wide, faiss.IVFSearchParameters(nprobe=probes))
        found.append(Probed(probes, _nearness(rescorer, queries, _without(rows, asking), asking)))
        if saturated(found[-1], truth):
            break
    return choose_steps(found, truth, n, nlist, quantization, exact=exact)


def _nearness(rescorer: Rescorer, queries: Float32Array, rows: I64Array, asking: I64Array) -> Float32Array:
    """Exact values, smaller nearer; infinite for the row that asks, which is no neighbour of its own."""
    values = rescorer.values(queries, np.ascontiguousarray(rows))
    values = values if rescorer.ascending else -values
    values[rows == asking[:, None]] = np.inf
    return values


def _without(rows: I64Array, asking: I64Array) -> I64Array:
    """Candidates in their order, the row that asks put last."""
    order = np.argsort(rows == asking[:, None], axis=1, kind="stable")
    return np.take_along_axis(rows, order, axis=1)


__all__ = ["CHUNK_ROWS", "TRAINING_ROWS_PER_LIST", "build_ivf", "training_rows"]
