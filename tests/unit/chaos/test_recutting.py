"""R-splits can fail: successors that do not follow what is written lose it."""

from __future__ import annotations

import pytest

from omendb_chaos.cluster.runs import run_one
from omendb_datanode.successors import Successors

KNOWN = "R-splits/1/3"
LOST = "R-splits/1/4"


def test_shards_split_and_merge_in_a_run_and_nothing_is_lost() -> None:
    run = run_one(KNOWN)
    assert not run.violations and run.faults["was split"] and run.faults["merged"]


def test_successors_that_follow_no_writes_lose_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Successors, "follow", lambda self, writes: None)
    assert any(what.startswith("no order of all calls") for what in run_one(LOST).violations)


def test_shards_split_and_merge_in_a_share_of_the_swarm() -> None:
    run = run_one("R10/0/3")
    assert not run.violations and run.faults["was split"] and run.faults["merged"]
