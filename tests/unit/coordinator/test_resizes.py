"""Another replication and other quorums: what the catalog makes of them, and the leader's steps to them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omendb_common.errors import InvalidArgumentError, NotFoundError
from omendb_common.quorum import Quorums, majority
from omendb_common.topology import CollectionInfo, Shard, Topology, collection_from_json, collection_to_json
from omendb_coordinator.commands import ConflictError
from omendb_coordinator.moves import MoveLimits, Step, plan_moves
from omendb_coordinator.resize_changes import enough
from omendb_coordinator.resizes import next_quorums
from tests.unit.coordinator.catalog_cases import Log, node

LIMITS = MoveLimits(moves_max=2, moves_per_node_max=1, rereplicate_s=900.0, balance_difference=9)
NAMES = ["d1", "d2", "d3"]


def cluster(nodes: int = 5, shards: int = 1, **zones: str) -> Log:
    log = Log()
    log.register(*(node(n, zone=zones.get(n, "")) for n in (f"d{i}" for i in range(1, nodes + 1))))
    log.create("docs", NAMES[: min(nodes, 3)], shards=shards)
    return log


def info(log: Log) -> CollectionInfo:
    return log.catalog.topology.collection("docs")


def shard(log: Log) -> Shard:
    return info(log).shards[0]


def at(log: Log) -> dict[str, Any]:
    return {"uuid": "uuid of docs", "shard_id": 0, "epoch": shard(log).epoch}


def planned(log: Log, silent_s: float = 0.0, limits: MoveLimits = LIMITS) -> list[Step]:
    return plan_moves(log.catalog.topology, lambda member: silent_s, limits)


def take(log: Log) -> Step:
    (step,) = planned(log)
    log.add(step.op, **step.args())
    return step


def end(log: Log) -> None:
    """All who must say something do."""
    while shard(log).move is not None:
        move = shard(log).move
        assert move is not None
        waits = [move.target] if move.target else [n for n in shard(log).nodes("active") if n not in move.ready]
        log.add("advance_move", **at(log), node_id=waits[0])


def down(log: Log, name: str) -> None:
    was = log.catalog.topology.members[name].state
    log.add("set_member_state", node_id=name, incarnation=f"folder of {name}", was=was, to="down")


# -- numbers


QUORUMS = [Quorums(n, w, r) for n in range(1, 8) for w in range(1, n + 1) for r in range(1, n + 1)]


@given(now=st.sampled_from(QUORUMS), wished=st.sampled_from(QUORUMS))
def test_what_holds_at_both_ends_holds_all_the_way(now: Quorums, wished: Quorums) -> None:
    both = [now, wished]
    steps = 0
    while now != wished and steps < 9:
        steps += 1
        before, now = now, next_quorums(now, wished)
        now.check()
        assert now != before and abs(now.replication - before.replication) <= 1
        if now.replication > before.replication:
            assert now.write >= before.write and now.read >= before.read
        assert now.meet or not all(q.meet for q in both)
        for which in ("write", "read"):
            if all(getattr(q, which) >= majority(q.replication) for q in both):
                assert getattr(now, which) >= majority(now.replication)
    assert now == wished


def test_reads_meet_writes_of_every_map_that_may_count_beside_theirs() -> None:
    """The argument of ``resize_changes`` by counting: writes from before, and where they are when a step has ended."""
    for now, wished in itertools.product(QUORUMS, QUORUMS):
        then = next_quorums(now, wished)
        if now == wished or not (now.meet and wished.meet):
            continue
        joins, leaves = then.replication > now.replication, then.replication < now.replication
        # The target has it beside those that had it; else, at worst, those that are ready are those that had it, and
        # one of them leaves.
        have = now.write + 1 if joins else max(enough(then), now.write - leaves)
        assert then.read + have > then.replication, (now, then)
        if then.write >= then.majority and now.write >= now.majority:
            assert then.write + have > then.replication, (now, then)


# -- the catalog


def test_a_wish_changes_nothing_that_is_in_force() -> None:
    log = cluster()
    before = shard(log)
    log.add("reshape_collection", name="docs", replication=5)
    assert info(log).wished == Quorums(5, 3, 3)  # majorities stay majorities
    assert shard(log).quorums == Quorums(3, 2, 2) == info(log).quorums(shard(log))
    assert (shard(log).epoch, shard(log).fence) == (before.epoch, before.fence)
    assert collection_from_json(collection_to_json(info(log))) == info(log)
    log.add("reshape_collection", name="docs", replication=3)
    assert shard(log) == before and info(log).wished == Quorums(3, 2, 2)
    log.add("reshape_collection", name="docs", write_quorum=3, read_quorum=1)
    log.add("reshape_collection", name="docs", replication=4)
    assert info(log).wished == Quorums(4, 4, 1)  # all stays all


def test_what_cannot_be_is_refused_with_its_bounds() -> None:
    log = cluster(4)
    log.add("drain", node_id="d4", draining=True)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"replication": 4}, "replication"),  # one of four drains
        ({"replication": 8}, "replication"),
        ({"replication": 0}, "replication"),
        ({"replication": 2, "write_quorum": 3}, "write_quorum"),
        ({"read_quorum": 4}, "read_quorum"),
        ({"write_quorum": 0}, "write_quorum"),
    ]
    for wrong, field in cases:
        with pytest.raises(InvalidArgumentError) as refused:
            log.add("reshape_collection", name="docs", **wrong)
        assert refused.value.field == field and refused.value.bound
    log.add("reshape_collection", name="docs", replication=2)  # fewer always may be asked for


def test_a_replica_joins_and_writes_take_both_quorums_until_it_counts() -> None:
    log = cluster()
    log.add("reshape_collection", name="docs", replication=4)
    step = take(log)
    assert (step.op, step.source, step.quorums) == ("begin_resize", "", Quorums(4, 3, 3))
    begun = shard(log)
    assert begun.nodes("joining") == (step.target,) and not begun.switching and begun.fence == begun.epoch
    assert (info(log).quorums(begun), info(log).quorums_after(begun)) == (Quorums(3, 2, 2), Quorums(4, 3, 3))
    assert collection_from_json(collection_to_json(info(log))) == info(log)
    log.add("advance_move", **at(log), node_id=step.target)
    assert shard(log).switching
    log.add("advance_move", **at(log), node_id=step.target)
    done = shard(log)
    assert (len(done.nodes("active")), done.move, done.quorums) == (4, None, None)
    assert planned(log) == []


def test_a_replica_leaves_when_those_that_stay_have_said_that_they_are_whole() -> None:
    log = cluster(4, d1="a", d2="b", d3="b")
    log.add("reshape_collection", name="docs", replication=2, write_quorum=1, read_quorum=2)
    step = take(log)
    assert step.source in ("d2", "d3") and step.target == ""  # two share a zone
    begun = shard(log)
    assert begun.switching and begun.nodes("leaving") == (step.source,) and len(begun.new or ()) == 2
    with pytest.raises(InvalidArgumentError):
        log.add("advance_move", **at(log), node_id=step.source)
    end(log)
    assert len(shard(log).replicas) == 2
    while planned(log):
        take(log)
        end(log)
    assert shard(log).quorums is None and info(log).wished == Quorums(2, 1, 2)


def test_a_smaller_read_quorum_waits_for_every_replica() -> None:
    log = cluster(3)
    log.add("reshape_collection", name="docs", write_quorum=3, read_quorum=1)
    step = take(log)
    assert (step.source, step.target, step.quorums) == ("", "", Quorums(3, 3, 1))
    epoch = shard(log).epoch
    for name in ("d2", "d1", "d2"):
        log.add("advance_move", **at(log), node_id=name)
        assert shard(log).epoch == epoch and info(log).quorums(shard(log)) == Quorums(3, 2, 2)
    move = shard(log).move
    assert move is not None and move.ready == ("d1", "d2")
    log.add("advance_move", **at(log), node_id="d3")
    assert (shard(log).move, shard(log).quorums) == (None, None) and shard(log).fence > epoch


def test_a_step_that_is_given_up_or_loses_a_replica_leaves_the_numbers_in_force() -> None:
    for loses in (False, True):
        log = cluster(3)
        log.add("reshape_collection", name="docs", write_quorum=3, read_quorum=1)
        take(log)
        log.add("advance_move", **at(log), node_id="d1")
        if loses:
            down(log, "d2")
            log.register(replace(node("d2"), incarnation="another folder"))
            assert planned(log)[0].op == "begin_move"  # what is lost is more urgent
        else:
            log.add("cancel_move", **at(log))
        assert shard(log).move is None and info(log).quorums(shard(log)) == Quorums(3, 2, 2)


def test_what_is_no_step_is_refused() -> None:
    log = cluster(4)
    log.add("reshape_collection", name="docs", replication=4)
    for wrong, error in (
        ({"source": "", "target": "d4", "quorums": [5, 3, 3]}, InvalidArgumentError),  # two at a time
        ({"source": "", "target": "d4", "quorums": [4, 1, 3]}, InvalidArgumentError),  # a smaller one
        ({"source": "", "target": "", "quorums": [3, 1, 1]}, InvalidArgumentError),  # reads would miss writes
        ({"source": "", "target": "", "quorums": [3, 2, 2]}, InvalidArgumentError),  # nothing
        ({"source": "", "target": "d1", "quorums": [4, 3, 3]}, InvalidArgumentError),  # has one
        ({"source": "", "target": "d9", "quorums": [4, 3, 3]}, NotFoundError),
        ({"source": "d4", "target": "", "quorums": [2, 2, 2]}, NotFoundError),
        ({"source": "d1", "target": "d4", "quorums": [3, 3, 2]}, InvalidArgumentError),  # a move, and more
        ({"source": "", "target": "d4", "quorums": [4, 5, 3]}, InvalidArgumentError),
        ({"source": "", "target": "d4", "quorums": "4/3/3"}, InvalidArgumentError),
    ):
        with pytest.raises(error):
            log.add("begin_resize", **at(log), **wrong)
    was = at(log)
    take(log)
    with pytest.raises(ConflictError):
        log.add("begin_resize", **was, source="", target="d4", quorums=[4, 3, 3])
    with pytest.raises(InvalidArgumentError):
        log.add("begin_resize", **at(log), source="", target="d4", quorums=[4, 3, 3])


# -- the plan


def test_steps_wait_for_nodes_and_end_without_those_that_stay_away() -> None:
    log = cluster(3)
    log.add("reshape_collection", name="docs", write_quorum=3, read_quorum=1)
    down(log, "d3")
    assert planned(log) == []
    log.add("set_member_state", node_id="d3", incarnation="folder of d3", was="down", to="up")
    assert planned(log, limits=MoveLimits(0, 1, 900.0, 9)) != []  # it was asked for: one at a time may
    take(log)
    down(log, "d3")
    assert planned(log, 10.0) == []
    (step,) = planned(log, 900.0)
    assert (step.op, step.why) == ("cancel_move", "d3 is down")


def test_a_replica_of_a_node_that_is_down_or_drains_goes_first() -> None:
    log = cluster(4)
    log.add("reshape_collection", name="docs", replication=2)
    log.add("drain", node_id="d2", draining=True)
    assert planned(log)[0].source == "d2"
    down(log, "d3")
    assert planned(log)[0].source == "d3"


@given(data=st.data())
def test_any_row_of_wishes_and_events_keeps_its_promises(data: st.DataObject) -> None:
    """Whatever is asked for and happens in between: quorums fit, and in the end all is as was asked for last."""
    log = cluster(5)
    for _ in range(data.draw(st.integers(1, 12))):
        event = data.draw(st.sampled_from(["alter", "step", "advance", "cancel", "move"]))
        try:
            if event == "alter":
                wish = data.draw(st.sampled_from([q for q in QUORUMS if q.replication <= 5 and q.meet]))
                numbers: dict[str, Any] = {"write_quorum": wish.write, "read_quorum": wish.read}
                log.add("reshape_collection", name="docs", replication=wish.replication, **numbers)
            elif event == "step":
                for step in planned(log)[:1]:
                    log.add(step.op, **step.args())
            elif event == "advance":
                log.add("advance_move", **at(log), node_id=data.draw(st.sampled_from([f"d{n}" for n in range(1, 6)])))
            elif event == "cancel":
                log.add("cancel_move", **at(log))
            else:
                source, target = (
                    data.draw(st.sampled_from(shard(log).replicas)).node_id,
                    data.draw(st.sampled_from(NAMES)),
                )
                log.add("begin_move", **at(log), source=source, target=target)
        except (InvalidArgumentError, NotFoundError):
            pass
        _check(log.catalog.topology)
    for _ in range(20):
        end(log)
        for step in planned(log)[:1]:
            log.add(step.op, **step.args())
    assert shard(log).quorums is None and shard(log).move is None
    assert len(shard(log).nodes("active")) == len(shard(log).replicas) == info(log).replication


def _check(topology: Topology) -> None:
    found = topology.collection("docs")
    one = found.shards[0]
    now, then = found.quorums(one), found.quorums_after(one)
    now.check()
    assert len(one.old) == now.replication and now.meet
    if then is not None:
        assert one.new is not None and len(one.new) == then.replication and then.meet
