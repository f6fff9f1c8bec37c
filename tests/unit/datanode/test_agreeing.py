"""What replicas agree on, what they may lack after that, and when they are asked (P23)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omendb_chaos.sim.faulty_node import FaultyNode, Weather
from omendb_common.filters import FilterOp as F
from omendb_common.ids import IdColumn
from omendb_common.metadata import RepairedShard
from omendb_common.shard_calls import Search, ShardHits, Verdict, short_names
from omendb_datanode.config import RepairSettings
from omendb_datanode.replicate.agreeing import Agreeing, _Known
from omendb_datanode.replicate.peers import Peers
from omendb_engine import agreement
from tests.unit.datanode.datanode_cases import Node, TurnedClock, delete, open_one, update, upsert
from tests.unit.datanode.exchange_cases import dump, write
from tests.unit.datanode.round_cases import Group, group_in
from tests.unit.engine.engine_cases import settings_of

QUERY = np.zeros((1, 4), np.float32)
SETTINGS = RepairSettings(agree_s=0.01, agree_lag_s=0.0)


async def _leave_open(_: Any) -> None:
    """Nothing to end."""


@pytest.fixture
def turned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Monotonic time, too, as the test says."""
    monkeypatch.setattr(TurnedClock, "mono_s", lambda clock: clock.ms / 1000)


async def silent(shards: Sequence[RepairedShard]) -> None:
    """Nobody wants to know."""


def agreeing(
    group: Group, node_id: str = "d1", settings: RepairSettings = SETTINGS, **more: Any
) -> tuple[Agreeing, _Known]:
    """The rounds of a node, and what it knows before the first."""
    node = group.node(node_id)
    peers = Peers(lambda member: group.doors.get(member.node_id, group.node(member.node_id).rules), _leave_open)
    made = Agreeing(node_id, node.rules, peers, lambda: [group.opened(node_id)], group, node.clock, settings, **more)
    return made, _Known(node.replica, 0.0, 0.0)


async def agree(group: Group, settings: RepairSettings = SETTINGS) -> bool:
    """One round of the first node's."""
    made, known = agreeing(group, settings=settings)
    return await made.make(group.opened(), known)


async def unproven(node: Node, k: int = 400, **more: Any) -> ShardHits:
    """What a node has that others may lack."""
    answer = await node.rules.search(Search(node.shard, QUERY, k, unproven=True, **more), node.deadline())
    assert answer.verdict is Verdict.OK, answer.error
    return answer


async def found(node: Node, **more: Any) -> list[Any] | None:
    """Its ids; None where it is not covered."""
    answer = await unproven(node, **more)
    return None if answer.shared is None else sorted(answer.ids.to_list())


async def place(node: Node) -> tuple[int, int]:
    """Opening and position that an ordinary search tells."""
    answer = await node.rules.search(Search(node.shard, QUERY, 1), node.deadline())
    return answer.opening, answer.lsn


def named(answer: ShardHits, ids: Sequence[Any]) -> list[bool]:
    assert answer.shared is not None
    return [bool(is_named) for is_named in answer.shared.named(IdColumn.of(list(ids)).hashes()[1])]


def test_what_is_newer_is_told_and_nothing_of_what_all_agree_on(tmp_path: Path) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            stamp, (first, second, _) = group.nodes[0].clock.stamp, group.nodes
            await write(group.nodes, upsert(range(100)), stamp(-9000))
            await write(group.nodes, delete([5]), stamp(-8000))
            assert await found(first) is None
            assert await agree(group)
            assert [await found(node) for node in group.nodes] == [[], [], []]
            assert not any(named(await unproven(second), range(200)))
            # Known by now: it is told without a thread, and for every query.
            queries = np.zeros((3, 4), np.float32)
            call = Search(second.shard, queries, 5, unproven=True)
            again = await second.rules.search(call, second.deadline())
            assert again.counts.tolist() == [0, 0, 0] and again.distances.shape == (3, 0) and again.shared is not None
            assert (again.opening, again.lsn) == await place(second)
            await write([second], upsert([7, 200]), stamp(1))
            await write([second], delete([9]), stamp(2))
            await write([second], update([11], [{"a": 1}]), stamp(3))
            assert await found(first) == [] and await found(second) == [7, 11, 200]
            told = await unproven(second)
            assert [i for i, is_named in enumerate(named(told, range(201))) if is_named] == [7, 9, 11, 200]
            assert told.shared is not None and all(
                [told.shared.vouches_for(*await place(node)) for node in group.nodes]
            )

    asyncio.run(scene())


def test_what_came_late_under_an_old_stamp_is_told_too(tmp_path: Path) -> None:
    """A write whose outcome was unknown is sent again after all agreed through stamps above its own."""

    async def scene() -> None:
        with group_in(tmp_path) as group:
            stamp, (_, second, _) = group.nodes[0].clock.stamp, group.nodes
            await write(group.nodes, upsert(range(100)), stamp(-9000))
            assert await agree(group)
            await write([second], upsert([3, 300]), stamp(-8000))
            await write([second], delete([4]), stamp(-8500))
            assert await found(second) == [3, 300]
            assert named(await unproven(second), [3, 4, 5, 300]) == [True, True, False, True]
            # It lost to what is there: naming it all the same does no harm.
            await write([second], delete([6]), stamp(-9500))
            assert await found(second) == [3, 300]
            # Seals and merges move rows about.
            second.replica.compact()
            assert await found(second) == [3, 300]

    asyncio.run(scene())


def test_what_arrives_while_roots_are_asked_for_is_late(tmp_path: Path) -> None:
    """Between the moment a replica's tree is made and the moment it hears that all agreed."""

    async def scene() -> None:
        with group_in(tmp_path) as group:
            stamp, (_, second, third) = group.nodes[0].clock.stamp, group.nodes
            await write(group.nodes, upsert(range(100)), stamp(-9000))

            class Meanwhile(FaultyNode):
                async def sums(self, call: Any, deadline: Any) -> Any:
                    answer = await super().sums(call, deadline)
                    await write([second], upsert([300]), stamp(-5000))
                    return answer

            group.doors["d2"] = Meanwhile(second.rules, random.Random(1), Weather())
            assert await agree(group)
            assert await found(second) == [300] and await found(third) == []

    asyncio.run(scene())


def test_nobody_vouches_for_a_search_that_was_made_before_all_agreed(tmp_path: Path) -> None:
    """A replica that gets an acknowledged write late had not got it when it searched."""

    async def scene() -> None:
        with group_in(tmp_path) as group:
            stamp, (first, second, _) = group.nodes[0].clock.stamp, group.nodes
            await write(group.nodes, upsert(range(100)), stamp(-9000))
            await write(group.nodes[1:], upsert([300]), stamp(-5000))
            before = await place(first)
            await write([first], upsert([300]), stamp(-5000))
            assert await agree(group)
            told = (await unproven(second)).shared
            assert await found(second) == [] and told is not None
            assert not told.vouches_for(*before) and told.vouches_for(*await place(first))

    asyncio.run(scene())


def test_a_replica_that_was_opened_anew_is_vouched_for_by_nobody_and_vouches_for_nobody(tmp_path: Path) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            stamp, (first, second, _) = group.nodes[0].clock.stamp, group.nodes
            await write(group.nodes, upsert(range(100)), stamp(-9000))
            assert await agree(group)
            told = (await unproven(second)).shared
            assert told is not None and told.vouches_for(*await place(first))
            schema, path = first.replica.schema, Path(first.replica.path)
            first.replica.close()
            first.replica = open_one(path, settings_of(rows=30), schema)
            first.map.hosted[schema.uuid, 0].replica = first.replica
            assert not told.vouches_for(*await place(first)) and await found(first) is None

    asyncio.run(scene())


def test_two_that_agree_are_enough_for_each_other(tmp_path: Path) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            stamp, (first, second, third) = group.nodes[0].clock.stamp, group.nodes
            await write(group.nodes, upsert(range(100)), stamp(-9000))
            await write(group.nodes[:2], upsert([200]), stamp(-8000))
            assert not await agree(group)
            told = (await unproven(second)).shared
            assert told is not None and told.vouches_for(*await place(first))
            assert not told.vouches_for(*await place(third)) and await found(third) is None

    asyncio.run(scene())


@pytest.mark.parametrize("trouble", [Weather(down=True), Weather(lost_answers=1.0)])
def test_one_that_does_not_answer_keeps_nobody_from_agreeing(tmp_path: Path, trouble: Weather) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            stamp, (first, second, third) = group.nodes[0].clock.stamp, group.nodes
            await write(group.nodes, upsert(range(100)), stamp(-9000))
            group.doors["d3"] = FaultyNode(third.rules, random.Random(1), trouble)
            assert not await agree(group, settings=replace(SETTINGS, call_timeout_s=3.0))
            assert await found(first) == await found(second) == []
            assert await found(third) is None

    asyncio.run(scene())


def test_filters_thresholds_and_numbers_hold_for_what_is_unproven(tmp_path: Path) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            stamp, (_, second, _) = group.nodes[0].clock.stamp, group.nodes
            await write(group.nodes, upsert(range(100)), stamp(-9000))
            assert await agree(group)
            # Into several parts, of which the newest is a buffer.
            await write([second], upsert(range(50, 130), [{"a": i % 3} for i in range(80)]), stamp(1))
            await write([second], delete([55, 60]), stamp(2))
            expected = [i for i in range(50, 130) if i not in (55, 60)]
            assert await found(second) == expected
            assert await found(second, condition=F.eq("a", 1)) == [i for i in expected if (i - 50) % 3 == 1]
            whole = await second.rules.search(Search(second.shard, QUERY, 400), second.deadline())
            nearest = [i for i in whole.ids.to_list() if i in expected]
            assert (await unproven(second, 10)).ids.to_list() == nearest[:10]
            second.replica.compact()
            assert (await unproven(second, 10)).ids.to_list() == nearest[:10]

    asyncio.run(scene())


def test_too_much_is_not_covered_and_the_next_agreement_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "UNPROVEN_ROWS_MAX", 10)
    monkeypatch.setattr(agreement, "LATE_MAX", 3)

    async def scene() -> None:
        with group_in(tmp_path) as group:
            stamp, nodes = group.nodes[0].clock.stamp, group.nodes
            await write(nodes, upsert(range(100)), stamp(-9000))
            assert await agree(group)
            await write(nodes, upsert(range(200, 211)), stamp(-500))
            assert [await found(node) for node in nodes] == [None] * 3
            for node in nodes:
                node.clock.ms += 1000
            assert await agree(group) and [await found(node) for node in nodes] == [[]] * 3
            for number in range(4):
                await write(nodes, upsert([300 + number]), stamp(-3000 + number))
            assert [await found(node) for node in nodes] == [None] * 3

    asyncio.run(scene())


def test_watches_that_nobody_concludes_are_dropped_but_never_the_one_that_counts(tmp_path: Path) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            stamp, (_, second, _) = group.nodes[0].clock.stamp, group.nodes
            await write(group.nodes, upsert(range(100)), stamp(-9000))
            assert await agree(group)
            for number in range(20):
                second.replica.agreements.begin(stamp(number + 1))
            await write([second], upsert([300]), stamp(-5000))
            assert await found(second) == [300]
            assert not second.replica.agreements.note(stamp(1), [second.replica.agreements.opening], [0])
            assert not second.replica.agreements.note(stamp(20), [1, 2], [0, 0])
            assert await found(second) == [300]

    asyncio.run(scene())


def test_who_looks_after_a_shard_and_how_often(tmp_path: Path) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            stamp = group.nodes[0].clock.stamp
            await write(group.nodes, upsert(range(100)), stamp(-9000))
            made, other = agreeing(group)[0], agreeing(group, "d2")[0]
            ((opened, known),) = made._due()
            assert not other._due()
            # At first nobody knows whether others have anything under a newer stamp.
            assert await made.make(opened, known) and known.lsn == -1
            for node in group.nodes:
                node.clock.ms += 2000
            assert await made.make(opened, known) and known.lsn == opened.hosted.replica.snapshot().lsn
            known.due_s = group.nodes[0].clock.mono_s() + 1000
            assert not made._due()
            # At rest until something is written.
            await write(group.nodes, upsert([7]), stamp(0, 5))
            assert made._due()
            # Roots differ: the next is asked for an older stamp, until all agree again.
            await write(group.nodes[:2], upsert([8]), stamp(0, 6))
            for node in group.nodes:
                node.clock.ms += 1000
            lag_s = known.lag_s
            assert not await made.make(opened, known) and known.lag_s > lag_s and known.lsn == -1
            group.say("d1", "down")
            assert not made._due() and other._due()

    asyncio.run(scene())


@pytest.mark.usefixtures("turned")
@pytest.mark.parametrize("written", [7, 700], ids=["over another", "new"])
def test_a_write_that_one_missed_while_it_was_up_is_mended_as_soon_as_it_has_settled(
    tmp_path: Path, written: int
) -> None:
    """Whichever of the replicas it is, and though nothing else is written and nobody reads."""
    settings = replace(SETTINGS, settle_s=30.0, interval_s=600.0)

    async def scene(path: Path, misses: int) -> None:
        rounds: list[int] = []
        with group_in(path, settings=settings) as group:
            nodes = group.nodes
            stamp = nodes[0].clock.stamp
            await write(nodes, upsert(range(100)), stamp(-60_000))
            repairer = group.repairer("d1", silent)
            repairer._schedule(repairer._care(group.opened()), good=True)
            repairer._cares[group.opened().key].wanted_s.clear()
            made, known = agreeing(group, settings=settings, missing=repairer.missing)
            for _ in range(4):
                assert await made.make(group.opened(), known)
                for node in nodes:
                    node.clock.ms += 1000
            assert known.lsn >= 0, "at rest"
            await write([node for node in nodes if node is not nodes[misses]], upsert([written]), stamp())

            equal_s = 0
            for second in range(1, 90):
                for node in nodes:
                    node.clock.ms += 1000
                await made.make(group.opened(), known)
                if repairer._next() is not None:
                    await repairer._round(group.opened(), repairer._care(group.opened()))
                    rounds.append(second)
                if not equal_s and dump(nodes[0]) == dump(nodes[1]) == dump(nodes[2]):
                    equal_s = second
            # It may be on its way until then; and nothing is left to look for.
            assert 30 <= equal_s <= 32 and rounds[-1] == equal_s and len(rounds) <= 2

    for misses in range(3):
        asyncio.run(scene(tmp_path / str(misses), misses))


@pytest.mark.usefixtures("turned")
def test_rounds_that_mend_nothing_are_hurried_more_and_more_seldom(tmp_path: Path) -> None:
    """Where old points are written again all the time, one replica is always a moment behind another."""
    with group_in(tmp_path, settings=replace(SETTINGS, retry_s=10.0)) as group:
        clock = group.nodes[0].clock
        repairer = group.repairer("d1", silent)
        care = repairer._care(group.opened())
        wanted = []
        for second in range(200):
            repairer.missing(group.opened())
            wanted += [second] if care.wanted_s else []
            care.wanted_s.clear()
            clock.ms += 1000
        assert wanted == [0, 20, 60, 100, 140, 180]
        clock.ms += 11_000
        repairer.missing(group.opened())
        assert care.hurries == 1


def test_names_are_short_and_seldom_another_s() -> None:
    lo = IdColumn.of(list(range(10_000))).hashes()[1]
    assert len(np.unique(short_names(lo))) == 10_000
