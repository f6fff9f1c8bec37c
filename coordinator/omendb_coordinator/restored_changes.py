"""The catalog of a lost group, as a new group begins with it: pure functions as those of ``collection_changes``.

A copy is older than the loss. Whatever the lost group may have done in between must not be undone in silence, nor done
a second time:

- **Revisions, epochs and fences** begin far above every one that it can have reached, so that nothing is older than
  what a data node or a router has seen.
- **Members of shards** may have changed. The copy's fence stays beside every shard: a replica that knows a newer one of
  the lost group's does not serve until an operator accepts the copy's members.
- **Replicas** that the copy names and a node has not were let go, moved or dropped: they are lost and not made anew
  empty; those that a node has and the copy does not name are kept.
- **Moves, splits and merges** that were under way are given up: the members from before hold everything.
- **Stamps**: origins whose lease was in force are nobody's until every lease of the lost group has ended, and other
  origins are leased from the other end.
- **Automatic ids** go on beyond all that the lost group can have given out.
- **Members** that hold nothing, routers and coordinators, come by themselves.
"""

from __future__ import annotations

from dataclasses import replace

from omendb_common.errors import InvalidArgumentError, NotFoundError
from omendb_common.hlc import stamp_at
from omendb_common.metadata import AUTO_ID_STOP
from omendb_common.topology import CollectionInfo, Shard
from omendb_coordinator.collection_changes import Args, Change, with_shards
from omendb_coordinator.commands import text
from omendb_coordinator.move_changes import places_without_move
from omendb_coordinator.state import CatalogState, Origin

LEVEL = 2
"""The feature level that processes need to live with a restored catalog; its cluster is finalised there."""

LEASE_MS_MAX = 86_400_000 + 60_000
"""No lease reaches further ahead than a router may ask for, and a minute."""

AUTO_IDS_PASSED = 1 << 43
"""So many automatic ids are passed over: those of 131,072 starts of routers since the copy was taken."""

_COUNT_BITS = 10


def revision_at(wall_ms: int, before: int) -> int:
    """The first revision of a catalog that is restored now; ``before``: with which the copy's was restored, or 0.

    A thousand revisions for every millisecond since 1970: no group makes so many changes, so whatever is restored later
    is above whatever was restored earlier. The last bits count how often it was.
    """
    return wall_ms << _COUNT_BITS | (restorations(before) + 1) % (1 << _COUNT_BITS)


def restorations(restored: int) -> int:
    """How often a catalog was restored whose last revision of that kind is given."""
    return restored % (1 << _COUNT_BITS)


def restore(state: CatalogState, taken_ms: int, now_ms: int) -> CatalogState:
    """What a new group begins with, from a copy that was taken at ``taken_ms``.

    Raises:
        InvalidArgumentError: it is not later now than in the copy, or there are no automatic ids left to pass over.
    """
    topology = state.topology
    revision = revision_at(now_ms, topology.restored)
    if now_ms < taken_ms or revision <= topology.revision:
        raise InvalidArgumentError(
            f"this clock is {taken_ms - now_ms} ms behind that of the copy", field="clock", mend="set the clock"
        )
    if state.auto_id_next + AUTO_IDS_PASSED > AUTO_ID_STOP:
        raise InvalidArgumentError("no automatic ids are left to pass over", field="auto_ids")
    restored = replace(
        topology,
        revision=revision,
        restored=revision,
        feature_level=max(topology.feature_level, LEVEL),
        collections={name: _collection(info, revision) for name, info in topology.collections.items()},
        members={n: m for n, m in topology.members.items() if m.role == "datanode"},
    )
    return replace(
        state,
        topology=restored,
        origins={number: _origin(one, taken_ms, now_ms) for number, one in state.origins.items()},
        auto_id_next=state.auto_id_next + AUTO_IDS_PASSED,
        members_revision=revision,
    )


def _collection(info: CollectionInfo, revision: int) -> CollectionInfo:
    shards = tuple(_shard(shard, revision) for shard in info.shards)
    return replace(info, shards=shards, revision=revision, restored=revision)


def _shard(shard: Shard, revision: int) -> Shard:
    return replace(
        shard,
        replicas=places_without_move(shard),
        move=None,
        split=None,
        merge=None,
        epoch=revision,
        fence=revision,
        copied_fence=shard.fence,
    )


def _origin(lease: Origin, taken_ms: int, now_ms: int) -> Origin:
    """Nobody's; not leased again before it is certainly over."""
    over = lease.stamp_bound < stamp_at(taken_ms)
    bound = lease.stamp_bound if over else max(lease.stamp_bound, stamp_at(now_ms + LEASE_MS_MAX))
    return replace(lease, holder="", stamp_bound=bound)


def accept_restored(state: CatalogState, index: int, args: Args) -> Change:
    """Let a collection be served by the members that the copy names, although they had changed after it was taken."""
    info = state.topology.find(text(args, "collection"))
    if info is None:
        raise NotFoundError(f"no collection {args['collection']!r}", field="collection")
    if not info.restored:
        raise InvalidArgumentError(f"{info.name!r} was not restored from a copy", field="collection")
    answer = {"uuid": info.schema.uuid, "revision": index}
    shards = {
        s.shard_id: replace(s, epoch=index, fence=index, copied_fence=info.restored)
        for s in info.shards
        if s.copied_fence != info.restored
    }
    return (with_shards(state, index, info, shards) if shards else state), answer


__all__ = [
    "AUTO_IDS_PASSED",
    "LEASE_MS_MAX",
    "LEVEL",
    "accept_restored",
    "restorations",
    "restore",
    "revision_at",
]
