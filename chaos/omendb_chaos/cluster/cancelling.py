"""Clients that go away: a call of a router cancelled between any two steps of its, on replicas that lag or are slow.

Every await of the call lies between two steps of the router, and so does every moment of the work that it handed on.

A write that was sent runs on (P20): all replicas have it in the end, or none. Nothing is left behind either way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from omendb_chaos.cluster.clients import NAME
from omendb_chaos.cluster.judge import differences, versions_of
from omendb_chaos.cluster.routers import RouterCall, SimRouter
from omendb_chaos.cluster.swarm import Run, told
from omendb_chaos.cluster.world import Size, World
from omendb_common.deadline import Deadline
from omendb_common.errors import OmenDBError
from omendb_common.filters import FilterOp
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows
from omendb_common.shard_calls import State
from omendb_router.face_calls import Question, Seen

Condition = Literal["calm", "slow", "stale"]
CONDITIONS: tuple[Condition, ...] = ("calm", "slow", "stale")
_STEPS_MAX = 400
_SETTLE_S = 6.0
_MAJORITY = Seen("majority")


def _vector(number: int) -> Any:
    return np.array([[number, 0.0]], np.float32)


def _upsert(number: int, value: int) -> RouterCall:
    return RouterCall((NAME, IdColumn.of([number]), {"": _vector(value)}, columns_from_rows([{"v": value}]), 1))


CALLS: Mapping[str, Callable[[int], RouterCall]] = {
    "upsert": lambda number: _upsert(number, 7),
    "update": lambda number: RouterCall((NAME, IdColumn.of([number]), None, columns_from_rows([{"u": 7}]))),
    "delete": lambda number: RouterCall((NAME, IdColumn.of([number]))),
    "delete_where": lambda number: RouterCall((NAME, FilterOp.eq("v", number * 1000))),
    "get": lambda number: RouterCall(
        (NAME, IdColumn.of([number])), {"payload": True, "vectors": True, "seen": _MAJORITY}
    ),
    "search": lambda number: RouterCall((NAME, Question(_vector(number), 3, exact=True)), {"seen": _MAJORITY}),
    "search of one": lambda number: RouterCall((NAME, Question(_vector(number), 3, exact=True)), {"seen": Seen("one")}),
    "scroll": lambda number: RouterCall((NAME, None, 10), {"payload": True, "vectors": False, "seen": _MAJORITY}),
    "count": lambda number: RouterCall((NAME, None), {"seen": _MAJORITY}),
}
WRITES = frozenset({"upsert", "update", "delete", "delete_where"})
CASES = tuple((kind, condition) for kind in CALLS for condition in CONDITIONS)


def cancellations(seed: str) -> Run:
    """R27: one kind of call under one condition, cancelled at every step; the last part of the seed says which."""
    kind, condition = CASES[int(seed.rpartition("/")[2]) % len(CASES)]
    tried = 0

    async def story(world: World) -> None:
        nonlocal tried
        await world.begin()
        await asyncio.sleep(_SETTLE_S)
        for nth in range(1, _STEPS_MAX):
            tried += 1
            if not await _cancelled(world, kind, condition, nth):
                return
        world.judge.violated(f"R27: {kind} is not done after {_STEPS_MAX} steps")

    run = told(seed, story, Size(routers=1, clients=0))
    run.told[f"{kind}, {condition}"] = tried
    return run


async def _cancelled(world: World, kind: str, condition: Condition, nth: int) -> bool:
    """One call, cancelled before the router's nth step from then on; False when it was done before."""
    router = world.routers["r1"]
    assert router.process is not None and router.router is not None
    await _prepare(world, nth, condition)
    before = len(router.process.tasks_left())
    if condition == "slow":
        world.network.link("r1", "d3").delay_s = (0.3, 0.3)
    struck = False

    def strike() -> None:
        nonlocal struck
        struck = task.cancel()

    task = router.process.spawn(_answered(router, kind.split()[0], CALLS[kind](nth), world.soon(2.0)))
    router.process.strike_after(nth, strike)
    await asyncio.wait((task,))
    router.process.strike_after(0, int)
    world.network.heal()
    await asyncio.sleep(_SETTLE_S)
    where = f"R27: {kind}, {condition}, cancelled at step {nth}"
    if struck and not task.cancelled():
        world.judge.violated(f"{where}: the cancellation was swallowed")
    for what in _left_behind(world, before):
        world.judge.violated(f"{where}: {what}")
    if kind in WRITES and condition != "stale":
        for what in differences(list(world.nodes.values()), world.topology, [nth]):
            world.judge.violated(f"{where}: half written: {what}")
    if kind == "upsert" and not task.cancelled():
        have = [versions_of(node, world.topology, [nth]).get(nth) for node in world.nodes.values()]
        if not all(version is not None and version.state == State.LIVE for version in have):
            world.judge.violated(f"{where}: told done, and the replicas have {have}")
    return struck


async def _answered(router: SimRouter, kind: str, call: RouterCall, deadline: Deadline) -> Any:
    try:
        return await router.ask(kind, call, deadline)
    except OmenDBError as error:
        return error


async def _prepare(world: World, number: int, condition: Condition) -> None:
    """A point to work on; for ``stale`` one of which a replica missed the newest version."""
    router = world.routers["r1"]
    assert router.process is not None
    await router.process.spawn(router.ask("upsert", _upsert(number, number * 1000), world.soon()))
    await asyncio.sleep(0.1)
    if condition == "stale":
        world.network.drops = lambda kind, target: kind == "apply" and target == "d3"
        await router.process.spawn(router.ask("upsert", _upsert(number, number * 1000), world.soon()))
        world.network.drops = lambda kind, target: False
        await asyncio.sleep(3.0)


def _left_behind(world: World, tasks_before: int) -> list[str]:
    """What of a router's work should have ended by now."""
    router = world.routers["r1"]
    assert router.process is not None and router.router is not None
    inner = router.router
    left = len(router.process.tasks_left())
    figures = inner.figures()
    found = []
    if left > tasks_before:
        found.append(f"{left - tasks_before} tasks are left: {router.process.tasks_left()[-1]}")
    if inner._fanout._tasks:
        found.append(f"the fan-out has {len(inner._fanout._tasks)} tasks")
    if figures["requests_working"] or figures["requests_waiting"]:
        found.append(f"requests are counted as working or waiting: {figures}")
    for node_id, health in inner._fanout._health.items():
        if health.in_flight or health.in_flight_bytes:
            found.append(
                f"{health.in_flight} calls of {health.in_flight_bytes} bytes count as on their way to {node_id}"
            )
    return found


__all__ = ["CALLS", "CASES", "CONDITIONS", "WRITES", "Condition", "cancellations"]
