"""Searches at the majority while replicas miss writes and deletions: what each of them may and must show.

Every write misses a replica or two of its shard now and then, so that no two replicas are alike. Searches are exact, so
what they may show follows from the history alone: of every point a version that nothing acknowledged before the search
had replaced, none that was deleted, none twice; and every point that must be among the k nearest.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from omendb_chaos.checkers.linearizability import Operation
from omendb_chaos.checkers.points import never_older
from omendb_chaos.cluster.clients import NAME, Client, Load
from omendb_chaos.cluster.swarm import Run, told
from omendb_chaos.cluster.world import Options, Size, World
from omendb_common.errors import OmenDBError
from omendb_router.face_calls import Hits, Question, Seen

IDS = tuple(range(1, 25))
CALLS = 100
QUERIES = 20
_WRITES_PER_CALL = 3
_MAJORITY = Seen("majority")
_EPSILON = 1e-3


def lagging(
    seed: str,
    *,
    calls: int = CALLS,
    options: Options | None = None,
    prepare: Callable[[World], None] = lambda world: None,
) -> Run:
    """R16: so many calls of 20 queries each between writes that replicas miss, in a world that is prepared for it."""

    async def story(world: World) -> None:
        await world.begin(Load(IDS, 0, 0.1))
        prepare(world)
        writer, searcher = (world.client(number, Load(IDS, 0, 0.1, (2.0, 2.0))) for number in (1, 2))
        world.clients += [writer, searcher]
        rng = world.rng("lag")
        lag = _Lag(world, rng)
        for point_id in IDS:
            lag.turn()
            await _wait(writer, "write", point_id)
        for _ in range(calls):
            # Writes go on while a search runs: what they do meanwhile may show, or not.
            under_way = asyncio.gather(*[_step(writer, lag, rng) for _ in range(_WRITES_PER_CALL)])
            if rng.random() < 0.5:
                await under_way
            await searcher.process.spawn(_search(world, searcher, rng))
            await under_way

    return told(seed, story, Size(routers=1), options)


class _Lag:
    """Drops writes and repairs on their way to some replicas."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._rng = rng
        self._nodes = list(world.nodes)
        self._missing: set[str] = set()
        world.network.drops = self._drops

    def turn(self) -> None:
        """Another replica misses what comes now; often none does."""
        self._missing = {self._rng.choice(self._nodes)} if self._rng.random() < 0.7 else set()

    def _drops(self, kind: str, target: str) -> bool:
        # A write that a replica missed is not brought to it by the next read either, half of the time.
        return target in self._missing and (kind == "apply" or (kind == "repair" and self._rng.random() < 0.5))


async def _step(writer: Client, lag: _Lag, rng: random.Random) -> None:
    await asyncio.sleep(rng.random() * 0.02)
    lag.turn()
    await _wait(writer, rng.choice(["write", "write", "delete"]), rng.choice(IDS))


async def _wait(writer: Client, kind: str, point_id: int) -> None:
    await writer.process.spawn(writer.change(kind, point_id))


async def _search(world: World, client: Client, rng: random.Random) -> None:
    """One call, checked against the history once the writes that ran beside it are in it."""
    places = [rng.uniform(0, client.load.operations + 20_000) for _ in range(QUERIES)]
    queries = np.array([[place, 0.0] for place in places], np.float32)
    k = rng.choice([3, len(IDS)])
    called = world.clock.mono_s()
    try:
        hits: Hits = await client.ask("search", NAME, Question(queries, k, exact=True), seen=_MAJORITY)
    except OmenDBError:
        client.told["none"] += 1
        return
    client.told["searches"] += QUERIES
    await asyncio.sleep(3.0)  # every write that ran beside it has ended by now, and stands in the history
    for what in wrong_hits(world.judge.history, called, places, k, hits):
        world.judge.violated(f"R16: a search at {called:.3f} {what}")


def wrong_hits(
    history: Sequence[Operation], called: float, places: Sequence[float], k: int, hits: Hits
) -> Iterable[str]:
    """What a search of points at (value, 0) showed that it may not, or did not show although it must."""
    writes: dict[Hashable, list[Operation]] = {point_id: [] for point_id in IDS}
    for operation in history:
        if operation.call[0] == "write":
            writes[operation.key].append(operation)
    may: dict[Hashable, set[int | None]] = {
        point_id: {w for w in (None, *(o.call[1] for o in mine)) if never_older(mine, w, called)}
        for point_id, mine in writes.items()
    }
    ids, start = hits.ids.to_list(), 0
    for row, place in enumerate(places):
        count = int(hits.counts[row])
        shown: dict[Hashable, float] = dict(
            zip(ids[start : start + count], hits.distances[row, :count].tolist(), strict=True)
        )
        start += count
        if len(shown) != count:
            yield "shows a point twice"
        for point_id, distance in shown.items():
            if not any(v is not None and abs(abs(v - place) - distance) < 0.05 for v in may[point_id]):
                yield f"shows {point_id} at {distance}, which is none of {may[point_id]} (deleted or replaced before)"
        worst = max(shown.values(), default=0.0) if count == k else float("inf")
        for point_id in may.keys() - shown.keys():
            values = may[point_id]
            if all(v is not None and abs(v - place) < worst - _EPSILON for v in values):
                yield f"does not show {point_id}, which is one of {values}, nearer than {worst}"


__all__ = ["CALLS", "IDS", "QUERIES", "lagging", "wrong_hits"]
