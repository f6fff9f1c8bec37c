"""The catalog, operation by operation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from omendb_common.errors import (
    AlreadyExistsError,
    FormatVersionError,
    InvalidArgumentError,
    NotFoundError,
    OmenDBError,
    ResourceExhaustedError,
)
from omendb_common.metadata import AUTO_ID_FIRST, AUTO_IDS_PER_LEASE
from omendb_common.ring import RING
from omendb_common.topology import Topology, member_to_json
from omendb_coordinator.catalog import OPERATIONS, Catalog
from omendb_coordinator.commands import COMMAND_FORMAT, ConflictError, decode_result
from omendb_coordinator.member_changes import ORIGIN_LEASE_MS
from tests.unit.coordinator.catalog_cases import SCHEMA, Log, creation, node

_NODES = ["d1", "d2", "d3"]
_LEASE = ORIGIN_LEASE_MS << 22


@pytest.fixture
def log() -> Log:
    log = Log()
    log.register(*(node(n) for n in _NODES))
    return log


def _state(log: Log) -> str:
    return log.catalog.topology.members["d1"].state


def test_a_new_collection_covers_the_ring_at_the_epoch_of_its_command(log: Log) -> None:
    answer = log.create("docs", _NODES, shards=4)
    info = log.catalog.topology.collection("docs")
    assert answer == {"uuid": "uuid of docs", "revision": 4}
    assert info.schema == replace(SCHEMA, uuid="uuid of docs")
    assert [s.epoch for s in info.shards] == [4] * 4
    assert [(s.shard_id, s.low) for s in info.shards] == [(i, i * RING // 4) for i in range(4)]
    assert info.shards[-1].high == RING
    assert all(s.nodes("active") == tuple(_NODES) for s in info.shards)
    assert log.catalog.topology.revision == info.revision == 4


def test_a_name_is_taken_once_whether_by_collection_or_alias(log: Log) -> None:
    log.create("docs", _NODES)
    log.add("set_alias", alias="latest", collection="docs")
    for name in ("docs", "latest"):
        with pytest.raises(AlreadyExistsError):
            log.add("create_collection", **creation(name, "u2", _NODES, 3))
        with pytest.raises(AlreadyExistsError):
            log.create("other", _NODES)
            log.add("rename_collection", old="other", new=name)
    with pytest.raises(AlreadyExistsError):
        log.add("set_alias", alias="docs", collection="docs")


def test_a_placement_made_from_other_members_is_refused_and_may_be_made_anew(log: Log) -> None:
    seen = log.catalog.state.members_revision
    log.add("set_member_state", node_id="d1", incarnation="folder of d1", was="up", to="suspect")
    before = log.catalog.state
    with pytest.raises(ConflictError):
        log.add("create_collection", "the request", **creation("docs", "u", _NODES, seen))
    assert log.catalog.state is before
    now = log.catalog.state.members_revision
    answer = log.add("create_collection", "the request", **creation("docs", "u", ["d2", "d3"], now))
    assert log.add("create_collection", "the request", **creation("docs", "u9", _NODES, now)) == answer


def test_routers_and_coordinators_do_not_disturb_placements(log: Log) -> None:
    seen = log.catalog.state.members_revision
    log.register(replace(node("r1"), role="router"), replace(node("c1"), role="coordinator"))
    assert log.catalog.state.members_revision == seen


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a/b"},
        {"name": 7},
        {"schema": {}},
        {"schema": None},
        {"schema": {"format": 1, "uuid": "", "version": 1, "vectors": [{"name": ""}], "options": {}}},
        {"places": [[0, 1]]},
        {"places": [[0, 1, 1]]},
        {"places": [[0, 1, 3]]},
        {"places": [[0, 1, -1]]},
        {"places": [[0, 1, "2"]]},
        {"places": [[True, 1, 2]]},
        {"places": []},
        {"places": None},
        {"nodes": ["d1", "d2", None]},
        {"replication": 8},
        {"write_quorum": 4},
        {"read_quorum": 0},
        {"partition_key": ""},
        {"partition_key": "k" * 256},
        {"partition_key": 1},
        {"members_revision": None},
        {"uuid": None},
    ],
)
def test_a_creation_that_makes_no_sense_is_refused_and_changes_nothing(log: Log, wrong: dict[str, Any]) -> None:
    before = log.catalog.state
    with pytest.raises((InvalidArgumentError, NotFoundError)):
        log.add("create_collection", **{**creation("docs", "u", _NODES, 3), **wrong})
    assert log.catalog.state is before


@pytest.mark.parametrize("op", sorted(OPERATIONS))
@pytest.mark.parametrize("junk", [None, 7, "", "x", [], {}, -1, True, 1.5])
def test_no_operation_raises_anything_but_its_own_errors_on_junk(log: Log, op: str, junk: Any) -> None:
    log.create("x", _NODES)
    names = (
        *("alias", "collection", "draining", "epoch", "holder", "incarnation", "level", "member", "name", "new"),
        *("node_id", "old", "options", "replicas", "shard_id", "stamp", "to", "uuid", "was", "cluster_id", "schema"),
    )
    with_junk = dict.fromkeys(names, junk)
    good = {"name": "x", "old": "x", "alias": "a", "uuid": "uuid of x", "shard_id": 0, "epoch": 4, "node_id": "d1"}
    for args in ({}, with_junk, with_junk | good, with_junk | good | {"member": dict.fromkeys(names, junk)}):
        try:
            log.add(op, **args)
        except OmenDBError:
            continue


def test_an_operation_that_nobody_knows_is_refused(log: Log) -> None:
    with pytest.raises(InvalidArgumentError):
        log.add("explode")
    with pytest.raises(InvalidArgumentError):
        decode_result(log.catalog.apply(99, b"not JSON"))


def test_a_command_of_a_newer_release_stops_the_member(log: Log) -> None:
    newer = log.entries[0].replace(b'"v":1', b'"v":%d' % (COMMAND_FORMAT + 1))
    with pytest.raises(FormatVersionError):
        log.catalog.apply(99, newer)


def test_a_drop_takes_the_aliases_along_and_leaves_the_name_free(log: Log) -> None:
    log.create("docs", _NODES)
    log.add("set_alias", alias="latest", collection="docs")
    log.add("drop_collection", name="docs")
    assert log.catalog.topology.aliases == {} == log.catalog.topology.collections
    with pytest.raises(NotFoundError):
        log.add("drop_collection", name="docs")
    log.register(node("d1"))
    revision = log.catalog.state.members_revision
    log.add("create_collection", **creation("docs", "another uuid", _NODES, revision))
    assert log.catalog.topology.collection("docs").schema.uuid == "another uuid"


def test_what_changes_a_collection_does_not_go_through_an_alias(log: Log) -> None:
    log.create("docs", _NODES)
    log.add("set_alias", alias="latest", collection="docs")
    for op, args in {
        "drop_collection": {"name": "latest"},
        "rename_collection": {"old": "latest", "new": "x"},
        "alter_collection": {"name": "latest"},
        "set_alias": {"alias": "second", "collection": "latest"},
    }.items():
        with pytest.raises(NotFoundError, match="alias of 'docs'"):
            log.add(op, **args)


def test_aliases_follow_a_rename_and_epochs_do_not_change(log: Log) -> None:
    log.create("docs", _NODES)
    log.add("set_alias", alias="latest", collection="docs")
    log.add("rename_collection", old="docs", new="papers")
    topology = log.catalog.topology
    assert topology.collection("latest").name == "papers"
    assert [s.epoch for s in topology.collection("papers").shards] == [4]
    with pytest.raises(NotFoundError):
        topology.collection("docs")


def test_an_alias_moves_in_one_step_and_goes_away(log: Log) -> None:
    log.create("one", _NODES)
    log.create("two", _NODES)
    log.add("set_alias", alias="latest", collection="one")
    log.add("set_alias", alias="latest", collection="two")
    assert log.catalog.topology.collection("latest").name == "two"
    log.add("set_alias", alias="latest", collection=None)
    with pytest.raises(NotFoundError):
        log.add("set_alias", alias="latest", collection=None)


def test_options_and_quorums_can_be_altered(log: Log) -> None:
    log.create("docs", _NODES)
    log.add("alter_collection", name="docs", write_quorum=3, options={"M": 32, "index": "hnsw"})
    log.add("alter_collection", name="docs", read_quorum=1, options={"M": None})
    info = log.catalog.topology.collection("docs")
    assert (info.write_quorum, info.read_quorum) == (3, 1)
    assert (dict(info.schema.options), info.schema.version) == ({"index": "hnsw"}, 3)
    revision = log.catalog.topology.revision
    log.add("alter_collection", name="docs", read_quorum=1)
    assert log.catalog.topology.revision == revision
    with pytest.raises(InvalidArgumentError):
        log.add("alter_collection", name="docs", write_quorum=4)


def test_a_shard_moves_only_from_the_epoch_that_was_looked_at(log: Log) -> None:
    log.create("docs", _NODES, shards=2)
    move: dict[str, Any] = {"uuid": "uuid of docs", "shard_id": 1, "epoch": 4}
    log.add("place_shard", **move, replicas=[["d1", "active"], ["d2", "joining"]])
    first, second = log.catalog.topology.collection("docs").shards
    assert (first.epoch, second.epoch) == (4, 5)
    assert (second.nodes("active"), second.nodes("joining")) == (("d1",), ("d2",))
    with pytest.raises(ConflictError):
        log.add("place_shard", **move, replicas=[["d3", "active"]])
    for wrong in ([], [["d1", "active"], ["d1", "joining"]], [["d1", "fine"]], [["r9", "active"]], ["d1"], None):
        with pytest.raises((InvalidArgumentError, NotFoundError)):
            log.add("place_shard", **{**move, "epoch": 5}, replicas=wrong)


def test_a_data_node_with_another_folder_is_refused_while_the_known_one_is_up(log: Log) -> None:
    log.create("docs", _NODES)
    swapped = replace(node("d1"), incarnation="another folder")
    with pytest.raises(AlreadyExistsError):
        log.register(swapped)
    log.add("set_member_state", node_id="d1", incarnation="folder of d1", was="up", to="down")
    log.register(swapped)
    shard = log.catalog.topology.collection("docs").shards[0]
    assert (shard.nodes("lost"), shard.nodes("active")) == (("d1",), ("d2", "d3"))
    assert shard.epoch == log.catalog.topology.revision
    # The old folder comes back too late: its name belongs to the new one.
    with pytest.raises(AlreadyExistsError):
        log.register(node("d1"))


def test_a_data_node_that_comes_back_on_its_own_folder_keeps_its_replicas(log: Log) -> None:
    log.create("docs", _NODES)
    log.add("set_member_state", node_id="d1", incarnation="folder of d1", was="up", to="down")
    log.register(replace(node("d1"), address="elsewhere:8500"))
    assert _state(log) == "up"
    assert log.catalog.topology.members["d1"].address == "elsewhere:8500"
    assert log.catalog.topology.collection("docs").shards[0].nodes("active") == tuple(_NODES)


def test_a_router_comes_back_as_a_new_one_and_leaves_without_a_trace(log: Log) -> None:
    router = replace(node("r1"), role="router")
    log.register(router, replace(router, incarnation="second start"))
    with pytest.raises(ConflictError):
        log.add("leave", node_id="r1", incarnation=router.incarnation)
    log.add("leave", node_id="r1", incarnation="second start")
    assert "r1" not in log.catalog.topology.members
    with pytest.raises(AlreadyExistsError):
        log.register(replace(node("d1"), role="router"))


def test_a_data_node_that_leaves_is_down_and_no_stranger(log: Log) -> None:
    log.add("leave", node_id="d1", incarnation="folder of d1")
    assert _state(log) == "down"
    log.register(node("d1"))
    assert _state(log) == "up"


def test_a_registration_that_says_nothing_new_changes_nothing(log: Log) -> None:
    before = log.catalog.topology
    log.register(node("d1"))
    assert log.catalog.topology is before


@pytest.mark.parametrize(
    "wrong",
    [
        {"node_id": ""},
        {"node_id": "a b"},
        {"node_id": "x" * 64},
        {"role": "king"},
        {"address": ""},
        {"incarnation": ""},
        {"zone": 1},
        {"zone": "z" * 256},
        {"capacity": 0},
        {"capacity": 1e9},
        {"capacity": "1"},
        {"capacity": True},
        {"feature_level": -1},
    ],
)
def test_a_member_that_makes_no_sense_is_refused(log: Log, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        log.add("register", member=member_to_json(node("d9")) | wrong)


def test_what_a_newer_release_says_of_a_member_is_passed_over(log: Log) -> None:
    log.add("register", member=member_to_json(node("d9")) | {"rack": "7"})
    assert log.catalog.topology.members["d9"] == node("d9")


def test_a_transition_counts_only_from_the_state_that_was_seen(log: Log) -> None:
    for args in (
        {"incarnation": "folder of d1", "was": "suspect", "to": "down"},
        {"incarnation": "another folder", "was": "up", "to": "suspect"},
    ):
        with pytest.raises(ConflictError):
            log.add("set_member_state", node_id="d1", **args)
    with pytest.raises(InvalidArgumentError):
        log.add("set_member_state", node_id="d1", incarnation="folder of d1", was="up", to="left")


def test_draining_outlives_a_death(log: Log) -> None:
    log.add("drain", node_id="d1", draining=True)
    states = ["draining"]
    for was, to in (("draining", "suspect"), ("suspect", "down"), ("down", "up")):
        log.add("set_member_state", node_id="d1", incarnation="folder of d1", was=was, to=to)
        states.append(_state(log))
    assert states == ["draining", "suspect", "down", "draining"]
    log.register(node("d1"))
    assert _state(log) == "draining"
    log.add("drain", node_id="d1", draining=False)
    assert _state(log) == "up"
    log.register(replace(node("r1"), role="router"))
    with pytest.raises(InvalidArgumentError):
        log.add("drain", node_id="r1", draining=True)


def test_only_who_is_down_and_holds_nothing_is_forgotten(log: Log) -> None:
    log.create("docs", ["d1", "d2"])
    with pytest.raises(InvalidArgumentError):
        log.add("forget_member", node_id="d3")
    for node_id in ("d1", "d3"):
        log.add("leave", node_id=node_id, incarnation=f"folder of {node_id}")
    with pytest.raises(InvalidArgumentError, match="docs"):
        log.add("forget_member", node_id="d1")
    log.add("forget_member", node_id="d3")
    assert sorted(log.catalog.topology.members) == ["d1", "d2"]


def test_a_lease_reaches_ahead_and_is_renewed_under_its_holder(log: Log) -> None:
    before = log.catalog.topology
    first = log.add("lease_origin", holder="r1/1", stamp=1000)
    assert first == {
        "origin": 1,
        "stamp_above": 1000,
        "stamp_bound": 1000 + _LEASE,
        "auto_ids": [AUTO_ID_FIRST, AUTO_ID_FIRST + AUTO_IDS_PER_LEASE],
    }
    again = log.add("lease_origin", holder="r1/1", stamp=5000)
    assert again == {**first, "stamp_above": 5000, "stamp_bound": 5000 + _LEASE}
    # The bound never comes down: what was allowed once may have been used.
    assert log.add("lease_origin", holder="r1/1", stamp=2000)["stamp_bound"] == 5000 + _LEASE
    other = log.add("lease_origin", holder="r1/2", stamp=1000)
    assert other["origin"] == 2
    assert other["auto_ids"][0] == first["auto_ids"][1]
    assert log.catalog.topology is before, "leases are nobody else's news"


def test_an_origin_goes_on_only_to_who_starts_above_its_bound(log: Log) -> None:
    for number in range(4095):
        log.add("lease_origin", holder=f"h{number}", stamp=number)
    for stamp in (0, _LEASE):
        with pytest.raises(ResourceExhaustedError):
            log.add("lease_origin", holder="late", stamp=stamp)
    taken = log.add("lease_origin", holder="late", stamp=_LEASE + 1)
    assert taken["origin"] == 1
    # The one that held it is a stranger now, and must start above somebody's bound as well.
    back = log.add("lease_origin", holder="h0", stamp=_LEASE + 2)
    assert back["origin"] == 2
    with pytest.raises(InvalidArgumentError):
        log.add("lease_origin", holder="h", stamp=2**64 - 1)


def test_the_cluster_is_named_once(log: Log) -> None:
    assert log.add("name_cluster", cluster_id="one")["cluster_id"] == "one"
    assert log.add("name_cluster", cluster_id="two")["cluster_id"] == "one"
    assert log.catalog.topology.cluster_id == "one"


def test_the_level_rises_when_every_member_understands_it(log: Log) -> None:
    log.register(*(node(n, feature_level=2) for n in ("d1", "d2")))
    with pytest.raises(InvalidArgumentError):
        log.add("raise_level", level=2)
    log.register(node("d3", feature_level=3))
    log.add("raise_level", level=2)
    log.add("raise_level", level=1)
    assert log.catalog.topology.feature_level == 2


def test_listeners_hear_of_changes_to_the_topology_and_of_nothing_else() -> None:
    heard: list[tuple[int, bool]] = []

    def listen(topology: Topology, resync: bool) -> None:
        heard.append((topology.revision, resync))

    log = Log()
    log.catalog = Catalog(listen)
    log.register(node("d1"), node("d1"), node("d2"))
    log.add("lease_origin", holder="h", stamp=0)
    with pytest.raises(NotFoundError):
        log.add("drop_collection", name="docs")
    assert heard == [(1, False), (3, False)]
    Catalog(listen).restore(log.catalog.snapshot(), 5)
    assert heard[-1] == (3, True)
