"""Replicas that come together by themselves: after every kind of fault they are equal, though nobody reads (R17)."""

from __future__ import annotations

import asyncio

from omendb_chaos.cluster.clients import Load
from omendb_chaos.cluster.datanodes import SMALL, larger
from omendb_chaos.cluster.nemesis import RESIZED, Nemesis, drawn_mix
from omendb_chaos.cluster.swarm import IDS, LIMIT_S, Run, told
from omendb_chaos.cluster.world import Options, Size, World
from omendb_chaos.rows.outcome import dice
from omendb_datanode.config import RepairSettings

BOUND_S = 60.0
"""Simulated time from good weather to equal replicas."""
OPERATIONS = 120
_SETTINGS = RepairSettings(settle_s=0.0, interval_s=10.0, retry_s=1.0, call_timeout_s=5.0, check_s=30.0)
_THINK_S = 0.3
_SLOWLY_S = 3.0
GRACE_S = 30.0
"""For so long deletions are remembered in runs that forget them: no write of a run is on its way for so long."""
_MANY = range(1, 25)
_FEW_ROWS = 6
_LEAVES_S = (5.0, 40.0)
_AWAY_S = (1.5 * GRACE_S, 3 * GRACE_S)


def converging(seed: str, options: Options | None = None) -> Run:
    """R17: a load under every fault but a lost disk, then good weather and silence; then all replicas are equal."""

    async def story(world: World) -> None:
        rng = world.rng("nemesis")
        mix = drawn_mix(rng, [*world.nodes, *world.routers], pace_s=_THINK_S, without=frozenset({"lost disk"}))
        if RESIZED in mix.often:
            world.promised = 1
        await world.begin(Load(IDS, OPERATIONS, _THINK_S))
        nemesis = asyncio.get_running_loop().create_task(Nemesis(world, mix, rng).run())
        async with asyncio.timeout(LIMIT_S):
            await world.drive()
        nemesis.cancel()
        world.heal()
        await world.until(world.all_ready, "everybody is up again")
        await world.until(lambda: not world.differences(list(IDS)), "replicas are equal, with nobody reading", BOUND_S)
        await world.quiet(list(IDS))
        world.check(list(IDS))

    return told(seed, story, Size(clients=3), options or Options(repair=_SETTINGS))


def forgetting(seed: str) -> Run:
    """R18: the same with deletions that are forgotten soon, and a node that is away for longer; none may come back.

    What the clients saw, and a read of everything in the end, is held against one order of all writes per point. In
    half of the runs there are so many points that most deletions are the last that is heard of theirs, and so little
    room in buffers that they are sealed and merged while a node is away.
    """
    wide = dice("wide", seed).random() < 0.5
    ids = list(_MANY if wide else IDS)

    async def story(world: World) -> None:
        rng = world.rng("nemesis")
        mix = drawn_mix(rng, [*world.nodes, *world.routers], pace_s=_SLOWLY_S, without=frozenset({"lost disk"}))
        if RESIZED in mix.often:
            world.promised = 1
        await world.begin(Load(ids, OPERATIONS, _SLOWLY_S))
        world.loop.outside(world.rng("absence").uniform(*_LEAVES_S), _stay_away, world)
        nemesis = asyncio.get_running_loop().create_task(Nemesis(world, mix, rng).run())
        async with asyncio.timeout(LIMIT_S):
            await world.drive()
        nemesis.cancel()
        world.heal()
        await world.until(world.all_ready, "everybody is up again")
        await world.until(lambda: not world.differences(ids), "replicas are equal, with nobody reading", BOUND_S)
        await asyncio.sleep(GRACE_S)
        world.faults["floors"] += sum(s.gc_floor > 0 for c in world.topology.collections.values() for s in c.shards)
        await world.quiet(ids)
        world.check(ids)

    engine = larger(SMALL, _FEW_ROWS) if wide else SMALL
    return told(seed, story, Size(clients=3), Options(engine=engine, repair=_SETTINGS, gc_grace_s=GRACE_S))


def _stay_away(world: World) -> None:
    """A data node is away for longer than deletions are remembered where nobody is missing."""
    rng = world.rng("who is away")
    node = rng.choice(list(world.nodes.values()))
    if node.up and not world.healthy:
        node.kill()
        world.faults["long absence"] += 1
        world.restart_later(node, rng.uniform(*_AWAY_S))


__all__ = ["BOUND_S", "GRACE_S", "converging", "forgetting"]
