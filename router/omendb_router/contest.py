"""Hits of one shard on several replicas made one list, and what is still to be asked before it may be shown.

Decides only (P9 b and c). All in columns: one row per (query, id), whatever the number of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from omendb_common.ids import IdColumn, U64Array
from omendb_common.shard_calls import Float32, Int64, ShardHits, Shared, State
from omendb_router.ranking import distinct, flat_distances, flat_queries, ranked, ranks
from omendb_router.standing import Editions, Mask, Standing, Told


@dataclass(slots=True)
class Contest:
    """Hits of ``m`` queries on one shard, as replicas have them, until the versions shown are proven to be whole.

    ``ids`` are the distinct ids, and ``standing`` what the replicas have of each. An id is ``proven`` when one node,
    ``home``, is known to have all that any asked replica has of it. Nodes are numbered; the first are the replicas.
    The entries (``query``, ``uid``, ``distance``, ``edition``) are in rank order; ``rank`` is the place of each within
    its query, and ``whole`` those that show a proven version. ``horizon`` (m,): below this distance no replica that
    searched has withheld a hit.
    """

    m: int
    k: int
    ids: IdColumn
    hi: U64Array
    lo: U64Array
    standing: Standing
    query: Int64
    uid: Int64
    edition: Editions
    distance: Float32
    horizon: Float32
    proven: Mask = field(init=False)
    home: Int64 = field(init=False)
    gone: Mask = field(init=False)
    whole: Mask = field(init=False)
    rank: Int64 = field(init=False)
    touched: bool = False
    """Whether anything was dropped or scored anew since the replicas answered."""

    def __post_init__(self) -> None:
        self.proven = np.zeros(len(self.ids), np.bool_)
        self.home = np.zeros(len(self.ids), np.int64)
        self.gone = np.zeros(len(self.query), np.bool_)
        self.whole = np.zeros(len(self.query), np.bool_)
        self._sort()

    @staticmethod
    def of(answers: Sequence[ShardHits], k: int, k_asked: int, *, silent: int = 0) -> Contest:
        """The merged hits of different replicas, each asked for ``k_asked``; ``silent`` more were asked for none.

        Per query and id the nearest of the versions that no other is known to cover: of those it cannot be said yet
        which is shown, and one that is far must not hide one that is near.
        """
        m = len(answers[0].counts)
        ids = IdColumn.concat([a.ids for a in answers])
        hi, lo = ids.hashes()
        replica = np.repeat(np.arange(len(answers)), [len(a.ids) for a in answers])
        query = np.concatenate([flat_queries(a.counts) for a in answers])
        distance = np.concatenate([flat_distances(a) for a in answers])
        edition = Editions.joined([Editions.of(a.stamps, a.overlays) for a in answers])
        first, uid = distinct(hi, lo)
        standing = Standing.of(replica, uid, edition, (len(answers) + silent, len(first)))
        order = np.flatnonzero(_uncovered(query, uid, edition))
        order = order[np.lexsort((distance[order], uid[order], query[order]))]
        q, u = query[order], uid[order]
        keep = np.ones(len(order), np.bool_)
        keep[1:] = (q[1:] != q[:-1]) | (u[1:] != u[:-1])
        order = order[keep]
        return Contest(
            m,
            k,
            ids.take(first),
            hi[first],
            lo[first],
            standing,
            query[order],
            uid[order],
            edition.take(order),
            distance[order],
            _horizon(answers, k_asked),
        )

    def _sort(self) -> None:
        keep = np.flatnonzero(~self.gone)
        query, distance, uid = self.query[keep], self.distance[keep], self.uid[keep]
        order = keep[ranked(query, distance, self.hi[uid], self.lo[uid])]
        self.query, self.uid = self.query[order], self.uid[order]
        self.edition, self.distance, self.whole = self.edition.take(order), self.distance[order], self.whole[order]
        self.gone = np.zeros(len(order), np.bool_)
        self.rank = ranks(self.query)

    def top(self, k: int | None = None) -> Int64:
        """The entries that are the k nearest of their query."""
        return np.flatnonzero(self.rank < (self.k if k is None else k))

    def unasked(self, replica: int, k: int | None = None) -> Int64:
        """Ids among the k nearest that are not proven and of which this replica has said nothing."""
        shown = np.unique(self.uid[self.top(k)])
        silent: Int64 = shown[~self.standing.asked[replica, shown] & ~self.proven[shown]]
        return silent

    def heard(self, replica: int, uids: Int64, answer: Told) -> None:
        """What the replica says of ids that it was asked for (P9 c)."""
        self.standing.heard(replica, uids, answer)

    def vouched(self, replica: int, shared: Shared) -> None:
        """Of ids that it does not name, the replica has nothing that the searched one has not, or covers (P23).

        So it is as if it had been asked for them, and knew of none.
        """
        self.standing.asked[replica] |= ~shared.named(self.lo)

    def as_offered(self, hits: ShardHits) -> bool:
        """Whether what is shown is what a replica found, all of it in its versions.

        What the replica has by now says nothing of that: it may have got since what it did not find.
        """
        top = self.top()
        if len(top) != len(hits.ids):
            return False
        uid, (hi, lo) = self.uid[top], hits.ids.hashes()
        same = (self.query[top] == flat_queries(hits.counts)) & (self.hi[uid] == hi) & (self.lo[uid] == lo)
        return bool((same & self.edition.take(top).same(Editions.of(hits.stamps, hits.overlays))).all())

    def judge(self) -> Int64:
        """Prove what can be proven by what was heard, and let go of what is deleted.

        Returns:
            Ids among the k nearest of which no replica is known to have all: their records are to be put together.
        """
        told = self.standing.asked.all(axis=0) & ~self.proven
        torn = told & self.standing.torn()
        now = np.flatnonzero(told & ~torn)
        self.settled(now, self.standing.winner()[now], self.standing.alive()[now])
        shown = np.unique(self.uid[self.top()])
        left: Int64 = shown[torn[shown]]
        return left

    def settled(self, uids: Int64, homes: Int64, alive: Mask) -> None:
        """Node ``homes`` has all of each of these ids, or knows that there is no point."""
        self.proven[uids], self.home[uids] = True, homes
        dead = np.zeros(len(self.ids), np.bool_)
        dead[uids[~alive]] = True
        self.gone |= dead[self.uid]
        if self.gone.any():
            self.touched = True
            self._sort()

    def outdated(self) -> list[tuple[int, int, Int64]]:
        """Hits among the k nearest that are proven, but not as they are shown: (home of that, query, entries)."""
        top = self.top()
        replicas = len(self.standing.asked)
        known = self.home[self.uid[top]] < replicas
        at = np.minimum(self.home[self.uid[top]], replicas - 1), self.uid[top]
        shown = self.edition.take(top).same(Editions(*(column[at] for column in self.standing.editions)))
        self.whole[top] |= self.proven[self.uid[top]] & known & shown
        behind = top[self.proven[self.uid[top]] & ~self.whole[top]]
        if not len(behind):
            return []
        pairs = np.stack([self.home[self.uid[behind]], self.query[behind]])
        return [
            (int(r), int(q), behind[(pairs[0] == r) & (pairs[1] == q)]) for r, q in np.unique(pairs, axis=1).T.tolist()
        ]

    def rescored(self, entries: Int64, answer: Told, keep: Mask, distance: Float32) -> None:
        """What their home has of these hits by now: it had all of them before, and what a replica has only grows."""
        for column, values in zip(self.edition, Editions.of(answer.stamps, answer.overlays), strict=True):
            column[entries] = values
        keep = keep & (answer.states == State.LIVE)
        self.distance[entries] = np.where(keep, distance, self.distance[entries])
        self.gone[entries] |= ~keep
        self.whole[entries] = True
        self.touched = True

    def resort(self) -> None:
        """Put the entries in rank order again."""
        self._sort()

    def done(self) -> bool:
        """Whether all that is shown is whole."""
        return bool(self.whole[self.top()].all())

    def short(self) -> Int64:
        """Queries for which a replica may have withheld a hit nearer than one that is shown."""
        top = self.top()
        counts = np.bincount(self.query[top], minlength=self.m)
        worst = np.full(self.m, -np.inf, np.float32)
        np.maximum.at(worst, self.query[top], self.distance[top])
        return np.flatnonzero(((counts < self.k) & np.isfinite(self.horizon)) | (worst > self.horizon))


def _uncovered(query: Int64, uid: Int64, edition: Editions) -> Mask:
    """Which of the offers of one id for one query no other of them covers."""
    order = np.lexsort((uid, query))
    new = np.ones(len(order), np.bool_)
    new[1:] = (query[order[1:]] != query[order[:-1]]) | (uid[order[1:]] != uid[order[:-1]])
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(new) - 1
    base, stamp = np.zeros(len(order), np.uint64), np.zeros(len(order), np.uint64)
    np.maximum.at(base, group, edition.bases)
    newest = edition.bases == base[group]
    np.maximum.at(stamp, group[newest], edition.stamps[newest])
    bare = stamp[group] == base[group]
    return np.asarray((edition.stamps > base[group]) | (newest & bare), np.bool_)


def _horizon(answers: Sequence[ShardHits], k_asked: int) -> Float32:
    horizon = np.full(len(answers[0].counts), np.inf, np.float32)
    for a in answers:
        if a.distances.shape[1] < k_asked:
            continue  # no query of it has as many hits as were asked for
        full = np.flatnonzero(a.counts >= k_asked)
        horizon[full] = np.minimum(horizon[full], a.distances[full, k_asked - 1])
    return horizon


__all__ = ["Contest"]
