"""Changes to what is known of how equal replicas are: pure functions as those of ``collection_changes``.

What is told was found under a map. Only where the shard still stands under that map it counts: another replica may have
come since, which nobody looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from omendb_common.errors import InvalidArgumentError
from omendb_common.hlc import STAMP_MAX
from omendb_common.metadata import RepairedShard
from omendb_common.ring import SHARDS_MAX
from omendb_common.topology import CollectionInfo, Shard, Topology
from omendb_coordinator.collection_changes import Args, Change
from omendb_coordinator.commands import text, whole
from omendb_coordinator.state import CatalogState


def note_repaired(state: CatalogState, index: int, args: Args) -> Change:
    """Keep up to which stamps a data node found the replicas of its shards equal; what is older than known is not.

    Deletions that are ``grace`` older than that may be forgotten from now on, where nobody is missing (P13).
    """
    node_id, told, grace = text(args, "node_id"), _told(args), whole(args, "grace")
    topology = state.topology
    changed: dict[str, dict[int, Shard]] = {}
    for one in told:
        info = topology.by_uuid(one.collection_uuid)
        shard = None if info is None else _shard(info, one.shard_id)
        if info is not None and shard is not None and gains(shard, node_id, one):
            floor = max(shard.gc_floor, one.through - grace) if _all_up(topology, shard) else shard.gc_floor
            changed.setdefault(info.name, {})[one.shard_id] = replace(
                shard, repaired_through=one.through, gc_floor=floor
            )
    if changed:
        topology = _with(topology, index, changed)
        state = replace(state, topology=topology)
    return state, {"revision": topology.revision}


def gains(shard: Shard, node_id: str, told: RepairedShard, step: int = 1) -> bool:
    """Whether it is news, by at least ``step``, from a replica of the shard as it is now, all of them active."""
    return (
        shard.epoch == told.epoch
        and node_id in shard.nodes("active")
        and len(shard.nodes("active")) == len(shard.replicas)
        and shard.move is None
        and shard.recut is None
        and told.through >= shard.repaired_through + step
    )


def _all_up(topology: Topology, shard: Shard) -> bool:
    """Whether nobody is away who may come back with what is to be forgotten."""
    members = map(topology.members.get, shard.nodes("active"))
    return all(member is not None and member.state == "up" for member in members)


def _shard(info: CollectionInfo, shard_id: int) -> Shard | None:
    return next((shard for shard in info.shards if shard.shard_id == shard_id), None)


def _with(topology: Topology, index: int, changed: Mapping[str, Mapping[int, Shard]]) -> Topology:
    """Other shards of some collections, under the same epochs."""
    collections = dict(topology.collections)
    for name, shards in changed.items():
        info = collections[name]
        kept = tuple(shards.get(shard.shard_id, shard) for shard in info.shards)
        collections[name] = replace(info, shards=kept, revision=index)
    return replace(topology, revision=index, collections=collections)


def _told(args: Args) -> list[RepairedShard]:
    value = args.get("shards")
    if not isinstance(value, list) or not 1 <= len(value) <= SHARDS_MAX:
        raise InvalidArgumentError("no list, or too long a one", field="shards", bound=f"1..{SHARDS_MAX} shards")
    return [_one(item) for item in value]


def _one(item: Any) -> RepairedShard:
    if isinstance(item, list) and len(item) == 4 and isinstance(item[0], str):
        numbers = [n for n in item[1:] if type(n) is int and 0 <= n <= STAMP_MAX]
        if len(numbers) == 3:
            return RepairedShard(item[0], *numbers)
    raise InvalidArgumentError(f"got {item!r}", field="shards", bound="[uuid, shard, epoch, stamp]")


__all__ = ["gains", "note_repaired"]
