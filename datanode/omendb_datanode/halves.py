"""The two halves of a replica whose shard splits: what of it belongs where (P14).

With a partition key the place of a point is in its payload, and may differ between its versions. So every record also
leaves a tombstone, under the stamp of its base, in the other half: an older version that some replica still has on that
side can then not come back, and a point is never in both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from omendb_common.claims import reserved
from omendb_common.ids import IdColumn
from omendb_common.partition import ring_places
from omendb_common.records import Op, WriteBatch
from omendb_datanode.successors import Successors
from omendb_engine.apply import take_batch
from omendb_engine.query.versions import Versions
from omendb_engine.replica import Replica

Parts = tuple[list[WriteBatch], list[WriteBatch]]


class Halves(Successors):
    """The halves of one replica.

    Args:
        at: places of the ring below it belong to the first half.
    """

    def __init__(
        self, whole: Replica, halves: tuple[Replica, ...], session: int, at: int, partition_key: str | None
    ) -> None:
        super().__init__(whole, halves, session)
        self._at = np.uint64(at)
        self._key = partition_key

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


def _part(parts: Parts, batch: WriteBatch, high: npt.NDArray[np.bool_]) -> None:
    for part, rows in zip(parts, (np.flatnonzero(~high), np.flatnonzero(high)), strict=True):
        if len(rows) == batch.rows:
            part.append(batch)
        elif len(rows):
            part.append(take_batch(batch, rows))


def _names(ids: IdColumn) -> list[tuple[int, int]]:
    hi, lo = ids.hashes()
    return list(zip(hi.tolist(), lo.tolist(), strict=True))


__all__ = ["Halves"]
