"""Two shards that merge on one node: a joint replica that follows both, is filled, takes their place, and is let go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from omendb_common.errors import ResourceExhaustedError
from omendb_common.ids import IdColumn
from omendb_common.ring import RING
from omendb_common.shard_calls import ShardRef, State, Verdict
from omendb_common.topology import CollectionInfo, Merge, Shard
from omendb_datanode.successors import Joint
from tests.unit.datanode.datanode_cases import delete, update, upsert
from tests.unit.datanode.test_halves import SPLIT, Story, T, halved, node, sides, whole
from tests.unit.datanode.test_hosting import ME, U1, at, collection, folders, held_up, in_force, until

SESSION = 15
MERGE = Merge(SESSION, 1, 2, 3, (), 60, 40)
BOTH = f"{U1}.1.5", f"{U1}.2.5"
JOINT = f"{U1}.3.{SESSION}"
IDS = list(range(40))


def two(epoch: int = SESSION, merge: Merge | None = None, floors: tuple[int, int] = (0, 0)) -> CollectionInfo:
    """The collection of two shards, which may merge."""
    info = halved(9)
    both = zip(info.shards, floors, strict=True)
    shards = tuple(replace(s, epoch=epoch, fence=9, gc_floor=floor, merge=merge) for s, floor in both)
    return replace(info, shards=shards)


def joined(epoch: int = 19, floor: int = 0) -> CollectionInfo:
    """The collection of the joint shard."""
    places = tuple(replace(r, session=SESSION) for r in halved(9).shards[0].replicas)
    one = Shard(3, 0, RING, epoch, places, floor, 60, None, epoch)
    return replace(collection("a", U1, epoch, ME), shards=(one,))


def plain(merge: Merge = MERGE) -> Merge:
    """A merge of shards of which no deletion was forgotten."""
    return replace(merge, gc_floor=0)


async def write(one: Story, kind: object, ids: Sequence[int], stamp: int, epoch: int, rows: object = None) -> None:
    """Writes of ids, each to the shard that owns it."""
    for side in (1, 2):
        mine = [i for i in ids if sides([i]) == [side]]
        if mine:
            batch = kind(mine) if rows is None else kind(mine, [rows] * len(mine))  # type: ignore[operator]
            answer = await one.write(batch, stamp, side, epoch)
            assert answer.verdict is Verdict.OK, answer.error


def joints(one: Story) -> list[Joint]:
    """What follows the two."""
    found = [opened.hosted.follower for opened in one.hosting.opened()]
    assert all(isinstance(follower, Joint) for follower in found)
    return [follower for follower in found if isinstance(follower, Joint)]


async def told(one: Story, times: int = 2) -> None:
    """Let the joint replica be filled from both, as the running object does."""
    async with asyncio.timeout(20):
        while len(one.told.epochs) < times:
            await one.splits.look()
            await asyncio.sleep(0.001)


def test_the_joint_replica_holds_what_both_had_and_what_came_while_it_was_filled(tmp_path: Path) -> None:
    async def story() -> None:
        async with node(tmp_path, at(9, two(9))) as one:
            await write(one, upsert, IDS, T[1], 9, {"a": 1, "b": 1})
            await write(one, update, IDS[:10], T[2], 9, {"b": 2})
            await write(one, delete, IDS[30:], T[3], 9)
            await one.publish(SESSION, two(SESSION, plain()))
            assert sorted(o.key.shard_id for o in one.hosting.opened()) == [1, 2], "nobody is answered by the joint one"
            await write(one, upsert, range(50, 60), T[4], SESSION, {"a": 3})
            await write(one, update, [5, 55], T[5], SESSION, {"b": 3})
            await write(one, delete, [6, 56, 99], T[6], SESSION)
            await told(one)
            fills = one.splits.fills()
            assert {(f.shard_id, f.session) for f in fills} == {(1, SESSION), (2, SESSION)}
            assert all(f.rows_done == f.rows_total > 10 for f in fills)
            await write(one, upsert, [60], T[7], SESSION)
            ids = [*IDS, *range(50, 61), 99]
            parents = [joint.whole for joint in joints(one)]
            found = [zip(ids, p.versions(IdColumn.of(ids)).digests().tolist(), strict=True) for p in parents]
            digests = {i: digest for rows in found for i, digest in rows if digest}
            await one.publish(19, joined())
            assert one.hosting.find(ShardRef(U1, 1, 19, 1)) is one.hosting.find(ShardRef(U1, 2, 19, 1)) is None
            joint = one.hosting.find(ShardRef(U1, 3, 19, 1))
            assert joint is not None and (joint.epoch, joint.fence) == (19, 19)
            assert joint.replica.versions(IdColumn.of(ids)).digests().tolist() == [digests[i] for i in ids]
            assert joint.replica.maintenance.repaired_through == 60
            await until(lambda: all(p.closed for p in parents) and folders(tmp_path) == [JOINT])

    asyncio.run(story())


def test_nothing_is_told_before_both_are_copied(tmp_path: Path) -> None:
    async def story() -> None:
        async with node(tmp_path, at(9, two(9))) as one:
            await write(one, upsert, IDS, T[1], 9)
            await one.publish(SESSION, two(SESSION, plain()))
            low, high = joints(one)
            kept, high.below = high.below, _refused  # type: ignore[method-assign,assignment]
            async with asyncio.timeout(20):
                while not any("neighbour" in fill.waits_for for fill in one.splits.fills()):
                    await one.splits.look()
                    await asyncio.sleep(0.001)
            assert low.complete and not high.complete and not one.told.epochs
            high.below = kept  # type: ignore[method-assign]
            await told(one, 1)
            assert high.complete

    asyncio.run(story())


def _refused(*_: object) -> IdColumn:
    raise ResourceExhaustedError("no memory", field="memory")


@pytest.mark.parametrize("side", [1, 2])
def test_what_was_let_into_either_before_the_fence_is_in_the_joint_one_when_it_answers(
    tmp_path: Path, side: int
) -> None:
    async def story() -> None:
        async with node(tmp_path, at(9, two(9))) as one:
            await one.publish(SESSION, two(SESSION, plain()))
            await told(one)
            one.drained.clear()
            point = next(i for i in IDS if sides([i]) == [side])
            with held_up(joints(one)[side - 1].whole) as gate:
                late = asyncio.create_task(one.write(upsert([point]), T[1], side, SESSION))
                await asyncio.sleep(0)
                one.source.publish(at(19, joined()))
                await until(lambda: len(one.drained) >= side or one.hosting.revision == 19)
                assert one.hosting.revision < 19 and one.hosting.find(ShardRef(U1, side, SESSION, 1)) is None
                assert one.hosting.find(ShardRef(U1, 3, 19, 1)) is None
                gate.set()
            await in_force(one.hosting, 19)
            assert await one.states([point], 3, 19) == [State.LIVE]
            assert (await late).verdict is Verdict.OK
            # The same write again, under its stamp, is there; an older one comes too late.
            again = await one.write(upsert([point]), T[1], 3, 19)
            assert again.verdict is Verdict.OK and not len(again.superseded)

    asyncio.run(story())


def test_a_node_that_is_started_anew_in_the_middle_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with node(tmp_path, at(9, two(9))) as one:
            await write(one, upsert, range(20), T[1], 9)
            await one.publish(SESSION, two(SESSION, plain()))
            await write(one, upsert, [30], T[2], SESSION)
        ready = replace(plain(), ready=(ME,))
        async with node(tmp_path, at(16, two(SESSION, ready))) as one:
            await write(one, upsert, [31, 32, 33], T[3], SESSION)
            assert not any(joint.complete for joint in joints(one))
            # All others are whole, and the map changes before this node has looked again.
            await one.publish(19, joined())
            assert set(await one.states([*range(20), 30, 31, 32, 33], 3, 19)) == {State.LIVE}
        async with node(tmp_path, at(19, joined())) as one:
            assert folders(tmp_path) == [JOINT]
            assert set(await one.states(range(20), 3, 19)) == {State.LIVE}

    asyncio.run(story())


def test_neither_serves_after_a_start_when_a_joint_replica_that_was_made_cannot_be_opened(tmp_path: Path) -> None:
    async def story() -> None:
        async with node(tmp_path, at(9, two(9))) as one:
            await one.publish(SESSION, two(SESSION, plain()))
        for path in (tmp_path / "replicas" / JOINT).rglob("*"):
            if path.is_file():
                path.unlink()
        async with node(tmp_path, at(16, two(SESSION, plain()))) as one:
            for side in (1, 2):
                answer = await one.write(upsert([1]), T[1], side, SESSION)
                assert answer.verdict is Verdict.REFUSED, "it may have said that the joint one is whole"
            await one.publish(17, two(17))
            await until(lambda: set(one.hosting.report().values()) == {"open"})
            await write(one, upsert, [1, 2, 3], T[1], 17)

    asyncio.run(story())


def test_a_merge_that_is_given_up_leaves_both_and_no_joint_replica(tmp_path: Path) -> None:
    async def story() -> None:
        async with node(tmp_path, at(9, two(9))) as one:
            await one.publish(SESSION, two(SESSION, plain()))
            await write(one, upsert, range(9), T[1], SESSION)
            (beside,) = joints(one)[0].beside
            await one.publish(16, two(16))
            await until(lambda: folders(tmp_path) == [*BOTH])
            assert beside.closed
            await write(one, upsert, [10], T[2], 16)
            await one.publish(18, two(18, replace(plain(), session=18)))
            await told(one)
            assert folders(tmp_path) == [*BOTH, f"{U1}.3.18"]
            assert joints(one)[0].beside[0].snapshot().live == 10

    asyncio.run(story())


def test_a_write_that_the_joint_one_does_not_take_is_not_acknowledged_and_its_shard_is_copied_again(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with node(tmp_path, at(9, two(9))) as one:
            await one.publish(SESSION, two(SESSION, plain()))
            await told(one)
            joint = joints(one)[sides([1])[0] - 1]
            kept = joint.carry

            def fail(ids: IdColumn) -> int:
                raise ResourceExhaustedError("no memory", field="memory")

            joint.carry = fail  # type: ignore[method-assign]
            answer = await one.write(upsert([1]), T[1], sides([1])[0], SESSION)
            assert answer.verdict is Verdict.REFUSED and answer.error.outcome == "unknown" and not joint.complete
            joint.carry = kept  # type: ignore[method-assign]
            await one.publish(19, joined())
            assert await one.states([1], 3, 19) == [State.LIVE]

    asyncio.run(story())


def test_claims_on_either_keep_out_of_the_joint_one_what_they_kept_out(tmp_path: Path) -> None:
    async def story() -> None:
        async with node(tmp_path, at(3, whole())) as one:
            await one.claim([1, 2, 3], T[9], epoch=3)
            await one.publish(5, whole(5, SPLIT))
            await one.filled()
            await one.publish(9, two(9))
            await one.publish(SESSION, two(SESSION, plain()))
            one.told.epochs.clear()
            await told(one)
            await one.publish(19, joined())
            for point in range(1, 5):
                answer = await one.write(upsert([point]), T[5], 3, 19)
                assert list(answer.barred) == ([0] if point < 4 else []), point

    asyncio.run(story())


def test_what_is_older_than_the_joint_floor_is_kept_and_late_writes_below_it_are_refused(tmp_path: Path) -> None:
    floor = T[5]
    merge = replace(MERGE, gc_floor=floor, repaired_through=floor)

    async def story() -> None:
        async with node(tmp_path, at(9, two(9))) as one:
            await write(one, upsert, range(20), T[1], 9)
            await one.publish(10, two(10, floors=(floor, 0)))
            await one.publish(SESSION, two(SESSION, merge, (floor, 0)))
            await told(one)
            await one.publish(19, joined(floor=floor))
            assert set(await one.states(range(20), 3, 19)) == {State.LIVE}
            late = await one.write(upsert([77]), floor, 3, 19)
            assert late.superseded.tolist() == [0]
        async with node(tmp_path, at(19, joined(floor=floor))) as one:
            assert set(one.hosting.report().values()) == {"open"}, "no old copy"

    asyncio.run(story())


def test_the_joint_one_follows_a_write_of_one_while_the_other_is_copied(tmp_path: Path) -> None:
    async def story() -> None:
        async with node(tmp_path, at(9, two(9))) as one:
            await write(one, upsert, range(200), T[1], 9)
            await one.publish(SESSION, two(SESSION, plain()))
            writing = [asyncio.create_task(write(one, upsert, [i], T[2], SESSION, {"n": i})) for i in range(60)]
            await told(one)
            await asyncio.gather(*writing)
            joint = joints(one)[0].beside[0]
            assert joint.snapshot().live == 200
            found = joint.versions(IdColumn.of(list(range(60))))
            assert set(found.stamps.tolist()) == {T[2]}

    asyncio.run(story())
