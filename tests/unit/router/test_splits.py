"""A shard splits between a router's look and its write: with a partition key what was found is elsewhere by then."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from omendb_chaos.sim.memory_node import MemoryReplica
from omendb_common.deadline import Deadline
from omendb_common.filters import FilterOp as F
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows
from omendb_common.ring import RING, key_hashes
from omendb_common.topology import CollectionInfo
from omendb_coordinator.split_changes import advance_split, begin_split
from omendb_coordinator.state import CatalogState
from omendb_router.router import Router
from tests.unit.router.router_cases import MAJORITY, Cluster, fetch, nearest, play, put

IDS = list(range(24))


def tenant(point_id: int) -> str:
    return f"t{point_id % 12}"


def high(point_id: int) -> bool:
    return int(key_hashes(IdColumn.of([tenant(point_id)]))[0]) >= RING // 2


def split(c: Cluster) -> None:
    """Cut the one shard of the collection in two, as coordinators and data nodes do."""

    def change(op: Callable[..., tuple[CatalogState, object]], **args: object) -> CollectionInfo:
        topology = c.metadata.topology
        info = topology.collection("c")
        at = {"uuid": info.schema.uuid, "shard_id": 0, "epoch": info.shards[0].epoch}
        state, _ = op(CatalogState(topology), topology.revision + 1, {**at, **args})
        c.metadata.install(state.topology)
        return c.metadata.topology.collection("c")

    begun = change(begin_split)
    session = begun.shards[0].split
    assert session is not None
    for node in c.memory.values():
        whole = node.replicas[begun.schema.uuid, 0, 0]
        for number, side in ((session.low_id, False), (session.high_id, True)):
            mine = {i: copy.deepcopy(r) for i, r in whole.records.items() if not r.live or high(int(str(i))) is side}
            half = MemoryReplica(whole.schema, mine)
            node.replicas[begun.schema.uuid, number, session.session] = half
    for place in begun.shards[0].replicas:
        info = change(advance_split, node_id=place.node_id)
    assert len(info.shards) == 2


async def filled(c: Cluster) -> Router:
    await c.collection(shards=1, partition_key="tenant", replication=3)
    router = await c.router()
    rows = [{"tenant": tenant(i), "v": i} for i in IDS]
    await put(router, IDS, [float(i) for i in IDS], c.soon(), rows=rows)
    assert {high(i) for i in IDS} == {False, True}
    return router


def split_before_the_write(c: Cluster, router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next stamp is made when the shard has been split: after the look-up, before anything is sent."""
    leases = router._mutations._leases
    stamp = leases.stamp
    done: list[bool] = []

    async def late(deadline: Deadline) -> int:
        if not done:
            done.append(True)
            split(c)
        return await stamp(deadline)

    monkeypatch.setattr(leases, "stamp", late)


def test_an_update_reaches_the_half_that_has_the_point(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(c: Cluster) -> None:
        router = await filled(c)
        split_before_the_write(c, router, monkeypatch)
        await router.update("c", IdColumn.of(IDS), None, columns_from_rows([{"v": -i} for i in IDS]), deadline=c.soon())
        found = await fetch(router, IDS, c.soon(), MAJORITY)
        assert {i: row["v"] for i, row in found.items()} == {i: -i for i in IDS}

    play(story)


@pytest.mark.parametrize("by", ["ids", "filter"])
def test_a_deletion_reaches_the_half_that_has_the_point(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(c: Cluster) -> None:
        router = await filled(c)
        split_before_the_write(c, router, monkeypatch)
        gone = {i for i in IDS if i < 12}
        if by == "ids":
            await router.delete("c", IdColumn.of(sorted(gone)), deadline=c.soon())
        else:
            await router.delete_where("c", F.lt("v", 12), deadline=c.soon())
        assert set(await fetch(router, IDS, c.soon(), MAJORITY)) == set(IDS) - gone
        hits = await nearest(router, 0.0, 24, c.soon(), MAJORITY)
        assert sorted(i for i, _ in hits) == sorted(set(IDS) - gone), "every point once"

    play(story)
