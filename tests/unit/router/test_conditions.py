"""Writes on condition with several replicas: one of many wins, and what was begun is ended by whoever comes (P19)."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from omendb_common.errors import AlreadyExistsError, DeadlineExceededError, UnavailableError, VersionConflictError
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows
from omendb_common.records import Op, WriteBatch
from omendb_common.shard_calls import Apply, Claim, ShardRef
from omendb_common.topology import CollectionInfo
from omendb_router.router import Router
from tests.unit.router.router_cases import MAJORITY, Cluster, fetch, play, put, vector


@pytest.fixture(params=[False, True], ids=["memory", "engine"])
def engine(request: pytest.FixtureRequest) -> bool:
    """Nodes that are dictionaries, and the real ones."""
    return bool(request.param)


async def create(router: Router, value: float, c: Cluster, **options: Any) -> str:
    """How the creation of point 7 ended."""
    try:
        await put(router, [7], [value], c.soon(5), create_only=True, **options)
        return "done"
    except AlreadyExistsError:
        return "refused"
    except (UnavailableError, DeadlineExceededError) as error:
        return error.outcome


async def claim(c: Cluster, info: CollectionInfo, router: Router, nodes: list[str], point_id: int = 7) -> int:
    """What a router does that dies right after its claim; the claim's stamp."""
    stamp = await router._leases.stamp(c.soon())
    ref = ShardRef(info.schema.uuid, 0, info.shards[0].epoch, 1)
    batch = WriteBatch(Op.DELETE, IdColumn.of([point_id]))
    for name in nodes:
        await c.network[name].apply(Apply(ref, stamp, batch, None, claim=Claim.CLAIM), c.soon())
    return stamp


async def only(c: Cluster, info: CollectionInfo, name: str, value: float, stamp: int) -> None:
    """A write of point 7 that reached one node."""
    ref = ShardRef(info.schema.uuid, 0, info.shards[0].epoch, 1)
    batch = WriteBatch(Op.UPSERT, IdColumn.of([7]), {"": vector(value)})
    await c.network[name].apply(Apply(ref, stamp, batch), c.soon())


async def shown(router: Router, c: Cluster) -> float | None:
    """Where point 7 is, as a majority has it."""
    ids = IdColumn.of([7])
    found = await router.get("c", ids, payload=False, vectors=True, seen=MAJORITY, deadline=c.soon(5))
    return float(found.vectors[""][0, 0]) if len(found.ids) else None


def test_one_of_many_creates_it(engine: bool) -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        routers = [await c.router() for _ in range(3)]
        for name, delay_s in zip(c.network, [0.001, 0.01, 0.03], strict=True):
            c.weather(name, delay_s=(0.0, delay_s))
        told = await asyncio.gather(*[create(routers[n % 3], float(n), c) for n in range(12)])
        assert told.count("done") == 1 and told.count("refused") >= 8 and "none" not in told, told
        assert await shown(routers[0], c) == float(told.index("done"))
        # Nothing is left that would keep later writes, or repair, from any replica.
        await put(routers[1], [7], [50.0], c.soon())
        assert await fetch(routers[2], [7], c.soon(), MAJORITY) == {7: {"v": 50.0}}

    play(story, engine=engine)


def test_a_claim_whose_maker_died_holds_nobody_up(engine: bool) -> None:
    async def story(c: Cluster) -> None:
        info = await c.collection()
        dead, alive = await c.router(), await c.router()
        await claim(c, info, dead, ["d1", "d2"])
        before = c.clock.mono_s()
        assert await create(alive, 1.0, c) == "done"
        await claim(c, info, dead, ["d2", "d3"])
        assert await create(alive, 2.0, c) == "refused"
        await put(alive, [7], [3.0], c.soon())
        assert await shown(alive, c) == 3.0
        assert c.clock.mono_s() - before < 1.0

    play(story, engine=engine)


def test_what_a_claim_keeps_out_is_settled_by_a_reader(engine: bool) -> None:
    """A plain write is on one node, a claim that came before it on the two others: neither may stay in doubt."""

    async def story(c: Cluster) -> None:
        info = await c.collection()
        dead, alive = await c.router(), await c.router()
        early = await dead._leases.stamp(c.soon())
        await claim(c, info, dead, ["d1", "d2"])
        await only(c, info, "d3", 1.0, early)
        c.weather("d1", down=True)
        assert await shown(alive, c) == 1.0
        c.clear()
        await asyncio.sleep(5)
        c.weather("d3", down=True)
        assert await shown(alive, c) == 1.0, "once shown, it stays, whoever is asked"
        assert await create(alive, 2.0, c) == "refused"

    play(story, engine=engine)


def test_a_plain_write_goes_above_a_claim(engine: bool) -> None:
    async def story(c: Cluster) -> None:
        info = await c.collection()
        slow, other = await c.router(skew_ms=-1500.0), await c.router()
        late = await claim(c, info, other, ["d1", "d2", "d3"])
        written = await put(slow, [7], [1.0], c.soon())
        assert written.stamp > late
        assert await shown(other, c) == 1.0

    play(story, engine=engine)


def test_an_unknown_outcome_is_learned_by_sending_it_again(engine: bool) -> None:
    async def story(c: Cluster) -> None:
        info = await c.collection()
        first, second = await c.router(), await c.router()
        stamp = await claim(c, info, first, ["d1", "d2", "d3"])
        await only(c, info, "d3", 5.0, stamp)  # the router died when one node had it
        assert await create(second, 5.0, c, retry_stamp=stamp) == "done"
        assert await shown(second, c) == 5.0
        assert await create(second, 5.0, c, retry_stamp=stamp) in ("done", "unknown")
        assert await create(second, 6.0, c) == "refused"

    play(story, engine=engine)


def test_an_unknown_outcome_may_turn_out_to_be_a_refusal(engine: bool) -> None:
    async def story(c: Cluster) -> None:
        info = await c.collection()
        first, second = await c.router(), await c.router()
        await put(second, [7], [1.0], c.soon())
        await asyncio.sleep(0.01)
        stamp = await claim(c, info, first, ["d1", "d2", "d3"])
        assert await create(second, 5.0, c, retry_stamp=stamp) == "refused"
        await only(c, info, "d3", 5.0, stamp)  # a message that took its time: it must not turn up any more
        for away in ("d1", "d2"):
            c.weather(away, down=True)
            assert await shown(second, c) == 1.0
            c.clear()
            await asyncio.sleep(5)

    play(story, engine=engine)


def test_what_may_have_been_seen_and_deleted_is_not_written_again(engine: bool) -> None:
    async def story(c: Cluster) -> None:
        info = await c.collection()
        first, second = await c.router(), await c.router()
        stamp = await claim(c, info, first, ["d1", "d2", "d3"])
        await only(c, info, "d3", 5.0, stamp)
        await asyncio.sleep(0.01)
        await second.delete("c", IdColumn.of([7]), deadline=c.soon())
        assert await create(second, 5.0, c, retry_stamp=stamp) == "unknown"
        assert await shown(second, c) is None
        assert await create(second, 6.0, c) == "done"

    play(story, engine=engine)


def test_too_few_replicas_are_told_as_nothing_written(engine: bool) -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        c.weather("d1", down=True)
        assert await create(r, 1.0, c) == "done"
        await r.delete("c", IdColumn.of([7]), deadline=c.soon())
        c.weather("d2", down=True)
        assert await create(r, 2.0, c) == "none"
        c.clear()
        assert await shown(r, c) is None
        assert await create(r, 3.0, c) == "done"

    play(story, engine=engine)


def test_ids_of_claims_are_no_ids_of_points(engine: bool) -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        if engine:
            with pytest.raises(Exception, match="zero character"):
                await r.delete("c", IdColumn.of(["\x00c" + "0" * 64]), deadline=c.soon())
        assert await r.count("c", None, seen=MAJORITY, deadline=c.soon()) == 0
        assert np.array_equal(
            (
                await r.get("c", IdColumn.of([1]), payload=False, vectors=False, seen=MAJORITY, deadline=c.soon())
            ).ids.to_list(),
            [],
        )

    play(story, engine=engine)


# -- conditions on a version


async def version(router: Router, c: Cluster) -> int:
    """The version of point 7, as a majority has it."""
    found = await router.get("c", IdColumn.of([7]), payload=False, vectors=False, seen=MAJORITY, deadline=c.soon(5))
    return int(found.versions[0]) if len(found.ids) else 0


async def change(router: Router, value: float, seen: int, c: Cluster, kind: str = "upsert", **options: Any) -> str:
    """How a write of point 7, if it still has the version that was seen, ended."""
    demand: dict[str, Any] = {"versions": np.array([seen], np.uint64), "deadline": c.soon(5), **options}
    ids = IdColumn.of([7])
    try:
        match kind:
            case "upsert":
                await router.upsert("c", ids, {"": vector(value)}, None, 1, **demand)
            case "update":
                await router.update("c", ids, {"": vector(value)}, None, **demand)
            case _:
                await router.delete("c", ids, **demand)
        return "done"
    except VersionConflictError:
        return "refused"
    except (UnavailableError, DeadlineExceededError) as error:
        return error.outcome


@pytest.mark.parametrize("kind", ["upsert", "update", "delete"])
def test_one_of_many_changes_what_all_saw(engine: bool, kind: str) -> None:
    async def story(c: Cluster) -> None:
        await c.collection()
        routers = [await c.router() for _ in range(3)]
        await put(routers[0], [7], [99.0], c.soon())
        seen = await version(routers[1], c)
        for name, delay_s in zip(c.network, [0.001, 0.01, 0.03], strict=True):
            c.weather(name, delay_s=(0.0, delay_s))
        told = await asyncio.gather(*[change(routers[n % 3], float(n), seen, c, kind) for n in range(9)])
        assert told.count("done") == 1 and told.count("refused") >= 6 and "none" not in told, told
        left = None if kind == "delete" else float(told.index("done"))
        assert await shown(routers[0], c) == left
        assert await change(routers[1], 50.0, await version(routers[2], c), c) == "done"

    play(story, engine=engine)


@pytest.mark.parametrize("kind", ["upsert", "update", "delete"])
def test_a_change_of_unknown_outcome_is_sent_again(engine: bool, kind: str) -> None:
    async def story(c: Cluster) -> None:
        info = await c.collection()
        first, second = await c.router(), await c.router()
        await put(first, [7], [1.0], c.soon())
        seen = await version(second, c)
        stamp = await claim(c, info, first, ["d1", "d2", "d3"])
        ref = ShardRef(info.schema.uuid, 0, info.shards[0].epoch, 1)
        gone = WriteBatch(Op.DELETE, IdColumn.of([7]))
        whole = gone if kind == "delete" else WriteBatch(Op.UPSERT, IdColumn.of([7]), {"": vector(5.0)})
        await c.network["d3"].apply(Apply(ref, stamp, whole), c.soon())  # the router died when one node had it
        assert await change(second, 5.0, seen, c, kind, retry_stamp=stamp) == "done"
        assert await shown(second, c) == (None if kind == "delete" else 5.0)
        assert await change(second, 5.0, seen, c, kind, retry_stamp=stamp) in ("done", "unknown")
        assert await change(second, 6.0, seen, c, kind) == "refused"

    play(story, engine=engine)


def test_what_was_overtaken_is_not_told_as_refused(engine: bool) -> None:
    """Whether a change took place before somebody wrote over it, nobody knows."""

    async def story(c: Cluster) -> None:
        info = await c.collection()
        first, second = await c.router(), await c.router()
        await put(first, [7], [1.0], c.soon())
        seen = await version(second, c)
        stamp = await claim(c, info, first, ["d1", "d2", "d3"])
        await only(c, info, "d3", 5.0, stamp)
        await asyncio.sleep(0.01)
        await put(second, [7], [8.0], c.soon())
        assert await change(second, 5.0, seen, c, retry_stamp=stamp) == "unknown"
        assert await shown(second, c) == 8.0

    play(story, engine=engine)


def test_an_update_on_condition_stores_the_whole_point_where_it_was_missed(engine: bool) -> None:
    """A replica without the point gets it whole; one that other updates left behind hides nothing."""

    async def story(c: Cluster) -> None:
        await c.collection()
        r = await c.router()
        c.weather("d3", down=True)
        await put(r, [7], [1.0], c.soon(), rows=[{"v": 1.0, "u": 0}])
        c.clear()
        c.weather("d2", down=True)
        payload = columns_from_rows([{"u": 4}])
        await r.update("c", IdColumn.of([7]), None, payload, deadline=c.soon())
        c.clear()
        c.weather("d1", down=True)
        more: dict[str, Any] = {"versions": np.array([await version(r, c)], np.uint64), "deadline": c.soon(5)}
        await r.update("c", IdColumn.of([7]), None, columns_from_rows([{"w": 9}]), unset=["v"], **more)
        c.clear()
        for away in ("d1", "d2", "d3"):
            c.weather(away, down=True)
            assert await fetch(r, [7], c.soon(), MAJORITY) == {7: {"u": 4, "w": 9}}
            c.clear()
            await asyncio.sleep(5)

    play(story, engine=engine)


def test_with_one_copy_its_replica_decides(engine: bool) -> None:
    async def story(c: Cluster) -> None:
        await c.collection(replication=1, write_quorum=1, read_quorum=1)
        r, other = await c.router(), await c.router()
        await put(r, [7], [1.0], c.soon())
        seen = await version(other, c)
        told = await asyncio.gather(*[change(r if n % 2 else other, float(n), seen, c) for n in range(6)])
        assert told.count("done") == 1 and told.count("refused") == 5, told

    play(story, engine=engine)
