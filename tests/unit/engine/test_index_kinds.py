"""One suite for every kind of index: metrics, element types and codes, with what queries and data can do to them."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.errors import CorruptionError
from omendb_common.index_options import Quantization
from omendb_common.schema import METRICS, VECTOR_DTYPES, Metric, VectorDType
from omendb_engine.index.base import BuildCancelledError, VectorIndex
from omendb_engine.index.hnsw import HnswBuild
from omendb_engine.index.ivf import IvfBuild, load_ivf
from omendb_engine.index.kinds import IndexBuild, build_bytes, file_bytes
from omendb_engine.index.metric import prepare_queries
from omendb_engine.index.native import faiss
from omendb_engine.index.policy import IndexKind, IndexSpec
from tests.unit.engine.index_cases import EVERY, KINDS, Rows, build, clustered, load, recall, rows_of

N, D = 1_500, 24
TARGET = 0.9
TOLERANCE = 1e-4


@lru_cache(maxsize=len(EVERY))
def case(kind: IndexKind, codes: Quantization, metric: Metric, dtype: VectorDType) -> tuple[Rows, IndexBuild]:
    """Rows and an index over them, built once."""
    rows = rows_of(clustered(N, D), metric, dtype)
    return rows, build(rows, kind, codes)


def outside(metric: Metric, count: int = 60) -> Any:
    """Queries from where the rows come from, none of them a row."""
    return prepare_queries(clustered(count, D, seed=99).astype(np.float32), metric)


def queries_for(rows: Rows, count: int = 60) -> Any:
    """The same in the numbers that the element type spans."""
    raw = rows_of(clustered(count, D, seed=99), rows.field.metric, rows.field.dtype).stored.astype(np.float32)
    return prepare_queries(raw + np.float32(0.25 if rows.field.dtype in ("int8", "uint8") else 0.0), rows.field.metric)


def spec_of(built: IndexBuild) -> IndexSpec:
    """The specification that it was built by."""
    if isinstance(built, HnswBuild):
        return IndexSpec("hnsw", built.m, built.ef_construction, built.quantization)
    return IndexSpec("ivf", 0, 0, built.quantization, built.nlist)


@pytest.mark.parametrize(("kind", "codes", "metric", "dtype"), EVERY)
def test_recall_is_kept_and_values_are_exact(
    kind: IndexKind, codes: Quantization, metric: Metric, dtype: VectorDType
) -> None:
    rows, built = case(kind, codes, metric, dtype)
    index, queries = load(built, rows), queries_for(rows)
    assert (index.kind, index.n) == (kind, N)
    for k in (1, 10, 100):
        native, found = index.search(queries, k, ef=index.effort_for(TARGET, k))
        exact, truth = rows.exact(queries, k)
        # What is as near as the k-th counts: bytes have many ties.
        worse = native > exact[:, -1:] + 1e-3 if metric == "l2" else native < exact[:, -1:] - 1e-3
        assert max(recall(found, truth), float(1 - worse.mean())) >= TARGET
        same = found == truth
        np.testing.assert_allclose(native[same], exact[same], rtol=TOLERANCE, atol=TOLERANCE)
        order = native if metric == "l2" else -native
        assert (np.diff(order, axis=1) >= 0).all()
        assert all(len(set(one.tolist())) == k for one in found), "no row twice"


@pytest.mark.parametrize(("kind", "codes"), KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_only_allowed_rows_and_only_real_ones(kind: IndexKind, codes: Quantization, data: st.DataObject) -> None:
    metric = data.draw(st.sampled_from(METRICS))
    rows, built = case(kind, codes, metric, data.draw(st.sampled_from(VECTOR_DTYPES)))
    index = load(built, rows)
    queries = queries_for(rows, 3)
    k = data.draw(st.sampled_from([1, 7, N, N + 5]))
    share = data.draw(st.sampled_from([0.0, 0.001, 0.05, 0.5, 1.0]))
    mask = np.random.default_rng(data.draw(st.integers(0, 9))).random(N) < share
    ef = data.draw(st.sampled_from([1, 16, 200, N, 60_000]))
    native, found = index.search(queries, k, ef=ef, allowed=np.packbits(mask, bitorder="little"))
    assert found.shape == native.shape == (3, k)
    hits = found >= 0
    assert mask[found[hits]].all() and (found < N).all()
    assert (np.diff(hits.astype(int), axis=1) <= 0).all(), "misses come last"
    assert not np.isfinite(native[~hits]).any() or kind == "hnsw"
    assert (hits.sum(axis=1) <= mask.sum()).all()
    if kind == "ivf" and ef == 60_000:
        assert (hits.sum(axis=1) == min(k, int(mask.sum()))).all(), "all lists were looked into"


@pytest.mark.parametrize(("kind", "codes"), KINDS)
def test_a_batch_answers_as_its_queries_do_alone(kind: IndexKind, codes: Quantization) -> None:
    rows, built = case(kind, codes, "l2", "float32")
    index = load(built, rows)
    queries = outside("l2", 40)
    native, found = index.search(queries, 5, ef=64)
    for at in range(len(queries)):
        alone, rows_alone = index.search(queries[at : at + 1], 5, ef=64)
        assert recall(found[at : at + 1], rows_alone) >= 0.8
        same = rows_alone[0] == found[at]
        np.testing.assert_allclose(alone[0][same], native[at][same], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("kind", "codes"), KINDS)
def test_duplicates_and_zero_vectors(kind: IndexKind, codes: Quantization, metric: Metric) -> None:
    raw = clustered(600, D)
    raw[100:400] = raw[0]
    raw[400:450] = 0
    rows = rows_of(raw, metric, "float32")
    index = load(build(rows, kind, codes), rows)
    for query in (rows.stored[:1].copy(), np.zeros((1, D), np.float32), rows.stored[500:501].copy()):
        native, found = index.search(query, 10, ef=60_000 if kind == "ivf" else 600)
        exact, _ = rows.exact(query, 10)
        if codes == "product" and metric != "l2" and not query.any():
            # No row is nearer than another: Faiss names none, and the planner scans.
            assert (found == -1).all()
            continue
        assert np.isfinite(native).all() and (found >= 0).all()
        # A graph of equal rows may strand a walk among them; lists have no paths. Equal rows have equal codes.
        if kind == "ivf" and query[0, 0] in (0, rows.stored[0, 0]):
            np.testing.assert_allclose(native, exact, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize(("kind", "codes"), KINDS)
def test_numbers_far_from_one(kind: IndexKind, codes: Quantization, scale: float) -> None:
    rows = rows_of(clustered(600, D) * scale, "l2", "float32")
    index = load(build(rows, kind, codes), rows)
    native, found = index.search(rows.stored[:20].copy(), 10, ef=600)
    assert (found >= 0).all() and np.isfinite(native).all()
    assert codes == "float16" or (kind, recall(found, rows.exact(rows.stored[:20].copy(), 10)[1])) >= (kind, 0.85)


@pytest.mark.parametrize("n", [64, 65, 200])
@pytest.mark.parametrize("d", [1, 3, 7, 33])
@pytest.mark.parametrize(("kind", "codes"), KINDS)
def test_few_rows_and_odd_dimensions(kind: IndexKind, codes: Quantization, d: int, n: int) -> None:
    rows = rows_of(np.random.default_rng(n + d).standard_normal((n, d)), "l2", "float32")
    index = load(build(rows, kind, codes), rows)
    native, found = index.search(rows.stored[:3].copy(), n + 10, ef=10_000)
    assert [sorted(one[one >= 0].tolist()) for one in found] == [list(range(n))] * 3
    assert (native[:, 0] == 0).all()


@pytest.mark.parametrize(("kind", "codes", "metric", "dtype"), EVERY)
def test_memory_and_files_are_as_big_as_told(
    kind: IndexKind, codes: Quantization, metric: Metric, dtype: VectorDType
) -> None:
    rows, built = case(kind, codes, metric, dtype)
    index = load(built, rows)
    element = {"none": 4, "float16": 2, "scalar8": 1, "product": 1 / 8, "binary": 1 / 8}[index.quantization]
    coded = kind == "ivf" or (isinstance(built, HnswBuild) and built.codes is not None)
    links = 4 * 2 * 16 + 40 if kind == "hnsw" else 60
    # Centroids and ranges are kept in full; lists of packed codes are filled to a multiple of 32.
    extra = 4 * D * (built.nlist if isinstance(built, IvfBuild) else 2) + 2_000
    packed = 32 * 16 * built.nlist if isinstance(built, IvfBuild) and index.quantization == "product" else 0
    assert file_bytes(built) <= N * ((D * element if coded else 0) + links) + extra + packed
    assert index.memory_bytes <= build_bytes(spec_of(built), N, rows.field) + 100_000
    in_files = index.quantization != "product"
    assert index.memory_bytes < (N * 60 if in_files else file_bytes(built) + 96 * 200)


@pytest.mark.parametrize("codes", ["product", "binary"])
def test_at_1536_elements_a_row_takes_at_most_288_bytes(codes: Quantization) -> None:
    rng = np.random.default_rng(3)
    raw = rng.standard_normal((4_060, 40)) @ rng.standard_normal((40, 1536))
    rows = rows_of(raw[:4_000], "cosine", "float32")
    built = build(rows, "ivf", codes)
    index, queries = load(built, rows), prepare_queries(raw[4_000:], "cosine")
    assert file_bytes(built) <= 288 * 4_000
    assert index.memory_bytes <= 288 * 4_000
    _, found = index.search(queries, 10, ef=index.effort_for(TARGET, 10))
    assert recall(found, rows.exact(queries, 10)[1]) >= TARGET


@pytest.mark.parametrize(("kind", "codes"), KINDS)
def test_vectors_are_read_where_they_are(kind: IndexKind, codes: Quantization) -> None:
    rows, built = case(kind, codes, "l2", "float32")
    moving = Rows(rows.field, rows.stored.copy(), None)
    index = load(built, moving)
    query = rows.stored[5:6].copy()
    assert index.search(query, 1, ef=64)[0][0, 0] == 0
    moving.stored[5] += 0.01
    changed = index.search(query, 1, ef=64)[0][0, 0]
    # Only lists of whole rows have copies of their own, which are in the file.
    assert (changed > 0) == ((kind, codes) != ("ivf", "none"))


@pytest.mark.parametrize(("kind", "codes"), KINDS)
def test_a_build_can_be_stopped_and_reports_progress(kind: IndexKind, codes: Quantization) -> None:
    rows = rows_of(clustered(9_000, 8), "l2", "float32")
    seen: list[int] = []
    looked: list[bool] = []
    before = faiss.omp_get_max_threads()

    def stop() -> bool:
        looked.append(True)
        return len(looked) > 2

    with pytest.raises(BuildCancelledError):
        build(rows, kind, codes, cancelled=stop, progress=seen.append)
    built = build(rows_of(clustered(200, 8), "l2", "float32"), kind, codes, threads=before + 1, progress=seen.append)
    assert seen[-1] == 200 and faiss.omp_get_max_threads() == before
    assert load(built, rows_of(clustered(200, 8), "l2", "float32")).n == 200


@pytest.mark.parametrize(("kind", "codes"), KINDS)
def test_an_index_of_other_vectors_is_refused(kind: IndexKind, codes: Quantization) -> None:
    rows, built = case(kind, codes, "l2", "float32")
    with pytest.raises(CorruptionError):
        load(built, Rows(rows.field, rows.stored[:-1], None))
    with pytest.raises(CorruptionError):
        load(built, rows_of(clustered(N, D - 8), "l2", "float32"))
    with pytest.raises(ValueError, match="dimension"):
        load(built, rows).search(np.zeros((1, D - 8), np.float32), 1, ef=16)
    with pytest.raises(ValueError, match="bits"):
        load(built, rows).search(np.zeros((1, D), np.float32), 1, ef=16, allowed=np.zeros(5, np.uint8))


def test_lists_that_are_no_lists_are_refused() -> None:
    rows, built = case("ivf", "binary", "l2", "float32")
    assert isinstance(built, IvfBuild)
    for lists in (np.zeros(100, np.uint8), built.lists[:-100].copy()):
        with pytest.raises(CorruptionError):
            load_ivf(lists, rows.stored, "l2", "float32", quantization="binary", ladder=built.ladder, curve=built.curve)


@pytest.mark.parametrize(("kind", "codes"), KINDS)
def test_searches_from_many_threads(kind: IndexKind, codes: Quantization) -> None:
    rows, built = case(kind, codes, "l2", "float32")
    index = load(built, rows)
    wrong: list[int] = []

    def work(first: int) -> None:
        for at in range(first, N, 31):
            _, found = index.search(rows.stored[at : at + 1], 1, ef=16 + at % 100)
            if found[0, 0] != at:
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) < 6


@pytest.mark.parametrize(("kind", "codes"), [("hnsw", "float16"), ("ivf", "binary")])
def test_one_query_never_waits_for_a_team_of_threads(
    kind: IndexKind, codes: Quantization, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A team's slowest member made 12 ms of 0.2 on a busy machine."""
    rows, built = case(kind, codes, "l2", "float32")
    index = load(built, rows)
    compare, teams = faiss.fvec_L2sqr_by_idx, []

    def watched(*arguments: Any) -> None:
        teams.append(faiss.omp_get_max_threads())
        compare(*arguments)

    monkeypatch.setattr(faiss, "fvec_L2sqr_by_idx", watched)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        index.search(rows.stored[:1].copy(), 10, ef=64)
        index.search(rows.stored[:9].copy(), 10, ef=64)
        assert teams == [1, 2] and faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(before)


def test_a_greater_target_never_asks_for_less() -> None:
    for kind, codes in KINDS:
        index: VectorIndex = load(case(kind, codes, "cosine", "float32")[1], case(kind, codes, "cosine", "float32")[0])
        for k in (1, 10, 50, 100, 1000):
            efforts = [index.effort_for(target, k) for target in (0.5, 0.8, 0.9, 0.95, 0.99, 1.0)]
            assert efforts == sorted(efforts) and efforts[0] >= k
