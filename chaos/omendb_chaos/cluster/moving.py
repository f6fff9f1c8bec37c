"""A replica moves, and at a point of its way something strikes: every point, every fault, all who take part (R19).

The points, in their order, by what our moves do (P14): a move has two stages, each with a fence of its own, a copy, and
a word to the coordinators by which it ends. The mover is the coordinators, who begin moves and agree on their stages;
the copying is the target's own work.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, NamedTuple

from omendb_chaos.cluster.clients import Client, Load
from omendb_chaos.cluster.coordinators import COORDINATORS
from omendb_chaos.cluster.datanodes import SimDataNode
from omendb_chaos.cluster.swarm import LIMIT_S, Run, told
from omendb_chaos.cluster.world import Options, Size, World
from omendb_common.errors import OmenDBError
from omendb_common.shard_calls import Verdict
from omendb_common.topology import CollectionInfo, Shard
from omendb_datanode.config import RepairSettings

POINTS = (
    "before it begins",
    "the fence of filling rises",
    "filling is under way",
    "filled, and not told",
    "the fence of switching rises",
    "switching is under way",
    "before the source goes",
)
KINDS = "kill", "pause", "cut"
VICTIMS = "source", "target", "mover"
CALM = 200
"""Runs with a random strike or two, of which it is counted how many calls were answered; those after them are rough."""

IDS = (1, 2, 3, 4, 5, 6, 7, 8)
APART = tuple(range(101, 113))
"""In rough weather: written before a move, each to two replicas only, and read after it."""
_REPAIR = RepairSettings(settle_s=3.0, interval_s=20.0, retry_s=1.0, check_s=30.0, call_timeout_s=2.0, batch_rows=3)
_READS = "lookup", "search", "score", "scroll", "select"
_UNSETTLED_S = 60.0
_ENDS_S = 300.0
"""Within so many seconds a move ends, whatever struck."""
_BEFORE_S, _AFTER_S = 2.0, 4.0
_HELD_S, _ALONE_S, _SHOWN_S = 4.0, 1.5, 0.6
_MISSED = 0.05


class Case(NamedTuple):
    """What strikes whom, and where."""

    point: str
    kind: str
    victim: str


CASES = tuple(Case(*case) for case in product(POINTS, KINDS, VICTIMS))


class Strike(NamedTuple):
    """A case with its moment: ``after_s`` beyond the point, for ``seconds``."""

    case: Case
    after_s: float
    seconds: float


def moving(seed: str) -> Run:
    """R19: one case while clients write and read; the last part of the seed says which; beyond them random ones."""
    number = int(seed.rpartition("/")[2])
    rough = number >= len(CASES) + CALM

    async def story(world: World) -> None:
        rng = world.rng("moves")
        await world.begin(Load(IDS, 1 << 20, 0.15 if rough else 0.25, (0.3, 0.8) if rough else (2.0, 2.0)))
        driven = asyncio.get_running_loop().create_task(world.drive())
        weather = _Rough(world, rng) if rough else None
        await asyncio.sleep(_BEFORE_S)
        async with asyncio.timeout(LIMIT_S):
            for _ in range(2 if len(CASES) <= number < len(CASES) + CALM else 1):
                passage = Passage(world, rng, _drawn(number, rng), weather)
                await passage.run()
                if number < len(CASES) and passage.struck != 1:
                    world.judge.violated(f"{CASES[number]} never struck: the run tried nothing")
                await asyncio.sleep(_AFTER_S)
            for client in world.clients:
                client.load.left = 0
            await driven
        world.heal()
        ids = [*IDS, *APART] if rough else list(IDS)
        await world.quiet(ids)
        world.check(ids)

    size = Size(datanodes=4, clients=4 if rough else 3)
    # What replicas miss in rough weather is for the move to find, not for the comparison that may come before it.
    repair = replace(_REPAIR, settle_s=_UNSETTLED_S) if rough else _REPAIR
    return told(seed, story, size, Options(repair=repair))


def _drawn(number: int, rng: random.Random) -> list[Strike]:
    """What strikes in a move of the run of this number."""
    if number < len(CASES):
        return [Strike(CASES[number], 0.0, rng.choice([1.0, 5.0, 12.0]))]
    if number >= len(CASES) + CALM and rng.random() < 0.5:
        return []  # of the rough ones half are about lost messages alone
    count = rng.choice([1, 1, 2])
    lasts = [0.5, 2.0, 8.0] if number >= len(CASES) + CALM else [0.5, 2.0, 8.0, 40.0]
    return [Strike(rng.choice(CASES), rng.random() * 0.2, rng.choice(lasts)) for _ in range(count)]


@dataclass(slots=True)
class Passage:
    """One move from its beginning to its end. ``passed``: the points that it came to, each counted once."""

    world: World
    rng: random.Random
    strikes: list[Strike]
    weather: _Rough | None = None
    passed: set[str] = field(default_factory=set)
    source: str = ""
    target: str = ""
    struck: int = 0
    _began: int = 0

    async def run(self) -> None:
        """Move a replica of the only shard to a node without one, and see it arrive."""
        world = self.world
        places = sorted(r.node_id for r in self._shard.replicas)
        self.source = self.rng.choice(places)
        self.target = self.rng.choice(sorted(set(world.nodes) - set(places)))
        world.note("moves", self.source, self.target)
        owners = Owners(world)
        world.network.sees = self._sees
        following = asyncio.get_running_loop().create_task(self._follow(owners))
        if self.weather is not None:
            await self.weather.begin(places)
        self._reach(POINTS[0])
        await asyncio.sleep(0.0)
        await world.until(lambda: self._there or self._begin(), "the replica has moved", _ENDS_S)
        if self.weather is not None:
            await self.weather.read_apart()
        await asyncio.sleep(_AFTER_S)
        following.cancel()
        owners.end()
        if self.weather is not None:
            self.weather.end()
        world.network.sees = lambda source, kind, target: None

    @property
    def _info(self) -> CollectionInfo:
        (info,) = self.world.topology.collections.values()
        return info

    @property
    def _shard(self) -> Shard:
        return self._info.shards[0]

    @property
    def _there(self) -> bool:
        shard = self._shard
        return shard.move is None and self.target in shard.nodes("active") and self.source not in shard.old

    def _begin(self) -> bool:
        """Ask for the move, unless it is under way: the first time, and when it was given up with its target down."""
        now_s = self.world.loop.time()
        if self._shard.move is None and now_s >= self._began + 1.0:
            self._began = int(now_s)
            self.world.admin_work(self._ask())
        return False

    async def _ask(self) -> None:
        try:
            await self.world.admin.begin_move(self._info, self._shard, self.source, self.target, self.world.soon(0.9))
        except OmenDBError:
            return  # the target is down, or nobody could be asked: it is asked for again

    # -- points

    def _sees(self, source: str, kind: str, target: str) -> None:
        move = self._shard.move
        if source != self.target or move is None:
            return
        filling = move.stage == "filling"
        if kind == "sums":
            self._reach(POINTS[2 if filling else 5])
        elif kind == "advance_move":
            if filling:
                self._reach(POINTS[3])
            if self.weather is not None:
                self.weather.hold(self._shard)

    async def _follow(self, owners: Owners) -> None:
        """Be told of every change of the map, before anybody else."""
        revision, epochs = self.world.topology.revision, {"": 0}
        while True:
            revision = (await self.world.coordinators.changed(revision)).revision
            shard = self._shard
            if shard.move is not None:
                epochs.setdefault(f"{shard.move.session} {shard.move.stage}", shard.epoch)
                switching = shard.move.stage == "switching"
                self._reach(POINTS[4 if switching else 1])
                if switching:
                    owners.over(epochs.get(f"{shard.move.session} filling", 0))
            elif self._there:
                owners.over(max(epochs.values()))
                self._reach(POINTS[6])
            if self.weather is not None:
                self.weather.read_all()

    def _reach(self, point: str) -> None:
        if point in self.passed:
            return
        self.passed.add(point)
        for strike in self.strikes:
            if strike.case.point == point:
                self.struck += 1
                self.world.loop.outside(strike.after_s, self._strike, strike)

    def _strike(self, strike: Strike) -> None:
        world = self.world
        victim = {"source": self.source, "target": self.target, "mover": COORDINATORS}[strike.case.victim]
        world.faults[f"{strike.case.kind} of the {strike.case.victim}"] += 1
        world.note("strikes", strike.case.kind, victim)
        if strike.case.kind == "cut":
            cut_off(world, victim, strike.seconds)
        elif victim == COORDINATORS:
            _strike_coordinators(world, strike.case.kind, strike.seconds)
        else:
            _strike_node(world, world.nodes[victim], strike.case.kind, strike.seconds)


def cut_off(world: World, victim: str, seconds: float, others: list[str] | None = None) -> None:
    """Nothing goes from or to one place, or between it and some others, for so long."""
    others = [place for place in others or world.places if place != victim]
    links = [(victim, other) for other in others] + [(other, victim) for other in others]

    def cut(whether: bool) -> None:
        for link in links:
            world.network.link(*link).cut = whether

    cut(True)
    world.loop.outside(seconds, cut, False)


def _strike_coordinators(world: World, kind: str, seconds: float) -> None:
    coordinators = world.coordinators
    if kind == "pause":
        process = coordinators.process
        process.pause()
        world.loop.outside(seconds, process.resume)
    elif coordinators.up:
        coordinators.kill()
        world.loop.outside(seconds, lambda: None if coordinators.up else coordinators.start())


def _strike_node(world: World, node: SimDataNode, kind: str, seconds: float) -> None:
    process = node.process
    if process is None:
        return
    if kind == "pause":
        process.pause()
        world.loop.outside(seconds, process.resume)
    else:
        node.kill()
        world.restart_later(node, seconds)


class Owners:
    """Who answers reads, under which map: once a stage is over, never a quorum under a map before that stage.

    So nobody can be told by one set of members what another one, which writes count with by now, has replaced.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._below = 0
        self._late: set[str] = set()
        self._before = {name: node.world.applied for name, node in world.nodes.items()}
        for node in world.nodes.values():
            node.world.applied = self._answered

    def over(self, epoch: int) -> None:
        """The stage that began with ``epoch`` is over."""
        if epoch > self._below:
            self._below, self._late = epoch, set()

    def end(self) -> None:
        """Look no more."""
        for name, node in self._world.nodes.items():
            node.world.applied = self._before[name]

    def _answered(self, node: SimDataNode, kind: str, call: Any, answer: Any) -> None:
        self._before[node.name](node, kind, call, answer)
        if kind not in _READS or answer.verdict is not Verdict.OK or call.shard.epoch >= self._below:
            return
        if node.name not in self._late:
            self._late.add(node.name)
            if len(self._late) == self._world.size.read_quorum:
                self._world.judge.violated(
                    f"P14: {sorted(self._late)} answer reads under epoch {call.shard.epoch}, "
                    f"after the stage that began with {self._below} was over"
                )


class _Rough:
    """What goes wrong with messages while a replica moves, so that only the rules keep what was written.

    Writes and repairs miss replicas. One router hears nothing from the coordinators and goes on with its old map. What
    the target says when it has everything takes long; meanwhile points are written of which only the source hears, and
    what readers find there is handed on to one replica more. As soon as another map is in force everything is read,
    through the other router.
    """

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._reached: frozenset[str] | None = None
        self._held: set[str] = set()
        self._clients = 50
        self._asleep = "r2"
        self._deaf = ""
        world.network.drops = self._drops

    async def begin(self, places: list[str]) -> None:
        """A move begins. Of what was written before it, no two replicas have the same."""
        self._held.clear()
        self._sleeps(True)
        writer = self._client()
        for number, point_id in enumerate(APART):
            self._reached = frozenset(places) - {places[number % len(places)]}
            await writer.process.spawn(writer.change("write", point_id))
        self._reached = None

    def end(self) -> None:
        """It has ended."""
        self._sleeps(False)
        self._reached = None

    def hold(self, shard: Shard) -> None:
        """What the target tells takes long, once in a stage."""
        move = shard.move
        assert move is not None
        if move.stage in self._held:
            return
        self._held.add(move.stage)
        world, link = self._world, self._world.network.link(move.target, COORDINATORS)
        link.cut = True
        other = self._rng.choice(sorted(shard.old - {move.source}))

        def release() -> None:
            link.cut = False

        world.loop.outside(_HELD_S - _SHOWN_S - _ALONE_S, self._reach, {move.source})
        world.loop.outside(_HELD_S - _SHOWN_S, self._reach, {move.source, other})
        # What is shown before the next map must be shown under it.
        world.loop.outside(_HELD_S - _SHOWN_S, self.read_all, 1)
        world.loop.outside(_HELD_S, release)

    def _reach(self, names: set[str]) -> None:
        self._reached = frozenset(names)

    def read_all(self, times: int = 4) -> None:
        """Read everything, whatever replicas the router chooses: as soon as another map is in force, say."""
        reader = self._client()
        reader.process.spawn(self._read(reader, times))

    def _client(self) -> Client:
        self._clients += 1
        client = self._world.client(self._clients, Load(IDS, 0, 1.0, (0.5, 1.0)))
        client.routers = ["r1"]
        return client

    async def _read(self, reader: Client, times: int) -> None:
        await self._read_by_all(reader, IDS, times)
        if times > 1:
            self._reached = None

    async def read_apart(self) -> None:
        """Read what no two replicas had alike."""
        reader = self._client()
        await reader.process.spawn(self._read_by_all(reader, APART, 3))

    async def _read_by_all(self, reader: Client, ids: tuple[int, ...], times: int) -> None:
        """Each time another replica is not heard: routers prefer who was quickest, and here every two must answer."""
        (info,) = self._world.topology.collections.values()
        for turn in range(times):
            for number, point_id in enumerate(ids):
                members = sorted(info.shards[0].old)
                self._deaf = members[(turn + number + number // 3) % len(members)]
                await reader.read(point_id)
        self._deaf = ""

    def _sleeps(self, whether: bool) -> None:
        for link in ((self._asleep, COORDINATORS), (COORDINATORS, self._asleep)):
            self._world.network.link(*link).cut = whether

    def _drops(self, kind: str, target: str) -> bool:
        if kind not in ("apply", "repair"):
            return kind == "lookup" and target == self._deaf
        if self._reached is not None:
            return target not in self._reached
        return self._rng.random() < _MISSED


__all__ = [
    "APART",
    "CALM",
    "CASES",
    "IDS",
    "KINDS",
    "POINTS",
    "VICTIMS",
    "Case",
    "Owners",
    "Passage",
    "Strike",
    "cut_off",
    "moving",
]
