"""Shards split and merge under a router that has seen neither: what it wrote, walks through and was promised stays."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from omendb_chaos.sim.memory_node import MemoryReplica
from omendb_common.deadline import Deadline
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows
from omendb_common.ring import RING, key_hashes
from omendb_common.topology import CollectionInfo, Shard
from omendb_coordinator.merge_changes import advance_merge, begin_merge
from omendb_coordinator.split_changes import advance_split, begin_split
from omendb_coordinator.state import CatalogState
from omendb_router.face_calls import Seen
from omendb_router.router import Router
from tests.unit.router.router_cases import MAJORITY, Cluster, fetch, nearest, play, put

IDS = list(range(24))


def change(c: Cluster, op: Callable[..., tuple[CatalogState, object]], shard_id: int, **args: object) -> CollectionInfo:
    """One change of the map, in force everywhere."""
    topology = c.metadata.topology
    info = topology.collection("c")
    at = {"uuid": info.schema.uuid, "shard_id": shard_id, "epoch": info.shard(shard_id).epoch}
    state, _ = op(CatalogState(topology), topology.revision + 1, {**at, **args})
    c.metadata.install(state.topology)
    return c.metadata.topology.collection("c")


def place(c: Cluster, info: CollectionInfo, shard: Shard, number: int, low: int, high: int) -> None:
    """What a node's successor has of a shard: its own records between two places of the ring."""
    recut = shard.recut
    assert recut is not None
    for node in c.memory.values():
        for (uuid, shard_id, _), whole in list(node.replicas.items()):
            if (uuid, shard_id) != (info.schema.uuid, shard.shard_id):
                continue
            key = info.schema.uuid, number, recut.session
            made = node.replicas.setdefault(key, MemoryReplica(whole.schema, {}))
            mine = {i: r for i, r in whole.records.items() if low <= int(key_hashes(IdColumn.of([i]))[0]) < high}
            made.records.update(copy.deepcopy(mine))


def merge(c: Cluster) -> None:
    """Put the first two shards together, as coordinators and data nodes do."""
    low, high = c.metadata.topology.collection("c").shards[:2]
    other = {"other_id": high.shard_id, "other_epoch": high.epoch}
    info = change(c, begin_merge, low.shard_id, margin=0, **other)
    begun = info.shards[0].merge
    assert begun is not None
    for shard in info.shards[:2]:
        place(c, info, shard, begun.into_id, 0, RING)
    for replica in low.replicas:
        info = change(c, advance_merge, low.shard_id, node_id=replica.node_id)
    assert info.shards[0].shard_id == begun.into_id


def split(c: Cluster) -> None:
    """Cut the first shard in two, as coordinators and data nodes do."""
    first = c.metadata.topology.collection("c").shards[0]
    info = change(c, begin_split, first.shard_id)
    begun = info.shards[0].split
    assert begun is not None
    place(c, info, info.shards[0], begun.low_id, 0, begun.at)
    place(c, info, info.shards[0], begun.high_id, begun.at, RING)
    for replica in first.replicas:
        info = change(c, advance_split, first.shard_id, node_id=replica.node_id)
    assert info.shards[0].shard_id == begun.low_id


async def filled(c: Cluster, shards: int) -> Router:
    await c.collection(shards=shards, replication=3)
    router = await c.router()
    await put(router, IDS, [float(i) for i in IDS], c.soon(), rows=[{"v": i} for i in IDS])
    return router


def before_the_stamp(c: Cluster, router: Router, what: Callable[[Cluster], None], patch: pytest.MonkeyPatch) -> None:
    """The map changes when the next write has been made for the old one, and before anything is sent."""
    leases = router._mutations._leases
    stamp, done = leases.stamp, list[bool]()

    async def late(deadline: Deadline) -> int:
        if not done:
            done.append(True)
            what(c)
        return await stamp(deadline)

    patch.setattr(leases, "stamp", late)


CHANGES = pytest.mark.parametrize(("what", "shards"), [(split, 1), (merge, 2)])


@CHANGES
def test_writes_under_the_old_map_reach_who_has_the_points_now(
    what: Callable[[Cluster], None], shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(c: Cluster) -> None:
        router = await filled(c, shards)
        before_the_stamp(c, router, what, monkeypatch)
        await router.update("c", IdColumn.of(IDS), None, columns_from_rows([{"v": -i} for i in IDS]), deadline=c.soon())
        assert {i: row["v"] for i, row in (await fetch(router, IDS, c.soon(), MAJORITY)).items()} == {
            i: -i for i in IDS
        }

    play(story)


@CHANGES
def test_a_write_that_is_sent_again_with_its_stamp_is_there_once(what: Callable[[Cluster], None], shards: int) -> None:
    async def story(c: Cluster) -> None:
        router = await filled(c, shards)
        written = await put(router, [5, 6, 7, 8], [0.0] * 4, c.soon(), rows=[{"v": 50}] * 4)
        what(c)
        await put(router, [5], [0.0], c.soon(), rows=[{"v": 55}])
        again = await put(router, [5, 6, 7, 8], [0.0] * 4, c.soon(), rows=[{"v": 50}] * 4, retry_stamp=written.stamp)
        assert again.superseded == 1
        found = await fetch(router, [5, 6], c.soon(), MAJORITY)
        assert (found[5]["v"], found[6]["v"]) == (55, 50)

    play(story)


@CHANGES
def test_a_session_sees_its_writes_whoever_has_them_now(what: Callable[[Cluster], None], shards: int) -> None:
    async def story(c: Cluster) -> None:
        router = await filled(c, shards)
        c.weather("d3", down=True)
        written = await put(router, [100], [3.0], c.soon())
        c.clear()
        what(c)
        readers = [await c.router() for _ in range(8)]
        for reader in readers:
            hits = await nearest(reader, 3.0, 30, c.soon(), Seen(session=written.session))
            assert 100 in [i for i, _ in hits], "one replica does not have it"

    play(story)


@CHANGES
def test_a_walk_across_the_change_shows_every_point_once(what: Callable[[Cluster], None], shards: int) -> None:
    async def story(c: Cluster) -> None:
        router = await filled(c, shards)
        seen: list[object] = []
        cursor: str | None = None
        while True:
            page = await router.scroll("c", cursor, 5, payload=False, vectors=False, seen=MAJORITY, deadline=c.soon())
            seen, cursor = seen + page.ids.to_list(), page.cursor
            if len(seen) == 10:
                what(c)
            if cursor is None:
                break
        assert sorted(seen, key=str) == sorted(IDS, key=str)

    play(story)


def test_searches_during_a_merge_show_every_point_once() -> None:
    async def story(c: Cluster) -> None:
        router = await filled(c, 2)
        late = await c.router()
        merge(c)
        for one in (router, late):
            hits = await nearest(one, 0.0, 30, c.soon(), MAJORITY)
            assert sorted(i for i, _ in hits) == IDS

    play(story)
