"""Changes by which a replica moves (P14): pure functions as those of ``collection_changes``.

::

    begin_move      the target joins, the source is leaving     filling     writes to both, reads of the old members
    advance_move    the target has what the others have         switching   writes to both, reads of both
    advance_move    the target has what came in between         (done)      the target is active, the source is gone
    cancel_move     from either stage back to how it was

A step of ``resize_changes`` goes on and ends by the same commands.

Each is a change of the shard's members: data nodes raise their fence to its epoch before they answer under it, so that
a call under the map before cannot be completed any more once a blocking number of them has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from omendb_common.errors import InvalidArgumentError, NotFoundError
from omendb_common.topology import CollectionInfo, Move, ReplicaPlace, ReplicaState, Shard
from omendb_coordinator.collection_changes import Args, Change, shard_at, with_quorums, with_shards
from omendb_coordinator.commands import text
from omendb_coordinator.resize_changes import enough
from omendb_coordinator.state import CatalogState

GONE: tuple[ReplicaState, ...] = ("lost", "corrupt")
"""Replicas that hold nothing that counts: another one may be made in their place, on the same node."""


def begin_move(state: CatalogState, index: int, args: Args) -> Change:
    """Let ``target`` join a shard in the place of ``source``, if the shard's epoch is the one that was looked at."""
    info, shard = shard_at(state, args)
    if shard.move is not None:
        raise InvalidArgumentError(
            f"one to {shard.move.target!r} is under way", field="move", bound="one of a shard at a time"
        )
    if shard.recut is not None:
        raise InvalidArgumentError(
            "the shard splits or merges", field="shard_id", bound="a shard of which nothing is on its way"
        )
    source, target = text(args, "source"), text(args, "target")
    member = state.topology.members.get(target)
    if member is None or member.role != "datanode":
        raise NotFoundError(f"no data node {target!r}", field="target")
    if member.state != "up":
        raise InvalidArgumentError(f"{target!r} is {member.state}", field="target", bound="a data node that is up")
    places = {r.node_id: r for r in shard.replicas}
    if source not in places:
        raise NotFoundError(f"no replica on {source!r}", field="source", bound=", ".join(places))
    there = places.get(target)
    if there is not None and (target != source or there.state not in GONE):
        raise InvalidArgumentError(
            f"{target!r} has a replica that is {there.state}", field="target", bound="a data node without one"
        )
    if source != target and places[source].state == "active":
        places[source] = replace(places[source], state="leaving")
    places[target] = ReplicaPlace(target, "joining", index)
    begun = shard.changed(index, tuple(places.values()), Move(index, source, target))
    if not begun.old:
        raise InvalidArgumentError(
            "no replica of the shard holds anything", field="shard_id", bound="one to fill another one from"
        )
    return _changed(state, index, info, begun)


def advance_move(state: CatalogState, index: int, args: Args) -> Change:
    """Go on to the next stage: the target says that it has all that it must have for that.

    Where no replica joins, those that stay say so, and the last one of enough ends the step.
    """
    info, shard = shard_at(state, args)
    move = _under_way(shard)
    if not move.target:
        return _made_ready(state, index, info, shard, text(args, "node_id"))
    if move.target != text(args, "node_id"):
        raise InvalidArgumentError(f"it goes to {move.target!r}", field="node_id")
    if move.stage == "filling":
        return _changed(state, index, info, shard.changed(index, shard.replicas, replace(move, stage="switching")))
    return _changed(state, index, info, _ended(info, shard, move, index))


def _made_ready(state: CatalogState, index: int, info: CollectionInfo, shard: Shard, node_id: str) -> Change:
    """One more of those that stay has what was acknowledged; the epoch stays until they are enough."""
    move = _under_way(shard)
    if node_id not in shard.nodes("active"):
        raise InvalidArgumentError(f"{node_id!r} has no replica that stays", field="node_id")
    ready = tuple(sorted({*move.ready, node_id}))
    if move.quorums is None or len(ready) >= enough(move.quorums):
        return _changed(state, index, info, _ended(info, shard, move, index))
    if ready == move.ready:
        return state, {"uuid": info.schema.uuid, "revision": state.topology.revision}
    return _changed(state, index, info, replace(shard, move=replace(move, ready=ready)))


def _ended(info: CollectionInfo, shard: Shard, move: Move, index: int) -> Shard:
    """The shard after its move: who has joined counts, who leaves is gone, and other numbers are in force."""
    stay = (r for r in shard.replicas if r.node_id != move.source or move.source == move.target)
    replicas = tuple(replace(r, state="active") if r.node_id == move.target else r for r in stay)
    return with_quorums(info, shard.changed(index, replicas, None), move.quorums or info.quorums(shard))


def cancel_move(state: CatalogState, index: int, args: Args) -> Change:
    """Leave the shard as it was before its move began."""
    info, shard = shard_at(state, args)
    _under_way(shard)
    return _changed(state, index, info, shard.changed(index, places_without_move(shard), None))


def pause_moves(state: CatalogState, index: int, args: Args) -> Change:
    """Begin no moves and fill no replicas, or do again."""
    paused = args.get("paused")
    if not isinstance(paused, bool):
        raise InvalidArgumentError(f"got {paused!r}", field="paused", bound="true or false")
    if paused != state.topology.moves_paused:
        state = replace(state, topology=replace(state.topology, moves_paused=paused, revision=index))
    return state, {"revision": state.topology.revision}


def lose_replica(state: CatalogState, index: int, args: Args) -> Change:
    """A data node says that its replica of a shard is damaged, or an old copy: it counts for nothing any more."""
    info, shard = shard_at(state, args)
    node_id = text(args, "node_id")
    check_loss(info, shard, node_id)
    return _changed(state, index, info, _without(shard, index, node_id, "corrupt"))


def check_loss(info: CollectionInfo, shard: Shard, node_id: str) -> None:
    """Raise InvalidArgumentError unless a shard can do without the replica of a node.

    The others must be so many that every acknowledged write is on one of them: what only the damaged one holds is for
    people to save.
    """
    if not any(r.node_id == node_id and r.state not in GONE for r in shard.replicas):
        raise InvalidArgumentError(f"{node_id!r} has no replica that counts", field="node_id")
    need = info.quorums(shard).covering
    whole = shard.old - {node_id}
    if len(whole) < need:
        raise InvalidArgumentError(
            f"{len(whole)} others are whole", field="replicas", bound=f"at least {need}, for nothing to be lost"
        )


def lose_replicas(state: CatalogState, index: int, node_id: str) -> CatalogState:
    """Every replica on a node whose data folder is gone is lost: it must not answer "absent" (P16)."""
    for info in list(state.topology.collections.values()):
        changed: Mapping[int, Shard] = {
            s.shard_id: _without(s, index, node_id, "lost")
            for s in info.shards
            if any(r.node_id == node_id and r.state != "lost" for r in s.replicas)
        }
        if changed:
            state = with_shards(state, index, info, changed)
    return state


def _without(shard: Shard, index: int, node_id: str, as_what: ReplicaState) -> Shard:
    """The shard after a node's data are gone; a move to there is given up, and one in which all must say something."""
    to_it = shard.move is not None and shard.move.target in (node_id, "")
    places = places_without_move(shard) if to_it else shard.replicas
    replicas = tuple(replace(r, state=as_what) if r.node_id == node_id else r for r in places)
    return shard.changed(index, replicas, None if to_it else shard.move)


def places_without_move(shard: Shard) -> tuple[ReplicaPlace, ...]:
    """The replicas that the shard had before its move began."""
    move = shard.move
    if move is None:
        return shard.replicas
    replicas = []
    for place in shard.replicas:
        if place.node_id == move.target:
            if move.target == move.source:
                replicas.append(replace(place, state="lost"))
        elif place.state == "leaving":
            replicas.append(replace(place, state="active"))
        else:
            replicas.append(place)
    return tuple(replicas)


def _under_way(shard: Shard) -> Move:
    if shard.move is None:
        raise NotFoundError(f"nothing of shard {shard.shard_id} is moving", field="move")
    return shard.move


def _changed(state: CatalogState, index: int, info: CollectionInfo, shard: Shard) -> Change:
    answer = {"uuid": info.schema.uuid, "revision": index}
    return with_shards(state, index, info, {shard.shard_id: shard}), answer


__all__ = [
    "GONE",
    "advance_move",
    "begin_move",
    "cancel_move",
    "check_loss",
    "lose_replica",
    "lose_replicas",
    "pause_moves",
    "places_without_move",
]
