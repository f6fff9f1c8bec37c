"""What a round proves and what it does not; whose turn it is, and when."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omendb_chaos.sim.faulty_node import FaultyNode, Weather
from omendb_common.errors import OmenDBError, UnavailableError
from omendb_common.metadata import RepairedShard
from omendb_common.shard_calls import Maintain, Maintained, Verdict
from omendb_datanode.replicate.exchange import settled_stamp
from omendb_datanode.replicate.repairer import Repairer
from tests.unit.datanode.datanode_cases import EPOCH, delete, upsert
from tests.unit.datanode.exchange_cases import QUICK, dump, write
from tests.unit.datanode.round_cases import NAMES, Group, group_in


async def diverge(group: Group) -> None:
    """Each node misses something that the two others have."""
    stamp = group.nodes[0].clock.stamp
    for number, node in enumerate(group.nodes):
        others = [other for other in group.nodes if other is not node]
        await write(others, upsert(range(number * 50, number * 50 + 60), seed=number), stamp(-9000 + number))
        await write(others, delete([number * 50 + 3]), stamp(-5000 + number))


def noted(group: Group) -> list[int]:
    return [node.replica.maintenance.repaired_through for node in group.nodes]


def test_a_round_brings_all_together_and_what_it_proves_is_noted_before_it_is_told(tmp_path: Path) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            await diverge(group)
            rounds = group.rounds()
            seen: list[list[int]] = []

            def told(shard: RepairedShard) -> None:
                seen.append(noted(group))
                group.proven.append(shard)

            rounds._proven = told
            found = await rounds.make(group.opened())
            assert found.equal and found.proven and dump(group.nodes[0]) == dump(group.nodes[1]) == dump(group.nodes[2])
            through = settled_stamp(group.nodes[0].clock, 0.0)
            uuid = group.nodes[0].replica.schema.uuid
            assert group.proven == [RepairedShard(uuid, 0, EPOCH, through)] and seen == [[through] * 3]
            assert set(rounds.counts.rows) == {"pulled", "pushed"} and not found.to_json()["members"]["d2"]["leaves"]

    asyncio.run(scene())


@pytest.mark.parametrize("change", ["down", "lost", "joining", "left"])
def test_nothing_is_proven_while_a_member_is_missing(tmp_path: Path, change: Any) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            await diverge(group)
            if change in ("down", "left"):
                group.states["d3"] = change
            else:
                group.state("d3", change)
            found = await group.rounds().make(group.opened())
            assert not found.equal and not found.proven and isinstance(found.members["d3"], str)
            assert dump(group.nodes[0]) == dump(group.nodes[1]) != dump(group.nodes[2])
            assert not group.proven and noted(group) == [0, 0, 0]

    asyncio.run(scene())


def test_one_that_cannot_be_asked_keeps_none_of_the_others_apart(tmp_path: Path) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            await diverge(group)
            group.doors["d2"] = FaultyNode(group.nodes[1].rules, random.Random(1), Weather(down=True))
            found = await group.rounds().make(group.opened())
            assert not found.proven and "refused" in str(found.members["d2"]) and not group.proven
            assert dump(group.nodes[0]) == dump(group.nodes[2])

    asyncio.run(scene())


class Forgetful(FaultyNode):
    """Compares, and cannot note what it is told."""

    async def maintain(self, call: Maintain, deadline: Any) -> Maintained:
        return Maintained(Verdict.REFUSED, error=UnavailableError("the disk is full"))


def test_what_one_replica_did_not_note_is_not_told(tmp_path: Path) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            await diverge(group)
            group.doors["d3"] = Forgetful(group.nodes[2].rules, random.Random(1))
            with pytest.raises(OmenDBError, match="disk is full"):
                await group.rounds().make(group.opened())
            assert not group.proven

    asyncio.run(scene())


def test_a_clock_that_is_ahead_proves_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            await diverge(group)
            group.nodes[0].clock.ms += 3_600_000
            with pytest.raises(OmenDBError, match="ahead of this node's clock"):
                await group.rounds().make(group.opened())
            assert not group.proven and noted(group) == [0, 0, 0]
            assert (await group.rounds("d2").make(group.opened("d2"))).proven

    asyncio.run(scene())


def test_looking_alone_changes_and_proves_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            await diverge(group)
            before = [dump(node) for node in group.nodes]
            found = await group.rounds().make(group.opened(), repair=False)
            assert not found.equal and [dump(node) for node in group.nodes] == before and not group.proven
            await group.rounds().make(group.opened())
            again = await group.rounds().make(group.opened(), repair=False)
            assert again.equal and not again.proven

    asyncio.run(scene())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.005)


def test_a_repairer_looks_at_what_was_opened_with_data_and_tells_what_it_proved(tmp_path: Path) -> None:
    told: list[RepairedShard] = []

    async def report(shards: Sequence[RepairedShard]) -> None:
        told.extend(shards)
        if len(told) == 1:
            raise UnavailableError("no coordinator")

    async def scene() -> None:
        with group_in(tmp_path, settings=replace(QUICK, retry_s=0.05)) as group:
            await diverge(group)
            # The last in the shard's order, so that it is not its turn but for what it was opened with; and the first
            # has no repairer that it could ask.
            repairer = group.repairer("d3", report)
            repairer.start()
            try:
                await until(lambda: len(told) >= 2)
            finally:
                await repairer.stop()
            assert told[0] == told[1], "what was not heard is told again"
            assert dump(group.nodes[0]) == dump(group.nodes[1]) == dump(group.nodes[2])
            assert repairer.oldest_proof_s() < 60.0 and repairer.diverging_leaves() == 0

    asyncio.run(scene())


def test_what_was_missed_while_away_comes_at_once_and_the_proof_when_it_has_settled(tmp_path: Path) -> None:
    """The youngest writes are what a node that comes back has missed."""

    async def scene() -> None:
        with group_in(tmp_path, settings=replace(QUICK, settle_s=30.0, interval_s=600.0)) as group:
            stamp = group.nodes[0].clock.stamp
            await write(group.nodes, upsert(range(50)), stamp(-60_000))
            await write(group.nodes[:2], upsert(range(30, 70), seed=1), stamp(-100))
            repairer = group.repairer("d3", silent)
            care = repairer._care(group.opened("d3"))
            repairer.start()
            try:
                await until(lambda: repairer.rounds.counts.rounds["equal"] > 0)
            finally:
                await repairer.stop()
            assert dump(group.nodes[0]) == dump(group.nodes[2]) and repairer.rounds.counts.rows["pulled"] == 40
            assert not group.proven and noted(group) == [0, 0, 0] and len(care.wanted_s) == 1
            found = await repairer._round(group.opened("d3"), care)
            assert found.proven and found.through < stamp(-29_000)
            # What came since is left alone again: it may be on its way.
            await write(group.nodes[:2], upsert([7], seed=2), stamp(-50))
            await repairer._round(group.opened("d3"), care)
            assert dump(group.nodes[0]) != dump(group.nodes[2])

    asyncio.run(scene())


async def silent(shards: Sequence[RepairedShard]) -> None:
    """Nobody wants to know."""


def test_the_first_that_is_up_looks_after_a_shard_and_others_when_nothing_is_proven(tmp_path: Path) -> None:
    with group_in(tmp_path) as group:
        repairers = {name: group.repairer(name, silent) for name in NAMES}
        for repairer in repairers.values():
            repairer._up = frozenset(NAMES)

        def turns() -> str:
            return " ".join(name for name, repairer in repairers.items() if repairer._next() is not None)

        assert turns() == "d1"
        for repairer in repairers.values():
            repairer._up = frozenset({"d2", "d3"})
        assert turns() == "d2"
        # d2 takes the turn and never proves anything.
        group.settings = replace(QUICK, interval_s=1.0)
        for name, repairer in repairers.items():
            repairer._settings = group.settings
            (care,) = repairer._cares.values() or [repairer._care(group.opened(name))]
            care.seen_s -= 10.0
        assert turns() == "d1 d2 d3"
        group.repaired = group.nodes[0].clock.stamp()
        assert turns() == "d2"


def test_whose_node_came_back_is_looked_at_soon_and_again_when_all_has_settled(tmp_path: Path) -> None:
    with group_in(tmp_path, settings=replace(QUICK, settle_s=30.0, interval_s=600.0)) as group:
        repairer = group.repairer("d1", silent)
        repairer._up = frozenset(NAMES)
        group.on_change(repairer._changed)
        care = repairer._care(group.opened())
        repairer._schedule(care, good=True)
        assert repairer._next() is None
        group.say("d3", "down")
        assert repairer._next() is None
        group.say("d3", "up")
        # One that was started again makes its own round first.
        assert repairer._next() is None and len(care.wanted_s) == 2
        care.wanted_s[0] -= 5.5
        assert repairer._next() is not None
        care.wanted_s = [at_s for at_s in care.wanted_s if at_s > group.nodes[0].clock.mono_s()]
        assert repairer._next() is None
        care.wanted_s[0] -= 31.5
        assert repairer._next() is not None


def sent(repairers: Sequence[Repairer]) -> int:
    return sum(sum(repairer.rounds.counts.rows.values()) for repairer in repairers)


def rounds_made(repairer: Repairer) -> int:
    return sum(repairer.rounds.counts.rounds.values())


@pytest.mark.parametrize("told", [True, False], ids=["the map said so", "nobody noticed"])
def test_what_a_node_missed_is_sent_once_although_two_want_it_mended(tmp_path: Path, told: bool) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            await write(group.nodes, upsert(range(20)), group.nodes[0].clock.stamp(-9000))
            await write(group.nodes[:2], upsert(range(300), seed=2), group.nodes[0].clock.stamp(-7000))
            repairers = [group.repairer(name, silent) for name in NAMES]
            for name, repairer in zip(NAMES[:2], repairers, strict=False):
                care = repairer._care(group.opened(name))
                care.wanted_s.clear()
                repairer._schedule(care, good=True)
                repairer.start()
            try:
                if told:
                    group.say("d3", "down")
                    group.say("d3", "up")
                repairers[2].start()
                await until(lambda: dump(group.nodes[0]) == dump(group.nodes[2]))
                await until(lambda: not any(care.asking for care in repairers[2]._cares.values()))
            finally:
                for repairer in repairers:
                    await repairer.stop()
            assert sent(repairers) == 300

    asyncio.run(scene())


def test_a_node_that_asked_does_it_itself_once_the_other_is_down(tmp_path: Path) -> None:
    class Silent(FaultyNode):
        async def maintain(self, call: Maintain, deadline: Any) -> Maintained:
            """Never answers to who asks for a round."""
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

    asked = asyncio.Event()

    async def scene() -> None:
        with group_in(tmp_path, settings=replace(QUICK, retry_s=0.01)) as group:
            await diverge(group)
            group.doors["d1"] = Silent(group.nodes[0].rules, random.Random(1))
            repairer = group.repairer("d2", silent)
            repairer._up = frozenset(NAMES)
            repairer._care(group.opened("d2")).back = False  # it has made the round of its own
            repairer.start()
            try:
                await asked.wait()
                await asyncio.sleep(0)
                assert not rounds_made(repairer)
                group.say("d1", "down")
                await until(lambda: dump(group.nodes[1]) == dump(group.nodes[2]))
            finally:
                await repairer.stop()

    asyncio.run(scene())


def test_a_replica_that_is_being_filled_has_no_round_beside(tmp_path: Path) -> None:
    async def scene() -> None:
        with group_in(tmp_path) as group:
            await diverge(group)
            group.state("d3", "joining")
            repairer = group.repairer("d3", silent)
            repairer._up = frozenset(NAMES)
            assert repairer._next() is None
            group.state("d3", "active")
            assert repairer._next() is not None

    asyncio.run(scene())


def test_a_round_that_failed_is_made_again_later_and_later(tmp_path: Path) -> None:
    with group_in(tmp_path, settings=replace(QUICK, retry_s=10.0, interval_s=600.0)) as group:
        repairer = group.repairer("d1", silent)
        care = repairer._care(group.opened())
        pauses = []
        for good in [False] * 8 + [True, False]:
            repairer._schedule(care, good)
            pauses.append(round(care.due_s - group.nodes[0].clock.mono_s()))
        assert pauses == [10, 20, 40, 80, 160, 320, 600, 600, 600, 10]


def test_a_hash_tree_that_lies_is_found_and_counted(tmp_path: Path) -> None:
    async def scene() -> None:
        with group_in(tmp_path, settings=replace(QUICK, check_s=1.0)) as group:
            await diverge(group)
            node = group.nodes[0]
            node.replica.flush()
            repairer = group.repairer("d1", silent)
            care = repairer._care(group.opened())
            await repairer._round(group.opened(), care)
            for known in node.replica.hash_trees._segments.values():
                known._sums.counts[0] += 1
            care.checked_s -= 2.0
            found = await repairer._round(group.opened(), care)
            assert repairer.rounds.counts.mismatches == 1 and found.proven

    asyncio.run(scene())
