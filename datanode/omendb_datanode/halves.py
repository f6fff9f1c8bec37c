"""A replica of a shard that splits, and the two halves beside it that hold what it holds (P14).

Every write that the replica takes is followed before it is acknowledged: the whole records of its points, as they are
after it, go to the half that owns them. What stood in the replica before is copied in the same form, behind. Records
carry their own stamps: neither order nor repetition matters. What is not in the log of a half is not acknowledged.

With a partition key the place of a point is in its payload, and may differ between its versions. So every record also
leaves a tombstone, under the stamp of its base, in the other half: an older version that some replica still has on that
side can then not come back, and a point is never in both.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from omendb_common.claims import reserved
from omendb_common.ids import IdColumn
from omendb_common.partition import ring_places
from omendb_common.records import Op, WriteBatch
from omendb_common.shard_calls import TREE_DEPTH_MAX
from omendb_common.topology import Shard
from omendb_datanode.node_folder import ReplicaKey
from omendb_engine.apply import take_batch
from omendb_engine.query.versions import Versions
from omendb_engine.replica import Replica
from omendb_engine.stamped import StampedWrite

GROUP_RECORDS = 8192
"""At most about so many records are looked for at a time: each look goes through the keys of all."""
_BATCH_ROWS = 1000

Parts = tuple[list[WriteBatch], list[WriteBatch]]


class Halves:
    """The halves of one replica. ``follow`` and ``carry`` may run in several threads at a time.

    Args:
        session: of the split.
        at: places of the ring below it belong to the first half.
    """

    def __init__(
        self, whole: Replica, halves: tuple[Replica, Replica], session: int, at: int, partition_key: str | None
    ) -> None:
        self.whole = whole
        self.halves = halves
        self.session = session
        self._at = np.uint64(at)
        self._key = partition_key
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
        """Whether the halves hold everything that the replica does."""
        with self._lock:
            return self._copied == self._failures

    def copied(self, failures: int) -> None:
        """Everything was copied since ``failures`` writes could not be followed."""
        with self._lock:
            self._copied = failures

    # -- work

    def follow(self, writes: Sequence[StampedWrite]) -> None:
        """Bring the halves up to date with the points of writes that the replica was given."""
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
        """Bring the halves up to date with everything."""
        failures, depth = self.failures, self.depth()
        for node in range(1 << depth):
            ids = self.below(depth, node)
            for start in range(0, len(ids), _BATCH_ROWS):
                self.carry(ids.slice(start, min(start + _BATCH_ROWS, len(ids))))
        self.copied(failures)

    def carry(self, ids: IdColumn) -> int:
        """Bring the halves up to date with some points; about so many bytes."""
        if not len(ids):
            return 0
        size = 0
        versions = self.whole.versions(ids)
        for half, batches in zip(self.halves, self._parted(versions), strict=True):
            settled = 0 < half.maintenance.gc_floor == self.whole.maintenance.gc_floor
            outcomes = half.write_all([StampedWrite(batch, 0, settled=settled) for batch in batches])
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
            size += sum(map(_size_of, batches))
        return size

    def _parted(self, versions: Versions) -> Parts:
        """The records of each half."""
        records = versions.records()
        if self._key is not None:
            return self._parted_by_key(versions, records)
        parts: Parts = ([], [])
        for batch in records:
            marked = reserved(batch.ids)
            if marked.any():  # claims: the place of their points is not that of their ids
                for part in parts:
                    part.append(take_batch(batch, np.flatnonzero(marked)))
                batch = take_batch(batch, np.flatnonzero(~marked))
            if batch.rows:
                _part(parts, batch, batch.ids.hashes()[0] >= self._at)
        return parts

    def _parted_by_key(self, versions: Versions, records: Sequence[WriteBatch]) -> Parts:
        live = versions.ids.take(versions.where)
        high = ring_places(self._key, live, versions.picked.columns()) >= self._at
        of_id = dict(zip(_names(live), high.tolist(), strict=True))
        parts: Parts = ([], [])
        for batch in records:
            if batch.op is Op.DELETE:  # an id does not say where it was
                parts[0].append(batch)
                parts[1].append(batch)
                continue
            mine = np.array([of_id[name] for name in _names(batch.ids)], np.bool_)
            _part(parts, batch, mine)
            if batch.op is Op.UPSERT:
                _part(parts, WriteBatch(Op.DELETE, batch.ids, stamps=batch.stamps), ~mine)
        return parts


def halves_of(collection_uuid: str, shard: Shard) -> tuple[ReplicaKey, ...]:
    """The halves that stand beside a replica of a shard: two while it splits, else none."""
    split = shard.split
    if split is None:
        return ()
    return tuple(ReplicaKey(collection_uuid, number, split.session) for number in (split.low_id, split.high_id))


def _part(parts: Parts, batch: WriteBatch, high: npt.NDArray[np.bool_]) -> None:
    for part, rows in zip(parts, (np.flatnonzero(~high), np.flatnonzero(high)), strict=True):
        if len(rows) == batch.rows:
            part.append(batch)
        elif len(rows):
            part.append(take_batch(batch, rows))


def _names(ids: IdColumn) -> list[tuple[int, int]]:
    hi, lo = ids.hashes()
    return list(zip(hi.tolist(), lo.tolist(), strict=True))


def _size_of(batch: WriteBatch) -> int:
    payload = 0 if batch.payload is None else int(batch.payload.nbytes)
    return 24 * batch.rows + payload + sum(array.nbytes for array in batch.vectors.values())


__all__ = ["GROUP_RECORDS", "Halves", "halves_of"]
