"""The JSON bodies of the REST face; the OpenAPI document is generated from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from omendb_common.explanation import Choice
from omendb_common.index_options import NLIST_MAX, IndexChoice, QuantizationChoice
from omendb_common.inputs import INCLUDE
from omendb_common.new_schema import VECTOR_FIELDS_MAX
from omendb_common.quorum import REPLICATION_MAX
from omendb_common.ring import SHARDS_MAX
from omendb_common.schema import (
    COLLECTION_NAME_MAX,
    DIMENSION_MAX,
    ID_BYTES_MAX,
    K_MAX,
    QUERIES_PER_CALL_MAX,
    SCROLL_LIMIT_MAX,
)

EF_MAX = 65_536


def _told(description: str = "", **schema: Any) -> Meta:
    """A bound that the document tells and the checks of the embedded database judge, in their own words."""
    return Meta(description=description or None, extra_json_schema=schema)


Name = Annotated[
    str,
    _told(
        "letters, digits, '_', '-', '.', not starting with '-' or '.'",
        minLength=1,
        maxLength=COLLECTION_NAME_MAX,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$",
    ),
]
Dimension = Annotated[int, _told("elements of a vector", minimum=1, maximum=DIMENSION_MAX)]
Metric = Annotated[
    Literal["l2", "cosine", "dot"],
    Meta(description="l2: Euclidean distance; cosine: 1 - cosine similarity; dot: minus the inner product"),
]
DType = Annotated[Literal["float32", "float16", "int8", "uint8"], Meta(description="how elements are stored")]
Id = Annotated[
    int | str,
    _told(
        f"an integer in 0..2**64-1, or a string of 1..{ID_BYTES_MAX} bytes",
        anyOf=[
            {"type": "integer", "minimum": 0, "maximum": (1 << 64) - 1},
            {"type": "string", "minLength": 1, "maxLength": ID_BYTES_MAX},
        ],
    ),
]
Vector = Annotated[list[float], _told(minItems=1, maxItems=DIMENSION_MAX)]
Metadata = Annotated[dict[str, Any], Meta(description="keys to values: booleans, numbers, strings, lists and objects")]
Filters = Annotated[
    dict[str, Any],
    _told(
        "only points that match: a field's path to a value or to operators ($eq, $ne, $gt, $gte, $lt, "
        "$lte, $in, $nin, $exists, $isNull, $contains, $startsWith), joined by $and, $or and $not",
        examples=[{"category": {"$eq": "electronics"}, "price": {"$lte": 1000}}],
    ),
]
Stamp = Annotated[
    str,
    Meta(
        pattern="^[0-9]{1,20}$",
        description="the version of a write, an unsigned 64-bit integer as text",
    ),
]
IfVersion = Annotated[
    Stamp | list[Stamp | None],
    Meta(
        description="write all points or none, and only if each has this version (of all, or one for each id); "
        '"0" or null: only if there is no such point'
    ),
]
Session = Annotated[str, Meta(description="hand it to a read that must see this write", pattern="^[ -~]*$")]
Consistency = Annotated[
    Literal["one", "session", "verified", "quorum", "majority"],
    Meta(
        description="which state a read shows: that of any replica (one), at least the writes of the session token "
        "(session), nothing deleted or superseded though a new point may be missed (verified, of a search), or at "
        "least every write acknowledged before (quorum, also named majority)"
    ),
]
IncludeName = Literal["id", "distance", "score", "metadata", "vector"]
Include = Annotated[list[IncludeName], Meta(description="which columns to answer; the id always is one")]

assert set(INCLUDE) == {"id", "distance", "score", "metadata", "vector"}


def _only_metadata() -> list[IncludeName]:
    return ["metadata"]


class Request(Struct, forbid_unknown_fields=True, kw_only=True):
    """A request's body: what is not named here is refused."""


class Reply(Struct, kw_only=True):
    """An answer's body."""


# -- collections -------------------------------------------------------------------------------------


class VectorSpec(Request):
    """One vector field."""

    dimension: Dimension
    metric: Metric = "l2"
    dtype: DType = "float32"


class CreateCollection(Request):
    """A collection to make: either ``dimension`` (with metric and dtype), or named ``vectors``."""

    name: Name
    dimension: Dimension | None = None
    metric: Metric = "l2"
    dtype: DType = "float32"
    vectors: Annotated[dict[Name, VectorSpec], _told(minProperties=1, maxProperties=VECTOR_FIELDS_MAX)] | None = None
    index: IndexChoice = "auto"
    quantization: QuantizationChoice = "auto"
    nlist: Annotated[int, _told(minimum=0, maximum=NLIST_MAX)] | None = None
    hnsw_m: int | None = None
    hnsw_ef_construction: int | None = None
    if_not_exists: bool = False
    shards: Annotated[int, _told(minimum=1, maximum=SHARDS_MAX)] | None = None
    replication: Annotated[int, _told(minimum=1, maximum=REPLICATION_MAX)] | None = None
    write_quorum: Annotated[int, _told(minimum=1, maximum=REPLICATION_MAX)] | None = None
    read_quorum: Annotated[int, _told(minimum=1, maximum=REPLICATION_MAX)] | None = None
    partition_key: Annotated[str, Meta(min_length=1, max_length=512)] | None = None


class VectorInfo(Reply):
    """One vector field of a collection; ``name`` is empty for the unnamed one."""

    name: str
    dimension: int
    metric: str
    dtype: str


class CollectionBody(Reply):
    """A collection."""

    name: str
    uuid: str
    vectors: list[VectorInfo]
    options: dict[str, Any]
    shards: int
    replication: int
    write_quorum: int
    read_quorum: int
    partition_key: str | None


class CollectionList(Reply):
    """All collections, sorted by name."""

    collections: list[CollectionBody]


class Rename(Request):
    """A collection's new name."""

    new_name: Name


class Alter(Request):
    """Another replication, and other quorums; what is absent stays as it is."""

    replication: Annotated[int, _told(minimum=1, maximum=REPLICATION_MAX)] | None = None
    write_quorum: Annotated[int, _told(minimum=1, maximum=REPLICATION_MAX)] | None = None
    read_quorum: Annotated[int, _told(minimum=1, maximum=REPLICATION_MAX)] | None = None


class Done(Reply):
    """It is done."""

    done: bool = True


# -- writes ------------------------------------------------------------------------------------------


class RowIn(Request):
    """One point: ``vector``, or ``vectors`` by field where the collection has several."""

    id: Id | None = None
    vector: Vector | None = None
    vectors: dict[str, Vector] | None = None
    metadata: Metadata | None = None


class Upsert(Request):
    """Points in columns (``vectors``, and perhaps ``ids`` and ``metadata``), or row by row (``points``).

    ``vectors``: one vector per point, or by field name a list of them. ``metadata``: a list of values per key, or one
    object per point. Without ids the points are numbered. A point that exists is replaced; of an id named twice the
    last wins.
    """

    ids: list[Id] | None = None
    vectors: list[Vector] | dict[str, list[Vector]] | None = None
    metadata: dict[str, list[Any]] | list[Metadata | None] | None = None
    points: Annotated[list[RowIn], _told(minItems=1)] | None = None
    create_only: bool = False
    if_version: IfVersion | None = None
    retry_stamp: Stamp | None = None


class Update(Request):
    """Parts of points that exist: their vectors, some metadata keys, or both; ``unset`` removes keys."""

    ids: list[Id]
    vectors: list[Vector] | dict[str, list[Vector]] | None = None
    metadata: dict[str, list[Any]] | list[Metadata | None] | None = None
    unset: list[str] = []
    if_version: IfVersion | None = None
    retry_stamp: Stamp | None = None


class Delete(Request):
    """Points to delete: by ``ids``, or all that match ``filters``."""

    ids: list[Id] | None = None
    filters: Filters | None = None
    if_version: IfVersion | None = None
    retry_stamp: Stamp | None = None


class WriteBody(Reply):
    """A write that was committed."""

    ids: list[Id]
    written: int
    durability: str
    stamp: Stamp
    lsn: int
    session: Session


class DeleteBody(Reply):
    """A delete that was committed; ``deleted`` counts the points that existed."""

    deleted: int
    durability: str
    stamp: Stamp
    lsn: int
    session: Session


# -- reads -------------------------------------------------------------------------------------------


class SearchBody(Request):
    """One query (``vector``) or several (``vectors``)."""

    vector: Vector | None = None
    vectors: Annotated[list[Vector], _told(maxItems=QUERIES_PER_CALL_MAX)] | None = None
    k: Annotated[int, _told("hits wanted for each query", minimum=1, maximum=K_MAX)] = 10
    filters: Filters | None = None
    include: Include | None = None
    exact: bool = False
    ef: Annotated[int, _told("the effort of a graph search", minimum=1, maximum=EF_MAX)] | None = None
    recall_target: (
        Annotated[float, _told("share of the true neighbours to find", exclusiveMinimum=0, maximum=1)] | None
    ) = None
    score_threshold: Annotated[float, Meta(description="leave out hits with a lower score")] | None = None
    field: Annotated[str, Meta(description="the vector field to search; the first one when left out")] | None = None
    consistency: Consistency | None = None
    session: Session | None = None


class ExplainBody(Request):
    """A search to be explained, and whether to measure what part of an exact search's hits it finds."""

    vector: Vector | None = None
    vectors: Annotated[list[Vector], _told(minItems=1, maxItems=QUERIES_PER_CALL_MAX)] | None = None
    k: Annotated[int, _told("hits wanted for each query", minimum=1, maximum=K_MAX)] = 10
    filters: Filters | None = None
    exact: bool = False
    ef: Annotated[int, _told("the effort of a graph search", minimum=1, maximum=EF_MAX)] | None = None
    recall_target: (
        Annotated[float, _told("share of the true neighbours to find", exclusiveMinimum=0, maximum=1)] | None
    ) = None
    field: Annotated[str, Meta(description="the vector field to search; the first one when left out")] | None = None
    measure: bool = False


class SegmentPlanBody(Reply):
    """What the search does with one segment, or with one buffer of new points (``segment`` is negative)."""

    segment: int
    rows: int
    matching: int
    choice: Choice
    why: str
    effort: int
    asked: int
    comparisons: int
    recall: float
    cached: bool
    shard: int
    node: str


class ExplanationBody(Reply):
    """How a search is made; ``measured_recall`` is null unless it was to be measured."""

    k: int
    recall_target: float
    matching: int
    comparisons: int
    expected_recall: float
    measured_recall: float | None
    segments: list[SegmentPlanBody]


class HitBody(Reply, omit_defaults=True):
    """One point found, with what ``include`` asked for; a smaller distance and a larger score are nearer."""

    id: Id
    distance: float | None = None
    score: float | None = None
    metadata: Metadata | None = None
    vector: list[float] | None = None


class PerformanceBody(Reply):
    """What the search cost; ``cost_estimate`` is in MiB of vectors compared."""

    latency_ms: float
    vectors_scanned: int
    segments_searched: int
    segments_skipped: int
    cache_hit_rate: float
    cost_estimate: float


class QueryHits(Reply):
    """The hits of one query, nearest first."""

    hits: list[HitBody]


class SearchAnswer(Reply, omit_defaults=True):
    """``hits`` where the question was one ``vector``, ``results`` in the queries' order where it was ``vectors``."""

    performance: PerformanceBody
    stale_possible: bool
    hits: list[HitBody] | None = None
    results: list[QueryHits] | None = None
    session: Session = ""


class GetBody(Request):
    """Ids of points to read."""

    ids: Annotated[list[Id], _told(maxItems=SCROLL_LIMIT_MAX)]
    include: Include = msgspec.field(default_factory=_only_metadata)
    consistency: Consistency | None = None
    session: Session | None = None


class PointBody(Reply, omit_defaults=True):
    """A stored point; ``vectors`` by field where there are several. ``version``: another one after each write."""

    id: Id
    version: Stamp
    metadata: Metadata | None = None
    vector: list[float] | None = None
    vectors: dict[str, list[float]] | None = None


class GetAnswer(Reply):
    """The points in the order of the ids asked for; null for each that does not exist."""

    points: list[PointBody | None]


class ScrollBody(Request):
    """Which page to read."""

    limit: Annotated[int, _told(minimum=1, maximum=SCROLL_LIMIT_MAX)] = 100
    cursor: Annotated[str, Meta(description="the cursor that came with the page before")] | None = None
    filters: Filters | None = None
    include: Include = msgspec.field(default_factory=_only_metadata)
    consistency: Consistency | None = None
    session: Session | None = None


class ScrollAnswer(Reply):
    """A page in a fixed order; ``cursor`` is null after the last one."""

    points: list[PointBody]
    cursor: str | None


class CountBody(Request):
    """Which points to count."""

    filters: Filters | None = None
    consistency: Consistency | None = None
    session: Session | None = None


class CountAnswer(Reply):
    """How many points there are, or match; exact."""

    count: int


# -- care --------------------------------------------------------------------------------------------


class WaitBody(Request):
    """How long to wait at most, in seconds."""

    timeout: Annotated[float, _told("seconds", minimum=0, maximum=3600)] = 60.0


class WaitAnswer(Reply):
    """Whether every segment has its index."""

    indexed: bool


class NoBody(Request):
    """Nothing."""


class Health(Reply):
    """How the process is."""

    status: Literal["ok", "starting", "draining"]


class Info(Reply):
    """What answers here."""

    version: str
    kind: Literal["router", "server"]
    node_id: str
    location: str
    grpc_port: int
    body_bytes_max: int


class FoundVersion(Reply):
    """The version that a point has; 0: there is no such point."""

    id: Id
    version: Stamp


class ErrorInfo(Reply, rename={"class_": "class"}, omit_defaults=True):
    """An error: its class, what is wrong, which bound was broken, and how to mend it.

    ``outcome`` of a write: ``none`` when it certainly did not happen, ``unknown`` when it may have.
    """

    class_: str
    code: str
    message: str
    field: str | None = None
    bound: str | None = None
    mend: str | None = None
    outcome: Literal["none", "unknown"] | None = None
    retry_after: float | None = None
    acked: int | None = None
    required: int | None = None
    stamp: str | None = None
    pid: int | None = None
    path: str | None = None
    offset: int | None = None
    found: list[FoundVersion] | None = None


class ErrorBody(Reply):
    """What every failed request answers."""

    error: ErrorInfo


JsonObject = dict[str, Any]

__all__ = [
    "Alter",
    "CollectionBody",
    "CollectionList",
    "CountAnswer",
    "CountBody",
    "CreateCollection",
    "Delete",
    "DeleteBody",
    "Done",
    "ErrorBody",
    "ErrorInfo",
    "ExplainBody",
    "ExplanationBody",
    "FoundVersion",
    "GetAnswer",
    "GetBody",
    "Health",
    "HitBody",
    "Info",
    "JsonObject",
    "NoBody",
    "PerformanceBody",
    "PointBody",
    "QueryHits",
    "Rename",
    "Reply",
    "Request",
    "RowIn",
    "ScrollAnswer",
    "ScrollBody",
    "SearchAnswer",
    "SearchBody",
    "SegmentPlanBody",
    "Update",
    "Upsert",
    "VectorInfo",
    "VectorSpec",
    "WaitAnswer",
    "WaitBody",
    "WriteBody",
]
