"""The pure parts of what a fleet keeps of its rates: which passes count, what moves, what is mended."""

from __future__ import annotations

import math

import pytest

from benchmarks.cluster_work import CASES, LOADS, Pass, summed_up
from benchmarks.upkeep import holders, next_move, rows_sent


def _passes(rates: dict[str, list[float]], *, seen: bool = True) -> list[Pass]:
    return [Pass(case, load, rate, seen) for case, told in rates.items() for load in LOADS for rate in told]


def test_what_is_kept_is_told_of_medians() -> None:
    table = summed_up(_passes({"neither": [90.0, 100.0, 500.0], "mending": [80.0, 10.0, 85.0], "moving": [50.0]}))
    assert [table[case]["searches"]["kept"] for case in CASES] == pytest.approx([1.0, 0.8, 0.5])
    assert table["mending"]["rows"]["per_s"] == 80.0


def test_a_pass_that_saw_nothing_of_its_case_is_counted_and_left_out() -> None:
    passes = _passes({"neither": [100.0], "mending": [60.0], "moving": [70.0]})
    passes += _passes({"mending": [100.0, 100.0]}, seen=False)
    told = summed_up(passes)["mending"]["rows"]
    assert (told["per_s"], told["seen"], told["passes"]) == (60.0, 1, 3)


def test_a_case_that_nothing_was_seen_of_keeps_no_number() -> None:
    table = summed_up(_passes({"neither": [100.0]}) + _passes({"moving": [100.0]}, seen=False))
    assert all(math.isnan(table[case][load]["kept"]) for case in ("mending", "moving") for load in LOADS)


def test_rows_that_were_fetched_and_that_were_sent_are_counted_together_and_nothing_else() -> None:
    metrics = "\n".join(
        [
            "# TYPE omendb_repaired_rows_total counter",
            'omendb_repaired_rows_total{direction="pulled"} 1200.0',
            'omendb_repaired_rows_total{direction="pushed"} 3.0',
            'omendb_repair_rounds_total{result="equal"} 7.0',
        ]
    )
    assert rows_sent(metrics) == 1203
    assert rows_sent("") == 0


def test_every_replica_moves_in_its_turn_to_the_node_that_has_none() -> None:
    held, nodes, sources = {"d1", "d2", "d3"}, ["d1", "d2", "d3", "d4"], set[str]()
    for _ in range(4):
        source, target = next_move(sorted(held), nodes)
        assert source in held and target not in held
        held = held - {source} | {target}
        sources.add(source)
    assert sources == set(nodes)


def test_the_holders_of_a_replica_are_read_from_the_status() -> None:
    replicas = [{"node_id": "d3", "state": "active"}, {"node_id": "d1", "state": "active"}]
    assert holders({"collections": [{"shards": [{"replicas": replicas}]}]}) == ["d1", "d3"]
