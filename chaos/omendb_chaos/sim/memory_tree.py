"""The hash tree of a replica in a dictionary, by its definition: every record is looked at for every question."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from omendb_chaos.sim.memory_record import Record
from omendb_common.ids import IdColumn, PointId
from omendb_common.shard_calls import Entries, Listed, State, Summed, Sums, Verdict
from omendb_engine.hash_tree import Sums as Values
from omendb_engine.query.digests import widened


def summed(records: Mapping[PointId, Record], call: Sums, gc_floor: int) -> Summed:
    """The values of the nodes asked for."""
    if call.gc_floor != gc_floor:
        return Summed(Verdict.OK, gc_floor=gc_floor)
    values = Values.zeros(1 << call.depth)
    for point_id, record in _counted(records, gc_floor).items():
        if record.newest > call.through:
            continue
        hi, lo = IdColumn.of([point_id]).hashes()
        node = np.array([_node(int(lo[0]), call.depth)])
        values.add(node, *widened(np.array([record.digest()], np.uint64), hi, lo))
    found = values.take(call.nodes)
    return Summed(Verdict.OK, found.counts, found.first, found.second, gc_floor)


def listed(records: Mapping[PointId, Record], call: Entries) -> Listed:
    """A page of records."""
    wanted = set(call.nodes.tolist())
    found = []
    for point_id, record in _counted(records, call.gc_floor).items():
        hi, lo = (int(half[0]) for half in IdColumn.of([point_id]).hashes())
        place = f"{lo:016x}{hi:016x}"
        if _node(lo, call.depth) in wanted and (call.cursor is None or place > call.cursor):
            found.append((place, point_id, record))
    found.sort(key=lambda item: item[0])
    page = found[: call.limit]
    return Listed(
        Verdict.OK,
        IdColumn.of([point_id for _, point_id, _ in page]) if page else IdColumn.empty(),
        np.array([State.LIVE if r.live else State.DELETED for _, _, r in page], np.uint8),
        np.array([r.newest for _, _, r in page], np.uint64),
        np.array([r.base or r.deleted for _, _, r in page], np.uint64),
        np.array([r.digest() for _, _, r in page], np.uint64),
        page[-1][0] if len(found) > len(page) else None,
    )


def _counted(records: Mapping[PointId, Record], gc_floor: int) -> dict[PointId, Record]:
    """What takes part: live points, and deletions above the floor."""
    return {i: r for i, r in records.items() if r.live or r.deleted > gc_floor}


def _node(lo: int, depth: int) -> int:
    return lo >> (64 - depth)


__all__ = ["listed", "summed"]
