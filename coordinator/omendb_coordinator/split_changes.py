"""Changes by which a shard becomes two: pure functions as those of ``collection_changes``.

::

    begin_split      every node of the shard makes two halves beside its replica, and keeps them like it
    advance_split    a node's halves hold everything; with the last one of them the halves take the shard's place
    cancel_split     the shard goes on as one

While it splits a shard serves as before, under one fence. Its end is one change: whoever answers for a half raised its
fence to that revision and ended the writes that it had let into the whole before.
"""

from __future__ import annotations

from dataclasses import replace

from omendb_common.errors import InvalidArgumentError, NotFoundError
from omendb_common.ring import SHARDS_MAX
from omendb_common.topology import CollectionInfo, ReplicaPlace, Shard, Split
from omendb_coordinator.collection_changes import Args, Change, next_number, shard_at, with_others, with_shards
from omendb_coordinator.commands import text, whole
from omendb_coordinator.state import CatalogState

MERGES = 3
"""From this feature level on it is kept how many shards a collection had before splits: merges go back to that."""


def begin_split(state: CatalogState, index: int, args: Args) -> Change:
    """Begin to cut a shard in two, ``at`` a place of the ring or in the middle; all its replicas must be active."""
    info, shard = shard_at(state, args)
    if shard.recut is not None or shard.move is not None:
        what = "it splits or merges already" if shard.recut is not None else "one of its replicas moves"
        raise InvalidArgumentError(what, field="shard_id", bound="a shard of which nothing is on its way")
    if len(shard.nodes("active")) != len(shard.replicas):
        raise InvalidArgumentError(
            "not all of its replicas are active", field="shard_id", bound="a shard with every replica active"
        )
    splitting = [s.split for s in info.shards if s.split is not None]
    if len(info.shards) + len(splitting) >= SHARDS_MAX:
        raise InvalidArgumentError(f"there are {len(info.shards)}", field="shards", bound=f"at most {SHARDS_MAX}")
    place = (shard.low + shard.high) // 2 if args.get("at") is None else whole(args, "at")
    if not shard.low < place < shard.high:
        raise InvalidArgumentError(f"got {place}", field="at", bound=f"between {shard.low} and {shard.high}")
    free = next_number(info)
    split = Split(index, place, free, free + 1, (), shard.repaired_through)
    return _changed(state, index, info, replace(shard, split=split, epoch=index))


def advance_split(state: CatalogState, index: int, args: Args) -> Change:
    """A node says that its halves are whole. The epoch stays until the last one has said so."""
    info, shard = shard_at(state, args)
    split, node_id = _under_way(shard), text(args, "node_id")
    if node_id not in shard.nodes("active"):
        raise InvalidArgumentError(f"{node_id!r} has no active replica", field="node_id")
    ready = tuple(sorted({*split.ready, node_id}))
    if set(ready) >= {r.node_id for r in shard.replicas}:
        answer = {"uuid": info.schema.uuid, "revision": index}
        begun_with = info.shards_least or len(info.shards)
        if state.topology.feature_level >= MERGES:
            info = replace(info, shards_least=begun_with)
        return with_others(state, index, info, (shard.shard_id,), _halves(shard, split, index)), answer
    if ready == split.ready:
        return state, {"uuid": info.schema.uuid, "revision": state.topology.revision}
    return _changed(state, index, info, replace(shard, split=replace(split, ready=ready)))


def cancel_split(state: CatalogState, index: int, args: Args) -> Change:
    """Let the shard go on as one."""
    info, shard = shard_at(state, args)
    _under_way(shard)
    return _changed(state, index, info, replace(shard, split=None, epoch=index))


def _halves(shard: Shard, split: Split, index: int) -> tuple[Shard, Shard]:
    """The shards that take the place of one: on its nodes, nobody else's calls count, and what was proven stays so."""
    replicas = tuple(ReplicaPlace(r.node_id, "active", split.session) for r in shard.replicas)
    low, high = (
        Shard(
            *(number, start, end, index, replicas, shard.gc_floor, split.repaired_through),
            fence=index,
            quorums=shard.quorums,
        )
        for number, start, end in ((split.low_id, shard.low, split.at), (split.high_id, split.at, shard.high))
    )
    return low, high


def _under_way(shard: Shard) -> Split:
    if shard.split is None:
        raise NotFoundError(f"shard {shard.shard_id} does not split", field="split")
    return shard.split


def _changed(state: CatalogState, index: int, info: CollectionInfo, shard: Shard) -> Change:
    answer = {"uuid": info.schema.uuid, "revision": index}
    return with_shards(state, index, info, {shard.shard_id: shard}), answer


__all__ = ["MERGES", "advance_split", "begin_split", "cancel_split"]
