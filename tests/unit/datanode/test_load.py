"""What counts as a replica's load, and where its shard would be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.ids import IdColumn
from omendb_common.records import Op, WriteBatch
from omendb_common.ring import RING, key_hashes
from omendb_common.shard_calls import Lookup, Repair, Search
from omendb_common.topology import ReplicaLoad, ReplicaSize
from omendb_datanode.load import WINDOW_S, Loads, ShardLoad, best_cut, place_of_ids, place_of_write
from omendb_datanode.measured import foremost
from omendb_engine.stamped import StampedWrite
from tests.unit.datanode.datanode_cases import Node, delete, node_in, update, upsert, vectors
from tests.unit.datanode.test_client_time import Stepped


class Machine:
    """A clock that stands still until told, and work that takes the time that is said."""

    def __init__(self) -> None:
        self.clock = Stepped()
        self.cpu_s = 0.0
        self.load = ShardLoad(self.clock, lambda: self.cpu_s)

    def work(self, seconds: float, place: int | None = None) -> None:
        """One call."""

        def cost() -> None:
            self.cpu_s += seconds

        self.load.during(cost, None if place is None else lambda: place)

    def told(self) -> ReplicaLoad:
        """The load of the whole ring."""
        found = self.load.told(0, RING)
        assert found is not None
        return found


def test_load_is_the_mean_of_the_last_minute_and_not_known_before() -> None:
    machine = Machine()
    for _ in range(59):
        machine.clock.now_s += 1.0
        machine.work(0.25, 5)
        machine.work(0.5)
        assert machine.load.told(0, RING) is None
    for _ in range(3):
        machine.clock.now_s += 1.0
        machine.work(0.25, 5)
        machine.work(0.5)
    told = machine.told()
    assert told.total == pytest.approx(0.75, rel=0.03) and told.divides == pytest.approx(0.25, rel=0.03)
    machine.clock.now_s += WINDOW_S
    assert 0.75 / np.e**2 < machine.told().total < 0.75 / np.e
    machine.clock.now_s += 20 * WINDOW_S
    assert machine.told().total < 1e-6


def test_what_a_call_that_failed_cost_counts() -> None:
    machine = Machine()

    def fails() -> None:
        machine.cpu_s += 6.0
        raise OSError

    with pytest.raises(OSError):
        machine.load.during(fails)
    machine.clock.now_s += WINDOW_S
    assert machine.told().total == pytest.approx(0.1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(100, 999), st.floats(0.001, 1.0)), min_size=0, max_size=80))
def test_a_cut_leaves_on_each_side_what_it_says(places: list[tuple[int, float]]) -> None:
    at, lesser = best_cut([*places, (5, 9.0), (1000, 9.0)], 100, 1000)
    assert 100 < at < 1000
    below = sum(weight for place, weight in places if place < at)
    whole = sum(weight for _, weight in places)
    if len(places) >= 32:
        assert lesser == pytest.approx(min(below, whole - below) / whole, abs=1e-9)
        by_place = sorted({place for place, _ in places})[1:]
        sides = [sum(w for p, w in places if p < cut) / whole for cut in by_place]
        best = max((min(side, 1.0 - side) for side in sides), default=0.0)
        assert lesser >= 0.4 or lesser == pytest.approx(best, abs=1e-9)
    else:
        assert lesser == 0.0, "so few prove nothing"


def test_one_hot_place_cannot_be_cut_and_two_can() -> None:
    even = [(at, 1.0) for at in range(0, 1000, 10)]
    assert best_cut(even, 0, 1000) == (500, 0.5)
    hot = best_cut([*even, (730, 900.0)], 0, 1000)
    assert hot[1] < 0.1
    at, lesser = best_cut([*even, (730, 900.0), (745, 900.0)], 0, 1000)
    assert 730 < at <= 745 and lesser > 0.4
    assert best_cut([*even, (730, 900.0), (731, 900.0)], 0, 1000)[0] == 731
    # All in one quarter of the range: the cut goes there.
    at, lesser = best_cut([(at, 1.0) for at in range(750, 1000)], 0, 1000)
    assert at == 875 and lesser == pytest.approx(0.5)


def test_the_place_of_a_write_is_that_of_one_of_its_points() -> None:
    def of(batch: WriteBatch, key: str | None = None, stamp: int = 7) -> Any:
        found = place_of_write(StampedWrite(batch, stamp), key)
        return "none" if found is None else found()

    middle = int(key_hashes(IdColumn.of([2]))[0])
    assert of(upsert([1, 2, 3])) == of(delete([2])) == of(update([1, 2], [{"a": 1}] * 2)) == middle
    homed = upsert([1, 2, 3], [{"home": h} for h in ("x", "y", "z")])
    assert of(homed, "home") == int(key_hashes(IdColumn.of(["y"]))[0])
    assert of(upsert([1, 2, 3], [{"home": h} for h in (1, 5, "z")]), "home") == int(key_hashes(IdColumn.of([5]))[0])
    assert of(update([1], [{"a": 1}]), "home") is None, "it goes to one shard, and does not say to which place"
    assert of(upsert([1]), "home") is None
    assert of(delete([1]), "home") == "none", "with a partition key it goes to every shard"
    assert of(WriteBatch(Op.DELETE, IdColumn.empty())) is None
    looked = place_of_ids(IdColumn.of([1, 2]), None)
    assert looked is not None and looked() == middle
    assert place_of_ids(IdColumn.of([1]), "home") is None and place_of_ids(IdColumn.empty(), None) is None


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[tuple[Node, Machine]]:
    """A node in which every piece of work takes a second."""
    machine = Machine()

    def looked() -> float:
        machine.cpu_s += 1.0
        return machine.cpu_s

    with node_in(tmp_path) as node:
        node.rules.loads = Loads(machine.clock, looked)
        machine.load = node.rules.loads.of(node.replica)
        yield node, machine


def test_writes_and_gets_divide_and_searches_do_not(counted: tuple[Node, Machine]) -> None:
    asyncio.run(_calls(*counted))


async def _calls(node: Node, machine: Machine) -> None:
    seconds = [0.0, 0.0]

    async def costs(call: Any, total: float, divides: float) -> None:
        assert (await call).error is None
        seconds[0] += total
        seconds[1] += divides
        load = machine.load
        assert load._fresh == pytest.approx(seconds)

    await costs(node.apply(upsert(range(100)), node.clock.stamp()), 1.0, 1.0)
    search = Search(node.shard, vectors(1), 3)
    await costs(node.rules.search(search, node.deadline()), 1.0, 0.0)
    await costs(node.rules.lookup(Lookup(node.shard, IdColumn.of([1])), node.deadline()), 1.0, 1.0)
    peer = Lookup(node.shard._replace(origin=0), IdColumn.of([1, 2]), records=True)
    looked = await node.rules.lookup(peer, node.deadline())
    await costs(node.rules.repair(Repair(node.shard, looked.records), node.deadline()), 0.0, 0.0)


def test_of_writes_in_one_group_those_of_clients_count() -> None:
    machine = Machine()

    def take() -> None:
        machine.cpu_s += 4.0

    mine, given = StampedWrite(upsert([1]), 7), StampedWrite(upsert([1, 2, 3]), 0)
    machine.load.during_writes(take, [mine, given], None)
    assert machine.load._fresh == pytest.approx([1.0, 1.0])
    machine.load.during_writes(take, [given], None)
    assert machine.load._fresh == pytest.approx([1.0, 1.0])


def test_places_are_noted_now_and_then_with_what_came_between() -> None:
    machine = Machine()
    for step in range(1000):
        machine.clock.now_s += 0.06
        machine.work(0.01, step)
    assert 200 < len(machine.load._places) <= 250
    assert sum(weight for _, weight in machine.load._places) == pytest.approx(10.0, abs=0.1)


def test_a_replica_that_is_closed_takes_its_load_along(tmp_path: Path) -> None:
    loads = Loads(Stepped())
    with node_in(tmp_path / "a") as first, node_in(tmp_path / "b") as second:
        known = loads.of(first.replica)
        assert loads.of(first.replica) is known
        first.replica.close()
        loads.of(second.replica)
        assert loads.of(second.replica) is loads.of(second.replica)
        assert list(loads._of) == [second.replica]


def test_where_not_all_replicas_can_be_told_the_largest_and_the_busiest_are() -> None:
    told = [ReplicaSize("u", i, i, i, ReplicaLoad(total=1000.0 - i)) for i in range(400)]
    ordered = foremost(told)
    assert [one.shard_id for one in ordered[:128]] == list(range(399, 271, -1))
    assert [one.shard_id for one in ordered[128:256]] == list(range(128))
    assert [one.shard_id for one in foremost(told[:3])] == [2, 1, 0]
