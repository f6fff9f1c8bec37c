"""Searches, and look-ups, of one kind travel together and every caller gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, NotFoundError, ResourceExhaustedError, UnavailableError
from omendb_common.filters import FilterOp as F
from omendb_common.ids import IdColumn
from omendb_common.overlays import Overlays
from omendb_common.shard_calls import Looked, Lookup, Search, ShardHits, ShardRef, State, Verdict
from omendb_common.wire import coalesce
from omendb_common.wire.coalesce import Coalescer
from omendb_common.wire.joined_calls import JoinedLookups, JoinedSearches, split_hits, split_looked
from tests.unit.wire.frame_cases import soon, until
from tests.unit.wire.shard_cases import SHARD, answer, hits, plain, search

Searches = Coalescer[Search, ShardHits]


class Node:
    """Answers searches, and remembers them; it can be made to wait."""

    def __init__(self) -> None:
        self.calls: list[Search] = []
        self.deadlines: list[Deadline] = []
        self.ready = asyncio.Event()
        self.ready.set()
        self.cancelled = 0

    async def __call__(self, call: Search, deadline: Deadline) -> ShardHits:
        self.calls.append(call)
        self.deadlines.append(deadline)
        try:
            await self.ready.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return answer(call)


def play(scene: Callable[[Node, Searches], Awaitable[None]], **options: int) -> Node:
    async def whole() -> Node:
        node = Node()
        joined = Coalescer(node, JoinedSearches(), **options)
        async with asyncio.timeout(30):
            await scene(node, joined)
            await joined.close()
        assert len(asyncio.all_tasks()) == 1
        return node

    return asyncio.run(whole())


def test_searches_of_one_moment_are_one_call() -> None:
    async def scene(node: Node, joined: Searches) -> None:
        asked = [search(i, rows=1 + i % 3) for i in range(20)]
        got = await asyncio.gather(*(joined.ask(call, soon()) for call in asked))
        assert [plain(g) for g in got] == [plain(answer(call)) for call in asked]

    assert [len(call.queries) for call in play(scene).calls] == [sum(1 + i % 3 for i in range(20))]


def test_who_comes_in_the_next_turn_still_joins_and_nobody_waits_for_ever() -> None:
    async def scene(node: Node, joined: Searches) -> None:
        tasks = []
        for number in range(40):
            tasks.append(asyncio.create_task(joined.ask(search(number), soon())))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        sizes = [len(call.queries) for call in node.calls]
        assert sum(sizes) == 40
        assert 2 < sizes[0] < 20

    play(scene)


def test_one_that_comes_alone_leaves_alone_and_at_once() -> None:
    async def scene(node: Node, joined: Searches) -> None:
        node.ready.clear()
        task = asyncio.create_task(joined.ask(search(1), soon()))
        # The task, a turn that brings no other search, and the call's own task: no timer, no waiting.
        for _ in range(4):
            await asyncio.sleep(0)
        assert len(node.calls) == 1
        node.ready.set()
        await task

    play(scene)


DIFFERENT: list[dict[str, Any]] = [
    {"k": 4},
    {"field": "title"},
    {"condition": F.eq("a", 1)},
    {"condition": F.eq("a", True)},
    {"exact": True},
    {"ef": 9},
    {"recall_target": 0.9},
    {"score_threshold": 0.5},
    {"payload": True},
    {"vectors": True},
    {"shard": ShardRef("u", 1, 1, 1)},
    {"shard": ShardRef("u", 0, 2, 1)},
    {"queries": np.ones((1, 2), np.float16)},
    {"queries": np.ones((1, 3), np.float32)},
]


def test_only_searches_that_say_the_same_travel_together() -> None:
    async def scene(node: Node, joined: Searches) -> None:
        calls = [search(1), *(search(1, **change) for change in DIFFERENT)]
        await asyncio.gather(*(joined.ask(call, soon()) for call in calls * 2))

    node = play(scene)
    assert len(node.calls) == len(DIFFERENT) + 1 and all(len(call.queries) == 2 for call in node.calls)


def test_what_queues_while_calls_are_under_way_goes_into_the_next() -> None:
    async def scene(node: Node, joined: Searches) -> None:
        node.ready.clear()
        tasks = []
        for i in range(5):
            tasks += [asyncio.create_task(joined.ask(search(i), soon())) for _ in range(2)]
            await until(lambda i=i: len(node.calls) == min(i + 1, 2))  # type: ignore[misc]
        node.ready.set()
        await asyncio.gather(*tasks)

    assert [len(call.queries) for call in play(scene, calls_max=2).calls] == [2, 2, 6]


def test_a_call_has_a_greatest_size() -> None:
    async def scene(node: Node, joined: Searches) -> None:
        asked = [search(i, rows=3) for i in range(5)] + [search(7, rows=8), search(8, rows=9)]
        got = await asyncio.gather(*(joined.ask(call, soon()) for call in asked))
        assert [plain(g) for g in got] == [plain(answer(call)) for call in asked]

    assert sorted(len(call.queries) for call in play(scene, size_max=8).calls) == [3, 6, 6, 8, 9]


def test_nobody_is_cut_short_by_another_and_each_ends_at_its_own_deadline() -> None:
    async def scene(node: Node, joined: Searches) -> None:
        node.ready.clear()
        late = soon()
        patient = asyncio.create_task(joined.ask(search(1), late))
        with pytest.raises(DeadlineExceededError):
            await joined.ask(search(2), soon(0.02))
        assert node.deadlines == [late] and not node.cancelled
        node.ready.set()
        assert plain(await patient) == plain(answer(search(1)))

    play(scene)


def test_a_call_that_nobody_waits_for_is_ended() -> None:
    async def scene(node: Node, joined: Searches) -> None:
        node.ready.clear()
        tasks = [asyncio.create_task(joined.ask(search(i), soon())) for i in range(2)]
        await until(lambda: len(node.calls) == 1)
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        assert not node.cancelled
        tasks[1].cancel()
        await until(lambda: node.cancelled == 1)

    play(scene)


def test_who_leaves_before_the_call_is_not_in_it() -> None:
    async def scene(node: Node, joined: Searches) -> None:
        node.ready.clear()
        first = asyncio.create_task(joined.ask(search(0), soon()))
        await until(lambda: len(node.calls) == 1)
        tasks = [asyncio.create_task(joined.ask(search(i), soon())) for i in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait(tasks[1:2])
        node.ready.set()
        await asyncio.gather(first, tasks[0], tasks[2])

    assert [call.queries[:, 0].tolist() for call in play(scene, calls_max=1).calls] == [[0.0], [0.0, 2.0]]


def test_an_error_is_everybodys_and_the_next_call_is_made() -> None:
    async def scene(node: Node, joined: Searches) -> None:
        async def fail(call: Search, deadline: Deadline) -> ShardHits:
            raise NotFoundError("gone", field="x")

        joined._send = fail
        failed = await asyncio.gather(*(joined.ask(search(i), soon()) for i in range(3)), return_exceptions=True)
        assert [(type(error), str(error)) for error in failed] == [(NotFoundError, "x: gone")] * 3
        assert len({id(error) for error in failed}) == 3
        joined._send = node
        await joined.ask(search(1), soon())

    play(scene)


def test_an_answer_to_other_queries_is_refused() -> None:
    async def scene(node: Node, joined: Searches) -> None:
        async def short(call: Search, deadline: Deadline) -> ShardHits:
            return answer(call._replace(queries=call.queries[:1]))

        joined._send = short
        failed = await asyncio.gather(*(joined.ask(search(i), soon()) for i in range(3)), return_exceptions=True)
        assert all(isinstance(error, UnavailableError) for error in failed)

    play(scene)


def test_a_refusal_is_everybodys() -> None:
    refusal = ShardHits(Verdict.STALE_EPOCH, hlc=7)
    assert split_hits(refusal, [1, 2]) == [refusal, refusal]


def test_those_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalesce, "WAITING_MAX", 2)

    async def scene(node: Node, joined: Searches) -> None:
        node.ready.clear()
        tasks = [asyncio.create_task(joined.ask(search(0), soon()))]
        await until(lambda: len(node.calls) == 1)
        tasks += [asyncio.create_task(joined.ask(search(i), soon())) for i in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(ResourceExhaustedError):
            await joined.ask(search(3), soon())
        node.ready.set()
        await asyncio.gather(*tasks)

    play(scene, calls_max=1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.data())
def test_parts_are_the_whole(rows: list[int], data: st.DataObject) -> None:
    whole = data.draw(hits(sum(rows)))
    parts = split_hits(whole, rows)
    assert [len(part.counts) for part in parts] == rows
    assert np.concatenate([p.distances for p in parts]).tobytes() == whole.distances.tobytes()
    assert [i for p in parts for i in p.ids.to_list()] == whole.ids.to_list()
    assert np.concatenate([p.stamps for p in parts]).tolist() == whole.stamps.tolist()
    if whole.payload is not None and whole.payload.num_columns:
        assert [row for p in parts if p.payload for row in p.payload.to_pylist()] == whole.payload.to_pylist()
    if whole.vectors is not None:
        assert sum(len(p.vectors) for p in parts if p.vectors is not None) == len(whole.vectors)
    assert abs(sum(p.work.cost_estimate for p in parts) - whole.work.cost_estimate) < 1e-6


def looked(call: Lookup) -> Looked:
    """Every third id is unknown, and every odd one deleted or carries a field of its own."""
    ids = np.array(call.ids.to_list(), np.uint64)
    states = np.select([ids % 3 == 0, ids % 2 == 1], [State.ABSENT, State.DELETED], State.LIVE).astype(np.uint8)
    live = ids[states == State.LIVE]
    odd = np.flatnonzero(ids % 2 == 1)
    return Looked(
        Verdict.OK,
        states,
        ids + np.uint64(100),
        ids + np.uint64(200),
        (),
        pa.record_batch({"a#i": pa.array(live.astype(np.int64))}) if call.payload else None,
        {name: np.stack([live, live], axis=1).astype(np.float32) for name in call.vectors},
        7,
        overlays=Overlays.of(odd, ids[odd], ids[odd] + np.uint64(300)),
    )


def told(answer: Looked) -> tuple[Any, ...]:
    return (
        answer.states.tolist(),
        answer.stamps.tolist(),
        answer.digests.tolist(),
        None if answer.payload is None else answer.payload.to_pylist(),
        {name: column.tolist() for name, column in answer.vectors.items()},
        [column.tolist() for column in answer.overlays],
    )


@pytest.mark.parametrize("content", [{}, {"payload": True, "vectors": ("", "title")}])
def test_look_ups_of_one_moment_are_one_call(content: dict[str, Any]) -> None:
    asked: list[Lookup] = []

    async def send(call: Lookup, deadline: Deadline) -> Looked:
        asked.append(call)
        return looked(call)

    async def scene() -> None:
        joined = Coalescer(send, JoinedLookups())
        # Several may name the same id, and one may name none.
        calls = [Lookup(SHARD, IdColumn.of([*range(i, i + i % 4)]), brief=True, **content) for i in range(12)]
        got = await asyncio.gather(*(joined.ask(call, soon()) for call in calls))
        assert [told(g) for g in got] == [told(looked(call)) for call in calls]
        await joined.close()

    asyncio.run(scene())
    assert [len(call.ids) for call in asked] == [sum(i % 4 for i in range(12))]


def test_look_ups_that_want_something_else_travel_apart_and_those_of_records_alone() -> None:
    asked: list[Lookup] = []

    async def send(call: Lookup, deadline: Deadline) -> Looked:
        asked.append(call)
        return looked(call)

    async def scene() -> None:
        joined = Coalescer(send, JoinedLookups())
        ids = IdColumn.of([1, 2])
        kinds = [{"brief": True}, {}, {"payload": True}, {"vectors": ("",)}, {"records": True}, {"records": True}]
        calls = [Lookup(SHARD, ids, **kind) for kind in kinds]  # type: ignore[arg-type]  # flags and names
        calls.append(Lookup(SHARD._replace(epoch=9), ids))
        await asyncio.gather(*(joined.ask(call, soon()) for call in calls))
        await joined.close()

    asyncio.run(scene())
    assert len(asked) == 7


def test_an_answer_of_another_length_is_an_error_of_all_and_a_refusal_that_of_all() -> None:
    refusal = Looked(Verdict.REFUSED)
    assert split_looked(refusal, [1, 2]) == [refusal, refusal]
    with pytest.raises(UnavailableError):
        split_looked(looked(Lookup(SHARD, IdColumn.of([1, 2]))), [1, 2])
