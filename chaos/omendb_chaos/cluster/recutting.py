"""Shards split and merge again and again while clients write and read, and everything strikes everybody.

An operator cuts a shard, puts two together, or gives up what is under way, whatever the weather; data nodes do the
rest. In the end, in good weather, whatever is under way must end, and in most runs a shard is cut once more and two are
put together.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from omendb_chaos.cluster.clients import Load
from omendb_chaos.cluster.datanodes import REPAIR
from omendb_chaos.cluster.nemesis import RESIZED, Nemesis, drawn_mix
from omendb_chaos.cluster.swarm import IDS, LIMIT_S, Run, told
from omendb_chaos.cluster.world import Options, Size, World
from omendb_chaos.rows.outcome import dice
from omendb_common.errors import OmenDBError
from omendb_common.feature_level import CURRENT
from omendb_common.topology import CollectionInfo

MORE = tuple(range(11, 31))
"""Points beside those that clients use: enough that both halves of any shard hold some."""
_SHARDS_MAX = 4
_ENDS_S = 300.0
"""Within so many seconds of good weather a split or a merge ends."""
_OPERATIONS, _THINK_S = 150, 0.3
_GIVEN_UP = 0.15
_OTHER_POINTS = 0.5


def recutting(seed: str) -> Run:
    """R-splits: splits and merges under a swarm of faults; in a fourth of the runs also moves and lost disks."""
    rng = dice("recutting", seed)
    calm = rng.random() < 0.75
    size = Size(datanodes=3 if calm else 4, shards=rng.choice([1, 2, 2]))
    without = {RESIZED, *(("lost disk", "move", "drain", "change of the map") if calm else ())}

    async def story(world: World) -> None:
        await world.begin(Load((*IDS, *MORE) if rng.random() < _OTHER_POINTS else IDS, _OPERATIONS, _THINK_S))
        mix_rng = world.rng("nemesis")
        mix = drawn_mix(mix_rng, [*world.nodes, *world.routers], pace_s=_THINK_S, without=frozenset(without))
        cutter = Cutter(world, world.rng("cuts"))
        following = asyncio.get_running_loop().create_task(cutter.follow())
        loop = asyncio.get_running_loop()
        working = [loop.create_task(work) for work in (cutter.run(), Nemesis(world, mix, mix_rng).run())]
        async with asyncio.timeout(LIMIT_S):
            await world.drive()
        for work in working:
            work.cancel()
        ids = [*IDS, *MORE]
        world.judge.check_durable(list(world.nodes.values()), world.topology, world.lost, mix_rng)
        world.heal()
        await world.until(cutter.idle, "what splits and merges has ended", _ENDS_S)
        await world.quiet(ids)
        if calm:
            await cutter.once_each()
            await world.quiet(ids)
        following.cancel()
        world.check(ids)

    return told(seed, story, size, Options(repair=REPAIR, level=CURRENT))


async def cut_beside(world: World) -> None:
    """Split and merge shards for ever, and count what ends."""
    cutter = Cutter(world, world.rng("cuts"))
    await asyncio.gather(cutter.run(), cutter.follow())


@dataclass(slots=True)
class Cutter:
    """Splits and merges the shards of the one collection. What ended is counted among the faults of the world."""

    world: World
    rng: random.Random

    @property
    def info(self) -> CollectionInfo:
        """The collection as the coordinators have it."""
        (info,) = self.world.topology.collections.values()
        return info

    def idle(self) -> bool:
        """Whether nothing splits or merges."""
        return not any(shard.recut for shard in self.info.shards)

    async def run(self) -> None:
        """Cut and put together, for ever."""
        while True:
            await asyncio.sleep(self.rng.expovariate(1 / 1.5))
            self.world.admin_work(self._step())

    async def _step(self) -> None:
        info, world = self.info, self.world
        busy = [shard for shard in info.shards if shard.recut]
        try:
            if busy:
                if self.rng.random() < _GIVEN_UP:
                    await world.admin.cancel_recut(info, self.rng.choice(busy), world.soon(2.0))
            elif len(info.shards) == 1 or (len(info.shards) < _SHARDS_MAX and self.rng.random() < 0.4):
                await world.admin.begin_split(info, self.rng.choice(info.shards), world.soon(2.0))
            else:
                at = self.rng.randrange(len(info.shards) - 1)
                await world.admin.begin_merge(info, info.shards[at], info.shards[at + 1], world.soon(2.0))
        except OmenDBError:
            return  # a replica is not active, floors differ, another change was quicker, or nobody could be asked

    async def once_each(self) -> None:
        """In good weather a split and a merge begin and end."""
        before = {s.shard_id for s in self.info.shards}
        await self.world.admin.begin_split(self.info, self.info.shards[0], self.world.soon())
        await self.world.until(self.idle, "a split has ended in good weather", _ENDS_S)
        after = {s.shard_id for s in self.info.shards}
        if len(after - before) != 2:
            self.world.judge.violated(f"shards {before} became {after} by a split")
        low, high = self.info.shards[:2]
        await self.world.admin.begin_merge(self.info, low, high, self.world.soon())
        await self.world.until(self.idle, "a merge has ended in good weather", _ENDS_S)
        if len({s.shard_id for s in self.info.shards} - after) != 1:
            self.world.judge.violated("two shards did not merge in good weather")

    async def follow(self) -> None:
        """Count what ends, as the map tells it."""
        revision, shards = self.world.topology.revision, len(self.info.shards)
        while True:
            revision = (await self.world.coordinators.changed(revision)).revision
            now = len(self.info.shards)
            if now != shards:
                self.world.faults["merged" if now < shards else "was split"] += 1
                self.world.note("shards", now)
            shards = now


__all__ = ["MORE", "Cutter", "cut_beside", "recutting"]
