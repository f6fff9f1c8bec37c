"""A replica whose range goes over to other shards, and the replicas beside it that will answer for it (P14).

Two halves of a shard that splits, or the one joint replica of two shards that merge. Every write that the replica takes
is followed before it is acknowledged: the whole records of its points, as they are after it, go to the successors. What
stood in the replica before is copied in the same form, behind. Records carry their own stamps: neither order nor
repetition matters. What is not in the log of a successor is not acknowledged.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from omendb_common.ids import IdColumn
from omendb_common.records import WriteBatch
from omendb_common.shard_calls import TREE_DEPTH_MAX
from omendb_common.topology import Shard
from omendb_datanode.node_folder import ReplicaKey
from omendb_engine.query.versions import Versions
from omendb_engine.replica import Replica
from omendb_engine.stamped import StampedWrite

GROUP_RECORDS = 8192
"""At most about so many records are looked for at a time: each look goes through the keys of all."""
_BATCH_ROWS = 1000


class Successors(ABC):
    """What stands beside one replica. ``follow`` and ``carry`` may run in several threads at a time.

    Args:
        session: of the split or the merge.
        sources: how many replicas of this node the same successors follow.
    """

    def __init__(self, whole: Replica, beside: tuple[Replica, ...], session: int, *, sources: int = 1) -> None:
        self.whole = whole
        self.beside = beside
        self.session = session
        self.sources = sources
        self._lock = threading.Lock()
        self._failures = 0
        self._copied = -1

    # -- whether they hold everything

    @property
    def failures(self) -> int:
        """How often a write could not be followed; what was copied until the last time does not count."""
        with self._lock:
            return self._failures

    @property
    def complete(self) -> bool:
        """Whether the successors hold everything that the replica does."""
        with self._lock:
            return self._copied == self._failures

    def copied(self, failures: int) -> None:
        """Everything was copied since ``failures`` writes could not be followed."""
        with self._lock:
            self._copied = failures

    # -- work

    def follow(self, writes: Sequence[StampedWrite]) -> None:
        """Bring the successors up to date with the points of writes that the replica was given."""
        try:
            claimed = [self.whole.claims_on(write.batch.ids) for write in writes if write.claim]
            self.carry(IdColumn.concat([*(write.batch.ids for write in writes), *claimed]))
        except BaseException:
            with self._lock:
                self._failures += 1
            raise

    def depth(self) -> int:
        """The level of the hash tree at which a node has at most about ``GROUP_RECORDS`` records."""
        return min((self.whole.snapshot().live // GROUP_RECORDS).bit_length(), TREE_DEPTH_MAX)

    def below(self, depth: int, node: int) -> IdColumn:
        """Everything that the replica knows below a node of its hash tree, deletions included."""
        found: list[IdColumn] = []
        after: tuple[int, int] | None = None
        while True:
            page = self.whole.hash_trees.entries(np.array([node], np.int64), depth, 0, after, GROUP_RECORDS)
            found.append(page.ids)
            after = page.after
            if after is None:
                return IdColumn.concat(found)

    def copy_all(self) -> None:
        """Bring the successors up to date with everything."""
        failures, depth = self.failures, self.depth()
        for node in range(1 << depth):
            ids = self.below(depth, node)
            for start in range(0, len(ids), _BATCH_ROWS):
                self.carry(ids.slice(start, min(start + _BATCH_ROWS, len(ids))))
        self.copied(failures)

    def carry(self, ids: IdColumn) -> int:
        """Bring the successors up to date with some points; about so many bytes."""
        if not len(ids):
            return 0
        size = 0
        for one, batches in zip(self.beside, self._parted(self.whole.versions(ids)), strict=True):
            # What the replica has that is older than the floor was not deleted: it remembers what is above its own.
            settled = 0 < one.maintenance.gc_floor >= self.whole.maintenance.gc_floor
            outcomes = one.write_all([StampedWrite(batch, 0, settled=settled) for batch in batches])
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
            size += sum(map(_size_of, batches))
        return size

    @abstractmethod
    def _parted(self, versions: Versions) -> Sequence[list[WriteBatch]]:
        """The records that each successor gets."""


class Joint(Successors):
    """The joint replica beside each of two whose shards merge: it gets all that they have.

    An id belongs to one of the two, so nothing of the one meets anything of the other. Claims are the exception: what a
    split left of them in both halves is the same record.
    """

    def __init__(self, whole: Replica, beside: tuple[Replica, ...], session: int) -> None:
        super().__init__(whole, beside, session, sources=2)

    def _parted(self, versions: Versions) -> Sequence[list[WriteBatch]]:
        return ([*versions.records()],)


def successors_of(collection_uuid: str, shard: Shard) -> tuple[ReplicaKey, ...]:
    """What stands beside a replica of a shard: two halves while it splits, a joint one while it merges."""
    if shard.split is not None:
        split = shard.split
        return tuple(ReplicaKey(collection_uuid, number, split.session) for number in (split.low_id, split.high_id))
    if shard.merge is not None:
        return (ReplicaKey(collection_uuid, shard.merge.into_id, shard.merge.session),)
    return ()


def _size_of(batch: WriteBatch) -> int:
    payload = 0 if batch.payload is None else int(batch.payload.nbytes)
    return 24 * batch.rows + payload + sum(array.nbytes for array in batch.vectors.values())


__all__ = ["GROUP_RECORDS", "Joint", "Successors", "successors_of"]
