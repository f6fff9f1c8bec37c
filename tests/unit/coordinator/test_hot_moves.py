"""Moves by load: which replica goes where, what keeps it, and that nothing goes back and forth."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.topology import ReplicaLoad, ReplicaSize
from omendb_coordinator.heat import Heat, Told
from omendb_coordinator.hot_moves import HotMoves
from omendb_coordinator.moves import plan_moves
from tests.unit.coordinator.catalog_cases import Log, node
from tests.unit.coordinator.test_moves import LIMITS, at, cluster, down, shard

AFTER_S = 3.0


def told(log: Log, loads: dict[str, float], untold: frozenset[tuple[str, str]] = frozenset()) -> Told:
    """What nodes tell when each replica of a collection takes so much, of one shard each; but for some replicas."""
    found: dict[str, dict[tuple[str, int], ReplicaSize]] = {}
    for name, load in loads.items():
        key = f"uuid of {name}", 0
        for place in shard(log, name).replicas:
            known = None if (place.node_id, name) in untold else ReplicaLoad(total=load)
            found.setdefault(place.node_id, {})[key] = ReplicaSize(*key, load=known)
    return found


class Leader:
    """Decides as the leader does, a second after the other."""

    def __init__(self, hot_from: float = 0.25) -> None:
        self.heat = Heat(hot_from)
        self.moves = HotMoves(LIMITS, AFTER_S)
        self.now_s = 0.0

    def plan(self, log: Log, loads: Told, times: int = 4) -> list[tuple[str, str, str]]:
        """What is due after so many seconds: which collection's replica goes from where to where."""
        for _ in range(times):
            self.now_s += 1.0
            topology = log.catalog.topology
            self.heat.hear(topology, loads)
            steps = plan_moves(topology, lambda _: 0.0, LIMITS, self.heat)
            by_heat = self.moves.plan(topology, self.heat, self.now_s)
        return [(s.uuid.removeprefix("uuid of "), s.source, s.target) for s in steps or by_heat]


def moved(log: Log, name: str, source: str, target: str) -> None:
    log.add("begin_move", **at(log, name), source=source, target=target)
    for _ in range(2):
        log.add("advance_move", **at(log, name), node_id=target)


def three() -> Log:
    """Three nodes: two collections on the first, one on each of the others."""
    log = cluster("d1", "d2", "d3")
    for name, place in (("a", "d1"), ("b", "d1"), ("c", "d2"), ("e", "d3")):
        log.create(name, [place])
    return log


def test_the_hottest_replica_goes_to_the_coolest_node_when_that_helped_for_long_enough() -> None:
    log, leader = three(), Leader()
    loads = {"a": 0.5, "b": 0.6, "c": 0.3, "e": 0.1}
    assert leader.plan(log, told(log, loads), times=3) == []
    assert leader.plan(log, told(log, loads), times=1) == [("b", "d1", "d3")]
    assert leader.plan(log, told(log, {**loads, "b": 0.1}), times=1) == [], "that was a burst"
    assert leader.plan(log, told(log, loads), times=3) == []
    leader.moves.forget()
    assert leader.plan(log, told(log, loads), times=3) == [], "a new leader begins anew"


def test_nothing_moves_for_its_load_that_would_help_little_or_should_not() -> None:
    log = three()
    assert Leader().plan(log, told(log, {"a": 0.9, "b": 0.0, "c": 0.0, "e": 0.0})) == [], "it is hot wherever it is"
    assert Leader().plan(log, told(log, {"a": 0.3, "b": 0.3, "c": 0.3, "e": 0.3})) == [], "no cooler by enough"
    hot = {"a": 0.9, "b": 0.9, "c": 0.0, "e": 0.0}
    assert Leader(hot_from=0.0).plan(log, told(log, hot)) == []
    assert Leader().plan(log, {}) == [], "nodes of an older release tell none"
    log.add("pause_moves", paused=True)
    assert Leader().plan(log, told(log, hot)) == []
    log.add("pause_moves", paused=False)
    down(log, "d2", "suspect")
    assert Leader().plan(log, told(log, hot)) == []
    down(log, "d2", "up")
    assert Leader().plan(log, told(log, hot)) != []
    log.add("begin_split", **at(log, "a"))
    assert Leader().plan(log, told(log, hot)) == [("b", "d1", "d3")]


def test_zones_are_kept() -> None:
    log = cluster("d1", "d2", "d3", d1="x", d2="y", d3="y")
    log.create("a", ["d1", "d2"])
    log.create("b", ["d1"])
    log.create("c", ["d3"])
    loads = {"a": 0.9, "b": 0.5, "c": 0.0}
    assert Leader().plan(log, told(log, loads)) == [("b", "d1", "d3")], "that of `a` is the only one in its zone"


def test_a_node_that_is_hot_is_not_filled_with_more_that_is() -> None:
    log = cluster("d1", "d2")
    log.create("hot", ["d1"])
    for name in ("a", "b", "c"):
        log.create(name, ["d2"])
    busy = {"hot": 2.0, "a": 0.4, "b": 0.1, "c": 0.4}
    assert Leader().plan(log, told(log, busy), times=1) == [("b", "d2", "d1")], "of what is cold, it takes its share"
    assert Leader().plan(log, told(log, {**busy, "b": 0.4}), times=1) == []


def test_what_has_just_moved_is_as_hot_as_it_was() -> None:
    log, leader = three(), Leader()
    loads = {"a": 0.5, "b": 0.6, "c": 0.3, "e": 0.1}
    assert leader.plan(log, told(log, loads)) == [("b", "d1", "d3")]
    moved(log, "b", "d1", "d3")
    assert leader.plan(log, told(log, loads, frozenset({("d3", "b")}))) == []
    assert leader.heat.of("d3", "uuid of b", 0) == pytest.approx(0.6)


@settings(deadline=None)
@given(
    st.integers(2, 5).flatmap(
        lambda nodes: st.tuples(
            st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=nodes, max_size=nodes),
            st.lists(
                st.tuples(
                    st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.9]) | st.floats(0.0, 2.0),
                    st.sets(st.integers(0, nodes - 1), min_size=1, max_size=3),
                ),
                min_size=1,
                max_size=9,
            ),
        )
    )
)
def test_under_a_constant_load_no_move_is_undone_and_they_end(
    drawn: tuple[list[float], list[tuple[float, set[int]]]],
) -> None:
    """Whatever capacities are, wherever replicas were, and though one that has moved tells nothing for a while."""
    capacities, collections = drawn
    log, leader = Log(), Leader()
    log.register(*(replace(node(f"d{i}"), capacity=capacity) for i, capacity in enumerate(capacities)))
    loads = {}
    for number, (load, places) in enumerate(collections):
        loads[f"c{number}"] = load
        log.create(f"c{number}", [f"d{i}" for i in sorted(places)])

    def placed() -> tuple[frozenset[str], ...]:
        return tuple(frozenset(shard(log, name).nodes("active")) for name in loads)

    leader.plan(log, told(log, loads), times=1)
    seen, untold, quiet = {placed()}, frozenset[tuple[str, str]](), 0
    for _ in range(300):
        steps = leader.plan(log, told(log, loads, untold), times=1)
        quiet = 0 if steps else quiet + 1
        if quiet > AFTER_S + 2:
            return
        untold = frozenset()
        for name, source, target in steps:
            moved(log, name, source, target)
            untold = frozenset({(target, name)})
            assert placed() not in seen, "replicas are back where they were"
            seen.add(placed())
    pytest.fail("it does not end")
