"""Changes to collections, shard maps and aliases: pure functions from a state to the next.

Each takes the state, the index of its command and the arguments, and returns the next state and the answer, or raises
the error that the proposer is to see, in which case nothing has changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, cast, get_args

from omendb_common.errors import (
    AlreadyExistsError,
    FormatVersionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
from omendb_common.quorum import REPLICATION_MAX, Quorums, check_quorums, majority
from omendb_common.ring import even_bounds
from omendb_common.schema import CollectionSchema, check_collection_name
from omendb_common.topology import CollectionInfo, ReplicaPlace, ReplicaState, Shard, Topology
from omendb_coordinator.commands import ConflictError, optional_text, text, whole
from omendb_coordinator.state import ALIASES_MAX, COLLECTIONS_MAX, CatalogState

Args = Mapping[str, Any]
Change = tuple[CatalogState, Any]

PARTITION_KEY_CHARS_MAX = 255


def create_collection(state: CatalogState, index: int, args: Args) -> Change:
    """Make a collection whose shards the proposer has placed, if the members are still those it looked at."""
    topology = state.topology
    name = _free_name(topology, text(args, "name"))
    if len(topology.collections) >= COLLECTIONS_MAX:
        raise ResourceExhaustedError(f"there are {COLLECTIONS_MAX} collections", mend="drop some", retry_after=60.0)
    if whole(args, "members_revision") != state.members_revision:
        raise ConflictError("the members have changed since the placement", field="members_revision")
    replication, write_quorum, read_quorum = (whole(args, n) for n in ("replication", "write_quorum", "read_quorum"))
    check_quorums(replication, write_quorum, read_quorum)
    info = CollectionInfo(
        name,
        replace(_schema(args), uuid=text(args, "uuid")),
        _shards(state, index, args, replication),
        replication,
        write_quorum,
        read_quorum,
        _partition_key(args),
        index,
    )
    return _with_collection(state, index, info), {"uuid": info.schema.uuid, "revision": index}


def _free_name(topology: Topology, name: str) -> str:
    check_collection_name(name)
    if name in topology.collections:
        raise AlreadyExistsError(f"collection {name!r} exists", field="collection", mend="use another name, or drop it")
    if name in topology.aliases:
        raise AlreadyExistsError(f"{name!r} is an alias", field="collection", mend="use another name, or remove it")
    return name


def _schema(args: Args) -> CollectionSchema:
    value = args.get("schema")
    try:
        return CollectionSchema.from_json(cast(Mapping[str, Any], value))
    except FormatVersionError:
        raise
    except (KeyError, TypeError, ValueError) as problem:
        raise InvalidArgumentError(f"no schema: {type(problem).__name__}", field="schema") from None


def _partition_key(args: Args) -> str | None:
    key = optional_text(args, "partition_key")
    if key is not None and not 1 <= len(key) <= PARTITION_KEY_CHARS_MAX:
        raise InvalidArgumentError(
            "bad length", field="partition_key", bound=f"1..{PARTITION_KEY_CHARS_MAX} characters"
        )
    return key


def _shards(state: CatalogState, index: int, args: Args, replication: int) -> tuple[Shard, ...]:
    nodes, places = args.get("nodes"), args.get("places")
    if not isinstance(nodes, list) or not isinstance(places, list):
        raise InvalidArgumentError("not lists", field="places")
    for node_id in nodes:
        _data_node(state, node_id)
    shards = []
    for number, ((low, high), place) in enumerate(zip(even_bounds(len(places)), places, strict=True)):
        fits = isinstance(place, list) and all(type(p) is int and 0 <= p < len(nodes) for p in place)
        if not fits or not len(place) == len(set(place)) == replication:
            raise InvalidArgumentError(
                f"got {place!r}", field="places", bound=f"{replication} different positions below {len(nodes)}"
            )
        shards.append(Shard(number, low, high, index, tuple(ReplicaPlace(nodes[p]) for p in place)))
    return tuple(shards)


def _data_node(state: CatalogState, node_id: Any) -> str:
    member = state.topology.members.get(node_id) if isinstance(node_id, str) else None
    if member is None or member.role != "datanode":
        raise NotFoundError(f"no data node {node_id!r}", field="nodes")
    return member.node_id


def alter_collection(state: CatalogState, index: int, args: Args) -> Change:
    """Change quorums and options; what is null or missing stays. ``options``: null as a value removes one.

    Quorums that are changed here are in force at once. The first release proposed that: a read may miss a write.
    """
    info = _named(state.topology, text(args, "name"))
    write_quorum, read_quorum = (
        before if args.get(n) is None else whole(args, n)
        for n, before in (("write_quorum", info.write_quorum), ("read_quorum", info.read_quorum))
    )
    check_quorums(info.replication, write_quorum, read_quorum)
    changed = replace(_with_options(info, args), write_quorum=write_quorum, read_quorum=read_quorum)
    if changed != info:
        state = _with_collection(state, index, replace(changed, revision=index))
    return state, {"uuid": info.schema.uuid, "revision": state.topology.revision}


def reshape_collection(state: CatalogState, index: int, args: Args) -> Change:
    """Ask for another replication and other quorums, and change options as ``alter_collection`` does.

    Each shard goes there from the numbers that are in force for it (``resize_changes``).
    """
    info = _named(state.topology, text(args, "name"))
    wished = _wished(state, info, args)
    n, write_quorum, read_quorum = wished.replication, wished.write, wished.read
    changed = _with_options(info, args)
    changed = replace(changed, replication=n, write_quorum=write_quorum, read_quorum=read_quorum)
    changed = replace(changed, shards=tuple(with_quorums(changed, s, info.quorums(s)) for s in info.shards))
    if changed != info:
        state = _with_collection(state, index, replace(changed, revision=index))
    return state, {"uuid": info.schema.uuid, "revision": state.topology.revision}


def _with_options(info: CollectionInfo, args: Args) -> CollectionInfo:
    changes = args.get("options") or {}
    if not isinstance(changes, dict):
        raise InvalidArgumentError(f"got {changes!r}", field="options", bound="a JSON object")
    options = {name: v for name, v in {**info.schema.options, **changes}.items() if v is not None}
    schema = info.schema
    if options == dict(schema.options):
        return info
    return replace(info, schema=replace(schema, options=options, version=schema.version + 1))


def _wished(state: CatalogState, info: CollectionInfo, args: Args) -> Quorums:
    """The numbers that are asked for; a quorum that was a majority, or all, of the replicas stays that."""
    n = info.replication if args.get("replication") is None else whole(args, "replication")
    members = state.topology.members.values()
    nodes = sum(m.role == "datanode" and m.state != "left" and m.node_id not in state.draining for m in members)
    if n > info.replication and not 1 <= n <= min(nodes, REPLICATION_MAX):
        raise InvalidArgumentError(
            f"got {n}",
            field="replication",
            bound=f"1..{max(1, min(nodes, REPLICATION_MAX))}",
            mend=f"at most {REPLICATION_MAX}, and one data node that takes new shards for each",
        )

    def asked(name: str, before: int) -> int:
        if args.get(name) is not None:
            return whole(args, name)
        if n == info.replication:
            return before
        if before == majority(info.replication):
            return majority(n)
        return n if before == info.replication else before

    wished = Quorums(n, asked("write_quorum", info.write_quorum), asked("read_quorum", info.read_quorum))
    wished.check()
    return wished


def with_quorums(info: CollectionInfo, shard: Shard, in_force: Quorums) -> Shard:
    """The shard with the numbers that are in force for it; its own only where the collection's are others."""
    return replace(shard, quorums=None if in_force == info.wished else in_force)


def _named(topology: Topology, name: str) -> CollectionInfo:
    """The collection of that very name: what changes or ends a collection does not go through an alias."""
    info = topology.collections.get(name)
    if info is None:
        alias = topology.aliases.get(name)
        mend = "create it first" if alias is None else f"it is an alias of {alias!r}"
        raise NotFoundError(f"no collection {name!r}", field="collection", mend=mend)
    return info


def drop_collection(state: CatalogState, index: int, args: Args) -> Change:
    """Delete a collection, and the aliases that name it."""
    name = text(args, "name")
    _named(state.topology, name)
    collections = {n: c for n, c in state.topology.collections.items() if n != name}
    aliases = {a: target for a, target in state.topology.aliases.items() if target != name}
    topology = replace(state.topology, revision=index, collections=collections, aliases=aliases)
    return replace(state, topology=topology), {"revision": index}


def rename_collection(state: CatalogState, index: int, args: Args) -> Change:
    """Give a collection another name; its aliases follow it."""
    old, new = text(args, "old"), text(args, "new")
    info = _named(state.topology, old)
    if old == new:
        return state, {"revision": state.topology.revision}
    _free_name(state.topology, new)
    renamed = replace(info, name=new, revision=index)
    collections = {c.name: c for c in (renamed if c is info else c for c in state.topology.collections.values())}
    aliases = {a: new if target == old else target for a, target in state.topology.aliases.items()}
    topology = replace(state.topology, revision=index, collections=collections, aliases=aliases)
    return replace(state, topology=topology), {"revision": index}


def set_alias(state: CatalogState, index: int, args: Args) -> Change:
    """Let an alias name a collection, or nothing any more."""
    topology = state.topology
    alias, target = text(args, "alias"), optional_text(args, "collection")
    aliases = dict(topology.aliases)
    if target is None:
        if alias not in aliases:
            raise NotFoundError(f"no alias {alias!r}", field="alias")
        del aliases[alias]
    else:
        check_collection_name(alias)
        if alias in topology.collections:
            raise AlreadyExistsError(f"collection {alias!r} exists", field="alias", mend="use another name")
        _named(topology, target)
        if aliases.get(alias) == target:
            return state, {"revision": topology.revision}
        if alias not in aliases and len(aliases) >= ALIASES_MAX:
            raise ResourceExhaustedError(f"there are {ALIASES_MAX} aliases", mend="remove some", retry_after=60.0)
        aliases[alias] = target
    return replace(state, topology=replace(topology, revision=index, aliases=aliases)), {"revision": index}


def place_shard(state: CatalogState, index: int, args: Args) -> Change:
    """Replace the replicas of a shard, if its epoch is still the one that the proposer looked at.

    A move that is under way is no more. A node that had no replica gets a new one.
    """
    info, shard = shard_at(state, args)
    sessions = {r.node_id: r.session for r in shard.replicas}
    replicas = _replicas(state, args.get("replicas"))
    replicas = tuple(replace(r, session=sessions.get(r.node_id, index)) for r in replicas)
    moved = shard.changed(index, replicas, None)
    return with_shards(state, index, info, {shard.shard_id: moved}), {"uuid": info.schema.uuid, "revision": index}


def shard_at(state: CatalogState, args: Args) -> tuple[CollectionInfo, Shard]:
    """The shard that a command names, as it was when the proposer looked.

    Raises:
        ConflictError: it has changed since.
        NotFoundError: there is none.
    """
    info = state.topology.by_uuid(text(args, "uuid"))
    if info is None:
        raise NotFoundError("no collection of that uuid", field="collection", mend="it was dropped")
    shard = info.shard(whole(args, "shard_id"))
    if shard.epoch != whole(args, "epoch"):
        raise ConflictError(f"the shard is at epoch {shard.epoch}", field="epoch", bound=str(args["epoch"]))
    return info, shard


def _replicas(state: CatalogState, value: Any) -> tuple[ReplicaPlace, ...]:
    replicas = []
    for item in value if isinstance(value, list) else ():
        node_id, replica_state = item if isinstance(item, list) and len(item) == 2 else (None, None)
        if replica_state not in get_args(ReplicaState):
            raise InvalidArgumentError(f"got {replica_state!r}", field="replicas", bound=f"{get_args(ReplicaState)}")
        replicas.append(ReplicaPlace(_data_node(state, node_id), cast(ReplicaState, replica_state)))
    if not replicas or len({r.node_id for r in replicas}) != len(replicas):
        raise InvalidArgumentError("none, or two on one node", field="replicas", bound="one per node, at least one")
    return tuple(replicas)


def with_shards(state: CatalogState, index: int, info: CollectionInfo, changed: Mapping[int, Shard]) -> CatalogState:
    """The state with some shards of a collection replaced."""
    shards = _paired(tuple(changed.get(s.shard_id, s) for s in info.shards), index)
    return _with_collection(state, index, replace(info, shards=shards, revision=index))


def _paired(shards: tuple[Shard, ...], index: int) -> tuple[Shard, ...]:
    """The shards, none of which merges with one that does not any more."""
    partners = Counter(s.merge.session for s in shards if s.merge is not None)
    return tuple(
        replace(s, merge=None, epoch=index) if s.merge is not None and partners[s.merge.session] < 2 else s
        for s in shards
    )


def with_others(
    state: CatalogState, index: int, info: CollectionInfo, gone: Collection[int], come: Collection[Shard]
) -> CatalogState:
    """The state with other shards in the place of some that had the same range."""
    stay = (s for s in info.shards if s.shard_id not in gone)
    shards = tuple(sorted((*stay, *come), key=lambda s: s.low))
    return _with_collection(state, index, replace(info, shards=shards, revision=index))


def next_number(info: CollectionInfo) -> int:
    """The first of the shard numbers that nobody has or is about to have: none is given twice while it is in use.

    A session of its own keeps folders apart after that.
    """
    used = {s.shard_id for s in info.shards}
    used |= {s.split.high_id for s in info.shards if s.split is not None}
    used |= {s.merge.into_id for s in info.shards if s.merge is not None}
    return 1 + max(used)


def _with_collection(state: CatalogState, index: int, info: CollectionInfo) -> CatalogState:
    collections = {**state.topology.collections, info.name: info}
    return replace(state, topology=replace(state.topology, revision=index, collections=collections))


__all__ = [
    "PARTITION_KEY_CHARS_MAX",
    "Args",
    "Change",
    "alter_collection",
    "create_collection",
    "drop_collection",
    "next_number",
    "place_shard",
    "rename_collection",
    "reshape_collection",
    "set_alias",
    "shard_at",
    "with_others",
    "with_quorums",
    "with_shards",
]
