"""What the coordinators believe of how equal replicas are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from omendb_common.errors import InvalidArgumentError
from omendb_common.hlc import stamp_at, stamp_step
from omendb_common.metadata import RepairedShard
from omendb_common.topology import Topology
from omendb_coordinator.commands import ConflictError
from tests.unit.coordinator.catalog_cases import Log, node
from tests.unit.coordinator.loopback import CLOCK, QUICK, collection, in_a_loop, one_coordinator, soon, until

_NODES = ["d1", "d2", "d3"]


@pytest.fixture
def log() -> Log:
    log = Log()
    log.register(*(node(n) for n in _NODES), node("d4"))
    log.create("docs", _NODES, shards=2)
    return log


def note(log: Log, through: int, *, shard: int = 1, epoch: int = 5, node_id: str = "d1") -> int:
    """Tell of one shard; what is known of it afterwards."""
    log.add("note_repaired", node_id=node_id, grace=20, shards=[["uuid of docs", shard, epoch, through]])
    return log.catalog.topology.collection("docs").shard(shard).repaired_through


def test_it_only_rises_and_changes_no_epoch(log: Log) -> None:
    before = log.catalog.topology
    assert [note(log, through) for through in (70, 60, 90)] == [70, 70, 90]
    info = log.catalog.topology.collection("docs")
    assert [s.epoch for s in info.shards] == [5, 5] and info.shards[0] == before.collection("docs").shards[0]
    assert info.revision == log.catalog.topology.revision == 8
    assert Topology.from_json(log.catalog.topology.to_json()) == log.catalog.topology


def floor(log: Log) -> int:
    return log.catalog.topology.collection("docs").shard(1).gc_floor


def test_deletions_are_forgotten_below_it_while_nobody_is_away(log: Log) -> None:
    note(log, 10)
    assert floor(log) == 0
    note(log, 100)
    assert floor(log) == 80
    log.add("set_member_state", node_id="d3", incarnation="folder of d3", was="up", to="suspect")
    assert note(log, 200) == 200 and floor(log) == 80
    log.add("set_member_state", node_id="d3", incarnation="folder of d3", was="suspect", to="up")
    assert note(log, 210) == 210 and floor(log) == 190
    assert log.catalog.topology.collection("docs").shard(0).gc_floor == 0


def test_while_a_replica_moves_nothing_is_known_and_nothing_forgotten(log: Log) -> None:
    note(log, 100)
    log.add("begin_move", uuid="uuid of docs", shard_id=1, epoch=5, source="d3", target="d4")
    epoch = log.catalog.topology.collection("docs").shard(1).epoch
    assert note(log, 200, epoch=epoch) == 100 and floor(log) == 80


def test_only_what_was_found_under_the_map_in_force_counts(log: Log) -> None:
    assert note(log, 50, epoch=4) == note(log, 50, epoch=6) == note(log, 50, node_id="d4") == 0
    log.add("note_repaired", node_id="d1", grace=0, shards=[["another", 1, 5, 50], ["uuid of docs", 7, 5, 50]])
    replicas = [["d1", "active"], ["d2", "active"], ["d4", "joining"]]
    log.add("place_shard", uuid="uuid of docs", shard_id=1, epoch=5, replicas=replicas)
    epoch = log.catalog.topology.collection("docs").shard(1).epoch
    assert note(log, 50, epoch=epoch) == note(log, 50) == 0


@pytest.mark.parametrize(
    "shards", [None, [], "x", [["u", 1, 2]], [["u", -1, 2, 3]], [[1, 1, 2, 3]], [["u", 1, True, 3]]]
)
def test_what_is_no_report_is_refused(log: Log, shards: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="shards"):
        log.add("note_repaired", node_id="d1", grace=0, shards=shards)


@in_a_loop
async def test_what_gains_too_little_is_no_entry_of_the_log() -> None:
    async with one_coordinator(replace(QUICK, suspect_s=60.0, down_s=120.0, grace_s=120.0)) as (server, client):
        info = await client.create_collection(collection("docs"), soon())
        (shard,) = info.shards
        step = stamp_step(60.0)
        node_id = shard.nodes("active")[0]
        ahead = stamp_at(CLOCK.wall_ms() + 60_000)
        for through in (10 * step, 10 * step + 1, 11 * step - 1, ahead, 11 * step):
            told = RepairedShard(info.schema.uuid, 0, shard.epoch, through)
            await client.note_repaired(node_id, [told], soon())
        await until(lambda: client.topology.collection("docs").shards[0].repaired_through == 11 * step)
        assert server.catalog.topology.revision == info.revision + 2
        assert client.topology.collection("docs").shards[0].epoch == shard.epoch


def test_a_damaged_replica_counts_no_more_while_the_others_hold_everything(log: Log) -> None:
    def lose(node_id: str) -> list[str]:
        epoch = log.catalog.topology.collection("docs").shard(0).epoch
        log.add("lose_replica", uuid="uuid of docs", shard_id=0, epoch=epoch, node_id=node_id)
        return [place.state for place in log.catalog.topology.collection("docs").shard(0).replicas]

    before = log.catalog.topology.collection("docs").shard(0)
    assert lose("d2") == ["active", "corrupt", "active"]
    shard = log.catalog.topology.collection("docs").shard(0)
    assert shard.epoch > before.epoch and shard.fence == shard.epoch
    for node_id in ("d1", "d2", "d4"):
        # W=2 of 3: with one more gone an acknowledged write may be on none.
        with pytest.raises(InvalidArgumentError):
            lose(node_id)
    with pytest.raises(ConflictError):
        log.add("lose_replica", uuid="uuid of docs", shard_id=0, epoch=before.epoch, node_id="d1")


@in_a_loop
async def test_what_may_not_be_lost_is_no_entry_of_the_log() -> None:
    async with one_coordinator(replace(QUICK, suspect_s=60.0, down_s=120.0, grace_s=120.0)) as (server, client):
        info = await client.create_collection(collection("docs", write_quorum=1), soon())
        (shard,) = info.shards
        entries = server.control.proposals, server.catalog.topology.revision
        with pytest.raises(InvalidArgumentError, match="at least 3"):
            await client.lose_replica(info.schema.uuid, 0, shard.epoch, "d0", soon())
        assert (server.control.proposals, server.catalog.topology.revision) == entries
