"""Merges: what the catalog makes of them, and which of them the leader begins."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omendb_common.errors import InvalidArgumentError, NotFoundError, OmenDBError
from omendb_common.ring import RING
from omendb_common.topology import Shard, Topology
from omendb_common.topology_delta import apply_delta, delta_of
from omendb_coordinator.catalog import Catalog
from omendb_coordinator.commands import COMMAND_FORMAT, Command, ConflictError, format_of
from omendb_coordinator.merges import MergeLimits, Merges
from omendb_coordinator.restored_changes import restore
from omendb_coordinator.splits import SplitLimits, plan_splits
from tests.compat.golden import TAKEN_MS
from tests.unit.coordinator.catalog_cases import Log, creation, node
from tests.unit.coordinator.test_splits import LIMITS, NODES, at, member, shards, sizes_of

UUID = "uuid of docs"


def cluster(count: int = 2, *more: str) -> Log:
    """A collection of so many shards, in a cluster that may merge them."""
    log = Log()
    log.register(*(node(n, feature_level=3) for n in (*NODES, *more)))
    log.add("raise_level", level=3)
    log.create("docs", NODES, count)
    return log


def pair(log: Log, shard_id: int = 0, other_id: int = 1, margin: int = 0) -> dict[str, Any]:
    other = at(log, other_id)
    return {**at(log, shard_id), "other_id": other_id, "other_epoch": other["epoch"], "margin": margin}


def begin(log: Log, shard_id: int = 0, other_id: int = 1) -> None:
    log.add("begin_merge", **pair(log, shard_id, other_id))


def end(log: Log, shard_id: int = 0) -> None:
    for name in NODES:
        log.add("advance_merge", **at(log, shard_id), node_id=name)


def split(log: Log, shard_id: int = 0) -> None:
    log.add("begin_split", **at(log, shard_id))
    for name in NODES:
        log.add("advance_split", **at(log, shard_id), node_id=name)


def note(log: Log, shard_id: int, through: int, grace: int) -> None:
    told = [UUID, shard_id, at(log, shard_id)["epoch"], through]
    log.add("note_repaired", node_id="d1", shards=[told], grace=grace)


# -- the catalog


def test_a_joint_shard_takes_the_place_of_both_when_every_node_has_said_that_its_own_is_whole() -> None:
    log = cluster(3)
    note(log, 1, 90, 50)
    note(log, 2, 80, 40)
    was = shards(log)
    log.add("begin_merge", **pair(log, 2, 1))
    first, low, high = shards(log)
    assert first == was[0] and low.merge == high.merge is not None
    for one, before in ((low, was[1]), (high, was[2])):
        assert replace(one, merge=None, epoch=before.epoch) == before, "each serves as before"
    for name in ("d2", "d1", "d2"):
        log.add("advance_merge", **at(log, 2 if name == "d1" else 1), node_id=name)
    assert [s.epoch for s in shards(log)[1:]] == [low.epoch] * 2 and len(shards(log)) == 3
    revision = log.add("advance_merge", **at(log, 2), node_id="d3")["revision"]
    _, joint = shards(log)
    assert (joint.shard_id, joint.low, joint.high) == (3, was[1].low, RING)
    assert joint.epoch == joint.fence == revision and (joint.repaired_through, joint.gc_floor) == (80, 40)
    assert {(r.node_id, r.state, r.session) for r in joint.replicas} == {(n, "active", low.epoch) for n in NODES}


def test_a_merge_that_is_given_up_leaves_no_trace_but_newer_epochs() -> None:
    log = cluster()
    was = shards(log)
    begin(log)
    log.add("advance_merge", **at(log, 1), node_id="d1")
    log.add("cancel_merge", **at(log, 1))
    assert [replace(now, epoch=before.epoch) for now, before in zip(shards(log), was, strict=True)] == list(was)
    begin(log)
    again = shards(log)[0].merge
    assert again is not None and again.ready == ()


def test_floors_become_one_only_where_both_were_found_equal_far_enough_beyond_the_higher() -> None:
    log = cluster()
    note(log, 0, 100, 30)
    note(log, 1, 90, 60)
    assert [s.gc_floor for s in shards(log)] == [70, 30]
    with pytest.raises(InvalidArgumentError, match="equal through 90 only, and deletions up to 70"):
        log.add("begin_merge", **pair(log, margin=21))
    log.add("begin_merge", **pair(log, margin=20))
    note(log, 0, 500, 0)
    assert shards(log)[0].gc_floor == 70, "nothing more is forgotten meanwhile"
    end(log)
    (joint,) = shards(log)
    assert (joint.gc_floor, joint.repaired_through) == (70, 90)


def test_what_cannot_merge_is_refused() -> None:
    log = cluster(3, "d4")
    for args in (pair(log, 0, 2), pair(log, 1, 1), {**pair(log), "margin": -1}, {**pair(log), "other_id": "x"}):
        with pytest.raises(InvalidArgumentError):
            log.add("begin_merge", **args)
    with pytest.raises(ConflictError):
        log.add("begin_merge", **{**pair(log), "other_epoch": 1})
    for op in ("advance_merge", "cancel_merge"):
        with pytest.raises(NotFoundError):
            log.add(op, **at(log), node_id="d1")
    was = at(log)
    begin(log)
    with pytest.raises(ConflictError):
        log.add("advance_merge", **was, node_id="d1")
    refused: list[tuple[str, dict[str, Any]]] = [
        ("begin_split", {}),
        ("begin_merge", {"other_id": 2, "other_epoch": at(log, 2)["epoch"], "margin": 0}),
        ("begin_move", {"source": "d1", "target": "d4"}),
        ("begin_resize", {"source": "", "target": "d4", "quorums": [4, 3, 3]}),
        ("advance_merge", {"node_id": "d4"}),
    ]
    for op, more in refused:
        with pytest.raises(InvalidArgumentError):
            log.add(op, **at(log, 1), **more)
    log.add("cancel_merge", **at(log))
    log.add("begin_move", **at(log, 1), source="d1", target="d4")
    with pytest.raises(InvalidArgumentError, match="moves"):
        begin(log)
    for _ in range(2):
        log.add("advance_move", **at(log, 1), node_id="d4")
    with pytest.raises(InvalidArgumentError, match="one is on d1, d2, d3, the other on d2, d3, d4"):
        begin(log)


def test_a_collection_with_a_partition_key_stays_cut() -> None:
    log = cluster()
    made = creation("keyed", "k", NODES, log.catalog.state.members_revision, 2)
    log.add("create_collection", **{**made, "partition_key": "tenant"})
    low, high = log.catalog.topology.collection("keyed").shards
    args: dict[str, Any] = {
        "uuid": "k",
        "shard_id": 0,
        "epoch": low.epoch,
        "other_id": 1,
        "other_epoch": high.epoch,
        "margin": 0,
    }
    with pytest.raises(InvalidArgumentError, match="partition key"):
        log.add("begin_merge", **args)


@pytest.mark.parametrize("lost_of", [0, 1])
def test_whatever_else_changes_of_one_ends_the_merge_of_both(lost_of: int) -> None:
    log = cluster()
    begin(log)
    log.add("advance_merge", **at(log), node_id="d1")
    before = shards(log)
    log.add("lose_replica", **at(log, lost_of), node_id="d1")
    now = shards(log)
    assert [s.merge for s in now] == [None, None]
    assert all(b.epoch < n.epoch for b, n in zip(before, now, strict=True)), "what was under way is refused"
    assert now[lost_of].nodes("corrupt") == ("d1",) and not now[1 - lost_of].nodes("corrupt")


def test_a_restored_catalog_has_given_merges_up() -> None:
    log = cluster()
    begin(log)
    restored = restore(log.catalog.state, TAKEN_MS, TAKEN_MS + 1000)
    assert [s.merge for s in restored.topology.collections["docs"].shards] == [None, None]


def test_the_level_before_writes_and_reads_no_merges() -> None:
    assert format_of("begin_merge") == format_of("advance_merge") == format_of("cancel_merge") == COMMAND_FORMAT == 3
    log = Log()
    log.register(*(node(n, feature_level=2) for n in NODES))
    log.add("raise_level", level=2)
    log.create("docs", NODES)
    split(log)
    assert b"shards_least" not in log.catalog.snapshot(), "a level writes the same bytes below the next one"
    older = Catalog(level=2)
    for index, entry in enumerate(log.entries, 1):
        older.apply(index, entry)
    assert older.snapshot() == log.catalog.snapshot()
    with pytest.raises(OmenDBError, match="upgrade"):
        older.apply(99, Command("r", "c", "begin_merge", {}, 0).encode())


@given(st.data())
def test_whatever_is_done_the_shards_cover_the_ring_and_merge_in_pairs(data: st.DataObject) -> None:
    log = cluster(data.draw(st.integers(2, 4)))
    ops = ["begin_merge", "advance_merge", "advance_merge", "cancel_merge", "begin_split", "advance_split"]
    for _ in range(data.draw(st.integers(1, 16))):
        op = data.draw(st.sampled_from(ops))
        which, other = (data.draw(st.sampled_from([s.shard_id for s in shards(log)])) for _ in range(2))
        before: Topology = log.catalog.topology
        try:
            log.add(op, **pair(log, which, other), node_id=data.draw(st.sampled_from(NODES)))
        except OmenDBError:
            assert log.catalog.topology == before
        now = shards(log)
        assert now[0].low == 0 and now[-1].high == RING
        assert all(a.high == b.low for a, b in itertools.pairwise(now))
        _check_numbers(now)
        assert apply_delta(before, delta_of(before, log.catalog.topology)) == log.catalog.topology
    again = Catalog()
    again.restore(log.catalog.snapshot(), len(log.entries))
    assert again.topology == log.catalog.topology and again.snapshot() == log.catalog.snapshot()


def _check_numbers(now: tuple[Shard, ...]) -> None:
    merges = [s.merge for s in now if s.merge is not None]
    assert all(merges.count(merge) == 2 for merge in merges)
    numbers = [s.shard_id for s in now] + [merge.into_id for merge in set(merges)]
    numbers += [n for s in now if s.split is not None for n in (s.split.low_id, s.split.high_id)]
    assert len(set(numbers)) == len(numbers)


# -- the planner

SMALL = SplitLimits(rows=1000, size=0, rereplicate_s=900.0)


class Leader:
    """Plans as the leader does, a second after the other."""

    def __init__(self, share: float = 0.25, after_s: float = 3.0, limits: SplitLimits = SMALL) -> None:
        self.merges = Merges(MergeLimits(limits, share, after_s, 0))
        self.now_s = 0.0

    def plan(self, log: Log, silent_s: float = 0.0, times: int = 1, **rows: int) -> list[tuple[str, int]]:
        for _ in range(times):
            self.now_s += 1.0
            steps = self.merges.plan(log.catalog.topology, lambda _: silent_s, sizes_of(**rows), self.now_s)
        return [(step.op, step.shard_id) for step in steps]


def split_in_three() -> Log:
    """Shards 1, 3 and 4, in the place of one."""
    log = cluster(1)
    split(log)
    split(log, 2)
    assert [s.shard_id for s in shards(log)] == [1, 3, 4]
    return log


def test_the_smallest_pair_merges_when_it_was_small_for_long_enough() -> None:
    log, leader = split_in_three(), Leader()
    assert leader.plan(log, times=3, s1=120, s3=100, s4=10) == []
    assert leader.plan(log, s1=120, s3=100, s4=10) == [("begin_merge", 3)]
    leader = Leader()
    assert leader.plan(log, times=3, s1=120, s3=100, s4=10) == []
    assert leader.plan(log, s1=120, s3=100, s4=160) == [("begin_merge", 1)], "the other one has grown"
    assert leader.plan(log, s1=120, s3=200, s4=60) == []
    assert leader.plan(log, times=3, s1=120, s3=100, s4=160) == [], "from the beginning"
    (step,) = leader.merges.plan(log.catalog.topology, lambda _: 0.0, sizes_of(s1=120, s3=100, s4=160), 99.0)
    log.add(step.op, **step.args(), margin=0)
    assert leader.plan(log, times=9, s1=1, s3=1, s4=1) == [], "one pair at a time"


def test_what_merged_does_not_split_again() -> None:
    log, leader = split_in_three(), Leader()
    assert leader.plan(log, times=9, s1=126, s3=124, s4=500) == [], "a quarter of the bound is not below it"
    assert leader.plan(log, times=4, s1=125, s3=124, s4=500) == [("begin_merge", 1)]
    begin(log, 1, 3)
    end(log, 1)
    assert plan_splits(log.catalog.topology, lambda _: 0.0, sizes_of(s5=249, s4=500), SMALL) == []
    assert leader.plan(log, times=9, s5=249, s4=500) == []


def test_no_collection_gets_fewer_shards_than_it_was_made_with() -> None:
    log, leader = cluster(2), Leader()
    assert leader.plan(log, times=9, s0=1, s1=1) == []
    split(log)
    assert leader.plan(log, times=4, s1=1, s2=1, s3=1) != []
    begin(log, 2, 3)
    end(log, 2)
    assert leader.plan(log, times=9, s4=1, s1=1) == []
    log.add("begin_merge", **pair(log, 4, 1))
    end(log, 4)
    assert len(shards(log)) == 1, "by hand it does"


def test_nothing_merges_that_is_not_well_or_that_should_not() -> None:
    log = split_in_three()
    few = {"s1": 1, "s3": 1, "s4": 1}
    assert Leader(share=0.0).plan(log, times=9, **few) == []
    assert Leader(limits=replace(SMALL, rows=0)).plan(log, times=9, **few) == [], "no bound, no share of it"
    assert Leader().plan(log, times=9, s1=1, s4=1) == [], "nobody told how large the one between them is"
    leader = Leader()
    log.add("pause_moves", paused=True)
    assert leader.plan(log, times=9, **few) == []
    log.add("pause_moves", paused=False)
    member(log, "d3", "suspect")
    assert leader.plan(log, times=9, **few) == []
    member(log, "d3", "up")
    assert leader.plan(log, **few) == [("begin_merge", 1)]
    log.add("begin_split", **at(log, 4))
    assert leader.plan(log, times=9, **few) == []


def test_a_merge_waits_for_a_node_and_is_given_up_when_that_stays_away() -> None:
    log = cluster()
    begin(log)
    member(log, "d3", "down")
    assert Leader().plan(log, silent_s=899.0) == []
    assert Leader().plan(log, silent_s=900.0) == [("cancel_merge", 0)]
    assert plan_splits(log.catalog.topology, lambda _: 900.0, sizes_of(s0=9999), LIMITS) == []
