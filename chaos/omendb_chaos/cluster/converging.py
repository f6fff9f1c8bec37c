"""Replicas that come together by themselves: after every kind of fault they are equal, though nobody reads (R17)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from omendb_chaos.cluster.clients import Load
from omendb_chaos.cluster.datanodes import SimDataNode
from omendb_chaos.cluster.nemesis import Nemesis, drawn_mix
from omendb_chaos.cluster.swarm import IDS, LIMIT_S, Run, told
from omendb_chaos.cluster.world import Options, Size, World
from omendb_common.deadline import Deadline
from omendb_common.hlc import STAMP_MAX
from omendb_common.metadata import RepairedShard
from omendb_common.shard_calls import DataNode
from omendb_datanode.config import RepairSettings
from omendb_datanode.replicate.pace import Pace
from omendb_datanode.replicate.peers import Peers
from omendb_datanode.replicate.repairer import Repairer
from omendb_datanode.replicate.rounds import Rounds
from omendb_engine.replica import Replica

BOUND_S = 60.0
"""Simulated time from good weather to equal replicas."""
OPERATIONS = 120
_SETTINGS = RepairSettings(settle_s=0.0, interval_s=10.0, retry_s=1.0, call_timeout_s=5.0, check_s=30.0)
_THINK_S = 0.3
_SLOWLY_S = 3.0
_GRACE_S = 30.0
"""No write of a run is on its way for so long."""


def repairing(settings: RepairSettings = _SETTINGS) -> Callable[[SimDataNode], Coroutine[Any, Any, None]]:
    """What a data node does to keep its replicas equal to the others: the product's own repairer."""

    async def work(node: SimDataNode) -> None:
        hosting, rules, follower = node.hosting, node.rules, node.follower
        assert hosting is not None and rules is not None and follower is not None

        async def check(replica: Replica, gc_floor: int) -> bool:
            sound = replica.hash_trees.check(STAMP_MAX, gc_floor)
            assert sound, f"{node.name}: a hash tree does not agree with its records"
            return sound

        async def report(shards: Sequence[RepairedShard]) -> None:
            await follower.note_repaired(node.name, shards, Deadline.after(node.clock, 5.0))

        peers = Peers(lambda member: node.peer(member.node_id), _nothing_to_close)
        rounds = Rounds(
            *(node.name, rules, peers, follower, node.clock, settings, Pace(node.clock, settings)),
            proven=lambda shard: repairer.proven(shard),
        )
        repairer = Repairer(
            *(node.name, rounds, hosting.opened, follower, node.clock, settings), check=check, report=report
        )
        await asyncio.gather(repairer.look_after(), repairer.keep_reporting())

    return work


async def _nothing_to_close(node: DataNode) -> None:
    """Connections of the simulation need no closing."""


def converging(seed: str, options: Options | None = None) -> Run:
    """R17: a load under every fault but a lost disk, then good weather and silence; then all replicas are equal."""

    async def story(world: World) -> None:
        rng = world.rng("nemesis")
        mix = drawn_mix(rng, [*world.nodes, *world.routers], pace_s=_THINK_S, without=frozenset({"lost disk"}))
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

    return told(seed, story, Size(clients=3), options or Options(background=(repairing(),)))


def forgetting(seed: str) -> Run:
    """R18: the same with deletions that are forgotten soon, and points that are mostly deleted; none may come back.

    What the clients saw, and a read of everything in the end, is held against one order of all writes per point.
    """

    async def story(world: World) -> None:
        rng = world.rng("nemesis")
        mix = drawn_mix(rng, [*world.nodes, *world.routers], pace_s=_SLOWLY_S, without=frozenset({"lost disk"}))
        await world.begin(Load(IDS, OPERATIONS, _SLOWLY_S))
        nemesis = asyncio.get_running_loop().create_task(Nemesis(world, mix, rng).run())
        async with asyncio.timeout(LIMIT_S):
            await world.drive()
        nemesis.cancel()
        world.heal()
        await world.until(world.all_ready, "everybody is up again")
        await world.until(lambda: not world.differences(list(IDS)), "replicas are equal, with nobody reading", BOUND_S)
        await asyncio.sleep(_GRACE_S)
        world.faults["floors"] += sum(s.gc_floor > 0 for c in world.topology.collections.values() for s in c.shards)
        await world.quiet(list(IDS))
        world.check(list(IDS))

    return told(seed, story, Size(clients=3), Options(background=(repairing(),), gc_grace_s=_GRACE_S))


__all__ = ["BOUND_S", "converging", "forgetting", "repairing"]
