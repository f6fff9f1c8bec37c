"""Deletions that are forgotten stay deleted: what is late, what was away, and what comes from an old copy."""

from __future__ import annotations

import asyncio
from pathlib import Path

from omendb_common.ids import IdColumn
from omendb_common.shard_calls import Repair, State, Verdict
from tests.unit.datanode.datanode_cases import Node, delete, update, upsert
from tests.unit.datanode.exchange_cases import dump, write
from tests.unit.datanode.round_cases import Group, group_in

X = IdColumn.of([7])


def states(group: Group) -> list[State]:
    return [State(node.replica.versions(X).states[0]) for node in group.nodes]


def forget(node: Node, floor: int) -> None:
    """Raise the floor, and drop what lies below it from memory and files."""
    node.replica.flush()
    node.replica.raise_floors(gc_floor=floor)
    for stamp in (1, 2, 3):
        # Merges drop tombstones: there must be something to merge.
        node.replica.write_at(upsert([1000 + stamp]), (1 << 59) + stamp)
        node.replica.compact()


async def deleted_everywhere(group: Group) -> int:
    """A point is made and deleted, all are proven equal, and have forgotten it; the floor."""
    stamp = group.nodes[0].clock.stamp
    await write(group.nodes, upsert([7, 8]), stamp(-9000))
    await write(group.nodes[:2], delete([7]), stamp(-8000))
    found = await group.rounds().make(group.opened())
    assert found.proven and states(group) == [State.DELETED] * 3
    floor = stamp(-5000)
    for node in group.nodes:
        forget(node, floor)
    assert states(group) == [State.ABSENT] * 3, "nothing is remembered of it"
    return floor


def test_what_comes_late_is_refused_by_all_that_forgot(tmp_path: Path) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            floor = await deleted_everywhere(group)
            for node in group.nodes:
                for batch in (upsert([7]), update([7], [{"a": 1}]), delete([7])):
                    answer = await node.apply(batch, node.clock.stamp(-8500))
                    assert answer.verdict is Verdict.OK
                    assert (answer.superseded.tolist(), answer.newer.tolist()) == ([0], [floor])
            assert states(group) == [State.ABSENT] * 3

    asyncio.run(scene())


def test_while_some_remember_and_some_do_not_they_are_equal(tmp_path: Path) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            stamp = group.nodes[0].clock.stamp
            await write(group.nodes, upsert([7, 8]), stamp(-9000))
            await write(group.nodes, delete([7]), stamp(-8000))
            for node in group.nodes:
                node.replica.raise_floors(gc_floor=stamp(-5000))
            forget(group.nodes[0], stamp(-5000))
            for node in group.nodes[1:]:
                for number in (1, 2, 3):
                    node.replica.write_at(upsert([1000 + number]), (1 << 59) + number)
            assert states(group) == [State.ABSENT, State.DELETED, State.DELETED]
            found = await group.rounds().make(group.opened())
            assert found.proven and not found.together.pulled + found.together.pushed
            # A router that reads at a quorum gives the one what the others remember: that is no news, and no refusal.
            records = group.nodes[1].replica.versions(X).records()
            answer = await group.nodes[0].rules.repair(Repair(group.nodes[0].shard, records), group.nodes[0].deadline())
            assert answer.verdict is Verdict.OK and not len(answer.superseded)
            assert states(group)[0] is State.ABSENT

    asyncio.run(scene())


def test_nothing_is_forgotten_before_the_last_has_heard_of_it(tmp_path: Path) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            stamp = group.nodes[0].clock.stamp
            await write(group.nodes, upsert([7, 8]), stamp(-9000))
            group.states["d3"] = "down"
            await write(group.nodes[:2], delete([7]), stamp(-8000))
            assert not (await group.rounds().make(group.opened())).proven and not group.proven
            group.states["d3"] = "up"
            assert (await group.rounds("d3").make(group.opened("d3"))).proven
            assert states(group) == [State.DELETED] * 3 and dump(group.nodes[0]) == dump(group.nodes[2])

    asyncio.run(scene())
