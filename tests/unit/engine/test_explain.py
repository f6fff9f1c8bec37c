"""A search explained: what is told of every part is what a search then does with it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from omendb_common.errors import InvalidArgumentError
from omendb_common.explanation import Explanation, SegmentPlan, recall_of
from omendb_common.filters import FilterOp as F
from omendb_common.ids import IdColumn
from omendb_common.schema import VectorField
from omendb_engine.index.curve import RecallCurve
from omendb_engine.replica import Replica
from tests.unit.engine.engine_cases import open_replica, put, settings_of, vectors_of

ROWS, DIMENSION, K = 12_000, 12, 10
QUERY = vectors_of(1, DIMENSION, seed=8)


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A segment with a graph, whose rows have ``n`` from 0 on, and a buffer of 5 rows, one of them deleted."""
    folder, opened = open_replica(tmp_path_factory.mktemp("db"), settings_of(rows=ROWS), VectorField(DIMENSION))
    vectors = vectors_of(ROWS, DIMENSION, seed=3)
    order = np.random.default_rng(4).permutation(ROWS).tolist()
    put(opened, IdColumn.of(range(ROWS)), vectors=vectors, payload=[{"n": n} for n in order])
    opened.maintenance.flush()
    while opened.maintenance.work():
        pass
    new = IdColumn.of(range(ROWS, ROWS + 5))
    put(opened, new, vectors=vectors_of(5, DIMENSION, seed=4), payload=[{"n": ROWS + n} for n in range(5)])
    opened.delete(IdColumn.of([ROWS + 4]))
    yield opened
    folder.close()


def parts(told: Explanation) -> tuple[SegmentPlan, SegmentPlan]:
    segment, buffer = told.segments
    assert segment.segment >= 0 > buffer.segment and (segment.rows, buffer.rows) == (ROWS, 5)
    return segment, buffer


def test_without_a_filter_the_graph_is_walked_and_new_points_are_compared(replica: Replica) -> None:
    told = replica.explain(QUERY, K)
    segment, buffer = parts(told)
    assert (segment.choice, segment.matching, segment.asked) == ("index", ROWS, K)
    assert (buffer.choice, buffer.matching, buffer.comparisons) == ("exact", 4, 4)
    assert segment.effort >= K and 0.95 <= segment.recall <= 1
    assert told.comparisons == replica.search(QUERY, K).performance.vectors_scanned
    assert told.searched == told.segments and told.matching == ROWS + 4 and told.expected_recall >= 0.95


def test_few_rows_are_compared_and_what_cannot_match_is_skipped(replica: Replica) -> None:
    segment, buffer = parts(replica.explain(QUERY, K, condition=F.lt("n", 70)))
    assert (segment.choice, segment.matching, segment.comparisons, segment.recall) == ("exact", 70, 70, 1.0)
    assert (buffer.choice, buffer.matching) == ("skip", 0) and "no live row" in buffer.why
    segment, buffer = parts(replica.explain(QUERY, K, condition=F.gte("n", ROWS)))
    assert segment.choice == "skip" and "rule the filter out" in segment.why
    assert (buffer.choice, buffer.matching) == ("exact", 4)
    nothing = replica.explain(QUERY, K, condition=F.eq("n", -1), measure=True)
    assert not nothing.searched and nothing.expected_recall == nothing.measured_recall == 1.0


def test_many_rows_are_picked_from_a_walk_and_the_second_time_they_are_known(replica: Replica) -> None:
    half = F.lt("n", ROWS // 2 + 17)
    first, _ = parts(replica.explain(QUERY, K, condition=half))
    second, _ = parts(replica.explain(QUERY, K, condition=half))
    assert first.choice == "index and pick" and first.matching == ROWS // 2 + 17
    assert first.effort >= first.asked > 2 * K * 0.9 and 0.9 <= first.recall <= 1
    assert (first.cached, second.cached) == (False, True)


def test_an_exact_search_is_told_as_one(replica: Replica) -> None:
    told = replica.explain(QUERY, K, exact=True, measure=True)
    assert all(plan.choice == "exact" and "asked for" in plan.why for plan in told.segments)
    assert told.measured_recall == 1.0


def test_recall_is_measured_on_the_queries_given(replica: Replica) -> None:
    queries = vectors_of(50, DIMENSION, seed=5)
    weak, strong = (replica.explain(queries, K, ef=ef, measure=True).measured_recall for ef in (K, 1000))
    assert weak is not None and strong is not None and weak < strong and strong >= 0.999
    truth, found = replica.search(queries, K, exact=True), replica.search(queries, K, ef=K)
    ids = [[answer.picked(q).ids().to_list() for q in range(50)] for answer in (found, truth)]
    assert weak == pytest.approx(recall_of(*ids))


def test_arguments_are_checked_as_those_of_a_search(replica: Replica) -> None:
    for wrong in ({"k": 0}, {"ef": 0}, {"recall_target": 1.5}):
        arguments = {"k": K, **wrong}
        with pytest.raises(InvalidArgumentError):
            replica.explain(QUERY, **arguments)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="dimensions"):
        replica.explain(QUERY[:, :3], K)


def test_an_explanation_comes_back_from_json(replica: Replica) -> None:
    told = replica.explain(QUERY, K, condition=F.lt("n", 6000), measure=True)
    assert Explanation.from_json(told.to_json()) == told
    broken = {**told.to_json(), "segments": [{**told.to_json()["segments"][0], "choice": "guess"}]}
    with pytest.raises(ValueError, match="guess"):
        Explanation.from_json(broken)


def test_the_recall_of_an_effort_is_read_from_the_curve() -> None:
    curve = RecallCurve({10: ((16, 0.8), (32, 0.9), (64, 1.0)), 100: ((100, 0.9), (200, 1.0))})
    assert curve.recall_for(32, 10) == pytest.approx(0.9, abs=1e-3)
    assert curve.recall_for(48, 10) == pytest.approx(0.95, abs=1e-3)
    assert curve.recall_for(150, 100) == pytest.approx(0.95, abs=1e-3)
    assert curve.recall_for(10_000, 10) == pytest.approx(1.0, abs=1e-3)
    assert 0.8 < curve.recall_for(64, 20) < 1.0
    assert RecallCurve({}).recall_for(64, 10) == 0.0
