"""A quorum's search at the price of one replica's: who is asked for what, and what is shown (P23)."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from omendb_common.deadline import Deadline
from omendb_common.ids import IdColumn
from omendb_common.shard_calls import Lookup, Repair, Search, ShardHits, Verdict
from omendb_router.face_calls import Question
from omendb_router.router import Router
from tests.unit.router.engine_nodes import agree
from tests.unit.router.router_cases import MAJORITY, Cluster, flat, nearest, play, put, vector


async def at_once() -> None:
    """No pause."""


async def everywhere(c: Cluster, router: Router, ids: range) -> None:
    """Points at their ids, on every node, on which all agree."""
    await put(router, list(ids), [float(i) for i in ids], c.soon())
    await asyncio.sleep(1.0)
    assert await agree(c.engines, 0.1, at_once) == 3


def watched(c: Cluster) -> list[tuple[str, bool, int]]:
    """Searches as nodes get them: node, whether only of what is unproven, how many queries."""
    told: list[tuple[str, bool, int]] = []
    for name, node in c.network.items():
        before = node.node.search

        async def search(call: Search, deadline: Deadline, name: str = name, before: Any = before) -> ShardHits:
            told.append((name, call.unproven, len(call.queries)))
            answer: ShardHits = await before(call, deadline)
            return answer

        node.node.search = search  # type: ignore[method-assign]  # looked at where it arrives
    return told


def counts(router: Router) -> list[int]:
    """Searches by one replica, those of them that asked nobody again, and those that all had to make."""
    figures = router.figures()
    return [int(figures[f"searches_{name}_total"]) for name in ("once", "settled", "not_covered")]


def test_one_replica_searches_and_nobody_is_asked_again() -> None:
    async def story(c: Cluster) -> None:
        await c.collection(replication=3)
        router = await c.router()
        await everywhere(c, router, range(50))
        told = watched(c)
        question = Question(vector(10.2, 30.4), 2, payload=True, vectors=True)
        hits = await router.search("c", question, seen=MAJORITY, deadline=c.soon())
        assert [[i for i, _ in row] for row in flat(hits)] == [[10, 11], [30, 31]]
        assert hits.payload is not None and hits.payload.num_rows == 4 and not hits.stale_possible
        assert sorted(unproven for _, unproven, _ in told) == [False, True] and len({name for name, _, _ in told}) == 2
        assert counts(router) == [1, 1, 0]

    play(story, engine=True)


def test_what_only_the_other_replica_has_is_shown_and_what_it_deleted_or_moved_is_not() -> None:
    async def story(c: Cluster) -> None:
        await c.collection(replication=3)
        router = await c.router(circuit_failures=1000)
        await everywhere(c, router, range(50))
        for missing in c.network:
            # Whoever misses these, one of any two has them.
            c.weather(missing, cut=True)
            await put(router, [60], [10.1], c.soon())
            await put(router, [11], [40.1], c.soon())
            await router.delete("c", IdColumn.of([9]), deadline=c.soon())
            c.clear()
            await asyncio.sleep(6.0)
            for _ in range(4):
                found = await nearest(router, 10.02, 4, c.soon(), MAJORITY, payload=True)
                assert [i for i, _ in found] == [10, 60, 12, 8], (missing, found)
                found = await nearest(router, 40.02, 2, c.soon(), MAJORITY)
                assert [i for i, _ in found] == [40, 11]
                await asyncio.sleep(0.2)
            assert await agree(c.engines, 0.1, at_once) <= 3
        once, settled, _ = counts(router)
        assert once > settled > 0

    play(story, engine=True)


@pytest.mark.parametrize("agreed", [True, False])
def test_what_comes_to_the_replica_that_searched_before_it_is_asked_again_is_shown(agreed: bool) -> None:
    async def story(c: Cluster) -> None:
        await c.collection(replication=3)
        router = await c.router(circuit_failures=1000)
        await everywhere(c, router, range(50))
        for missing, at in c.network.items():
            c.weather(missing, cut=True)
            await put(router, [60], [10.1], c.soon())
            c.clear()
            await asyncio.sleep(6.0)
            source = next(other.node for name, other in c.network.items() if name != missing)
            search = at.node.search

            async def late(
                call: Search, deadline: Deadline, at: Any = at, s: Any = search, o: Any = source
            ) -> ShardHits:
                """Right after it has searched without the point, it is given it."""
                answer: ShardHits = await s(call, deadline)
                record = await o.lookup(Lookup(call.shard, IdColumn.of([60]), records=True), deadline)
                assert (await at.node.repair(Repair(call.shard, record.records, 0), deadline)).verdict is Verdict.OK
                return answer

            at.node.search = late  # type: ignore[method-assign]  # looked at where it arrives
            if not agreed:
                for replica in (one for replicas in c.engines for one in replicas.opened.values()):
                    replica.agreements._agreed = None
            for _ in range(4):
                assert [i for i, _ in await nearest(router, 10.02, 2, c.soon(), MAJORITY)] == [10, 60], missing
                await asyncio.sleep(0.3)
            at.node.search = search  # type: ignore[method-assign]
            await router.delete("c", IdColumn.of([60]), deadline=c.soon())
            await asyncio.sleep(1.0)
            assert await agree(c.engines, 0.1, at_once) == 3

    play(story, engine=True)


def test_where_nobody_agreed_all_search_and_that_is_remembered_for_a_while() -> None:
    async def story(c: Cluster) -> None:
        await c.collection(replication=3)
        router = await c.router()
        await put(router, list(range(50)), [float(i) for i in range(50)], c.soon())
        told = watched(c)
        for _ in range(2):
            assert [i for i, _ in await nearest(router, 10.2, 2, c.soon(), MAJORITY)] == [10, 11]
        assert [unproven for _, unproven, _ in told].count(True) == 1 and counts(router) == [0, 0, 1]
        await asyncio.sleep(2.0)
        assert await agree(c.engines, 0.1, at_once) == 3
        await nearest(router, 10.2, 2, c.soon(), MAJORITY)
        assert counts(router) == [1, 1, 1]

    play(story, engine=True)


@pytest.mark.parametrize("weather", [{"cut": True}, {"down": True}, {"lost_answers": 1.0}, {"delay_s": (0.5, 0.5)}])
def test_a_replica_that_does_not_answer_is_replaced(weather: dict[str, Any]) -> None:
    async def story(c: Cluster) -> None:
        await c.collection(replication=3)
        router = await c.router()
        await everywhere(c, router, range(50))
        for name in c.network:
            c.weather(name, **weather)
            for _ in range(3):
                found = await nearest(router, 10.2, 2, c.soon(), MAJORITY)
                assert [i for i, _ in found] == [10, 11]
            c.clear()
            await asyncio.sleep(6.0)

    play(story, engine=True)


def test_it_can_be_turned_off() -> None:
    async def story(c: Cluster) -> None:
        await c.collection(replication=3)
        router = await c.router(search_once=False)
        await everywhere(c, router, range(50))
        told = watched(c)
        await nearest(router, 10.2, 2, c.soon(), MAJORITY)
        assert not any(unproven for _, unproven, _ in told) and len(told) == 2 and counts(router) == [0, 0, 0]

    play(story, engine=True)


def test_it_shows_what_is_acknowledged_whoever_missed_what() -> None:
    """Against a dictionary: one writer, writes and deletions that miss one replica or another, agreements meanwhile."""

    async def story(c: Cluster) -> int:
        rng = c.rng
        await c.collection(replication=3)
        router = await c.router(circuit_failures=1000)
        truth: dict[int, float] = {}
        for _ in range(40):
            c.clear()
            c.weather(rng.choice(list(c.network)), cut=rng.random() < 0.6)
            for _ in range(rng.randrange(4)):
                some = rng.sample(range(30), rng.randint(1, 4))
                if rng.random() < 0.7:
                    places = [rng.uniform(0, 100) for _ in some]
                    await put(router, some, places, c.soon())
                    truth.update(zip(some, places, strict=True))
                else:
                    await router.delete("c", IdColumn.of(some), deadline=c.soon())
                    for i in some:
                        truth.pop(i, None)
            c.clear()
            if rng.random() < 0.4:
                await asyncio.sleep(rng.choice([0.3, 1.5]))
                await agree(c.engines, rng.choice([0.0, 0.2]), at_once)
            at, k = [rng.uniform(0, 100) for _ in range(3)], rng.choice([1, 3, 40])
            hits = await router.search("c", Question(vector(*at), k), seen=MAJORITY, deadline=c.soon())
            for place, row in zip(at, flat(hits), strict=True):
                expected = sorted(truth, key=lambda i: abs(truth[i] - place))[:k]
                assert [i for i, _ in row] == expected
                assert np.allclose([d for _, d in row], [abs(truth[i] - place) for i in expected], atol=1e-2)
        return counts(router)[0]

    assert sum(play(story, seed=seed, engine=True) for seed in range(5)) > 15
