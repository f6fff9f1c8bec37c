"""The index policy and the recall curve decide from their arguments alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omendb_common.errors import InvalidArgumentError
from omendb_engine.index.curve import RecallCurve, measure, sample_rows
from omendb_engine.index.policy import FLAT, IndexPolicy, IndexSpec


def decide(rows: int, **options: Any) -> IndexSpec:
    """The decision for 128 float32 dimensions."""
    return IndexPolicy().decide(rows, 128, "float32", "l2", options)


def test_flat_up_to_ten_thousand_rows_and_a_graph_above() -> None:
    assert decide(10_000) == FLAT
    assert decide(10_001) == IndexSpec("hnsw", 16, 128)


def test_options_override_the_rule() -> None:
    assert decide(1_000_000, index="flat") == FLAT
    assert decide(100, index="hnsw").kind == "hnsw"
    assert decide(1, index="hnsw") == FLAT
    assert decide(50_000, preset="quality") == IndexSpec("hnsw", 32, 200)
    assert decide(50_000, preset="speed") == IndexSpec("hnsw", 16, 80)
    assert decide(50_000, M=64, ef_construction=40) == IndexSpec("hnsw", 64, 64)
    assert IndexPolicy(flat_rows_max=5).decide(6, 8, "int8", "dot") == IndexSpec("hnsw", 16, 128)


@pytest.mark.parametrize(
    "options",
    [{"index": "ivf"}, {"preset": "fast"}, {"M": 3}, {"M": 129}, {"M": True}, {"M": "16"}, {"ef_construction": 7}],
)
def test_options_outside_their_bounds_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"options\."):
        decide(50_000, **options)


CURVE = RecallCurve({10: ((16, 0.9), (32, 0.96), (64, 0.98), (128, 0.999)), 100: ((100, 0.9), (256, 0.99))})


def test_effort_holds_back_half_of_the_allowed_error() -> None:
    assert CURVE.effort_for(0.95, 10) == 56  # 0.96 would do in the sample, but not outside
    assert CURVE.effort_for(0.9, 10) == 30
    assert CURVE.effort_for(0.5, 10) == 16


def test_effort_between_and_beyond_the_measured_ks() -> None:
    efforts = [CURVE.effort_for(0.95, k) for k in (1, 10, 20, 50, 100, 200, 1000)]
    assert efforts == sorted(efforts)
    assert efforts[0] == efforts[1] == 56
    assert efforts[4:] == [230, 460, 2_300]
    assert CURVE.effort_for(0.95, 60) >= 60


def test_effort_for_the_unreachable_is_the_most_measured() -> None:
    assert CURVE.effort_for(1.0, 10) == 128
    assert RecallCurve({}).effort_for(0.9, 5) == 1024


def test_curve_survives_json() -> None:
    assert RecallCurve.from_json(CURVE.to_json()) == CURVE


def test_measured_recall_never_falls_with_effort() -> None:
    truth = np.tile(np.arange(10), (2, 1))
    answers = iter([5, 3, 8, 10])

    def search(queries: Any, k: int, ef: int) -> Any:
        found = np.full((2, k), -1, np.int64)
        hits = next(answers)
        found[:, :hits] = np.arange(hits)
        return found

    curve = measure(np.zeros((2, 4), np.float32), truth, search)
    assert curve.points == {10: ((16, 0.5), (24, 0.5), (32, 0.8), (48, 1.0))}


def test_sample_is_spread_and_within_bounds() -> None:
    assert sample_rows(0, 5).tolist() == [0, 1, 2, 3, 4]
    assert sample_rows(7, 7, 0).tolist() == []
    rows = sample_rows(500, 1_000_000)
    assert rows[0] == 500
    assert rows[-1] == 999_999
    assert len(rows) == 200
