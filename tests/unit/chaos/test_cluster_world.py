"""The simulated cluster itself: processes stand still and die alone, links do what they are told, seeds repeat."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from omendb_chaos.cluster.clocks import MachineClock
from omendb_chaos.cluster.network import Network, RemoteNode, within
from omendb_chaos.cluster.processes import Process, ProcessLoop
from omendb_chaos.cluster.runs import run_one
from omendb_chaos.sim.virtual_time import run_virtually
from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, UnavailableError
from omendb_common.shard_calls import Maintain, ShardRef


def played(story: Callable[[ProcessLoop], Coroutine[Any, Any, None]]) -> None:
    loop = ProcessLoop()
    run_virtually(loop, story(loop))


@dataclass
class Counting:
    """A server that counts what arrives and takes its time."""

    takes_s: float = 0.0
    arrived: int = 0
    done: int = 0

    async def ask(self, kind: str, call: Any, deadline: Deadline) -> Any:
        self.arrived += 1
        await asyncio.sleep(self.takes_s)
        self.done += 1
        if kind == "fail":
            raise UnavailableError("as asked", outcome="unknown")
        return call


class Pair:
    """A caller and a server on a network of their own."""

    def __init__(self, loop: ProcessLoop, seed: int = 0) -> None:
        self.loop = loop
        self.clock = MachineClock(loop)
        self.network = Network(loop, random.Random(seed), lambda *_: None)
        self.caller, self.process, self.server = Process(loop, "a"), Process(loop, "b"), Counting()
        self.network.serve(self.process, self.server, self.clock)

    def ask(self, kind: str = "ask", timeout_s: float = 1.0, *, hang_up: bool = False) -> asyncio.Task[Any]:
        deadline = Deadline.after(self.clock, timeout_s)
        call = self.network.call(self.caller, "b", kind, 7, deadline, hang_up=hang_up)
        return self.caller.spawn(within(deadline, call))


def test_a_process_that_stands_still_does_nothing_and_then_goes_on_where_it_was() -> None:
    async def story(loop: ProcessLoop) -> None:
        still, other = Process(loop, "still"), Process(loop, "other")
        done: list[tuple[str, float]] = []

        async def work(name: str) -> None:
            for _ in range(3):
                await asyncio.sleep(1.0)
                done.append((name, round(loop.time(), 3)))

        tasks = [still.spawn(work("still")), other.spawn(work("other"))]
        await asyncio.sleep(1.5)
        still.pause()
        await asyncio.sleep(5.0)
        assert [who for who, _ in done] == ["still", "other", "other", "other"]
        still.resume()
        await asyncio.gather(*tasks)
        assert done[-2:] == [("still", 6.5), ("still", 7.5)]

    played(story)


def test_a_timer_that_was_cancelled_by_what_came_first_stays_cancelled_after_a_pause() -> None:
    async def story(loop: ProcessLoop) -> None:
        pair = Pair(loop)
        asked = pair.ask(timeout_s=0.5)
        await asyncio.sleep(0.0)
        pair.caller.pause()
        await asyncio.sleep(2.0)  # answer and timeout both fell due: the answer first
        pair.caller.resume()
        assert await asked == 7

    played(story)


def test_a_process_that_dies_takes_its_tasks_along_and_its_callers_hear_of_it() -> None:
    async def story(loop: ProcessLoop) -> None:
        pair = Pair(loop)
        pair.server.takes_s = 5.0
        asked = pair.ask(timeout_s=20.0)
        await asyncio.sleep(1.0)
        pair.network.gone("b")
        pair.process.kill()
        with pytest.raises(UnavailableError) as told:
            await asked
        assert told.value.outcome == "unknown" and loop.time() < 2.0
        await asyncio.sleep(10.0)
        assert (pair.server.arrived, pair.server.done) == (1, 0)
        with pytest.raises(UnavailableError) as refused:
            await pair.ask()
        assert refused.value.outcome == "none"

    played(story)


def test_what_has_left_arrives_although_nobody_waits_any_more() -> None:
    async def story(loop: ProcessLoop) -> None:
        pair = Pair(loop)
        pair.network.link("a", "b").delay_s = (3.0, 3.0)
        with pytest.raises(DeadlineExceededError) as late:
            await pair.ask(timeout_s=1.0)
        assert late.value.outcome == "unknown" and pair.server.arrived == 0
        await asyncio.sleep(3.0)
        assert pair.server.arrived == 1

    played(story)


@pytest.mark.parametrize("source, target, arrived", [("a", "b", 0), ("b", "a", 1)])
def test_a_link_is_cut_in_one_direction(source: str, target: str, arrived: int) -> None:
    async def story(loop: ProcessLoop) -> None:
        pair = Pair(loop)
        pair.network.link(source, target).cut = True
        with pytest.raises((UnavailableError, DeadlineExceededError)) as silent:
            await pair.ask()
        assert getattr(silent.value, "outcome", "") == "unknown" and pair.server.arrived == arrived

    played(story)


def test_calls_come_twice_but_never_those_of_clients_who_hang_up() -> None:
    async def story(loop: ProcessLoop) -> None:
        pair = Pair(loop)
        pair.network.link("a", "b").twice = 1.0
        assert await pair.ask() == 7
        await asyncio.sleep(1.0)
        assert pair.server.arrived == 2
        assert await pair.ask(hang_up=True) == 7
        await asyncio.sleep(1.0)
        assert pair.server.arrived == 3
        pair.server.takes_s = 5.0
        with pytest.raises(DeadlineExceededError):
            await pair.ask(hang_up=True)
        await asyncio.sleep(10.0)
        assert (pair.server.arrived, pair.server.done) == (4, 3)

    played(story)


def test_a_data_node_that_is_silent_is_given_up_at_the_deadline() -> None:
    """Whoever calls a peer relies on that: only routers keep the time themselves."""

    async def story(loop: ProcessLoop) -> None:
        pair = Pair(loop)
        pair.server.takes_s = 50.0
        node = RemoteNode(pair.network, pair.caller, "b")
        looked = node.maintain(Maintain(ShardRef("", 0, 1, 1), "stats"), Deadline.after(pair.clock, 2.0))
        with pytest.raises(DeadlineExceededError) as late:
            await pair.caller.spawn(looked)
        assert late.value.outcome == "unknown" and 1.9 < loop.time() < 2.1

    played(story)


def test_errors_travel_as_themselves() -> None:
    async def story(loop: ProcessLoop) -> None:
        with pytest.raises(UnavailableError, match="as asked"):
            await Pair(loop).ask("fail")

    played(story)


def test_a_seed_is_one_run() -> None:
    first, again, other = (run_one(seed) for seed in ("R13/5/1", "R13/5/1", "R13/5/2"))
    assert first.trace == again.trace != other.trace
    assert first.violations == again.violations == []
