"""R14 finds what it looks for: clients' histories are checked, and a broken rule shows in them."""

from __future__ import annotations

import pytest

from omendb_chaos.metadata.specification import CatalogObject, Collection, Picture
from omendb_chaos.metadata.world import OPERATIONS, Rules, simulate
from omendb_chaos.raft.profiles import PROFILES


@pytest.mark.parametrize("profile", ["net", "crash", "compact"])
def test_histories_of_the_simulated_group_are_linearizable(profile: str) -> None:
    result, answered = simulate(7, PROFILES[profile])
    assert not result.violation, result.violation
    assert OPERATIONS // 4 < answered <= OPERATIONS


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(Rules(remembered=0), id="requests are forgotten"),
        pytest.param(Rules(remembered=3), id="requests are forgotten soon"),
        pytest.param(Rules(reads_ask_the_group=False), id="reads are those of any member"),
    ],
)
def test_a_broken_rule_is_noticed(broken: Rules) -> None:
    violations = [simulate(seed, PROFILES["crash"], broken)[0].violation for seed in (3, 4)]
    assert any("none of these can follow" in violation for violation in violations)


def test_the_same_seed_gives_the_same_run() -> None:
    assert simulate(5, PROFILES["crash"]) == simulate(5, PROFILES["crash"])


def test_the_specification_is_the_catalog() -> None:
    told = []
    catalog, state = CatalogObject(), Picture()
    for call in [
        ("create", "a", "m1"),
        ("create", "a", "m2"),
        ("alias", "x", "a"),
        ("create", "x", "m3"),
        ("rename", "a", "b"),
        ("rename", "a", "c"),
        ("alter", "b", 7),
        ("move", "m1", ("d0", "d1", "d2"), ("d3", "d4", "d5")),
        ("move", "m1", ("d0", "d1", "d2"), ("d6", "d4", "d5")),
        ("alias", "b", "b"),
        ("alias", "y", None),
    ]:
        state, answer = catalog.step(state, call)
        told.append(answer)
    assert told == ["ok", "exists", "ok", "exists", "ok", "missing", "ok", "ok", "exists", "exists", "missing"]
    assert state == Picture((("b", Collection("m1", 7, ("d3", "d4", "d5"))),), (("x", "b"),))
    assert catalog.step(state, ("drop", "b"))[0] == Picture()
