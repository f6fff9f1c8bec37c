"""Too much work, slow nodes: queues are bounded, reads are hedged, retries stay a share of the requests."""

from __future__ import annotations

import asyncio

import pytest

from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, ResourceExhaustedError, UnavailableError
from omendb_router.admission import Admission
from omendb_router.face_calls import Written
from omendb_router.health import Circuit, Latencies, NodeHealth, RetryBudget
from omendb_router.settings import RouterSettings
from tests.unit.router.router_cases import MAJORITY, ONE, Cluster, fetch, nearest, play, put


def test_the_queue_is_bounded_for_the_router_and_for_each_collection() -> None:
    async def story(c: Cluster) -> None:
        gates = Admission(
            RouterSettings(requests_max=2, requests_per_collection_max=2, queue_max=3, queue_per_collection_max=2)
        )
        inside = [await gates.enter("a", c.soon()), await gates.enter("a", c.soon())]
        waiting = [asyncio.ensure_future(gates.enter(name, c.soon(9))) for name in ("a", "a", "b")]
        await asyncio.sleep(0.1)
        assert (gates.working, gates.waiting) == (2, 3)
        for name in ("a", "b"):
            with pytest.raises(ResourceExhaustedError) as refused:
                await gates.enter(name, c.soon())
            assert refused.value.retry_after > 0
        # One by one the places are handed on; nobody waits while there is room.
        for place in inside:
            gates.leave(place)
        await asyncio.sleep(0)
        assert [w.done() for w in waiting] == [True, True, False]
        gates.leave(waiting[0].result())
        gates.leave((await asyncio.gather(*waiting))[2])
        gates.leave(waiting[1].result())
        assert (gates.working, gates.waiting) == (0, 0)
        assert not gates._gates

    play(story)


def test_a_busy_collection_leaves_room_for_the_others() -> None:
    async def story(c: Cluster) -> None:
        gates = Admission(RouterSettings(requests_max=10, requests_per_collection_max=1))
        first = await gates.enter("a", c.soon())
        second = asyncio.ensure_future(gates.enter("a", c.soon(9)))
        await asyncio.sleep(0.1)
        with await gates.enter("b", c.soon()):
            assert not second.done()
        gates.leave(first)
        gates.leave(await second)

    play(story)


def test_who_gives_up_waiting_leaves_no_trace() -> None:
    async def story(c: Cluster) -> None:
        gates = Admission(RouterSettings(requests_max=1))
        first = await gates.enter("a", c.soon())
        with pytest.raises(DeadlineExceededError) as late:
            await gates.enter("a", c.soon(0.5))
        assert late.value.outcome == "none"
        cancelled = asyncio.ensure_future(gates.enter("a", c.soon()))
        patient = asyncio.ensure_future(gates.enter("a", c.soon()))
        await asyncio.sleep(0)
        cancelled.cancel()
        gates.leave(first)
        gates.leave(await patient)
        # Cancelled in the very turn in which it was let in: the place is not lost.
        first = await gates.enter("a", c.soon())
        cancelled = asyncio.ensure_future(gates.enter("a", c.soon()))
        await asyncio.sleep(0)
        gates.leave(first)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        assert (gates.working, gates.waiting) == (0, 0)
        gates.leave(await gates.enter("a", c.soon()))

    play(story)


def test_bytes_of_writes_are_bounded_but_one_always_goes() -> None:
    async def story(c: Cluster) -> None:
        gates = Admission(RouterSettings(request_bytes_max=1 << 20))
        large = await gates.enter("a", c.soon(), 5 << 20)
        small = asyncio.ensure_future(gates.enter("a", c.soon(), 1))
        await asyncio.sleep(0.1)
        assert not small.done()
        gates.leave(large)
        gates.leave(await small)

    play(story)


def test_too_many_requests_at_once_are_told_to_come_back() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router(requests_max=4, queue_max=4, queue_per_collection_max=4)
        for name in c.network:
            c.weather(name, delay_s=(0.01, 0.01))
        calls = [put(r, [i], [i], c.soon()) for i in range(20)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        refused = [x for x in results if isinstance(x, ResourceExhaustedError)]
        assert len(refused) == 12
        assert not [x for x in results if isinstance(x, Exception) and x not in refused]
        assert await r.count("c", None, seen=MAJORITY, deadline=c.soon()) == 8

    play(story)


def test_calls_to_one_node_are_bounded() -> None:
    async def story(c: Cluster) -> None:
        await c.collection(replication=1)
        r = await c.router(in_flight_per_node_max=3)
        c.weather("d1", delay_s=(0.05, 0.05))
        results = await asyncio.gather(*[put(r, [i], [i], c.soon()) for i in range(8)], return_exceptions=True)
        refused = [x for x in results if isinstance(x, ResourceExhaustedError)]
        assert len(refused) == 5
        assert c.network["d1"].calls["apply"] == 3

    play(story)


def test_a_slow_replica_does_not_fill_the_memory() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router(in_flight_bytes_per_node_max=1 << 20)
        rows = [{"text": "x" * 100_000}]
        c.weather("d3", delay_s=(1.0, 1.0))
        for i in range(60):
            await put(r, [i], [i], c.soon(), rows=rows)
            assert all(h.in_flight_bytes <= 1 << 20 for h in r._fanout._health.values())
        assert c.network["d3"].calls["apply"] <= 11
        # When the replicas that it takes are all slow, a write is refused before anything is sent.
        for name in c.network:
            c.weather(name, delay_s=(1.0, 1.0))
        await asyncio.sleep(3)
        calls = [put(r, [i], [i], c.soon(9), rows=rows) for i in range(60)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(x) for x in results} == {ResourceExhaustedError, Written}
        await asyncio.sleep(3)
        assert all(h.in_flight_bytes == 0 for h in r._fanout._health.values())

    play(story)


def test_figures_tell_what_goes_on() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        await put(r, [9], [9], c.soon())
        c.weather("d1", down=True)
        for i in range(9):
            await put(r, [i], [i], c.soon())
            await nearest(r, 0, 1, c.soon(), MAJORITY)
        figures = r.figures()
        assert figures["nodes_left_alone"] == 1
        assert (figures["requests_working"], figures["requests_waiting"]) == (0, 0)
        assert figures["lease_left_s"] > 3000
        assert figures["failovers_total"] > 0
        assert figures["unknown_total"] == 0

    play(story)


def test_a_slow_replica_is_hedged_and_then_asked_less() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        await put(r, [1], [1], c.soon())
        c.weather("d2", delay_s=(0.9, 1.0))
        for seen in (ONE, MAJORITY):
            for _ in range(60):
                began = c.clock.mono_s()
                assert await nearest(r, 0, 1, c.soon(), seen) == [(1, 1.0)]
                assert await fetch(r, [1], c.soon(), seen) == {1: {"v": 1}}
                assert c.clock.mono_s() - began < 0.2
        calls = {name: sum(n.calls[k] for k in ("search", "lookup")) for name, n in c.network.items()}
        assert calls["d2"] < 20
        # It is not forgotten: when it is fast again it gets its share.
        c.clear()
        await asyncio.sleep(120)
        for _ in range(60):
            await nearest(r, 0, 1, c.soon(), ONE)
        assert sum(c.network["d2"].calls[k] for k in ("search", "lookup")) > calls["d2"] + 5

    play(story)


def test_a_replica_that_is_used_to_being_slow_is_late_by_its_neighbours_habits() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        await put(r, [1], [1], c.soon())
        for name in c.network:
            c.weather(name, delay_s=(0.002, 0.003))
        for _ in range(300):
            await fetch(r, [1], c.soon(), MAJORITY)
        # With another one down a majority needs the slow one, and learns how long it takes.
        c.weather("d2", delay_s=(0.2, 0.2))
        c.weather("d1", down=True)
        for _ in range(150):
            await fetch(r, [1], c.soon(), MAJORITY)
        c.weather("d1", down=False)
        await asyncio.sleep(10)  # its circuit is tried again after five at most
        tried = c.network["d2"].calls["lookup"]
        for _ in range(200):
            began = c.clock.mono_s()
            assert await fetch(r, [1], c.soon(), MAJORITY) == {1: {"v": 1}}
            # Two trips of patience, one for the neighbour, one for the content that was asked of the slow one.
            assert c.clock.mono_s() - began < 4 * 0.006 + 0.001
            await asyncio.sleep(1.5)
        # It is not forgotten, and not asked by habit.
        assert 3 < c.network["d2"].calls["lookup"] - tried < 60

    play(story)


def test_retries_never_multiply_the_load() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router(retry_percent=10.0, circuit_failures=1000)
        await put(r, [1], [1], c.soon())
        for name in c.network:
            c.weather(name, lost_answers=1.0)
        requests = 200
        for _ in range(requests):
            with pytest.raises((UnavailableError, DeadlineExceededError)):
                await fetch(r, [1], c.soon(0.3), ONE)
        calls = sum(n.calls["lookup"] for n in c.network.values())
        assert requests <= calls <= requests * 1.1 + 12

    play(story)


# -- the parts


def test_a_circuit_opens_tries_and_closes() -> None:
    circuit = Circuit(failures_max=3, open_s=1.0, open_max_s=4.0)
    for _ in range(2):
        circuit.failed(0.0)
        assert circuit.allows(0.0)
    circuit.failed(0.0)
    assert not circuit.allows(0.9)
    pauses = []
    now = 0.0
    for _ in range(4):
        pauses.append(circuit.open_until_s - now)
        now = circuit.open_until_s
        assert circuit.allows(now)
        circuit.started()
        assert not circuit.allows(now), "one trial at a time"
        circuit.failed(now)
    assert pauses == [1.0, 2.0, 4.0, 4.0]
    now = circuit.open_until_s
    circuit.started()
    # Late failures of calls from before say nothing new.
    circuit.left()
    assert circuit.allows(now)
    circuit.started()
    circuit.succeeded()
    assert circuit.allows(now)
    circuit.trip(now)
    assert not circuit.allows(now + 0.5)
    assert circuit.allows(now + 1.0)


def test_the_budget_is_a_share_of_the_requests() -> None:
    budget = RetryBudget(0.1, burst=2.0)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    for _ in range(11):
        budget.earn()
    assert [budget.take() for _ in range(2)] == [True, False]
    assert not RetryBudget(0.0).take()


def test_latencies_know_their_percentile_and_old_news_fade() -> None:
    latencies = Latencies()
    for n in range(1, 101):
        assert n < 20 or latencies.p95_s(9.0) <= 9.0
        latencies.add(n / 100)
    assert latencies.p95_s(9.0) == pytest.approx(0.92, abs=0.04)
    health = NodeHealth(Circuit(5, 1.0, 4.0))
    assert health.hedge_s("search", 0.05) == 0.05
    health.gave_up(1.0, now_s=100.0)
    assert health.expected_s(100.0) == 1.0
    assert health.expected_s(110.0) == pytest.approx(0.5)
    health.gave_up(0.2, now_s=100.0)
    assert health.expected_s(100.0) == 1.0


def test_a_deadline_that_passed_sends_nothing() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        with pytest.raises(DeadlineExceededError) as late:
            await put(r, [1], [1], Deadline.after(c.clock, 0.0))
        assert late.value.outcome == "none"
        with pytest.raises(DeadlineExceededError):
            await fetch(r, [1], Deadline.after(c.clock, 0.0))
        assert not sum(sum(n.calls.values()) for n in c.network.values())

    play(story)
