"""Moves: what the catalog makes of them, and which of them the leader begins."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omendb_common.errors import InvalidArgumentError, NotFoundError
from omendb_common.topology import MemberState, Move, Shard, Topology
from omendb_common.topology_delta import apply_delta, delta_of
from omendb_coordinator.commands import ConflictError
from omendb_coordinator.moves import MoveLimits, Step, plan_moves
from tests.unit.coordinator.catalog_cases import Log, node

LIMITS = MoveLimits(moves_max=2, moves_per_node_max=1, rereplicate_s=900.0, balance_difference=2)


def cluster(*names: str, **zones: str) -> Log:
    log = Log()
    log.register(*(node(n, zone=zones.get(n, "")) for n in names))
    return log


def shard(log: Log, name: str = "docs", number: int = 0) -> Shard:
    return log.catalog.topology.collection(name).shards[number]


def at(log: Log, name: str = "docs", number: int = 0) -> dict[str, Any]:
    found = shard(log, name, number)
    return {"uuid": f"uuid of {name}", "shard_id": number, "epoch": found.epoch}


def planned(log: Log, silent_s: float = 0.0, limits: MoveLimits = LIMITS) -> list[Step]:
    return plan_moves(log.catalog.topology, lambda member: silent_s, limits)


def told(steps: list[Step]) -> list[tuple[str, str, str, str]]:
    return [(s.op, s.source, s.target, s.why) for s in steps]


def down(log: Log, name: str, to: MemberState = "down") -> None:
    was = log.catalog.topology.members[name].state
    log.add("set_member_state", node_id=name, incarnation=f"folder of {name}", was=was, to=to)


def states(found: Shard) -> dict[str, str]:
    return {r.node_id: r.state for r in found.replicas}


# -- the catalog


def test_a_replica_moves_in_two_steps() -> None:
    log = cluster("d1", "d2", "d3", "d4")
    log.create("docs", ["d1", "d2", "d3"])
    log.add("begin_move", **at(log), source="d1", target="d4")
    begun = shard(log)
    assert states(begun) == {"d1": "leaving", "d2": "active", "d3": "active", "d4": "joining"}
    assert begun.move == Move(begun.epoch, "d1", "d4", "filling") and not begun.switching
    assert sorted(begun.old) == ["d1", "d2", "d3"] and sorted(begun.new or ()) == ["d2", "d3", "d4"]
    log.add("advance_move", **at(log), node_id="d4")
    later = shard(log)
    assert later.switching and states(later) == states(begun) and later.epoch > begun.epoch
    log.add("advance_move", **at(log), node_id="d4")
    done = shard(log)
    assert (states(done), done.move) == ({"d2": "active", "d3": "active", "d4": "active"}, None)
    assert next(r.session for r in done.replicas if r.node_id == "d4") == begun.epoch


def test_a_move_that_is_given_up_leaves_no_trace_but_a_newer_epoch() -> None:
    for steps in (0, 1):
        log = cluster("d1", "d2", "d3", "d4")
        log.create("docs", ["d1", "d2", "d3"])
        before = shard(log)
        log.add("begin_move", **at(log), source="d1", target="d4")
        for _ in range(steps):
            log.add("advance_move", **at(log), node_id="d4")
        log.add("cancel_move", **at(log))
        assert replace(shard(log), epoch=before.epoch, fence=before.fence) == before
        assert shard(log).fence == shard(log).epoch
        assert shard(log).epoch == log.catalog.topology.revision


def test_what_is_no_move_is_refused() -> None:
    log = cluster("d1", "d2", "d3", "d4", "d5")
    log.create("docs", ["d1", "d2", "d3"])
    log.register(replace(node("r1"), role="router"))
    down(log, "d5")
    for wrong, error in (
        ({"source": "d4", "target": "d5"}, InvalidArgumentError),  # it is down
        ({"source": "d4", "target": "d4"}, NotFoundError),  # no replica there
        ({"source": "d1", "target": "d2"}, InvalidArgumentError),  # has one
        ({"source": "d1", "target": "d1"}, InvalidArgumentError),  # has one, and it is well
        ({"source": "d1", "target": "r1"}, NotFoundError),
        ({"source": "d1", "target": "d9"}, NotFoundError),
        ({"source": 1, "target": "d4"}, InvalidArgumentError),
    ):
        with pytest.raises(error):
            log.add("begin_move", **at(log), **wrong)
    for op in ("advance_move", "cancel_move"):
        with pytest.raises(NotFoundError):
            log.add(op, **at(log), node_id="d4")
    was = at(log)
    log.add("begin_move", **was, source="d1", target="d4")
    with pytest.raises(ConflictError):
        log.add("advance_move", **was, node_id="d4")
    with pytest.raises(InvalidArgumentError):
        log.add("advance_move", **at(log), node_id="d1")
    with pytest.raises(InvalidArgumentError):
        log.add("begin_move", **at(log), source="d2", target="d5")
    with pytest.raises(InvalidArgumentError):
        log.add("pause_moves", paused="yes")


def test_a_lost_replica_is_made_anew_on_its_node_under_another_session() -> None:
    log = cluster("d1", "d2", "d3")
    log.create("docs", ["d1", "d2", "d3"])
    down(log, "d1")
    log.register(replace(node("d1"), incarnation="another folder"))
    assert states(shard(log))["d1"] == "lost"
    (step,) = planned(log)
    assert told([step]) == [("begin_move", "d1", "d1", "lost")]
    log.add(step.op, **step.args())
    begun = shard(log)
    assert sorted(begun.old) == ["d2", "d3"] and sorted(begun.new or ()) == ["d1", "d2", "d3"]
    # Its folder is gone once more: it is lost again, and nothing moves.
    down_member = log.catalog.topology.members["d1"]
    log.add("set_member_state", node_id="d1", incarnation=down_member.incarnation, was="up", to="down")
    log.register(replace(node("d1"), incarnation="a third folder"))
    assert (states(shard(log))["d1"], shard(log).move) == ("lost", None)
    (step,) = planned(log)
    log.add(step.op, **step.args())
    for _ in range(2):
        log.add("advance_move", **at(log), node_id="d1")
    assert states(shard(log)) == {"d1": "active", "d2": "active", "d3": "active"}
    assert planned(log) == []


def test_a_source_that_is_lost_under_way_does_not_come_back() -> None:
    log = cluster("d1", "d2", "d3", "d4")
    log.create("docs", ["d1", "d2", "d3"])
    log.add("begin_move", **at(log), source="d1", target="d4")
    down(log, "d1")
    log.register(replace(node("d1"), incarnation="another folder"))
    assert states(shard(log)) == {"d1": "lost", "d2": "active", "d3": "active", "d4": "joining"}
    assert sorted(shard(log).old) == ["d2", "d3"]
    for _ in range(2):
        log.add("advance_move", **at(log), node_id="d4")
    assert states(shard(log)) == {"d2": "active", "d3": "active", "d4": "active"}


def test_the_last_replica_that_is_lost_is_not_made_anew_and_empty() -> None:
    log = cluster("d1", "d2")
    log.create("docs", ["d1"])
    down(log, "d1")
    log.register(replace(node("d1"), incarnation="another folder"))
    assert states(shard(log)) == {"d1": "lost"} and planned(log, 1e6) == []
    for target in ("d1", "d2"):
        with pytest.raises(InvalidArgumentError):
            log.add("begin_move", **at(log), source="d1", target=target)


def test_topologies_with_moves_survive_json_and_differences() -> None:
    log = cluster("d1", "d2", "d3", "d4")
    log.create("docs", ["d1", "d2", "d3"])
    before = log.catalog.topology
    log.add("begin_move", **at(log), source="d1", target="d4")
    log.add("pause_moves", paused=True)
    now = log.catalog.topology
    assert now.moves_paused and Topology.from_json(now.to_json()) == now
    assert apply_delta(before, delta_of(before, now)) == now
    log.add("pause_moves", paused=False)
    assert not apply_delta(now, delta_of(now, log.catalog.topology)).moves_paused


# -- the plan


def test_nothing_moves_in_a_cluster_that_is_well() -> None:
    log = cluster("d1", "d2", "d3")
    log.create("docs", ["d1", "d2", "d3"], shards=4)
    assert planned(log) == []
    down(log, "d1", "suspect")
    assert planned(log, 1e6) == []


def test_a_node_that_is_down_keeps_its_replicas_for_a_while() -> None:
    log = cluster("d1", "d2", "d3", "d4")
    log.create("docs", ["d1", "d2", "d3"])
    down(log, "d1")
    assert planned(log, 899.0) == []
    assert told(planned(log, 900.0)) == [("begin_move", "d1", "d4", "its node is down")]


def test_a_node_that_drains_gives_everything_away_as_much_at_a_time_as_is_allowed() -> None:
    log = cluster("d1", "d2", "d3", "d4", "d5")
    for n in range(4):
        log.create(f"c{n}", ["d1", "d2", "d3"])
    log.add("drain", node_id="d1", draining=True)
    steps = planned(log)
    # Two at a time, and one to a node.
    assert sorted(told(steps)) == [
        ("begin_move", "d1", "d4", "its node drains"),
        ("begin_move", "d1", "d5", "its node drains"),
    ]
    for step in steps:
        log.add(step.op, **step.args())
    assert planned(log) == []
    assert told(planned(log, limits=replace(LIMITS, moves_max=9, moves_per_node_max=2)))
    log.add("pause_moves", paused=True)
    assert planned(log, limits=replace(LIMITS, moves_max=9, moves_per_node_max=2)) == []


def test_with_no_move_allowed_none_begins_whatever_the_reason() -> None:
    log = cluster("d1", "d2", "d3", "d4", "d5")
    for n in range(3):
        log.create(f"c{n}", ["d1", "d2", "d3"])
    never = replace(LIMITS, moves_max=0)
    assert told(planned(log))[0][-1] == "balance" and planned(log, limits=never) == []
    log.add("drain", node_id="d1", draining=True)
    assert planned(log, limits=never) == []
    down(log, "d2")
    assert planned(log, 1e6, limits=never) == []


def test_a_move_to_a_node_that_went_down_is_given_up() -> None:
    log = cluster("d1", "d2", "d3", "d4")
    log.create("docs", ["d1", "d2", "d3"])
    log.add("begin_move", **at(log), source="d1", target="d4")
    down(log, "d4", "suspect")
    assert planned(log) == []
    down(log, "d4")
    log.add("pause_moves", paused=True)
    assert told(planned(log)) == [("cancel_move", "", "", "d4 is down")]


def test_a_replica_goes_where_no_other_one_is_in_the_zone() -> None:
    log = cluster("d1", "d2", "d3", "d4", "d5", d1="a", d2="b", d3="c", d4="b", d5="a")
    log.create("docs", ["d1", "d2", "d3"])
    log.create("more", ["d5"])
    log.add("drain", node_id="d1", draining=True)
    assert told(planned(log)) == [("begin_move", "d1", "d5", "its node drains")]


@given(seed=st.integers(0, 10_000))
def test_shards_flow_to_nodes_that_come_until_all_are_about_as_full_and_then_rest(seed: int) -> None:
    dice = random.Random(seed)
    names = [f"d{n}" for n in range(dice.randrange(3, 6))]
    log = cluster(*names)
    for n in range(dice.randrange(1, 8)):
        log.create(f"c{n}", dice.sample(names, 3), shards=dice.randrange(1, 3))
    log.register(*(node(f"new{n}") for n in range(dice.randrange(1, 3))))
    moved: Counter[str] = Counter()
    for _ in range(200):
        steps = planned(log)
        if not steps:
            break
        for step in steps:
            log.add(step.op, **step.args())
            moved[step.target] += 1
            name = step.uuid.removeprefix("uuid of ")
            for _ in range(2):
                log.add("advance_move", **at(log, name, step.shard_id), node_id=step.target)
    topology = log.catalog.topology
    load = Counter(dict.fromkeys(topology.members, 0))
    for info in topology.collections.values():
        for found in info.shards:
            assert len(found.nodes("active")) == len(found.replicas) == 3
            load.update(found.nodes("active"))
    assert planned(log) == []
    # As even as may be while no shard has two replicas on a node.
    shards = sum(len(c.shards) for c in topology.collections.values())
    assert max(load.values()) - min(load.values()) <= 1 or min(load.values()) == shards
