"""Hits ranked and merged across shards, for many queries at once: the nearest first, of an id in several the newest.

Decides only (P9 a and d). All in columns: one row per (query, id), whatever the number of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omendb_common.ids import IdColumn, U64Array
from omendb_common.shard_calls import Float32, Int64, ShardHits

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
