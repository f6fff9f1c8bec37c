"""Many clients, few ids, bad weather and clocks that disagree: every id stays one register (P3, P4, P8, P9)."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from omendb_chaos.checkers.linearizability import UNKNOWN, Operation, check
from omendb_chaos.checkers.points import FieldOfPoint, PointOfTwo, field_by_field
from omendb_chaos.sim.faulty_node import Weather
from omendb_common.errors import (
    AlreadyExistsError,
    DeadlineExceededError,
    NotFoundError,
    OmenDBError,
    UnavailableError,
    VersionConflictError,
)
from omendb_common.filters import Filter
from omendb_common.filters import FilterOp as F
from omendb_common.ids import IdColumn
from omendb_common.overlays import Overlays
from omendb_common.payload import columns_from_rows, rows_from_columns
from omendb_router.face_calls import Question, Seen
from omendb_router.router import Router
from tests.unit.router.engine_nodes import agree
from tests.unit.router.router_cases import MAJORITY, ONE, VERIFIED, Cluster, fetch, play, put, vector

IDS = [1, 2]
CLIENTS = 4
STEPS = 9
QUICK_S = 0.4
MUCH_LATER_S = 1e6
KNOWN_TORN = [88, 279, 377]
"""Seeds in which a search at majority met versions that no replica had whole."""
UNMATCHED = "nothing that has an extra"
"""What is said of a point that a filter by its extra did not bring: it is not there, or has none."""


class Shown(FieldOfPoint):
    """What was found of one part of a point."""

    def agrees(self, expected: Any, result: Any) -> bool:
        """See ``Specification``."""
        return expected in (None, 0) if result == UNMATCHED else bool(expected == result)


@dataclass
class Story:
    """What happened: operations by id, and what each search, page or filter showed of an id, as a read.

    Nobody else need see what a search shows, as long as it is not older than what was known before: each is a read of
    its own, that may take effect at any time after it began.
    """

    seen: Seen
    history: list[Operation] = field(default_factory=list)
    searches: list[Operation] = field(default_factory=list)
    unknown: int = 0
    once: int = 0
    swaps: list[int] = field(default_factory=lambda: [0, 0])
    """Creations that were refused, and that took place."""
    changes: list[int] = field(default_factory=lambda: [0, 0])
    """The same of writes to points as they were seen."""

    def check(self) -> None:
        verdict = check(self.history, PointOfTwo())
        assert verdict.ok, verdict.why
        for shown in self.searches:
            if self.seen.consistency == "verified" and shown.result in (None, UNMATCHED):
                continue  # one replica did not find it: what is promised is about what is shown
            before = [o for o in self.history if o.key == shown.key]
            story = field_by_field([*before, shown])
            if shown.result == UNMATCHED:
                said = replace(shown, key=(shown.key, "extra"))
                story = iter([*(o for o in field_by_field(before) if o.key == said.key), said])
            verdict = check(story, Shown())
            assert verdict.ok, (shown, verdict.why)


class Client:
    """One client after the other calls routers, and notes what it was told."""

    conditions = False
    """Whether it writes on condition, too."""

    def __init__(self, c: Cluster, routers: list[Router], story: Story, rng: random.Random, number: int) -> None:
        self.c, self.routers, self.story, self.rng = c, routers, story, rng
        self.name = f"client {number}"
        self.values = iter(range(number * 1000 + 1, number * 1000 + 1000))

    async def run(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(self.rng.random() * 0.3)
            kinds = [self.write, self.write, self.delete, self.update, self.extra, self.read, self.read, self.search]
            if self.conditions:
                kinds += [self.create] * 3 + [self.swap] * 4 + [self.delete] * 2
            step = self.rng.choice(kinds)
            await step(self.rng.choice(self.routers), self.rng.choice(IDS))

    def now(self) -> float:
        return self.c.clock.mono_s()

    def note(self, point_id: int, value: int | None, called: float, certain: bool) -> None:
        write = Operation(self.name, point_id, ("write", value), UNKNOWN, called)
        self.story.history.append(replace(write, result=None, ended=self.now()) if certain else write)
        self.story.unknown += not certain

    def saw(self, point_id: int, value: tuple[int, int] | None, called: float) -> None:
        self.story.history.append(Operation(self.name, point_id, ("read",), value, called, self.now()))

    async def write(self, router: Router, point_id: int) -> None:
        value, called = next(self.values), self.now()
        try:
            await put(router, [point_id], [float(value)], self.c.soon(QUICK_S))
            self.note(point_id, value, called, True)
        except (UnavailableError, DeadlineExceededError) as error:
            if error.outcome == "none":
                return
            await self.again(error, router, point_id, value, called)

    async def again(self, error: OmenDBError, router: Router, point_id: int, value: int, called: float) -> None:
        """Send it once more under its stamp, or leave it."""
        certain = False
        stamp = getattr(error, "stamp", None)
        if stamp is not None and self.rng.random() < 0.5:
            try:
                done = await put(router, [point_id], [float(value)], self.c.soon(QUICK_S), retry_stamp=stamp)
                certain = not done.superseded
            except (UnavailableError, DeadlineExceededError) as failed:
                assert failed.outcome == "unknown"
        self.note(point_id, value, called, certain)

    async def delete(self, router: Router, point_id: int) -> None:
        called = self.now()
        try:
            await router.delete("c", IdColumn.of([point_id]), deadline=self.c.soon(QUICK_S))
            self.note(point_id, None, called, True)
        except (UnavailableError, DeadlineExceededError) as error:
            if error.outcome == "unknown":
                self.note(point_id, None, called, False)

    async def update(self, router: Router, point_id: int) -> None:
        """An update of everything there is: a write, where the point exists."""
        value, called = next(self.values), self.now()
        payload = columns_from_rows([{"v": float(value), "u": 0}])
        try:
            await router.update(
                "c", IdColumn.of([point_id]), {"": vector(value)}, payload, deadline=self.c.soon(QUICK_S)
            )
            # Committed, or deleted while it ran: either way it may be told as if it had been seen by nobody.
            self.note(point_id, value, called, False)
        except NotFoundError:
            self.saw(point_id, None, called)
        except (UnavailableError, DeadlineExceededError) as error:
            if error.outcome == "unknown":
                self.note(point_id, value, called, False)

    async def extra(self, router: Router, point_id: int) -> None:
        """An update of one field, which may come over any version that a replica has."""
        value, called = next(self.values), self.now()
        extra = Operation(self.name, point_id, ("extra", value), UNKNOWN, called)
        try:
            payload = columns_from_rows([{"u": value}])
            await router.update("c", IdColumn.of([point_id]), None, payload, deadline=self.c.soon(QUICK_S))
            self.story.history.append(replace(extra, result=None, ended=self.now()))
        except NotFoundError:
            self.saw(point_id, None, called)
        except (UnavailableError, DeadlineExceededError) as error:
            if error.outcome == "unknown":
                self.story.history.append(extra)
                self.story.unknown += 1

    async def create(self, router: Router, point_id: int) -> None:
        """A write of a point that must not be there, sent again under its stamp when its outcome is unknown."""
        value, called = next(self.values), self.now()
        swap, stamp = Operation(self.name, point_id, ("swap", None, value), UNKNOWN, called), None
        for _ in range(3):
            try:
                soon = self.c.soon(4 * QUICK_S)
                await put(router, [point_id], [float(value)], soon, create_only=True, retry_stamp=stamp)
                self.swapped(swap, True)
                return
            except AlreadyExistsError:
                self.swapped(swap, False)
                return
            except (UnavailableError, DeadlineExceededError) as error:
                assert stamp is None or error.outcome == "unknown"
                if error.outcome == "none":
                    return
                stamp = error.stamp
                if stamp is None or self.rng.random() < 0.3:
                    break
        self.story.history.append(swap)
        self.story.unknown += 1

    async def swap(self, router: Router, point_id: int) -> None:
        """A write of a point that must be as it was just seen, sent again under its stamp when nobody knows."""
        value, ids = next(self.values), IdColumn.of([point_id])
        try:
            soon = self.c.soon(8 * QUICK_S)
            found = await router.get("c", ids, payload=True, vectors=False, seen=self.story.seen, deadline=soon)
        except (UnavailableError, DeadlineExceededError):
            return
        rows = rows_from_columns(found.payload, n=len(found.ids)) if found.payload is not None else []
        state = points_of(found.ids, rows).get(point_id)
        versions = found.versions if state is not None else np.zeros(1, np.uint64)
        await asyncio.sleep(self.rng.choice([0.0, 3.0]) * self.rng.random())  # while others change it, perhaps
        kind = self.rng.choice(["upsert", "update", "delete"]) if state is not None else "upsert"
        written = None if kind == "delete" else value
        called, stamp = self.now(), None
        swap = Operation(self.name, point_id, ("swap", state, written), UNKNOWN, called)
        for _ in range(3):
            again: dict[str, Any] = {"versions": versions, "retry_stamp": stamp}
            again["deadline"] = self.c.soon(4 * QUICK_S)
            try:
                await self.send(router, kind, ids, value, again)
                self.story.changes[True] += 1
                self.story.history.append(replace(swap, result=True, ended=self.now()))
                return
            except VersionConflictError as error:
                self.story.changes[False] += 1
                # The same content may have another version by now: only whether there is a point is told.
                there = replace(swap, call=("exists",), result=bool(error.found[point_id]), ended=self.now())
                self.story.history.append(there)
                return
            except (UnavailableError, DeadlineExceededError) as error:
                assert stamp is None or error.outcome == "unknown"
                if error.outcome == "none":
                    return
                stamp = error.stamp
                if stamp is None or self.rng.random() < 0.3:
                    break
        self.story.history.append(swap)
        self.story.unknown += 1

    async def send(self, router: Router, kind: str, ids: IdColumn, value: int, more: dict[str, Any]) -> None:
        payload = columns_from_rows([{"v": float(value), "u": 0}])
        if kind == "upsert":
            await router.upsert("c", ids, {"": vector(value)}, payload, 1, **more)
        elif kind == "update":
            await router.update("c", ids, {"": vector(value)}, payload, **more)
        else:
            await router.delete("c", ids, **more)

    def swapped(self, swap: Operation, done: bool) -> None:
        self.story.swaps[done] += 1
        self.story.history.append(replace(swap, result=done, ended=self.now()))

    async def read(self, router: Router, point_id: int) -> None:
        called = self.now()
        try:
            found = await fetch(router, [point_id], self.c.soon(QUICK_S), self.story.seen)
        except (UnavailableError, DeadlineExceededError):
            return
        row = found.get(point_id)
        self.saw(point_id, None if row is None else (int(row["v"]), row.get("u", 0)), called)

    async def search(self, router: Router, point_id: int) -> None:
        """One of the ways to find points without their ids."""
        called = self.now()
        condition = self.rng.choice([None, F.gte("u", 1)])
        try:
            if self.rng.random() < 0.7:
                found = await self.nearest(router, condition, called)
            else:
                found = await self.page(router, condition)
        except (UnavailableError, DeadlineExceededError):
            return
        for key in IDS:
            value = found.get(key, None if condition is None else UNMATCHED)
            self.show(key, value, called)

    def show(self, point_id: int, value: Any, called: float) -> None:
        self.story.searches.append(Operation(self.name, point_id, ("read",), value, called, MUCH_LATER_S))

    async def nearest(self, router: Router, condition: Filter | None, called: float) -> dict[int, Any]:
        question = Question(vector(0), 5, condition=condition, payload=True)
        hits = await router.search("c", question, seen=self.story.seen, deadline=self.c.soon(QUICK_S))
        assert hits.payload is not None
        rows = rows_from_columns(hits.payload, n=len(hits.ids))
        found = points_of(hits.ids, rows)
        for row, (key, (_, extra)) in enumerate(found.items()):
            # What it was found by; where a point changes faster than it is read, its content may be of another moment.
            self.show(key, (round(float(hits.distances[0, row])), extra), called)
        return found

    async def page(self, router: Router, condition: Filter | None) -> dict[int, Any]:
        page = await router.scroll(
            "c", None, 5, condition, payload=True, vectors=False, seen=self.story.seen, deadline=self.c.soon(QUICK_S)
        )
        assert page.payload is not None
        return points_of(page.ids, rows_from_columns(page.payload, n=len(page.ids)))


def points_of(ids: IdColumn, rows: list[dict[str, Any]]) -> dict[int, Any]:
    """The value and the extra of points, by id."""
    return {int(i): (int(row["v"]), row.get("u") or 0) for i, row in zip(ids.to_list(), rows, strict=True)}


async def bad_weather(c: Cluster, rng: random.Random) -> None:
    """Every now and then another network."""
    while True:
        for name in c.network:
            roll = rng.random()
            slow = rng.choice([0.001, 0.01, 0.15])
            c.network[name].weather = Weather(
                refused=rng.choice([0, 0, 0.3]),
                lost_calls=rng.choice([0, 0, 0.3]),
                lost_answers=rng.choice([0, 0, 0.4]),
                doubled=rng.choice([0, 0.3]),
                delay_s=(0.0, slow),
                cut=roll < 0.08,
                down=roll > 0.92,
            )
        await asyncio.sleep(rng.uniform(0.05, 0.6))


async def agreeing_often(c: Cluster, rng: random.Random) -> None:
    """Replicas of the real engine agree many times in a run, through stamps of just now, while anything goes on."""

    async def pause() -> None:
        if rng.random() < 0.5:
            await asyncio.sleep(rng.random() * 0.02)

    while c.engines:
        await asyncio.sleep(rng.random() * 0.1)
        await agree(c.engines, rng.choice([0.0, 0.05, 0.5]), pause)


def run(seed: int, seen: Seen, nodes: int = 3, *, engine: bool = False, conditions: bool = False) -> Story:
    rng = random.Random(seed)
    story = Story(seen)

    async def tell(c: Cluster) -> None:
        await c.collection(replication=nodes)
        skews = [0.0, rng.uniform(-300, 300), rng.choice([0.0, 1500.0, -1500.0])]
        routers = [await c.router(skew, clock_offset_ms_max=60_000.0, circuit_failures=20) for skew in skews]
        for clock in c.clocks.values():
            clock.skew_ms = rng.uniform(-200, 200)
        weather = asyncio.ensure_future(bad_weather(c, rng))
        agreeing = asyncio.ensure_future(agreeing_often(c, rng))
        clients = [Client(c, routers, story, random.Random(rng.random()), n) for n in range(1, CLIENTS + 1)]
        for client in clients:
            client.conditions = conditions
        await asyncio.gather(*[client.run(STEPS) for client in clients])
        weather.cancel()
        agreeing.cancel()
        c.clear()
        await asyncio.sleep(10)
        for router in routers:
            for point_id in IDS:
                await clients[0].read(router, point_id)
            await clients[0].search(router, 0)
            story.once += int(router.figures()["searches_once_total"])

    play(tell, seed=seed, nodes=nodes, engine=engine)
    return story


@pytest.mark.parametrize("nodes, seeds, engine", [(3, 30, False), (2, 8, False), (5, 8, False), (3, 8, True)])
def test_every_id_is_one_register(nodes: int, seeds: int, engine: bool) -> None:
    unknown = once = 0
    for seed in range(seeds):
        story = run(seed, MAJORITY, nodes, engine=engine)
        story.check()
        unknown += story.unknown
        once += story.once
    # The weather was bad enough to mean something.
    assert unknown > 20
    assert once > 20 or not engine


@pytest.mark.parametrize("nodes, seeds, engine", [(3, 40, False), (2, 10, False), (5, 10, False), (3, 12, True)])
def test_every_id_is_one_register_with_writes_on_condition(nodes: int, seeds: int, engine: bool) -> None:
    refused = done = unlike = changed = 0
    for seed in range(seeds):
        story = run(seed, MAJORITY, nodes, engine=engine, conditions=True)
        story.check()
        refused, done = refused + story.swaps[False], done + story.swaps[True]
        unlike, changed = unlike + story.changes[False], changed + story.changes[True]
    # Often enough all of it happened to mean something.
    assert 4 * refused > seeds and 4 * done > seeds
    assert 4 * changed > seeds and (unlike > 2 or seeds < 40), (unlike, changed)


@pytest.mark.parametrize("seed", [88, 392])
def test_updates_of_one_field_hide_nothing_that_came_before_them(seed: int) -> None:
    """Seeds in which an update was laid over a version that others had left behind."""
    run(seed, MAJORITY).check()


@pytest.mark.parametrize("engine, seeds", [(False, 20), (True, 5)])
def test_a_verified_search_shows_nothing_old(engine: bool, seeds: int) -> None:
    for seed in range(seeds):
        run(seed, VERIFIED, engine=engine).check()


def test_the_same_check_finds_searches_that_compare_newest_stamps_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was: whatever lies under a field update is taken for what its replica had."""
    monkeypatch.setattr(Overlays, "spread", lambda self, stamps: (stamps, np.zeros(len(stamps), np.uint64)))

    def broken(seed: int) -> bool:
        try:
            run(seed, MAJORITY).check()
        except AssertionError:
            return True
        return False

    assert any(broken(seed) for seed in [*KNOWN_TORN, *range(100)])


def test_what_a_search_at_majority_may_show() -> None:
    def write(call: tuple[str, int | None], began: float, ended: float) -> Operation:
        return Operation("", 1, call, UNKNOWN if ended == float("inf") else None, began, ended)

    def may_show(value: Any, called: float) -> bool:
        story = Story(MAJORITY, history, [Operation("", 1, ("read",), value, called, MUCH_LATER_S)])
        try:
            story.check()
        except AssertionError:
            return False
        return True

    history = [write(("write", 1), 0, 1), write(("write", 2), 2, 3), write(("extra", 7), 3.1, 3.2)]
    history += [write(("write", None), 4, 9), write(("write", 3), 5, float("inf"))]
    told = [None, (1, 0), (2, 0), (2, 7), (3, 0), (3, 7), UNMATCHED]
    assert [may_show(v, called=7) for v in told] == [True, False, True, True, True, True, True]
    assert [may_show(v, called=10) for v in told] == [True, False, False, False, True, False, True]


def test_the_same_check_finds_reads_that_ask_one_replica_only() -> None:
    def broken(seed: int) -> bool:
        try:
            run(seed, ONE).check()
        except AssertionError:
            return True
        return False

    assert any(broken(seed) for seed in range(30))
