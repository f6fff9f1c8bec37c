"""What two replicas must send each other, from what each lists of the same nodes of the hash tree.

A difference counts when it is settled: the newer side's upsert or deletion is no younger than the moment up to which
the replicas are compared. What is younger may be a write on its way, and comes by itself, or is seen the next time.

One replica's record wins by the stamp of its upsert or deletion. Both records travel when both live: each may carry
field updates that the other lacks, and a whole record never takes away what is newer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omendb_common.ids import IdColumn, U64Array
from omendb_common.shard_calls import Listed, State

BoolArray = npt.NDArray[np.bool_]
I64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Differences:
    """``pull``: ids whose records are to come from there; ``push``: to go there.

    ``settled``: ids that differ and should not; ``young``: that differ and may. ``collided``: of the settled, those
    with the same stamps and other content, which only damage makes: of two that live, the one with the larger hash goes
    in the other's place, ``pull_tied`` and ``push_tied``; a deletion wins over what lives by itself. ``settles``: of
    those that are too young, the stamp of the first that will not be; 0 without any.
    """

    pull: IdColumn
    push: IdColumn
    settled: int
    young: int
    collided: IdColumn
    pull_tied: IdColumn
    push_tied: IdColumn
    settles: int = 0


def differences(here: Listed, there: Listed, through: int) -> Differences:
    """Compare two listings of the same nodes, both complete."""
    mine, theirs = _matched(here.ids, there.ids)
    only_mine, only_theirs = _missing(mine, len(here.ids)), _missing(theirs, len(there.ids))
    moment = np.uint64(through)
    push = [only_mine[here.stamps[only_mine] <= moment]]
    pull = [only_theirs[there.stamps[only_theirs] <= moment]]
    settled = len(push[0]) + len(pull[0])
    young = len(only_mine) + len(only_theirs) - settled
    waits = [here.stamps[only_mine], there.stamps[only_theirs]]

    differ = here.digests[mine] != there.digests[theirs]
    mine, theirs = mine[differ], theirs[differ]
    late = _late(here, there, mine, theirs, moment)
    young += int(np.count_nonzero(late))
    waits.append(np.maximum(here.stamps[mine], there.stamps[theirs])[late])
    mine, theirs = mine[~late], theirs[~late]
    settled += len(mine)
    to_there, to_here = _directions(here, there, mine, theirs)
    collided = _same_stamps(here, there, mine, theirs)
    alive = (here.states[mine] == State.LIVE) & (there.states[theirs] == State.LIVE)
    tied, larger = collided & alive, here.digests[mine] > there.digests[theirs]
    push.append(mine[to_there & ~tied])
    pull.append(theirs[to_here & ~tied])
    return Differences(
        there.ids.take(np.concatenate(pull)),
        here.ids.take(np.concatenate(push)),
        settled,
        young,
        here.ids.take(mine[collided]),
        there.ids.take(theirs[tied & ~larger]),
        here.ids.take(mine[tied & larger]),
        _first_above(np.concatenate(waits), moment),
    )


def joined(pages: Sequence[Listed]) -> Listed:
    """The pages of one listing as one."""
    if len(pages) == 1:
        return pages[0]
    return Listed(
        pages[0].verdict,
        IdColumn.concat([page.ids for page in pages]),
        np.concatenate([page.states for page in pages]),
        np.concatenate([page.stamps for page in pages]),
        np.concatenate([page.bases for page in pages]),
        np.concatenate([page.digests for page in pages]),
    )


def _matched(here: IdColumn, there: IdColumn) -> tuple[I64Array, I64Array]:
    """Positions of the ids that stand in both, parallel."""
    hi = np.concatenate([here.hashes()[0], there.hashes()[0]])
    lo = np.concatenate([here.hashes()[1], there.hashes()[1]])
    # Stable, so that of two equal ids the one from here comes first; within one listing ids differ.
    order = np.lexsort((hi, lo))
    pair = np.flatnonzero((hi[order[1:]] == hi[order[:-1]]) & (lo[order[1:]] == lo[order[:-1]]))
    return order[pair], order[pair + 1] - len(here)


def _first_above(stamps: U64Array, moment: np.uint64) -> int:
    young = stamps[stamps > moment]
    return int(young.min()) if len(young) else 0


def _missing(rows: I64Array, n: int) -> I64Array:
    rest = np.ones(n, np.bool_)
    rest[rows] = False
    return np.flatnonzero(rest)


def _late(here: Listed, there: Listed, mine: I64Array, theirs: I64Array, moment: np.uint64) -> BoolArray:
    """Which of the pairs may differ because a write is still on its way."""
    base = np.maximum(here.bases[mine], there.bases[theirs])
    stamps = here.stamps[mine], there.stamps[theirs]
    fields = (stamps[0] != stamps[1]) & (np.maximum(*stamps) > moment)
    return np.where(here.bases[mine] != there.bases[theirs], base > moment, fields)


def _directions(here: Listed, there: Listed, mine: I64Array, theirs: I64Array) -> tuple[BoolArray, BoolArray]:
    """Which pairs' records go there, and which come here."""
    base_here, base_there = here.bases[mine], there.bases[theirs]
    # An older record matters where fields of it are newer than the base that replaces it.
    to_there = (base_here >= base_there) | (here.stamps[mine] > base_there)
    to_here = (base_there >= base_here) | (there.stamps[theirs] > base_here)
    return to_there, to_here


def _same_stamps(here: Listed, there: Listed, mine: I64Array, theirs: I64Array) -> BoolArray:
    return np.asarray(
        (here.bases[mine] == there.bases[theirs])
        & (here.stamps[mine] == there.stamps[theirs])
        # With field updates the stamps of the older ones may differ, which does not show here.
        & ((here.stamps[mine] == here.bases[mine]) | (here.states[mine] != State.LIVE)),
        np.bool_,
    )


__all__ = ["Differences", "differences", "joined"]
