"""The pure parts of the comparison of servers: what is counted, summed up, started and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.served import report
from benchmarks.served.client import MODES, NAMES
from benchmarks.served.launch import HOST, launch
from benchmarks.served.processes import count_syncs_between
from benchmarks.servers import acknowledged, ingest_row


def test_syncs_are_counted_once_each_and_only_between_the_two_moments() -> None:
    trace = "\n".join(
        [
            "12345 99.900000 fdatasync(7) = 0",
            "7     100.100000 fdatasync(7 <unfinished ...>",
            "12345 100.200000 fsync(8) = 0",
            "7     100.300000 <... fdatasync resumed>) = 0",
            "7     100.400000 msync(0x7f, 4096, MS_ASYNC) = 0",
            "7     101.100000 fsync(8) = 0",
        ]
    )
    assert count_syncs_between(trace, 100.0, 101.0) == 2


def test_a_line_that_was_being_written_at_the_crash_acknowledges_nothing(tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    assert acknowledged(progress) == 0
    progress.write_text("1000\n2000\n30", encoding="ascii")
    assert acknowledged(progress) == 2000


def _sample(rows_per_s: float, whole: bool, searchable_s: float | None) -> dict[str, Any]:
    batch_ms = {"p50_ms": 1.0, "p99_ms": 2.0}
    return {
        "rows": 100,
        "rows_per_s": rows_per_s,
        "rows_per_s_call": 2 * rows_per_s,
        "batch_ms": batch_ms,
        "searchable_s": searchable_s,
        "whole": whole,
        "server_cpu_s": 0.5,
    }


def test_repeats_are_summed_up_by_their_medians_and_one_cut_short_marks_the_row() -> None:
    samples = [_sample(10.0, True, 0.1), _sample(1000.0, True, None), _sample(30.0, False, 0.3)]
    row = ingest_row("omendb", "fsync", 1000, samples, 1.5)
    assert (row["rows_per_s"], row["rows_per_s_call"], row["whole"]) == (30.0, 60.0, False)
    assert row["searchable_s"] == pytest.approx(0.2)
    assert ingest_row("omendb", "fsync", 1000, [], None)["rows_per_s"] is None


@pytest.mark.parametrize("server", [name for name in NAMES if name != "omendb-fleet"])
def test_every_server_listens_on_the_loopback_at_the_port_it_was_given(server: str, tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    (tmp_path / "lib" / "python3.11").mkdir(parents=True)
    for mode in MODES[server]:
        told = launch(server, mode.name, tmp_path / "here", 23456, python)
        command = " ".join(told.command)
        assert "23456" in command and str(tmp_path / "here") in command
        assert HOST in command or server == "milvus", "Milvus is given its address by launch_milvus"


def test_the_strongest_mode_of_redis_syncs_before_it_acknowledges(tmp_path: Path) -> None:
    (tmp_path / "lib" / "python3.11").mkdir(parents=True)
    command = launch("redis-stack", MODES["redis-stack"][0].name, tmp_path, 1, tmp_path / "bin" / "python").command
    assert command[command.index("--appendfsync") + 1] == "always"


def _outcome(servers: dict[str, Any]) -> dict[str, Any]:
    return {
        "set": {"name": "tiny", "rows": 10, "dimension": 4, "metric": "l2"},
        "machine": {
            "cores": 2,
            "processor": "x",
            "simd": [],
            "memory_gib": 1,
            "system": "Linux",
            "python": "3.11",
        },
        "day": "2026-01-01",
        "load_before": 0.1,
        "settings": {
            "repeats": 3,
            "queries": 5,
            "clients": 8,
            "batches": [10],
            "ingest_budget_s": 20.0,
            "recall_wanted": 0.95,
        },
        "skipped": {},
        "failed": ["milvus, search: gone"],
        "ingest": [ingest_row("omendb", "fsync", 10, [_sample(10.0, True, 0.1)], None)],
        "servers": servers,
        "crashes": {"omendb": [{"acknowledged": 5, "lost": 2, "back_s": 1.0}], "milvus": []},
    }


def test_a_report_shows_losses_failures_and_a_recall_that_was_not_reached() -> None:
    point = {"effort": 16, "recall": 0.5, "p50_ms": 1.0, "p99_ms": 2.0}
    found = {
        "effort_name": "ef",
        "index": {"seconds": 1.0},
        "curve": [point],
        "at_recall": None,
        "concurrent": {"qps": 10.0, "p50_ms": 1.0, "p99_ms": 2.0, "server_cpu_ms": 0.5},
        "filtered": {"0.1": point},
    }
    text = report.markdown(_outcome({"omendb": found, "milvus": {}}))
    assert "0.500 (not reached)" in text
    assert "| omendb | 1 | 5 | 2 | 1.00 |" in text
    assert "- milvus, search: gone" in text
    assert "| milvus | – |" in text
