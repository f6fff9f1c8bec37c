"""Every call of the router, on a cluster where nothing fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omendb_common.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError
from omendb_common.filters import FilterOp as F
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows, rows_from_columns
from omendb_router.face_calls import Question, Seen
from tests.unit.router.router_cases import MAJORITY, ONE, VERIFIED, Cluster, fetch, flat, nearest, play, put, vector

pytestmark = pytest.mark.parametrize("engine", [False, True], ids=["memory", "engine"])

LAYOUTS: list[dict[str, Any]] = [
    {"shards": 1, "replication": 1},
    {"shards": 1, "replication": 3},
    {"shards": 4, "replication": 3},
    {"shards": 3, "replication": 2},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_what_is_written_is_read_back_by_every_read(layout: dict[str, Any], engine: bool) -> None:
    async def story(c: Cluster) -> None:
        await c.collection(**layout)
        r = await c.router()
        ids = [*range(20), "a", "b"]
        written = await put(r, ids, [float(i) for i in range(22)], c.soon())
        assert written.ids.to_list() == ids
        assert (written.count, written.durability, written.superseded) == (22, "fsync", 0)
        for seen in (ONE, VERIFIED, Seen("quorum"), MAJORITY, Seen(session=written.session)):
            assert await fetch(r, ["b", 99, 3, 0], c.soon(), seen) == {"b": {"v": 21.0}, 3: {"v": 3.0}, 0: {"v": 0.0}}
            hits = await nearest(r, 4.2, 3, c.soon(), seen)
            assert [i for i, _ in hits] == [4, 5, 3]
            assert await r.count("c", None, seen=seen, deadline=c.soon()) == 22
            assert await r.count("c", F.gte("v", 20), seen=seen, deadline=c.soon()) == 2
        assert (await r.delete("c", IdColumn.of([4, 77]), deadline=c.soon())).count == 1
        assert [i for i, _ in await nearest(r, 4.2, 2, c.soon(), MAJORITY)] == [5, 3]

    play(story, engine=engine)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("seen", [ONE, MAJORITY], ids=["one", "majority"])
def test_scrolling_shows_every_point_once_whatever_the_page(layout: dict[str, Any], seen: Seen, engine: bool) -> None:
    async def story(c: Cluster) -> None:
        await c.collection(**layout)
        r = await c.router()
        await put(r, list(range(50)), [float(i) for i in range(50)], c.soon())
        for limit in (1, 7, 50, 100):
            for condition, expected in ((None, set(range(50))), (F.lt("v", 10), set(range(10)))):
                found: list[object] = []
                cursor = None
                pages = 0
                while True:
                    page = await r.scroll(
                        "c", cursor, limit, condition, payload=True, vectors=True, seen=seen, deadline=c.soon()
                    )
                    assert len(page.ids) <= limit
                    assert page.payload is not None
                    rows = rows_from_columns(page.payload, n=len(page.ids))
                    assert [{"v": float(i)} for i in page.ids.to_list()] == rows
                    assert page.vectors[""][:, 0].tolist() == [row["v"] for row in rows] if rows else True
                    found += page.ids.to_list()
                    pages += 1
                    cursor = page.cursor
                    if cursor is None:
                        break
                assert len(found) == len(expected)
                assert set(found) == expected
                assert pages <= len(expected) // limit + 2

    play(story, engine=engine)


def test_many_queries_at_once_bring_what_each_brings_alone(engine: bool) -> None:
    async def story(c: Cluster) -> None:
        await c.collection(shards=4)
        r = await c.router()
        rng = np.random.default_rng(1)
        points = rng.normal(size=(200, 2)).astype(np.float32)
        payload = columns_from_rows([{"n": i} for i in range(200)])
        await r.upsert("c", IdColumn.of(list(range(200))), {"": points}, payload, 200, deadline=c.soon())
        queries = rng.normal(size=(9, 2)).astype(np.float32)
        exact = np.argsort(np.linalg.norm(points[None] - queries[:, None], axis=2), axis=1)[:, :7]
        for seen in (ONE, MAJORITY):
            hits = await r.search("c", Question(queries, 7, payload=True, vectors=True), seen=seen, deadline=c.soon())
            assert [[i for i, _ in row] for row in flat(hits)] == exact.tolist()
            ids = hits.ids.to_list()
            assert hits.payload is not None
            assert rows_from_columns(hits.payload) == [{"n": i} for i in ids]
            assert hits.vectors is not None
            assert (hits.vectors == points[np.array(ids, np.int64)]).all()
            assert hits.stale_possible is (seen is ONE)

    play(story, engine=engine)


def test_of_one_id_named_twice_the_last_row_wins(engine: bool) -> None:
    async def story(c: Cluster) -> None:
        await c.collection(shards=2)
        r = await c.router()
        written = await put(r, [1, 2, 1, "x", 1], [1, 2, 3, 4, 5], c.soon())
        assert written.count == 3
        assert written.ids.to_list() == [1, 2, 1, "x", 1]
        assert await fetch(r, [1, 2, "x"], c.soon()) == {1: {"v": 5}, 2: {"v": 2}, "x": {"v": 4}}

    play(story, engine=engine)


def test_automatic_ids_of_two_routers_never_meet(engine: bool) -> None:
    async def story(c: Cluster) -> None:
        await c.collection(shards=2)
        given: list[object] = []
        for router in (await c.router(), await c.router()):
            for _ in range(3):
                written = await router.upsert("c", None, {"": vector(1, 2)}, None, 2, deadline=c.soon())
                given += written.ids.to_list()
        assert len(set(given)) == 12
        assert await c.routers[0].count("c", None, seen=MAJORITY, deadline=c.soon()) == 12

    play(story, engine=engine)


def test_automatic_ids_of_one_replica_go_on_from_its_own(engine: bool) -> None:
    async def story(c: Cluster) -> None:
        await c.collection(replication=1)
        r = await c.router(auto_ids="replica")
        await put(r, [41], [1], c.soon())
        assert (await r.upsert("c", None, {"": vector(1, 2)}, None, 2, deadline=c.soon())).ids.to_list() == [42, 43]
        await put(r, [100], [1], c.soon())
        assert (await r.upsert("c", None, {"": vector(1)}, None, 1, deadline=c.soon())).ids.to_list() == [101]

    play(story, engine=engine)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_an_update_changes_what_it_names_and_nothing_else(layout: dict[str, Any], engine: bool) -> None:
    async def story(c: Cluster) -> None:
        await c.collection(**layout)
        r = await c.router()
        await put(r, [1, 2], [1, 2], c.soon(), rows=[{"a": 1, "b": {"x": 1}}, {"a": 2}])
        payload = columns_from_rows([{"b": {"y": 2}}, {"b": 3}])
        await r.update("c", IdColumn.of([1, 2]), None, payload, unset=("a",), deadline=c.soon())
        assert await fetch(r, [1, 2], c.soon()) == {1: {"b": {"y": 2}}, 2: {"b": 3}}
        await r.update("c", IdColumn.of([2]), {"": vector(9)}, None, deadline=c.soon())
        assert [i for i, _ in await nearest(r, 9, 1, c.soon(), MAJORITY)] == [2]
        with pytest.raises(NotFoundError):
            await r.update("c", IdColumn.of([1, 3]), None, columns_from_rows([{"a": 1}, {"a": 1}]), deadline=c.soon())
        assert await fetch(r, [1, 3], c.soon()) == {1: {"b": {"y": 2}}}

    play(story, engine=engine)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_filtered_delete_deletes_what_matches(layout: dict[str, Any], engine: bool) -> None:
    async def story(c: Cluster) -> None:
        await c.collection(**layout)
        r = await c.router(delete_rows_max=4)
        await put(r, list(range(20)), [float(i) for i in range(20)], c.soon())
        gone = await r.delete_where("c", F.gte("v", 7), deadline=c.soon())
        assert gone.count == 13
        assert set(gone.ids.to_list()) == set(range(7, 20))
        assert await r.count("c", None, seen=MAJORITY, deadline=c.soon()) == 7
        assert (await r.delete_where("c", F.gte("v", 7), deadline=c.soon())).count == 0

    play(story, engine=engine)


def test_create_only_refuses_the_whole_batch(engine: bool) -> None:
    async def story(c: Cluster) -> None:
        await c.collection("one", replication=1, shards=2)
        await c.collection("three", shards=2)
        r = await c.router()
        for name in ("one", "three"):
            await put(r, [1, 2], [1, 2], c.soon(), name=name, create_only=True)
            with pytest.raises(AlreadyExistsError):
                await put(r, [3, 2], [1, 2], c.soon(), name=name, create_only=True)
            assert set(await fetch(r, [1, 2, 3], c.soon(), name=name)) == {1, 2}

    play(story, engine=engine)


def test_a_partition_key_routes_and_its_filter_prunes(engine: bool) -> None:
    async def story(c: Cluster) -> None:
        info = await c.collection(shards=8, partition_key="tenant", replication=1)
        r = await c.router()
        tenants = [f"t{i % 5}" if i % 2 else i % 5 for i in range(100)]
        rows = [{"tenant": t, "v": i} for i, t in enumerate(tenants)]
        await put(r, list(range(100)), [float(i) for i in range(100)], c.soon(), rows=rows)
        assert (await fetch(r, [17, 18], c.soon()))[17] == rows[17]
        for tenant in ("t1", 2, 2.0):
            expected = {i for i, t in enumerate(tenants) if t == tenant}
            before = sum(n.calls["search"] for n in c.network.values())
            condition = F.AND(F.eq("tenant", tenant), F.gte("v", 0))
            hits = await nearest(r, 0, 50, c.soon(), condition=condition)
            assert {i for i, _ in hits} == expected
            assert sum(n.calls["search"] for n in c.network.values()) == before + 1
        with pytest.raises(InvalidArgumentError, match="partition key"):
            await put(r, [1], [1], c.soon())
        with pytest.raises(InvalidArgumentError, match="partition key"):
            await r.update("c", IdColumn.of([1]), None, columns_from_rows([{"tenant": "t9"}]), deadline=c.soon())
        await r.update("c", IdColumn.of([17]), None, columns_from_rows([{"v": -1}]), deadline=c.soon())
        assert (await fetch(r, [17], c.soon()))[17]["v"] == -1
        assert (await r.delete("c", IdColumn.of([17]), deadline=c.soon())).count == 1
        assert (await r.delete_where("c", F.eq("tenant", "t1"), deadline=c.soon())).count == 10
        assert len(info.shards) == 8

    play(story, engine=engine)


def test_collections_come_and_go(engine: bool) -> None:
    async def story(c: Cluster) -> None:
        r = await c.router()
        with pytest.raises(NotFoundError):
            await r.find("c", c.soon())
        info = await c.collection()
        assert (await r.find("c", c.soon())).schema.uuid == info.schema.uuid
        assert (await r.rename_collection("c", "d", c.soon())).name == "d"
        await put(r, [1], [1], c.soon(), name="d")
        stats = await r.stats("d", c.soon())
        assert (stats["points"], stats["durability"], len(stats["shards"])) == (1, "fsync", 1)
        verified = await r.verify("d", c.soon())
        assert verified["equal"] and [shard["shard_id"] for shard in verified["shards"]] == [0]
        assert await r.wait_until_indexed("d", 1.0, c.soon())
        await r.flush("d", c.soon())
        await r.compact("d", c.soon())
        await r.drop_collection("d", c.soon())
        with pytest.raises(NotFoundError):
            await put(r, [1], [1], c.soon(), name="d")
        assert (await r.cluster_status(c.soon()))["collections"] == []

    play(story, engine=engine)


def test_bad_arrays_are_refused_before_anything_is_sent(engine: bool) -> None:
    async def story(c: Cluster) -> None:
        await c.collection(shards=2)
        r = await c.router()
        nan = np.array([[np.nan, 0.0]], np.float32)
        for vectors, n in (({}, 1), ({"": vector(1)}, 2), ({"": nan}, 1), ({"": vector(1).astype(np.float64)}, 1)):
            with pytest.raises(InvalidArgumentError):
                await r.upsert("c", IdColumn.of(list(range(n))), vectors, None, n, deadline=c.soon())
        assert not sum(n.calls["apply"] for n in c.network.values())

    play(story, engine=engine)
