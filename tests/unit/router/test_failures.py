"""Every line of the failure table: what the router does when nodes, networks, clocks and coordinators misbehave."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from omendb_common.errors import DeadlineExceededError, NotFoundError, UnavailableError
from omendb_common.filters import FilterOp as F
from omendb_common.hlc import stamp_at
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows, rows_from_columns
from omendb_common.records import Op, WriteBatch
from omendb_common.ring import RING
from omendb_common.shard_calls import Apply, Verdict
from omendb_common.topology import ReplicaPlace, Shard
from omendb_router.asked import Asked
from omendb_router.face_calls import Question, Seen
from omendb_router.nodes import NodePool
from omendb_router.router import Router
from tests.unit.router.router_cases import DEFAULT, MAJORITY, ONE, VERIFIED, Cluster, fetch, nearest, play, put, vector


def test_one_node_down_costs_nothing_but_its_copy() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        c.weather("d1", down=True)
        await put(r, [1], [1], c.soon())
        assert not c.holds("d1", 1)
        assert await fetch(r, [1], c.soon()) == {1: {"v": 1}}
        assert [i for i, _ in await nearest(r, 0, 1, c.soon(), MAJORITY)] == [1]
        assert [i for i, _ in await nearest(r, 0, 1, c.soon(), ONE)] == [1]

    play(story)


def test_a_node_that_says_nothing_is_not_waited_for() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        c.weather("d1", cut=True)
        for i in range(20):
            began = c.clock.mono_s()
            await put(r, [i], [1], c.soon())
            assert await fetch(r, [i], c.soon()) == {i: {"v": 1}}
            assert c.clock.mono_s() - began < 0.5

    play(story)


def test_too_few_acknowledgements_leave_the_outcome_unknown_and_the_stamp_settles_it() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        c.weather("d1", cut=True)
        c.weather("d2", cut=True)
        with pytest.raises(DeadlineExceededError) as late:
            await put(r, [1], [1], c.soon())
        assert (late.value.outcome, late.value.acked, late.value.required) == ("unknown", 1, 2)
        assert c.holds("d3", 1)
        c.clear()
        other = await c.router()
        written = await put(other, [1], [1], c.soon(), retry_stamp=late.value.stamp)
        assert (written.stamp, written.superseded) == (late.value.stamp, 0)
        assert await fetch(other, [1], c.soon()) == {1: {"v": 1}}

    play(story)


def test_nothing_sent_is_nothing_done() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        for name in c.network:
            c.weather(name, down=True)
        with pytest.raises(UnavailableError) as refused:
            await put(r, [1], [1], c.soon())
        assert (refused.value.outcome, refused.value.acked, refused.value.required) == ("none", 0, 2)

    play(story)


def test_when_most_replicas_are_known_to_be_away_a_write_is_not_even_sent() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        c.weather("d1", down=True)
        c.weather("d2", down=True)
        outcomes = []
        for i in range(8):
            with pytest.raises(UnavailableError) as failed:
                await put(r, [i], [1], c.soon())
            outcomes.append(failed.value.outcome)
        assert outcomes[0] == "unknown"
        assert outcomes[-1] == "none"
        assert not c.holds("d3", 7)
        # The circuits close again by themselves once the nodes answer.
        c.clear()
        await put_until_it_works(c, r, 8)

    play(story)


async def put_until_it_works(c: Cluster, r: Router, point_id: int) -> None:
    """Try until the deadline of the test."""
    deadline = c.soon(60)
    while True:
        try:
            await put(r, [point_id], [1], c.soon())
            return
        except UnavailableError:
            deadline.check("waiting for the circuit to close")
            await sleep(c, 0.1)


def test_a_minority_reads_at_one_and_says_that_it_may_be_stale() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        await put(r, [1], [1], c.soon())
        c.weather("d1", down=True)
        c.weather("d2", down=True)
        assert await fetch(r, [1], c.soon(), ONE) == {1: {"v": 1}}
        for _ in range(3):
            with pytest.raises(UnavailableError) as refused:
                await fetch(r, [1], c.soon(), MAJORITY)
            assert refused.value.outcome == "none"

    play(story)


def test_an_old_map_is_renewed_and_the_write_keeps_its_stamp() -> None:
    async def story(c: Cluster) -> None:
        info = await c.collection()
        r = await c.router()
        await put(r, [1], [1], c.soon())
        # The router hears of the change only by asking: replicas refuse its epoch first.
        r._maps._source = Behind(c)  # type: ignore[assignment]
        c.metadata.put(replace(info, shards=(replace(info.shards[0], epoch=99),)))
        written = await put(r, [2], [2], c.soon())
        assert written.durability == "fsync"
        assert await fetch(r, [1, 2], c.soon()) == {1: {"v": 1}, 2: {"v": 2}}
        assert sum(n.calls["apply"] for n in c.network.values()) == 9

    play(story)


class Behind:
    """A topology source that learns of changes only when it is asked to refresh."""

    def __init__(self, c: Cluster) -> None:
        self._metadata = c.metadata
        self._known = c.metadata.topology

    @property
    def topology(self) -> object:
        return self._known

    async def refresh(self, revision: int, deadline: object) -> object:
        self._known = await self._metadata.refresh(revision, deadline)  # type: ignore[arg-type]
        return self._known


def test_an_old_map_and_no_coordinators_fail_without_doing_anything() -> None:
    async def story(c: Cluster) -> None:
        info = await c.collection()
        r = await c.router()
        r._maps._source = Behind(c)  # type: ignore[assignment]
        c.metadata.put(replace(info, shards=(replace(info.shards[0], epoch=99),)))
        c.metadata.reachable = False
        with pytest.raises(UnavailableError) as refused:
            await put(r, [2], [2], c.soon())
        assert refused.value.outcome == "none"
        with pytest.raises(UnavailableError):
            await fetch(r, [2], c.soon())
        assert not any(c.holds(name, 2) for name in c.network)

    play(story)


def test_a_dropped_collection_is_not_found() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        r._maps._source = Behind(c)  # type: ignore[assignment]
        await c.metadata.drop_collection("c", c.soon())
        with pytest.raises(NotFoundError):
            await put(r, [1], [1], c.soon())
        with pytest.raises(NotFoundError):
            await fetch(r, [1], c.soon())

    play(story)


@pytest.mark.parametrize("first_ms, second_ms", [(300, 0), (0, -1900), (1500, -400), (-300, 300)])
def test_completed_writes_are_ordered_as_they_happened_whatever_the_clocks(first_ms: float, second_ms: float) -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        first, second = await c.router(first_ms, clock_offset_ms_max=60_000.0), await c.router(second_ms)
        await put(first, [1, 2], [1, 1], c.soon())
        await put(second, [2, 3], [2, 2], c.soon())
        await first.delete("c", IdColumn.of([3]), deadline=c.soon())
        for router in (first, second):
            assert await fetch(router, [1, 2, 3], c.soon()) == {1: {"v": 1}, 2: {"v": 2}}

    play(story)


def test_a_router_whose_clock_is_too_far_ahead_asks_before_it_stamps_and_writes_nothing() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router(3000)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="clock") as refused:
                await put(r, [1], [1], c.soon())
            assert refused.value.outcome == "none"
        assert sum(n.calls["apply"] for n in c.network.values()) == 0
        assert await fetch(r, [1], c.soon()) == {}

    play(story)


@pytest.mark.parametrize("heard_before", [False, True])
def test_a_stamp_of_the_future_reaches_no_node_whose_clock_is_as_wrong(heard_before: bool) -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        if heard_before:
            await put(r, [2], [2], c.soon())
        applied = sum(n.calls["apply"] for n in c.network.values())
        clock: Any = r._clock
        clock.skew_ms = c.clocks["d1"].skew_ms = 3_600_000.0
        with pytest.raises(UnavailableError, match="half of the data nodes or more") as refused:
            await put(r, [1], [1], c.soon())
        assert refused.value.outcome == "none"
        assert sum(n.calls["apply"] for n in c.network.values()) == applied

    play(story)


def test_a_router_that_was_suspended_asks_what_time_it_is_and_goes_on_at_once() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        await put(r, [1], [1], c.soon())
        # Its monotonic clock stood still: what it heard before now says that it is five seconds ahead.
        clock: Any = r._clock
        for one in (clock, *c.clocks.values()):
            one.skew_ms += 5000.0
        await put(r, [1], [2], c.soon())
        assert await fetch(r, [1], c.soon()) == {1: {"v": 2}}

    play(story)


def test_a_clock_far_behind_is_no_clock_to_stamp_by() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        good, late = await c.router(), await c.router(-60_000)
        await put(good, [1], [1], c.soon())
        for _ in range(3):
            with pytest.raises(UnavailableError, match="clock") as refused:
                await put(late, [1], [2], c.soon())
            assert refused.value.outcome == "none"
        assert await fetch(late, [1], c.soon()) == {1: {"v": 1}}

    play(story)


def test_a_repetition_never_overwrites_what_came_after() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        first = await put(r, [1], [1], c.soon())
        await put(r, [1], [2], c.soon())
        again = await put(r, [1], [1], c.soon(), retry_stamp=first.stamp)
        assert again.superseded == 1
        assert await fetch(r, [1], c.soon()) == {1: {"v": 2}}
        deleted = await r.delete("c", IdColumn.of([1]), deadline=c.soon())
        update = columns_from_rows([{"w": 1}])
        late = await r.update("c", IdColumn.of([1]), None, update, retry_stamp=first.stamp, deadline=c.soon())
        assert late.superseded == 1
        assert (await r.delete("c", IdColumn.of([1]), retry_stamp=deleted.stamp, deadline=c.soon())).superseded == 0

    play(story)


def test_a_lease_that_ran_out_stops_writes_but_no_reads() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router(lease_ahead_ms=60_000.0)
        await put(r, [1], [1], c.soon())
        c.metadata.reachable = False
        while True:
            try:
                await put(r, [1], [1], c.soon())
            except UnavailableError as error:
                assert error.outcome == "none"
                assert error.field == "lease"
                break
            await sleep(c, 0.5)
        assert 55 < c.clock.mono_s() < 80
        assert await fetch(r, [1], c.soon()) == {1: {"v": 1}}
        c.metadata.reachable = True
        await sleep(c, 1)
        await put(r, [1], [2], c.soon())

    play(story)


def test_writes_go_on_while_the_coordinators_are_away() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        await put(r, [1], [1], c.soon())
        c.metadata.reachable = False
        for _ in range(50):
            await sleep(c, 60)
            await put(r, [1], [2], c.soon())
            assert await fetch(r, [1], c.soon()) == {1: {"v": 2}}

    play(story)


async def sleep(c: Cluster, seconds: float) -> None:
    """Let virtual time pass."""
    began = c.clock.mono_s()
    await asyncio.sleep(seconds)
    assert c.clock.mono_s() >= began + seconds


def test_leases_are_renewed_behind_the_writes() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        stamps = []
        for _ in range(30):
            stamps.append((await put(r, [1], [1], c.soon())).stamp)
            await sleep(c, 1000)
        assert stamps == sorted(set(stamps))

    play(story)


def test_a_connection_that_cannot_be_closed_ends_no_housekeeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are renewed there too."""
    told: list[str] = []
    swept = 0

    async def sweep(_: NodePool) -> None:
        nonlocal swept
        swept += 1
        if swept == 1:
            raise RuntimeError("the handler is closed")

    monkeypatch.setattr(NodePool, "sweep", sweep)

    async def story(c: Cluster) -> None:
        c.loop.set_exception_handler(lambda _, context: told.append(repr(context["exception"])))
        await c.collection()
        await c.router()
        await sleep(c, 60)

    play(story)
    assert swept > 2 and told == ["RuntimeError('the handler is closed')"]


# -- repair


def test_what_was_read_once_stays_read() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        await put(r, [1], [1], c.soon())
        # A write that only d1 has: unknown to its writer, but once a majority read has shown it, it stays.
        c.weather("d2", cut=True)
        c.weather("d3", cut=True)
        with pytest.raises(DeadlineExceededError):
            await put(r, [1], [2], c.soon())
        c.clear()
        await sleep(c, 6)
        seen = [(await fetch(r, [1], c.soon()))[1]["v"] for _ in range(12)]
        assert seen == sorted(seen)
        assert 2 in seen
        assert (
            sum(
                c.memory[name].replicas[key].records[1].metadata()["v"] == 2
                for name in c.memory
                for key in c.memory[name].replicas
            )
            >= 2
        )

    play(story)


def test_absence_is_no_deletion_and_a_deletion_is_one() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        c.weather("d1", down=True)
        await put(r, [1, 2], [1, 2], c.soon())
        c.clear()
        await sleep(c, 6)
        c.weather("d2", down=True)
        assert await fetch(r, [1, 2], c.soon()) == {1: {"v": 1}, 2: {"v": 2}}
        await r.delete("c", IdColumn.of([1]), deadline=c.soon())
        c.clear()
        await sleep(c, 6)
        for away in ("d1", "d2", "d3"):
            c.weather(away, down=True)
            assert await fetch(r, [1, 2], c.soon()) == {2: {"v": 2}}
            assert [i for i, _ in await nearest(r, 1, 5, c.soon(), MAJORITY)] == [2]
            c.clear()
            await sleep(c, 6)

    play(story)


def test_updates_that_different_replicas_missed_are_put_together() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        await put(r, [1], [0], c.soon(), rows=[{"a": 0, "b": 0}])
        for away, key in (("d1", "a"), ("d2", "b")):
            c.weather(away, down=True)
            await r.update("c", IdColumn.of([1]), None, columns_from_rows([{key: 1}]), deadline=c.soon())
            c.clear()
            await sleep(c, 6)
        c.weather("d3", down=True)
        assert await fetch(r, [1], c.soon()) == {1: {"a": 1, "b": 1}}
        for name in ("d1", "d2"):
            (replica,) = c.memory[name].replicas.values()
            assert replica.records[1].metadata() == {"a": 1, "b": 1}

    play(story)


def test_an_update_brings_the_point_to_replicas_that_lack_it() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        c.weather("d1", down=True)
        await put(r, [1], [0], c.soon(), rows=[{"a": 0, "b": 0}])
        c.clear()
        await sleep(c, 6)
        c.weather("d2", down=True)
        await r.update("c", IdColumn.of([1]), None, columns_from_rows([{"a": 1}]), deadline=c.soon())
        (replica,) = c.memory["d1"].replicas.values()
        assert replica.records[1].metadata() == {"a": 1, "b": 0}

    play(story)


# -- searches at majority


@pytest.mark.parametrize("seen", [MAJORITY, VERIFIED], ids=["majority", "verified"])
def test_a_search_at_majority_shows_no_deleted_and_no_old_version(seen: Seen) -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        ids = list(range(40))
        await put(r, ids, [float(i) for i in ids], c.soon())
        c.weather("d1", down=True)
        await r.delete("c", IdColumn.of(list(range(0, 30, 3))), deadline=c.soon())
        await put(r, list(range(1, 30, 3)), [float(100 + i) for i in range(1, 30, 3)], c.soon())
        c.clear()
        await sleep(c, 6)
        moved = list(range(1, 30, 3))
        left = sorted([*range(2, 30, 3), *range(30, 40)])
        for away in ("d1", "d2", "d3"):
            c.weather(away, down=True)
            for k in (1, 5, 20, 30):
                expected = [*((i, float(i)) for i in left), *((i, 100.0 + i) for i in moved)][:k]
                assert await nearest(r, 0, k, c.soon(), seen) == expected
            found = await nearest(r, 0, 40, c.soon(), seen, condition=F.lt("v", 100))
            assert [i for i, _ in found] == left
            assert await r.count("c", F.gte("v", 100), seen=MAJORITY, deadline=c.soon()) == len(moved)
            c.clear()
            await sleep(c, 6)

    play(story)


@pytest.mark.parametrize("seen", [MAJORITY, VERIFIED, DEFAULT, ONE], ids=["majority", "verified", "default", "one"])
def test_a_field_update_over_a_deleted_version_brings_nothing_back(seen: Seen) -> None:
    """d3 misses a deletion and has a field update of the deleted point, newer than the deletion."""

    async def story(c: Cluster) -> None:
        info = await c.collection()
        r = await c.router()
        await put(r, [1, 2], [1, 2], c.soon())
        await sleep(c, 1)
        ref = Asked(info, info.shards[0], 1, 1).ref
        c.weather("d3", down=True)
        await r.delete("c", IdColumn.of([1]), deadline=c.soon())
        c.clear()
        await sleep(c, 6)
        late = WriteBatch(Op.UPDATE, IdColumn.of([1]), {}, columns_from_rows([{"u": 7}]))
        stamp = stamp_at(int(c.clock.wall_ms()))
        assert (await c.memory["d3"].apply(Apply(ref, stamp, late), c.soon())).verdict is Verdict.OK
        shown = set()
        for away in ("d1", "d2", "d1", "d2"):
            c.weather(away, down=True)
            shown |= {i for i, _ in await nearest(r, 0, 5, c.soon(), seen)}
            if seen is MAJORITY:
                page = await r.scroll("c", None, 9, payload=True, vectors=False, seen=seen, deadline=c.soon())
                assert page.ids.to_list() == [2]
                assert await r.count("c", F.gte("u", 7), seen=seen, deadline=c.soon()) == 0
            c.clear()
            await sleep(c, 6)
        assert shown == ({1, 2} if seen is ONE else {2})

    play(story)


def test_a_search_goes_deeper_when_most_of_what_one_replica_offers_is_gone() -> None:
    async def story(c: Cluster) -> None:
        await c.collection(replication=2, write_quorum=1, read_quorum=2)
        r = await c.router()
        ids = list(range(400))
        await put(r, ids, [float(i) for i in ids], c.soon())
        await sleep(c, 1)
        c.weather("d1", down=True)
        await r.delete("c", IdColumn.of(list(range(300))), deadline=c.soon())
        c.clear()
        await sleep(c, 6)
        assert [i for i, _ in await nearest(r, 0, 3, c.soon(), MAJORITY)] == [300, 301, 302]

    play(story)


def test_payload_of_a_majority_search_is_that_of_the_newest_version() -> None:
    async def story(c: Cluster) -> None:
        await c.collection(shards=3)
        r = await c.router()
        await put(r, list(range(30)), [float(i) for i in range(30)], c.soon())
        c.weather("d2", down=True)
        await put(r, list(range(0, 30, 2)), [i + 0.25 for i in range(0, 30, 2)], c.soon())
        c.clear()
        await sleep(c, 6)
        for _ in range(4):
            hits = await r.search(
                "c", Question(vector(0, 7), 30, payload=True, vectors=True), seen=MAJORITY, deadline=c.soon()
            )
            assert hits.counts.tolist() == [30, 30]
            assert hits.payload is not None and hits.vectors is not None
            said = [row["v"] for row in rows_from_columns(hits.payload)]
            ids = [i for i in hits.ids.to_list() if isinstance(i, int)]
            assert said == [i + 0.25 if i % 2 == 0 else float(i) for i in ids]
            assert hits.vectors[:, 0].tolist() == said

    play(story)


# -- moves


def test_a_session_sees_what_it_wrote_in_every_shard_that_it_wrote_to() -> None:
    async def story(c: Cluster) -> None:
        await c.collection(shards=2)
        r = await c.router()
        c.weather("d1", down=True)
        written = await put(r, list(range(8)), [float(i) for i in range(8)], c.soon())
        c.clear()
        await sleep(c, 6)
        stale = 0
        for _ in range(20):
            assert len(await nearest(r, 0, 9, c.soon(), Seen(session=written.session))) == 8
            assert len(await nearest(r, 0, 9, c.soon(), Seen())) == 8
            stale += len(await nearest(r, 0, 9, c.soon(), Seen(consistency="one"))) < 8
        assert stale, "one replica alone does not know of it"
        other = await put(r, [9], [9.0], c.soon())
        assert other.session != written.session

    play(story)


def test_while_a_replica_joins_both_sets_must_have_it() -> None:
    async def story(c: Cluster) -> None:
        info = await c.collection(replication=3)
        places = (ReplicaPlace("d1"), ReplicaPlace("d2"), ReplicaPlace("d3", "leaving"), ReplicaPlace("d4", "joining"))
        c.metadata.put(replace(info, shards=(Shard(0, 0, RING, 50, places),)))
        r = await c.router()
        await put(r, [1], [1], c.soon())
        await sleep(c, 0.1)
        assert all(c.holds(name, 1) for name in c.network)
        c.weather("d2", down=True)
        c.weather("d4", down=True)
        # d1 and d3 are a majority of the old set, d1 alone is none of the new.
        with pytest.raises(UnavailableError) as short:
            await put(r, [2], [2], c.soon())
        assert (short.value.outcome, short.value.acked, short.value.required) == ("unknown", 1, 2)
        # The joining replica is not read.
        c.clear()
        await sleep(c, 6)
        before = c.network["d4"].calls.copy()
        for _ in range(5):
            await fetch(r, [1], c.soon(), ONE)
        assert c.network["d4"].calls == before

    play(story, nodes=4)


# -- stopping


def test_a_router_that_stops_ends_what_it_began_and_begins_no_more() -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        await put(r, [3], [3], c.soon())
        for name in c.network:
            c.weather(name, delay_s=(0.1, 0.2))
        writing = asyncio.ensure_future(put(r, [1], [1], c.soon()))
        await sleep(c, 0.05)
        await r.stop(c.soon(5))
        assert (await writing).durability == "fsync"
        assert all(c.holds(name, 1) for name in c.network)
        with pytest.raises(UnavailableError) as late:
            await put(r, [2], [2], c.soon())
        assert late.value.outcome == "none"
        c.routers.clear()

    play(story)
