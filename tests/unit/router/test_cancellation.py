"""A client that goes away, at every await there is: a write goes to all replicas or to none, no task is left (P20)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from omendb_common.filters import FilterOp as F
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows
from omendb_router.router import Router
from tests.unit.router.router_cases import MAJORITY, Cluster, fetch, nearest, play, put

Call = Callable[[Cluster, Router], Coroutine[Any, Any, Any]]

WRITES: dict[str, Call] = {
    "upsert": lambda c, r: put(r, [1, 2, 3, 4], [5, 5, 5, 5], c.soon()),
    "update": lambda c, r: r.update(
        "c", IdColumn.of([1, 2]), None, columns_from_rows([{"v": 5}] * 2), deadline=c.soon()
    ),
    "delete": lambda c, r: r.delete("c", IdColumn.of([1, 2]), deadline=c.soon()),
    "delete_where": lambda c, r: r.delete_where("c", F.lt("v", 3), deadline=c.soon()),
}
READS: dict[str, Call] = {
    "get": lambda c, r: fetch(r, [1, 2], c.soon(), MAJORITY),
    "search": lambda c, r: nearest(r, 0, 3, c.soon(), MAJORITY),
    "count": lambda c, r: r.count("c", F.gte("v", 0), seen=MAJORITY, deadline=c.soon()),
}
AWAITS_MAX = 300


async def cut_short(work: Coroutine[Any, Any, Any], awaits: int) -> bool:
    """Cancel the caller after so many turns of the loop; whether it was still at work."""
    task = asyncio.ensure_future(work)
    for _ in range(awaits):
        await asyncio.sleep(0)
    cut = task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return cut


@pytest.mark.parametrize("name", WRITES)
def test_a_write_cut_short_anywhere_is_sent_to_every_replica_or_to_none(name: str) -> None:
    async def story(c: Cluster) -> None:
        await c.collection(shards=2)
        r = await c.router()
        await put(r, [1, 2, 3, 4], [1, 2, 3, 4], c.soon())
        await asyncio.sleep(1)
        ended = False
        outcomes = set()
        for awaits in range(AWAITS_MAX):
            await put(r, [1, 2, 3, 4], [1, 2, 3, 4], c.soon())
            ended = not await cut_short(WRITES[name](c, r), awaits)
            await asyncio.sleep(1)
            states = set()
            for node in c.memory.values():
                points = {i: p.metadata() for rep in node.replicas.values() for i, p in rep.live().items()}
                states.add(tuple(sorted((i, p["v"]) for i, p in points.items() if isinstance(i, int))))
            assert len(states) == 1, (awaits, states)
            outcomes |= states
            assert r._admission.working == 0
            if ended:
                break
        assert ended, "the write never ended by itself"
        assert len(outcomes) == 2, "done, and not done"

    play(story)


@pytest.mark.parametrize("name", READS)
def test_a_read_cut_short_anywhere_leaves_nothing_behind(name: str) -> None:
    async def story(c: Cluster) -> None:
        await c.collection(shards=2)
        r = await c.router()
        await put(r, [1, 2, 3, 4], [1, 2, 3, 4], c.soon())
        await asyncio.sleep(1)
        for awaits in range(AWAITS_MAX):
            ended = not await cut_short(READS[name](c, r), awaits)
            await asyncio.sleep(0.7)
            assert r._admission.working == 0
            assert not r._fanout._tasks
            assert all(health.in_flight == 0 for health in r._fanout._health.values())
            if ended:
                return
        raise AssertionError("the read never ended by itself")

    play(story)
