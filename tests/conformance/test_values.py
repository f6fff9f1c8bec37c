"""Element types, metrics, ids and payloads come back as they went in; distances are the definition's; limits hold."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import numpy as np
import pytest

from omendb import VectorField
from omendb.database import Database
from omendb_common.errors import InvalidArgumentError
from omendb_common.schema import DIMENSION_MAX, ID_BYTES_MAX, K_MAX, METRICS, VECTOR_DTYPES, Metric, VectorDType
from tests.property.test_replica_model import distances

N, DIMENSION = 60, 9


def points_of(dtype: VectorDType) -> np.ndarray[Any, Any]:
    low = 0 if dtype == "uint8" else -50
    return np.random.default_rng(4).integers(low, 50, (N, DIMENSION)).astype(dtype)


@pytest.mark.parametrize(("metric", "dtype"), [*itertools.product(METRICS, VECTOR_DTYPES)])
def test_distances_and_vectors(engine_db: Database, metric: Metric, dtype: VectorDType) -> None:
    vectors = points_of(dtype)
    collection = engine_db.create_collection("c", DIMENSION, metric, dtype)
    collection.upsert(np.arange(N), vectors)
    records = collection.get(list(range(N)), include=["vector"])
    for record, vector in zip(records, vectors, strict=True):
        assert record is not None and record.vector is not None and record.vector.dtype == dtype
        np.testing.assert_allclose(record.vector, vector, rtol=2e-6)
    queries = points_of("float32")[:5] + np.float32(0.25)
    for query, results in zip(queries, collection.search(vectors=queries, k=7, include=["vector"]), strict=True):
        truth = distances(vectors, query, metric)
        np.testing.assert_allclose(results.distances, np.sort(truth)[:7], rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(truth[results.ids.astype(int)], results.distances, rtol=2e-4, atol=2e-4)
        found = results.vectors
        assert found is not None
        np.testing.assert_allclose(found, vectors[results.ids.astype(int)], rtol=2e-6)
        assert np.all(np.diff(results.scores) <= 1e-6)


def test_payload_values_of_every_kind(engine_db: Database) -> None:
    rows: list[dict[str, Any]] = [
        {"integer": 2**63 - 1, "negative": -(2**63), "float": 0.1, "text": "naïve \U0001f600", "flag": False},
        {"when": dt.datetime(2024, 2, 29, 12, 30, 1, 250_000, dt.UTC), "empty": {}, "list": [1, 2, 3]},
        {"mixed": [1, "two", None, {"x": 1.5}], "deep": {"a": {"b": {"c": "d"}}}, "texts": ["", "b"]},
        {"integer": "now a text", "float": True, "text": 7},
        {"float": 1e-300, "list": [], "floats": [0.5, 1.5], "flags": [True, False]},
    ]
    engine_db.add_batch(np.eye(5, dtype=np.float32), rows, [f"r{i}" for i in range(5)])
    assert [r and r.metadata for r in engine_db.get([f"r{i}" for i in range(5)])] == rows
    assert [h.metadata for h in engine_db.search(np.eye(5)[2], k=1, include=["metadata"])] == [rows[2]]
    assert {r.id: r.metadata for r in engine_db.iterate()} == {f"r{i}": row for i, row in enumerate(rows)}


def test_ids_at_their_limits(engine_db: Database) -> None:
    ids: list[Any] = [0, 2**64 - 1, "x" * ID_BYTES_MAX, "é", "0"]
    engine_db.upsert(ids, np.eye(5, dtype=np.float32), {"n": list(range(5))})
    assert [record and record.id for record in engine_db.get(ids)] == ids
    assert {hit.id for hit in engine_db.search(np.ones(5), k=5)} == set(ids)
    assert engine_db.delete([2**64 - 1, "0"]) == 2 and engine_db.get([0, "0"])[1] is None


def test_automatic_ids_differ_from_all_others(engine_db: Database) -> None:
    engine_db.upsert([5, 6], np.eye(2, dtype=np.float32))
    seen = {5, 6}
    for _ in range(3):
        written = engine_db.add_batch(np.eye(2, dtype=np.float32)).to_list()
        assert all(isinstance(i, int) and 0 <= i < 2**53 for i in written)
        assert len(set(written) | seen) == len(seen) + 2
        seen |= set(written)  # type: ignore[arg-type]
    assert engine_db.count() == 8


def test_dimensions_at_their_limits(engine_db: Database) -> None:
    for dimension in (1, DIMENSION_MAX):
        collection = engine_db.create_collection(f"d{dimension}", dimension)
        vectors = np.zeros((2, dimension), np.float32)
        vectors[1, -1] = 1
        collection.upsert([0, 1], vectors)
        hit = collection.search(vectors[1], k=1, include=["vector"])[0]
        assert hit.id == 1 and np.array_equal(hit.vector, vectors[1])  # type: ignore[arg-type]


def test_k_at_its_limit(engine_db: Database) -> None:
    engine_db.add_batch(np.arange(2000, dtype=np.float32)[:, None], ids=np.arange(2000))
    results = engine_db.search([0.0], k=K_MAX, include=["id"])
    assert results.ids.tolist() == list(range(2000))


def test_many_points_and_many_queries_in_one_call(engine_db: Database) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.random((6000, 64), np.float32)
    written = engine_db.upsert(np.arange(6000), vectors, {"n": np.arange(6000)})
    assert written.written == 6000 and engine_db.count() == 6000
    found = engine_db.search(vectors=vectors[:3000], k=1, exact=True, include=["id"])
    assert [results[0].id for results in found] == list(range(3000))
    records = engine_db.get(np.arange(5999, -1, -1), include=["metadata", "vector"])
    assert [r and r.metadata for r in records] == [{"n": i} for i in range(5999, -1, -1)]
    assert engine_db.delete(np.arange(0, 6000, 2)) == 3000 and engine_db.count() == 3000
    page = engine_db.scroll(limit=2500)
    rest = engine_db.scroll(limit=2500, cursor=page.cursor)
    assert len(page.records) == 2500 and len(rest.records) == 500 and rest.cursor is None
    assert {r.id for r in [*page.records, *rest.records]} == set(range(1, 6000, 2))


def test_effort_threshold_and_exactness(engine_db: Database) -> None:
    vectors = np.random.default_rng(2).random((400, 8), np.float32)
    engine_db.add_batch(vectors, ids=np.arange(400))
    truth = engine_db.search(vectors[3], k=10, exact=True)
    assert engine_db.search(vectors[3], k=10, recall_target=1.0).ids.tolist() == truth.ids.tolist()
    assert engine_db.search(vectors[3], k=10, ef=400).ids.tolist() == truth.ids.tolist()
    near = engine_db.search(vectors[3], k=10, score_threshold=float(truth.scores[4]) - 1e-6)
    assert near.ids.tolist() == truth.ids.tolist()[:5]
    work = truth.performance
    assert work.vectors_scanned >= 400 and work.latency_ms > 0 and work.segments_searched >= 1
    assert work.cost_estimate > 0 and 0 <= work.cache_hit_rate <= 1


def test_fields_that_are_updated_alone(engine_db: Database) -> None:
    fields = {"a": VectorField(2), "b": VectorField(3, "cosine", "float16")}
    pair = engine_db.create_collection("pair", vectors=fields, index="flat")
    assert pair.schema is not None and [(v.name, v.metric, v.dtype) for v in pair.schema.vectors] == [
        ("a", "l2", "float32"),
        ("b", "cosine", "float16"),
    ]
    assert pair.schema.options == {"index": "flat"}
    pair.upsert(["p"], {"a": [[1, 2]], "b": [[1, 0, 0]]}, [{"x": 1, "y": {"z": 2}}])
    pair.update(["p"], {"b": [[0, 1, 0]]})
    pair.update(["p"], metadata=[{"y": {"w": 3}}])
    record = pair.get("p", include=["vector", "metadata"])
    assert record is not None and record.vectors is not None
    assert record.vectors["a"].tolist() == [1, 2] and record.vectors["b"].tolist() == [0, 1, 0]
    assert record.metadata == {"x": 1, "y": {"w": 3}}
    with pytest.raises(InvalidArgumentError):
        pair.update(["p"], {"c": [[0, 1]]})
