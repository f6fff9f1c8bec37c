"""The faults of a simulated cluster. Each seed draws which of them strike, how often, and how hard."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from omendb_chaos.cluster.coordinators import COORDINATORS
from omendb_chaos.cluster.datanodes import SimDataNode
from omendb_chaos.cluster.network import Link
from omendb_chaos.cluster.world import World
from omendb_chaos.sim.disk import SimDisk
from omendb_chaos.sim.faults import SYNC_KINDS, WRITE_KINDS
from omendb_common.errors import OmenDBError
from omendb_common.quorum import majority
from omendb_common.topology import ReplicaState

_ON = 0.5
_RESIZED_ON = 0.3
RESIZED = "other replication"
"""The fault after which a write is on no fixed number of replicas."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What strikes in one run. ``often``: weight of every fault that is on; ``gap_s``: mean time between two."""

    often: Mapping[str, float]
    gap_s: float
    link: Link
    skew_ms: Mapping[str, float] = field(default_factory=dict)
    drift: Mapping[str, float] = field(default_factory=dict)


def drawn_mix(
    rng: random.Random, places: list[str], *, pace_s: float = 0.3, without: frozenset[str] = frozenset()
) -> Mix:
    """Draw which faults are on, and how strong they are (swarm testing: a run of few kinds finds other bugs).

    ``pace_s``: the time between two calls of a client, which the time between two faults follows.
    """
    drawn = [name for name in FAULTS if name != RESIZED]
    often = {name: rng.choice([1.0, 1.0, 3.0]) for name in drawn if rng.random() < _ON and name not in without}
    slow = rng.choice([0.002, 0.01, 0.05])
    link = Link(
        loss=rng.choice([0.0, 0.0, 0.01, 0.05, 0.15]),
        twice=rng.choice([0.0, 0.0, 0.05, 0.3]),
        delay_s=(0.0002, slow),
        late=rng.choice([0.0, 0.0, 0.02, 0.1]),
        late_s=rng.choice([0.5, 3.0]),
    )
    clocks = rng.choice(["good", "good", "skewed", "drifting"])
    skew = {p: rng.uniform(-400, 400) for p in places} if clocks == "skewed" else {}
    drift = {p: rng.uniform(-2e-3, 2e-3) for p in places} if clocks == "drifting" else {}
    gap_s = rng.choice([2.0, 6.0, 15.0]) * pace_s
    # Drawn last: the runs without it stay those that they were.
    if RESIZED not in without and rng.random() < _RESIZED_ON:
        often[RESIZED] = 2.0
    return Mix(often, gap_s, link, skew, drift)


class Nemesis:
    """Strikes a world with a mix of faults until it is stopped. What it broke heals by itself, or with the world."""

    def __init__(self, world: World, mix: Mix, rng: random.Random) -> None:
        self.world = world
        self.mix = mix
        self.rng = rng

    async def run(self) -> None:
        """Strike now and then, for ever."""
        world, mix = self.world, self.mix
        world.network.every(world.places, mix.link)
        for what in world.machines:
            what.clock.skew_ms += mix.skew_ms.get(what.name, 0.0)
            what.clock.drift = mix.drift.get(what.name, 0.0)
        if not mix.often:
            return
        names, weights = zip(*mix.often.items(), strict=True)
        while True:
            await asyncio.sleep(self.rng.expovariate(1 / mix.gap_s))
            self.strike(self.rng.choices(names, weights)[0])

    def strike(self, name: str) -> None:
        """One fault."""
        if FAULTS[name](self):
            self.world.faults[name] += 1
            self.world.note("fault", name)

    # -- processes

    def kill_node(self) -> bool:
        """``kill -9`` of data nodes: mostly of one, sometimes of all."""
        victims = self._nodes(self.rng.choice([1, 1, 1, 2, 3]))
        for node in victims:
            node.kill()
            self.world.restart_later(node)
        return bool(victims)

    def cut_power(self) -> bool:
        """Data nodes lose their power, and what they had not synced."""
        victims = self._nodes(self.rng.choice([1, 1, 2, len(self.world.nodes)]))
        for node in victims:
            node.cut_power()
            self.world.restart_later(node)
        return bool(victims)

    def kill_in_write(self) -> bool:
        """A data node dies at some call to its disk."""
        for node in self._nodes(1):
            node.doom(WRITE_KINDS + SYNC_KINDS, self.rng.randint(1, 8))
            return True
        return False

    def pause(self) -> bool:
        """A process stands still."""
        victim = self.rng.choice(self.world.machines)
        if victim.process is None or victim.process.paused:
            return False
        process = victim.process
        process.pause()
        self._later(self.rng.choice([0.1, 0.7, 3.0, 12.0]), process.resume)
        return True

    def kill_router(self) -> bool:
        """``kill -9`` of a router, whatever it has under way."""
        victim = self.rng.choice(list(self.world.routers.values()))
        if not victim.up:
            return False
        victim.kill()
        self.world.restart_later(victim)
        return True

    # -- the network

    def cut_one_way(self) -> bool:
        """One place does not reach another, which reaches it."""
        source, target = self.rng.sample(self.world.places, 2)
        self._cut([(source, target)])
        return True

    def isolate(self) -> bool:
        """Somebody hears nobody, and nobody hears it."""
        victim = self.rng.choice([*self.world.nodes, *self.world.routers])
        others = [place for place in self.world.places if place != victim]
        self._cut([(victim, o) for o in others] + [(o, victim) for o in others])
        return True

    def deafen(self) -> bool:
        """A data node hears calls, and nobody hears its answers; or the other way round."""
        victim = self.rng.choice(list(self.world.nodes))
        others = [place for place in self.world.places if place != victim]
        self._cut([(victim, o) if self.rng.random() < 0.5 else (o, victim) for o in others])
        return True

    def ring(self) -> bool:
        """Every router reaches a majority of the data nodes, each another one."""
        nodes = list(self.world.nodes)
        links = []
        for number, router in enumerate(self.world.routers):
            missed = nodes[number % len(nodes)]
            links += [(router, missed), (missed, router)]
        self._cut(links)
        return True

    def cut_coordinators(self) -> bool:
        """No coordinator is to be reached."""
        others = [place for place in self.world.places if place != COORDINATORS]
        self._cut([(COORDINATORS, o) for o in others] + [(o, COORDINATORS) for o in others])
        return True

    # -- disks

    def slow_disk(self) -> bool:
        """A disk takes long over everything."""
        node = self.rng.choice(list(self.world.nodes.values()))
        node.slow_s = self.rng.choice([0.05, 0.5, 2.0])

        def end() -> None:
            node.slow_s = 0.0

        self._later(self.rng.uniform(1.0, 8.0), end)
        return True

    def fail_sync(self) -> bool:
        """A sync fails once: the replica may say nothing more, and its process ends."""
        return self._disk_fault(SYNC_KINDS)

    def fail_write(self) -> bool:
        """A write fails once."""
        return self._disk_fault(WRITE_KINDS)

    def fill_disk(self) -> bool:
        """A volume is full for a while."""
        for node in self._nodes(1):
            disk = node.disk
            disk.capacity_bytes = disk.used_bytes() + self.rng.choice([0, 4096, 65536])

            self._later(self.rng.uniform(1.0, 8.0), partial(_free, disk))
            return True
        return False

    def lose_disk(self) -> bool:
        """A data node comes back with an empty folder: its replicas are lost, and it may not answer "absent"."""
        if self.world.lost:
            return False
        for node in self._nodes(1):
            node.lose_disk()
            self.world.lost += 1
            # Taken in again only when the one that had the folder is known to be down.
            self.world.restart_later(node, 0.5)
            return True
        return False

    def _disk_fault(self, kinds: tuple[str, ...]) -> bool:
        for node in self._nodes(1):
            if node.doomed is None:
                node.disk.faults.fail(kinds, self.rng.randint(1, 4), errno.EIO)
                return True
        return False

    # -- clocks and maps

    def jump_clock(self) -> bool:
        """A clock is set; often it is set back later."""
        clock = self.rng.choice(self.world.clocks())
        by_ms = self.rng.choice([-3_600_000, -60_000, -2_000, -500, -50, 50, 500, 1_500, 2_500, 60_000])
        clock.jump(by_ms)
        self._later(self.rng.uniform(0.5, 10.0), lambda: clock.jump(-by_ms))
        return True

    def touch_map(self) -> bool:
        """A shard's map changes: a replica is leaving, or stays after all."""
        self.world.admin_work(self._touched())
        return True

    async def _touched(self) -> None:
        world = self.world
        for info in list(world.topology.collections.values()):
            shard = self.rng.choice(info.shards)
            if shard.move is not None:
                return
            turned = self.rng.choice(shard.replicas)
            if any(r.state not in ("active", "leaving", "lost") for r in shard.replicas) or turned.state == "lost":
                return  # a shard that is being moved is nobody else's to change
            to: ReplicaState = "leaving" if turned.state == "active" else "active"
            replicas = tuple(replace(r, state=to) if r is turned else r for r in shard.replicas)
            try:
                await world.admin.place_shard(info.schema.uuid, shard.shard_id, shard.epoch, replicas, world.soon(2.0))
            except OmenDBError:
                return  # another change was quicker, or nobody could be asked

    # -- moves

    def move(self) -> bool:
        """An operator moves a replica, or gives a move up."""
        if self.world.options.repair is None:
            return False  # nobody would fill it
        self.world.admin_work(self._moved())
        return True

    async def _moved(self) -> None:
        world = self.world
        for info in list(world.topology.collections.values()):
            shard = self.rng.choice(info.shards)
            places = {r.node_id for r in shard.replicas}
            free = sorted(set(world.nodes) - places)
            source = self.rng.choice(shard.replicas).node_id
            try:
                if shard.move is not None:
                    if self.rng.random() < 0.3:
                        await world.admin.cancel_move(info, shard, world.soon(2.0))
                elif free:
                    await world.admin.begin_move(info, shard, source, self.rng.choice(free), world.soon(2.0))
            except OmenDBError:
                return  # the target is down, another change was quicker, or nobody could be asked

    def drain(self) -> bool:
        """An operator drains a data node, or takes it back."""
        if self.world.options.repair is None:
            return False
        self.world.admin_work(self._drained())
        return True

    async def _drained(self) -> None:
        world = self.world
        members = [m for m in world.topology.members.values() if m.role == "datanode"]
        draining = [m for m in members if m.state == "draining"]
        victim = self.rng.choice(draining or members)
        try:
            await world.admin.drain(victim.node_id, not draining, world.soon(2.0))
        except OmenDBError:
            return

    def alter(self) -> bool:
        """An operator asks for more or fewer replicas, or for other quorums."""
        if self.world.options.repair is None:
            return False
        self.world.admin_work(self._altered())
        return True

    async def _altered(self) -> None:
        world = self.world
        # What was acknowledged may be on two replicas for a moment: of fewer none may be lost.
        fewest = 3 if "lost disk" in self.mix.often else 1
        n = self.rng.randint(fewest, max(fewest, min(5, len(world.nodes))))
        write, read = majority(n), majority(n)
        if self.rng.random() < 0.4:
            write, read = self.rng.choice([(n, read), (write, n)])
        for name in list(world.topology.collections):
            try:
                await world.admin.alter_collection(
                    name, world.soon(2.0), replication=n, write_quorum=write, read_quorum=read
                )
            except OmenDBError:
                return

    # -- what they share

    def _nodes(self, count: int) -> list[SimDataNode]:
        up = [node for node in self.world.nodes.values() if node.up]
        return self.rng.sample(up, min(count, len(up)))

    def _cut(self, links: list[tuple[str, str]]) -> None:
        network = self.world.network
        for source, target in links:
            network.link(source, target).cut = True

        def mend() -> None:
            for source, target in links:
                network.link(source, target).cut = False

        self._later(self.rng.choice([0.3, 1.5, 6.0]), mend)

    def _later(self, seconds: float, what: Callable[[], object]) -> None:
        """End a fault, unless everything was healed by then."""
        world = self.world

        def unless_healed() -> None:
            if not world.healthy:
                what()

        world.loop.outside(seconds, unless_healed)


def _free(disk: SimDisk) -> None:
    disk.capacity_bytes = None


FAULTS: Mapping[str, Callable[[Nemesis], bool]] = {
    "kill": Nemesis.kill_node,
    "power cut": Nemesis.cut_power,
    "kill in a write": Nemesis.kill_in_write,
    "pause": Nemesis.pause,
    "kill of a router": Nemesis.kill_router,
    "one-way cut": Nemesis.cut_one_way,
    "isolation": Nemesis.isolate,
    "deafness": Nemesis.deafen,
    "ring of majorities": Nemesis.ring,
    "coordinators out of reach": Nemesis.cut_coordinators,
    "slow disk": Nemesis.slow_disk,
    "failed sync": Nemesis.fail_sync,
    "failed write": Nemesis.fail_write,
    "full disk": Nemesis.fill_disk,
    "lost disk": Nemesis.lose_disk,
    "clock set": Nemesis.jump_clock,
    "change of the map": Nemesis.touch_map,
    "move": Nemesis.move,
    "drain": Nemesis.drain,
    RESIZED: Nemesis.alter,
}

__all__ = ["FAULTS", "RESIZED", "Mix", "Nemesis", "drawn_mix"]
