"""Nearest neighbours over a snapshot: each part by its plan, then one merge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from omendb_common.filters import Filter, canonical_key
from omendb_common.schema import Float32Array, VectorField
from omendb_engine.index.base import U8Array, VectorIndex
from omendb_engine.index.flat import scan
from omendb_engine.index.metric import native_to_distance
from omendb_engine.index.native import faiss
from omendb_engine.parts import AnyPart, BufferPart, I32Array, I64Array, SegmentPart, Snapshot
from omendb_engine.payload.statistics import may_match
from omendb_engine.query.copies import COPIED_ROW_COST, Copy, copy_of, scan_copy
from omendb_engine.query.filter import evaluate
from omendb_engine.query.plan import (
    EXACT_ROWS_MIN,
    SPARE_FACTOR,
    SPARE_ROWS,
    WALK_COST,
    Plan,
    Strategy,
    choose,
    choose_wide,
)
from omendb_engine.query.rowset import RowSet
from omendb_engine.resources import Resources

# Little work ends sooner on one thread: a team of threads waits for its slowest member, and on a busy machine
# that is a time slice (measured on two loaded cores: 0.5 ms against 50 ms for one scan of 10,000 rows). The members
# wait spinning: where searches come side by side, as in a data node, a team took half as much again of the processor.
_ONE_THREAD_QUERIES_MAX = 4
_ONE_THREAD_COST_MAX = 16_000_000
"""Numbers compared by a scan: about two milliseconds of a core."""
_TEAM_WALK_COST = 4.5
"""What a comparison on a walk costs, in those of a scan of all rows."""
_HOLES_MAX = 2
"""Rows looked at for each that counts, rather than gathering those."""
# Callers ask for few different k and efforts; more than this are not remembered.
_ROUTES_MAX = 64


@dataclass(slots=True)
class Work:
    """Counts of one search, for its performance record."""

    scanned: int = 0
    searched: int = 0
    skipped: int = 0
    lookups: int = 0
    cached: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of filter evaluations found in the cache; 1.0 without any."""
        return self.cached / self.lookups if self.lookups else 1.0


@dataclass(slots=True)
class SearchRequest:
    """What is asked of every part. ``queries``: (m, d) float32 in the metric's search form.

    Not frozen, as one is made per query and a frozen one takes microseconds to make; nobody changes it.
    """

    field: VectorField
    queries: Float32Array
    k: int
    condition: Filter | None
    exact: bool
    ef: int | None
    recall_target: float


@dataclass(slots=True)
class Nearest:
    """(m, k) rows and native values, best first, and how many of each row are hits.

    ``part``: the part numbers (m, k), or one number when all hits come from one part.
    """

    part: I32Array | int
    row: I64Array
    native: Float32Array
    counts: I64Array


def matching(part: AnyPart, condition: Filter | None, resources: Resources, work: Work | None = None) -> RowSet | None:
    """Rows of ``part`` that pass the filter, dead ones included; None without a filter."""
    if condition is None:
        return None
    if isinstance(part, BufferPart):
        return evaluate(condition, part.columns())
    work = work if work is not None else Work()
    segment = part.segment
    key = (segment.uid, canonical_key(condition))
    work.lookups += 1
    rows = resources.filters.get(key)
    if rows is None:
        may = may_match(condition, segment.stats)
        rows = evaluate(condition, segment.columns) if may else RowSet.none(part.n)
        resources.filters.put(key, rows, rows.nbytes)
    else:
        work.cached += 1
        rows.uses += 1
    return rows


def allowed_rows(part: AnyPart, condition: Filter | None, resources: Resources, work: Work) -> RowSet | None:
    """Live rows of ``part`` that pass the filter; None when every row may be returned."""
    return _alive_of(part, matching(part, condition, resources, work))


def _alive_of(part: AnyPart, rows: RowSet | None) -> RowSet | None:
    """Those of ``rows`` (None: of all) that live; None when every row may be returned."""
    if rows is None:
        return part.alive() if part.dead.count else None
    if not part.dead.count:
        return rows
    if rows.is_sparse:
        found = rows.rows()
        return RowSet.of_rows(found[~part.dead.contains(found)], part.n)
    return rows & part.alive()


class Step(NamedTuple):
    """How one part is searched: ``graph`` with ``plan.ef`` where there is one, else exactly.

    ``allowed``: the rows that may be returned, None for all; ``bits``: the same packed, for an index.
    ``wanted``: hits that every query must have. ``matched``: the rows that pass the filter, dead ones too; ``copy``: of
    these, to be compared exactly.
    """

    number: int
    part: AnyPart
    plan: Plan
    graph: VectorIndex | None
    allowed: RowSet | None
    bits: U8Array | None
    wanted: int
    matched: RowSet | None = None
    copy: Copy | None = None


class _Route(NamedTuple):
    """How a snapshot is searched: a step for each part that is, and how many are not.

    ``walks``: whether every step walks an index. ``cost``: of one query, in comparisons of a scan.
    """

    steps: tuple[Step, ...]
    skipped: int
    comparisons: int
    walks: bool
    cost: float


def nearest(snapshot: Snapshot, request: SearchRequest, resources: Resources, work: Work) -> Nearest:
    """The ``k`` nearest live rows of each query over all parts."""
    route = _route(snapshot, request, resources, work)
    m = len(request.queries)
    work.searched += len(route.steps)
    work.skipped += route.skipped
    work.scanned += route.comparisons * m
    # A walk with one query never starts a team of threads.
    if (m == 1 and route.walks) or (m > _ONE_THREAD_QUERIES_MAX and _for_a_team(route, request)):
        return _search(route.steps, request, resources, work)
    # A thread count is per calling thread, so this touches nobody else; the caller gets back what it had.
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        return _search(route.steps, request, resources, work)
    finally:
        faiss.omp_set_num_threads(before)


def nearest_among(
    snapshot: Snapshot,
    among: Sequence[tuple[int, RowSet]],
    request: SearchRequest,
    resources: Resources,
    work: Work,
) -> Nearest:
    """The ``k`` nearest, exactly, among some live rows of some parts: (part's number, rows)."""
    found: list[tuple[int, Float32Array, I64Array]] = []
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        for number, rows in among:
            part = snapshot.parts[number]
            passing = matching(part, request.condition, resources, work)
            allowed = rows if passing is None else rows & passing
            if allowed.count:
                work.scanned += allowed.count * len(request.queries)
                found.append((number, *_scan_few(part, allowed.rows(), request)))
    finally:
        faiss.omp_set_num_threads(before)
    work.searched += len(found)
    return _merge(found, len(request.queries), request.k, request.field.metric == "l2")


def _scan_few(part: AnyPart, rows: I64Array, request: SearchRequest) -> tuple[Float32Array, I64Array]:
    """Compare some rows; those of a buffer mostly lie one after the other, and are not gathered then."""
    first, stop = int(rows[0]), int(rows[-1]) + 1
    if not isinstance(part, BufferPart) or stop - first > _HOLES_MAX * len(rows):
        return _scan(part, RowSet.of_rows(rows, part.n), request)
    mask = None
    if stop - first > len(rows):
        mask = np.zeros(stop - first, np.bool_)
        mask[rows - first] = True
    space = part.space(request.field.name)[first:stop]
    native, found = scan(space, request.queries, request.k, request.field.metric, mask=mask)
    return native, np.where(found < 0, found, found + first)


def _for_a_team(route: _Route, request: SearchRequest) -> bool:
    return route.cost * request.queries.size > _ONE_THREAD_COST_MAX


def _route(snapshot: Snapshot, request: SearchRequest, resources: Resources, work: Work) -> _Route:
    if request.condition is not None:
        return _plan(snapshot, request, resources, work)
    # Without a filter the way depends on nothing but the snapshot and these, so it is found once.
    key = (request.field.name, request.k, request.ef, request.recall_target, request.exact)
    route: _Route | None = snapshot.routes.get(key)
    if route is None:
        if len(snapshot.routes) >= _ROUTES_MAX:
            snapshot.routes.clear()
        route = snapshot.routes[key] = _plan(snapshot, request, resources, work)
    return route


def _plan(snapshot: Snapshot, request: SearchRequest, resources: Resources, work: Work) -> _Route:
    steps: list[Step] = []
    skipped = 0
    for number, part in enumerate(snapshot.parts):
        if part.n == part.dead.count:
            continue
        step = step_of(number, part, request, resources, work)
        if step is None:
            skipped += 1
        else:
            steps.append(step)
    comparisons = sum(step.plan.comparisons for step in steps)
    cost = sum(step.plan.comparisons * (1.0 if step.graph is None else _TEAM_WALK_COST) for step in steps)
    return _Route(tuple(steps), skipped, comparisons, all(step.graph is not None for step in steps), cost)


def step_of(number: int, part: AnyPart, request: SearchRequest, resources: Resources, work: Work) -> Step | None:
    """How a part is searched, by the exact count of the rows that may be returned; None where there is none."""
    matched = matching(part, request.condition, resources, work)
    allowed = _alive_of(part, matched)
    count = part.n if allowed is None else allowed.count
    if count == part.n:
        allowed = None
    k = request.k
    index = part.index_of(request.field.name) if count and isinstance(part, SegmentPart) else None
    ef = 0
    if index is not None and not request.exact:
        ef = max(request.ef or index.effort_for(request.recall_target, k), k)
    plan = None
    if index is not None and allowed is not None and request.condition is not None and not request.exact:
        share = count / part.n
        plan = choose_wide(rows=part.n, allowed=count, k=k, ef=_wide_effort(index, share, request), share=share)
    if plan is None:
        plan = choose(rows=part.n, allowed=count, k=k, ef=ef, has_index=index is not None, exact=request.exact)
    if plan.strategy is Strategy.SKIP:
        return None
    copy = _copy(part, matched, plan, request, resources)
    if copy is not None:
        return Step(number, part, Plan(Strategy.EXACT, 0, count), None, allowed, None, 0, matched, copy)
    if plan.strategy is Strategy.EXACT:
        return Step(number, part, plan, None, allowed, None, 0)
    if plan.wide:
        return Step(number, part, plan, index, allowed, None, k, matched)
    bits = None
    if allowed is not None:
        assert isinstance(part, SegmentPart)
        bits = allowed.bits() if request.condition is not None else part.alive_bits()
    return Step(number, part, plan, index, allowed, bits, min(k, count))


def _copy(
    part: AnyPart, matched: RowSet | None, plan: Plan, request: SearchRequest, resources: Resources
) -> Copy | None:
    """A copy of the rows that match, where comparing all of it costs less than the plan."""
    if matched is None or request.condition is None or not isinstance(part, SegmentPart):
        return None
    cost = plan.comparisons * (WALK_COST if plan.strategy is Strategy.INDEX else 1.0)
    if matched.count <= EXACT_ROWS_MIN or matched.count * COPIED_ROW_COST >= cost or matched.count == part.n:
        return None
    return copy_of(part, request.field, canonical_key(request.condition), matched, resources)


def _wide_effort(index: VectorIndex, share: float, request: SearchRequest) -> int:
    """The effort that finds ``k / share`` neighbours as surely as it would find ``k``."""
    target, k = request.recall_target, request.k
    effort = index.effort_for(target, math.ceil(k / share))
    return effort if request.ef is None else math.ceil(request.ef * effort / index.effort_for(target, k))


def _search(steps: tuple[Step, ...], request: SearchRequest, resources: Resources, work: Work) -> Nearest:
    if len(steps) == 1:
        native, rows = _search_part(steps[0], request, resources, work)
        return Nearest(steps[0].number, rows, native, count_hits(rows))
    found = [(step.number, *_search_part(step, request, resources, work)) for step in steps]
    return _merge(found, len(request.queries), request.k, request.field.metric == "l2")


def _search_part(step: Step, request: SearchRequest, resources: Resources, work: Work) -> tuple[Float32Array, I64Array]:
    if step.copy is not None:
        assert isinstance(step.part, SegmentPart)
        return scan_copy(step.copy, step.part, request.queries, request.k, request.field)
    if step.graph is None:
        return _scan(step.part, step.allowed, request)
    if step.plan.wide:
        return _search_wide(step, request, resources, work)
    native, rows = step.graph.search(request.queries, request.k, ef=step.plan.ef, allowed=step.bits)
    # A graph that a filter has cut to pieces may strand a query. Rather than answer short, look at every row.
    if not _complete(rows, step.wanted):
        short = np.flatnonzero(rows[:, step.wanted - 1] < 0)
        work.scanned += (step.part.n if step.allowed is None else step.allowed.count) * len(short)
        exact_native, exact_rows = _scan(step.part, step.allowed, request, queries=request.queries[short])
        native[short], rows[short] = exact_native, exact_rows
    return native, rows


def _search_wide(step: Step, request: SearchRequest, resources: Resources, work: Work) -> tuple[Float32Array, I64Array]:
    """Ask the index for more rows, without the filter, and take those that pass."""
    assert step.graph is not None and step.allowed is not None
    m, k = len(request.queries), request.k
    near, candidates = step.graph.search(request.queries, step.plan.wide, ef=step.plan.ef)
    passing = step.allowed.contains(candidates)
    if not _complete(candidates, candidates.shape[1]):
        passing &= candidates >= 0
    if m == 1:
        hits = passing[0].nonzero()[0]
        if len(hits) >= k:
            hits = hits[:k]
            return near.take(hits, axis=1), candidates.take(hits, axis=1)
        return _search_thin(step, request, [0], len(hits), resources, work)
    native, rows = np.empty((m, k), np.float32), np.empty((m, k), np.int64)
    short: list[int] = []
    fewest = k
    for query in range(m):
        hits = passing[query].nonzero()[0]
        if len(hits) < k:
            short.append(query)
            fewest = min(fewest, len(hits))
        else:
            native[query], rows[query] = near[query, hits[:k]], candidates[query, hits[:k]]
    if short:
        native[short], rows[short] = _search_thin(step, request, short, fewest, resources, work)
    return native, rows


def _search_thin(
    step: Step, request: SearchRequest, queries: list[int], fewest: int, resources: Resources, work: Work
) -> tuple[Float32Array, I64Array]:
    """Search again for ``queries``, of whose nearest rows only ``fewest`` or a few more pass."""
    part, allowed, graph = step.part, step.allowed, step.graph
    assert allowed is not None and graph is not None and isinstance(part, SegmentPart)
    request = replace(request, queries=request.queries[queries])
    # At least four times as wide: however often it comes to this, the last time costs most of it.
    share = min((fewest + 1) / step.plan.wide, (SPARE_FACTOR * request.k + SPARE_ROWS) / (4 * step.plan.wide))
    ef = _wide_effort(graph, share, request)
    plan = choose_wide(rows=part.n, allowed=allowed.count, k=request.k, ef=ef, share=share)
    copy = _copy(part, step.matched, plan or Plan(Strategy.EXACT, 0, allowed.count), request, resources)
    if copy is None and plan is not None:
        work.scanned += plan.comparisons * len(queries)
        return _search_wide(step._replace(plan=plan), request, resources, work)
    work.scanned += allowed.count * len(queries)
    if copy is not None:
        return scan_copy(copy, part, request.queries, request.k, request.field)
    return _scan(part, allowed, request)


def _complete(rows: I64Array, wanted: int) -> bool:
    """Whether every query has ``wanted`` hits; for one query without the cost of a NumPy reduction."""
    if len(rows) == 1:
        return bool(rows[0, wanted - 1] >= 0)
    return int(rows[:, wanted - 1].min()) >= 0


def _scan(
    part: AnyPart, allowed: RowSet | None, request: SearchRequest, *, queries: Float32Array | None = None
) -> tuple[Float32Array, I64Array]:
    field = request.field
    asked = request.queries if queries is None else queries
    rows = mask = None
    if allowed is not None:
        # Comparing scattered rows one by one beats a pass over all of them up to about a quarter.
        if allowed.count * 4 <= part.n:
            rows = allowed.rows()
        else:
            mask = allowed.mask()
    if isinstance(part, BufferPart):
        return scan(part.space(field.name), asked, request.k, field.metric, rows=rows, mask=mask)
    segment = part.segment
    return scan(
        segment.vectors(field.name),
        asked,
        request.k,
        field.metric,
        dtype=field.dtype,
        norms=segment.norms(field.name),
        rows=rows,
        mask=mask,
    )


def values_at(part: AnyPart, field: VectorField, query: Float32Array, rows: I64Array) -> Float32Array:
    """Native values of ``rows`` for one prepared query (1, d), in their order."""
    order = np.argsort(rows)
    request = SearchRequest(field, query, max(1, len(rows)), None, True, None, 1.0)
    native, found = _scan(part, RowSet.of_rows(rows[order], part.n), request)
    out = np.empty(len(rows), np.float32)
    out[order[np.searchsorted(rows[order], found[0, : len(rows)])]] = native[0, : len(rows)]
    return out


def _merge(found: list[tuple[int, Float32Array, I64Array]], m: int, k: int, ascending: bool) -> Nearest:
    if not found:
        return Nearest(0, np.empty((m, 0), np.int64), np.empty((m, 0), np.float32), np.zeros(m, np.int64))
    native = np.concatenate([f[1] for f in found], axis=1)
    rows = np.concatenate([f[2] for f in found], axis=1)
    numbers = np.concatenate([np.full(f[2].shape[1], f[0], np.int32) for f in found])
    key = native if ascending else -native
    key = np.where(rows < 0, np.float32(np.inf), key)
    order = np.argsort(key, axis=1, kind="stable")[:, :k]
    picked = np.take_along_axis(rows, order, axis=1)
    return Nearest(numbers[order], picked, np.take_along_axis(native, order, axis=1), count_hits(picked))


def distances_of(native: Float32Array, field: VectorField) -> Float32Array:
    """User distances of native values."""
    return native_to_distance(native, field.metric)


def count_hits(rows: I64Array) -> I64Array:
    """How many hits each query has; misses (-1) come last."""
    m, k = rows.shape
    if _complete(rows, k):
        return _full(k) if m == 1 else np.full(m, k, np.int64)
    return np.asarray(np.count_nonzero(rows >= 0, axis=1), np.int64)


@lru_cache(maxsize=256)
def _full(k: int) -> I64Array:
    """What :func:`count_hits` says of one query with ``k`` hits; shared, so nobody may write to it."""
    counts = np.array([k], np.int64)
    counts.flags.writeable = False
    return counts


__all__ = [
    "Nearest",
    "SearchRequest",
    "Step",
    "Work",
    "allowed_rows",
    "count_hits",
    "distances_of",
    "matching",
    "nearest",
    "nearest_among",
    "step_of",
    "values_at",
]
