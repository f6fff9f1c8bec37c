"""The coordinator's gRPC face: messages in, :class:`Control` asked, messages out."""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

import grpc
import grpc.aio

from omendb_common.clock import Clock
from omendb_common.errors import (
    InvalidArgumentError,
    OmenDBError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)
from omendb_common.metadata import NewCollection, RepairedShard
from omendb_common.schema import CollectionSchema
from omendb_common.security.grpc_credentials import peer_name_of_call, server_credentials
from omendb_common.security.tls import TlsFiles
from omendb_common.topology import (
    FILLS_MAX,
    SIZES_MAX,
    Fill,
    ReplicaLoad,
    ReplicaSize,
    Topology,
    collection_to_json,
    member_to_json,
)
from omendb_common.topology_delta import delta_of
from omendb_common.wire import status
from omendb_common.wire.coordinator_client import LEADER_KEY, RETRY_KEY
from omendb_coordinator.commands import to_bytes
from omendb_coordinator.consensus.seam import NotLeaderError
from omendb_coordinator.control import OWN_TROUBLE, Asking, Control
from omendb_proto.v1 import coordinator_pb2 as pb
from omendb_proto.v1 import coordinator_pb2_grpc as rpc

_log = logging.getLogger(__name__)

CALL_S_MAX = 60.0
REQUEST_BYTES_MAX = 1 << 20
_RETRY = (RETRY_KEY, "1")

Observe = Callable[[str, float, str], object]
"""Told of every call: its method, how long it took in seconds, and the name of its status."""


def _unobserved(method: str, seconds: float, code: str) -> None:
    """Nobody wants to know."""


_Self = TypeVar("_Self", bound="_Face")
_Request = TypeVar("_Request")
_Reply = TypeVar("_Reply")
_Method = Callable[[_Self, _Request, Any], Awaitable[_Reply]]


def _told(method: _Method[_Self, _Request, _Reply]) -> _Method[_Self, _Request, _Reply]:
    """A method whose errors end the call with their status and metadata."""

    @functools.wraps(method)
    async def told(self: _Self, request: _Request, context: Any) -> _Reply:
        began_s = self.clock.mono_s()
        code = "OK"
        try:
            return await method(self, request, context)
        except Exception as error:
            code = status.of_exception(error).code
            await self.refuse(context, error)
            raise
        finally:
            self.observe(method.__name__, self.clock.mono_s() - began_s, code)

    return told


class _Face:
    """What both services share."""

    def __init__(self, control: Control, clock: Clock, observe: Observe) -> None:
        self._control = control
        self.clock = clock
        self.observe = observe

    async def refuse(self, context: Any, error: BaseException) -> None:
        """End a call with an error, and say where else, or whether again, the caller may try."""
        told = status.of_exception(error, lambda e: _log.error("a call failed", exc_info=e))
        trailing: list[tuple[str, str | bytes]] = [*status.trailing(told)]
        if told.retryable and told.field == OWN_TROUBLE:
            trailing.append(_RETRY)
        if isinstance(error, NotLeaderError):
            address = self._control.leader_address(error.leader)
            if address is not None:
                trailing.append((LEADER_KEY, address))
        details = status.to_proto(told).message
        await context.abort(grpc.StatusCode[told.code], details, tuple(trailing))

    def left_s(self, context: Any) -> float:
        """Seconds that the caller still waits."""
        left = context.time_remaining()
        return self._control.settings.proposal_s if left is None else min(float(left), CALL_S_MAX)


JSON_DEPTH_MAX = 32
"""Levels of a schema, of options or of a member's description."""


def _asking(proposal: pb.Proposal) -> Asking:
    if not proposal.request_id:
        raise InvalidArgumentError("is missing", field="request_id", bound="a unique text per intention")
    return Asking(proposal.request_id, proposal.client)


def _json(data: bytes, field: str) -> Any:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidArgumentError("not JSON", field=field) from None
    # Every member reads it again out of the log, from stacks of other depths: what one can read, all must.
    level = [value]
    for _ in range(JSON_DEPTH_MAX):
        level = [item for held in level for item in _items(held)]
        if not level:
            return value
    raise InvalidArgumentError("is nested too deeply", field=field, bound=f"at most {JSON_DEPTH_MAX} levels")


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _optional(request: Any, name: str) -> Any:
    return getattr(request, name) if request.HasField(name) else None


def _size_in(told: pb.ReplicaSize) -> ReplicaSize:
    load = None
    if told.HasField("load"):
        seconds = told.load.total, told.load.divides, told.load.lesser
        total, divides, lesser = (max(0.0, one) if math.isfinite(one) else 0.0 for one in seconds)
        load = ReplicaLoad(total, divides, told.load.cut, lesser)
    return ReplicaSize(told.collection_uuid, told.shard_id, told.rows, told.size, load)


def _check_speaks_for(context: Any, node_id: Any, role: Any = None) -> None:
    """Raise PermissionDeniedError when the caller's certificate is that of another process; without TLS all may."""
    peer = peer_name_of_call(context.auth_context())
    if peer is None:
        return
    # The cluster in a certificate is the name that its authority chose.
    if not peer.covers(peer.cluster_id, str(role) if role is not None else peer.role, str(node_id)):
        raise PermissionDeniedError(f"the certificate is that of {peer}", field="node_id", bound=str(peer.node_id))


def _shard_args(request: Any) -> dict[str, Any]:
    """Which shard, and at which epoch it was looked at."""
    return {"uuid": request.collection_uuid, "shard_id": request.shard_id, "epoch": request.epoch}


class AdminFace(_Face, rpc.CoordinatorAdminServicer):
    """Collections, shard maps, drains, and the state of the cluster."""

    def _collection(self, info: Any) -> pb.CatalogCollectionReply:
        revision = self._control.catalog.topology.revision
        return pb.CatalogCollectionReply(collection_json=to_bytes(collection_to_json(info)), revision=revision)

    @_told
    async def CreateCollection(self, request: pb.CatalogCreateRequest, context: Any) -> pb.CatalogCollectionReply:
        """Place and make a collection."""
        try:
            schema = CollectionSchema.from_json(_json(request.schema_json, "schema"))
        except (KeyError, TypeError, ValueError) as problem:
            raise InvalidArgumentError(f"no schema: {type(problem).__name__}", field="schema") from None
        new = NewCollection(
            request.name,
            schema,
            *(_optional(request, n) for n in ("shards", "replication", "write_quorum", "read_quorum", "partition_key")),
        )
        info = await self._control.create_collection(_asking(request.proposal), new, self.left_s(context))
        return self._collection(info)

    @_told
    async def AlterCollection(self, request: pb.CatalogAlterRequest, context: Any) -> pb.CatalogCollectionReply:
        """Change replication, quorums and options."""
        args = {
            "name": request.name,
            "replication": _optional(request, "replication"),
            "write_quorum": _optional(request, "write_quorum"),
            "read_quorum": _optional(request, "read_quorum"),
            "options": _json(request.options_json, "options") if request.options_json else {},
        }
        numbers = args["replication"], args["write_quorum"], args["read_quorum"]
        op = "alter_collection" if numbers == (None, None, None) else "reshape_collection"
        info = await self._control.change_collection(_asking(request.proposal), op, args, self.left_s(context))
        return self._collection(info)

    async def _change(
        self, proposal: pb.Proposal, op: str, args: dict[str, Any], context: Any
    ) -> pb.CatalogChangeReply:
        answer = await self._control.change(_asking(proposal), op, args, self.left_s(context))
        return pb.CatalogChangeReply(revision=answer["revision"])

    @_told
    async def DropCollection(self, request: pb.CatalogDropRequest, context: Any) -> pb.CatalogChangeReply:
        """Delete a collection."""
        return await self._change(request.proposal, "drop_collection", {"name": request.name}, context)

    @_told
    async def RenameCollection(self, request: pb.CatalogRenameRequest, context: Any) -> pb.CatalogChangeReply:
        """Give a collection another name."""
        args = {"old": request.old_name, "new": request.new_name}
        return await self._change(request.proposal, "rename_collection", args, context)

    @_told
    async def SetAlias(self, request: pb.CatalogAliasRequest, context: Any) -> pb.CatalogChangeReply:
        """Set or remove an alias."""
        args = {"alias": request.alias, "collection": _optional(request, "collection")}
        return await self._change(request.proposal, "set_alias", args, context)

    @_told
    async def ListCollections(self, request: pb.CatalogListRequest, context: Any) -> pb.CatalogListReply:
        """Every collection that was made before the call."""
        topology = await self._control.read(self.left_s(context))
        collections = [collection_to_json(c) for c in topology.collections.values()]
        return pb.CatalogListReply(
            collections_json=to_bytes(collections), aliases=dict(topology.aliases), revision=topology.revision
        )

    @_told
    async def PlaceShard(self, request: pb.CatalogPlaceRequest, context: Any) -> pb.CatalogCollectionReply:
        """Replace the replicas of a shard if nobody else did."""
        args = {**_shard_args(request), "replicas": [[r.node_id, r.state] for r in request.replicas]}
        info = await self._control.change_collection(
            _asking(request.proposal), "place_shard", args, self.left_s(context)
        )
        return self._collection(info)

    @_told
    async def BeginMove(self, request: pb.CatalogMoveRequest, context: Any) -> pb.CatalogCollectionReply:
        """Move a replica."""
        args = {**_shard_args(request), "source": request.source, "target": request.target}
        return await self._move(request.proposal, "begin_move", args, context)

    @_told
    async def CancelMove(self, request: pb.CatalogMoveRequest, context: Any) -> pb.CatalogCollectionReply:
        """Give a move up."""
        return await self._move(request.proposal, "cancel_move", _shard_args(request), context)

    @_told
    async def BeginSplit(self, request: pb.CatalogSplitRequest, context: Any) -> pb.CatalogCollectionReply:
        """Cut a shard in two."""
        args = {**_shard_args(request), "at": _optional(request, "at")}
        return await self._move(request.proposal, "begin_split", args, context)

    @_told
    async def CancelSplit(self, request: pb.CatalogSplitRequest, context: Any) -> pb.CatalogCollectionReply:
        """Let a shard go on as one."""
        return await self._move(request.proposal, "cancel_split", _shard_args(request), context)

    @_told
    async def BeginMerge(self, request: pb.CatalogMergeRequest, context: Any) -> pb.CatalogCollectionReply:
        """Put two neighbouring shards together."""
        args = {**_shard_args(request), "other_id": request.other_id, "other_epoch": request.other_epoch}
        info = await self._control.begin_merge(_asking(request.proposal), args, self.left_s(context))
        return self._collection(info)

    @_told
    async def CancelMerge(self, request: pb.CatalogMergeRequest, context: Any) -> pb.CatalogCollectionReply:
        """Let two shards go on as they are."""
        return await self._move(request.proposal, "cancel_merge", _shard_args(request), context)

    async def _move(
        self, proposal: pb.Proposal, op: str, args: dict[str, Any], context: Any
    ) -> pb.CatalogCollectionReply:
        return self._collection(
            await self._control.change_collection(_asking(proposal), op, args, self.left_s(context))
        )

    @_told
    async def PauseMoves(self, request: pb.CatalogPauseRequest, context: Any) -> pb.CatalogChangeReply:
        """Begin no moves, or do again."""
        return await self._change(request.proposal, "pause_moves", {"paused": request.paused}, context)

    @_told
    async def Drain(self, request: pb.CatalogDrainRequest, context: Any) -> pb.MemberReply:
        """Keep new shards away from a data node, or no longer."""
        member = await self._control.drain(
            _asking(request.proposal), request.node_id, request.draining, self.left_s(context)
        )
        return pb.MemberReply(
            member_json=to_bytes(member_to_json(member)), revision=self._control.catalog.topology.revision
        )

    @_told
    async def ForgetMember(self, request: pb.CatalogForgetRequest, context: Any) -> pb.CatalogChangeReply:
        """Strike a member off."""
        return await self._change(request.proposal, "forget_member", {"node_id": request.node_id}, context)

    @_told
    async def FinalizeUpgrade(self, request: pb.CatalogFinalizeRequest, context: Any) -> pb.CatalogFinalizeReply:
        """Use what every member understands."""
        asking = _asking(request.proposal)
        level, revision = await self._control.finalize_upgrade(asking, self.left_s(context))
        return pb.CatalogFinalizeReply(feature_level=level, revision=revision)

    @_told
    async def CopyCatalog(self, request: pb.CatalogCopyRequest, context: Any) -> pb.CatalogCopyReply:
        """The whole catalog, to be kept in a file."""
        return pb.CatalogCopyReply(copy=await self._control.copy(self.left_s(context)))

    @_told
    async def AcceptRestored(self, request: pb.CatalogAcceptRequest, context: Any) -> pb.CatalogCollectionReply:
        """Have a collection served by the members that a restored catalog names."""
        args = {"collection": request.collection}
        return await self._move(request.proposal, "accept_restored", args, context)

    @_told
    async def ClusterStatus(self, request: pb.CatalogStatusRequest, context: Any) -> pb.CatalogStatusReply:
        """The cluster, for people."""
        told = self._control.local_report() if request.local else await self._control.report(self.left_s(context))
        return pb.CatalogStatusReply(status_json=to_bytes(told))


class MembersFace(_Face, rpc.CoordinatorMembersServicer):
    """Registration, heartbeats, leases, and the catalog as it changes."""

    def __init__(self, control: Control, clock: Clock, observe: Observe) -> None:
        super().__init__(control, clock, observe)
        self._watchers = 0
        self._stopping = False

    def stop(self) -> None:
        """End every watch, so that its follower goes to another coordinator at once."""
        self._stopping = True
        self._control.watch.close()

    @_told
    async def Register(self, request: pb.MemberRegisterRequest, context: Any) -> pb.MemberReply:
        """Take in a member."""
        described = _json(request.member_json, "member")
        if isinstance(described, dict):
            _check_speaks_for(context, described.get("node_id"), described.get("role"))
        member = await self._control.register(_asking(request.proposal), described, self.left_s(context))
        return pb.MemberReply(
            member_json=to_bytes(member_to_json(member)), revision=self._control.catalog.topology.revision
        )

    @_told
    async def Leave(self, request: pb.MemberLeaveRequest, context: Any) -> pb.CatalogChangeReply:
        """A member ends in good order."""
        _check_speaks_for(context, request.node_id)
        revision = await self._control.leave(
            _asking(request.proposal), request.node_id, request.incarnation, self.left_s(context)
        )
        return pb.CatalogChangeReply(revision=revision)

    @_told
    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Any) -> pb.HeartbeatReply:
        """A member lives."""
        _check_speaks_for(context, request.node_id)
        fills = [
            Fill(f.collection_uuid, f.shard_id, f.session, f.rows_done, f.rows_total, f.bytes_done, f.waits_for)
            for f in request.fills[:FILLS_MAX]
        ]
        sizes = [_size_in(one) for one in request.sizes[:SIZES_MAX]]
        member = self._control.heartbeat(request.node_id, request.incarnation, request.problems, fills, sizes)
        return pb.HeartbeatReply(revision=self._control.catalog.topology.revision, state=member.state)

    @_told
    async def NoteRepaired(self, request: pb.RepairedRequest, context: Any) -> pb.CatalogChangeReply:
        """Replicas of a data node were found equal to all others."""
        _check_speaks_for(context, request.node_id, "datanode")
        told = [RepairedShard(s.collection_uuid, s.shard_id, s.epoch, s.through) for s in request.shards]
        asking = _asking(request.proposal)
        revision = await self._control.note_repaired(asking, request.node_id, told, self.left_s(context))
        return pb.CatalogChangeReply(revision=revision)

    @_told
    async def LoseReplica(self, request: pb.MemberMoveRequest, context: Any) -> pb.CatalogChangeReply:
        """A data node's own replica is damaged."""
        _check_speaks_for(context, request.node_id)
        args = {**_shard_args(request), "node_id": request.node_id}
        await self._control.lose_replica(_asking(request.proposal), args, self.left_s(context))
        return pb.CatalogChangeReply(revision=self._control.catalog.topology.revision)

    @_told
    async def AdvanceMove(self, request: pb.MemberMoveRequest, context: Any) -> pb.CatalogChangeReply:
        """The target of a move has what it needs for the next stage."""
        _check_speaks_for(context, request.node_id)
        args = {**_shard_args(request), "node_id": request.node_id}
        await self._control.advance_move(_asking(request.proposal), args, self.left_s(context))
        return pb.CatalogChangeReply(revision=self._control.catalog.topology.revision)

    @_told
    async def AdvanceSplit(self, request: pb.MemberMoveRequest, context: Any) -> pb.CatalogChangeReply:
        """The halves of a shard on a node are whole."""
        _check_speaks_for(context, request.node_id)
        args = {**_shard_args(request), "node_id": request.node_id}
        await self._control.change_collection(_asking(request.proposal), "advance_split", args, self.left_s(context))
        return pb.CatalogChangeReply(revision=self._control.catalog.topology.revision)

    @_told
    async def AdvanceMerge(self, request: pb.MemberMoveRequest, context: Any) -> pb.CatalogChangeReply:
        """The joint replica of two shards on a node is whole."""
        _check_speaks_for(context, request.node_id)
        args = {**_shard_args(request), "node_id": request.node_id}
        await self._control.change_collection(_asking(request.proposal), "advance_merge", args, self.left_s(context))
        return pb.CatalogChangeReply(revision=self._control.catalog.topology.revision)

    @_told
    async def LeaseOrigin(self, request: pb.OriginLeaseRequest, context: Any) -> pb.OriginLeaseReply:
        """Lease or renew an origin."""
        lease = await self._control.lease_origin(
            _asking(request.proposal), request.holder, request.stamp, self.left_s(context)
        )
        return pb.OriginLeaseReply(
            origin=lease.origin,
            stamp_above=lease.stamp_above,
            stamp_bound=lease.stamp_bound,
            auto_id_first=lease.auto_ids[0],
            auto_id_stop=lease.auto_ids[1],
        )

    @_told
    async def PullTopology(self, request: pb.TopologyRequest, context: Any) -> pb.TopologyReply:
        """The topology: the newest that this member has, or, linearizable, the newest there is."""
        topology = self._control.catalog.topology
        if request.linearizable:
            topology = await self._control.read(self.left_s(context))
        return pb.TopologyReply(topology_json=self._control.catalog.encode(topology))

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchEvent]:
        """Every change from a revision on; a follower too far behind is sent the whole."""
        try:
            async for event in self._events(request):
                yield event
        except OmenDBError as error:
            await self.refuse(context, error)

    async def _events(self, request: pb.WatchRequest) -> AsyncIterator[pb.WatchEvent]:
        if self._watchers >= self._control.settings.watchers_max:
            raise ResourceExhaustedError("too many watches", field=OWN_TROUBLE, retry_after=1.0)
        self._watchers += 1
        try:
            revision = request.revision
            while True:
                step = await self._control.watch.wait(revision, self._control.settings.watch_keepalive_s)
                self._check_fit(request.cluster_id)
                if step is None:
                    yield pb.WatchEvent(revision=revision)
                    continue
                revision = step.topology.revision
                if step.base is None:
                    yield pb.WatchEvent(revision=revision, topology_json=self._control.catalog.encode(step.topology))
                else:
                    yield pb.WatchEvent(revision=revision, delta_json=_delta(step.base, step.topology))
        finally:
            self._watchers -= 1

    def _check_fit(self, cluster_id: str) -> None:
        """Raise when this member can be nobody's source: it ends, lost its group, or belongs to another cluster."""
        if self._stopping:
            raise UnavailableError("this coordinator ends", field=OWN_TROUBLE)
        if self._control.leaderless():
            raise UnavailableError("this coordinator knows no leader", field=OWN_TROUBLE)
        own = self._control.catalog.topology.cluster_id
        if cluster_id and own and cluster_id != own:
            raise InvalidArgumentError(
                f"this is cluster {own}", field="cluster_id", bound=cluster_id, mend="check the coordinators' addresses"
            )


class _Held:
    """A topology as a key: the same object is the same key, and stays alive as long as the key does."""

    __slots__ = ("value",)

    def __init__(self, value: Topology) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.value is self.value


@functools.lru_cache(maxsize=16)
def _delta_cached(base: _Held, newest: _Held) -> bytes:
    return to_bytes(delta_of(base.value, newest.value))


def _delta(base: Topology, newest: Topology) -> bytes:
    """The JSON of a difference, made once for all followers that need it."""
    return _delta_cached(_Held(base), _Held(newest))


class CoordinatorServer:
    """The gRPC server of one coordinator."""

    def __init__(self, control: Control, tls: TlsFiles | None, clock: Clock, observe: Observe = _unobserved) -> None:
        self._tls = tls
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
                ("grpc.max_send_message_length", -1),
                # Two coordinators on one port would each get half of the calls.
                ("grpc.so_reuseport", 0),
            ),
            maximum_concurrent_rpcs=control.settings.watchers_max + 4 * control.settings.proposals_max,
        )
        self._members = MembersFace(control, clock, observe)
        rpc.add_CoordinatorAdminServicer_to_server(AdminFace(control, clock, observe), self._server)
        rpc.add_CoordinatorMembersServicer_to_server(self._members, self._server)

    async def bind(self, address: str) -> int:
        """Take the port and return it; OSError when it is taken already."""
        try:
            if self._tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, server_credentials(self._tls))
        except RuntimeError as problem:
            raise OSError(f"cannot listen on {address}: {problem}") from None
        return int(port)

    async def start(self) -> None:
        """Answer calls."""
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """End watches at once, let calls end for ``grace_s``, then cut them."""
        self._members.stop()
        await self._server.stop(grace_s)


__all__ = [
    "CALL_S_MAX",
    "REQUEST_BYTES_MAX",
    "AdminFace",
    "CoordinatorServer",
    "MembersFace",
    "Observe",
]
