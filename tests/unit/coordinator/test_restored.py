"""A catalog that is restored from a copy: nothing that the lost group may have done since is done again, or undone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omendb_common.catalog_copy import CatalogCopy, pack_copy, unpack_copy
from omendb_common.disk import RealDisk
from omendb_common.errors import AlreadyExistsError, FormatVersionError, InvalidArgumentError, ResourceExhaustedError
from omendb_common.hlc import EPOCH_MS, ORIGIN_MAX, stamp_at
from omendb_common.topology import Topology
from omendb_coordinator.catalog import SNAPSHOT_FORMAT, Catalog, state_of
from omendb_coordinator.commands import COMMAND_FORMAT, Command, format_of
from omendb_coordinator.consensus.storage import Storage
from omendb_coordinator.restored_changes import AUTO_IDS_PASSED, LEASE_MS_MAX, restorations, restore
from omendb_coordinator.restoring import restore_member
from omendb_coordinator.state import CatalogState
from tests.unit.coordinator.catalog_cases import Log, node

TAKEN_MS = EPOCH_MS + 10_000_000_000
NOW_MS = TAKEN_MS + 60_000
NODES = ["d1", "d2", "d3"]


@pytest.fixture
def log() -> Log:
    log = Log()
    log.add("name_cluster", cluster_id="one")
    log.register(*(node(n, feature_level=2) for n in (*NODES, "d4")), replace(node("r1"), role="router"))
    log.create("docs", NODES, shards=2)
    return log


def copied(log: Log) -> CatalogState:
    return restore(state_of(json.loads(log.catalog.snapshot())), TAKEN_MS, NOW_MS)


def apply(catalog: Catalog, index: int, op: str, **args: Any) -> Any:
    return json.loads(catalog.apply(index, Command(f"request {index}", "test", op, args, 0).encode()))


def test_it_begins_above_whatever_the_lost_group_reached(log: Log) -> None:
    state = copied(log)
    topology = state.topology
    assert topology.revision == topology.restored > 1 << 50
    assert topology.revision < 1 << 53, "JSON numbers hold it"
    for info in topology.collections.values():
        assert info.restored == topology.revision
        assert all(s.epoch == s.fence == topology.revision and s.move is None for s in info.shards)
    assert [s.replicas for s in topology.collections["docs"].shards] == [
        s.replicas for s in log.catalog.topology.collections["docs"].shards
    ]
    assert set(topology.members) == {*NODES, "d4"}, "routers and coordinators come by themselves"
    later = restore(state, NOW_MS, NOW_MS + 1).topology
    assert later.revision > topology.revision + 900 and restorations(later.restored) == 2


def test_a_copy_of_the_future_is_refused(log: Log) -> None:
    with pytest.raises(InvalidArgumentError, match="clock"):
        restore(log.catalog.state, TAKEN_MS, TAKEN_MS - 1)


def test_what_was_on_its_way_is_given_up_and_the_fence_of_the_copy_is_kept(log: Log) -> None:
    shard = log.catalog.topology.collections["docs"].shards[0]
    log.add("begin_move", uuid="uuid of docs", shard_id=0, epoch=shard.epoch, source="d1", target="d4")
    other = log.catalog.topology.collections["docs"].shards[1]
    log.add("begin_split", uuid="uuid of docs", shard_id=1, epoch=other.epoch, at=None)
    fence = log.catalog.topology.collections["docs"].shards[0].fence
    moved, split = copied(log).topology.collections["docs"].shards
    assert (moved.move, moved.nodes("active"), moved.copied_fence) == (None, tuple(NODES), fence) and fence > 0
    assert (split.split, split.copied_fence) == (None, 0)


def test_no_lease_of_the_lost_group_is_given_out_again(log: Log) -> None:
    first = log.add("lease_origin", holder="r1/1", stamp=stamp_at(TAKEN_MS + 3_600_000))
    over = log.add("lease_origin", holder="r0/1", stamp=stamp_at(TAKEN_MS - 100_000))
    catalog = Catalog.of(copied(log), 1 << 51)
    # What the lost group gave out after the copy: the next origins, and the next automatic ids.
    lost = [log.add("lease_origin", holder=f"after {n}", stamp=stamp_at(NOW_MS)) for n in range(50)]
    now = stamp_at(NOW_MS + 1)
    new = [apply(catalog, (1 << 51) + n, "lease_origin", holder=f"new {n}", stamp=now)["value"] for n in range(50)]
    before = [first, over, *lost]
    assert not {one["origin"] for one in before} & {one["origin"] for one in new}
    assert min(one["auto_ids"][0] for one in new) >= max(one["auto_ids"][1] for one in before)
    assert new[0]["auto_ids"][0] - first["auto_ids"][0] > AUTO_IDS_PASSED
    # Whoever held one is a stranger now, and gets another one.
    again = apply(catalog, 1 << 52, "lease_origin", holder="r1/1", stamp=now)["value"]
    assert again["origin"] not in {one["origin"] for one in before}


def test_with_every_origin_leased_only_those_go_on_that_were_over(log: Log) -> None:
    for number in range(ORIGIN_MAX):
        in_force = number % 2 == 0
        stamp = stamp_at(TAKEN_MS + 3_600_000 if in_force else TAKEN_MS - 1_000_000 + number)
        log.add("lease_origin", holder=f"h{number}", stamp=stamp)
    catalog = Catalog.of(copied(log), 1 << 51)
    now = stamp_at(NOW_MS)
    one = apply(catalog, (1 << 51) + 1, "lease_origin", holder="new", stamp=now)["value"]
    # The lost group would have gone on with the one that ended first.
    assert one["origin"] == ORIGIN_MAX - 1
    late = stamp_at(NOW_MS + LEASE_MS_MAX)
    held = [o for o, lease in catalog.state.origins.items() if lease.stamp_bound >= late]
    assert len(held) == (ORIGIN_MAX + 1) // 2
    for number in range(ORIGIN_MAX // 2 - 1):
        assert "value" in apply(catalog, (1 << 51) + 2 + number, "lease_origin", holder=f"n{number}", stamp=now)
    refused = apply(catalog, 1 << 52, "lease_origin", holder="one more", stamp=now)
    assert refused["error"]["class"] == ResourceExhaustedError.__name__


def test_members_that_changed_after_the_copy_are_accepted_by_people_only(log: Log) -> None:
    catalog = Catalog.of(copied(log), 1 << 51)
    answer = apply(catalog, (1 << 51) + 1, "accept_restored", collection="docs")["value"]
    info = catalog.topology.collections["docs"]
    assert answer["uuid"] == info.schema.uuid
    assert all(s.copied_fence == info.restored and s.epoch == s.fence == answer["revision"] for s in info.shards)
    before = catalog.topology
    apply(catalog, (1 << 51) + 2, "accept_restored", collection="docs")
    assert catalog.topology is before, "once is enough"
    assert "error" in apply(catalog, (1 << 51) + 3, "accept_restored", collection="nothing")


def test_a_collection_that_was_not_restored_has_nothing_to_accept(log: Log) -> None:
    with pytest.raises(InvalidArgumentError, match="not restored"):
        log.add("accept_restored", collection="docs")


def test_a_restored_catalog_and_its_topology_come_back_from_their_bytes(log: Log) -> None:
    state = copied(log)
    snapshot = Catalog.of(state, state.topology.revision).snapshot()
    assert json.loads(snapshot)["format"] == SNAPSHOT_FORMAT == 2
    again = Catalog()
    again.restore(snapshot, state.topology.revision)
    assert again.state == state and again.snapshot() == snapshot
    assert Topology.from_json(json.loads(json.dumps(state.topology.to_json()))) == state.topology


def test_what_the_level_before_cannot_read_is_written_only_above_it(log: Log) -> None:
    older = Catalog(level=1)
    for index, entry in enumerate(log.entries, 1):
        older.apply(index, entry)
    assert json.loads(log.catalog.snapshot())["format"] == 1
    assert older.snapshot() == log.catalog.snapshot(), "every level writes the same below its own"
    older.restore(log.catalog.snapshot(), len(log.entries))
    restored = copied(log)
    with pytest.raises(FormatVersionError):
        older.restore(Catalog.of(restored, restored.topology.revision).snapshot(), restored.topology.revision)
    assert format_of("accept_restored") == 2 < COMMAND_FORMAT
    with pytest.raises(FormatVersionError):
        older.apply(99, Command("r", "c", "accept_restored", {"collection": "docs"}, 0).encode())


def test_every_member_is_made_alike_and_of_this_group_only(log: Log, tmp_path: Path) -> None:
    disk = RealDisk()
    copy = unpack_copy(pack_copy(TAKEN_MS, log.catalog.snapshot()), "copy")
    other = unpack_copy(pack_copy(TAKEN_MS, Log().catalog.snapshot()), "copy")
    members = ("c1", "c2", "c3")

    def made(name: str, copy: CatalogCopy, group: str, folder: str = "") -> Storage:
        path = str(tmp_path / (folder or name))
        restore_member(disk, path, copy, name, members, group, f"birth of {folder or name}")
        return Storage.open(disk, path)

    group = f"{NOW_MS}-abc"
    storages = [made(name, copy, group) for name in members]
    assert len({s.identity.cluster_id for s in storages}) == 1
    assert len({s.identity.birth for s in storages}) == 3
    assert len({s.recovered.snapshot for s in storages}) == 1
    first = storages[0].recovered
    assert first.snapshot is not None
    assert first.snapshot.index == first.log.last_index > 1 << 50
    strangers = [made("c1", copy, f"{NOW_MS}-abd", "x1"), made("c1", other, group, "x2")]
    assert len({s.identity.cluster_id for s in (storages[0], *strangers)}) == 3
    for storage in (*storages, *strangers):
        storage.close()
    with pytest.raises(AlreadyExistsError):
        made("c1", copy, group)
    with pytest.raises(InvalidArgumentError, match="group"):
        made("c1", copy, "abc", "x3")
