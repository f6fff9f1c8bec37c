"""Searches of clients measured: few of them, slowly, and over the state that they are made on."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omendb_chaos.sim.virtual_time import VirtualClock, VirtualLoop, run_virtually
from omendb_common.deadline import Deadline
from omendb_common.errors import DatabaseClosedError
from omendb_common.filters import FilterOp as F
from omendb_common.ids import IdColumn
from omendb_common.schema import VectorField
from omendb_common.shard_calls import Search, ShardRef
from omendb_datanode.config import DataNodeSettings
from omendb_datanode.live_recall import LiveRecall
from omendb_engine.replica import Replica
from tests.unit.engine.engine_cases import open_replica, put, settings_of, vectors_of

ROWS, DIMENSION = 12_000, 12
ONE, OTHER = ShardRef("a", 0, 1, 1), ShardRef("b", 3, 1, 1)
SPENT_S = 0.5


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    folder, opened = open_replica(tmp_path_factory.mktemp("db"), settings_of(rows=ROWS), VectorField(DIMENSION))
    put(opened, IdColumn.of(range(ROWS)), vectors=vectors_of(ROWS, DIMENSION, seed=3))
    opened.maintenance.flush()
    while opened.maintenance.work():
        pass
    yield opened
    folder.close()


def question(shard: ShardRef = ONE, **changes: Any) -> Search:
    return Search(shard, vectors_of(1, DIMENSION, seed=4), 3)._replace(**changes)


def measured(
    find: Callable[[ShardRef], Replica | None],
    calls: list[Search],
    *,
    seconds: float = 1e5,
    sample_share: float = 1.0,
    time_share: float = 0.01,
) -> tuple[LiveRecall, list[float]]:
    """What is known after so many seconds, and when each measurement began."""
    loop = VirtualLoop()
    clock = VirtualClock(loop)
    begun: list[float] = []

    async def work(do: Callable[[], float | None], deadline: Deadline) -> float | None:
        begun.append(clock.mono_s())
        await asyncio.sleep(SPENT_S)
        return do()

    async def story() -> LiveRecall:
        settings = DataNodeSettings(recall_sample_share=sample_share, recall_time_share=time_share)
        live = LiveRecall(clock, settings, find, work, random.Random(1))
        running = asyncio.create_task(live.run())
        for call in calls:
            live.saw(call)
        await asyncio.sleep(seconds)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return live

    return run_virtually(loop, story()), begun


def test_the_share_of_true_neighbours_is_told_of_all_and_of_each_shard(replica: Replica) -> None:
    weak, strong = question(OTHER, ef=10, queries=vectors_of(1, DIMENSION, seed=5)), question(ef=2_000)
    live, _ = measured(lambda _: replica, [strong, weak])
    truth = replica.explain(weak.queries, 10, ef=10, measure=True).measured_recall
    assert live.of(ONE) == 1.0 and live.of(OTHER) == truth
    assert truth is not None and live.mean() == pytest.approx((1.0 + truth) / 2)
    assert live.of(ShardRef("c", 0, 1, 1)) is None


def test_nothing_is_known_before_anything_was_measured(replica: Replica) -> None:
    nothing = F.eq("none", 1)
    calls = [question(exact=True), question(unproven=True), question(condition=nothing)]
    live, begun = measured(lambda _: replica, calls)
    assert math.isnan(live.mean()) and live.of(ONE) is None and len(begun) == 1


def test_it_takes_no_more_than_its_share_of_time(replica: Replica) -> None:
    _, begun = measured(lambda _: replica, [question()] * 5, time_share=0.01)
    assert len(begun) == 5 and min(np.diff(begun)) >= SPENT_S / 0.01 * 0.999


def test_few_are_drawn_and_few_wait(replica: Replica) -> None:
    _, none = measured(lambda _: replica, [question()] * 100, sample_share=0.0)
    assert not none
    _, begun = measured(lambda _: replica, [question()] * 1000, seconds=1.0)
    assert len(begun) == 1
    live, begun = measured(lambda _: replica, [question()] * 1000, sample_share=0.01)
    assert 0 < len(begun) <= 16 and live.mean() >= 0.9


def test_a_replica_that_is_gone_ends_nothing(replica: Replica, tmp_path: Path) -> None:
    folder, closed = open_replica(tmp_path, settings_of(rows=10), VectorField(DIMENSION))
    folder.close()
    with pytest.raises(DatabaseClosedError):
        closed.explain(vectors_of(1, DIMENSION, seed=1), 1)
    places = {ONE: replica, OTHER: closed}
    live, begun = measured(places.get, [question(OTHER), question(ShardRef("c", 0, 1, 1)), question()])
    assert len(begun) == 3 and live.of(OTHER) is None and live.of(ONE) is not None
