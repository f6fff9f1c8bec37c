"""R19 can fail: maps that raise no fence let replicas answer under two of them; and its cases strike where they say."""

from __future__ import annotations

from omendb_chaos.cluster.moving import CALM, CASES, KINDS, POINTS, VICTIMS
from omendb_chaos.cluster.runs import run_one
from omendb_chaos.rows.replication_mutants import REPLICATION_MUTANTS

ROUGH = len(CASES) + CALM + 1


def test_every_point_fault_and_victim_is_a_case() -> None:
    assert len(set(CASES)) == len(POINTS) * len(KINDS) * len(VICTIMS) == 63


def test_the_coordinators_killed_before_switching_are_struck_and_the_move_ends() -> None:
    number = next(n for n, case in enumerate(CASES) if case == (POINTS[3], "kill", "mover"))
    run = run_one(f"R19/1/{number}")
    assert not run.violations and run.faults["kill of the mover"] == 1


def test_without_fences_two_sets_of_members_answer_reads() -> None:
    (mutant,) = [m for m in REPLICATION_MUTANTS if m.name == "moves raise no fences"]
    with mutant.planted():
        assert any(what.startswith("P14") for what in run_one(f"R19/0/{ROUGH}").violations)
