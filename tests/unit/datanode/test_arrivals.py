"""A replica that joins: from whom it must take everything, when it says so, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omendb_common.deadline import Deadline
from omendb_common.errors import AlreadyExistsError, UnavailableError
from omendb_common.quorum import Quorums
from omendb_common.shard_calls import DataNode, Sums
from omendb_common.topology import Member, Move
from omendb_datanode.hosting import OpenShard
from omendb_datanode.replicate.arrivals import Arrivals
from omendb_datanode.replicate.pace import Pace
from tests.unit.datanode.datanode_cases import EPOCH, upsert
from tests.unit.datanode.exchange_cases import QUICK, dump, write
from tests.unit.datanode.round_cases import Group, group_in

ME = "d3"


class Told:
    """What the coordinators were told: the epochs of advances; ``error`` is what they answer."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.error: Exception | None = None

    async def __call__(self, opened: OpenShard, deadline: Deadline) -> None:
        self.epochs.append(opened.shard.epoch)
        if self.error is not None:
            raise self.error


class Door:
    """Stands before a node; while it is shut nobody is answered."""

    def __init__(self, node: DataNode) -> None:
        self.node, self.shut, self.asked = node, True, 0

    async def sums(self, call: Sums, deadline: Deadline) -> Any:
        """Ask the node."""
        self.asked += 1
        if self.shut:
            raise UnavailableError("it is away")
        return await self.node.sums(call, deadline)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.node, name)


@contextmanager
def joining(path: Path, **more: Any) -> Iterator[tuple[Group, Arrivals, Told]]:
    """d3 is to be made anew from d1 and d2."""
    with group_in(path, move=Move(EPOCH, ME, ME), **more) as group:
        group.state(ME, "joining")
        told, node = Told(), group.node(ME)

        async def peer(member: Member) -> DataNode:
            return group.doors.get(member.node_id, group.node(member.node_id).rules)

        arrivals = Arrivals(
            *(ME, node.rules, peer, lambda: [group.opened(ME)], group, told),
            *(node.clock, QUICK, Pace(node.clock, QUICK)),
        )
        yield group, arrivals, told


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.001)


async def soon_over(arrivals: Arrivals) -> None:
    """Look again and again, as the running object does, until nothing is left to do."""
    async with asyncio.timeout(20):
        while True:
            await arrivals.look()
            if all(arrival.over for arrival in arrivals.now()):
                return
            await asyncio.sleep(0.001)


def test_it_takes_what_each_old_member_alone_has_and_tells_how_far_it_is(tmp_path: Path) -> None:
    async def story() -> None:
        with joining(tmp_path) as (group, arrivals, told):
            await write([group.node("d1"), group.node("d2")], upsert(range(20)), 1 << 30)
            await write([group.node("d1")], upsert([30]), 2 << 30)
            await write([group.node("d2")], upsert([31]), 3 << 30)
            await soon_over(arrivals)
            assert told.epochs == [EPOCH]
            assert set(range(20)) | {30, 31} == set(dump(group.node(ME))[3])
            (fill,) = arrivals.fills()
            assert (fill.rows_done, fill.rows_total, fill.waits_for) == (22, 22, "") and fill.bytes_done > 0
            # Told once, until the map changes; then the next stage is looked at.
            await arrivals.look()
            assert told.epochs == [EPOCH]
            await arrivals.stop()

    asyncio.run(story())


@pytest.mark.parametrize(("write_quorum", "enough"), [(1, False), (2, False), (3, True)])
def test_every_quorum_of_writers_must_be_among_those_that_it_asked(
    tmp_path: Path, write_quorum: int, enough: bool
) -> None:
    """At W=2 of three, of which one is lost, each of the others may be the only one left that has a point."""

    async def story() -> None:
        with joining(tmp_path, write_quorum=write_quorum) as (group, arrivals, told):
            await write([group.node("d1")], upsert([1]), 1 << 30)
            await write([group.node("d2")], upsert([2]), 2 << 30)
            door = Door(group.node("d1").rules)
            group.doors["d1"] = door
            await arrivals.look()
            if enough:
                await until(lambda: told.epochs)
            else:
                await until(lambda: door.asked > 1)
                assert told.epochs == [] and "it is away" in arrivals.fills()[0].waits_for
                door.shut = False
                await soon_over(arrivals)
                assert told.epochs == [EPOCH] and {1, 2} <= set(dump(group.node(ME))[3])
            await arrivals.stop()

    asyncio.run(story())


def test_one_that_stays_takes_from_others_what_a_smaller_read_quorum_must_find_on_it(tmp_path: Path) -> None:
    """From W = R = 2 to R = 1: what the two others have must be on this one before it says that it is ready."""

    async def story() -> None:
        with joining(tmp_path) as (group, arrivals, told):
            group.state(ME, "active")
            group.move = Move(EPOCH, "", "", "switching", Quorums(3, 3, 1))
            await write([group.node("d1"), group.node("d2")], upsert([1]), 1 << 30)
            await soon_over(arrivals)
            assert told.epochs == [EPOCH] and 1 in dump(group.node(ME))[3]
            group.move = replace(group.move, ready=(ME,))
            await arrivals.look()
            assert arrivals.now() == []  # it has said so
            await arrivals.stop()

    asyncio.run(story())


@pytest.mark.parametrize(("read_quorum", "enough"), [(2, True), (3, False)])
def test_itself_counts_among_those_that_it_must_have_asked(tmp_path: Path, read_quorum: int, enough: bool) -> None:
    async def story() -> None:
        with joining(tmp_path) as (group, arrivals, told):
            group.state(ME, "active")
            group.quorums = Quorums(3, 2, read_quorum)
            group.move = Move(EPOCH, "", "", "switching", Quorums(3, 3, 1))
            group.doors["d1"] = Door(group.node("d1").rules)
            await arrivals.look()
            if enough:
                await until(lambda: told.epochs)
            else:
                await until(lambda: arrivals.fills()[0].waits_for)
                assert told.epochs == [] and "2 of 3 members" in arrivals.fills()[0].waits_for
            await arrivals.stop()

    asyncio.run(story())


def test_before_it_counts_it_notes_up_to_when_it_is_whole(tmp_path: Path) -> None:
    async def story() -> None:
        with joining(tmp_path, repaired=77) as (group, arrivals, told):
            await soon_over(arrivals)
            assert group.node(ME).replica.maintenance.repaired_through == 0
            group.move = Move(EPOCH, ME, ME, "switching")
            group.epoch = EPOCH + 1
            group.node(ME).map.hosted[group.opened(ME).key.shard].epoch = EPOCH + 1
            for name in ("d1", "d2"):
                group.node(name).map.hosted[group.opened(ME).key.shard].epoch = EPOCH + 1
            await soon_over(arrivals)
            assert told.epochs == [EPOCH, EPOCH + 1]
            assert group.node(ME).replica.maintenance.repaired_through == 77
            await arrivals.stop()

    asyncio.run(story())


def test_it_stops_while_moves_are_paused_and_when_its_move_is_no_more(tmp_path: Path) -> None:
    async def story() -> None:
        with joining(tmp_path) as (group, arrivals, told):
            for name in ("d1", "d2"):
                group.doors[name] = Door(group.node(name).rules)
            group.paused = True
            await arrivals.look()
            assert arrivals.fills() == []
            group.paused = False
            await arrivals.look()
            (arrival,) = arrivals.now()
            await until(lambda: arrival.fill.waits_for)
            group.paused = True
            await arrivals.look()
            assert arrivals.fills() == [] and arrival.task is not None and arrival.task.cancelled()
            group.paused, group.move = False, None
            await arrivals.look()
            assert arrivals.fills() == [] and told.epochs == []
            await arrivals.stop()

    asyncio.run(story())


def test_coordinators_that_do_not_answer_are_told_again_and_those_that_know_better_are_not(tmp_path: Path) -> None:
    async def story() -> None:
        with joining(tmp_path) as (_, arrivals, told):
            told.error = UnavailableError("no leader")
            await arrivals.look()
            await until(lambda: len(told.epochs) > 1)
            told.error = AlreadyExistsError("another epoch")
            await soon_over(arrivals)
            heard = len(told.epochs)
            await arrivals.look()
            assert len(told.epochs) == heard
            await arrivals.stop()

    asyncio.run(story())
