"""Splits: what the catalog makes of them, and which of them the leader begins."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omendb_common.errors import InvalidArgumentError, NotFoundError, OmenDBError
from omendb_common.ring import RING, even_bounds
from omendb_common.topology import ReplicaSize, Shard, Topology
from omendb_common.topology_delta import apply_delta, delta_of
from omendb_coordinator.catalog import Catalog
from omendb_coordinator.commands import ConflictError
from omendb_coordinator.splits import Sizes, SplitLimits, largest, plan_splits
from tests.unit.coordinator.catalog_cases import Log, node

LIMITS = SplitLimits(rows=100, size=1000, rereplicate_s=900.0)
NODES = ["d1", "d2", "d3"]


def cluster(shards: int = 1, *more: str) -> Log:
    log = Log()
    log.register(*(node(n) for n in (*NODES, *more)))
    log.create("docs", NODES, shards)
    return log


def shards(log: Log) -> tuple[Shard, ...]:
    return log.catalog.topology.collection("docs").shards


def at(log: Log, shard_id: int = 0) -> dict[str, Any]:
    found = log.catalog.topology.collection("docs").shard(shard_id)
    return {"uuid": "uuid of docs", "shard_id": shard_id, "epoch": found.epoch}


def planned(log: Log, sizes: Sizes, silent_s: float = 0.0, limits: SplitLimits = LIMITS) -> list[tuple[str, int]]:
    steps = plan_splits(log.catalog.topology, lambda _: silent_s, sizes, limits)
    return [(step.op, step.shard_id) for step in steps]


def sizes_of(**rows: int) -> dict[tuple[str, int], ReplicaSize]:
    """s0=5: the replicas of shard 0 have 5 rows."""
    numbers = {int(name[1:]): n for name, n in rows.items()}
    return {("uuid of docs", s): ReplicaSize("uuid of docs", s, n, n) for s, n in numbers.items()}


def member(log: Log, name: str, to: str) -> None:
    was = log.catalog.topology.members[name].state
    log.add("set_member_state", node_id=name, incarnation=f"folder of {name}", was=was, to=to)


# -- the catalog


def test_the_halves_take_the_place_of_a_shard_when_every_node_has_said_that_they_are_whole() -> None:
    log = cluster(2)
    log.add("note_repaired", node_id="d1", shards=[["uuid of docs", 1, shards(log)[1].epoch, 77]], grace=7)
    was = shards(log)[1]
    log.add("begin_split", **at(log, 1))
    begun = shards(log)[1]
    assert begun.split is not None and begun.fence == was.fence < begun.epoch == begun.split.session
    assert replace(begun, split=None, epoch=was.epoch) == was, "it serves as before"
    for name in ("d2", "d1", "d2"):
        log.add("advance_split", **at(log, 1), node_id=name)
    assert shards(log)[1].epoch == begun.epoch and len(shards(log)) == 2
    revision = log.add("advance_split", **at(log, 1), node_id="d3")["revision"]
    first, low, high = shards(log)
    middle = (was.low + was.high) // 2
    assert (first.shard_id, low.shard_id, high.shard_id) == (0, 2, 3)
    assert [(s.low, s.high) for s in (low, high)] == [(was.low, middle), (middle, RING)]
    for half in (low, high):
        assert half.epoch == half.fence == revision and (half.repaired_through, half.gc_floor) == (77, 70)
        assert {(r.node_id, r.state, r.session) for r in half.replicas} == {(n, "active", begun.epoch) for n in NODES}


def test_a_split_that_is_given_up_leaves_no_trace_but_a_newer_epoch() -> None:
    log = cluster()
    was = shards(log)
    log.add("begin_split", **at(log), at=5)
    log.add("advance_split", **at(log), node_id="d1")
    log.add("cancel_split", **at(log))
    (now,) = shards(log)
    assert replace(now, epoch=was[0].epoch) == was[0]
    log.add("begin_split", **at(log))
    again = shards(log)[0].split
    assert again is not None and again.ready == ()


def test_what_is_no_split_is_refused() -> None:
    log = cluster(1, "d4")
    for place in (0, RING, RING + 5, -1, "x", True):
        with pytest.raises(InvalidArgumentError):
            log.add("begin_split", **at(log), at=place)
    for op in ("advance_split", "cancel_split"):
        with pytest.raises(NotFoundError):
            log.add(op, **at(log), node_id="d1")
    was = at(log)
    log.add("begin_split", **was)
    with pytest.raises(ConflictError):
        log.add("advance_split", **was, node_id="d1")
    for op, more in (
        ("begin_split", {}),
        ("begin_move", {"source": "d1", "target": "d4"}),
        ("advance_split", {"node_id": "d4"}),
    ):
        with pytest.raises(InvalidArgumentError):
            log.add(op, **at(log), **more)
    log.add("cancel_split", **at(log))
    log.add("begin_move", **at(log), source="d1", target="d4")
    with pytest.raises(InvalidArgumentError):
        log.add("begin_split", **at(log))


def test_a_replica_that_is_lost_ends_the_split_of_its_shard() -> None:
    log = cluster()
    log.add("begin_split", **at(log))
    for name in ("d1", "d2"):
        log.add("advance_split", **at(log), node_id=name)
    member(log, "d1", "down")
    log.register(replace(node("d1"), incarnation="another folder"))
    (shard,) = shards(log)
    assert shard.split is None and shard.nodes("lost") == ("d1",)
    with pytest.raises(InvalidArgumentError):
        log.add("begin_split", **at(log))


@given(st.data())
def test_whatever_is_done_the_shards_cover_the_ring_and_numbers_differ(data: st.DataObject) -> None:
    log = cluster(data.draw(st.integers(1, 3)))
    for _ in range(data.draw(st.integers(1, 12))):
        op = data.draw(st.sampled_from(["begin_split", "advance_split", "advance_split", "cancel_split"]))
        which = data.draw(st.sampled_from([s.shard_id for s in shards(log)]))
        before: Topology = log.catalog.topology
        try:
            log.add(op, **at(log, which), node_id=data.draw(st.sampled_from(NODES)))
        except OmenDBError:
            assert log.catalog.topology == before
        now = shards(log)
        assert now[0].low == 0 and now[-1].high == RING
        assert all(a.high == b.low for a, b in itertools.pairwise(now))
        numbers = [s.shard_id for s in now]
        numbers += [n for s in now if s.split is not None for n in (s.split.low_id, s.split.high_id)]
        assert len(set(numbers)) == len(numbers)
        assert apply_delta(before, delta_of(before, log.catalog.topology)) == log.catalog.topology
    again = Catalog()
    again.restore(log.catalog.snapshot(), len(log.entries))
    assert again.topology == log.catalog.topology and again.snapshot() == log.catalog.snapshot()


# -- the planner


def test_the_largest_shard_above_its_bound_splits_one_at_a_time() -> None:
    log = cluster(3)
    assert planned(log, sizes_of(s0=100, s1=100)) == []
    assert planned(log, sizes_of(s0=101, s1=300, s2=200)) == [("begin_split", 1)]
    assert planned(log, sizes_of(s0=300), limits=replace(LIMITS, rows=0, size=0)) == []
    assert planned(log, sizes_of(s0=1100), limits=replace(LIMITS, rows=0)) == [("begin_split", 0)]
    log.add("begin_split", **at(log, 1))
    assert planned(log, sizes_of(s0=101, s1=300)) == []


def test_nothing_splits_that_is_not_well_or_while_moves_are_paused() -> None:
    sizes = sizes_of(s0=300)
    log = cluster(1, "d4")
    log.add("pause_moves", paused=True)
    assert planned(log, sizes) == []
    log.add("pause_moves", paused=False)
    member(log, "d3", "suspect")
    assert planned(log, sizes) == []
    member(log, "d3", "up")
    assert planned(log, sizes) == [("begin_split", 0)]
    log.add("begin_move", **at(log), source="d1", target="d4")
    assert planned(log, sizes) == []


def test_a_split_waits_for_a_node_and_is_given_up_when_that_stays_away() -> None:
    log = cluster()
    log.add("begin_split", **at(log))
    member(log, "d3", "down")
    assert planned(log, {}, silent_s=899.0) == []
    assert planned(log, {}, silent_s=900.0) == [("cancel_split", 0)]


def test_of_what_nodes_tell_the_most_counts() -> None:
    one = ReplicaSize("u", 0, 5, 10)
    assert largest([{("u", 0): one}, {("u", 0): ReplicaSize("u", 0, 7, 3)}]) == {("u", 0): ReplicaSize("u", 0, 7, 10)}
    assert even_bounds(1) == [(0, RING)]
