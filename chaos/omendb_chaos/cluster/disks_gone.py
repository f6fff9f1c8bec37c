"""The disk of a data node is gone, another's, or an old one of its own (R21): nobody is told that a point is not there.

*Lost*: the node comes back with an empty folder. *Swapped*: two nodes come back with each other's disk, and later with
their own. *Old*: a node is put back on an image of its disk from before many writes. Clients write and read throughout.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from omendb_chaos.cluster.clients import Load
from omendb_chaos.cluster.datanodes import REPAIR, SimDataNode
from omendb_chaos.cluster.swarm import LIMIT_S, Run, told
from omendb_chaos.cluster.world import Options, Size, World
from omendb_common.shard_calls import Looked, State, Verdict

KINDS = "lost", "swapped", "old"
IDS = (1, 2, 3, 4, 5, 6)
KEPT = tuple(range(101, 121))
"""Written before anything happens, and never deleted."""
_WORKS_S = 5.0
_SWAPPED_S = 8.0
_TIMEOUT_S = 2.0
_READ_S = 0.5


def disk_gone(seed: str) -> Run:
    """R21: one of the kinds, by the last part of the seed."""
    kind = KINDS[int(seed.rpartition("/")[2]) % len(KINDS)]

    async def story(world: World) -> None:
        rng = world.rng("disks")
        await world.begin(Load(IDS, 1 << 20, 0.3, (_TIMEOUT_S, _TIMEOUT_S)))
        writer = world.client(90, Load(KEPT, 0, 1.0, (_TIMEOUT_S, _TIMEOUT_S)))
        for point_id in KEPT:
            await writer.process.spawn(writer.change("write", point_id))
        watched = Absences(world)
        driven = asyncio.get_running_loop().create_task(world.drive())
        reading = asyncio.get_running_loop().create_task(_read_on(world, rng))
        async with asyncio.timeout(LIMIT_S):
            await asyncio.sleep(_WORKS_S)
            await _STORIES[kind](world, rng)
            world.faults[f"{kind} disk"] += 1
            await asyncio.sleep(_WORKS_S)
            for client in world.clients:
                client.load.left = 0
            await driven
        reading.cancel()
        world.heal()
        await world.quiet([*IDS, *KEPT])
        world.check([*IDS, *KEPT])
        watched.end()

    return told(seed, story, Size(routers=1), Options(repair=REPAIR))


async def _read_on(world: World, rng: random.Random) -> None:
    """Read what is kept, at the majority, again and again."""
    reader = world.client(91, Load(KEPT, 0, 1.0, (_TIMEOUT_S, _TIMEOUT_S)))
    while True:
        await reader.process.spawn(reader.read(rng.choice(KEPT)))
        await asyncio.sleep(rng.random() * _READ_S)


async def _lose(world: World, rng: random.Random) -> None:
    node = rng.choice(list(world.nodes.values()))
    node.lose_disk()
    world.lost += 1
    world.restart_later(node, rng.uniform(0.5, 5.0))
    await world.until(lambda: node.ready, "the node with a new folder is taken in")


async def _swap(world: World, rng: random.Random) -> None:
    one, other = rng.sample(list(world.nodes.values()), 2)
    for _ in range(2):
        one.kill()
        other.kill()
        one.disk, other.disk = other.disk, one.disk
        for node in (one, other):
            world.restart_later(node, rng.uniform(0.1, 1.0))
        await asyncio.sleep(_SWAPPED_S)
    await world.until(world.all_ready, "both are back on their own disks")


async def _roll_back(world: World, rng: random.Random) -> None:
    """All replicas have what was written before the image, and what was written after it."""
    node = rng.choice(list(world.nodes.values()))
    node.kill()
    image = node.disk.copy()
    world.restart_later(node, 0.1)
    await world.until(world.all_ready, "the node is back")
    await asyncio.sleep(_WORKS_S)
    await world.until(lambda: not world.differences([*IDS, *KEPT]), "a moment at which all have the same")
    node.kill()
    node.disk = image
    world.restart_later(node, rng.uniform(0.1, 1.0))
    await world.until(world.all_ready, "the node is back on the old image")


_STORIES = {"lost": _lose, "swapped": _swap, "old": _roll_back}


class Absences:
    """Notes it when a replica says of a point that is kept that it is not there."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._before = {name: node.world.applied for name, node in world.nodes.items()}
        for node in world.nodes.values():
            node.world.applied = self._answered

    def end(self) -> None:
        """Look no more."""
        for name, node in self._world.nodes.items():
            node.world.applied = self._before[name]

    def _answered(self, node: SimDataNode, kind: str, call: Any, answer: Any) -> None:
        self._before[node.name](node, kind, call, answer)
        if not isinstance(answer, Looked) or answer.verdict is not Verdict.OK or call.brief:
            return
        for point_id, state in zip(call.ids.to_list(), answer.states.tolist(), strict=True):
            if point_id in KEPT and state != State.LIVE:
                self._world.judge.violated(f"P16: {node.name} says that {point_id} is {State(state).name}")


__all__ = ["IDS", "KEPT", "KINDS", "Absences", "disk_gone"]
