"""How a search of a snapshot is made, told part by part: the very plans that the search follows, with their reasons."""

from __future__ import annotations

import math

from omendb_common.explanation import SegmentPlan
from omendb_engine.parts import AnyPart, BufferPart, Snapshot
from omendb_engine.payload.statistics import may_match
from omendb_engine.query.plan import EXACT_ROWS_MIN
from omendb_engine.query.search import SearchRequest, Work, step_of
from omendb_engine.resources import Resources


def explained(snapshot: Snapshot, request: SearchRequest, resources: Resources) -> tuple[SegmentPlan, ...]:
    """What :func:`omendb_engine.query.search.nearest` does with each part of ``snapshot`` for one query.

    A search of an index that finds too few among the rows near a query goes on where it says here that it ends.
    """
    return tuple(_explained(number, snapshot, request, resources) for number in range(len(snapshot.parts)))


def _explained(number: int, snapshot: Snapshot, request: SearchRequest, resources: Resources) -> SegmentPlan:
    part = snapshot.parts[number]
    if part.n == part.dead.count:
        return _skipped(part, "every row is deleted or superseded", cached=False)
    work = Work()
    step = step_of(number, part, request, resources, work)
    cached = work.cached > 0
    if step is None:
        return _skipped(part, _why_none(part, request), cached=cached)
    count = part.n if step.allowed is None else step.allowed.count
    if step.graph is None:
        why = _why_exact(part, count, request, copied=step.copy is not None)
        return SegmentPlan(part.part_id, part.n, count, "exact", why, comparisons=count, cached=cached)
    asked = step.plan.wide or request.k
    # Of the neighbours that are picked from, those that pass are as likely found as any others.
    depth = math.ceil(request.k * part.n / count) if step.plan.wide else request.k
    return SegmentPlan(
        part.part_id,
        part.n,
        count,
        "index and pick" if step.plan.wide else "index",
        _why_walk(part, count, request, asked if step.plan.wide else 0),
        step.plan.ef,
        asked,
        step.plan.comparisons,
        step.graph.recall_for(step.plan.ef, depth),
        cached,
    )


def _skipped(part: AnyPart, why: str, *, cached: bool) -> SegmentPlan:
    return SegmentPlan(part.part_id, part.n, 0, "skip", why, cached=cached)


def _why_none(part: AnyPart, request: SearchRequest) -> str:
    condition = request.condition
    if condition is not None and not isinstance(part, BufferPart) and not may_match(condition, part.segment.stats):
        return "the least and greatest values of its fields rule the filter out"
    return "no live row matches the filter"


def _why_exact(part: AnyPart, count: int, request: SearchRequest, *, copied: bool) -> str:
    if request.exact:
        return "an exact search was asked for"
    if copied:
        return (
            f"comparing the {count} rows that match takes less than the index, as their vectors lie copied side by side"
        )
    if isinstance(part, BufferPart):
        return "new points are in no index yet"
    if part.index_of(request.field.name) is None:
        return "the segment has no index for this field"
    if count <= max(EXACT_ROWS_MIN, 2 * request.k):
        return f"comparing {count} rows takes less than any index"
    return f"comparing the {count} rows that match takes less than to find {request.k} of them in the index"


def _why_walk(part: AnyPart, count: int, request: SearchRequest, wide: int) -> str:
    if wide:
        return f"{count} of {part.n} rows match: among the {wide} nearest rows more than {request.k} are expected to"
    if count < part.n:
        return f"the index, which passes by {part.n - count} rows, takes less than comparing all others"
    return f"the index takes less than comparing {part.n} rows"


__all__ = ["explained"]
