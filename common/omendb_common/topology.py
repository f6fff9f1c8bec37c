"""What the coordinators agree on, as values: collections, shard maps, members.

A :class:`Topology` is immutable; every change is a new one with a greater revision (the Raft index of the change).
Routers and data nodes hold the newest they have seen and never need another process to read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from omendb_common.errors import FormatVersionError, NotFoundError
from omendb_common.quorum import Quorums
from omendb_common.schema import CollectionSchema

TOPOLOGY_FORMAT = 1

Role = Literal["coordinator", "router", "datanode"]
MemberState = Literal["up", "suspect", "down", "draining", "left"]
PROBLEMS_MAX = 20
"""Problems of its own that a member may tell with a heartbeat, of at most so many characters each."""
PROBLEM_CHARS_MAX = 300
ReplicaState = Literal["active", "joining", "behind", "corrupt", "lost", "leaving"]
MoveStage = Literal["filling", "switching"]
SERVED: tuple[ReplicaState, ...] = ("active", "joining", "behind", "leaving")
"""States in which a replica is kept open; one that the coordinators call lost or corrupt answers nothing."""


@dataclass(frozen=True, slots=True)
class Member:
    """A process of the cluster.

    ``address`` is where it serves (``host:port``); ``incarnation`` the uuid that its data folder was formatted with
    (a router's: of this start); ``capacity`` its share of placement beside the others, 1.0 by default.
    """

    node_id: str
    role: Role
    address: str
    incarnation: str
    zone: str = ""
    region: str = ""
    capacity: float = 1.0
    state: MemberState = "up"
    feature_level: int = 1


FILLS_MAX = 256
"""Replicas on their way of which a member tells with a heartbeat."""


@dataclass(frozen=True, slots=True)
class Fill:
    """How far a replica is that joins, or how much of one that splits is in its halves: told by its node, for people.

    ``session``: of the move or the split. ``waits_for``: what keeps it, if anything does.
    """

    collection_uuid: str
    shard_id: int
    session: int
    rows_done: int = 0
    rows_total: int = 0
    bytes_done: int = 0
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class ReplicaPlace:
    """One replica of a shard: on which data node, and what it counts for.

    ``session``: the revision at which a move made it, 0 when it is as old as the collection. Another session is another
    replica, with a folder of its own: what is meant for one never reaches the other.
    """

    node_id: str
    state: ReplicaState = "active"
    session: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """A replica of a shard that is on its way (P14): ``target`` joins, and ``source`` leaves.

    They are the same where one that is lost is made anew in its place. ``session`` is the revision at which it began.
    While it is *filling* the target receives every write and what the others have, and nobody reads it; while it is
    *switching* reads take a quorum of the old members and one of the new. The shard's epoch changes with the stage.

    ``quorums`` that differ from those in force make it a change of the replication: one replica joins, or one leaves,
    or none does; the other name is empty. Where none joins those that stay take what is acknowledged from each other,
    and ``ready`` are those that have it.
    """

    session: int
    source: str
    target: str
    stage: MoveStage = "filling"
    quorums: Quorums | None = None
    ready: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """A shard on its way to become two: ``low_id`` owns what lies below ``at`` on the ring, ``high_id`` the rest.

    ``session`` is the revision at which it began, and the session of both halves' replicas. ``ready``: the nodes whose
    halves hold everything. ``repaired_through``: that of the shard, of which nothing more is proven before the
    end; every half that is ready has noted it.
    """

    session: int
    at: int
    low_id: int
    high_id: int
    ready: tuple[str, ...] = ()
    repaired_through: int = 0


@dataclass(frozen=True, slots=True)
class Merge:
    """Two neighbouring shards of the same nodes on their way to become one, ``into_id``; both carry the same value.

    ``session`` is the revision at which it began, and the session of the joint replicas. ``ready``: the nodes whose
    joint replica holds everything. ``repaired_through`` and ``gc_floor`` are those of the joint shard: nothing more is
    proven of either, and no deletion forgotten, before the end; every joint replica that is ready has noted the first.
    """

    session: int
    low_id: int
    high_id: int
    into_id: int
    ready: tuple[str, ...] = ()
    repaired_through: int = 0
    gc_floor: int = 0


SIZES_MAX = 256
"""Replicas of whose size a member tells with a heartbeat."""


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """What clients' calls cost a replica lately, in processors: seconds of processor time a second.

    ``total`` is all of it, ``divides`` what two halves would share: of a search each of them does the whole again.
    Cut at the place ``cut`` of the ring, the half with less to do would have ``lesser`` of it; 0: not known.
    """

    total: float = 0.0
    divides: float = 0.0
    cut: int = 0
    lesser: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplicaSize:
    """How large a replica is: live points, and bytes of its folder; and its load, None where that is not known yet."""

    collection_uuid: str
    shard_id: int
    rows: int = 0
    size: int = 0
    load: ReplicaLoad | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """A range ``[low, high)`` of the hash ring.

    ``epoch`` is the revision of the shard's last change, ``fence`` that of the last one after which other replicas
    count: calls under an epoch below it are refused (P15). ``repaired_through``: all replicas were found equal up to
    this stamp (P12). ``gc_floor``: deletions at or below it may be forgotten (P13). These two leave the epoch alone.
    ``split``: it becomes two; ``merge``: one with its neighbour. Other members end either, and a shard of which one
    goes on has all its replicas active.
    ``copied_fence``: in a catalog that was restored from a copy, the fence that the copy knew; a replica that knows a
    newer one of the lost catalog's served other members since.
    ``quorums``: those in force as long as the collection's, which were asked for since, are not; else None.
    """

    shard_id: int
    low: int
    high: int
    epoch: int
    replicas: tuple[ReplicaPlace, ...]
    gc_floor: int = 0
    repaired_through: int = 0
    move: Move | None = None
    fence: int = 0
    split: Split | None = None
    copied_fence: int = 0
    quorums: Quorums | None = None
    merge: Merge | None = None

    @property
    def recut(self) -> Split | Merge | None:
        """What gives its range to other shards, if anything does."""
        return self.split or self.merge

    @property
    def old(self) -> frozenset[str]:
        """The members that count as long as nothing has moved."""
        return frozenset(self.nodes("active", "leaving"))

    @property
    def new(self) -> frozenset[str] | None:
        """The members that will count when what moves has arrived; None when nothing moves."""
        joining = self.nodes("joining")
        return frozenset((*self.nodes("active"), *joining)) if joining or self.move is not None else None

    @property
    def switching(self) -> bool:
        """Whether reads take a quorum of both."""
        return self.move is not None and self.move.stage == "switching"

    @property
    def voters(self) -> object:
        """Who counts, and for what: the members, each as the replica that it is now, and whether reads take both sets.

        Equal for two shards when calls under the one may be counted together with calls under the other.
        """
        return frozenset((r.node_id, r.session) for r in self.replicas if r.state in SERVED), self.switching

    def changed(self, revision: int, replicas: tuple[ReplicaPlace, ...], move: Move | None) -> Shard:
        """The shard with other replicas as of ``revision``; its fence rises when others count. Nothing cuts it anew."""
        later = replace(self, replicas=replicas, move=move, split=None, merge=None, epoch=revision)
        return later if later.voters == self.voters else replace(later, fence=revision)

    def nodes(self, *states: ReplicaState) -> tuple[str, ...]:
        """Ids of the data nodes whose replica is in one of ``states``."""
        return tuple(r.node_id for r in self.replicas if r.state in states)


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection as the cluster knows it. ``shards`` are ordered by ``low`` and cover the ring.

    ``replication`` and the quorums are those that were asked for last; a shard that is not there yet has its own.
    ``partition_key``: the payload key that routes a point; None routes by id. ``restored``: the revision at which it
    was restored from a copy of the catalog, 0 for one that was made since: replicas from before that revision are
    there or lost, and never made. ``shards_least``: to so few shards do merges by themselves go, those that there
    were before splits made more of them; 0 where it is not known that any did.
    """

    name: str
    schema: CollectionSchema
    shards: tuple[Shard, ...]
    replication: int
    write_quorum: int
    read_quorum: int
    partition_key: str | None = None
    revision: int = 0
    restored: int = 0
    shards_least: int = 0

    @property
    def wished(self) -> Quorums:
        """The replication and the quorums that were asked for last."""
        return Quorums(self.replication, self.write_quorum, self.read_quorum)

    def quorums(self, shard: Shard) -> Quorums:
        """Those in force for a shard: how many of its old members count."""
        return shard.quorums or self.wished

    def quorums_after(self, shard: Shard) -> Quorums | None:
        """Those that count of its new members; None when nothing moves."""
        if shard.move is None:
            return None
        return shard.move.quorums or self.quorums(shard)

    def shard(self, shard_id: int) -> Shard:
        """The shard of that number; NotFoundError when there is none."""
        for shard in self.shards:
            if shard.shard_id == shard_id:
                return shard
        raise NotFoundError(f"no shard {shard_id}", field=self.name)


@dataclass(frozen=True, slots=True)
class Topology:
    """The whole catalog at one revision. ``aliases`` map a name to a collection's name.

    ``moves_paused``: no move begins, and replicas that join are not filled. ``restored``: the revision with which the
    catalog was last restored from a copy, 0 when it never was.
    """

    cluster_id: str
    revision: int = 0
    collections: Mapping[str, CollectionInfo] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, Member] = field(default_factory=dict)
    feature_level: int = 1
    moves_paused: bool = False
    restored: int = 0

    def find(self, name: str) -> CollectionInfo | None:
        """The collection of that name or alias, or None."""
        return self.collections.get(self.aliases.get(name, name))

    def collection(self, name: str) -> CollectionInfo:
        """The collection of that name or alias; NotFoundError when there is none."""
        found = self.find(name)
        if found is None:
            raise NotFoundError(f"no collection {name!r}", field="collection", mend="create it first")
        return found

    def by_uuid(self, uuid: str) -> CollectionInfo | None:
        """The collection of that uuid, whatever it is called now."""
        return next((c for c in self.collections.values() if c.schema.uuid == uuid), None)

    def to_json(self) -> dict[str, Any]:
        """A JSON value that :meth:`from_json` reads back; the same for equal topologies."""
        return {
            "format": TOPOLOGY_FORMAT,
            "cluster_id": self.cluster_id,
            "revision": self.revision,
            "feature_level": self.feature_level,
            "collections": [collection_to_json(c) for _, c in sorted(self.collections.items())],
            "aliases": dict(self.aliases),
            "members": [member_to_json(m) for _, m in sorted(self.members.items())],
            **({"moves_paused": True} if self.moves_paused else {}),
            **({"restored": self.restored} if self.restored else {}),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Topology:
        """Read what :meth:`to_json` wrote; FormatVersionError when a newer release wrote it."""
        if int(value["format"]) > TOPOLOGY_FORMAT:
            raise FormatVersionError(
                f"topology format {value['format']}",
                field="topology",
                bound=f"at most {TOPOLOGY_FORMAT}",
                mend="upgrade omendb",
            )
        collections = [collection_from_json(c) for c in value["collections"]]
        members = [member_from_json(m) for m in value["members"]]
        return Topology(
            str(value["cluster_id"]),
            int(value["revision"]),
            {c.name: c for c in collections},
            dict(value["aliases"]),
            {m.node_id: m for m in members},
            int(value["feature_level"]),
            bool(value.get("moves_paused", False)),
            int(value.get("restored", 0)),
        )


def member_to_json(member: Member) -> dict[str, Any]:
    """A JSON value of a member."""
    return _fields(member)


def _fields(value: Member | Split | Merge) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _quorums_to_json(quorums: Quorums) -> list[int]:
    return [quorums.replication, quorums.write, quorums.read]


def _quorums_from_json(value: Any) -> Quorums | None:
    return None if value is None else Quorums(*map(int, value))


def _move_to_json(move: Move) -> dict[str, Any]:
    told: dict[str, Any] = {name: getattr(move, name) for name in ("session", "source", "target", "stage")}
    if move.quorums is None:
        return told
    return {**told, "quorums": _quorums_to_json(move.quorums), "ready": list(move.ready)}


def _replica_to_json(replica: ReplicaPlace) -> dict[str, Any]:
    told: dict[str, Any] = {"node_id": replica.node_id, "state": replica.state}
    return told if not replica.session else {**told, "session": replica.session}


def _replica_from_json(value: Mapping[str, Any]) -> ReplicaPlace:
    return ReplicaPlace(str(value["node_id"]), cast(ReplicaState, value["state"]), int(value.get("session", 0)))


def _move_from_json(value: Mapping[str, Any] | None) -> Move | None:
    if value is None:
        return None
    return Move(
        int(value["session"]),
        str(value["source"]),
        str(value["target"]),
        cast(MoveStage, value["stage"]),
        _quorums_from_json(value.get("quorums")),
        tuple(map(str, value.get("ready", ()))),
    )


def _split_from_json(value: Mapping[str, Any] | None) -> Split | None:
    if value is None:
        return None
    session, at, low_id, high_id = (int(value[name]) for name in ("session", "at", "low_id", "high_id"))
    return Split(session, at, low_id, high_id, tuple(map(str, value["ready"])), int(value["repaired_through"]))


def _recut_to_json(value: Split | Merge) -> dict[str, Any]:
    return {**_fields(value), "ready": list(value.ready)}


def _merge_from_json(value: Mapping[str, Any] | None) -> Merge | None:
    if value is None:
        return None
    session, low_id, high_id, into_id = (int(value[name]) for name in ("session", "low_id", "high_id", "into_id"))
    floors = int(value["repaired_through"]), int(value["gc_floor"])
    return Merge(session, low_id, high_id, into_id, tuple(map(str, value["ready"])), *floors)


def member_from_json(value: Mapping[str, Any]) -> Member:
    """Read what :func:`member_to_json` wrote; unknown keys, of a newer release, are passed over."""
    return Member(**{name: value[name] for name in Member.__dataclass_fields__ if name in value})


def collection_to_json(info: CollectionInfo) -> dict[str, Any]:
    """A JSON value of a collection."""
    return {
        "name": info.name,
        "schema": info.schema.to_json(),
        "shards": [
            {
                "shard_id": s.shard_id,
                "low": s.low,
                "high": s.high,
                "epoch": s.epoch,
                "gc_floor": s.gc_floor,
                "repaired_through": s.repaired_through,
                "replicas": [_replica_to_json(r) for r in s.replicas],
                **({} if s.move is None else {"move": _move_to_json(s.move)}),
                **({"fence": s.fence} if s.fence else {}),
                **({} if s.split is None else {"split": _recut_to_json(s.split)}),
                **({} if s.merge is None else {"merge": _recut_to_json(s.merge)}),
                **({"copied_fence": s.copied_fence} if s.copied_fence else {}),
                **({} if s.quorums is None else {"quorums": _quorums_to_json(s.quorums)}),
            }
            for s in info.shards
        ],
        "replication": info.replication,
        "write_quorum": info.write_quorum,
        "read_quorum": info.read_quorum,
        "partition_key": info.partition_key,
        "revision": info.revision,
        **({"restored": info.restored} if info.restored else {}),
        **({"shards_least": info.shards_least} if info.shards_least else {}),
    }


def collection_from_json(value: Mapping[str, Any]) -> CollectionInfo:
    """Read what :func:`collection_to_json` wrote."""
    shards = tuple(
        Shard(
            int(s["shard_id"]),
            int(s["low"]),
            int(s["high"]),
            int(s["epoch"]),
            tuple(map(_replica_from_json, s["replicas"])),
            int(s["gc_floor"]),
            int(s.get("repaired_through", 0)),
            _move_from_json(s.get("move")),
            int(s.get("fence", 0)),
            _split_from_json(s.get("split")),
            int(s.get("copied_fence", 0)),
            _quorums_from_json(s.get("quorums")),
            _merge_from_json(s.get("merge")),
        )
        for s in value["shards"]
    )
    return CollectionInfo(
        str(value["name"]),
        CollectionSchema.from_json(value["schema"]),
        shards,
        int(value["replication"]),
        int(value["write_quorum"]),
        int(value["read_quorum"]),
        value["partition_key"],
        int(value["revision"]),
        int(value.get("restored", 0)),
        int(value.get("shards_least", 0)),
    )


__all__ = [
    "FILLS_MAX",
    "SERVED",
    "SIZES_MAX",
    "TOPOLOGY_FORMAT",
    "CollectionInfo",
    "Fill",
    "Member",
    "MemberState",
    "Merge",
    "Move",
    "MoveStage",
    "ReplicaLoad",
    "ReplicaPlace",
    "ReplicaSize",
    "ReplicaState",
    "Role",
    "Shard",
    "Split",
    "Topology",
    "collection_from_json",
    "collection_to_json",
    "member_from_json",
    "member_to_json",
]
