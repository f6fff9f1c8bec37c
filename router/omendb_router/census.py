"""Ids that replicas offered because they match a filter, and which of them are to be looked at again (P7, P9).

Decides only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omendb_common.ids import IdColumn, U64Array
from omendb_common.shard_calls import Looked
from omendb_router.ranking import distinct
from omendb_router.standing import Editions, Index, Mask, Standing


@dataclass(slots=True)
class Census:
    """``ids``: the distinct ones, in the order of their hashes.

    ``offered`` (r, n): whether each replica offered each; ``row`` (r, n): where in its answer. ``standing``: what the
    replicas have of each, which for the silent ones is only known when they were asked.
    """

    ids: IdColumn
    hi: U64Array
    lo: U64Array
    offered: Mask
    row: Index
    standing: Standing

    @staticmethod
    def of(columns: Sequence[IdColumn], editions: Sequence[Editions]) -> Census:
        """The ids that each replica offered, with their versions; no replica names one twice."""
        ids = IdColumn.concat(columns)
        hi, lo = ids.hashes()
        first, uid = distinct(hi, lo)
        replica = np.repeat(np.arange(len(columns)), [len(c) for c in columns])
        offered = np.zeros((len(columns), len(first)), np.bool_)
        row = np.zeros(offered.shape, np.int64)
        offered[replica, uid] = True
        row[replica, uid] = np.concatenate([np.arange(len(c)) for c in columns])
        standing = Standing.of(replica, uid, Editions.joined(editions), offered.shape)
        return Census(ids.take(first), hi[first], lo[first], offered, row, standing)

    def limited(self, places: Index) -> Census:
        """Only the ids at ``places``."""
        return Census(
            self.ids.take(places),
            self.hi[places],
            self.lo[places],
            self.offered[:, places],
            self.row[:, places],
            self.standing.limited(places),
        )

    def silent(self, replica: int) -> Index:
        """Ids that this replica did not offer."""
        return np.flatnonzero(~self.offered[replica])

    def heard(self, replica: int, places: Index, answer: Looked) -> None:
        """What the replica has of ids that it did not offer."""
        self.standing.heard(replica, places, answer)

    def torn(self) -> Index:
        """Places of ids whose records are to be put together before anybody can say whether they match."""
        return np.flatnonzero(self.standing.torn())

    def current(self) -> Mask:
        """Ids (n,) whose version that counts is one that was offered."""
        return np.asarray(self._offers().any(axis=0) & self.standing.alive() & ~self.standing.torn(), np.bool_)

    def unseen(self) -> list[tuple[int, int]]:
        """(replica, place) of ids whose version that counts lives there, and was not offered."""
        left = self.standing.alive() & ~self.standing.torn() & ~self._offers().any(axis=0)
        places = np.flatnonzero(left)
        return list(zip(self.standing.winner()[places].tolist(), places.tolist(), strict=True))

    def holder(self) -> Index:
        """A replica (n,) that offered the version that counts of each."""
        return np.asarray(self._offers().argmax(axis=0), np.int64)

    def stamps(self) -> U64Array:
        """The newest stamp (n,) that any replica has of each."""
        newest: U64Array = self.standing.editions.stamps.max(axis=0)
        return newest

    def _offers(self) -> Mask:
        return np.asarray(self.offered & self.standing.same_as_winner(), np.bool_)


__all__ = ["Census"]
