"""The Raft group in the simulator: a hundred seeds of every profile, and every rule missed when it is taken out."""

from __future__ import annotations

import pytest

from omendb_chaos.raft.ablations import ABLATIONS
from omendb_chaos.raft.profiles import PROFILES
from omendb_chaos.raft.world import Result, simulate
from omendb_chaos.rows.raft import notice

SEEDS = 100
VIRTUAL_S = 5.0


@pytest.mark.parametrize("name", PROFILES)
def test_every_promise_is_kept(name: str) -> None:
    results = [simulate(PROFILES[name], seed, seconds=VIRTUAL_S) for seed in range(SEEDS)]
    broken = [result for result in results if result.violation]
    assert not broken, broken[:3]
    # Enough must have happened for that to mean something.
    assert sum(result.acknowledged for result in results) > 50 * SEEDS
    assert sum(result.reads for result in results) > 5 * SEEDS
    assert sum(result.terms for result in results) > SEEDS
    profile = PROFILES[name]
    faults = sum((result.faults for result in results), start=type(results[0].faults)())
    for rate, said in (
        (profile.kills, "kill -9"),
        (profile.power_cuts, "power cuts"),
        (profile.all_power_cuts, "whole-group power cuts"),
        (profile.failed_syncs, "failed syncs"),
        (profile.lost_disks, "lost disks"),
    ):
        assert (faults[said] > 0) == (rate > 0), said


@pytest.mark.parametrize("rule", ABLATIONS)
def test_a_missing_rule_is_missed(rule: str) -> None:
    assert notice(ABLATIONS[rule]) is not None


def test_the_same_seed_gives_the_same_run() -> None:
    def once() -> Result:
        return simulate(PROFILES["power"], 7, seconds=VIRTUAL_S)

    assert once() == once()
