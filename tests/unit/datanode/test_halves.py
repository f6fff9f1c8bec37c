"""A shard that splits on one node: halves that follow, are filled, take its place, and are let go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from omendb_common.deadline import Deadline
from omendb_common.errors import ResourceExhaustedError
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows
from omendb_common.records import WriteBatch
from omendb_common.ring import RING, key_hashes
from omendb_common.shard_calls import Apply, Claim, Lookup, ShardRef, State, Verdict
from omendb_common.topology import CollectionInfo, ReplicaPlace, Shard, Split, Topology
from omendb_datanode.config import RepairSettings
from omendb_datanode.engine_threads import EngineThreads
from omendb_datanode.halves import Halves
from omendb_datanode.hosting import Hosting, OpenShard
from omendb_datanode.replicate.pace import Pace
from omendb_datanode.replicate.splits import Splits
from omendb_datanode.shard_rules import ShardRules
from omendb_engine.replica import Replica
from omendb_engine.stamped import StampedWrite
from tests.unit.datanode.datanode_cases import delete, update, upsert
from tests.unit.datanode.test_hosting import (
    CLOCK,
    ME,
    U1,
    Source,
    at,
    collection,
    folders,
    held_up,
    hosting,
    in_force,
    until,
)

MIDDLE = RING // 2
SPLIT = Split(5, MIDDLE, 1, 2, (), 77)
T = [n << 30 for n in range(1, 100)]


def whole(epoch: int = 3, split: Split | None = None, key: str | None = None) -> CollectionInfo:
    """The collection of one shard, which may split."""
    info = collection("a", U1, epoch, ME)
    return replace(info, shards=(replace(info.shards[0], split=split),), partition_key=key)


def halved(epoch: int = 9, key: str | None = None) -> CollectionInfo:
    """The collection of the two halves."""
    places = (ReplicaPlace(ME, "active", SPLIT.session),)
    low = Shard(1, 0, MIDDLE, epoch, places, 0, 77, None, epoch)
    high = Shard(2, MIDDLE, RING, epoch, places, 0, 77, None, epoch)
    return replace(collection("a", U1, epoch, ME), shards=(low, high), partition_key=key)


@dataclass
class Told:
    """The advances that the coordinators were told."""

    epochs: list[int]

    async def __call__(self, opened: OpenShard, deadline: Deadline) -> None:
        self.epochs.append(opened.shard.epoch)


class Story:
    """A node with its hosting, its rules and what fills halves."""

    def __init__(self, path: Path, topology: Topology) -> None:
        self.source = Source(topology)
        self.threads = EngineThreads(readers=2, writers=2)
        self.hosting: Hosting = hosting(path, self.source, drained=self._drain)
        self.drained: list[Replica] = []
        self.rules = ShardRules(self.hosting, CLOCK, self.threads)
        self.told = Told([])
        settings = RepairSettings(bytes_per_s=1 << 40, batch_rows=3)
        self.splits = Splits(
            *(self.hosting.opened, self.threads, _Following(self.source), self.told, CLOCK, settings),
            Pace(CLOCK, settings),
        )

    async def _drain(self, replica: Replica) -> None:
        self.drained.append(replica)
        await self.rules.drained(replica)

    async def publish(self, revision: int, info: CollectionInfo) -> None:
        """A newer map, and wait until it is in force."""
        self.source.publish(at(revision, info))
        await in_force(self.hosting, revision)

    async def write(self, batch: WriteBatch, stamp: int, shard_id: int = 0, epoch: int = 5) -> Any:
        """A router's write."""
        ref = ShardRef(U1, shard_id, epoch, 1)
        return await self.rules.apply(Apply(ref, stamp, batch), Deadline.after(CLOCK, 20))

    async def claim(self, ids: Sequence[int], stamp: int, epoch: int) -> None:
        """A router's claim."""
        call = Apply(ShardRef(U1, 0, epoch, 1), stamp, delete(ids), None, claim=Claim.CLAIM)
        assert (await self.rules.apply(call, Deadline.after(CLOCK, 20))).verdict is Verdict.OK

    async def states(self, ids: Sequence[int], shard_id: int, epoch: int = 9) -> list[State]:
        """What a shard knows of ids."""
        ref = ShardRef(U1, shard_id, epoch, 1)
        looked = await self.rules.lookup(Lookup(ref, IdColumn.of(list(ids))), Deadline.after(CLOCK, 20))
        assert looked.verdict is Verdict.OK, looked.error
        return [State(s) for s in looked.states.tolist()]

    async def filled(self) -> None:
        """Let the halves be filled, as the running object does."""
        async with asyncio.timeout(20):
            while not self.told.epochs:
                await self.splits.look()
                await asyncio.sleep(0.001)

    @property
    def halves(self) -> Halves:
        """Those of the one shard."""
        (opened,) = self.hosting.opened()
        assert isinstance(opened.hosted.follower, Halves)
        return opened.hosted.follower


class _Following:
    """The source as what fills halves sees it."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


@asynccontextmanager
async def node(path: Path, topology: Topology) -> AsyncIterator[Story]:
    """A running node, ended in good order."""
    story = Story(path, topology)
    await story.hosting.start()
    try:
        yield story
    finally:
        await story.splits.stop()
        await story.hosting.stop()
        story.threads.close()


def sides(ids: Sequence[int]) -> list[int]:
    """Which half owns each id: 1 or 2."""
    high = key_hashes(IdColumn.of(list(ids))) >= np.uint64(MIDDLE)
    return [2 if one else 1 for one in high]


def test_halves_keep_out_what_claims_on_the_whole_kept_out(tmp_path: Path) -> None:
    async def story() -> None:
        async with node(tmp_path, at(3, whole())) as one:
            await one.claim([1, 2, 3], T[9], epoch=3)
            await one.publish(5, whole(5, SPLIT))
            await one.claim([4, 5, 6], T[9], epoch=5)
            await one.filled()
            await one.claim([7, 8, 9], T[9], epoch=5)
            ids = range(1, 11)
            await one.publish(9, halved())
            for point_id, shard_id in zip(ids, sides(list(ids)), strict=True):
                answer = await one.write(upsert([point_id]), T[5], shard_id, 9)
                assert list(answer.barred) == ([0] if point_id < 10 else []), point_id
            assert set(sides(list(ids))) == {1, 2}

    asyncio.run(story())


def test_halves_hold_what_was_there_and_what_came_while_they_were_filled(tmp_path: Path) -> None:
    async def story() -> None:
        async with node(tmp_path, at(3, whole())) as one:
            await one.write(upsert(range(40), [{"a": 1, "b": 1}] * 40), T[1], epoch=3)
            await one.write(update(range(10), [{"b": 2}] * 10), T[2], epoch=3)
            await one.write(delete(range(30, 40)), T[3], epoch=3)
            await one.publish(5, whole(5, SPLIT))
            assert [o.key.shard_id for o in one.hosting.opened()] == [0], "nobody is answered by a half"
            # While they are filled: new points, updates, and deletions of what is copied or not yet.
            await one.write(upsert(range(50, 60)), T[4])
            await one.write(update([5, 55], [{"b": 3}] * 2), T[5])
            await one.write(delete([6, 56, 99]), T[6])
            await one.filled()
            assert one.told.epochs == [5]
            (fill,) = one.splits.fills()
            assert (fill.shard_id, fill.session) == (0, one.halves.session) and fill.bytes_done > 0
            assert fill.rows_done == fill.rows_total >= 41 and not fill.waits_for
            await one.write(upsert([60]), T[7])
            parent = one.halves.whole
            ids = [*range(61), 99]
            was = parent.versions(IdColumn.of(ids))
            digests = dict(zip(ids, was.digests().tolist(), strict=True))
            await one.publish(9, halved())
            assert one.hosting.find(ShardRef(U1, 0, 9, 1)) is None
            for side in (1, 2):
                mine = [i for i, s in zip(ids, sides(ids), strict=True) if s == side]
                others = [i for i in ids if i not in mine]
                half = one.hosting.find(ShardRef(U1, side, 9, 1))
                assert half is not None and (half.epoch, half.fence) == (9, 9)
                assert half.replica.versions(IdColumn.of(mine)).digests().tolist() == [digests[i] for i in mine]
                assert set(half.replica.versions(IdColumn.of(others)).states.tolist()) == {State.ABSENT}
                assert half.replica.maintenance.repaired_through == 77
            await until(lambda: parent.closed and folders(tmp_path) == [f"{U1}.1.5", f"{U1}.2.5"])

    asyncio.run(story())


def test_what_was_let_in_before_the_fence_is_in_the_halves_when_they_answer(tmp_path: Path) -> None:
    async def story() -> None:
        async with node(tmp_path, at(3, whole())) as one:
            await one.publish(5, whole(5, SPLIT))
            await one.filled()
            one.drained.clear()
            with held_up(one.halves.whole) as gate:
                write = asyncio.create_task(one.write(upsert([1]), T[1]))
                await asyncio.sleep(0)
                one.source.publish(at(9, halved()))
                await until(lambda: one.drained or one.hosting.revision == 9)
                assert one.hosting.revision < 9 and one.hosting.find(ShardRef(U1, 0, 5, 1)) is None
                gate.set()
            await in_force(one.hosting, 9)
            assert await one.states([1], sides([1])[0]) == [State.LIVE]
            assert (await write).verdict is Verdict.OK

    asyncio.run(story())


def test_a_node_that_is_started_anew_in_the_middle_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with node(tmp_path, at(3, whole())) as one:
            await one.write(upsert(range(20)), T[1], epoch=3)
            await one.publish(5, whole(5, SPLIT))
            await one.write(upsert([30]), T[2])
        async with node(tmp_path, at(6, whole(5, replace(SPLIT, ready=(ME,))))) as one:
            await one.write(upsert([31]), T[3])
            assert not one.halves.complete
            # All others are whole, and the map changes before this node has looked again.
            await one.publish(9, halved())
            for side in (1, 2):
                ids = [*range(20), 30, 31]
                mine = [i for i, s in zip(ids, sides(ids), strict=True) if s == side]
                assert set(await one.states(mine, side)) == {State.LIVE}
        async with node(tmp_path, at(9, halved())) as one:
            assert folders(tmp_path) == [f"{U1}.1.5", f"{U1}.2.5"]
            assert State.LIVE in await one.states(range(20), 1)

    asyncio.run(story())


def test_a_split_that_is_given_up_leaves_the_shard_and_no_halves(tmp_path: Path) -> None:
    async def story() -> None:
        async with node(tmp_path, at(3, whole())) as one:
            await one.publish(5, whole(5, SPLIT))
            await one.write(upsert(range(9)), T[1])
            halves = one.halves
            await one.publish(6, whole(6))
            await until(lambda: folders(tmp_path) == [f"{U1}.0"])
            assert all(half.closed for half in halves.beside)
            assert (await one.write(upsert([10]), T[2], epoch=6)).verdict is Verdict.OK
            await one.publish(8, whole(8, Split(8, MIDDLE, 1, 2)))
            await one.filled()
            assert folders(tmp_path) == [f"{U1}.0", f"{U1}.1.8", f"{U1}.2.8"]
            assert sum(half.snapshot().live for half in one.halves.beside) == 10

    asyncio.run(story())


def test_a_write_that_a_half_does_not_take_is_not_acknowledged_and_everything_is_copied_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with node(tmp_path, at(3, whole())) as one:
            await one.publish(5, whole(5, SPLIT))
            await one.filled()
            halves = one.halves
            kept = halves.follow

            def fail(writes: Sequence[StampedWrite]) -> None:
                halves.whole, whole_one = None, halves.whole  # type: ignore[assignment]
                try:
                    kept(writes)
                except AttributeError:
                    raise ResourceExhaustedError("no memory", field="memory") from None
                finally:
                    halves.whole = whole_one

            halves.follow = fail  # type: ignore[method-assign]
            answer = await one.write(upsert([1]), T[1])
            assert answer.verdict is Verdict.REFUSED and answer.error.outcome == "unknown" and not halves.complete
            halves.follow = kept  # type: ignore[method-assign]
            await one.publish(9, halved())
            assert await one.states([1], sides([1])[0]) == [State.LIVE]

    asyncio.run(story())


def test_with_a_partition_key_a_point_is_in_one_half_and_its_older_versions_in_none(tmp_path: Path) -> None:
    def keyed(ids: Sequence[int], key: str) -> WriteBatch:
        return upsert(ids, [{"tenant": key, "n": 1}] * len(ids))

    async def story() -> None:
        by_side: dict[int, str] = {}
        for n in range(50):
            hashed = key_hashes(IdColumn.of([f"t{n}"]))
            by_side.setdefault(int(hashed[0] >= np.uint64(MIDDLE)) + 1, f"t{n}")
        low, high = by_side[1], by_side[2]
        async with node(tmp_path, at(3, whole(key="tenant"))) as one:
            await one.write(keyed(range(20), low), T[1], epoch=3)
            await one.write(keyed(range(5), high), T[2], epoch=3)  # they were elsewhere before
            await one.publish(5, whole(5, SPLIT, "tenant"))
            await one.write(keyed(range(5, 10), high), T[3])
            await one.write(update([0, 19], [{"n": 2}] * 2), T[4])
            await one.write(delete([1, 18]), T[5])
            await one.filled()
            await one.publish(9, halved(key="tenant"))
            wanted = {i: State.LIVE if i >= 10 else State.DELETED for i in range(20)} | {18: State.DELETED}
            assert await one.states(range(20), 1) == list(wanted.values())
            wanted = {i: State.LIVE if i < 10 else State.DELETED for i in range(20)} | {1: State.DELETED}
            assert await one.states(range(20), 2) == list(wanted.values())
            # What another replica still has of a point that has left does not come back.
            again = await one.write(keyed(range(5), low), T[1], shard_id=1, epoch=9)
            assert again.superseded.tolist() == [0, 1, 2, 3, 4]
            half = one.hosting.find(ShardRef(U1, 2, 9, 1))
            assert half is not None
            columns = half.replica.versions(IdColumn.of([0])).picked.columns()
            assert columns.to_pylist() == columns_from_rows([{"tenant": high, "n": 2}]).to_pylist()

    asyncio.run(story())
