"""A read of one replica runs in its caller's own task: what ends it early is no cancellation of the caller."""

from __future__ import annotations

import asyncio

import pytest

from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, UnavailableError
from omendb_common.shard_calls import Search, ShardHits
from omendb_router.fanout import _COMPANY_MAX
from omendb_router.router import Router
from tests.unit.router.router_cases import ONE, Cluster, nearest, play, put


def idle(router: Router) -> bool:
    """Whether no call and no task is left."""
    return not router._fanout._tasks and all(h.in_flight == 0 for h in router._fanout._health.values())


def cancelling() -> int:
    """Cancellations of this task that nobody has taken back."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def a_router(c: Cluster, **settings: float) -> Router:
    """A router of a collection with one point at 1."""
    await c.collection()
    router = await c.router(**settings)
    await put(router, [1], [1], c.soon())
    await asyncio.sleep(1)
    return router


def test_another_node_that_is_faster_ends_the_call_and_not_its_caller() -> None:
    async def story(c: Cluster) -> None:
        r = await a_router(c)
        for name in ("d1", "d2"):
            c.weather(name, delay_s=(0.9, 1.0))
        for _ in range(10):
            began = c.clock.mono_s()
            assert await nearest(r, 0, 1, c.soon(5), ONE) == [(1, 1.0)]
            assert c.clock.mono_s() - began < 1.0
            assert cancelling() == 0
            # Whoever was cancelled would notice here.
            await asyncio.sleep(0.5)
            assert idle(r)
        assert r._fanout.counts["hedges"] > 0

    play(story)


def test_a_caller_that_goes_away_while_another_node_answers_is_cancelled() -> None:
    async def story(c: Cluster) -> None:
        r = await a_router(c)
        c.weather("d1", delay_s=(0.9, 1.0))
        c.weather("d2", delay_s=(0.3, 0.3))
        c.weather("d3", delay_s=(0.3, 0.3))
        ended = 0
        for step in range(80):
            task = asyncio.ensure_future(nearest(r, 0, 1, c.soon(5), ONE))
            await asyncio.sleep(0.01 * step)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                ended += 1
                assert task.result() == [(1, 1.0)]
            await asyncio.sleep(2)
            assert idle(r)
        assert 0 < ended < 80

    play(story)


def test_a_deadline_that_passes_is_told_and_counts_against_the_node() -> None:
    async def story(c: Cluster) -> None:
        r = await a_router(c, retry_percent=0.0, circuit_failures=2, timeout_is_failure_ms=100.0)

        async def silence(call: Search, deadline: Deadline) -> ShardHits:
            await asyncio.sleep(3600)
            raise AssertionError("nobody waits so long")

        for node in c.memory.values():
            node.search = silence  # type: ignore[method-assign]
        for _ in range(6):
            began = c.clock.mono_s()
            with pytest.raises((DeadlineExceededError, UnavailableError)):
                await nearest(r, 0, 1, c.soon(0.5), ONE)
            assert c.clock.mono_s() - began < 0.6
            assert cancelling() == 0
        assert idle(r)
        assert sum(r._fanout.health(name).circuit.failures for name in c.network) == 6

    play(story)


def test_a_fault_of_the_client_is_an_answer_that_failed() -> None:
    async def story(c: Cluster) -> None:
        r = await a_router(c)
        faults = 0

        async def broken(call: Search, deadline: Deadline) -> ShardHits:
            nonlocal faults
            faults += 1
            raise ValueError("a bug")

        for name in ("d1", "d2"):
            c.memory[name].search = broken  # type: ignore[method-assign]
        for _ in range(4):
            assert await nearest(r, 0, 1, c.soon(), ONE) == [(1, 1.0)]
        assert faults
        c.memory["d3"].search = broken  # type: ignore[method-assign]
        with pytest.raises(UnavailableError, match="ValueError"):
            await nearest(r, 0, 1, c.soon(), ONE)
        assert idle(r)

    play(story)


def test_searches_of_one_moment_go_to_one_replica_and_those_of_the_next_to_another() -> None:
    async def story(c: Cluster) -> None:
        r = await a_router(c)

        def asked() -> dict[str, int]:
            return {name: node.calls["search"] for name, node in c.network.items()}

        async def burst(n: int) -> list[int]:
            before = asked()
            await asyncio.gather(*(nearest(r, 0, 1, c.soon(), ONE) for _ in range(n)))
            return sorted(now - before[name] for name, now in asked().items())

        assert await burst(_COMPANY_MAX) == [0, 0, _COMPANY_MAX]
        assert await burst(_COMPANY_MAX + 1) == [0, 1, _COMPANY_MAX]
        for _ in range(40):
            await burst(2)
        assert all(asked().values()), "every replica has its turn"

    play(story)
