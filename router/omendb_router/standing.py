"""Which version of an id counts among those that replicas have, and where none of them is the whole point (P9).

A version has three numbers. Its *base* is the stamp of the upsert or the deletion that says whether there is a point;
its *stamp* the newest of all its stamps; its *mark* tells which fields carry stamps of their own. A base covers all
that is older, and nothing else does: a field update lies over whatever its replica had. Decides only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from omendb_common.ids import U64Array
from omendb_common.overlays import Overlays
from omendb_common.shard_calls import State

Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int64]


class Editions(NamedTuple):
    """Versions as three columns of one shape; (0, 0, 0) is none."""

    stamps: U64Array
    bases: U64Array
    marks: U64Array

    @staticmethod
    def of(stamps: U64Array, overlays: Overlays) -> Editions:
        """Those of an answer."""
        return Editions(stamps, *overlays.spread(stamps))

    @staticmethod
    def joined(parts: Sequence[Editions]) -> Editions:
        """One after the other."""
        return Editions(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def take(self, rows: Index) -> Editions:
        """Those at ``rows``."""
        return Editions(self.stamps[rows], self.bases[rows], self.marks[rows])

    def same(self, other: Editions) -> Mask:
        """Which are the same point with the same fields."""
        stamps, bases, marks = other
        return np.asarray((self.stamps == stamps) & (self.bases == bases) & (self.marks == marks), np.bool_)


class Told(Protocol):
    """What an answer to a look-up or to a scoring says of versions."""

    @property
    def states(self) -> npt.NDArray[np.uint8]:
        """Of each id."""

    @property
    def stamps(self) -> U64Array:
        """Of each id."""

    @property
    def overlays(self) -> Overlays:
        """Of all ids."""


@dataclass(slots=True)
class Standing:
    """What r replicas have of n ids: columns (r, n), of no meaning where not ``asked``."""

    editions: Editions
    deleted: Mask
    asked: Mask

    @staticmethod
    def of(replica: Index, uid: Index, editions: Editions, shape: tuple[int, int]) -> Standing:
        """Of (r, n) ``shape``, from live points that replicas offered; of two of one id on one replica the newest.

        Replicas offer an id once for each query that finds it.
        """
        known = Editions(*(np.zeros(shape, np.uint64) for _ in range(3)))
        order = np.lexsort((editions.stamps, editions.bases))
        at = replica[order], uid[order]
        for column, values in zip(known, editions, strict=True):
            column[at] = values[order]
        return Standing(known, np.zeros(shape, np.bool_), known.stamps > 0)

    def limited(self, places: Index) -> Standing:
        """Of the ids at ``places`` only."""
        return Standing(
            Editions(*(c[:, places] for c in self.editions)), self.deleted[:, places], self.asked[:, places]
        )

    def heard(self, replica: int, uids: Index, answer: Told) -> None:
        """What a replica says of ids that it was asked for; it has only more than before, so the old is forgotten."""
        self.asked[replica, uids] = True
        self.deleted[replica, uids] = answer.states == State.DELETED
        for column, values in zip(self.editions, Editions.of(answer.stamps, answer.overlays), strict=True):
            column[replica, uids] = values

    def winner(self) -> Index:
        """The replica (n,) with the newest base of each id, and of those that have it the one with the newest field."""
        newest = self._of_newest_base()
        return np.asarray(np.where(newest, self.editions.stamps, np.uint64(0)).argmax(axis=0), np.int64)

    def dead(self) -> Mask:
        """Ids (n,) that a deletion covers: whatever fields other replicas laid over, there is no point under them."""
        return np.asarray((self.deleted & self._of_newest_base()).any(axis=0), np.bool_)

    def alive(self) -> Mask:
        """Ids (n,) of which there is a point."""
        return np.asarray((self.editions.bases.max(axis=0) > 0) & ~self.dead(), np.bool_)

    def same_as_winner(self) -> Mask:
        """Which replicas (r, n) have just the version that counts."""
        row, column = self.winner(), np.arange(self.asked.shape[1])
        return self.editions.same(Editions(*(c[row, column] for c in self.editions)))

    def torn(self) -> Mask:
        """Ids (n,) of which no replica is proven to have all: fields above the newest base differ."""
        above = self.editions.stamps > self.editions.bases.max(axis=0)
        return np.asarray((above & ~self.same_as_winner()).any(axis=0) & self.alive(), np.bool_)

    def _of_newest_base(self) -> Mask:
        return np.asarray(self.editions.bases == self.editions.bases.max(axis=0), np.bool_)


__all__ = ["Editions", "Index", "Mask", "Standing", "Told"]
