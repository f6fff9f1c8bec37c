"""What a coordinator does for its callers and, while it leads, by itself. Knows no network."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from omendb_common.catalog_copy import pack_copy
from omendb_common.clock import Clock
from omendb_common.errors import (
    InvalidArgumentError,
    NotFoundError,
    OmenDBError,
    ResourceExhaustedError,
    UnavailableError,
)
from omendb_common.hlc import stamp_at, stamp_step
from omendb_common.index_options import level_of
from omendb_common.metadata import NewCollection, OriginLease, RepairedShard
from omendb_common.shard_calls import MAX_AHEAD_MS
from omendb_common.topology import (
    FILLS_MAX,
    SIZES_MAX,
    CollectionInfo,
    Fill,
    Member,
    Merge,
    Move,
    ReplicaSize,
    Shard,
    Split,
    Topology,
    member_from_json,
    member_to_json,
)
from omendb_coordinator.catalog import Catalog
from omendb_coordinator.commands import Command, ConflictError, decode_result, format_of
from omendb_coordinator.config import CoordinatorSettings
from omendb_coordinator.consensus.seam import Consensus, NotLeaderError
from omendb_coordinator.heat import Heat
from omendb_coordinator.hot_moves import HotMoves
from omendb_coordinator.liveness import Liveness
from omendb_coordinator.load_splits import LoadLimits, LoadSplits
from omendb_coordinator.merges import MergeLimits, Merges
from omendb_coordinator.move_changes import check_loss
from omendb_coordinator.moves import MoveLimits, plan_moves
from omendb_coordinator.placement import Plan, plan
from omendb_coordinator.repair_changes import gains
from omendb_coordinator.reports import busy_report, collection_report, fill_report, move_report
from omendb_coordinator.splits import SplitLimits, largest, plan_splits
from omendb_coordinator.watch import Watch

_log = logging.getLogger(__name__)

REQUEST_OWN = "coordinator"

OWN_TROUBLE = "coordinator"
"""The field of errors that say nothing about the change: another coordinator, or a later try, may carry it out."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks, and for which intention: the same ``request_id`` takes effect once."""

    request_id: str
    client: str


class Control:
    """One coordinator. Its methods belong to the event loop that made it.

    Changes raise NotLeaderError where another member leads, UnavailableError with outcome "unknown" when the change
    may yet happen, and the error of the change itself.
    """

    def __init__(
        self,
        consensus: Consensus,
        catalog: Catalog,
        watch: Watch,
        addresses: Mapping[str, str],
        settings: CoordinatorSettings,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._consensus = consensus
        self._catalog = catalog
        self._watch = watch
        self._addresses = addresses
        self._settings = settings
        self._clock = clock
        self._new_id = new_id
        self._liveness = Liveness(
            suspect_s=settings.suspect_s,
            down_s=settings.down_s,
            grace_s=settings.grace_s,
            stall_s=settings.stall_s,
            forget_s=settings.forget_s,
        )
        self._move_limits = MoveLimits(
            settings.moves_max, settings.moves_per_node_max, settings.rereplicate_s, settings.balance_difference
        )
        self._heat = Heat(settings.balance_load)
        self._hot_moves = HotMoves(self._move_limits, settings.balance_load_after_s)
        self._split_limits = SplitLimits(settings.split_rows, settings.split_bytes, settings.rereplicate_s)
        # Half of what deletions are remembered for beyond a proof: that much of it stays where floors become one.
        self._merge_margin = stamp_step(settings.gc_grace_s / 2)
        self._merges = Merges(
            MergeLimits(
                *(self._split_limits, settings.merge_share, settings.merge_after_s, self._merge_margin),
                load=settings.split_load,
            )
        )
        self._load_splits = LoadSplits(LoadLimits(settings.split_load, settings.split_load_after_s))
        # By node, how large and busy its last heartbeat said its replicas are.
        self._sizes: dict[str, dict[tuple[str, int], ReplicaSize]] = {}
        # By node, what its last heartbeat told of the replicas that it fills.
        self._fills: dict[str, dict[tuple[str, int], Fill]] = {}
        self._led_term: int | None = None
        self._proposals = 0
        self._leader_seen_s = clock.mono_s()
        self._elected = asyncio.Event()
        consensus.on_change(lambda _: self._elected.set())

    # -- where things stand

    @property
    def consensus(self) -> Consensus:
        """The member of the group."""
        return self._consensus

    @property
    def catalog(self) -> Catalog:
        """What the group agrees on."""
        return self._catalog

    @property
    def watch(self) -> Watch:
        """The topologies as they come."""
        return self._watch

    @property
    def settings(self) -> CoordinatorSettings:
        """The settings in force."""
        return self._settings

    @property
    def proposals(self) -> int:
        """Changes that wait for the group."""
        return self._proposals

    @property
    def leads(self) -> bool:
        """Whether this member takes itself for the leader."""
        return self._consensus.status.role == "leader"

    def leader_address(self, node_id: str | None = None) -> str | None:
        """Where the leader, or the named member, serves; None when nobody knows."""
        node_id = self._consensus.status.leader if node_id is None else node_id
        return None if node_id is None else self._addresses.get(node_id)

    def leaderless(self) -> bool:
        """Whether this member has known no leader for longer than its settings allow."""
        now_s = self._clock.mono_s()
        if self._consensus.status.leader is not None:
            self._leader_seen_s = now_s
        return now_s - self._leader_seen_s > self._settings.leaderless_s

    # -- changes

    async def change(self, asking: Asking, op: str, args: Mapping[str, Any], timeout_s: float) -> Any:
        """Carry out one operation of the catalog and return its answer.

        Raises:
            InvalidArgumentError: the cluster may still have members that do not know such an operation.
        """
        self._check_level(max(format_of(op), level_of(_options(args))))
        command = Command(asking.request_id, asking.client, op, args, self._clock.wall_ms())
        async with self._slot():
            committed = await self._consensus.propose(command.encode(), timeout_s)
        return decode_result(committed.result)

    def _check_level(self, needed: int) -> None:
        """Refuse what members of an older release, which may still be there, could not live with."""
        level = self._catalog.topology.feature_level
        if needed > level:
            raise InvalidArgumentError(
                f"the cluster is at {level}",
                field="feature_level",
                bound=f"at least {needed}",
                mend="upgrade every process, then `omendb cluster finalize-upgrade`",
            )

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._proposals >= self._settings.proposals_max:
            raise ResourceExhaustedError("too many changes under way", field=OWN_TROUBLE, retry_after=0.1)
        self._proposals += 1
        try:
            yield
        finally:
            self._proposals -= 1

    async def create_collection(self, asking: Asking, new: NewCollection, timeout_s: float) -> CollectionInfo:
        """Place and make a collection."""
        ends_s = self._clock.mono_s() + timeout_s
        # The last moment at which the level rises by itself: a quick first user fixes no new cluster at an old one.
        await self._raise_level()
        for _ in range(self._settings.placements_max):
            state = self._catalog.state
            uuid = self._new_id()
            left_s = max(0.0, ends_s - self._clock.mono_s())
            placed: Plan | None = None
            try:
                placed = plan(new, uuid, state.topology.members.values())
            except OmenDBError:
                # A repeated request has its answer already, whoever is down by now; and this member may lag.
                await self._consensus.read_index(left_s)
                state = self._catalog.state
                if self._catalog.recall(asking.request_id) is None:
                    placed = plan(new, uuid, state.topology.members.values())
            args = _creation(new, uuid, placed, state.members_revision)
            try:
                answer = await self.change(asking, "create_collection", args, left_s)
            except ConflictError:
                continue
            return self._collection(answer["uuid"])
        raise UnavailableError("the members keep changing", field="collection", mend="try again")

    def _collection(self, uuid: str) -> CollectionInfo:
        """A collection that was changed just now, even when it was dropped since: the change took place."""
        info = self._catalog.topology.by_uuid(uuid) or self._watch.last_seen(uuid)
        if info is None:
            raise UnavailableError("it was dropped long since", field="collection", outcome="unknown")
        return info

    async def change_collection(
        self, asking: Asking, op: str, args: Mapping[str, Any], timeout_s: float
    ) -> CollectionInfo:
        """An operation that answers with the uuid of the collection it changed; returns that as it is now."""
        answer = await self.change(asking, op, args, timeout_s)
        return self._collection(answer["uuid"])

    async def register(self, asking: Asking, member: Any, timeout_s: float) -> Member:
        """Take in a member; ``member`` is its JSON. Returns it as the cluster sees it."""
        answer = await self.change(asking, "register", {"member": member}, timeout_s)
        registered = member_from_json(answer["member"])
        self._liveness.heard(registered.node_id, registered.incarnation, self._clock.mono_s())
        return registered

    async def leave(self, asking: Asking, node_id: str, incarnation: str, timeout_s: float) -> int:
        """A member ends in good order; returns the revision that shows it."""
        # Before the change: a round of the leader's duties in between would take it for alive again.
        self._liveness.left(node_id, incarnation)
        answer = await self.change(asking, "leave", {"node_id": node_id, "incarnation": incarnation}, timeout_s)
        return int(answer["revision"])

    async def drain(self, asking: Asking, node_id: str, draining: bool, timeout_s: float) -> Member:
        """Keep new shards away from a data node, or no longer."""
        answer = await self.change(asking, "drain", {"node_id": node_id, "draining": draining}, timeout_s)
        return member_from_json(answer["member"])

    async def lease_origin(self, asking: Asking, holder: str, stamp: int, timeout_s: float) -> OriginLease:
        """Lease or renew an origin."""
        answer = await self.change(asking, "lease_origin", {"holder": holder, "stamp": stamp}, timeout_s)
        first, stop = answer["auto_ids"]
        return OriginLease(answer["origin"], answer["stamp_above"], answer["stamp_bound"], (first, stop))

    async def lose_replica(self, asking: Asking, args: Mapping[str, Any], timeout_s: float) -> CollectionInfo:
        """A data node's replica is damaged; refused without an entry of the log while too few others are whole."""
        info = self._catalog.topology.by_uuid(str(args["uuid"]))
        shard = None if info is None else next((s for s in info.shards if s.shard_id == args["shard_id"]), None)
        if self.leads and info is not None and shard is not None and shard.epoch == args["epoch"]:
            check_loss(info, shard, str(args["node_id"]))
        return await self.change_collection(asking, "lose_replica", args, timeout_s)

    async def advance_move(self, asking: Asking, args: Mapping[str, Any], timeout_s: float) -> CollectionInfo:
        """The target of a move has what it needs for the next stage."""
        return await self.change_collection(asking, "advance_move", args, timeout_s)

    async def begin_merge(self, asking: Asking, args: Mapping[str, Any], timeout_s: float) -> CollectionInfo:
        """Begin to put two neighbouring shards together."""
        args = {**args, "margin": self._merge_margin}
        return await self.change_collection(asking, "begin_merge", args, timeout_s)

    async def finalize_upgrade(self, asking: Asking, timeout_s: float) -> tuple[int, int]:
        """Let the cluster use what every member understands; the level, and the revision that shows it.

        Raises:
            InvalidArgumentError: some members understand more than the cluster uses, and others do not.
        """
        await self._consensus.read_index(timeout_s)
        topology = self._catalog.topology
        known = {n: m.feature_level for n, m in topology.members.items()}
        known |= {n: 0 for n in self._consensus.status.members if n not in known}
        used, newest = topology.feature_level, max(known.values(), default=0)
        behind = sorted(node_id for node_id, level in known.items() if level <= used)
        if behind and newest > used:
            raise InvalidArgumentError(
                f"{', '.join(behind[:10])} understand less than level {newest}, or were never seen",
                field="feature_level",
                bound=f"every member above {used}",
                mend="upgrade and start them; strike off who is gone for good",
            )
        level = max(used, min(known.values(), default=used))
        answer = await self.change(asking, "raise_level", {"level": level}, timeout_s) if level > used else None
        revision = topology.revision if answer is None else int(answer["revision"])
        return level, revision

    async def copy(self, timeout_s: float) -> bytes:
        """The catalog after everything that was acknowledged before the call, as a file keeps it."""
        await self.read(timeout_s)
        return pack_copy(self._clock.wall_ms(), self._catalog.snapshot())

    def heartbeat(
        self,
        node_id: str,
        incarnation: str,
        problems: Sequence[str] = (),
        fills: Sequence[Fill] = (),
        sizes: Sequence[ReplicaSize] = (),
    ) -> Member:
        """A member lives, with these problems, replicas on their way, and replicas so large and busy.

        Raises:
            NotFoundError: it must register (again).
        """
        if not self.leads:
            raise NotLeaderError(self._consensus.status.leader)
        member = self._catalog.topology.members.get(node_id)
        # One that understands too little, as far as is known, says by registering what it understands by now.
        level = self._catalog.topology.feature_level
        if member is None or member.incarnation != incarnation or member.feature_level < level:
            raise NotFoundError(f"{node_id!r} is not registered like that", field="node_id", mend="register it")
        self._liveness.heard(node_id, incarnation, self._clock.mono_s(), problems)
        self._fills[node_id] = {(f.collection_uuid, f.shard_id): f for f in fills[:FILLS_MAX]}
        self._sizes[node_id] = {(s.collection_uuid, s.shard_id): s for s in sizes[:SIZES_MAX]}
        return member

    async def note_repaired(self, asking: Asking, node_id: str, told: Sequence[RepairedShard], timeout_s: float) -> int:
        """A data node found replicas equal; what gains too little is passed over. The revision that shows it."""
        if not self.leads:
            raise NotLeaderError(self._consensus.status.leader)
        topology = self._catalog.topology
        step = stamp_step(self._settings.repaired_step_s)
        # A replica that is alone has nobody else whose clock its own is held against.
        latest = stamp_at(self._clock.wall_ms() + MAX_AHEAD_MS)
        news = [list(one) for one in told if one.through <= latest and _is_news(topology, node_id, one, step)]
        if not news:
            return topology.revision
        args = {"node_id": node_id, "shards": news, "grace": stamp_step(self._settings.gc_grace_s)}
        answer = await self.change(asking, "note_repaired", args, timeout_s)
        return int(answer["revision"])

    # -- reads

    async def read(self, timeout_s: float) -> Topology:
        """The topology after everything that was acknowledged before the call; always that of a named cluster."""
        await self._consensus.read_index(timeout_s)
        topology = self._catalog.topology
        if not topology.cluster_id:
            raise UnavailableError("the cluster has no id yet", field=OWN_TROUBLE)
        return topology

    async def report(self, timeout_s: float) -> dict[str, Any]:
        """The cluster after everything that was acknowledged before the call, for people: a JSON object."""
        await self._consensus.read_index(timeout_s)
        return self.local_report()

    def local_report(self) -> dict[str, Any]:
        """The cluster as this member knows it."""
        status, topology = self._consensus.status, self._catalog.topology
        now_s = self._clock.mono_s()
        replicas = Counter(r.node_id for c in topology.collections.values() for s in c.shards for r in s.replicas)
        sizes = largest(self._sizes.values()) if self.leads else {}
        members = []
        for member in topology.members.values():
            told = member_to_json(member)
            if self.leads:
                told["silent_s"] = round(self._liveness.silent_s(member, now_s), 3)
                told["problems"] = list(self._liveness.problems(member))
                loads = [size.load for size in self._sizes.get(member.node_id, {}).values() if size.load is not None]
                told["load"] = round(sum(load.total for load in loads), 3)
            told["replicas"] = replicas[member.node_id]
            members.append(told)
        return {
            "cluster_id": topology.cluster_id,
            "revision": topology.revision,
            "feature_level": topology.feature_level,
            "feature_level_next": max(topology.feature_level, self._common_level(topology)),
            "restored": topology.restored,
            "answered_by": status.node_id,
            "leader": status.leader,
            "leader_address": self.leader_address(),
            "term": status.term,
            "commit_index": status.commit_index,
            "applied_index": status.applied_index,
            "coordinators": [{"node_id": n, "address": self._addresses.get(n)} for n in status.members],
            "members": members,
            "collections": [collection_report(c, sizes) for c in topology.collections.values()],
            "busy": [
                busy_report(one, self._settings.split_load, now_s)
                for one in self._load_splits.busy(topology, sizes, now_s)
            ],
            "moves": [
                {**move_report(info, shard, shard.move), **self._progress(info, shard, shard.move)}
                for info in topology.collections.values()
                for shard in info.shards
                if shard.move is not None
            ],
            "splits": [
                self._split_report(info, shard, shard.split)
                for info in topology.collections.values()
                for shard in info.shards
                if shard.split is not None
            ],
            "merges": [
                self._merge_report(info, shard, shard.merge)
                for info in topology.collections.values()
                for shard in info.shards
                if shard.merge is not None and shard.merge.low_id == shard.shard_id
            ],
            "moves_paused": topology.moves_paused,
            "aliases": dict(topology.aliases),
            "origins": len(self._catalog.state.origins),
        }

    def _progress(self, info: CollectionInfo, shard: Shard, move: Move) -> dict[str, Any]:
        fill = self._filled(move.target, info, shard, move.session)
        return {} if fill is None else fill_report(fill)

    def _split_report(self, info: CollectionInfo, shard: Shard, split: Split) -> dict[str, Any]:
        """A shard that splits; how far the slowest of its nodes is, and what that waits for."""
        into = [split.low_id, split.high_id]
        return {"collection": info.name, "shard_id": shard.shard_id, "into": into, **self._recut(info, split, shard)}

    def _merge_report(self, info: CollectionInfo, low: Shard, merge: Merge) -> dict[str, Any]:
        """Two shards that merge; how far the slower of them is on the slowest of their nodes."""
        named = {"collection": info.name, "shard_ids": [merge.low_id, merge.high_id], "into": merge.into_id}
        return {**named, **self._recut(info, merge, low, info.shard(merge.high_id))}

    def _recut(self, info: CollectionInfo, recut: Split | Merge, *shards: Shard) -> dict[str, Any]:
        waiting = sorted(r.node_id for r in shards[0].replicas if r.node_id not in recut.ready)
        told = [(node, self._filled(node, info, shard, recut.session)) for node in waiting for shard in shards]
        known = [(node, fill_report(fill)) for node, fill in told if fill is not None]
        slowest = min((fill for _, fill in known), key=lambda fill: float(fill["percent"]), default={})
        held = "; ".join(f"{node}: {fill['waits_for']}" for node, fill in known if fill["waits_for"])
        return {
            "session": recut.session,
            "ready": list(recut.ready),
            **slowest,
            "waits_for": waiting,
            "held_up": held,
        }

    def _filled(self, node_id: str, info: CollectionInfo, shard: Shard, session: int) -> Fill | None:
        fill = self._fills.get(node_id, {}).get((info.schema.uuid, shard.shard_id))
        return fill if fill is not None and fill.session == session else None

    # -- by itself

    async def lead(self) -> None:
        """Do what a leader does, whenever this member is one. Runs until it is cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.decide_s):
                    await self._elected.wait()
            self._elected.clear()
            if not self.leads:
                self._led_term = None
                continue
            try:
                await self._duties()
            except OmenDBError as problem:
                # Not the leader any more, or no quorum just now: the next round, or the next leader, does it.
                _log.info("a leader's duty is put off: %s", problem)

    async def _duties(self) -> None:
        term = self._consensus.status.term
        if term != self._led_term:
            await self._consensus.read_index(self._settings.proposal_s)
            self._liveness.elected(self._clock.mono_s())
            self._fills.clear()
            self._sizes.clear()
            self._merges.forget()
            self._load_splits.forget()
            self._hot_moves.forget()
            self._led_term = term
        topology = self._catalog.topology
        if not topology.cluster_id:
            await self._own("name_cluster", {"cluster_id": self._new_id()})
        for due in self._liveness.decide(topology.members.values(), self._clock.mono_s()):
            _log.info("member %s: %s -> %s", due.node_id, due.was, due.to)
            args = {"node_id": due.node_id, "incarnation": due.incarnation, "was": due.was, "to": due.to}
            try:
                await self._own("set_member_state", args)
            except (ConflictError, NotFoundError):
                continue  # it was quicker
        for member in self._liveness.gone(topology.members.values(), self._clock.mono_s()):
            with suppress(InvalidArgumentError, NotFoundError):  # it came back, or was struck off already
                await self._own("forget_member", {"node_id": member.node_id})
        await self._raise_level()
        self._sizes = {node: told for node, told in self._sizes.items() if node in topology.members}
        await self._move()

    async def _raise_level(self) -> None:
        """Use what every member understands, while nothing is stored that one could go back with (P21)."""
        topology = self._catalog.topology
        level = self._common_level(topology)
        if level > topology.feature_level and not topology.collections:
            with suppress(InvalidArgumentError):  # one that understands less came in meanwhile
                await self._own("raise_level", {"level": level})

    async def _move(self) -> None:
        """Begin the moves, splits and merges that are due, and give up those that nobody will end."""
        now_s = self._clock.mono_s()
        topology = self._catalog.topology

        def silent(member: Member) -> float:
            return self._liveness.silent_s(member, now_s)

        self._heat.hear(topology, self._sizes)
        moves = plan_moves(topology, silent, self._move_limits, self._heat)
        by_heat = self._hot_moves.plan(topology, self._heat, now_s)
        moves = moves or by_heat
        sizes = largest(self._sizes.values())
        # A move is more urgent: what a replica lacks is nowhere, and a large shard serves; two small ones harm nobody.
        steps = moves + plan_splits(topology, silent, sizes, self._split_limits)
        by_load = self._load_splits.plan(topology, sizes, now_s)
        steps += [] if steps else by_load
        steps += [s for s in self._merges.plan(topology, silent, sizes, now_s) if s.op == "cancel_merge" or not steps]
        for step in steps:
            args = step.args()
            if step.op == "begin_merge":
                args["margin"] = self._merge_margin
            try:
                await self._own(step.op, args)
            except (ConflictError, NotFoundError, InvalidArgumentError) as problem:
                _log.info("%s of shard %d is put off: %s", step.op, step.shard_id, problem)
            else:
                way = f": {step.source} -> {step.target}" if step.target else ""
                _log.info("%s of %s.%d%s (%s)", step.op, step.uuid, step.shard_id, way, step.why)

    def _common_level(self, topology: Topology) -> int:
        """The highest level that every member understands, once every coordinator has said which it does."""
        if any(node_id not in topology.members for node_id in self._consensus.status.members):
            return 0
        return min((m.feature_level for m in topology.members.values()), default=0)

    async def _own(self, op: str, args: Mapping[str, Any]) -> Any:
        asking = Asking(self._new_id(), REQUEST_OWN)
        return await self.change(asking, op, args, self._settings.proposal_s)


def _options(args: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of a schema that a change brings; what is no schema is judged where it is applied."""
    schema = args.get("schema")
    found = args.get("options") if schema is None else schema.get("options") if isinstance(schema, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _is_news(topology: Topology, node_id: str, told: RepairedShard, step: int) -> bool:
    info = topology.by_uuid(told.collection_uuid)
    shards = () if info is None else info.shards
    return any(gains(s, node_id, told, max(step, 1)) for s in shards if s.shard_id == told.shard_id)


def _creation(new: NewCollection, uuid: str, placed: Plan | None, members_revision: int) -> dict[str, Any]:
    """The arguments of the command; without a plan only its memory can answer it."""
    places = () if placed is None else placed.places
    nodes = sorted({node_id for place in places for node_id in place})
    position = {node_id: i for i, node_id in enumerate(nodes)}
    return {
        "name": new.name,
        "uuid": uuid,
        "schema": new.schema.to_json(),
        "partition_key": new.partition_key,
        "replication": 0 if placed is None else placed.replication,
        "write_quorum": 0 if placed is None else placed.write_quorum,
        "read_quorum": 0 if placed is None else placed.read_quorum,
        "nodes": nodes,
        "places": [[position[node_id] for node_id in place] for place in places],
        "members_revision": members_revision,
    }


__all__ = ["OWN_TROUBLE", "Asking", "Control"]
