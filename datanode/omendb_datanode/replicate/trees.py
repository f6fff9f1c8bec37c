"""What a data node answers to those who compare their replica with one of its own (P12)."""

from __future__ import annotations

import threading
from weakref import WeakKeyDictionary

from omendb_common.errors import InvalidArgumentError
from omendb_common.shard_calls import Entries, Listed, Summed, Sums, Verdict
from omendb_engine.hash_tree import HashTree
from omendb_engine.replica import Replica


class RecentTrees:
    """The tree that each replica was last asked for: one comparison asks for many of its levels. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._trees: WeakKeyDictionary[Replica, HashTree] = WeakKeyDictionary()

    def sums(self, replica: Replica, call: Sums) -> Summed:
        """The values of the nodes asked for, or none when the replica stands at another floor."""
        floor = replica.maintenance.gc_floor
        if floor != call.gc_floor:
            return Summed(Verdict.OK, gc_floor=floor)
        repaired = replica.maintenance.repaired_through
        if call.agree:
            replica.agreements.begin(call.through)
        level = self._tree(replica, call).level(call.depth).take(call.nodes)
        told = level.counts, level.first, level.second, floor, repaired
        opening, lsn = replica.agreements.opening, replica.snapshot().lsn
        return Summed(Verdict.OK, *told, opening=opening, lsn=lsn)

    def _tree(self, replica: Replica, call: Sums) -> HashTree:
        with self._lock:
            known = self._trees.get(replica)
        if call.fresh or known is None or (known.through, known.gc_floor) != (call.through, call.gc_floor):
            known = replica.hash_trees.tree(call.through, call.gc_floor)
            with self._lock:
                self._trees[replica] = known
        return known


def listed(replica: Replica, call: Entries) -> Listed:
    """A page of records."""
    after = None if call.cursor is None else _position(call.cursor)
    found = replica.hash_trees.entries(call.nodes, call.depth, call.gc_floor, after, call.limit)
    cursor = None if found.after is None else f"{found.after[0]:016x}{found.after[1]:016x}"
    return Listed(Verdict.OK, found.ids, found.states, found.stamps, found.bases, found.digests, cursor)


def _position(cursor: str) -> tuple[int, int]:
    try:
        if len(cursor) != 32:
            raise ValueError(cursor)
        return int(cursor[:16], 16), int(cursor[16:], 16)
    except ValueError:
        raise InvalidArgumentError(f"got {cursor!r}", field="cursor", bound="one of an earlier page") from None


__all__ = ["RecentTrees", "listed"]
