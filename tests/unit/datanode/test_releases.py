"""Claims whose maker died: all replicas together end them, and nothing that was in doubt comes back (P19)."""

from __future__ import annotations

import asyncio
import random

import pytest

from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.errors import UnavailableError
from omendb_common.hlc import stamp_at
from omendb_common.ids import IdColumn
from omendb_common.records import Op, WriteBatch
from omendb_common.shard_calls import Applied, Apply, Claim, DataNode, ShardRef
from omendb_datanode.replicate.releases import Release
from tests.unit.router.router_cases import Cluster, play, vector

CLOCK = SystemClock()


class Shard:
    """One shard on three real nodes, and stamps of some moments ago."""

    def __init__(self, c: Cluster, ref: ShardRef) -> None:
        self.c, self.ref = c, ref
        self.nodes: list[DataNode] = list(c.network.values())
        self.start = stamp_at(c.clock.wall_ms() - 100_000)

    def stamp(self, number: int) -> int:
        return self.start + (number << 22)

    async def apply(self, node: int, op: Op, stamp: int, claim: Claim = Claim.NONE) -> Applied:
        vectors = {"": vector(float(stamp % 97))} if op is Op.UPSERT else {}
        batch = WriteBatch(op, IdColumn.of([7]), vectors)
        return await self.nodes[node].apply(Apply(self.ref, self.stamp(stamp), batch, None, claim=claim), self.c.soon())

    async def claim(self, stamp: int, *nodes: int) -> None:
        for node in nodes:
            assert not len((await self.apply(node, Op.DELETE, stamp, Claim.CLAIM)).superseded)

    async def takes(self, stamp: int) -> list[bool]:
        """Which nodes take a write."""
        return [not len((await self.apply(n, Op.UPSERT, stamp)).superseded) for n in range(3)]

    async def release(self) -> None:
        release = Release(self.nodes, self.ref, self.c.clock, 5.0, random.Random(1))
        await release.run(IdColumn.of([7]))


def played(story: object) -> None:
    async def whole(c: Cluster) -> None:
        info = await c.collection()
        await story(Shard(c, ShardRef(info.schema.uuid, 0, info.shards[0].epoch, 1)))  # type: ignore[operator]

    play(whole, engine=True)


def test_after_a_release_older_writes_are_taken_and_the_claims_own_is_not() -> None:
    async def story(s: Shard) -> None:
        await s.claim(20, 0, 1)
        await s.claim(30, 2)
        assert await s.takes(10) == [False, False, False]
        await s.release()
        assert await s.takes(20) == await s.takes(30) == [False] * 3, "too late, wherever it comes"
        assert await s.takes(10) == [True] * 3
        assert await s.takes(40) == [True] * 3

    played(story)


def test_what_was_written_under_a_claim_stays_and_goes_on() -> None:
    async def story(s: Shard) -> None:
        await s.claim(20, 0, 1)
        await s.apply(2, Op.UPSERT, 20)
        await s.release()
        assert await s.takes(20) == [True] * 3
        assert await s.takes(10) == [False] * 3

    played(story)


@pytest.mark.parametrize("away", [0, 1, 2])
def test_without_one_replica_nothing_is_ended(away: int) -> None:
    async def story(s: Shard) -> None:
        await s.claim(20, 0, 1, 2)
        s.c.weather(f"d{away + 1}", down=True)
        with pytest.raises(UnavailableError):
            await s.release()
        s.c.clear()
        assert await s.takes(10) == [False] * 3
        await s.release()
        assert await s.takes(20) == [False] * 3 and await s.takes(10) == [True] * 3

    played(story)


def test_who_claims_meanwhile_is_not_disturbed() -> None:
    async def story(s: Shard) -> None:
        ahead = (s.c.clock.wall_ms() + 1500 - s.c.clock.wall_ms() + 100_000) << 22
        await s.nodes[0].apply(
            Apply(s.ref, s.start + ahead, WriteBatch(Op.DELETE, IdColumn.of([7])), None, claim=Claim.CLAIM),
            Deadline.after(s.c.clock, 5),
        )
        with pytest.raises(UnavailableError):
            await s.release()
        await asyncio.sleep(0)

    played(story)
