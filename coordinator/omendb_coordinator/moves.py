"""Which replicas should move now, and which moves should end without their end (P14). Pure.

In this order: moves whose target is gone are given up; replicas that hold nothing are made anew; those of nodes that
have been down for long go elsewhere; shards get the replicas and quorums that were asked for; replicas of nodes that
drain go elsewhere; and when everything is well, one goes from the fullest node to the emptiest. At most one replica of
a shard is on its way at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omendb_common.quorum import Quorums
from omendb_common.topology import CollectionInfo, Member, ReplicaPlace, Shard, Topology
from omendb_coordinator.heat import COLD, Heat
from omendb_coordinator.move_changes import GONE
from omendb_coordinator.placement import candidates, score
from omendb_coordinator.resizes import next_quorums


@dataclass(frozen=True, slots=True)
class Step:
    """A command that should be proposed.

    ``begin_move`` has a source and a target, ``begin_resize`` one of them or none, and quorums, ``begin_merge`` a
    neighbour's number and epoch, ``begin_split`` a place to cut at, or None: the middle; others only a shard.
    """

    op: str
    uuid: str
    shard_id: int
    epoch: int
    source: str = ""
    target: str = ""
    why: str = ""
    quorums: Quorums | None = None
    other: tuple[int, int] | None = None
    at: int | None = None

    def args(self) -> dict[str, Any]:
        """The arguments of the command."""
        shard = {"uuid": self.uuid, "shard_id": self.shard_id, "epoch": self.epoch}
        if self.other is not None:
            return {**shard, "other_id": self.other[0], "other_epoch": self.other[1]}
        if self.at is not None:
            return {**shard, "at": self.at}
        if self.op not in ("begin_move", "begin_resize"):
            return shard
        way = {**shard, "source": self.source, "target": self.target}
        new = self.quorums
        return way if new is None else {**way, "quorums": [new.replication, new.write, new.read]}


@dataclass(frozen=True, slots=True)
class MoveLimits:
    """How much may be on its way, and how long a node may be down before its replicas are made anew elsewhere."""

    moves_max: int
    moves_per_node_max: int
    rereplicate_s: float
    balance_difference: int


Silent = Callable[[Member], float]
"""For how many seconds a member has not been heard."""


class Fleet:
    """The topology as the planner looks at it; steps that were planned count as taken."""

    def __init__(self, topology: Topology, limits: MoveLimits) -> None:
        self.members = topology.members
        self.nodes = {m.node_id: m for m in candidates(topology.members.values())}
        self.limits = limits
        moves = [s.move for c in topology.collections.values() for s in c.shards if s.move is not None]
        self.arriving: Counter[str] = Counter(m.target for m in moves if m.target)
        self.under_way = len(moves)
        self.load: Counter[str] = Counter(
            r.node_id
            for c in topology.collections.values()
            for s in c.shards
            for r in s.replicas
            if r.state not in GONE
        )

    @property
    def busy(self) -> bool:
        """Whether nothing more may begin."""
        return self.under_way >= self.limits.moves_max

    @property
    def occupied(self) -> bool:
        """Whether nothing more may begin of what was asked for: one at a time always may."""
        return self.under_way >= max(1, self.limits.moves_max)

    def fullness(self, node: Member) -> float:
        """Replicas for its capacity."""
        return self.load[node.node_id] / node.capacity

    def target(self, info: CollectionInfo, shard: Shard, source: str) -> str | None:
        """Where a replica in the place of that of ``source`` goes: to another zone than the others', and to room."""
        others = [r.node_id for r in shard.replicas if r.node_id != source]
        zones = Counter(self.members[n].zone for n in others if n in self.members)
        free = [n for n in self.nodes.values() if n.node_id not in others and n.node_id != source and self.open(n)]
        if not free:
            return None
        key = info.schema.uuid
        best = min(free, key=lambda n: (zones[n.zone], self.fullness(n), -score(key, shard.shard_id, n), n.node_id))
        return best.node_id

    def open(self, node: Member) -> bool:
        """Whether a node may be sent one more."""
        return self.arriving[node.node_id] < self.limits.moves_per_node_max

    def fits(self, shard: Shard, full: Member, empty: Member) -> bool:
        """Whether a shard's replica on one node may go to the other, in no fewer zones afterwards."""
        places = {r.node_id for r in shard.replicas}
        if full.node_id not in places or empty.node_id in places:
            return False
        others = {self.members[r.node_id].zone for r in shard.replicas if r.node_id != full.node_id}
        return len(others | {empty.zone}) >= len(others | {full.zone})

    def begin(self, info: CollectionInfo, shard: Shard, source: str, target: str, why: str) -> Step:
        """Take a step."""
        self.under_way += 1
        self.arriving[target] += 1
        self.load[target] += 1
        self.load[source] -= 1
        return Step("begin_move", info.schema.uuid, shard.shard_id, shard.epoch, source, target, why)

    def resize(self, info: CollectionInfo, shard: Shard, source: str, target: str, then: Quorums) -> Step:
        """Take a step to other quorums, and to one replica more or less."""
        self.under_way += 1
        if target:
            self.arriving[target] += 1
            self.load[target] += 1
        if source:
            self.load[source] -= 1
        at = info.schema.uuid, shard.shard_id, shard.epoch
        return Step("begin_resize", *at, source, target, f"to {then.replication}/{then.write}/{then.read}", then)


def plan_moves(topology: Topology, silent: Silent, limits: MoveLimits, heat: Heat = COLD) -> list[Step]:
    """What is due now; empty when everything is where it should be, or enough is on its way.

    Moves for the sake of balance alone make no node hotter than the one that gives was (see ``hot_moves``).
    """
    steps = [
        Step("cancel_move", info.schema.uuid, shard.shard_id, shard.epoch, why=why)
        for info, shard in _shards(topology)
        if (why := _hopeless(topology.members, shard, silent, limits))
    ]
    if steps or topology.moves_paused:
        return steps
    fleet = Fleet(topology, limits)
    for due in (_gone, _left, _resized, _draining):
        for info, shard in _shards(topology):
            busy = fleet.occupied if due is _resized else fleet.busy
            if shard.move is None and shard.recut is None and not busy:
                step = due(fleet, info, shard, silent)
                steps += [step] if step is not None else []
        if steps:
            # What is more urgent goes first, and then the map is looked at again.
            return steps
    if at_rest(fleet, topology):
        balance = _balanced(fleet, topology, heat)
        steps += [balance] if balance is not None else []
    return steps


def at_rest(fleet: Fleet, topology: Topology) -> bool:
    """Whether replicas may move for the sake of balance: nothing is on its way, and every data node is there."""
    up = all(m.state == "up" for m in topology.members.values() if m.role == "datanode")
    return up and not fleet.under_way and not fleet.busy


def movable(topology: Topology) -> Iterator[tuple[CollectionInfo, Shard]]:
    """The shards that are well, and nothing of which is on its way."""
    for info, shard in _shards(topology):
        if shard.recut is None and shard.move is None and all(r.state == "active" for r in shard.replicas):
            yield info, shard


def _shards(topology: Topology) -> Iterator[tuple[CollectionInfo, Shard]]:
    for _, info in sorted(topology.collections.items()):
        for shard in info.shards:
            yield info, shard


def _hopeless(members: Mapping[str, Member], shard: Shard, silent: Silent, limits: MoveLimits) -> str:
    """Why a move should be given up, if it should."""
    if shard.move is None:
        return ""
    if not shard.move.target:
        # It waits for replicas that stay, and keeps them from being made anew elsewhere.
        gone = [name for name in sorted(shard.new or ()) if _is_away(members.get(name), silent, limits)]
        return f"{gone[0]} is down" if gone else ""
    target = members.get(shard.move.target)
    if target is None or target.state in ("down", "left"):
        return f"{shard.move.target} is down"
    return ""


def _gone(fleet: Fleet, info: CollectionInfo, shard: Shard, silent: Silent) -> Step | None:
    """A replica that holds nothing is made anew: on its node, or elsewhere when that one stays away or drains."""
    if not shard.old:
        return None  # nor does any other: nothing can be made of that
    for place in shard.replicas:
        if place.state in GONE:
            node = fleet.nodes.get(place.node_id)
            if node is not None:
                return fleet.begin(info, shard, place.node_id, place.node_id, "lost") if fleet.open(node) else None
            member = fleet.members.get(place.node_id)
            if _away(fleet, place, silent) or (member is not None and member.state == "draining"):
                return _elsewhere(fleet, info, shard, place.node_id, "lost")
    return None


def _left(fleet: Fleet, info: CollectionInfo, shard: Shard, silent: Silent) -> Step | None:
    """A replica of a node that has been down for long is made anew elsewhere."""
    for place in shard.replicas:
        if place.state not in GONE and _away(fleet, place, silent):
            return _elsewhere(fleet, info, shard, place.node_id, "its node is down")
    return None


def _away(fleet: Fleet, place: ReplicaPlace, silent: Silent) -> bool:
    return _is_away(fleet.members.get(place.node_id), silent, fleet.limits)


def _is_away(member: Member | None, silent: Silent, limits: MoveLimits) -> bool:
    if member is None:
        return True
    return member.state in ("down", "left") and silent(member) >= limits.rereplicate_s


def _resized(fleet: Fleet, info: CollectionInfo, shard: Shard, _: Silent) -> Step | None:
    """The next step of a shard to the replication and the quorums that were asked for, while all of it is well."""
    now = info.quorums(shard)
    if now == info.wished or not len(shard.old) == len(shard.replicas) == now.replication:
        return None
    then = next_quorums(now, info.wished)
    source = _dispensable(fleet, info, shard) if then.replication < now.replication else ""
    here = (fleet.members.get(r.node_id) for r in shard.replicas if r.node_id != source)
    if not all(member is not None and member.state in ("up", "draining") for member in here):
        return None
    target = fleet.target(info, shard, "") if then.replication > now.replication else ""
    return None if target is None else fleet.resize(info, shard, source, target, then)


def _dispensable(fleet: Fleet, info: CollectionInfo, shard: Shard) -> str:
    """Whose replica goes: that of a node that is down, or drains, or shares its zone, or is fuller than the others."""
    zones = Counter(fleet.members[r.node_id].zone for r in shard.replicas if r.node_id in fleet.members)

    def worth(node_id: str) -> tuple[bool, bool, int, float, float]:
        member = fleet.members.get(node_id)
        if member is None:
            return False, False, 0, 0.0, 0.0
        serves = member.state not in ("down", "left")
        belongs = score(info.schema.uuid, shard.shard_id, member)
        return serves, member.state != "draining", -zones[member.zone], -fleet.fullness(member), belongs

    return min((r.node_id for r in shard.replicas), key=lambda node_id: (worth(node_id), node_id))


def _draining(fleet: Fleet, info: CollectionInfo, shard: Shard, _: Silent) -> Step | None:
    """A replica of a node that drains goes elsewhere."""
    for place in shard.replicas:
        member = fleet.members.get(place.node_id)
        if member is not None and member.state == "draining":
            return _elsewhere(fleet, info, shard, place.node_id, "its node drains")
    return None


def _elsewhere(fleet: Fleet, info: CollectionInfo, shard: Shard, source: str, why: str) -> Step | None:
    target = fleet.target(info, shard, source)
    return None if target is None else fleet.begin(info, shard, source, target, why)


def _balanced(fleet: Fleet, topology: Topology, heat: Heat) -> Step | None:
    """One replica from the fullest node to the emptiest, if they differ by so much that it is worth its way."""
    nodes = sorted(fleet.nodes.values(), key=lambda n: (fleet.fullness(n), n.node_id))
    if len(nodes) < 2:
        return None
    empty, full = nodes[0], nodes[-1]
    # It must stay the better place when the replica has moved, and by a margin: nothing goes back and forth.
    after = fleet.load[empty.node_id] + fleet.limits.balance_difference
    if after / empty.capacity > fleet.fullness(full):
        return None
    taken, room = heat.taken(full), heat.taken(empty)
    for info, shard in movable(topology):
        load = heat.of(full.node_id, info.schema.uuid, shard.shard_id)
        cool = not load or room + load / empty.capacity < taken
        if cool and fleet.fits(shard, full, empty):
            return fleet.begin(info, shard, full.node_id, empty.node_id, "balance")
    return None


__all__ = ["Fleet", "MoveLimits", "Silent", "Step", "at_rest", "movable", "plan_moves"]
