"""What `omendb cluster moves` and `status` print of what is on its way."""

from __future__ import annotations

from typing import Any

import pytest

from omendb.cli.moves import show_moves
from omendb.cli.terminal import out

MOVE: dict[str, Any] = {
    "collection": "docs",
    "shard_id": 3,
    "source": "d1",
    "target": "d4",
    "stage": "filling",
    "percent": 25.0,
    "rows_done": 1_000,
    "rows_total": 4_000,
    "bytes_done": 3 << 20,
    "waits_for": "",
}

DONE = {name: MOVE[name] for name in ("percent", "rows_done", "rows_total", "bytes_done")}


def printed(told: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(out, "width", 200)
    show_moves(told)
    return capsys.readouterr().out


def test_a_move_shows_percent_rows_and_size(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = printed({"moves": [MOVE]}, capsys, monkeypatch)
    assert all(word in text for word in ("docs.3", "d1", "d4", "filling", "25 %", "1,000 of 4,000", "3.0 MiB"))


def test_other_quorums_show_what_was_and_what_comes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = ({"replication": n, "write_quorum": w, "read_quorum": r} for n, w, r in ((3, 2, 2), (4, 3, 3)))
    text = printed({"moves": [{**MOVE, "quorums": {"from": before, "to": after}}]}, capsys, monkeypatch)
    assert "filling, 3/2/2 to 4/3/3" in text


def test_a_split_shows_the_slowest_of_its_nodes_and_whom_it_waits_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    split = {"collection": "docs", "shard_id": 0, "into": [4, 5], "waits_for": ["d2", "d3"], "held_up": "d2: no room"}
    text = printed({"moves": [], "splits": [split], "moves_paused": True}, capsys, monkeypatch)
    assert all(word in text for word in ("moves are paused", "docs.0", "4 and 5", "splitting", "d2, d3 (d2: no room)"))


def test_a_merge_shows_both_shards_and_whom_it_waits_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    merge = {"collection": "docs", "shard_ids": [4, 5], "into": 6, "waits_for": ["d2"], "held_up": "d2: no room"}
    text = printed({"moves": [], "splits": [], "merges": [{**merge, **DONE}]}, capsys, monkeypatch)
    assert all(word in text for word in ("docs.4 and docs.5", " 6 ", "merging", "25 %", "d2 (d2: no room)"))
