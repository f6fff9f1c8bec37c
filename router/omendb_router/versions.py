"""Versions of ids as several replicas have them: who has the newest, and who lacks it (P8). Decides only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from omendb_common.ids import IdColumn
from omendb_common.records import Op
from omendb_common.shard_calls import Looked, State
from omendb_router.ranking import distinct

Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Versions:
    """What r replicas know of n ids.

    ``states`` and ``stamps`` (n,) are of the newest version; a deletion wins over a point of the same stamp, and
    absence over nothing. ``holder`` (n,): the first replica that has it. ``holds`` (r, n): which have just that.
    ``torn`` (n,): replicas with the same newest stamp disagree on what it is, as after field updates that each missed.
    """

    states: npt.NDArray[np.uint8]
    stamps: npt.NDArray[np.uint64]
    holder: Index
    holds: Mask
    torn: Mask

    @property
    def agreed(self) -> Mask:
        """Ids (n,) of which all replicas have the same."""
        return np.asarray(self.holds.all(axis=0), np.bool_)


def newest(answers: Sequence[Looked]) -> Versions:
    """The newest version of every id among the answers of different replicas, which are parallel."""
    stamps = np.stack([a.stamps for a in answers])
    states = np.stack([a.states for a in answers])
    digests = np.stack([a.digests for a in answers])
    top = stamps.max(axis=0)
    candidate = stamps == top
    deleted = candidate & (states == State.DELETED)
    candidate = np.where(deleted.any(axis=0), deleted, candidate)
    holder = candidate.argmax(axis=0)
    columns = np.arange(len(top))
    same = (stamps == top) & (digests == digests[holder, columns]) & (states == states[holder, columns])
    torn = ((stamps == top) & ~same).any(axis=0) & (top > 0)
    return Versions(states[holder, columns], top, holder, same, torn)


def put_together(versions: Versions, answers: Sequence[Looked], ids: IdColumn) -> Versions:
    """The same, ``torn`` also where no replica's record has all: the answers bring the whole records of ``ids``.

    A field update lies over whatever version its replica had. Its stamp says nothing of an upsert, a deletion or
    another update that came before it and that this replica missed: only what lies below the record's base is covered.
    """
    base = np.zeros(versions.holds.shape, np.uint64)
    for row, answer in zip(base, answers, strict=True):
        for batch in answer.records:
            if batch.op is not Op.UPDATE and batch.stamps is not None:
                np.maximum.at(row, place_of(ids, batch.ids), batch.stamps)
    covered = base[versions.holder, np.arange(len(ids))]
    beside = np.stack([a.stamps for a in answers]) > covered
    return replace(versions, torn=versions.torn | (beside & ~versions.holds).any(axis=0))


def place_of(ids: IdColumn, others: IdColumn) -> Index:
    """Where in ``ids``, which differ, each of ``others`` stands; every one of them is there."""
    hi, lo = IdColumn.concat([ids, others]).hashes()
    first, uid = distinct(hi, lo)
    place: Index = first[uid[len(ids) :]]
    return place


__all__ = ["Mask", "Versions", "newest", "place_of", "put_together"]
