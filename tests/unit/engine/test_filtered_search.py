"""Filtered search on a graph: recall holds whether a filter goes with the query, against it, or by chance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from omendb_common.filters import Filter
from omendb_common.filters import FilterOp as F
from omendb_common.ids import IdColumn
from omendb_common.schema import VectorField
from omendb_engine.query.copies import USES_MIN, Copy
from omendb_engine.query.plan import choose_wide
from omendb_engine.query.search import SearchRequest, Work, nearest
from omendb_engine.replica import Replica
from tests.unit.engine.engine_cases import open_replica, put, settings_of, vectors_of

ROWS, DIMENSION, K, QUERIES = 12_000, 12, 10, 40


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """One segment with a graph; ``side`` tells on which side of a plane a row lies, ``chance`` is uniform in 0..999."""
    folder, opened = open_replica(tmp_path_factory.mktemp("db"), settings_of(rows=ROWS), VectorField(DIMENSION))
    vectors = vectors_of(ROWS, DIMENSION, seed=3)
    chance = np.random.default_rng(4).integers(0, 1000, ROWS)
    payload = [
        {"side": float(first), "chance": int(number)} for first, number in zip(vectors[:, 0], chance, strict=True)
    ]
    put(opened, IdColumn.of(range(ROWS)), vectors=vectors, payload=payload)
    opened.maintenance.flush()
    while opened.maintenance.work():
        pass
    assert [segment.index for segment in opened.stats().segments] == ["hnsw"]
    yield opened
    folder.close()


def queries_of(seed: int) -> npt.NDArray[np.float32]:
    """Queries on the far side of the plane: all have a first coordinate of two or more."""
    queries = vectors_of(QUERIES, DIMENSION, seed=seed)
    queries[:, 0] = 2 + np.abs(queries[:, 0])
    return queries


def recall(replica: Replica, condition: Filter, queries: npt.NDArray[np.float32], **options: Any) -> float:
    """The share of the true neighbours found, with the batch asked whole and query by query."""
    truth = replica.search(queries, K, condition=condition, exact=True)
    hits = 0
    for _ in range(USES_MIN + 1):  # whatever is copied for a filter that is used often is there by then
        replica.search(queries[:1], K, condition=condition, **options)
    together = replica.search(queries, K, condition=condition, **options)
    for number in range(len(queries)):
        alone = replica.search(queries[number : number + 1], K, condition=condition, **options)
        want = set(truth.picked(number).ids().to_list())
        got = alone.picked(0).ids().to_list()
        assert len(got) == len(set(got)) == len(want)
        assert got == together.picked(number).ids().to_list()
        distances = alone.distances[0, : alone.counts[0]]
        assert (np.diff(distances) >= 0).all()
        hits += len(want & set(got))
    return hits / (K * len(queries))


@pytest.mark.parametrize(
    "condition",
    [
        F.lt("chance", 500),
        F.lt("chance", 300),
        F.lt("side", 0.0),  # against: whoever is near does not pass
        F.gt("side", 0.0),  # with: whoever is near passes
        F.lt("side", 1.5),
        F.OR(F.lt("side", -0.5), F.lt("chance", 20)),
        F.gte("chance", 0),
        F.gt("side", 1.2),
        F.lt("chance", 2),
    ],
    ids=str,
)
def test_recall_holds(replica: Replica, condition: Filter) -> None:
    assert recall(replica, condition, queries_of(1)) >= 0.95
    assert recall(replica, condition, vectors_of(QUERIES, DIMENSION, seed=2)) >= 0.95


def test_a_filter_by_chance_is_searched_wide(replica: Replica) -> None:
    """Half of the rows pass: about twice as many rows are looked at as without the filter, not four times."""
    plain, half, against = Work(), Work(), Work()
    request = SearchRequest(replica.schema.vector(), vectors_of(1, DIMENSION, seed=9), K, None, False, None, 0.95)
    nearest(replica.snapshot(), request, replica.resources, plain)
    request.condition = F.lt("chance", 500)
    nearest(replica.snapshot(), request, replica.resources, half)
    assert plain.scanned < half.scanned < 3 * plain.scanned
    request.condition, request.queries = F.lt("side", 0.0), queries_of(1)[:1]
    nearest(replica.snapshot(), request, replica.resources, against)
    assert against.scanned > half.scanned, "who finds too few among the nearest looks again"


@pytest.mark.parametrize("allowed", [0, 1, 1_000, 1_001, 30_000, 99_999, 100_000])
@pytest.mark.parametrize("k", [1, 10, 1_000, 16_384])
def test_the_wide_plan(allowed: int, k: int) -> None:
    plan = choose_wide(rows=100_000, allowed=allowed, k=k, ef=64, share=max(allowed, 1) / 100_000)
    if plan is not None:
        assert k <= plan.wide <= plan.ef
        assert plan.comparisons < allowed
        assert plan.wide * allowed / 100_000 > k, "not even by chance are there k"
    else:
        assert allowed <= 1_001 or k >= 1_000, "half of the rows are too many to compare"


def copies(replica: Replica) -> list[Copy]:
    """The copies that the cache of filters holds."""
    return [value for value, _ in replica.resources.filters._entries.values() if isinstance(value, Copy)]


def test_a_filter_that_is_used_often_has_its_vectors_copied(replica: Replica) -> None:
    """The first searches do without; from then on the rows are compared side by side, and dead ones are no hits."""
    condition, query = F.lt("chance", 137), vectors_of(1, DIMENSION, seed=21)
    before = len(copies(replica))
    first = replica.search(query, K, condition=condition, exact=True)
    for _ in range(USES_MIN - 1):
        replica.search(query, K, condition=condition)
    assert len(copies(replica)) == before
    for _ in range(3):
        again = replica.search(query, K, condition=condition)
        assert again.picked(0).ids().to_list() == first.picked(0).ids().to_list()
    assert len(copies(replica)) == before + 1
    assert "copied" in replica.explain(query, K, condition=condition).segments[0].why
    nearest_id = first.picked(0).ids().to_list()[0]
    picked, _ = replica.get(IdColumn.of([nearest_id]))
    vector, payload = picked.vectors("", replica.schema), picked.payload()
    replica.delete(IdColumn.of([nearest_id]))
    try:
        fewer = replica.search(query, K, condition=condition).picked(0).ids().to_list()
        assert nearest_id not in fewer and fewer[: K - 1] == first.picked(0).ids().to_list()[1:]
        assert replica.search(query, 5_000, condition=condition).counts[0] == replica.count(condition)
    finally:
        put(replica, IdColumn.of([nearest_id]), vectors=vector, payload=payload)


def test_a_copy_that_was_dropped_is_earned_anew(replica: Replica) -> None:
    condition, query = F.lt("chance", 139), vectors_of(1, DIMENSION, seed=22)
    for _ in range(USES_MIN + 2):
        replica.search(query, K, condition=condition)
    cache = replica.resources.filters
    for name in [name for name, (value, _) in cache._entries.items() if isinstance(value, Copy)]:
        cache._used -= cache._entries.pop(name)[1]
    replica.search(query, K, condition=condition)
    assert not copies(replica)


def test_a_copy_too_large_for_the_budget_is_not_made(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica.resources.filters, "budget_bytes", 8 * 1_500 * (4 * DIMENSION + 8))
    condition, query = F.lt("chance", 138), vectors_of(1, DIMENSION, seed=23)
    for _ in range(USES_MIN + 2):
        replica.search(query, K, condition=condition)
    assert not copies(replica)
