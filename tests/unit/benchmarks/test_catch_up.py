"""The pure part of how soon a node has caught up: medians by what it missed, and the worst time."""

from __future__ import annotations

from benchmarks.catch_up import EQUAL, FRAMES, CaughtUp, summed_up


def test_returns_are_summed_up_by_what_was_missed() -> None:
    times = {1: [0.3, 0.1, 0.2], 1000: [5.0]}
    returns = [CaughtUp(missed, 2.0, equal_s, 10, missed, 99) for missed, told in times.items() for equal_s in told]
    table = summed_up(returns)
    assert list(table) == [1, 1000]
    assert (table[1]["equal_s"], table[1]["equal_s_max"], table[1]["returns"]) == (0.2, 0.3, 3)
    assert (table[1000]["equal_s"], table[1000]["rows"], table[1000]["read"]) == (5.0, 1000.0, 10.0)


def test_rounds_that_found_all_equal_and_bytes_of_frames_are_read_from_metrics() -> None:
    metrics = "\n".join(
        [
            "# TYPE omendb_repair_rounds_total counter",
            'omendb_repair_rounds_total{result="equal"} 2.0',
            'omendb_repair_rounds_total{result="unfinished"} 7.0',
            'omendb_frame_bytes_total{direction="in",end="server"} 100.0',
            'omendb_frame_bytes_total{direction="out",end="client"} 23.0',
            'omendb_frames_total{direction="in",end="server"} 5.0',
        ]
    )
    assert EQUAL.findall(metrics) == ["2.0"]
    assert FRAMES.findall(metrics) == ["100.0", "23.0"]
