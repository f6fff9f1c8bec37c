"""Searches, and look-ups, that ask the same of the same shard: joined into one call, and the answer taken apart."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol

import numpy as np

from omendb_common.errors import UnavailableError
from omendb_common.ids import IdColumn
from omendb_common.shard_calls import Looked, Lookup, Search, ShardHits, State, Verdict, Work
from omendb_common.wire.convert import filter_to_text


class JoinedSearches:
    """Searches that differ in their queries alone are one search with all of these."""

    size_max = 256

    def key(self, call: Search) -> Hashable:
        """All but the queries."""
        return (
            call.shard,
            call.k,
            call.field,
            # Not the filter itself: in Python True equals 1, and in a filter it does not.
            filter_to_text(call.condition),
            call.exact,
            call.ef,
            call.recall_target,
            call.score_threshold,
            call.payload,
            call.vectors,
            call.unproven,
            call.explain,
            call.queries.dtype.str,
            call.queries.shape[1],
        )

    def size(self, call: Search) -> int:
        """Its queries."""
        return len(call.queries)

    def joined(self, calls: Sequence[Search]) -> Search:
        """One search with the queries of all."""
        return calls[0]._replace(queries=np.concatenate([call.queries for call in calls]))

    def split(self, answer: ShardHits, sizes: Sequence[int]) -> list[ShardHits]:
        """The hits of each search."""
        return split_hits(answer, sizes)


class JoinedLookups:
    """Look-ups that ask for the same of different ids are one look-up of all of these; those of whole records are not.

    An id that several of them name is looked up for each: an answer stays parallel to its ids.
    """

    size_max = 4096

    def key(self, call: Lookup) -> Hashable:
        """All but the ids; None for what travels alone."""
        return None if call.records else (call.shard, call.payload, call.vectors, call.brief)

    def size(self, call: Lookup) -> int:
        """Its ids."""
        return len(call.ids)

    def joined(self, calls: Sequence[Lookup]) -> Lookup:
        """One look-up of the ids of all."""
        first = calls[0]
        ids = IdColumn.concat([call.ids for call in calls])
        return Lookup(first.shard, ids, False, first.payload, first.vectors, first.brief)

    def split(self, answer: Looked, sizes: Sequence[int]) -> list[Looked]:
        """What was found of each one's ids."""
        return split_looked(answer, sizes)


def split_hits(hits: ShardHits, sizes: Sequence[int]) -> list[ShardHits]:
    """The answers to the first ``sizes[0]`` queries, to the next ``sizes[1]``, and so on.

    Raises:
        UnavailableError: the answer is not to that many queries.
    """
    if hits.verdict is not Verdict.OK:
        return [hits] * len(sizes)
    total = _check(hits.counts, sizes)
    ends = [0, *np.cumsum(hits.counts).tolist()]
    parts = []
    start = 0
    for count in sizes:
        stop = start + count
        first, last = ends[start], ends[stop]
        payload = hits.payload
        if payload is not None and payload.num_columns:
            payload = payload.slice(first, last - first)
        parts.append(
            ShardHits(
                hits.verdict,
                hits.distances[start:stop],
                hits.counts[start:stop],
                hits.ids.slice(first, last),
                hits.stamps[first:last],
                payload,
                None if hits.vectors is None else hits.vectors[first:last],
                _share(hits.work, count, total),
                hits.hlc,
                hits.error,
                hits.overlays.cut(first, last),
                hits.opening,
                hits.lsn,
                hits.shared,
                hits.explanation,
            )
        )
        start = stop
    return parts


def split_looked(looked: Looked, sizes: Sequence[int]) -> list[Looked]:
    """What was found of the first ``sizes[0]`` ids, of the next ``sizes[1]``, and so on.

    Raises:
        UnavailableError: the answer is not to that many ids.
    """
    if looked.verdict is not Verdict.OK:
        return [looked] * len(sizes)
    _check(looked.states, sizes)
    # Content has a row for each live id.
    lives = [0, *np.cumsum(looked.states == State.LIVE).tolist()]
    parts = []
    start = 0
    for count in sizes:
        stop = start + count
        first, last = lives[start], lives[stop]
        payload = looked.payload
        if payload is not None and payload.num_columns:
            payload = payload.slice(first, last - first)
        parts.append(
            Looked(
                looked.verdict,
                looked.states[start:stop],
                looked.stamps[start:stop],
                looked.digests[start:stop],
                (),
                payload,
                {name: column[first:last] for name, column in looked.vectors.items()},
                looked.hlc,
                looked.error,
                looked.overlays.cut(start, stop),
            )
        )
        start = stop
    return parts


class _Column(Protocol):
    def __len__(self) -> int: ...


def _check(column: _Column, sizes: Sequence[int]) -> int:
    total = sum(sizes)
    if len(column) != total:
        raise UnavailableError(f"answers to {len(column)} questions", bound=f"{total}", outcome="unknown")
    return total


def _share(work: Work, count: int, total: int) -> Work:
    return Work(
        work.vectors_scanned * count // total,
        work.segments_searched,
        work.segments_skipped,
        work.cache_hit_rate,
        work.cost_estimate * count / total,
    )


__all__ = ["JoinedLookups", "JoinedSearches", "split_hits", "split_looked"]
