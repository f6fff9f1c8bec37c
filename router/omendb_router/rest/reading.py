"""Routes that read points: search, get, scroll, count."""

from __future__ import annotations

from typing import Any

import msgspec

from omendb_common import inputs
from omendb_common.errors import InvalidArgumentError, NotFoundError
from omendb_common.filters import Filter, parse_filter
from omendb_common.schema import SCROLL_LIMIT_MAX, CollectionSchema, check_collection_name
from omendb_common.wire.convert import filter_from_text
from omendb_router.face_calls import Hits, Question, Seen
from omendb_router.face_inputs import checked_question, checked_seen, raw_matrix
from omendb_router.rest.bodies import (
    Consistency,
    CountAnswer,
    CountBody,
    ExplainBody,
    ExplanationBody,
    GetAnswer,
    GetBody,
    PerformanceBody,
    PointBody,
    QueryHits,
    ScrollAnswer,
    ScrollBody,
    SearchAnswer,
    SearchBody,
    Session,
)
from omendb_router.rest.calls import OCTETS, Call, Params, Route
from omendb_router.rest.columns import hit_bodies, hits_stream, point_bodies

_SEARCH_INCLUDE = ("id", "distance", "score", "metadata")


class RawSearchParams(Params):
    """Query parameters beside raw query vectors: the JSON body's, lists as text with commas, filters as JSON text."""

    k: int = 10
    filters: str = ""
    include: str | None = None
    exact: bool = False
    ef: int | None = None
    recall_target: float | None = None
    score_threshold: float | None = None
    field: str | None = None
    consistency: Consistency | None = None
    session: Session | None = None


class PointParams(Params):
    """Query parameters of one point; ``as`` says which kind of id the path holds: auto takes digits for an integer."""

    id_kind: str = msgspec.field(default="auto", name="as")
    include: str = "metadata"
    consistency: Consistency | None = None
    session: Session | None = None


async def search(call: Call) -> Any:
    """Search, for JSON or raw query vectors; the answer is JSON or an Arrow stream."""
    collection = check_collection_name(call.path["name"])
    schema = (await call.router.find(collection, call.deadline)).schema
    asked: Any = call.params if call.media == OCTETS else call.body
    include, name, queries, filters = _raw_question(schema, call) if call.media == OCTETS else _question(asked)
    question = checked_question(
        schema,
        queries,
        name=name,
        k=asked.k,
        field=asked.field,
        filters=filters,
        exact=asked.exact,
        ef=asked.ef,
        recall_target=asked.recall_target,
        score_threshold=asked.score_threshold,
        payload="metadata" in include,
        vectors="vector" in include,
    )
    seen = _seen(asked)
    if not len(question.queries):
        return SearchAnswer(performance=_no_work(), stale_possible=False, results=[])
    hits = await call.router.search(collection, question, seen=seen, deadline=call.deadline)
    target = schema.vector(question.field)
    if call.arrow:
        return hits_stream(hits, target, include)
    return _told(hits, question, hit_bodies(hits, target, include), name == "vector")


async def explain(call: Call) -> ExplanationBody:
    """How a search is made."""
    asked: ExplainBody = call.body
    collection = check_collection_name(call.path["name"])
    schema = (await call.router.find(collection, call.deadline)).schema
    name, queries = inputs.one_query(None, asked.vector, asked.vectors)
    question = checked_question(
        schema,
        [queries] if name == "vector" else queries,
        name=name,
        k=asked.k,
        field=asked.field,
        filters=asked.filters,
        exact=asked.exact,
        ef=asked.ef,
        recall_target=asked.recall_target,
    )
    if not len(question.queries):
        raise InvalidArgumentError("got no query", field="vectors", bound="one or more")
    told = await call.router.explain(collection, question, measure=asked.measure, deadline=call.deadline)
    return msgspec.convert(told.to_json(), ExplanationBody)


def _question(body: SearchBody) -> tuple[frozenset[str], str, Any, Any]:
    name, queries = inputs.one_query(None, body.vector, body.vectors)
    include = inputs.check_include(_SEARCH_INCLUDE if body.include is None else body.include)
    return include, name, [queries] if name == "vector" else queries, body.filters


def _raw_question(schema: CollectionSchema, call: Call) -> tuple[frozenset[str], str, Any, Filter | None]:
    params: RawSearchParams = call.params
    target = schema.vectors[0] if params.field is None else schema.vector(params.field)
    matrix = raw_matrix(call.body, target.dimension, "<f4", "body")
    include = inputs.check_include(_SEARCH_INCLUDE if params.include is None else _names(params.include))
    return include, "vectors", matrix, filter_from_text(params.filters)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _seen(asked: Any) -> Seen:
    session = asked.session or ""
    if not session.isascii():
        raise InvalidArgumentError("not a token", field="session", bound="a session token of an earlier answer")
    return checked_seen(asked.consistency, session.encode())


def _told(hits: Hits, question: Question, bodies: list[Any], single: bool) -> SearchAnswer:
    answer = SearchAnswer(
        performance=PerformanceBody(
            latency_ms=hits.latency_ms,
            vectors_scanned=hits.work.vectors_scanned,
            segments_searched=hits.work.segments_searched,
            segments_skipped=hits.work.segments_skipped,
            cache_hit_rate=hits.work.cache_hit_rate,
            cost_estimate=hits.work.cost_estimate,
        ),
        stale_possible=hits.stale_possible,
        session=hits.session.decode("ascii"),
    )
    if single:
        answer.hits = bodies[0]
    else:
        answer.results = [QueryHits(hits=hits) for hits in bodies]
    return answer


def _no_work() -> PerformanceBody:
    return PerformanceBody(
        latency_ms=0.0,
        vectors_scanned=0,
        segments_searched=0,
        segments_skipped=0,
        cache_hit_rate=1.0,
        cost_estimate=0.0,
    )


async def get_points(call: Call) -> GetAnswer:
    """Points by id, in the order asked."""
    asked: GetBody = call.body
    include = inputs.check_include(asked.include)
    ids = inputs.as_ids(asked.ids)
    if len(ids) > SCROLL_LIMIT_MAX:
        raise InvalidArgumentError(f"got {len(ids)} ids", field="ids", bound=f"at most {SCROLL_LIMIT_MAX}")
    found = await _found(call, ids, include, _seen(asked))
    points: list[PointBody | None] = [None] * len(ids)
    for place, body in found:
        points[place] = body
    return GetAnswer(points=points)


async def _found(call: Call, ids: Any, include: frozenset[str], seen: Seen) -> list[tuple[int, PointBody]]:
    found = await call.router.get(
        check_collection_name(call.path["name"]),
        ids,
        payload="metadata" in include,
        vectors="vector" in include,
        seen=seen,
        deadline=call.deadline,
    )
    bodies = point_bodies(found.ids, found.versions, found.payload, found.vectors, include)
    return list(zip(found.positions.tolist(), bodies, strict=True))


async def get_point(call: Call) -> PointBody:
    """One point."""
    params: PointParams = call.params
    text, kind = call.path["id"], params.id_kind
    if kind not in ("auto", "integer", "string"):
        raise InvalidArgumentError(f"got {kind!r}", field="as", bound="auto, integer or string")
    digits = text.isascii() and text.isdecimal() and len(text) <= 20
    if kind == "integer" and not digits:
        raise InvalidArgumentError(f"got {text[:100]!r}", field="id", bound="an integer in 0..2**64-1")
    ids = inputs.as_ids([int(text) if digits and kind != "string" else text])
    found = await _found(call, ids, inputs.check_include(_names(params.include)), _seen(params))
    if not found:
        raise NotFoundError(f"no point {text[:100]!r}", field="id", bound="the id of a stored point")
    return found[0][1]


async def scroll(call: Call) -> ScrollAnswer:
    """A page of points."""
    asked: ScrollBody = call.body
    include = inputs.check_include(asked.include)
    page = await call.router.scroll(
        check_collection_name(call.path["name"]),
        asked.cursor,
        inputs.check_count(asked.limit, "limit", SCROLL_LIMIT_MAX),
        parse_filter(asked.filters),
        payload="metadata" in include,
        vectors="vector" in include,
        seen=_seen(asked),
        deadline=call.deadline,
    )
    points = point_bodies(page.ids, page.versions, page.payload, page.vectors, include)
    return ScrollAnswer(points=points, cursor=page.cursor)


async def count(call: Call) -> CountAnswer:
    """How many points there are, or match."""
    asked: CountBody = call.body
    collection = check_collection_name(call.path["name"])
    condition = parse_filter(asked.filters)
    return CountAnswer(count=await call.router.count(collection, condition, seen=_seen(asked), deadline=call.deadline))


ROUTES = (
    Route(
        "POST",
        "/collections/{name}/search",
        "search",
        "Find the nearest points of one vector or several",
        search,
        SearchAnswer,
        SearchBody,
        media={OCTETS: RawSearchParams},
        arrow_answer=True,
        tag="search",
    ),
    Route(
        "POST",
        "/collections/{name}/explain",
        "explain",
        "Tell how a search is made, segment by segment, and how well it finds",
        explain,
        ExplanationBody,
        ExplainBody,
        tag="search",
    ),
    Route("POST", "/collections/{name}/points/get", "getPoints", "Read points by id", get_points, GetAnswer, GetBody),
    Route(
        "GET",
        "/collections/{name}/points/{id}",
        "getPoint",
        "Read one point",
        get_point,
        PointBody,
        params=PointParams,
    ),
    Route(
        "POST",
        "/collections/{name}/scroll",
        "scroll",
        "Read the points page by page",
        scroll,
        ScrollAnswer,
        ScrollBody,
        body_needed=False,
    ),
    Route(
        "POST",
        "/collections/{name}/count",
        "count",
        "Count the points, or those that match",
        count,
        CountAnswer,
        CountBody,
        body_needed=False,
    ),
)

__all__ = [
    "ROUTES",
    "PointParams",
    "RawSearchParams",
    "count",
    "explain",
    "get_point",
    "get_points",
    "scroll",
    "search",
]
