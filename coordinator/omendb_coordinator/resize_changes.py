"""Changes of how many replicas a collection has and how large its quorums are: pure, as ``collection_changes``.

What is asked for stands in the collection at once. Every shard goes there by itself, in steps, and keeps the numbers
that are in force for it until a step of its own has ended. A step is a move (P14) that changes the numbers too::

    one replica joins     filling, switching     the target takes what the others have, twice
    one replica leaves    switching              those that stay take what is acknowledged from each other
    neither               switching              the same

Why no read misses a write. Let S, N, W, R be the members and numbers before, S', N', W', R' those after.

* While it lasts writes take W of S and W' of S'. So reads of R of S see them (W + R > N), and so do reads of R' of S'.
* While it switches, reads take R of S and R' of S'. So they see writes from before, and those of whoever has seen the
  end already.
* The end comes when enough replicas have compared themselves, under the epoch of the switching, with P members of S,
  P the greatest of N - W + 1, R and N - R + 1. These have raised their fence by then: a write from before, which takes
  W of S, or a read from before, which takes R of S, can no longer be completed. They are so many that every write
  that was acknowledged, and every version that a read has shown, is among what they hold.
* After the end a read takes R' of S'. Where N' - R' + 1 of S' hold all that, it sees it; and where N' - W' + 1 do, so
  does a write, which is then stamped above it (P4): that is asked for where W' is a majority. Where one replica joins,
  the target alone is asked: a write from before is then on W + 1 of N + 1, and as neither quorum shrinks in such a
  step, W + 1 + R' > N + 1. What a read showed is with the target.
* Giving up goes back to R and W of S, which all of the stages have kept to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from omendb_common.errors import InvalidArgumentError, NotFoundError
from omendb_common.quorum import Quorums
from omendb_common.topology import CollectionInfo, Move, ReplicaPlace, Shard
from omendb_coordinator.collection_changes import Args, Change, shard_at, with_shards
from omendb_coordinator.commands import text
from omendb_coordinator.state import CatalogState


def begin_resize(state: CatalogState, index: int, args: Args) -> Change:
    """Begin a step of a shard to other ``quorums``: ``target`` joins, or ``source`` leaves, or neither does."""
    info, shard = shard_at(state, args)
    now, then = info.quorums(shard), _quorums(args.get("quorums"))
    source, target = text(args, "source"), text(args, "target")
    _check_free(shard, now)
    _check_step(info, now, then, source, target)
    # One that leaves for nowhere counts, and stays unless it is the one that goes now.
    places = {r.node_id: replace(r, state="active") for r in shard.replicas}
    if target:
        _check_target(state, target, places)
        places[target] = ReplicaPlace(target, "joining", index)
    if source:
        if source not in places:
            raise NotFoundError(f"no replica on {source!r}", field="source", bound=", ".join(places))
        places[source] = replace(places[source], state="leaving")
    move = Move(index, source, target, "filling" if target else "switching", then)
    begun = shard.changed(index, tuple(places.values()), move)
    return with_shards(state, index, info, {shard.shard_id: begun}), {"uuid": info.schema.uuid, "revision": index}


def _quorums(value: Any) -> Quorums:
    if not isinstance(value, list) or len(value) != 3 or not all(type(n) is int for n in value):
        raise InvalidArgumentError(f"got {value!r}", field="quorums", bound="replication, write and read quorum")
    quorums = Quorums(*value)
    quorums.check()
    return quorums


def _check_free(shard: Shard, now: Quorums) -> None:
    if shard.move is not None or shard.recut is not None:
        what = "it splits or merges" if shard.recut is not None else "one of its replicas moves"
        raise InvalidArgumentError(what, field="shard_id", bound="a shard of which nothing is on its way")
    if not len(shard.old) == len(shard.replicas) == now.replication:
        raise InvalidArgumentError(
            f"{len(shard.old)} of {now.replication} replicas are active",
            field="shard_id",
            bound="a shard with every replica active",
        )


def _check_step(info: CollectionInfo, now: Quorums, then: Quorums, source: str, target: str) -> None:
    """Refuse what would not be one step, or would let a read miss a write that was promised to it."""
    change = bool(target) - bool(source)
    if then == now or (source and target) or then.replication - now.replication != change:
        raise InvalidArgumentError(
            f"got {then} after {now}", field="quorums", bound="one replica more, one less, or as many; other quorums"
        )
    if target and (then.write < now.write or then.read < now.read):
        raise InvalidArgumentError(f"got {then} after {now}", field="quorums", bound="none smaller while one joins")
    if now.meet and info.wished.meet and not then.meet:
        raise InvalidArgumentError(f"got {then}", field="quorums", bound="reads that meet every write")


def _check_target(state: CatalogState, target: str, places: dict[str, ReplicaPlace]) -> None:
    member = state.topology.members.get(target)
    if member is None or member.role != "datanode":
        raise NotFoundError(f"no data node {target!r}", field="target")
    if member.state != "up" or target in places:
        what = f"{target!r} has a replica" if target in places else f"{target!r} is {member.state}"
        raise InvalidArgumentError(what, field="target", bound="a data node that is up, without one")


def enough(then: Quorums) -> int:
    """How many of the new members must hold all that was acknowledged or shown before, where none of them joins."""
    least = then.read if then.write < then.majority else min(then.read, then.write)
    return then.replication - least + 1


__all__ = ["begin_resize", "enough"]
