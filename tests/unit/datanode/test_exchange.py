"""What two or three replicas that heard of different writes hold after an exchange, and what ends one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omendb_chaos.sim.faulty_node import FaultyNode, Weather
from omendb_common.errors import OmenDBError, ResourceExhaustedError
from omendb_common.ids import IdColumn
from omendb_common.shard_calls import Repair, State, Summed, Verdict
from omendb_datanode.replicate.exchange import Exchange, ExchangeEndedError, Moved, settled_stamp
from omendb_datanode.replicate.pace import Pace
from omendb_datanode.replicate.together import bring_together
from tests.unit.datanode.datanode_cases import EPOCH, Node, delete, open_one, update, upsert
from tests.unit.datanode.exchange_cases import LATE, QUICK, dump, exchange, nodes_in, write
from tests.unit.engine.engine_cases import settings_of


async def diverge(one: Node, two: Node) -> None:
    """Give both what both have, and each what the other missed."""
    stamp = one.clock.stamp
    words = [{"a": i, "b": "x"} for i in range(200)]
    await write([one, two], upsert(range(200), words), stamp(-9000))
    await write([one], upsert(range(150, 260), seed=1), stamp(-8000))
    await write([two], upsert(range(250, 300), seed=2), stamp(-7000))
    await write([two], delete(range(40)), stamp(-6000))
    await write([one], update(range(30, 60), [{"a": 7}] * 30), stamp(-5000))
    await write([one], delete([60, 390]), stamp(-4000))
    await write([two], update(range(55, 80), [{"b": None, "c": "new"}] * 25, ("a",)), stamp(-3000))
    one.replica.flush()


def test_two_replicas_are_equal_after_an_exchange(tmp_path: Path) -> None:
    async def scene() -> None:
        with nodes_in(tmp_path) as (one, two):
            await diverge(one, two)
            assert dump(one) != dump(two)
            moved: list[Moved] = []
            done = await exchange(one, two, moved=moved.append).run(LATE)
            assert done.equal and dump(one) == dump(two)
            assert done.pulled == sum(m.pulled for m in moved) > 0 and done.pushed == sum(m.pushed for m in moved) > 0
            assert max(m.pulled + m.pushed for m in moved) <= QUICK.batch_rows
            again = await exchange(two, one).run(LATE)
            assert again.equal and not again.pulled + again.pushed + again.leaves

    asyncio.run(scene())


def test_equal_replicas_are_asked_one_question(tmp_path: Path) -> None:
    async def scene() -> None:
        with nodes_in(tmp_path) as (one, two):
            await write([one, two], upsert(range(300)), one.clock.stamp(-100))
            asked = FaultyNode(two.rules, random.Random(1))
            assert (await exchange(one, two, asked).run(LATE)).equal
            assert dict(asked.calls) == {"sums": 1}
            await write([one], upsert([7], seed=9), one.clock.stamp(-50))
            assert (await exchange(one, two, asked).run(LATE)).pushed == 1
            # Three levels and the leaf's count, its entries, one batch, the root again.
            assert dict(asked.calls) == {"sums": 6, "entries": 1, "repair": 1}

    asyncio.run(scene())


def test_what_is_young_is_left_alone(tmp_path: Path) -> None:
    async def scene() -> None:
        with nodes_in(tmp_path) as (one, two):
            clock = one.clock
            await write([one, two], upsert(range(50)), clock.stamp(-90_000))
            await write([one], upsert(range(5), seed=1), clock.stamp(-10_000))
            await write([two], upsert([77]), clock.stamp(-10_000))
            await write([one], upsert([88]), clock.stamp(-40_000))
            done = await exchange(one, two).run(settled_stamp(clock, 30.0))
            assert done.equal and (done.pulled, done.pushed) == (0, 1)
            versions = two.replica.versions(IdColumn.of([88, 0])), one.replica.versions(IdColumn.of([77]))
            assert [v.states.tolist() for v in versions] == [[State.LIVE, State.LIVE], [State.ABSENT]]
            assert versions[0].stamps[1] == clock.stamp(-90_000)

    asyncio.run(scene())


def test_comparing_alone_changes_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        with nodes_in(tmp_path) as (one, two):
            await diverge(one, two)
            before = dump(one), dump(two)
            done = await exchange(one, two).run(LATE, repair=False)
            assert not done.equal and done.leaves and not done.pulled + done.pushed
            assert (dump(one), dump(two)) == before

    asyncio.run(scene())


def test_another_floor_or_map_ends_it(tmp_path: Path) -> None:
    async def scene() -> None:
        with nodes_in(tmp_path) as (one, two):
            await diverge(one, two)
            two.replica.raise_floors(gc_floor=one.clock.stamp(-9500))
            with pytest.raises(ExchangeEndedError, match="gc_floor"):
                await exchange(one, two).run(LATE)
            one.replica.raise_floors(gc_floor=one.clock.stamp(-9500))
            (hosted,) = two.map.hosted.values()
            hosted.fence = hosted.epoch = EPOCH + 1
            with pytest.raises(ExchangeEndedError, match="STALE_EPOCH"):
                await exchange(one, two).run(LATE)
            two.map.hosted.clear()
            with pytest.raises(ExchangeEndedError, match="NOT_HERE"):
                await exchange(one, two).run(LATE)
            assert not two.map.hosted

    asyncio.run(scene())


class Dropping(FaultyNode):
    """The replica there is dropped when it is sent the first records."""

    async def repair(self, call: Repair, deadline: Any) -> Any:
        self.calls["repair"] += 1
        self.node._replicas.hosted.clear()  # type: ignore[attr-defined]
        return await self.node.repair(call, deadline)


def test_a_replica_that_is_dropped_in_the_middle_is_not_made_again(tmp_path: Path) -> None:
    async def scene() -> None:
        with nodes_in(tmp_path) as (one, two):
            await diverge(one, two)
            with pytest.raises(ExchangeEndedError, match="NOT_HERE"):
                await exchange(one, two, Dropping(two.rules, random.Random(1))).run(LATE)
            assert not two.map.hosted

    asyncio.run(scene())


class Busy(FaultyNode):
    """Too busy for every other question."""

    async def sums(self, call: Any, deadline: Any) -> Summed:
        self.calls["sums"] += 1
        if self.calls["sums"] % 2:
            return Summed(Verdict.REFUSED, error=ResourceExhaustedError("busy", retry_after=0.001))
        return await self.node.sums(call, deadline)


def test_a_busy_replica_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def pause(self: Pace, seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(Pace, "pause", pause)

    async def scene() -> None:
        with nodes_in(tmp_path) as (one, two):
            await diverge(one, two)
            assert (await exchange(one, two, Busy(two.rules, random.Random(1))).run(LATE)).equal
            assert dump(one) == dump(two) and waited and min(waited) >= 0.1

    asyncio.run(scene())


def test_cut_short_anywhere_it_can_be_begun_again(tmp_path: Path) -> None:
    async def scene() -> None:
        with nodes_in(tmp_path) as (one, two):
            await diverge(one, two)
            rng = random.Random(5)
            weather = Weather(refused=0.05, lost_answers=0.05, doubled=0.2)
            settings = replace(QUICK, call_timeout_s=0.1)
            for _ in range(200):
                task = asyncio.ensure_future(
                    exchange(one, two, FaultyNode(two.rules, rng, weather), settings=settings).run(LATE)
                )
                if rng.random() < 0.5:
                    await asyncio.wait((task,), timeout=rng.random() / 20)
                    task.cancel()
                (done,) = await asyncio.gather(task, return_exceptions=True)
                if not isinstance(done, BaseException) and done.equal:
                    break
                assert isinstance(done, (OmenDBError, asyncio.CancelledError)), done
            assert dump(one) == dump(two)

    asyncio.run(scene())


def test_of_two_contents_under_one_stamp_one_is_kept_and_a_deletion_wins(tmp_path: Path) -> None:
    """What only damage makes: whichever of two compares first, and whatever each has, they end alike."""

    async def scene(folder: Path, reverse: bool) -> list[int]:
        with nodes_in(folder) as (one, two):
            stamp = one.clock.stamp(-100)
            await write([one], upsert([1, 2, 3, 4], [{"a": 1}] * 4), stamp)
            await write([two], upsert([1, 3, 4], [{"a": 2}, {"a": 3}, {"a": 1}]), stamp)
            await write([two], delete([2]), stamp)
            first, second = (two, one) if reverse else (one, two)
            done = await exchange(first, second).run(LATE)
            assert done.equal and done.collided == 4
            assert one.replica.versions(IdColumn.of([2])).states.tolist() == [State.DELETED]
            assert dump(one) == dump(two)
            assert (await exchange(one, two).run(LATE)).collided == 0
            for node in (one, two):
                assert not node.replica.hash_trees.check(LATE).leaves
            return list(one.replica.versions(IdColumn.of([1, 3, 4])).digests().tolist())

    kept = [asyncio.run(scene(tmp_path / str(reverse), reverse)) for reverse in (False, True)]
    assert len(kept[0]) == len(kept[1]) == 3


def test_what_was_kept_of_two_contents_is_there_after_a_restart(tmp_path: Path) -> None:
    async def scene() -> None:
        with nodes_in(tmp_path) as (one, two):
            stamp = one.clock.stamp(-100)
            await write([one], upsert(range(20), [{"a": 1}] * 20), stamp)
            await write([two], upsert(range(20), [{"a": 2}] * 20), stamp)
            assert (await exchange(one, two).run(LATE)).equal
            kept, schema = dump(one), one.replica.schema
        for name, rows in (("r0", 30), ("r1", 31)):
            again = open_one(tmp_path / name, settings_of(rows=rows), schema)
            assert not again.hash_trees.check(LATE).leaves
            node = Node(again)
            assert dump(node) == kept
            node.threads.close()
            again.close()

    asyncio.run(scene())


def test_three_replicas_come_together_though_the_last_knows_most(tmp_path: Path) -> None:
    async def scene() -> None:
        with nodes_in(tmp_path, 3) as (one, two, three):
            await diverge(two, three)
            await write([three], upsert(range(300, 330)), one.clock.stamp(-100))
            done = await bring_together({"two": exchange(one, two), "three": exchange(one, three)}, LATE)
            assert done.equal and dump(one) == dump(two) == dump(three)
            assert one.replica.snapshot().live > 250

    asyncio.run(scene())


def test_an_empty_replica_takes_all_that_any_has_with_what_lies_below_the_floor(tmp_path: Path) -> None:
    async def scene() -> None:
        with nodes_in(tmp_path, 3) as (empty, two, three):
            await diverge(two, three)
            for node in (empty, two, three):
                node.replica.raise_floors(gc_floor=node.clock.stamp(-8500))
            begun: list[int] = []
            exchanges = {
                name: exchange(empty, node, begun=begun.append) for name, node in (("two", two), ("three", three))
            }
            done = await bring_together(exchanges, LATE)
            assert done.equal and dump(empty)[3] == dump(two)[3] == dump(three)[3]
            assert empty.replica.snapshot().live == max(begun) - 42  # deletions above the floor

    asyncio.run(scene())


def test_what_a_router_brings_from_below_the_floor_is_not_believed(tmp_path: Path) -> None:
    async def scene() -> None:
        with nodes_in(tmp_path) as (one, two):
            await write([one], upsert([5]), one.clock.stamp(-9000))
            two.replica.raise_floors(gc_floor=two.clock.stamp(-100))
            records = one.replica.versions(IdColumn.of([5])).records()
            for floor, state in (
                (0, State.ABSENT),
                (one.clock.stamp(-101), State.ABSENT),
                (one.clock.stamp(-100), State.LIVE),
            ):
                await two.rules.repair(Repair(two.shard, records, floor), two.deadline())
                assert two.replica.versions(IdColumn.of([5])).states.tolist() == [state]

    asyncio.run(scene())


class Noting(Pace):
    """Notes how many calls were made beside clients."""

    calls = 0

    @contextmanager
    def beside_clients(self) -> Iterator[None]:
        """Count it."""
        self.calls += 1
        yield


def test_clients_are_paid_for_every_call(tmp_path: Path) -> None:
    async def scene() -> None:
        with nodes_in(tmp_path) as (here, there):
            await write([there], upsert(range(20)), here.clock.stamp())
            pace = Noting(here.clock, QUICK)
            floor = here.replica.maintenance.gc_floor
            made = Exchange(here.rules, there.rules, here.shard, floor, here.clock, pace, QUICK)
            assert (await made.run(LATE)).pulled == 20
            # Three lookups of seven at most and as many repairs, beside what is asked to find them.
            assert pace.calls >= 2 * 3 + 2 * 4

    asyncio.run(scene())
