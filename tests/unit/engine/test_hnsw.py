"""HNSW graphs find what an exact scan finds, over every element type, with filters, grown and reloaded."""

from __future__ import annotations

import threading
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from omendb_common.errors import CorruptionError
from omendb_common.schema import METRICS, VECTOR_DTYPES, Metric, VectorDType
from omendb_engine.index.base import BuildCancelledError
from omendb_engine.index.flat import scan
from omendb_engine.index.hnsw import HnswBuild, HnswIndex, build_hnsw, load_hnsw
from omendb_engine.index.metric import normalise, prepare_queries

N, D = 3_000, 32


def data(metric: Metric, dtype: VectorDType, n: int = N, d: int = D) -> tuple[npt.NDArray[Any], Any]:
    """Clustered rows as a segment stores them, with norms for cosine."""
    rng = np.random.default_rng(7)
    centres = rng.standard_normal((50, d))
    rows: npt.NDArray[Any] = centres[rng.integers(0, 50, n)] + 0.5 * rng.standard_normal((n, d))
    if dtype in ("int8", "uint8"):
        rows = np.clip(rows * 30 + (128 if dtype == "uint8" else 0), 0 if dtype == "uint8" else -128, 127)
    rows = rows.astype(dtype)
    if metric != "cosine":
        return rows, None
    unit, norms = normalise(rows)
    return (unit if dtype == "float32" else rows), norms


def load(built: HnswBuild, rows: npt.NDArray[Any], metric: Metric, dtype: VectorDType = "float32") -> HnswIndex:
    return load_hnsw(built.graph, rows, metric, dtype, curve=built.curve, codes=built.codes)


def recall(found: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    return float(np.mean([np.isin(t[t >= 0], f).mean() for f, t in zip(found, truth, strict=True)]))


@pytest.mark.parametrize("dtype", VECTOR_DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_recall_and_values_over_every_type(metric: Metric, dtype: VectorDType) -> None:
    rows, norms = data(metric, dtype)
    built = build_hnsw(rows, metric, 16, 100, dtype=dtype, norms=norms, threads=2, chunk_rows=1_000)
    index = load(built, rows, metric, dtype)
    queries = prepare_queries(rows[:60].astype(np.float32) + 0.3, metric)
    native, found = index.search(queries, 10, ef=200)
    exact, truth = scan(rows, queries, 10, metric, dtype=dtype, norms=norms)
    assert recall(found, truth) > 0.95
    same = found == truth
    np.testing.assert_allclose(native[same], exact[same], rtol=1e-4, atol=1e-5)
    assert index.n == N
    assert index.effort_for(0.9, 10) <= index.effort_for(0.99, 10)


@pytest.fixture(scope="module")
def l2() -> tuple[npt.NDArray[Any], HnswBuild]:
    rows, _ = data("l2", "float32")
    return rows, build_hnsw(rows, "l2", 16, 100)


def test_only_allowed_rows_are_returned(l2: tuple[npt.NDArray[Any], HnswBuild]) -> None:
    rows, built = l2
    index = load(built, rows, "l2")
    mask = np.random.default_rng(1).random(N) < 0.3
    bits = np.packbits(mask, bitorder="little")
    queries = rows[:40].copy()
    _, found = index.search(queries, 10, ef=300, allowed=bits)
    assert mask[found[found >= 0]].all()
    _, truth = scan(rows, queries, 10, "l2", mask=mask)
    assert recall(found, truth) > 0.9
    _, none = index.search(queries, 10, ef=50, allowed=np.zeros_like(bits))
    assert (none == -1).all()
    with pytest.raises(ValueError, match="bits"):
        index.search(queries, 10, ef=50, allowed=bits[:5])


def test_a_batch_answers_as_its_queries_do_alone(l2: tuple[npt.NDArray[Any], HnswBuild]) -> None:
    rows, built = l2
    index = load(built, rows, "l2")
    queries = rows[:30] + np.float32(0.1)
    native, found = index.search(queries, 5, ef=64)
    for i in range(len(queries)):
        alone, alone_rows = index.search(queries[i : i + 1], 5, ef=64)
        assert (alone_rows[0] == found[i]).all()
        assert (alone[0] == native[i]).all()


def test_vectors_are_not_copied(l2: tuple[npt.NDArray[Any], HnswBuild]) -> None:
    rows, built = l2
    moving = rows.copy()
    index = load(built, moving, "l2")
    query = rows[5:6].copy()
    assert index.search(query, 1, ef=64)[0][0, 0] == 0
    moving[5] += 1
    assert index.search(query, 1, ef=64)[0][0, 0] > 0


def test_a_grown_graph_keeps_its_recall(l2: tuple[npt.NDArray[Any], HnswBuild]) -> None:
    rows, built = l2
    more = np.concatenate([rows, data("l2", "float32", 2 * N)[0][N:]])
    grown = build_hnsw(more, "l2", 16, 100, reuse=(built.graph, N))
    fresh = build_hnsw(more, "l2", 16, 100)
    queries = more[::97] + np.float32(0.05)
    _, truth = scan(more, queries, 10, "l2")
    scores = [recall(load(b, more, "l2").search(queries, 10, ef=64)[1], truth) for b in (grown, fresh)]
    assert scores[0] > scores[1] - 0.03
    index: Any = faiss.deserialize_index(grown.graph, faiss.IO_FLAG_SKIP_STORAGE)
    levels = faiss.vector_to_array(index.hnsw.levels)
    assert len(levels) == 2 * N
    assert (levels[:N] != levels[N:]).any()  # not the same dice again


@pytest.mark.parametrize(("metric", "dtype"), [("cosine", "int8"), ("l2", "float16")])
def test_small_types_grow_too(metric: Metric, dtype: VectorDType) -> None:
    rows, norms = data(metric, dtype, 1_200)
    head = norms[:600] if norms is not None else None
    first = build_hnsw(rows[:600], metric, 8, 60, dtype=dtype, norms=head)
    grown = build_hnsw(rows, metric, 8, 60, dtype=dtype, norms=norms, reuse=(first.graph, 600))
    queries = prepare_queries(rows[:50], metric)
    _, truth = scan(rows, queries, 5, metric, dtype=dtype, norms=norms)
    _, found = load(grown, rows, metric, dtype).search(queries, 5, ef=100)
    assert recall(found, truth) > 0.9


def test_a_build_can_be_stopped_and_reports_progress() -> None:
    rows, _ = data("l2", "float32")
    seen: list[int] = []
    with pytest.raises(BuildCancelledError):
        build_hnsw(rows, "l2", 16, 40, chunk_rows=500, progress=seen.append, cancelled=lambda: len(seen) == 3)
    assert seen == [500, 1_000, 1_500]
    seen.clear()
    build_hnsw(rows, "l2", 4, 10, chunk_rows=1_500, progress=seen.append)
    assert seen == [1_500, N - 200, N]


def test_a_build_leaves_the_threads_setting_alone() -> None:
    before = faiss.omp_get_max_threads()
    build_hnsw(data("l2", "float32", 100)[0], "l2", 8, 20, threads=before + 1)
    assert faiss.omp_get_max_threads() == before


@pytest.mark.parametrize("n", [1, 2, 11, 101])
def test_tiny_graphs(n: int) -> None:
    rows = np.random.default_rng(0).standard_normal((n, 8)).astype(np.float32)
    index = load(build_hnsw(rows, "l2", 4, 20), rows, "l2")
    native, found = index.search(rows[:1].copy(), 20, ef=64)
    assert found[0, 0] == 0 and native[0, 0] == 0
    assert (found[0, n:] == -1).all()
    assert index.effort_for(0.95, 10) >= 10


def test_the_curve_is_honest_about_queries_from_outside() -> None:
    rows, _ = data("l2", "float32", 6_000)
    rows, outside = rows[:5_000], rows[5_000:5_300].copy()
    index = load(build_hnsw(rows, "l2", 16, 100, threads=2), rows, "l2")
    _, truth = scan(rows, outside, 10, "l2")
    for target in (0.9, 0.95, 0.99):
        _, found = index.search(outside, 10, ef=index.effort_for(target, 10))
        assert recall(found, truth) >= target


def test_a_graph_of_other_vectors_is_refused(l2: tuple[npt.NDArray[Any], HnswBuild]) -> None:
    rows, built = l2
    with pytest.raises(CorruptionError):
        load(built, rows[:-1], "l2")
    with pytest.raises(CorruptionError):
        load(built, np.ascontiguousarray(rows[:, :16]), "l2")
    with pytest.raises(CorruptionError):
        load_hnsw(np.zeros(100, np.uint8), rows, "l2", "float32", curve=built.curve)
    with pytest.raises(ValueError, match="dimension"):
        load(built, rows, "l2").search(np.zeros((1, 16), np.float32), 1, ef=16)


def test_searches_from_many_threads(l2: tuple[npt.NDArray[Any], HnswBuild]) -> None:
    rows, built = l2
    index = load(built, rows, "l2")
    wrong: list[int] = []

    def work(first: int) -> None:
        for i in range(first, N, 40):
            _, found = index.search(rows[i : i + 1], 1, ef=16 + i % 100)
            if found[0, 0] != i:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) < 4
