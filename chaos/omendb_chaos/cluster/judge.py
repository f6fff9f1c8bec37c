"""What must hold in a simulated cluster, whatever happens to it: watched while it runs, and looked at when it is quiet.

The letters are those of the invariants in the README of this component.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from omendb_chaos.checkers.linearizability import Operation, check
from omendb_chaos.checkers.points import FieldOfPoint, PointOfTwo, field_by_field, never_older
from omendb_chaos.cluster.datanodes import FOLDER, SMALL, SimDataNode
from omendb_chaos.sim.disk import SimDisk
from omendb_common import ring
from omendb_common.errors import OmenDBError
from omendb_common.hlc import STAMP_MAX, stamp_wall_ms
from omendb_common.ids import IdColumn
from omendb_common.shard_calls import MAX_AHEAD_MS, Apply, Repair, State, Verdict
from omendb_common.topology import SERVED, Shard, Topology
from omendb_datanode.node_folder import ReplicaKey, read_held, replica_path
from omendb_engine.replica import Replica
from omendb_engine.resources import Resources
from omendb_router.router import Router

STEPS_MAX = 400_000


class Acknowledged(NamedTuple):
    """A write that its client was told is committed: of which point, under which stamp, on how many replicas."""

    point_id: int
    stamp: int
    quorum: int
    deletion: bool = False


class Version(NamedTuple):
    """What a replica has of a point."""

    state: int
    stamp: int
    digest: int


@dataclass(slots=True)
class Found:
    """What a search showed: the values by id of the points that it was about, and what it promised.

    ``own``: the write whose session token it carried.
    """

    client: str
    called: float
    values: dict[int, int | None]
    ids_twice: bool
    current: bool
    own: Operation | None = None


@dataclass(slots=True)
class Judge:
    """Collects what clients were told and replicas did, and says what of it may not be.

    ``whole``: ids that are only ever written whole. ``violations`` are in words, each with the letter of its invariant.
    """

    whole: frozenset[int]
    history: list[Operation] = field(default_factory=list)
    searches: list[Found] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    never: set[int] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)
    applied: int = 0
    undecided: int = 0
    _stamps: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    _owners: dict[int, tuple[str, int]] = field(default_factory=dict)

    def violated(self, what: str) -> None:
        """Note a violation."""
        self.violations.append(what)

    # -- while it runs

    def leased(self, holder: str, router: Router) -> None:
        """V5: an origin goes on to another holder only above every stamp that it was given before."""
        stamps = router._stamps
        known = self._owners.get(stamps.origin)
        lease = stamps._lease
        assert lease is not None
        if known is not None and known[0] != holder and lease.stamp_above <= known[1]:
            self.violated(f"V5: origin {stamps.origin} of {known[0]} was leased to {holder} below its bound")
        self._owners[stamps.origin] = holder, lease.stamp_bound

    def replica_answered(self, node: SimDataNode, kind: str, call: Any, answer: Any) -> None:
        """V5 and V6: look at what a replica applied."""
        if kind not in ("apply", "repair") or answer.verdict is not Verdict.OK:
            return
        self.applied += 1
        assert isinstance(call, Apply | Repair)
        hosting = node.hosting
        hosted = None if hosting is None else hosting.find(call.shard)
        fence = 0 if hosted is None else hosted.replica.maintenance.fence_epoch
        # Under a fence that is stored, and whose storing failed at the end, nobody is answered yet: it is not in force.
        if hosted is not None and call.shard.epoch < fence <= hosted.epoch:
            self.violated(f"V6: {node.name} applied under epoch {call.shard.epoch}, its fence is {fence}")
        if isinstance(call, Apply):
            ahead_ms = stamp_wall_ms(call.stamp) - node.clock.wall_ms()
            if ahead_ms > MAX_AHEAD_MS:
                self.violated(f"P2: {node.name} took a stamp {ahead_ms} ms ahead of its clock")
            content = id(call.batch)
            for key in call.batch.ids.hashes()[0].tolist():
                known = self._stamps.setdefault((key, call.stamp), (call.shard.origin, content))
                # An echo of the client is another batch of the same content, under the same origin's stamp.
                if known[0] != call.shard.origin and (call.stamp & 0xFFF) not in (known[0], call.shard.origin):
                    self.violated(f"V5: stamp {call.stamp} was used by origins {known[0]} and {call.shard.origin}")

    # -- afterwards

    def check_history(self) -> None:
        """V2, V3, V4, V8 as clients see them: per id one order of all calls, and no search older than it may be."""
        whole = [o for o in self.history if o.key in self.whole]
        parts = list(field_by_field(o for o in self.history if o.key not in self.whole))
        for verdict in (
            check(whole, PointOfTwo(), steps_max=STEPS_MAX),
            check(parts, FieldOfPoint(), steps_max=STEPS_MAX),
        ):
            if verdict.undecided:
                self.undecided += 1
            elif not verdict.ok:
                self.violated(f"no order of all calls:\n{verdict.why}")
        by_id: dict[int, list[Operation]] = {}
        for operation in self.history:
            if operation.call[0] == "swap" and operation.result is not False:
                operation = replace(operation, call=("write", operation.call[2]))
            if operation.call[0] == "write" and isinstance(operation.key, int):
                by_id.setdefault(operation.key, []).append(operation)
        for found in self.searches:
            self._check_search(found, by_id)

    def _check_search(self, found: Found, writes: dict[int, list[Operation]]) -> None:
        if found.ids_twice:
            self.violated(f"V3: a search of {found.client} at {found.called:.3f} showed an id twice")
        for point_id, value in found.values.items():
            if value is not None and not any(w.call[1] == value for w in writes.get(point_id, ())):
                self.violated(f"V3, V4: a search showed {point_id} as {value}, which nobody wrote")
            elif (
                found.own is not None
                and found.own.key == point_id
                and not never_older(writes.get(point_id, ()), value, found.called, [found.own])
            ):
                self.violated(
                    f"P10: a search of {found.client} at {found.called:.3f} with its session showed {point_id} as "
                    f"{value}, which is older than its own write"
                )
            elif (
                found.current
                and point_id in self.whole
                and not never_older(writes.get(point_id, ()), value, found.called)
            ):
                self.violated(
                    f"V8: a search of {found.client} at {found.called:.3f} showed {point_id} as {value}, "
                    f"which was replaced before it began"
                )

    def check_copies(self, nodes: Sequence[SimDataNode], topology: Topology, lost: int) -> None:
        """V1 and V2 in the memory of all replicas: what was acknowledged is on as many as was promised."""
        ids = sorted({a.point_id for a in self.acknowledged})
        have = [versions_of(node, topology, ids) for node in nodes]
        self._check_held(have, topology, lost, "V1: in memory")

    def check_durable(self, nodes: Sequence[SimDataNode], topology: Topology, lost: int, rng: random.Random) -> None:
        """V1 on stable storage: a power cut of everything now would leave as many copies as was promised."""
        ids = sorted({a.point_id for a in self.acknowledged})
        have = []
        for node in nodes:
            survivor = node.disk.power_cut(rng)
            try:
                have.append(stored_versions(survivor, node, topology, ids))
            except OmenDBError as error:
                self.violated(f"V1: {node.name} would not open after a power cut: {error}")
                return
        self._check_held(have, topology, lost, "V1: on stable storage")

    def _check_held(self, have: Sequence[dict[int, Version]], topology: Topology, lost: int, where: str) -> None:
        newest: dict[int, Acknowledged] = {}
        for told in self.acknowledged:
            if told.point_id not in newest or newest[told.point_id].stamp < told.stamp:
                newest[told.point_id] = told
        for point_id, told in newest.items():
            if told.deletion and told.stamp <= _shard_of(topology, point_id).gc_floor:
                continue  # it may be forgotten by now (P13): that the point stays away is seen by reads
            if told.stamp <= _shard_of(topology, point_id).gc_floor and self._may_be_gone(point_id, have):
                continue  # so may a later one of which nobody knows what became
            count = sum(h.get(point_id, Version(0, 0, 0)).stamp >= told.stamp for h in have)
            if count < told.quorum - lost:
                self.violated(
                    f"{where}, {count} replicas have stamp {told.stamp} of {point_id}, {told.quorum} were told"
                )

    def _may_be_gone(self, point_id: int, have: Sequence[dict[int, Version]]) -> bool:
        """Whether nobody has a point any more that somebody wanted to delete, without hearing whether it was.

        Some may still have the deletion: each forgets it when it comes to it.
        """
        if any(v.state == State.LIVE for v in (versions.get(point_id) for versions in have) if v is not None):
            return False
        # A deletion is a write, or a swap, to nothing.
        mine = (one.call for one in self.history if one.is_open and one.key == point_id)
        return any(call[0] in ("write", "swap") and call[-1] is None for call in mine)

    def check_equal(self, nodes: Sequence[SimDataNode], topology: Topology, ids: Sequence[int]) -> None:
        """V10: all replicas that count are logically equal."""
        for what in differences(nodes, topology, ids):
            self.violated(f"V10: {what}")

    def check_amnesia(self, nodes: Sequence[SimDataNode], topology: Topology) -> None:
        """P16: a node on a new folder does not count for what was placed on it before, until a move has filled it."""
        counting = {
            (place.node_id, place.session)
            for info in topology.collections.values()
            for shard in info.shards
            for place in shard.replicas
            if place.state in ("active", "leaving")
        }
        for node in nodes:
            if node.folders > 1 and (node.name, 0) in counting:
                self.violated(f"P16: {node.name} lost its folder, and goes on counting for what was on it")

    def check_trees(self, nodes: Sequence[SimDataNode]) -> None:
        """V9: what is remembered of a hash tree is what the records give."""
        for node in nodes:
            for replica in [] if node.hosting is None else node.hosting.replicas():
                if replica.hash_trees.check(STAMP_MAX).leaves:
                    self.violated(f"V9: {node.name} has another hash tree than its records give")

    def check_replay(self, nodes: Sequence[SimDataNode], topology: Topology, ids: Sequence[int]) -> None:
        """V12: what a node reads from its log again is what it has in memory."""
        for node in nodes:
            memory = versions_of(node, topology, ids)
            try:
                again = stored_versions(node.disk.copy(), node, topology, ids)
            except OmenDBError as error:
                self.violated(f"V12: {node.name} would not open: {error}")
                continue
            for point_id in ids:
                if memory.get(point_id) != again.get(point_id):
                    told = f"{memory.get(point_id)} in memory, {again.get(point_id)} read again"
                    self.violated(f"V12: {node.name} has {point_id} as {told}")


def versions_of(node: SimDataNode, topology: Topology, ids: Sequence[int]) -> dict[int, Version]:
    """What a node has in memory of points, in the replicas that the map gives it."""
    found: dict[int, Version] = {}
    names = {key.name for key in _keys(node, topology)}
    if node.hosting is not None:
        for opened in node.hosting.opened():
            if opened.key.name in names:
                _look(opened.hosted.replica, ids, found)
    return found


def _keys(node: SimDataNode, topology: Topology) -> Iterator[ReplicaKey]:
    """The replicas that the map gives a node."""
    for info in topology.collections.values():
        for shard in info.shards:
            for place in shard.replicas:
                if place.node_id == node.name and place.state in SERVED:
                    yield ReplicaKey(info.schema.uuid, shard.shard_id, place.session)


def stored_versions(disk: SimDisk, node: SimDataNode, topology: Topology, ids: Sequence[int]) -> dict[int, Version]:
    """What a copy of a node's disk holds of points, as the next process with room to work would find it."""
    found: dict[int, Version] = {}
    disk.capacity_bytes = None
    held = read_held(disk, FOLDER).names  # what is there and not named was being made: it is made again
    for key in _keys(node, topology):
        path = replica_path(FOLDER, key.name)
        if key.name in held and disk.exists(path):
            uuid = key.collection_uuid
            replica = Replica.open(disk, path, uuid, Resources(SMALL), SMALL, node.clock, keep_tombstones=True)
            _look(replica, ids, found)
    return found


def _look(replica: Replica, ids: Sequence[int], found: dict[int, Version]) -> None:
    if not ids:
        return
    versions = replica.versions(IdColumn.of(list(ids)))
    columns = versions.states.tolist(), versions.stamps.tolist(), versions.digests().tolist()
    for point_id, state, stamp, digest in zip(ids, *columns, strict=True):
        if state != State.ABSENT:
            found[point_id] = Version(state, stamp, digest)


def _remembered(version: Version | None, gc_floor: int) -> Version | None:
    """A version, or None for a deletion that each replica may forget when it likes (P13)."""
    forgotten = version is not None and version.state == State.DELETED and version.stamp <= gc_floor
    return None if forgotten else version


def _shard_of(topology: Topology, point_id: int) -> Shard:
    """The shard of a point; a run has one collection."""
    (info,) = topology.collections.values()
    (place,) = ring.key_hashes(IdColumn.of([point_id])).tolist()
    return next(s for s in info.shards if s.low <= place < s.high)


def differences(nodes: Sequence[SimDataNode], topology: Topology, ids: Sequence[int]) -> Iterator[str]:
    """Points of which not all replicas that count have the same; the id is the fourth word."""
    have = {node.name: versions_of(node, topology, ids) for node in nodes}
    hashes = ring.key_hashes(IdColumn.of(list(ids))).tolist()
    for info in topology.collections.values():
        for point_id, place in zip(ids, hashes, strict=True):
            shard = next(s for s in info.shards if s.low <= place < s.high)
            held = {
                name: _remembered(have[name].get(point_id), shard.gc_floor) for name in shard.nodes("active", "leaving")
            }
            if len(set(held.values())) > 1:
                yield f"replicas differ in {point_id}: {held}"


__all__ = ["Acknowledged", "Found", "Judge", "Version", "differences", "stored_versions", "versions_of"]
