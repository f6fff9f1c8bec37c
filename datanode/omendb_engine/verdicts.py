"""What becomes of each row of a write that carries a stamp from outside, decided before it is logged.

Two questions with two answers. *What is written* goes by component, so that any order of the same operations ends in
the same points: an upsert or a deletion meets the point's base and its tombstone, a partial update meets the base and
the stamps of the fields it names. *What the writer is told* goes by the newest stamp that the write touches: whoever
was overtaken must hear of it and stamp again, or a completed write could lose to one that began after it. So a row
may be told ``superseded`` although a part of it counts, as it does on every replica that hears of it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omendb_common.errors import AlreadyExistsError, NotFoundError
from omendb_common.expected import NO_POINT, conflict
from omendb_common.ids import IdColumn, U64Array
from omendb_common.records import Op, WriteBatch
from omendb_engine.claimed import Claims
from omendb_engine.parts import Located, Snapshot
from omendb_engine.points import base_stamps, changed_fields, known_stamps

BoolArray = npt.NDArray[np.bool_]
I64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Rows of one batch, each list ascending.

    ``keep``: rows that change something and are to be logged; what is in no other list besides counts as written
    already. ``superseded`` with ``newer``: rows overtaken, and by which stamp (or the floor below which unknown ids
    are not believed). ``missing``: rows of an UPDATE whose point is not live. ``existed``: points that were live.
    ``barred``: those of ``superseded`` that a claim keeps out, of which nothing is written. ``open_rows``,
    ``open_stamps``: of a claim, the older ones.
    """

    keep: I64Array
    superseded: I64Array
    newer: U64Array
    missing: I64Array
    existed: int
    barred: I64Array = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    open_rows: I64Array = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    open_stamps: U64Array = dataclasses.field(default_factory=lambda: np.empty(0, np.uint64))

    @property
    def partial(self) -> bool:
        """Whether something of the overtaken rows is written all the same."""
        return bool(np.isin(self.superseded, self.keep, assume_unique=True).any())


def judge(
    snapshot: Snapshot, batch: WriteBatch, stamp: int, gc_floor: int, claims: Claims, *, tied: bool = False
) -> Verdicts:
    """The verdicts on ``batch`` under ``stamp`` (rows with stamps of their own carry them) in the state ``snapshot``.

    ``tied``: upserts win over live rows of the same stamp, too.

    The thread that writes the replica asks, between two operations.
    """
    mine = np.full(batch.rows, stamp, np.uint64) if batch.stamps is None else batch.stamps
    located = snapshot.find(batch.ids)
    found = located.found
    tombstones = newest_tombstones(snapshot, batch.ids)
    stale, vacuous = _below_floor(batch, mine, found, tombstones, np.uint64(gc_floor))
    missing = np.zeros(batch.rows, np.bool_)
    if batch.op is Op.UPDATE:
        wins, newest = _update(snapshot, batch, located, mine)
        missing = ~found & ~stale & (mine >= tombstones)
        newest[~found] = tombstones[~found]
    else:
        base = _base(snapshot, located)
        # Stamps are unique. Where damage made two alike, the deletion wins on every replica, whichever came first.
        equal = batch.op is Op.DELETE or tied
        wins = (mine > tombstones) & ((mine >= base) if equal else (mine > base)) & ~stale & ~vacuous
        newest = np.maximum(tombstones, _latest(snapshot, located))
    newest[stale] = gc_floor
    overtaken = (stale | (mine < newest)) & ~missing & ~vacuous
    bars = claims.barring(batch.ids, mine)
    barred = bars > 0
    if barred.any():
        wins, missing, overtaken = wins & ~barred, missing & ~barred, overtaken | barred
        newest = np.maximum(newest, bars)
    rows = np.flatnonzero(overtaken)
    return Verdicts(
        np.flatnonzero(wins),
        rows,
        newest[rows],
        np.flatnonzero(missing),
        int(np.count_nonzero(found)),
        np.flatnonzero(barred),
    )


def judge_claims(
    snapshot: Snapshot, ids: IdColumn, stamp: int, gc_floor: int, claims: Claims
) -> tuple[Verdicts, U64Array]:
    """The verdicts on claims under ``stamp``, and the newest stamp that each of ``ids`` (n,) carries."""
    located = snapshot.find(ids)
    held = np.maximum(newest_tombstones(snapshot, ids), _latest(snapshot, located))
    before = claims.newest(ids)
    late = (held >= np.uint64(stamp)) | (before > np.uint64(stamp)) | np.full(len(ids), stamp <= gc_floor)
    rows = np.flatnonzero(late)
    newer = np.maximum(np.maximum(held, before), np.uint64(gc_floor))[rows]
    none = np.empty(0, np.int64)
    existed = int(np.count_nonzero(located.found))
    return Verdicts(np.flatnonzero(~late), rows, newer, none, existed, none, *claims.open(ids)), held


def _below_floor(
    batch: WriteBatch, mine: U64Array, found: BoolArray, tombstones: U64Array, floor: np.uint64
) -> tuple[BoolArray, BoolArray]:
    """Rows at or below the floor that are not to be believed, and those that say what everybody knows.

    Down to the floor every replica was found equal, so what comes later under such a stamp comes too late. An id that
    is unknown may have been deleted. A deletion would leave nothing behind that a replica could tell the others: its
    writer must stamp it anew. But a *record* of a deletion, which another replica still remembers, is no news.
    """
    below = mine <= floor
    unknown = ~found & (tombstones <= floor) & below
    if batch.op is not Op.DELETE:
        return unknown, np.zeros(batch.rows, np.bool_)
    if batch.stamps is None:
        return below & (mine != tombstones), np.zeros(batch.rows, np.bool_)
    return np.zeros(batch.rows, np.bool_), unknown


def check_existing(snapshot: Snapshot, batch: WriteBatch, *, create_only: bool) -> None:
    """Raise AlreadyExistsError when an id is live that must not be, NotFoundError when an update finds no point."""
    found = snapshot.find(batch.ids).found
    if create_only and found.any():
        raise _taken(batch.ids, found)
    if batch.op is Op.UPDATE and not found.all():
        missing = batch.ids.take(np.flatnonzero(~found)[:3]).to_list()
        raise NotFoundError(
            f"{int((~found).sum())} ids do not exist, such as {missing}",
            field="ids",
            mend="insert them with upsert first",
        )


def refuse_taken(snapshot: Snapshot, ids: IdColumn, stamp: int) -> None:
    """Raise AlreadyExistsError when an id is live, unless it is this very write that made it (sent again)."""
    located = snapshot.find(ids)
    taken = located.found & (_base(snapshot, located) != np.uint64(stamp))
    if taken.any():
        raise _taken(ids, taken)


def _taken(ids: IdColumn, taken: BoolArray) -> AlreadyExistsError:
    some = ids.take(np.flatnonzero(taken)[:3]).to_list()
    return AlreadyExistsError(
        f"{int(taken.sum())} ids exist already, such as {some}", field="ids", mend="use upsert to replace them"
    )


def check_versions(snapshot: Snapshot, ids: IdColumn, versions: U64Array, stamp: int = 0) -> Verdicts | None:
    """Whether every point is as a write under ``stamp`` demands; None when it is, or all of this very write is there.

    Where a point carries something newer than ``stamp``, no row may be written: the verdicts say so of all of them,
    and the writer comes again above it, with all of them.

    Raises:
        VersionConflictError: a point has another version.
    """
    located = snapshot.find(ids)
    held = np.maximum(newest_tombstones(snapshot, ids), _latest(snapshot, located))
    if stamp and (held == np.uint64(stamp)).all():
        return None
    found = np.where(located.found, held, np.uint64(NO_POINT))
    other = np.flatnonzero(found != versions)
    if len(other):
        raise conflict(ids, other, found[other])
    if not stamp or bool((held < np.uint64(stamp)).all()):
        return None
    none, rows = np.empty(0, np.int64), np.arange(len(ids))
    return Verdicts(none, rows, np.full(len(ids), held.max(), np.uint64), none, int(np.count_nonzero(located.found)))


def newest_tombstones(snapshot: Snapshot, ids: IdColumn) -> U64Array:
    """The stamp of the newest deletion of each id that is remembered, 0 where there is none."""
    hi, lo = ids.hashes()
    out = np.zeros(len(ids), np.uint64)
    for part in snapshot.parts:
        np.maximum(out, part.tombstone_stamps(hi, lo), out=out)
    return out


def _base(snapshot: Snapshot, located: Located) -> U64Array:
    out = np.zeros(len(located.part), np.uint64)
    for number, where, rows in snapshot.by_part(located):
        out[where] = base_stamps(snapshot.parts[number], rows)
    return out


def _latest(snapshot: Snapshot, located: Located) -> U64Array:
    out = np.zeros(len(located.part), np.uint64)
    for number, where, rows in snapshot.by_part(located):
        out[where] = snapshot.parts[number].stamps_at(rows)
    return out


def _update(snapshot: Snapshot, batch: WriteBatch, located: Located, mine: U64Array) -> tuple[BoolArray, U64Array]:
    """Which rows an update changes something of, and the newest stamp among the fields that it names."""
    wins = np.zeros(batch.rows, np.bool_)
    newest = np.zeros(batch.rows, np.uint64)
    groups = snapshot.by_part(located)
    if not groups:
        return wins, newest
    where = np.concatenate([at for _, at, _ in groups])
    known = known_stamps([(snapshot.parts[number], rows) for number, _, rows in groups])
    base = known.of_field("").dense(len(where))
    for field, mask in changed_fields(batch).items():
        named = mask[where]
        held = np.maximum(base, known.of_field(field).dense(len(where)))
        wins[where] |= named & (mine[where] > held)
        newest[where] = np.maximum(newest[where], np.where(named, held, np.uint64(0)))
    return wins, newest


__all__ = [
    "Verdicts",
    "check_existing",
    "check_versions",
    "judge",
    "judge_claims",
    "newest_tombstones",
    "refuse_taken",
]
