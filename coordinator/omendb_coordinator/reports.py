"""What a coordinator tells people of the cluster: parts of its status, as JSON values. Pure."""

from __future__ import annotations

from typing import Any

from omendb_common.quorum import Quorums
from omendb_common.topology import CollectionInfo, Fill, Move, ReplicaSize, Shard
from omendb_coordinator.load_splits import Busy
from omendb_coordinator.splits import Sizes


def move_report(info: CollectionInfo, shard: Shard, move: Move) -> dict[str, Any]:
    """A replica that moves, or a step to other quorums."""
    told: dict[str, Any] = {
        "collection": info.name,
        "shard_id": shard.shard_id,
        "source": move.source,
        "target": move.target,
        "stage": move.stage,
        "session": move.session,
    }
    if move.quorums is None:
        return told
    told["quorums"] = {"from": _numbers(info.quorums(shard)), "to": _numbers(move.quorums)}
    if not move.target:
        told["ready"] = list(move.ready)
        told["waits_for"] = ", ".join(n for n in sorted(shard.nodes("active")) if n not in move.ready)
    return told


def _numbers(quorums: Quorums) -> dict[str, int]:
    return {
        "replication": quorums.replication,
        "write_quorum": quorums.write,
        "read_quorum": quorums.read,
    }


def fill_report(fill: Fill) -> dict[str, Any]:
    """How far a replica is that is on its way."""
    done = min(1.0, fill.rows_done / fill.rows_total) if fill.rows_total else 0.0
    return {
        "rows_done": fill.rows_done,
        "rows_total": fill.rows_total,
        "bytes_done": fill.bytes_done,
        "percent": round(100.0 * done, 1),
        "waits_for": fill.waits_for,
    }


def collection_report(info: CollectionInfo, sizes: Sizes) -> dict[str, Any]:
    """A collection and its shards."""
    return {
        "name": info.name,
        "uuid": info.schema.uuid,
        "replication": info.replication,
        "write_quorum": info.write_quorum,
        "read_quorum": info.read_quorum,
        "partition_key": info.partition_key,
        "shards": [
            {
                "shard_id": s.shard_id,
                "epoch": s.epoch,
                "repaired_through": s.repaired_through,
                "gc_floor": s.gc_floor,
                "in_force": _numbers(info.quorums(s)),
                "replicas": [{"node_id": r.node_id, "state": r.state} for r in s.replicas],
                **_size_report(sizes.get((info.schema.uuid, s.shard_id))),
            }
            for s in info.shards
        ],
    }


def _size_report(told: ReplicaSize | None) -> dict[str, Any]:
    """How large and busy the replica of a shard is that has most, as far as nodes have told the leader."""
    if told is None:
        return {}
    load = told.load
    seconds = {} if load is None else {"load": round(load.total, 3), "load_that_divides": round(load.divides, 3)}
    return {"rows": told.rows, "bytes": told.size, **seconds}


def busy_report(one: Busy, bound: float, now_s: float) -> dict[str, Any]:
    """A shard that has more to do than the bound of its load, and what keeps it from splitting."""
    return {
        "collection": one.collection,
        "shard_id": one.shard_id,
        "load": round(one.load, 3),
        "bound": bound,
        "for_s": round(now_s - one.since_s, 1),
        "kept": one.kept,
    }


__all__ = ["busy_report", "collection_report", "fill_report", "move_report"]
