"""A write that a reader saw and somebody replaced, before its own calls came everywhere, takes place once (P4)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from omendb_router.router import Router
from tests.unit.router.router_cases import MAJORITY, Cluster, fetch, play, put


async def whole(c: Cluster, router: Router, number: float) -> None:
    await put(router, [1], [number], c.soon(8))


async def read(c: Cluster, router: Router) -> Any:
    return (await fetch(router, [1], c.soon(), MAJORITY))[1]


@pytest.mark.parametrize("engine", [False, True])
@pytest.mark.parametrize("blind", ["d2", "d3"])
def test_what_was_seen_and_replaced_is_not_written_again(engine: bool, blind: str) -> None:
    async def story(c: Cluster) -> None:
        await c.collection(replication=3)
        slow, quick = await c.router(), await c.router()
        await whole(c, slow, 0.0)
        await asyncio.sleep(1)
        for name in ("d2", "d3"):
            c.weather(name, delay_s=(1.0, 1.0))
        late = asyncio.ensure_future(whole(c, slow, 1.0))
        await asyncio.sleep(0.05)
        c.clear()
        c.weather(blind, cut=True)  # so that the reader asks the one replica that has it
        assert await read(c, quick) == {"v": 1.0}
        c.clear()
        await whole(c, quick, 2.0)
        assert await read(c, quick) == {"v": 2.0}
        await late
        assert await read(c, quick) == {"v": 2.0}

    play(story, engine=engine)


@pytest.mark.parametrize("engine", [False, True])
def test_what_nobody_can_have_seen_is_written_above_what_was_before_it(engine: bool) -> None:
    """A router whose clock is behind, after a write that one replica missed: it is not lost."""

    async def story(c: Cluster) -> None:
        await c.collection(replication=3)
        behind, ahead = await c.router(skew_ms=-300), await c.router(skew_ms=300)
        await whole(c, behind, 0.0)
        c.weather("d1", cut=True)
        await whole(c, ahead, 1.0)
        c.clear()
        await whole(c, behind, 2.0)
        assert await read(c, ahead) == {"v": 2.0} == await read(c, behind)

    play(story, engine=engine)
