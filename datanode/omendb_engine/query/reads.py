"""The reads of a replica: search, get, scroll, count. Writers and followers share them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.clock import Clock
from omendb_common.errors import DatabaseClosedError, InvalidArgumentError
from omendb_common.explanation import Explanation, recall_of
from omendb_common.filters import Filter
from omendb_common.ids import IdColumn, U64Array
from omendb_common.schema import (
    K_MAX,
    QUERIES_PER_CALL_MAX,
    SCROLL_LIMIT_MAX,
    CollectionSchema,
    Float32Array,
    VectorField,
)
from omendb_common.scores import distance_to_score
from omendb_engine.index.metric import prepare_queries
from omendb_engine.parts import AnyPart, SegmentPart, Snapshot
from omendb_engine.query.answer import Performance, Picked, SearchAnswer
from omendb_engine.query.explain import explained
from omendb_engine.query.rowset import RowSet
from omendb_engine.query.search import (
    Nearest,
    SearchRequest,
    Work,
    allowed_rows,
    distances_of,
    nearest,
    nearest_among,
    values_at,
)
from omendb_engine.query.versions import Versions
from omendb_engine.resources import Resources
from omendb_engine.vectors import all_finite

_MIB = float(1 << 20)
EF_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a scroll; ``cursor`` continues it, None at the end."""

    picked: Picked
    cursor: str | None


class Reader(ABC):
    """Reads over immutable snapshots. Thread-safe: a read takes one reference and holds no lock."""

    def __init__(self, schema: CollectionSchema, resources: Resources, clock: Clock, recall_target: float) -> None:
        self.schema = schema
        self.resources = resources
        self._clock = clock
        self._recall_target = recall_target

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """The state to read; DatabaseClosedError after close."""

    def _closed_error(self) -> DatabaseClosedError:
        return DatabaseClosedError("the database is closed", field="database", mend="open it again")

    def search(
        self,
        queries: npt.NDArray[Any],
        k: int,
        *,
        field: str = "",
        condition: Filter | None = None,
        exact: bool = False,
        ef: int | None = None,
        recall_target: float | None = None,
        score_threshold: float | None = None,
    ) -> SearchAnswer:
        """The ``k`` nearest points of each query.

        Args:
            queries: (m, dimension), numbers, finite.
            k: 1..16,384.
            condition: only points that match; exact at every selectivity.
            exact: compare every allowed point.
            ef: effort of index searches; None derives it from the recall target.
            recall_target: share of the true neighbours to find, 0 < target <= 1; None: the setting.
            score_threshold: drop hits whose score is below it.

        Raises:
            InvalidArgumentError: naming the argument and its bound.
        """
        started = self._clock.mono_s()
        spec = self.schema.vector(field)
        _check_search(queries, k, spec, ef, recall_target)
        snapshot = self.snapshot()
        prepared = prepare_queries(queries, spec.metric)
        target = self._recall_target if recall_target is None else recall_target
        request = SearchRequest(spec, prepared, k, condition, exact, ef, target)
        work = Work()
        found = nearest(snapshot, request, self.resources, work)
        return self._answer(snapshot, found, spec, score_threshold, work, started)

    def explain(
        self,
        queries: npt.NDArray[Any],
        k: int,
        *,
        field: str = "",
        condition: Filter | None = None,
        exact: bool = False,
        ef: int | None = None,
        recall_target: float | None = None,
        measure: bool = False,
    ) -> Explanation:
        """How :meth:`search` finds the ``k`` nearest: the plan of every part, for one query.

        Args:
            measure: search, search again exactly, and tell the share of the true neighbours that was found.

        Raises:
            InvalidArgumentError: as :meth:`search`.
        """
        spec = self.schema.vector(field)
        _check_search(queries, k, spec, ef, recall_target)
        snapshot = self.snapshot()
        target = self._recall_target if recall_target is None else recall_target
        request = SearchRequest(spec, prepare_queries(queries, spec.metric), k, condition, exact, ef, target)
        plans = explained(snapshot, request, self.resources)
        measured = self._measured(snapshot, request) if measure else None
        return Explanation(k, target, plans, measured)

    def _measured(self, snapshot: Snapshot, request: SearchRequest) -> float:
        """The share of the true neighbours that a search of this snapshot finds."""
        found = self._ids(snapshot, request)
        return recall_of(found, self._ids(snapshot, replace(request, exact=True)))

    def _ids(self, snapshot: Snapshot, request: SearchRequest) -> list[list[Any]]:
        work = Work()
        found = nearest(snapshot, request, self.resources, work)
        answer = self._answer(snapshot, found, request.field, None, work, self._clock.mono_s())
        return [answer.picked(query).ids().to_list() for query in range(len(answer))]

    def search_among(
        self,
        snapshot: Snapshot,
        among: Sequence[tuple[int, RowSet]],
        queries: npt.NDArray[Any],
        k: int,
        *,
        field: str = "",
        condition: Filter | None = None,
        score_threshold: float | None = None,
    ) -> SearchAnswer:
        """The same, exactly, among some rows of the parts of a snapshot: (part's number, live rows)."""
        started = self._clock.mono_s()
        spec = self.schema.vector(field)
        _check_search(queries, k, spec, None, None)
        request = SearchRequest(spec, prepare_queries(queries, spec.metric), k, condition, True, None, 1.0)
        work = Work()
        found = nearest_among(snapshot, among, request, self.resources, work)
        return self._answer(snapshot, found, spec, score_threshold, work, started)

    def _answer(
        self,
        snapshot: Snapshot,
        found: Nearest,
        spec: VectorField,
        score_threshold: float | None,
        work: Work,
        started: float,
    ) -> SearchAnswer:
        distances = distances_of(found.native, spec)
        counts = found.counts
        if score_threshold is not None:
            counts = np.minimum(counts, _above(distances, spec, score_threshold))
        performance = Performance(
            (self._clock.mono_s() - started) * 1e3,
            work.scanned,
            work.searched,
            work.skipped,
            work.hit_rate,
            work.scanned * spec.row_bytes / _MIB,
        )
        return SearchAnswer(snapshot, found.part, found.row, distances, counts, performance)

    def get(self, ids: IdColumn) -> tuple[Picked, npt.NDArray[np.int64]]:
        """The points that exist, in the order asked, and their positions in ``ids``."""
        snapshot = self.snapshot()
        located = snapshot.find(ids)
        where = np.flatnonzero(located.found)
        return Picked(snapshot, located.part[where], located.row[where]), where

    def count(self, condition: Filter | None = None) -> int:
        """How many points there are, or match; exact."""
        snapshot = self.snapshot()
        if condition is None:
            return snapshot.live
        total = 0
        work = Work()
        for part in snapshot.parts:
            allowed = allowed_rows(part, condition, self.resources, work)
            total += part.n if allowed is None else allowed.count
        return total

    def matching_ids(self, condition: Filter) -> IdColumn:
        """The ids of all points that match."""
        snapshot = self.snapshot()
        work = Work()
        columns = []
        for part in snapshot.parts:
            allowed = allowed_rows(part, condition, self.resources, work)
            if allowed is None:
                columns.append(part.all_ids())
            elif allowed.count:
                columns.append(part.all_ids().take(allowed.rows()))
        return IdColumn.concat(columns)

    def select(self, condition: Filter | None) -> Picked:
        """All points that match; None: all there are."""
        snapshot = self.snapshot()
        work = Work()
        numbers: list[npt.NDArray[np.int32]] = []
        found: list[npt.NDArray[np.int64]] = []
        for number, part in enumerate(snapshot.parts):
            allowed = allowed_rows(part, condition, self.resources, work)
            rows = np.arange(part.n) if allowed is None else allowed.rows().astype(np.int64)
            numbers.append(np.full(len(rows), number, np.int32))
            found.append(rows)
        return Picked(snapshot, np.concatenate(numbers), np.concatenate(found))

    def versions(self, ids: IdColumn) -> Versions:
        """What is known of ``ids``."""
        return Versions(self.snapshot(), self.schema, ids)

    def score(
        self, query: npt.NDArray[Any], ids: IdColumn, *, field: str = "", condition: Filter | None = None
    ) -> tuple[Versions, npt.NDArray[np.bool_], Float32Array]:
        """The versions of ``ids``, whether each is live and matches, and its distance (infinite where not).

        A distance is the one that :meth:`search` would give. InvalidArgumentError as there.
        """
        spec = self.schema.vector(field)
        queries = query.reshape(1, -1)
        _check_search(queries, 1, spec, None, None)
        prepared = prepare_queries(queries, spec.metric)
        versions = self.versions(ids)
        matches = np.zeros(len(ids), np.bool_)
        distances = np.full(len(ids), np.inf, np.float32)
        for part, at, rows in versions.picked.groups():
            allowed = allowed_rows(part, condition, self.resources, Work())
            kept = np.ones(len(rows), np.bool_) if allowed is None else allowed.contains(rows)
            where = versions.where[at[kept]]
            matches[where] = True
            distances[where] = distances_of(values_at(part, spec, prepared, rows[kept]), spec)
        return versions, matches, distances

    def scroll(self, cursor: str | None, limit: int, condition: Filter | None = None) -> Page:
        """Points in the order of their id hashes, ``limit`` (1..100,000) at a time.

        The order does not depend on segments, so a point that exists from the first page to the last is
        returned exactly once, whatever is written, sealed or merged between the pages.
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= SCROLL_LIMIT_MAX:
            raise InvalidArgumentError(f"got {limit!r}", field="limit", bound=f"1..{SCROLL_LIMIT_MAX}")
        snapshot = self.snapshot()
        after = _parse_cursor(cursor)
        work = Work()
        keys: list[tuple[int, U64Array, U64Array, npt.NDArray[np.int64]]] = []
        for number, part in enumerate(snapshot.parts):
            if part.n == part.dead.count:
                continue
            allowed = allowed_rows(part, condition, self.resources, work)
            keys.append((number, *_keys_after(part, after, limit + 1, allowed)))
        return _page(snapshot, keys, limit)


def _check_search(
    queries: npt.NDArray[Any], k: int, spec: VectorField, ef: int | None, recall_target: float | None
) -> None:
    # bool and NumPy's integers take the longer way.
    if (type(k) is not int and (isinstance(k, bool) or not isinstance(k, np.integer))) or not 1 <= k <= K_MAX:
        raise InvalidArgumentError(f"got {k!r}", field="k", bound=f"1..{K_MAX}")
    if queries.ndim != 2 or queries.shape[1] != spec.dimension:
        raise InvalidArgumentError(
            f"got shape {queries.shape}", field="vector", bound=f"(m, {spec.dimension}): {spec.dimension} dimensions"
        )
    if not 1 <= len(queries) <= QUERIES_PER_CALL_MAX:
        raise InvalidArgumentError(f"got {len(queries)} queries", field="vectors", bound=f"1..{QUERIES_PER_CALL_MAX}")
    if not all_finite(queries):
        raise InvalidArgumentError("the query has NaN or Inf", field="vector", bound="finite numbers")
    if ef is not None and (isinstance(ef, bool) or not 1 <= ef <= EF_MAX):
        raise InvalidArgumentError(f"got {ef!r}", field="ef", bound=f"1..{EF_MAX}")
    if recall_target is not None and not 0 < recall_target <= 1:
        raise InvalidArgumentError(f"got {recall_target!r}", field="recall_target", bound="above 0, at most 1")


def _above(distances: Float32Array, spec: VectorField, threshold: float) -> npt.NDArray[np.int64]:
    scores = distance_to_score(distances, spec.metric)
    return np.asarray(np.count_nonzero(scores >= threshold, axis=1), np.int64)


def _parse_cursor(cursor: str | None) -> tuple[int, int] | None:
    if cursor is None:
        return None
    try:
        if len(cursor) != 32:
            raise ValueError(cursor)
        return int(cursor[:16], 16), int(cursor[16:], 16)
    except (TypeError, ValueError):
        raise InvalidArgumentError(
            f"got {cursor!r}", field="cursor", bound="a cursor from an earlier page", mend="start without a cursor"
        ) from None


def _sorted_keys(part: AnyPart) -> tuple[U64Array, npt.NDArray[Any]]:
    if isinstance(part, SegmentPart):
        return part.segment.sorted_hi, part.segment.sorted_row
    hi = part.keys()[0]
    order = np.argsort(hi, kind="stable")
    return hi[order], order


def _keys_after(
    part: AnyPart, after: tuple[int, int] | None, limit: int, allowed: RowSet | None
) -> tuple[U64Array, U64Array, npt.NDArray[np.int64]]:
    """The first ``limit`` allowed keys above ``after``, in order: (hi, lo, row)."""
    sorted_hi, sorted_row = _sorted_keys(part)
    hi, lo = part.keys()
    start = 0 if after is None else int(np.searchsorted(sorted_hi, np.uint64(after[0]), "left"))
    taken: list[npt.NDArray[np.int64]] = []
    count, step = 0, max(4 * limit, 1024)
    while start < part.n and count < limit:
        stop = min(start + step, part.n)
        # A run of equal hashes must not be cut: its order within is by lo.
        stop = int(np.searchsorted(sorted_hi, sorted_hi[stop - 1], "right"))
        rows = sorted_row[start:stop].astype(np.int64)
        if allowed is not None:
            rows = rows[allowed.contains(rows)]
        rows = rows[np.lexsort((lo[rows], hi[rows]))]
        if after is not None and len(rows):
            at = np.uint64(after[0])
            rows = rows[(hi[rows] > at) | ((hi[rows] == at) & (lo[rows] > np.uint64(after[1])))]
        taken.append(rows)
        count += len(rows)
        start, step = stop, step * 2
    rows = np.concatenate(taken)[:limit] if taken else np.empty(0, np.int64)
    return hi[rows], lo[rows], rows


def _page(snapshot: Snapshot, keys: list[tuple[int, U64Array, U64Array, npt.NDArray[np.int64]]], limit: int) -> Page:
    if not keys:
        return Page(Picked(snapshot, np.empty(0, np.int32), np.empty(0, np.int64)), None)
    hi = np.concatenate([k[1] for k in keys])
    lo = np.concatenate([k[2] for k in keys])
    row = np.concatenate([k[3] for k in keys])
    part = np.concatenate([np.full(len(k[3]), k[0], np.int32) for k in keys])
    order = np.lexsort((lo, hi))
    more = len(order) > limit
    order = order[:limit]
    cursor = f"{int(hi[order[-1]]):016x}{int(lo[order[-1]]):016x}" if more else None
    return Page(Picked(snapshot, part[order], row[order]), cursor)


__all__ = ["EF_MAX", "Page", "Reader"]
