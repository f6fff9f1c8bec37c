"""The coordinators as a router, a data node or a person sees them: any of them may be away, one of them leads.

A change keeps its request id through every retry, so that it takes effect once. The topology is followed from any
coordinator and kept when all of them are gone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import grpc
import grpc.aio

from omendb_common.clock import Clock, SystemClock
from omendb_common.deadline import Deadline
from omendb_common.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    OmenDBError,
    Outcome,
    UnavailableError,
)
from omendb_common.feature_level import CURRENT, check_level
from omendb_common.metadata import NewCollection, OriginLease, RepairedShard
from omendb_common.security.grpc_credentials import channel_credentials
from omendb_common.security.renewal import renewed
from omendb_common.security.tls import TlsFiles
from omendb_common.topology import (
    FILLS_MAX,
    PROBLEM_CHARS_MAX,
    PROBLEMS_MAX,
    SIZES_MAX,
    CollectionInfo,
    Fill,
    Member,
    ReplicaSize,
    Topology,
    collection_from_json,
    member_from_json,
    member_to_json,
)
from omendb_common.topology_delta import apply_delta
from omendb_common.wire import status
from omendb_common.wire.shard_map_calls import ShardMapCalls
from omendb_common.wire.unending import Unending
from omendb_proto.v1 import coordinator_pb2 as pb
from omendb_proto.v1 import coordinator_pb2_grpc as rpc

_log = logging.getLogger(__name__)

LEADER_KEY = "omendb-leader"
"""Trailing metadata: where the leader serves gRPC."""
RETRY_KEY = "omendb-retry"
"""Trailing metadata: the refusal is the group's and not the catalog's; another member, or a later try, may say yes."""

ATTEMPT_S = 2.0
HEARTBEAT_S = 1.0
SILENCE_S = 3.0
"""A watch that says nothing for so long is dead: the coordinator sends a keepalive every second."""
LAG_S = 0.25
"""A watch that lags by more than this is helped by asking the leader for the whole."""
PAUSE_FIRST_S = 0.02
PAUSE_MAX_S = 0.25
MESSAGE_BYTES_MAX = 256 << 20
_HAND_OVER_S = 5.0

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # A coordinator that comes back is found within half a second, not after the default's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 500),
)


def _channel(address: str, tls: TlsFiles | None) -> Any:
    """A ``grpc.aio.Channel``."""
    if tls is None:
        return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(address, channel_credentials(tls), options=CHANNEL_OPTIONS)


class _Coordinator:
    """One coordinator's channel and what is called on it."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.admin = rpc.CoordinatorAdminStub(channel)
        self.members = rpc.CoordinatorMembersStub(channel)


class CoordinatorClient(ShardMapCalls):
    """A :class:`~omendb_common.metadata.Metadata` over gRPC.

    Call :meth:`start` on the event loop before anything else, and :meth:`close` at the end. Changes raise, beside their
    own errors, UnavailableError or DeadlineExceededError with ``outcome`` "none" when certainly nothing happened.
    A topology of a cluster that was finalised above ``level`` is not taken: FormatVersionError (P21).
    """

    def __init__(
        self,
        addresses: Sequence[str],
        tls: TlsFiles | None = None,
        clock: Clock | None = None,
        *,
        name: str = "client",
        level: int = CURRENT,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        if not addresses:
            raise InvalidArgumentError("is empty", field="coordinators", bound="at least one host:port")
        self._addresses = list(dict.fromkeys(addresses))
        self._tls = tls
        self._watched = None if tls is None else renewed(tls)
        self._generation = 0
        self._closing: set[asyncio.Future[None]] = set()
        self._clock = clock or SystemClock()
        self._name = name
        self._level = level
        self._new_id = new_id or (lambda: uuid.uuid4().hex)
        self._dice = random.Random(name)
        self._coordinators: dict[str, _Coordinator] = {}
        self._next = self._dice.randrange(len(self._addresses))
        self._leader: str | None = None
        self._topology = Topology("")
        self._newer = asyncio.Event()
        self._callbacks: list[Callable[[Topology], None]] = []
        self._work: list[Unending] = []
        self._registered: Member | None = None
        self._beating = asyncio.Lock()
        self._problems: Callable[[], Sequence[str]] = tuple
        self._fills: Callable[[], Sequence[Fill]] = tuple
        self._sizes: Callable[[], Sequence[ReplicaSize]] = tuple
        self._state = ""
        self._connected = False
        self._complaints: dict[str, str] = {}

    # -- life

    async def start(self) -> None:
        """Begin to follow the topology; does not wait for it."""
        self._work.append(Unending(self._follow, f"{self._name}-watch"))

    async def close(self) -> None:
        """End every task and connection."""
        for work in self._work:
            await work.stop()
        self._work.clear()
        for closing in self._closing:
            closing.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        coordinators, self._coordinators = self._coordinators, {}
        for coordinator in coordinators.values():
            await coordinator.channel.close()

    # -- the topology

    @property
    def name(self) -> str:
        """What the coordinators' logs call this client."""
        return self._name

    @property
    def topology(self) -> Topology:
        """The newest seen; revision 0 before the first."""
        return self._topology

    @property
    def connected(self) -> bool:
        """Whether a coordinator that belongs to a group with a leader is being followed now."""
        return self._connected

    def on_change(self, callback: Callable[[Topology], None]) -> None:
        """Call ``callback`` on the event loop with every newer topology."""
        self._callbacks.append(callback)

    async def refresh(self, revision: int, deadline: Deadline) -> Topology:
        """Wait for a topology of at least ``revision``; 0 asks the leader for the newest."""
        if revision == 0:
            return await self._pull(deadline)
        while self._topology.revision < revision:
            deadline.check(f"waiting for revision {revision} of the topology")
            try:
                # The one that is followed may lag; then the leader is asked.
                async with asyncio.timeout(min(LAG_S, deadline.left_s)):
                    await self._newer.wait()
            except TimeoutError:
                await self._pull(deadline)
        return self._topology

    async def read(self, deadline: Deadline) -> Topology:
        """The catalog as it is at some moment between the call and its answer, whoever changes it."""
        reply = await self._call("members.PullTopology", pb.TopologyRequest(linearizable=True), deadline)
        return Topology.from_json(json.loads(reply.topology_json))

    async def _pull(self, deadline: Deadline) -> Topology:
        self._take(await self.read(deadline))
        return self._topology

    def _take(self, topology: Topology) -> None:
        if self._topology.cluster_id and topology.cluster_id and topology.cluster_id != self._topology.cluster_id:
            raise InvalidArgumentError(
                f"the coordinators are of cluster {topology.cluster_id}",
                field="coordinators",
                bound=self._topology.cluster_id,
                mend="check their addresses",
            )
        check_level(self._level, topology.feature_level, self._name)
        if topology.revision <= self._topology.revision:
            return
        self._topology = topology
        newer, self._newer = self._newer, asyncio.Event()
        newer.set()
        loop = asyncio.get_running_loop()
        for callback in self._callbacks:
            # Not called from here: what a callback raises is not the watch's matter.
            loop.call_soon(callback, topology)

    async def _follow(self) -> None:
        pause_s = PAUSE_FIRST_S
        while True:
            address = self._another()
            before = self._topology.revision
            try:
                await self._follow_one(address)
            except (grpc.aio.AioRpcError, TimeoutError) as problem:
                _log.debug("watch of %s ended: %s", address, problem)
            except OmenDBError as problem:
                self._complain("watch", f"cannot follow {address}: {problem}")
            finally:
                was, self._connected = self._connected, False
            pause_s = PAUSE_FIRST_S if was or before != self._topology.revision else min(2 * pause_s, PAUSE_MAX_S)
            await asyncio.sleep(pause_s * (0.5 + self._dice.random()))

    async def _follow_one(self, address: str) -> None:
        have = self._topology
        call = self._at(address).members.Watch(pb.WatchRequest(cluster_id=have.cluster_id, revision=have.revision))
        generation = self._generation
        try:
            # Until the certificate is renewed: then the channel is closed soon, and there is a new one to follow on.
            while self._generation == generation:
                async with asyncio.timeout(SILENCE_S):
                    event = await call.read()
                if event is grpc.aio.EOF:
                    return
                self._connected = True
                self._complain("watch", "")
                form = event.WhichOneof("form")
                if form == "topology_json":
                    have = Topology.from_json(json.loads(event.topology_json))
                elif form == "delta_json":
                    have = apply_delta(have, json.loads(event.delta_json))
                self._take(have)
        finally:
            call.cancel()

    # -- changes

    async def create_collection(self, new: NewCollection, deadline: Deadline) -> CollectionInfo:
        """Make a collection; AlreadyExistsError when the name is taken, UnavailableError with too few data nodes."""
        request = pb.CatalogCreateRequest(
            proposal=self._proposal(), name=new.name, schema_json=_json(new.schema.to_json())
        )
        for name in ("shards", "replication", "write_quorum", "read_quorum", "partition_key"):
            value = getattr(new, name)
            if value is not None:
                _set(request, name, value)
        return await self._collection(await self._call("admin.CreateCollection", request, deadline), deadline)

    async def alter_collection(
        self,
        name: str,
        deadline: Deadline,
        *,
        replication: int | None = None,
        write_quorum: int | None = None,
        read_quorum: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> CollectionInfo:
        """Change replication and quorums, and merge ``options`` into the schema's (None as a value removes one)."""
        request = pb.CatalogAlterRequest(proposal=self._proposal(), name=name, options_json=_json(dict(options or {})))
        numbers = {"replication": replication, "write_quorum": write_quorum, "read_quorum": read_quorum}
        for field, value in numbers.items():
            if value is not None:
                _set(request, field, value)
        return await self._collection(await self._call("admin.AlterCollection", request, deadline), deadline)

    async def drop_collection(self, name: str, deadline: Deadline) -> None:
        """Delete a collection; NotFoundError when there is none."""
        request = pb.CatalogDropRequest(proposal=self._proposal(), name=name)
        await self._shown(await self._call("admin.DropCollection", request, deadline), deadline)

    async def rename_collection(self, old: str, new: str, deadline: Deadline) -> None:
        """Give a collection another name."""
        request = pb.CatalogRenameRequest(proposal=self._proposal(), old_name=old, new_name=new)
        await self._shown(await self._call("admin.RenameCollection", request, deadline), deadline)

    async def set_alias(self, alias: str, collection: str | None, deadline: Deadline) -> None:
        """Let ``alias`` name a collection; None removes it."""
        request = pb.CatalogAliasRequest(proposal=self._proposal(), alias=alias, collection=collection)
        await self._shown(await self._call("admin.SetAlias", request, deadline), deadline)

    async def drain(self, node_id: str, draining: bool, deadline: Deadline) -> Member:
        """Mark a data node as leaving, or take it back."""
        request = pb.CatalogDrainRequest(proposal=self._proposal(), node_id=node_id, draining=draining)
        reply = await self._shown(await self._call("admin.Drain", request, deadline), deadline)
        return member_from_json(json.loads(reply.member_json))

    async def forget_member(self, node_id: str, deadline: Deadline) -> None:
        """Strike a member off that is down; InvalidArgumentError while a shard counts on it."""
        request = pb.CatalogForgetRequest(proposal=self._proposal(), node_id=node_id)
        await self._shown(await self._call("admin.ForgetMember", request, deadline), deadline)

    async def lease_origin(self, holder: str, stamp: int, deadline: Deadline) -> OriginLease:
        """Lease, or renew under the same ``holder``, the right to stamp from ``stamp`` on.

        ``holder`` names one start of one process: a later start must not renew the lease of an earlier one. A renewal
        keeps the automatic ids; another holder gets others.
        """
        request = pb.OriginLeaseRequest(proposal=self._proposal(), holder=holder, stamp=stamp)
        reply = await self._call("members.LeaseOrigin", request, deadline)
        ids = (reply.auto_id_first, reply.auto_id_stop)
        return OriginLease(reply.origin, reply.stamp_above, reply.stamp_bound, ids)

    async def note_repaired(self, node_id: str, shards: Sequence[RepairedShard], deadline: Deadline) -> None:
        """Say, as a data node, up to which stamps the replicas of shards were found equal.

        What was said under an older map of a shard counts for nothing, and neither does what gains too little.
        """
        told = [
            pb.RepairedShard(collection_uuid=s.collection_uuid, shard_id=s.shard_id, epoch=s.epoch, through=s.through)
            for s in shards
        ]
        request = pb.RepairedRequest(proposal=self._proposal(), node_id=node_id, shards=told)
        await self._call("members.NoteRepaired", request, deadline)

    async def finalize_upgrade(self, deadline: Deadline) -> int:
        """Let the cluster use the newest level that every member understands; returns it. There is no way back.

        Raises:
            InvalidArgumentError: somebody understands less than the coordinators.
        """
        reply = await self._call(
            "admin.FinalizeUpgrade", pb.CatalogFinalizeRequest(proposal=self._proposal()), deadline
        )
        await self._shown(reply, deadline)
        return int(reply.feature_level)

    async def copy_catalog(self, deadline: Deadline) -> bytes:
        """The catalog with everything that was acknowledged before, as ``omendb_common.catalog_copy`` reads it."""
        reply = await self._call("admin.CopyCatalog", pb.CatalogCopyRequest(), deadline)
        return bytes(reply.copy)

    async def accept_restored(self, collection: str, deadline: Deadline) -> CollectionInfo:
        """Have a collection served by the members that the restored copy names, although they changed after it."""
        request = pb.CatalogAcceptRequest(proposal=self._proposal(), collection=collection)
        return await self._collection(await self._call("admin.AcceptRestored", request, deadline), deadline)

    async def status(self, deadline: Deadline) -> dict[str, Any]:
        """The cluster as its leader sees it, or, when none answers in half the time, as any coordinator does."""
        half = Deadline.after(self._clock, deadline.left_s / 2)
        try:
            reply = await self._call("admin.ClusterStatus", pb.CatalogStatusRequest(), half)
        except (UnavailableError, DeadlineExceededError):
            reply = await self._call("admin.ClusterStatus", pb.CatalogStatusRequest(local=True), deadline)
        return cast("dict[str, Any]", json.loads(reply.status_json))

    async def _collection(self, reply: Any, deadline: Deadline) -> CollectionInfo:
        await self._shown(reply, deadline)
        return collection_from_json(json.loads(reply.collection_json))

    async def _shown(self, reply: Any, deadline: Deadline) -> Any:
        """Whoever made a change sees it in :attr:`topology` afterwards, unless the deadline is short."""
        try:
            await self.refresh(reply.revision, deadline)
        except (UnavailableError, DeadlineExceededError) as problem:
            _log.debug("the change is made, and not yet seen: %s", problem)
        return reply

    # -- membership

    @property
    def member_state(self) -> str:
        """What the cluster took this process for at its last heartbeat; empty before the first."""
        return self._state

    async def register(self, member: Member, deadline: Deadline) -> Member:
        """Make this process a member, or say where it serves now.

        Once it returns, :attr:`topology` shows what came of it: under an older map a node whose folder is new would
        make replicas that the coordinators have just noted as lost, and answer "absent" for them (P16).

        Raises:
            AlreadyExistsError: a data node of that name with another data folder is up (P16).
            UnavailableError, DeadlineExceededError: it may be a member, but that cannot be seen yet; do it again.
        """
        request = pb.MemberRegisterRequest(proposal=self._proposal(), member_json=_json(member_to_json(member)))
        reply = await self._call("members.Register", request, deadline)
        self._registered = member
        await self.refresh(reply.revision, deadline)
        found = member_from_json(json.loads(reply.member_json))
        self._state = found.state
        return found

    def start_heartbeats(
        self,
        member: Member | None = None,
        interval_s: float = HEARTBEAT_S,
        problems: Callable[[], Sequence[str]] = tuple,
        fills: Callable[[], Sequence[Fill]] = tuple,
        sizes: Callable[[], Sequence[ReplicaSize]] = tuple,
    ) -> None:
        """Tell the leader every ``interval_s`` that a member lives, until :meth:`close`.

        Args:
            member: registered when the coordinators do not know it; the one of :meth:`register` when None.
            problems: what an operator should know of this process now; ``PROBLEMS_MAX`` of them are told.
            fills: how far the replicas are that are on their way here; ``FILLS_MAX`` of them are told.
            sizes: how large and busy the replicas here are, the foremost first; ``SIZES_MAX`` of them are told.
        """
        self._problems = problems
        self._fills = fills
        self._sizes = sizes
        self._registered = member or self._registered
        self._work.append(Unending(partial(self._beat, interval_s), f"{self._name}-heartbeats"))

    async def leave(self, deadline: Deadline) -> None:
        """Say that this process ends; heartbeats stop counting."""
        member, self._registered = self._registered, None
        if member is None:
            return
        request = pb.MemberLeaveRequest(
            proposal=self._proposal(), node_id=member.node_id, incarnation=member.incarnation
        )
        # A heartbeat that is still on its way would bring the member back.
        async with self._beating:
            await self._call("members.Leave", request, deadline)

    async def _beat(self, interval_s: float) -> None:
        while True:
            async with self._beating:
                member = self._registered
                if member is not None:
                    try:
                        await self._beat_once(member, Deadline.after(self._clock, max(interval_s, 0.5)))
                    except OmenDBError as problem:
                        self._complain("heartbeat", f"the heartbeats of {member.node_id} reach nobody: {problem}")
                    else:
                        self._complain("heartbeat", "")
            await asyncio.sleep(interval_s * (0.9 + 0.2 * self._dice.random()))

    async def _beat_once(self, member: Member, deadline: Deadline) -> None:
        told = [problem[:PROBLEM_CHARS_MAX] for problem in self._problems()]
        if len(told) > PROBLEMS_MAX:
            told = [*told[: PROBLEMS_MAX - 1], f"and {len(told) - PROBLEMS_MAX + 1} more"]
        fills = [
            pb.ReplicaFill(**{name: getattr(fill, name) for name in Fill.__dataclass_fields__})
            for fill in self._fills()[:FILLS_MAX]
        ]
        sizes = [_size_out(one) for one in self._sizes()[:SIZES_MAX]]
        request = pb.HeartbeatRequest(
            node_id=member.node_id, incarnation=member.incarnation, problems=told, fills=fills, sizes=sizes
        )
        try:
            reply = await self._call("members.Heartbeat", request, deadline)
        except NotFoundError:
            # The coordinators were made anew, or another incarnation was registered meanwhile.
            await self.register(member, Deadline.after(self._clock, 2 * ATTEMPT_S))
            return
        self._state = reply.state

    def _complain(self, about: str, problem: str) -> None:
        """Log a problem once, and its end: it may last for hours and come up every second."""
        before = self._complaints.get(about, "")
        self._complaints[about] = problem
        if problem and not before:
            _log.warning("%s", problem)
        elif before and not problem:
            _log.info("%s: well again", about)

    # -- calls

    def _proposal(self) -> pb.Proposal:
        return pb.Proposal(request_id=self._new_id(), client=self._name)

    def _at(self, address: str) -> _Coordinator:
        if self._watched is not None and self._generation != (newest := self._watched.current().generation):
            # A channel keeps the certificate that it began with; what is under way on one may end.
            for old in self._coordinators.values():
                closing = asyncio.ensure_future(old.channel.close(_HAND_OVER_S))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            self._coordinators, self._generation = {}, newest
        found = self._coordinators.get(address)
        if found is None:
            found = self._coordinators[address] = _Coordinator(_channel(address, self._tls))
        return found

    def _another(self) -> str:
        self._next = (self._next + 1) % len(self._addresses)
        return self._addresses[self._next]

    async def _call(self, method: str, request: Any, deadline: Deadline) -> Any:
        """Call the leader, wherever it is, again and again until the deadline."""
        group, _, name = method.partition(".")
        outcome: Outcome = "none"
        pause_s = PAUSE_FIRST_S
        last: OmenDBError | None = None
        silent: str | None = None
        address = self._leader or self._another()
        while not deadline.passed:
            call = getattr(getattr(self._at(address), group), name)
            try:
                reply = await call(request, timeout=min(deadline.left_s, ATTEMPT_S))
            except grpc.aio.AioRpcError as failure:
                last = status.from_rpc(failure)
                if not _again(failure, last):
                    raise last from None
                outcome = "unknown" if outcome == "unknown" or _maybe(failure, last) else "none"
                silent = address if not _spoken(failure) else silent
                leader = _trailing(failure, LEADER_KEY)
            else:
                if not getattr(request, "local", False):
                    self._leader = address
                return reply
            # Until another one is elected, the others name the leader that does not answer any more.
            known = leader is not None and leader not in (address, silent)
            self._leader = leader if known else None
            address = self._leader or self._another()
            if not known or pause_s > PAUSE_FIRST_S:
                wait_s = max(pause_s, getattr(last, "retry_after", 0.0)) * (0.5 + self._dice.random())
                await asyncio.sleep(min(wait_s, deadline.left_s))
            pause_s = min(2 * pause_s, PAUSE_MAX_S)
        message = f"no coordinator carried it out in time: {last}" if last else "the deadline passed before the call"
        if last is None or isinstance(last, DeadlineExceededError):
            raise DeadlineExceededError(message, field="coordinators", outcome=outcome)
        raise UnavailableError(message, field="coordinators", outcome=outcome)


def _trailing(failure: grpc.aio.AioRpcError, key: str) -> str | None:
    return next((str(v) for k, v in failure.trailing_metadata() or () if k == key), None)


def _again(failure: grpc.aio.AioRpcError, error: OmenDBError) -> bool:
    """Whether another coordinator, or the same one later, may answer otherwise: refusals of the catalog are final."""
    if _trailing(failure, RETRY_KEY) is not None:
        return True
    return not _spoken(failure) and isinstance(error, UnavailableError | DeadlineExceededError)


def _spoken(failure: grpc.aio.AioRpcError) -> bool:
    """Whether a coordinator refused, rather than the way to it."""
    return any(k == status.TRAILING_KEY for k, _ in failure.trailing_metadata() or ())


def _maybe(failure: grpc.aio.AioRpcError, error: OmenDBError) -> bool:
    """Whether the call may have had an effect. A connection that was never made carried nothing."""
    if "failed to connect" in (failure.details() or ""):
        return False
    return getattr(error, "outcome", "none") == "unknown"


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _size_out(one: ReplicaSize) -> pb.ReplicaSize:
    load = None if one.load is None else pb.ReplicaLoad(**dataclasses.asdict(one.load))
    return pb.ReplicaSize(
        collection_uuid=one.collection_uuid, shard_id=one.shard_id, rows=one.rows, size=one.size, load=load
    )


def _set(request: Any, name: str, value: Any) -> None:
    """Set a field of a message; InvalidArgumentError when the value does not fit it."""
    try:
        setattr(request, name, value)
    except (TypeError, ValueError):
        raise InvalidArgumentError(f"got {value!r}", field=name) from None


__all__ = [
    "ATTEMPT_S",
    "CHANNEL_OPTIONS",
    "HEARTBEAT_S",
    "LEADER_KEY",
    "RETRY_KEY",
    "CoordinatorClient",
]
