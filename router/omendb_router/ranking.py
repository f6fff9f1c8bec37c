"""Hits of several replicas and shards merged, for many queries at once: the newest version of an id, then the nearest.

Decides only (P9 b to d). All in columns: one row per (query, id), whatever the number of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from omendb_common.ids import IdColumn, U64Array
from omendb_common.shard_calls import Float32, Int64, Looked, ShardHits, State

Mask = npt.NDArray[np.bool_]


def verified_at_once(k: int, rounds: int) -> int:
    """How many hits of each query to verify together in this round, when so many rounds did not leave k of them.

    Where most of what is found is gone, one would otherwise ask for k at a time without end.
    """
    return k << 2 * min(rounds, 16)


def candidates_for(k: int, k_max: int) -> int:
    """How many hits to ask each replica for, so that a few that fall away leave enough (P9 a)."""
    return min(k + max(8, k // 4), k_max)


def flat_distances(hits: ShardHits) -> Float32:
    """The distances of the hits only, query by query, parallel to ``hits.ids``."""
    return hits.distances[within(hits.counts, hits.distances.shape[1])]


def flat_queries(counts: Int64) -> Int64:
    """The number of the query that each flat hit belongs to."""
    return np.repeat(np.arange(len(counts), dtype=np.int64), counts)


def within(counts: Int64, width: int) -> Mask:
    """(m, width): which cells of each row are hits."""
    return np.asarray(np.arange(width) < counts[:, None], np.bool_)


def ranked(query: Int64, distance: Float32, hi: U64Array, lo: U64Array) -> Int64:
    """The order by query, then nearest first, then by id, so that equal distances have one order everywhere."""
    order: Int64 = np.lexsort((lo, hi, distance, query))
    return order


def ranks(sorted_query: Int64) -> Int64:
    """The place of each row within its query, for rows ordered by query."""
    n = len(sorted_query)
    starts = np.searchsorted(sorted_query, sorted_query, side="left")
    return np.arange(n, dtype=np.int64) - starts


def matrix(distance: Float32, query: Int64, m: int, k: int) -> tuple[Float32, Int64]:
    """Flat distances, ordered by query, as (m, k) with how many of each row are hits; the rest is infinite."""
    counts = np.bincount(query, minlength=m).astype(np.int64)
    out = np.full((m, k), np.inf, np.float32)
    out[within(counts, k)] = distance
    return out, counts


@dataclass(slots=True)
class Contest:
    """Hits of ``m`` queries on one shard, as ``r`` replicas have them, until the versions shown are proven newest.

    ``ids`` are the distinct ids; ``known`` (r, ids) the stamp that each replica has of each, where ``asked``;
    ``deleted`` (r, ids): that stamp is a deletion's. The entries (``query``, ``uid``, ``stamp``, ``distance``) are in
    rank order; ``rank`` is the place of each within its query. ``horizon`` (m,): below this distance no replica has
    withheld a hit.
    """

    m: int
    k: int
    ids: IdColumn
    hi: U64Array
    lo: U64Array
    known: U64Array
    asked: Mask
    deleted: Mask
    query: Int64
    uid: Int64
    stamp: U64Array
    distance: Float32
    horizon: Float32
    gone: Mask = field(init=False)
    rank: Int64 = field(init=False)

    def __post_init__(self) -> None:
        self.gone = np.zeros(len(self.query), np.bool_)
        self._sort()

    @staticmethod
    def of(answers: Sequence[ShardHits], k: int, k_asked: int) -> Contest:
        """The merged hits of different replicas, each asked for ``k_asked``: per query and id the newest stamp wins."""
        m = len(answers[0].counts)
        ids = IdColumn.concat([a.ids for a in answers])
        hi, lo = ids.hashes()
        replica = np.repeat(np.arange(len(answers)), [len(a.ids) for a in answers])
        query = np.concatenate([flat_queries(a.counts) for a in answers])
        stamp = np.concatenate([a.stamps for a in answers])
        distance = np.concatenate([flat_distances(a) for a in answers])
        first, uid = distinct(hi, lo)
        known = np.zeros((len(answers), len(first)), np.uint64)
        np.maximum.at(known, (replica, uid), stamp)
        # Per (query, id) the newest version, and of replicas that have the same one the nearest: they agree but for
        # the last bit.
        order = np.lexsort((distance, np.uint64(0xFFFFFFFFFFFFFFFF) - stamp, uid, query))
        q, u = query[order], uid[order]
        keep = np.ones(len(order), np.bool_)
        keep[1:] = (q[1:] != q[:-1]) | (u[1:] != u[:-1])
        order = order[keep]
        horizon = np.full(m, np.inf, np.float32)
        for a in answers:
            if a.distances.shape[1] < k_asked:
                continue  # no query of it has as many hits as were asked for
            full = np.flatnonzero(a.counts >= k_asked)
            horizon[full] = np.minimum(horizon[full], a.distances[full, k_asked - 1])
        return Contest(
            m,
            k,
            ids.take(first),
            hi[first],
            lo[first],
            known,
            known > 0,
            np.zeros(known.shape, np.bool_),
            query[order],
            uid[order],
            stamp[order],
            distance[order],
            horizon,
        )

    def _sort(self) -> None:
        keep = np.flatnonzero(~self.gone)
        query, distance, uid = self.query[keep], self.distance[keep], self.uid[keep]
        order = keep[ranked(query, distance, self.hi[uid], self.lo[uid])]
        self.query, self.uid = self.query[order], self.uid[order]
        self.stamp, self.distance = self.stamp[order], self.distance[order]
        self.gone = np.zeros(len(order), np.bool_)
        self.rank = ranks(self.query)

    def top(self, k: int | None = None) -> Int64:
        """The entries that are the k nearest of their query."""
        return np.flatnonzero(self.rank < (self.k if k is None else k))

    def unasked(self, replica: int, k: int | None = None) -> Int64:
        """Ids among the k nearest of which this replica has said nothing."""
        shown = np.unique(self.uid[self.top(k)])
        silent: Int64 = shown[~self.asked[replica, shown]]
        return silent

    def heard(self, replica: int, uids: Int64, answer: Looked) -> None:
        """What the replica says of ids that it was asked for (P9 c)."""
        self.asked[replica, uids] = True
        newer = answer.stamps >= self.known[replica, uids]
        at = uids[newer]
        self.known[replica, at] = answer.stamps[newer]
        self.deleted[replica, at] = answer.states[newer] == State.DELETED

    def drop_deleted(self) -> None:
        """Let go of the hits whose newest known version is a deletion."""
        newest = self.known.max(axis=0)
        dead = (self.deleted & (self.known == newest)).any(axis=0)
        self.gone |= dead[self.uid]
        if self.gone.any():
            self._sort()

    def outdated(self) -> list[tuple[int, int, Int64]]:
        """Hits among the k nearest that some replica has a newer version of: (that replica, query, entries)."""
        newest = self.known.max(axis=0)
        top = self.top()
        behind = top[self.stamp[top] < newest[self.uid[top]]]
        if not len(behind):
            return []
        owner = self.known.argmax(axis=0)[self.uid[behind]]
        pairs = np.stack([owner, self.query[behind]])
        return [
            (int(r), int(q), behind[(pairs[0] == r) & (pairs[1] == q)]) for r, q in np.unique(pairs, axis=1).T.tolist()
        ]

    def rescored(
        self,
        replica: int,
        entries: Int64,
        stamps: U64Array,
        states: npt.NDArray[np.uint8],
        keep: Mask,
        distance: Float32,
    ) -> None:
        """The replica's own version of these hits: their distance, and whether they are still hits."""
        uids = self.uid[entries]
        self.known[replica, uids] = np.maximum(self.known[replica, uids], stamps)
        self.deleted[replica, uids] = (states == State.DELETED) & (stamps >= self.known[replica, uids])
        self.stamp[entries] = np.maximum(stamps, self.stamp[entries])
        self.distance[entries] = np.where(keep, distance, self.distance[entries])
        self.gone[entries] |= ~keep

    def resort(self) -> None:
        """Put the entries in rank order again."""
        self._sort()

    def short(self) -> Int64:
        """Queries for which a replica may have withheld a hit nearer than one that is shown."""
        top = self.top()
        counts = np.bincount(self.query[top], minlength=self.m)
        worst = np.full(self.m, -np.inf, np.float32)
        np.maximum.at(worst, self.query[top], self.distance[top])
        return np.flatnonzero(((counts < self.k) & np.isfinite(self.horizon)) | (worst > self.horizon))

    def holders(self, uids: Int64, stamps: U64Array) -> Int64:
        """A replica that has just this version of each id."""
        return np.asarray((self.known[:, uids] == stamps).argmax(axis=0), np.int64)


def distinct(hi: U64Array, lo: U64Array) -> tuple[Int64, Int64]:
    """The first row of every distinct key, and each row's number among the distinct keys."""
    n = len(hi)
    if not n:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    order = np.lexsort((lo, hi))
    new = np.ones(n, np.bool_)
    new[1:] = (hi[order[1:]] != hi[order[:-1]]) | (lo[order[1:]] != lo[order[:-1]])
    uid = np.empty(n, np.int64)
    uid[order] = np.cumsum(new) - 1
    return order[new], uid


@dataclass(frozen=True, slots=True)
class Ranked:
    """The k nearest of m queries on one shard, flat and ordered by query: what a merge across shards needs."""

    query: Int64
    distance: Float32
    ids: IdColumn
    stamps: U64Array


def merged(parts: Sequence[Ranked], k: int, *, same_id_in_many: bool) -> tuple[Int64, Int64]:
    """The k nearest over all shards, ordered by query: (number of the shard, row there) of every hit.

    ``same_id_in_many``: an id may be in several shards; only its newest version counts (P9 d).
    """
    shard = np.repeat(np.arange(len(parts)), [len(p.query) for p in parts])
    row = np.concatenate([np.arange(len(p.query)) for p in parts])
    query = np.concatenate([p.query for p in parts])
    distance = np.concatenate([p.distance for p in parts])
    hashes = [p.ids.hashes() for p in parts]
    hi, lo = np.concatenate([h for h, _ in hashes]), np.concatenate([h for _, h in hashes])
    order = ranked(query, distance, hi, lo)
    if same_id_in_many:
        stamp = np.concatenate([p.stamps for p in parts])
        _, uid = distinct(hi, lo)
        newest = np.zeros(int(uid.max(initial=-1)) + 1, np.uint64)
        np.maximum.at(newest, uid, stamp)
        order = order[stamp[order] == newest[uid[order]]]
    order = order[ranks(query[order]) < k]
    return shard[order], row[order]


__all__ = [
    "Contest",
    "Mask",
    "Ranked",
    "candidates_for",
    "distinct",
    "flat_distances",
    "flat_queries",
    "matrix",
    "merged",
    "ranked",
    "ranks",
    "verified_at_once",
    "within",
]
