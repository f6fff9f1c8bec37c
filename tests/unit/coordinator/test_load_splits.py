"""Splits by load: which shard is cut, what keeps it whole, and that nothing goes back and forth."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from omendb_common.ring import RING
from omendb_common.topology import ReplicaLoad, ReplicaSize, Shard
from omendb_coordinator.load_splits import LoadLimits, LoadSplits
from omendb_coordinator.merges import MergeLimits, Merges
from omendb_coordinator.splits import Sizes, SplitLimits, largest, plan_splits
from tests.unit.coordinator.catalog_cases import Log
from tests.unit.coordinator.test_merges import cluster as merging_cluster
from tests.unit.coordinator.test_splits import NODES, at, cluster, member, shards

LIMITS = LoadLimits(bound=0.5, after_s=3.0)
BUSY = ReplicaLoad(total=2.0, divides=1.0, cut=RING // 3, lesser=0.4)
UUID = "uuid of docs"


def told(load: ReplicaLoad | None, shard_id: int = 0, rows: int = 1_000_000) -> Sizes:
    """What nodes tell of one shard."""
    return {(UUID, shard_id): ReplicaSize(UUID, shard_id, rows, rows, load)}


class Looks:
    """Plans as the leader does, a second after the other."""

    def __init__(self, limits: LoadLimits = LIMITS) -> None:
        self.splits = LoadSplits(limits)
        self.now_s = 0.0

    def plan(self, log: Log, sizes: Sizes, times: int = 4) -> list[tuple[str, int, int | None]]:
        """What is due after so many seconds."""
        for _ in range(times):
            self.now_s += 1.0
            steps = self.splits.plan(log.catalog.topology, sizes, self.now_s)
        return [(step.op, step.shard_id, step.at) for step in steps]


def test_a_shard_that_is_busy_for_long_is_cut_where_its_work_divides() -> None:
    log, leader = cluster(1, "d4"), Looks()
    assert leader.plan(log, told(BUSY), times=3) == []
    assert leader.plan(log, told(BUSY), times=1) == [("begin_split", 0, RING // 3)]
    (step,) = leader.splits.plan(log.catalog.topology, told(BUSY), leader.now_s)
    log.add(step.op, **step.args())
    split = shards(log)[0].split
    assert split is not None and split.at == RING // 3
    assert leader.plan(log, told(BUSY)) == [], "one at a time"


def test_a_burst_splits_nothing() -> None:
    log, leader = cluster(1, "d4"), Looks()
    idle = told(replace(BUSY, divides=0.5))
    for _ in range(5):
        assert leader.plan(log, told(BUSY), times=3) == []
        assert leader.plan(log, idle, times=1) == [], "it is not above the bound any more"
    assert leader.plan(log, told(BUSY), times=3) == []
    leader.splits.forget()
    assert leader.plan(log, told(BUSY), times=3) == [], "a new leader begins anew"
    assert leader.plan(log, {}, times=1) == leader.plan(log, told(BUSY), times=3) == []


def test_nothing_splits_that_would_not_be_helped() -> None:
    log, leader = cluster(1, "d4"), Looks()
    for load in (
        replace(BUSY, divides=0.4),  # most of it is searches, which both halves would do
        replace(BUSY, lesser=0.2),  # one hot point
        replace(BUSY, lesser=0.0),  # nobody knows where the work lies
        replace(BUSY, cut=0),
        None,  # a node of an older release, or begun just now
    ):
        assert leader.plan(log, told(load)) == []
    assert leader.plan(log, told(BUSY, rows=2999)) == [], "a third of the ring has less than a thousand points"
    assert leader.plan(log, told(BUSY, rows=3000)) != []
    assert Looks(replace(LIMITS, bound=0.0)).plan(log, told(BUSY)) == []
    assert Looks().plan(cluster(1), told(BUSY)) == [], "both halves would stay where they are, side by side"
    member(log, "d4", "suspect")
    assert leader.plan(log, told(BUSY)) == []
    member(log, "d4", "up")
    log.add("pause_moves", paused=True)
    assert leader.plan(log, told(BUSY)) == []
    log.add("pause_moves", paused=False)
    log.add("begin_move", **at(log), source="d1", target="d4")
    assert leader.plan(log, told(BUSY)) == []


def test_the_busiest_shard_goes_first_and_people_are_told_what_keeps_the_others() -> None:
    log, leader = cluster(3, "d4"), Looks()
    cuts = [(s.low + s.high) // 2 for s in shards(log)]
    loads = [replace(BUSY, cut=cuts[0]), replace(BUSY, cut=cuts[1], divides=1.5), replace(BUSY, lesser=0.1)]
    sizes = {**told(loads[0], 0), **told(loads[1], 1), **told(loads[2], 2)}
    assert leader.plan(log, sizes) == [("begin_split", 1, cuts[1])]
    busy = leader.splits.busy(log.catalog.topology, sizes, leader.now_s)
    assert [(one.shard_id, one.load, one.since_s) for one in busy] == [(1, 1.5, 1.0), (0, 1.0, 1.0), (2, 1.0, 1.0)]
    assert [one.kept for one in busy] == ["", "", "one place of the ring has most of it"]


def test_of_what_nodes_tell_the_load_of_the_busiest_replica_counts() -> None:
    idle = replace(BUSY, divides=0.1)
    for loads in ([None, BUSY, idle], [BUSY, idle, None], [idle, None, BUSY]):
        assert largest([told(load) for load in loads])[UUID, 0].load == BUSY
    assert largest([told(None)] * 2)[UUID, 0].load is None


# -- nothing goes back and forth


@dataclass
class Constant:
    """A load that does not change, and points that stay: by place of the ring."""

    places: dict[int, tuple[float, int]]

    def sizes(self, log: Log) -> Sizes:
        """What nodes that know everything would tell."""
        return {(UUID, s.shard_id): self.size(s) for s in shards(log)}

    def size(self, shard: Shard) -> ReplicaSize:
        """One shard's share of it."""
        inside = sorted((at, *both) for at, both in self.places.items() if shard.low <= at < shard.high)
        divides, rows = sum(load for _, load, _ in inside), sum(rows for _, _, rows in inside)
        best, below = (0, 0.0), 0.0
        for (_, load, _), (following, _, _) in pairwise(inside):
            below += load
            best = max(best, (following, min(below, divides - below)), key=lambda cut: cut[1])
        told = ReplicaLoad(divides, divides, best[0], best[1] / divides if divides else 0.0)
        return ReplicaSize(UUID, shard.shard_id, rows, 0, told)


@dataclass
class Loop:
    """The leader's decisions under a constant load, each carried out at once."""

    log: Log
    world: Constant
    splits: LoadSplits
    merges: Merges
    limits: SplitLimits
    now_s: float = 0.0
    split: list[tuple[int, int]] = field(default_factory=list)
    merged: list[tuple[int, int]] = field(default_factory=list)

    def step(self) -> bool:
        """Look once, as the leader does, and have what begins end; whether anything began."""
        self.now_s += 1.0
        topology, sizes = self.log.catalog.topology, self.world.sizes(self.log)
        steps = plan_splits(topology, lambda _: 0.0, sizes, self.limits)
        steps += [one for one in self.splits.plan(topology, sizes, self.now_s) if not steps]
        steps += [one for one in self.merges.plan(topology, lambda _: 0.0, sizes, self.now_s) if not steps]
        for one in steps:
            found = topology.collection("docs").shard(one.shard_id)
            self.log.add(one.op, **one.args(), margin=0)
            if one.op == "begin_split":
                self.split.append((found.low, found.high))
                self.end("advance_split", one.shard_id)
            else:
                other = topology.collection("docs").shard(one.args()["other_id"])
                self.merged.append((min(found.low, other.low), max(found.high, other.high)))
                self.end("advance_merge", one.shard_id)
        return bool(steps)

    def end(self, op: str, shard_id: int) -> None:
        """All nodes say that theirs is whole."""
        for name in NODES:
            self.log.add(op, **at(self.log, shard_id), node_id=name)


PLACES = st.dictionaries(
    st.integers(0, RING - 1), st.tuples(st.floats(0.0, 2.0), st.integers(0, 400)), min_size=1, max_size=24
)


@settings(deadline=None)
@given(PLACES, st.integers(1, 3), st.lists(st.integers(1, RING - 1), max_size=6), st.sampled_from([0.05, 0.25, 0.5]))
@example({RING // 2 - 1: (0.3, 100), RING // 2: (0.3, 100)}, 1, [], 0.5)
def test_under_a_constant_load_what_splits_stays_split_and_it_ends(
    places: dict[int, tuple[float, int]], made: int, cuts: list[int], share: float
) -> None:
    """From whatever shards people have cut by hand."""
    log = merging_cluster(made, "d4")
    limits = SplitLimits(rows=1000, size=0, rereplicate_s=900.0)
    by_load = LoadLimits(0.5, 1.0, rows_least=0)
    merges = Merges(MergeLimits(limits, share, 1.0, 0, load=by_load.bound))
    loop = Loop(log, Constant(places), LoadSplits(by_load), merges, limits)
    for cut in cuts:
        (found,) = (s for s in shards(log) if s.low <= cut < s.high)
        if cut != found.low:
            log.add("begin_split", **at(log, found.shard_id), at=cut)
            loop.end("advance_split", found.shard_id)
    quiet = 0
    for _ in range(400):
        quiet = 0 if loop.step() else quiet + 1
        if quiet > 3:
            break
    assert quiet > 3, "it ends"
    assert not set(loop.split) & set(loop.merged), "what merged would split again, or the other way round"
