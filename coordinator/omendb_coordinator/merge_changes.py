"""Changes by which two neighbouring shards become one: pure functions as those of ``collection_changes``.

::

    begin_merge      every node of both makes a joint replica beside theirs, and keeps it like them
    advance_merge    a node's joint replica holds everything; with the last one the joint shard takes their place
    cancel_merge     the two go on as they are

The mirror of a split. Both serve as before, under their own fences. The end is one change: whoever answers for the
joint shard raised its fence to that revision and ended the writes that it had let into either of the two before.

Of the joint shard deletions count as forgotten up to the higher of both floors: below the lower one what comes late
would be taken by replicas that have forgotten. Where both were found equal far enough beyond the higher one, that is
the promise of every floor (P13).
"""

from __future__ import annotations

from dataclasses import replace

from omendb_common.errors import InvalidArgumentError, NotFoundError
from omendb_common.topology import CollectionInfo, Merge, ReplicaPlace, Shard
from omendb_coordinator.collection_changes import Args, Change, next_number, shard_at, with_others, with_shards
from omendb_coordinator.commands import text, whole
from omendb_coordinator.state import CatalogState


def begin_merge(state: CatalogState, index: int, args: Args) -> Change:
    """Begin to put a shard and its neighbour ``other_id`` together; both were looked at.

    ``margin``: so far beyond the joint floor both must be known to be equal, where their floors differ.
    """
    info, shard = shard_at(state, args)
    second = {**args, "shard_id": args.get("other_id"), "epoch": args.get("other_epoch")}
    _, other = shard_at(state, second)
    low, high = sorted((shard, other), key=lambda s: s.low)
    problem = unfit(info, low, high, whole(args, "margin"))
    if problem:
        raise InvalidArgumentError(problem, field="shard_id, other_id", bound=_BOUND, mend=_MEND)
    through, floor = floors(low, high)
    merge = Merge(index, low.shard_id, high.shard_id, next_number(info), (), through, floor)
    return _changed(state, index, info, *(replace(one, merge=merge, epoch=index) for one in (low, high)))


_BOUND = "neighbours with the same nodes, all active, of which nothing is on its way"
_MEND = "move their replicas together, or have them compared by `omendb cluster repair`"


def floors(low: Shard, high: Shard) -> tuple[int, int]:
    """Up to where the joint replicas are known to be equal, and up to where deletions are forgotten."""
    return min(low.repaired_through, high.repaired_through), max(low.gc_floor, high.gc_floor)


def unfit(info: CollectionInfo, low: Shard, high: Shard, margin: int) -> str:
    """Why two shards cannot become one now; empty when they can."""
    if low.high != high.low or low is high:
        return "they are no neighbours"
    if info.partition_key is not None:
        # A split left tombstones in each half, under the stamps of the other half's points (P14).
        return "the collection has a partition key"
    for one in (low, high):
        if one.recut is not None or one.move is not None:
            return f"shard {one.shard_id} moves, splits or merges"
        if len(one.nodes("active")) != len(one.replicas):
            return f"not all replicas of shard {one.shard_id} are active"
    nodes = [", ".join(sorted(one.nodes("active"))) for one in (low, high)]
    if nodes[0] != nodes[1]:
        return f"one is on {nodes[0]}, the other on {nodes[1]}"
    if info.quorums(low) != info.quorums(high):
        return "one of them is on its way to other quorums"
    through, floor = floors(low, high)
    if low.gc_floor != high.gc_floor and floor + margin > through:
        return f"their replicas are known to be equal through {through} only, and deletions up to {floor} are forgotten"
    return ""


def advance_merge(state: CatalogState, index: int, args: Args) -> Change:
    """A node says that its joint replica is whole. The epochs stay until the last one has said so."""
    info, low, high, merge = _under_way(state, args)
    node_id = text(args, "node_id")
    if node_id not in low.nodes("active"):
        raise InvalidArgumentError(f"{node_id!r} has no active replica", field="node_id")
    ready = tuple(sorted({*merge.ready, node_id}))
    if set(ready) >= {r.node_id for r in low.replicas}:
        least = min(info.shards_least, len(info.shards) - 1)
        info, joint = replace(info, shards_least=least), _joint(low, high, merge, index)
        answer = {"uuid": info.schema.uuid, "revision": index}
        return with_others(state, index, info, (low.shard_id, high.shard_id), (joint,)), answer
    if ready == merge.ready:
        return state, {"uuid": info.schema.uuid, "revision": state.topology.revision}
    return _changed(state, index, info, *(replace(one, merge=replace(merge, ready=ready)) for one in (low, high)))


def cancel_merge(state: CatalogState, index: int, args: Args) -> Change:
    """Let the two shards go on as they are; either of them may be named."""
    info, low, high, _ = _under_way(state, args)
    return _changed(state, index, info, *(replace(one, merge=None, epoch=index) for one in (low, high)))


def _joint(low: Shard, high: Shard, merge: Merge, index: int) -> Shard:
    """The shard that takes the place of both: on their nodes, and nobody else's calls count."""
    replicas = tuple(ReplicaPlace(r.node_id, "active", merge.session) for r in low.replicas)
    return Shard(
        *(merge.into_id, low.low, high.high, index, replicas, merge.gc_floor, merge.repaired_through),
        fence=index,
        quorums=low.quorums,
    )


def _under_way(state: CatalogState, args: Args) -> tuple[CollectionInfo, Shard, Shard, Merge]:
    info, shard = shard_at(state, args)
    merge = shard.merge
    if merge is None:
        raise NotFoundError(f"shard {shard.shard_id} does not merge", field="merge")
    return info, info.shard(merge.low_id), info.shard(merge.high_id), merge


def _changed(state: CatalogState, index: int, info: CollectionInfo, *shards: Shard) -> Change:
    answer = {"uuid": info.schema.uuid, "revision": index}
    return with_shards(state, index, info, {one.shard_id: one for one in shards}), answer


__all__ = ["advance_merge", "begin_merge", "cancel_merge", "floors", "unfit"]
