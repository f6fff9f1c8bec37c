"""The client and the service together, over real gRPC on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest

from omendb_common.catalog_copy import unpack_copy
from omendb_common.errors import (
    AlreadyExistsError,
    DeadlineExceededError,
    FormatVersionError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from omendb_common.index_options import LEVEL
from omendb_common.metadata import Metadata
from omendb_common.topology import PROBLEMS_MAX, ReplicaLoad, ReplicaPlace, ReplicaSize, Topology, member_to_json
from omendb_common.wire import status
from omendb_common.wire.coordinator_client import LEADER_KEY, CoordinatorClient
from omendb_coordinator.catalog import state_of
from omendb_coordinator.control import Asking
from omendb_coordinator.service import JSON_DEPTH_MAX
from omendb_proto.v1 import coordinator_pb2 as pb
from omendb_proto.v1 import coordinator_pb2_grpc as rpc
from tests.unit.coordinator.catalog_cases import node
from tests.unit.coordinator.loopback import CLOCK, QUICK, Loopback, collection, in_a_loop, one_coordinator, soon, until

_PATIENT = replace(QUICK, suspect_s=60.0, down_s=120.0, grace_s=120.0)


@in_a_loop
async def test_every_change_comes_back_and_shows_in_the_topology() -> None:
    async with one_coordinator(_PATIENT) as (server, client):
        metadata: Metadata = client
        made = await metadata.create_collection(collection("docs", shards=2, partition_key="tenant"), soon())
        assert made == client.topology.collection("docs") == server.catalog.topology.collection("docs")
        assert (made.replication, made.write_quorum, len(made.shards), made.partition_key) == (3, 2, 2, "tenant")
        await metadata.set_alias("latest", "docs", soon())
        await metadata.rename_collection("docs", "papers", soon())
        assert client.topology.collection("latest").name == "papers"
        with pytest.raises(InvalidArgumentError, match="finalize-upgrade"):  # its members are of the level before
            await client.alter_collection("papers", soon(), read_quorum=1)
        altered = await client.alter_collection("papers", soon(), options={"M": 8})
        assert (altered.read_quorum, dict(altered.schema.options)) == (2, {"M": 8})
        shard = altered.shards[1]
        moved = await client.place_shard(
            altered.schema.uuid, 1, shard.epoch, [ReplicaPlace("d0"), ReplicaPlace("d1", "joining")], soon()
        )
        assert moved.shards[1].nodes("joining") == ("d1",)
        with pytest.raises(AlreadyExistsError):
            await client.place_shard(altered.schema.uuid, 1, shard.epoch, [ReplicaPlace("d0")], soon())
        assert (await metadata.drain("d2", True, soon())).state == "draining"
        lease = await metadata.lease_origin("r1/start", 1 << 63, soon())
        assert (lease.origin, lease.stamp_above) == (1, 1 << 63)
        assert lease.auto_ids[1] > lease.auto_ids[0] >= 1 << 40
        await metadata.set_alias("latest", None, soon())
        await metadata.drop_collection("papers", soon())
        assert client.topology.collections == {} == client.topology.aliases
        told = await metadata.status(soon())
        assert (told["leader"], told["leader_address"]) == ("c1", server.address)
        assert {m["node_id"]: m["state"] for m in told["members"]} == {"d0": "up", "d1": "up", "d2": "draining"}


@in_a_loop
async def test_a_refusal_comes_back_at_once_and_as_itself() -> None:
    async with one_coordinator(_PATIENT) as (_, client):
        await client.create_collection(collection("docs"), soon())
        calls = [
            (AlreadyExistsError, client.create_collection(collection("docs"), soon(300))),
            (InvalidArgumentError, client.create_collection(collection("no/name"), soon(300))),
            (InvalidArgumentError, client.create_collection(collection("x", shards=1 << 40), soon(300))),
            (InvalidArgumentError, client.create_collection(collection("x", write_quorum=9), soon(300))),
            (UnavailableError, client.create_collection(collection("x", replication=5), soon(300))),
            (NotFoundError, client.drop_collection("nothing", soon(300))),
            (NotFoundError, client.drain("nobody", True, soon(300))),
            (AlreadyExistsError, client.register(replace(node("d0"), incarnation="another"), soon(300))),
        ]
        for kind, call in calls:
            with pytest.raises(kind) as refused:
                await asyncio.wait_for(call, 10.0)
            assert type(refused.value) is kind
            assert refused.value.field
            if isinstance(refused.value, UnavailableError):
                assert refused.value.outcome == "none"


@in_a_loop
async def test_a_change_whose_answer_was_lost_takes_effect_once() -> None:
    async with one_coordinator(_PATIENT) as (server, client):
        server.group.lose_answers = 2
        made = await client.create_collection(collection("docs"), soon())
        server.group.lose_answers = 1
        await client.set_alias("latest", "docs", soon())
        server.group.lose_answers = 1
        await client.drop_collection("docs", soon())
        assert server.catalog.topology.collections == {}
        assert made.name == "docs"


@in_a_loop
async def test_a_repeated_creation_is_answered_even_when_the_nodes_are_gone_by_then() -> None:
    async with one_coordinator(_PATIENT) as (server, client):
        server.group.lose_answers = 1
        creating = asyncio.create_task(client.create_collection(collection("docs"), soon()))
        await until(lambda: "docs" in server.catalog.topology.collections)
        for number in range(3):
            await server.control.leave(Asking(f"end {number}", ""), f"d{number}", f"folder of d{number}", 1.0)
        assert (await creating).name == "docs"
        with pytest.raises(UnavailableError, match="0 data nodes"):
            await client.create_collection(collection("more", replication=1), soon())


@in_a_loop
async def test_a_placement_is_made_anew_when_a_member_changes_meanwhile() -> None:
    async with one_coordinator(_PATIENT) as (server, client):
        # Planned with three nodes; by the time it is applied one is down.
        server.group.before_apply = lambda: server.group.decree(
            "set_member_state", node_id="d1", incarnation="folder of d1", was="up", to="down"
        )
        made = await client.create_collection(collection("docs", replication=2), soon())
        assert set(made.shards[0].nodes("active")) == {"d0", "d2"}


@in_a_loop
async def test_a_change_took_place_even_when_the_collection_is_dropped_before_its_answer() -> None:
    async with one_coordinator(_PATIENT) as (server, client):
        server.group.after_apply = lambda: server.group.decree("drop_collection", name="docs")
        made = await client.create_collection(collection("docs"), soon())
        assert "docs" not in server.catalog.topology.collections
        assert (made.name, len(made.shards[0].replicas)) == ("docs", 3)


@in_a_loop
async def test_members_that_never_stay_the_same_end_in_a_refusal() -> None:
    async with one_coordinator(replace(_PATIENT, placements_max=3)) as (server, client):

        def flap() -> None:
            was = server.catalog.topology.members["d1"].state
            to = "up" if was == "suspect" else "suspect"
            server.group.decree("set_member_state", node_id="d1", incarnation="folder of d1", was=was, to=to)
            server.group.before_apply = flap

        server.group.before_apply = flap
        with pytest.raises(UnavailableError) as refused:
            await client.create_collection(collection("docs", replication=2), soon())
        assert refused.value.outcome == "none"
        assert server.catalog.topology.collections == {}


@in_a_loop
async def test_the_leader_is_found_from_any_member() -> None:
    async with one_coordinator(_PATIENT) as (leader, _):
        follower = Loopback(node_id="c2")
        follower.group.leader = "c1"
        follower.addresses["c1"] = leader.address
        await follower.start(leads=False)
        client = CoordinatorClient([follower.address], None, CLOCK)
        await client.start()
        try:
            await client.create_collection(collection("docs"), soon())
            assert "docs" in client.topology.collections
            assert "docs" in leader.catalog.topology.collections
        finally:
            await client.close()
            await follower.stop()


@in_a_loop
async def test_a_member_that_does_not_lead_says_who_does() -> None:
    server = Loopback()
    server.group.leader = "c9"
    server.addresses["c9"] = "elsewhere:1"
    await server.start(leads=False)
    async with grpc.aio.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await rpc.CoordinatorMembersStub(channel).Heartbeat(pb.HeartbeatRequest(node_id="d0", incarnation="x"))
    told = status.from_rpc(failed.value)
    assert isinstance(told, UnavailableError)
    assert told.outcome == "none"
    assert (LEADER_KEY, "elsewhere:1") in tuple(failed.value.trailing_metadata() or ())
    await server.stop()


@in_a_loop
async def test_with_every_coordinator_gone_the_topology_stays_and_changes_say_that_nothing_happened() -> None:
    async with one_coordinator(_PATIENT) as (server, client):
        made = await client.create_collection(collection("docs"), soon())
        await server.stop()
        await until(lambda: not client.connected)
        with pytest.raises(UnavailableError) as refused:
            await client.drop_collection("docs", soon(0.5))
        assert refused.value.outcome == "none"
        assert client.topology.collection("docs") == made
        await server.start(leads=False)
        server.group.decree("rename_collection", old="docs", new="papers")
        await until(lambda: "papers" in client.topology.collections)
        await client.drop_collection("papers", soon())


@in_a_loop
async def test_a_group_that_never_answers_leaves_the_outcome_open() -> None:
    async with one_coordinator(_PATIENT) as (server, client):
        server.group.lose_answers = 1_000
        with pytest.raises((UnavailableError, DeadlineExceededError)) as open_end:
            await client.create_collection(collection("docs"), soon(0.5))
        assert getattr(open_end.value, "outcome", None) == "unknown"


@in_a_loop
async def test_a_watch_brings_every_change_in_order_and_never_goes_back() -> None:
    async with one_coordinator(_PATIENT) as (server, client):
        seen: list[Topology] = []
        client.on_change(seen.append)
        for number in range(20):
            server.group.decree("set_alias", alias=f"a{number}", collection=None)  # refused: no news
            server.group.decree("drain", node_id="d0", draining=number % 2 == 0)
            if number % 3 == 0:
                await until(lambda: client.topology.revision == server.catalog.topology.revision)
        await until(lambda: bool(seen) and seen[-1] == server.catalog.topology)
        revisions = [t.revision for t in seen]
        assert revisions == sorted(set(revisions))
        assert len(revisions) >= 7


@in_a_loop
async def test_a_follower_too_far_behind_is_sent_the_whole() -> None:
    async with one_coordinator(_PATIENT) as (server, _):
        # A ring that has forgotten everything but the newest.
        server.watch.publish(server.catalog.topology, resync=True)
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = rpc.CoordinatorMembersStub(channel)
            for revision, form in ((0, "topology_json"), (1, "topology_json"), (server.watch.newest.revision, None)):
                call = stub.Watch(pb.WatchRequest(revision=revision))
                event = await call.read()
                assert event.WhichOneof("form") == form
                call.cancel()
            call = stub.Watch(pb.WatchRequest(revision=server.watch.newest.revision))
            server.group.decree("drain", node_id="d0", draining=True)
            event = await call.read()
            assert event.WhichOneof("form") == "delta_json"
            call.cancel()


class Babbling(rpc.CoordinatorMembersServicer):
    """A coordinator whose watch says what is no topology."""

    def __init__(self) -> None:
        self.asked = 0

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchEvent]:
        self.asked += 1
        yield pb.WatchEvent(topology_json=b'{"revision": 1')
        await asyncio.Event().wait()


@in_a_loop
async def test_a_watch_that_cannot_be_understood_is_given_up_for_another() -> None:
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(repr(context.get("exception"))))
    async with one_coordinator(_PATIENT) as (server, _):
        babbling, other = Babbling(), grpc.aio.server()
        rpc.add_CoordinatorMembersServicer_to_server(babbling, other)
        port = other.add_insecure_port("127.0.0.1:0")
        await other.start()
        # From whichever it begins with, it comes to the other one when the sound one is gone and back.
        client = CoordinatorClient([f"127.0.0.1:{port}", server.address], None, CLOCK)
        await client.start()
        try:
            await until(lambda: client.topology == server.catalog.topology)
            await server.stop()
            await until(lambda: babbling.asked > 0 and bool(told))
            await server.start()
            await until(lambda: client.connected)
            server.group.decree("drain", node_id="d0", draining=True)
            await until(lambda: client.topology == server.catalog.topology)
        finally:
            await client.close()
            await other.stop(None)
    assert all(fault.startswith("JSONDecodeError") for fault in told)


@in_a_loop
async def test_a_coordinator_without_a_leader_is_nobodys_source() -> None:
    async with one_coordinator(_PATIENT) as (server, client):
        await until(lambda: client.connected)
        server.group.leader = None
        await until(lambda: not client.connected)
        server.group.leader = "c1"
        await until(lambda: client.connected)


async def told_of_another_cluster(client: CoordinatorClient) -> bool:
    try:
        await client.refresh(0, soon())
    except InvalidArgumentError as error:
        return "cluster" in str(error)
    return False


@in_a_loop
async def test_coordinators_of_another_cluster_are_not_followed() -> None:
    async with one_coordinator(_PATIENT) as (server, client):
        # A client that knows of no cluster yet would follow any.
        await until(lambda: bool(client.topology.cluster_id))
        before = client.topology
        await server.stop()
        stranger = Loopback()
        stranger.address = server.address
        for number in range(30):
            stranger.group.decree("register", member=member_to_json(node(f"x{number}")))
        await stranger.start()
        try:
            await until(lambda: bool(stranger.catalog.topology.cluster_id))
            # The port may be the old server's for a moment more.
            async with asyncio.timeout(20):
                while not await told_of_another_cluster(client):
                    await asyncio.sleep(0.01)
            assert client.topology is before
        finally:
            await stranger.stop()


@in_a_loop
async def test_silence_is_noticed_and_a_heartbeat_brings_a_member_back() -> None:
    async with one_coordinator(QUICK, nodes=1) as (server, client):

        def state() -> str:
            return server.catalog.topology.members["d0"].state

        await until(lambda: state() == "down")
        client.start_heartbeats(node("d0"), interval_s=0.05)
        await until(lambda: state() == "up" and client.member_state == "up")
        revision = server.catalog.topology.revision
        await client.leave(soon())
        assert state() == "down"
        # Long enough for rounds of the leader's duties, short enough for the silence to count for nothing.
        await asyncio.sleep(0.1)
        assert server.catalog.topology.revision == revision + 1


@in_a_loop
async def test_what_a_member_tells_of_itself_stands_in_the_report() -> None:
    async with one_coordinator(QUICK, nodes=1) as (_, client):
        problems = [f"replica {number} is damaged" for number in range(PROBLEMS_MAX)]
        client.start_heartbeats(node("d0"), interval_s=0.05, problems=lambda: problems)

        async def told() -> list[str]:
            (member,) = (await client.status(soon()))["members"]
            return list(member["problems"])

        async def until_told(expected: list[str]) -> None:
            async with asyncio.timeout(20):
                while await told() != expected:
                    await asyncio.sleep(0.02)

        await until_told(problems)
        problems.append("and the disk is full")
        await until_told([*problems[: PROBLEMS_MAX - 1], "and 2 more"])
        problems.clear()
        await until_told([])


@in_a_loop
async def test_how_busy_replicas_are_stands_in_the_report() -> None:
    async with one_coordinator(replace(QUICK, split_load=0.5), nodes=1) as (_, client):
        info = await client.create_collection(collection("docs"), soon())
        sizes = [ReplicaSize(info.schema.uuid, 0, 7, 9, ReplicaLoad(2.0, 0.75, (1 << 64) - 1, 0.25))]
        client.start_heartbeats(node("d0"), interval_s=0.05, sizes=lambda: sizes)

        async def until_told(of_node: float, **of_shard: float) -> dict[str, Any]:
            async with asyncio.timeout(20):
                while True:
                    told = await client.status(soon())
                    (member,), (shard,) = told["members"], told["collections"][0]["shards"]
                    if member["load"] == of_node and of_shard.items() <= shard.items():
                        return told
                    await asyncio.sleep(0.02)

        told = await until_told(2.0, rows=7, bytes=9, load=2.0, load_that_divides=0.75)
        (busy,) = told["busy"]
        assert (busy["collection"], busy["shard_id"], busy["load"], busy["bound"]) == ("docs", 0, 0.75, 0.5)
        assert busy["kept"] == "there is no other data node"
        sizes[0] = replace(sizes[0], load=ReplicaLoad(float("nan"), float("inf"), 5, -1.0))
        assert (await until_told(0.0, load=0.0))["busy"] == []
        sizes[0] = replace(sizes[0], rows=8, load=None)
        (shard,) = (await until_told(0.0, rows=8))["collections"][0]["shards"]
        assert "load" not in shard, "a release that tells none"


@in_a_loop
async def test_routers_that_are_gone_for_good_are_forgotten_and_data_nodes_by_order() -> None:
    async with one_coordinator(replace(QUICK, forget_s=1.0), nodes=1) as (server, client):
        await client.register(replace(node("r1"), role="router"), soon())
        await until(lambda: "r1" not in server.catalog.topology.members)
        await until(lambda: server.catalog.topology.members["d0"].state == "down")
        await client.forget_member("d0", soon())
        assert client.topology.members == {}
        with pytest.raises(NotFoundError):
            await client.forget_member("d0", soon())


@in_a_loop
async def test_a_member_that_the_coordinators_do_not_know_registers_by_itself() -> None:
    async with one_coordinator(_PATIENT, nodes=0) as (server, client):
        client.start_heartbeats(node("d0"), interval_s=0.05)
        await until(lambda: "d0" in server.catalog.topology.members)
        server.group.decree("leave", node_id="d0", incarnation="folder of d0")
        server.group.decree("forget_member", node_id="d0")
        assert "d0" not in server.catalog.topology.members
        await until(lambda: "d0" in server.catalog.topology.members)


@in_a_loop
async def test_who_registers_is_told_so_only_once_it_sees_the_map_that_follows() -> None:
    """Else a data node on a new folder would make the replicas anew that were just noted as lost (P16)."""
    async with one_coordinator(_PATIENT) as (server, client):
        made = await client.create_collection(collection("docs"), soon())
        lost = made.shards[0].replicas[0].node_id
        await client.leave(soon())
        anew = replace(client.topology.members[lost], incarnation="a new folder", state="up")
        await server.control.leave(Asking("leave", "test"), lost, client.topology.members[lost].incarnation, 5.0)
        late = CoordinatorClient([server.address], None, CLOCK)
        # It follows nobody, and whoever it asks for the map is silent.
        answered = asyncio.Event()

        async def silent(timeout_s: float) -> Topology:
            answered.set()
            await asyncio.sleep(timeout_s)
            raise UnavailableError("silent", field="coordinator", outcome="none")

        asked, server.control.read = server.control.read, silent  # type: ignore[method-assign]
        try:
            with pytest.raises((UnavailableError, DeadlineExceededError)):
                await late.register(anew, soon(1.5))
            assert answered.is_set()
            assert server.catalog.topology.members[lost].incarnation == "a new folder"
            server.control.read = asked  # type: ignore[method-assign]
            await late.register(anew, soon())
            placed = late.topology.collection("docs").shards[0].replicas
            # The leader may have it made anew already; either way it counts for nothing.
            assert [r.state for r in placed if r.node_id == lost] in (["lost"], ["joining"])
        finally:
            await late.close()


@in_a_loop
async def test_the_cluster_gets_a_name_and_the_level_that_all_understand() -> None:
    async with one_coordinator(_PATIENT, nodes=1) as (server, client):
        assert server.catalog.topology.cluster_id
        server.group.decree("register", member=member_to_json(replace(node("d0"), feature_level=3)))
        await asyncio.sleep(0.1)
        assert server.catalog.topology.feature_level == 1, "no coordinator has said what it understands"
        await client.register(replace(node("c1"), role="coordinator", feature_level=2), soon())
        await until(lambda: server.catalog.topology.feature_level == 2)
        # From then on nobody is taken in who would not understand.
        with pytest.raises(FormatVersionError, match=r"'d1' understands level 1.*finalised at 2") as refused:
            await client.register(node("d1"), soon())
        assert refused.value.mend
        # And whoever is told of such a cluster does not follow it.
        older = CoordinatorClient([server.address], None, CLOCK, level=1)
        await older.start()
        try:
            with pytest.raises(FormatVersionError):
                await older.refresh(0, soon())
            assert older.topology.revision == 0
        finally:
            await older.close()


@in_a_loop
async def test_the_first_collection_finds_a_new_cluster_at_the_newest_level() -> None:
    """However quick its user is: after it nothing but an operator raises the level."""
    async with one_coordinator(_PATIENT, nodes=0) as (server, client):
        server.control._settings = replace(_PATIENT, decide_s=60.0)
        await asyncio.sleep(3 * _PATIENT.decide_s)  # the round under way still had the other
        for number in range(3):
            server.group.decree("register", member=member_to_json(replace(node(f"d{number}"), feature_level=2)))
        server.group.decree("register", member=member_to_json(replace(node("c1"), role="coordinator", feature_level=2)))
        assert server.catalog.topology.feature_level == 1
        await client.create_collection(collection("docs"), soon())
        assert server.catalog.topology.feature_level == 2


@in_a_loop
async def test_an_index_that_older_members_cannot_read_waits_for_the_level_that_brings_it() -> None:
    async with one_coordinator(_PATIENT) as (server, client):
        made = await client.create_collection(collection("docs"), soon())
        newer: list[dict[str, Any]] = [{"index": "ivf"}, {"quantization": "scalar8"}, {"nlist": 4}]
        for number, options in enumerate(newer):
            asked = replace(collection(f"c{number}"), schema=replace(made.schema, options=options))
            with pytest.raises(InvalidArgumentError, match="finalize-upgrade"):
                await client.create_collection(asked, soon())
            with pytest.raises(InvalidArgumentError, match="finalize-upgrade"):
                await client.alter_collection("docs", soon(), options=options)
        assert len(client.topology.collections) == 1
        state = server.catalog.state
        server.catalog._state = replace(state, topology=replace(state.topology, feature_level=LEVEL))
        for number, options in enumerate(newer):
            asked = replace(collection(f"c{number}"), schema=replace(made.schema, options=options))
            assert dict((await client.create_collection(asked, soon())).schema.options) == options


@in_a_loop
async def test_who_was_upgraded_while_nobody_looked_registers_with_the_next_heartbeat() -> None:
    async with one_coordinator(_PATIENT) as (server, client):
        newer = replace(node("d0"), feature_level=2)
        # As in a catalog that was restored from a copy that is older than the upgrade.
        server.group.decree("register", member=member_to_json(replace(node("c1"), role="coordinator", feature_level=2)))
        state = server.catalog.state
        server.catalog._state = replace(state, topology=replace(state.topology, feature_level=2))
        client.start_heartbeats(newer, interval_s=0.05)
        await until(lambda: server.catalog.topology.members["d0"].feature_level == 2)


@in_a_loop
async def test_with_something_stored_only_an_operator_raises_the_level() -> None:
    async with one_coordinator(_PATIENT) as (server, client):
        await client.create_collection(collection("docs"), soon())
        for number in range(3):
            await client.register(replace(node(f"d{number}"), feature_level=2), soon())
        with pytest.raises(InvalidArgumentError, match="c1 understand less than level 2"):
            await client.finalize_upgrade(soon())
        await client.register(replace(node("c1"), role="coordinator", feature_level=2), soon())
        with pytest.raises(InvalidArgumentError, match="feature_level"):
            await client.accept_restored("docs", soon())
        await asyncio.sleep(5 * QUICK.decide_s)
        told = await client.status(soon())
        assert (told["feature_level"], told["feature_level_next"]) == (1, 2)
        await client.register(replace(node("d1"), feature_level=1), soon())
        with pytest.raises(InvalidArgumentError, match="d1 understand"):
            await client.finalize_upgrade(soon())
        await client.register(replace(node("d1"), feature_level=2), soon())
        server.group.lose_answers = 1
        assert await client.finalize_upgrade(soon()) == 2 == await client.finalize_upgrade(soon())
        assert server.catalog.topology.feature_level == 2
        with pytest.raises(InvalidArgumentError, match="not restored"):
            await client.accept_restored("docs", soon())


@in_a_loop
async def test_shards_merge_at_the_level_that_knows_it_and_the_report_tells_how_far() -> None:
    async with one_coordinator(_PATIENT) as (server, client):
        made = await client.create_collection(collection("docs", shards=2), soon())
        low, high = ((s.shard_id, s.epoch) for s in made.shards)
        with pytest.raises(InvalidArgumentError, match="finalize-upgrade"):
            await client.begin_merge(made.schema.uuid, low, high, soon())
        state = server.catalog.state
        server.catalog._state = replace(state, topology=replace(state.topology, feature_level=3))
        begun = await client.begin_merge(made.schema.uuid, low, high, soon())
        merge = begun.shards[0].merge
        assert merge is not None and merge == begun.shards[1].merge
        at = made.schema.uuid, 1, begun.shards[1].epoch
        await client.advance_merge(*at, "d1", soon())
        (told,) = (await client.status(soon()))["merges"]
        assert (told["collection"], told["shard_ids"], told["into"]) == ("docs", [0, 1], merge.into_id)
        assert (told["ready"], told["waits_for"], told["session"]) == (["d1"], ["d0", "d2"], merge.session)
        assert [s.merge for s in (await client.cancel_merge(*at, soon())).shards] == [None, None]
        with pytest.raises(NotFoundError):
            await client.cancel_merge(*at[:2], client.topology.collection("docs").shards[1].epoch, soon())


@in_a_loop
async def test_a_copy_holds_what_was_acknowledged_before() -> None:
    async with one_coordinator(_PATIENT) as (server, client):
        await client.create_collection(collection("docs"), soon())
        copy = unpack_copy(await client.copy_catalog(soon()), "copy")
        assert state_of(copy.catalog) == server.catalog.state
        assert abs(copy.taken_ms - CLOCK.wall_ms()) < 60_000


@in_a_loop
async def test_more_changes_than_allowed_wait_for_their_turn() -> None:
    async with one_coordinator(replace(_PATIENT, proposals_max=1)) as (server, client):
        server.group.pause_s = 0.01
        made = await asyncio.gather(*(client.create_collection(collection(f"c{n}"), soon(30)) for n in range(10)))
        assert len({info.schema.uuid for info in made}) == 10


@in_a_loop
async def test_messages_that_make_no_sense_are_refused_by_name() -> None:
    async with one_coordinator(_PATIENT) as (server, _), grpc.aio.insecure_channel(server.address) as channel:
        admin, members = rpc.CoordinatorAdminStub(channel), rpc.CoordinatorMembersStub(channel)
        asked = pb.Proposal(request_id="r")
        calls = [
            admin.CreateCollection(pb.CatalogCreateRequest(name="x")),
            admin.CreateCollection(pb.CatalogCreateRequest(proposal=asked, name="x", schema_json=b"{")),
            admin.CreateCollection(pb.CatalogCreateRequest(proposal=asked, name="x", schema_json=b"[]")),
            admin.CreateCollection(pb.CatalogCreateRequest(proposal=asked, name="x", schema_json=b"{}")),
            admin.AlterCollection(pb.CatalogAlterRequest(proposal=asked, name="x", options_json=b"[1]")),
            admin.AlterCollection(pb.CatalogAlterRequest(proposal=asked, name="x", options_json=nested(100_000))),
            admin.DropCollection(pb.CatalogDropRequest(name="x")),
            admin.DropCollection(pb.CatalogDropRequest(proposal=pb.Proposal(request_id="r" * 129), name="x")),
            members.Register(pb.MemberRegisterRequest(proposal=asked)),
            members.Register(pb.MemberRegisterRequest(proposal=asked, member_json=b"[]")),
            members.Register(pb.MemberRegisterRequest(proposal=asked, member_json=b'{"node_id":7}')),
            members.LeaseOrigin(pb.OriginLeaseRequest(proposal=asked, holder="")),
        ]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await call
            assert type(status.from_rpc(failed.value)) in (InvalidArgumentError, NotFoundError), failed.value
        assert server.catalog.topology.collections == {}


@in_a_loop
async def test_what_is_nested_too_deeply_for_some_member_reaches_no_log() -> None:
    async with one_coordinator(_PATIENT) as (server, _), grpc.aio.insecure_channel(server.address) as channel:
        admin, asked = rpc.CoordinatorAdminStub(channel), pb.Proposal(request_id="r")
        for levels, field in ((JSON_DEPTH_MAX, "collection"), (JSON_DEPTH_MAX + 1, "options"), (900, "options")):
            options = nested(levels)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await admin.AlterCollection(pb.CatalogAlterRequest(proposal=asked, name="x", options_json=options))
            error = status.from_rpc(failed.value)
            assert isinstance(error, InvalidArgumentError if field == "options" else NotFoundError), error
        assert server.catalog.topology.collections == {}


def nested(levels: int) -> bytes:
    """A JSON object of so many levels."""
    return b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)
