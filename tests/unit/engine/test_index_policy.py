"""The index policy and the recall curve decide from their arguments alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omendb_common.errors import InvalidArgumentError
from omendb_common.index_options import NLIST_MAX
from omendb_engine.index.curve import RecallCurve, measure, sample_rows
from omendb_engine.index.ivf_effort import (
    EffortLadder,
    Probed,
    Step,
    candidates,
    choose_steps,
    probe_ladder,
)
from omendb_engine.index.policy import FLAT, IVF_ROWS_MIN, IndexPolicy, IndexSpec, lists_of, merged_options


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
    [
        {"index": "diskann"},
        {"preset": "fast"},
        {"M": 3},
        {"M": 129},
        {"M": True},
        {"M": "16"},
        {"ef_construction": 7},
        {"nlist": -1},
        {"nlist": NLIST_MAX + 1},
        {"quantization": "scalar4"},
        {"index": "hnsw", "quantization": "binary"},
        {"index": "flat", "quantization": "scalar8"},
    ],
)
def test_options_outside_their_bounds_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"options\."):
        decide(50_000, **options)


def test_codes_choose_the_kind_and_the_kind_its_codes() -> None:
    assert decide(50_000, quantization="scalar8") == IndexSpec("hnsw", 16, 128, "scalar8")
    assert decide(50_000, index="ivf") == IndexSpec("ivf", 0, 0, "binary", 894)
    assert decide(50_000, quantization="product") == IndexSpec("ivf", 0, 0, "product", 894)
    assert decide(10_000, quantization="product") == FLAT
    for kind in ("auto", "hnsw", "ivf"):
        assert decide(50_000, index=kind, quantization="float16").quantization == "float16"


def test_lists_have_rows_enough_and_centroids_little_space() -> None:
    assert decide(IVF_ROWS_MIN - 1, index="ivf") == FLAT
    assert decide(IVF_ROWS_MIN, index="ivf", nlist=NLIST_MAX).nlist == 8
    assert decide(50_000, index="ivf", nlist=1).nlist == 1
    assert decide(10_000_000, index="ivf", nlist=NLIST_MAX).nlist == NLIST_MAX
    assert lists_of(1_000_000, 128) == 4_000
    assert lists_of(50_000, 1536) * 1536 * 4 <= 32 * 50_000
    assert lists_of(64, 65_536) == 1


def test_a_collections_word_on_kind_or_codes_voids_the_settings() -> None:
    settings = {"index": "hnsw", "quantization": "scalar8", "nlist": 5}
    assert merged_options(settings, {}) == settings
    assert merged_options(settings, {"M": 8}) == {**settings, "M": 8}
    assert merged_options(settings, {"index": "ivf"}) == {"index": "ivf", "nlist": 5}
    assert merged_options(settings, {"quantization": "binary"}) == {"quantization": "binary", "nlist": 5}


FOUND = [
    Probed(p, np.tile(np.where(np.arange(40) % stride, 9.0, 1.0).astype(np.float32), (2, 1)))
    for p, stride in ((1, 8), (4, 4), (8, 1))
]


def test_steps_are_those_that_nothing_cheaper_beats() -> None:
    truth = np.ones((2, 10), np.float32)
    ladder, curve = choose_steps(FOUND, truth, 1_000, 8, "scalar8", exact=False)
    efforts = [step.effort for step in ladder.steps]
    recalls = [recall for _, recall in curve.points[10]]
    assert efforts == sorted(efforts) and recalls == sorted(recalls) and recalls[-1] == 1.0
    # Four times as many candidates out of four lists cost less than all eight lists.
    assert (ladder.steps[-1].probes, ladder.steps[-1].oversampling) == (4, 4.0)
    assert EffortLadder.from_json(ladder.to_json()) == ladder
    only, _ = choose_steps(FOUND, truth, 1_000, 8, "none", exact=True)
    assert {step.oversampling for step in only.steps} == {1.0}


def test_an_effort_between_two_steps_is_between_them_and_beyond_the_last_looks_into_more_lists() -> None:
    ladder = EffortLadder((Step(10.0, 2, 2.0), Step(20.0, 4, 8.0)))
    assert ladder.at(1) == (2.0, 2.0)
    assert ladder.at(15) == (3.0, 5.0)
    assert ladder.at(20) == (4.0, 8.0)
    assert ladder.at(200) == (40.0, 8.0)


def test_candidates_are_bounded_and_no_fewer_than_wanted() -> None:
    assert [candidates(k, 32.0) for k in (1, 10, 100, 512, 513, 5_000)] == [320, 320, 1_024, 1_024, 1_026, 10_000]
    assert [candidates(k, 1.0) for k in (1, 10, 100, 5_000)] == [10, 10, 100, 5_000]
    assert probe_ladder(1) == (1,)
    assert probe_ladder(10) == (1, 2, 3, 4, 6, 8, 10)


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
