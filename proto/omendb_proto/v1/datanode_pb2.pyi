from omendb_proto.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataNodeMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_NODE_METHOD_UNSPECIFIED: _ClassVar[DataNodeMethod]
    DATA_NODE_METHOD_APPLY: _ClassVar[DataNodeMethod]
    DATA_NODE_METHOD_SEARCH: _ClassVar[DataNodeMethod]
    DATA_NODE_METHOD_LOOKUP: _ClassVar[DataNodeMethod]
    DATA_NODE_METHOD_SCORE: _ClassVar[DataNodeMethod]
    DATA_NODE_METHOD_REPAIR: _ClassVar[DataNodeMethod]
    DATA_NODE_METHOD_SCROLL: _ClassVar[DataNodeMethod]
    DATA_NODE_METHOD_SELECT: _ClassVar[DataNodeMethod]
    DATA_NODE_METHOD_MAINTAIN: _ClassVar[DataNodeMethod]
    DATA_NODE_METHOD_SUMS: _ClassVar[DataNodeMethod]
    DATA_NODE_METHOD_ENTRIES: _ClassVar[DataNodeMethod]
DATA_NODE_METHOD_UNSPECIFIED: DataNodeMethod
DATA_NODE_METHOD_APPLY: DataNodeMethod
DATA_NODE_METHOD_SEARCH: DataNodeMethod
DATA_NODE_METHOD_LOOKUP: DataNodeMethod
DATA_NODE_METHOD_SCORE: DataNodeMethod
DATA_NODE_METHOD_REPAIR: DataNodeMethod
DATA_NODE_METHOD_SCROLL: DataNodeMethod
DATA_NODE_METHOD_SELECT: DataNodeMethod
DATA_NODE_METHOD_MAINTAIN: DataNodeMethod
DATA_NODE_METHOD_SUMS: DataNodeMethod
DATA_NODE_METHOD_ENTRIES: DataNodeMethod

class Shard(_message.Message):
    __slots__ = ("collection_uuid", "shard_id", "epoch", "origin")
    COLLECTION_UUID_FIELD_NUMBER: _ClassVar[int]
    SHARD_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    collection_uuid: str
    shard_id: int
    epoch: int
    origin: int
    def __init__(self, collection_uuid: _Optional[str] = ..., shard_id: _Optional[int] = ..., epoch: _Optional[int] = ..., origin: _Optional[int] = ...) -> None: ...

class Blob(_message.Message):
    __slots__ = ("inline", "attachment")
    INLINE_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    inline: bytes
    attachment: int
    def __init__(self, inline: _Optional[bytes] = ..., attachment: _Optional[int] = ...) -> None: ...

class Array(_message.Message):
    __slots__ = ("dtype", "shape", "data")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: Blob
    def __init__(self, dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[_Union[Blob, _Mapping]] = ...) -> None: ...

class NamedArray(_message.Message):
    __slots__ = ("name", "array")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    name: str
    array: Array
    def __init__(self, name: _Optional[str] = ..., array: _Optional[_Union[Array, _Mapping]] = ...) -> None: ...

class IdBlob(_message.Message):
    __slots__ = ("arrow", "data")
    ARROW_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    arrow: bool
    data: Blob
    def __init__(self, arrow: _Optional[bool] = ..., data: _Optional[_Union[Blob, _Mapping]] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("verdict", "hlc", "error")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    HLC_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    verdict: int
    hlc: int
    error: _common_pb2.Error
    def __init__(self, verdict: _Optional[int] = ..., hlc: _Optional[int] = ..., error: _Optional[_Union[_common_pb2.Error, _Mapping]] = ...) -> None: ...

class ApplyCall(_message.Message):
    __slots__ = ("shard", "stamp", "create_only", "batch", "claim", "claimed", "versions", "conditional")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    STAMP_FIELD_NUMBER: _ClassVar[int]
    CREATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    CONDITIONAL_FIELD_NUMBER: _ClassVar[int]
    shard: Shard
    stamp: int
    create_only: bool
    batch: Blob
    claim: int
    claimed: IdBlob
    versions: Blob
    conditional: Blob
    def __init__(self, shard: _Optional[_Union[Shard, _Mapping]] = ..., stamp: _Optional[int] = ..., create_only: _Optional[bool] = ..., batch: _Optional[_Union[Blob, _Mapping]] = ..., claim: _Optional[int] = ..., claimed: _Optional[_Union[IdBlob, _Mapping]] = ..., versions: _Optional[_Union[Blob, _Mapping]] = ..., conditional: _Optional[_Union[Blob, _Mapping]] = ...) -> None: ...

class AppliedAnswer(_message.Message):
    __slots__ = ("verdict", "lsn", "durability", "existed", "superseded", "newer", "missing", "partial", "barred", "open_rows", "open_stamps")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    EXISTED_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_FIELD_NUMBER: _ClassVar[int]
    NEWER_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    BARRED_FIELD_NUMBER: _ClassVar[int]
    OPEN_ROWS_FIELD_NUMBER: _ClassVar[int]
    OPEN_STAMPS_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    lsn: int
    durability: str
    existed: int
    superseded: Blob
    newer: Blob
    missing: Blob
    partial: bool
    barred: Blob
    open_rows: Blob
    open_stamps: Blob
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ..., lsn: _Optional[int] = ..., durability: _Optional[str] = ..., existed: _Optional[int] = ..., superseded: _Optional[_Union[Blob, _Mapping]] = ..., newer: _Optional[_Union[Blob, _Mapping]] = ..., missing: _Optional[_Union[Blob, _Mapping]] = ..., partial: _Optional[bool] = ..., barred: _Optional[_Union[Blob, _Mapping]] = ..., open_rows: _Optional[_Union[Blob, _Mapping]] = ..., open_stamps: _Optional[_Union[Blob, _Mapping]] = ...) -> None: ...

class SearchCall(_message.Message):
    __slots__ = ("shard", "queries", "k", "field", "condition", "exact", "ef", "recall_target", "score_threshold", "payload", "vectors", "unproven", "explain")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    EF_FIELD_NUMBER: _ClassVar[int]
    RECALL_TARGET_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    UNPROVEN_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    shard: Shard
    queries: Array
    k: int
    field: str
    condition: str
    exact: bool
    ef: int
    recall_target: float
    score_threshold: float
    payload: bool
    vectors: bool
    unproven: bool
    explain: bool
    def __init__(self, shard: _Optional[_Union[Shard, _Mapping]] = ..., queries: _Optional[_Union[Array, _Mapping]] = ..., k: _Optional[int] = ..., field: _Optional[str] = ..., condition: _Optional[str] = ..., exact: _Optional[bool] = ..., ef: _Optional[int] = ..., recall_target: _Optional[float] = ..., score_threshold: _Optional[float] = ..., payload: _Optional[bool] = ..., vectors: _Optional[bool] = ..., unproven: _Optional[bool] = ..., explain: _Optional[bool] = ...) -> None: ...

class Shared(_message.Message):
    __slots__ = ("openings", "positions", "names")
    OPENINGS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    openings: Blob
    positions: Blob
    names: Blob
    def __init__(self, openings: _Optional[_Union[Blob, _Mapping]] = ..., positions: _Optional[_Union[Blob, _Mapping]] = ..., names: _Optional[_Union[Blob, _Mapping]] = ...) -> None: ...

class Overlays(_message.Message):
    __slots__ = ("rows", "bases", "marks")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BASES_FIELD_NUMBER: _ClassVar[int]
    MARKS_FIELD_NUMBER: _ClassVar[int]
    rows: Blob
    bases: Blob
    marks: Blob
    def __init__(self, rows: _Optional[_Union[Blob, _Mapping]] = ..., bases: _Optional[_Union[Blob, _Mapping]] = ..., marks: _Optional[_Union[Blob, _Mapping]] = ...) -> None: ...

class HitsAnswer(_message.Message):
    __slots__ = ("verdict", "distances", "counts", "ids", "stamps", "payload", "vectors", "work", "overlays", "opening", "shared", "lsn", "explanation")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DISTANCES_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    STAMPS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    OVERLAYS_FIELD_NUMBER: _ClassVar[int]
    OPENING_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    distances: Blob
    counts: Blob
    ids: IdBlob
    stamps: Blob
    payload: Blob
    vectors: Array
    work: _common_pb2.Performance
    overlays: Overlays
    opening: int
    shared: Shared
    lsn: int
    explanation: str
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ..., distances: _Optional[_Union[Blob, _Mapping]] = ..., counts: _Optional[_Union[Blob, _Mapping]] = ..., ids: _Optional[_Union[IdBlob, _Mapping]] = ..., stamps: _Optional[_Union[Blob, _Mapping]] = ..., payload: _Optional[_Union[Blob, _Mapping]] = ..., vectors: _Optional[_Union[Array, _Mapping]] = ..., work: _Optional[_Union[_common_pb2.Performance, _Mapping]] = ..., overlays: _Optional[_Union[Overlays, _Mapping]] = ..., opening: _Optional[int] = ..., shared: _Optional[_Union[Shared, _Mapping]] = ..., lsn: _Optional[int] = ..., explanation: _Optional[str] = ...) -> None: ...

class LookupCall(_message.Message):
    __slots__ = ("shard", "ids", "records", "payload", "vectors", "brief")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    BRIEF_FIELD_NUMBER: _ClassVar[int]
    shard: Shard
    ids: IdBlob
    records: bool
    payload: bool
    vectors: _containers.RepeatedScalarFieldContainer[str]
    brief: bool
    def __init__(self, shard: _Optional[_Union[Shard, _Mapping]] = ..., ids: _Optional[_Union[IdBlob, _Mapping]] = ..., records: _Optional[bool] = ..., payload: _Optional[bool] = ..., vectors: _Optional[_Iterable[str]] = ..., brief: _Optional[bool] = ...) -> None: ...

class LookedAnswer(_message.Message):
    __slots__ = ("verdict", "states", "stamps", "digests", "records", "payload", "vectors", "overlays")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    STAMPS_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    OVERLAYS_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    states: Blob
    stamps: Blob
    digests: Blob
    records: _containers.RepeatedCompositeFieldContainer[Blob]
    payload: Blob
    vectors: _containers.RepeatedCompositeFieldContainer[NamedArray]
    overlays: Overlays
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ..., states: _Optional[_Union[Blob, _Mapping]] = ..., stamps: _Optional[_Union[Blob, _Mapping]] = ..., digests: _Optional[_Union[Blob, _Mapping]] = ..., records: _Optional[_Iterable[_Union[Blob, _Mapping]]] = ..., payload: _Optional[_Union[Blob, _Mapping]] = ..., vectors: _Optional[_Iterable[_Union[NamedArray, _Mapping]]] = ..., overlays: _Optional[_Union[Overlays, _Mapping]] = ...) -> None: ...

class ScoreCall(_message.Message):
    __slots__ = ("shard", "query", "ids", "field", "condition")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    shard: Shard
    query: Array
    ids: IdBlob
    field: str
    condition: str
    def __init__(self, shard: _Optional[_Union[Shard, _Mapping]] = ..., query: _Optional[_Union[Array, _Mapping]] = ..., ids: _Optional[_Union[IdBlob, _Mapping]] = ..., field: _Optional[str] = ..., condition: _Optional[str] = ...) -> None: ...

class ScoredAnswer(_message.Message):
    __slots__ = ("verdict", "states", "stamps", "matches", "distances", "overlays")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    STAMPS_FIELD_NUMBER: _ClassVar[int]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    DISTANCES_FIELD_NUMBER: _ClassVar[int]
    OVERLAYS_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    states: Blob
    stamps: Blob
    matches: Blob
    distances: Blob
    overlays: Overlays
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ..., states: _Optional[_Union[Blob, _Mapping]] = ..., stamps: _Optional[_Union[Blob, _Mapping]] = ..., matches: _Optional[_Union[Blob, _Mapping]] = ..., distances: _Optional[_Union[Blob, _Mapping]] = ..., overlays: _Optional[_Union[Overlays, _Mapping]] = ...) -> None: ...

class RepairCall(_message.Message):
    __slots__ = ("shard", "records", "gc_floor", "tied")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    GC_FLOOR_FIELD_NUMBER: _ClassVar[int]
    TIED_FIELD_NUMBER: _ClassVar[int]
    shard: Shard
    records: _containers.RepeatedCompositeFieldContainer[Blob]
    gc_floor: int
    tied: bool
    def __init__(self, shard: _Optional[_Union[Shard, _Mapping]] = ..., records: _Optional[_Iterable[_Union[Blob, _Mapping]]] = ..., gc_floor: _Optional[int] = ..., tied: _Optional[bool] = ...) -> None: ...

class ScrollCall(_message.Message):
    __slots__ = ("shard", "cursor", "limit", "condition", "payload", "vectors")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    shard: Shard
    cursor: str
    limit: int
    condition: str
    payload: bool
    vectors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, shard: _Optional[_Union[Shard, _Mapping]] = ..., cursor: _Optional[str] = ..., limit: _Optional[int] = ..., condition: _Optional[str] = ..., payload: _Optional[bool] = ..., vectors: _Optional[_Iterable[str]] = ...) -> None: ...

class ScrolledAnswer(_message.Message):
    __slots__ = ("verdict", "ids", "stamps", "hashes", "payload", "vectors", "cursor", "overlays")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    STAMPS_FIELD_NUMBER: _ClassVar[int]
    HASHES_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    OVERLAYS_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    ids: IdBlob
    stamps: Blob
    hashes: Blob
    payload: Blob
    vectors: _containers.RepeatedCompositeFieldContainer[NamedArray]
    cursor: str
    overlays: Overlays
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ..., ids: _Optional[_Union[IdBlob, _Mapping]] = ..., stamps: _Optional[_Union[Blob, _Mapping]] = ..., hashes: _Optional[_Union[Blob, _Mapping]] = ..., payload: _Optional[_Union[Blob, _Mapping]] = ..., vectors: _Optional[_Iterable[_Union[NamedArray, _Mapping]]] = ..., cursor: _Optional[str] = ..., overlays: _Optional[_Union[Overlays, _Mapping]] = ...) -> None: ...

class SelectCall(_message.Message):
    __slots__ = ("shard", "condition", "count_only")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    COUNT_ONLY_FIELD_NUMBER: _ClassVar[int]
    shard: Shard
    condition: str
    count_only: bool
    def __init__(self, shard: _Optional[_Union[Shard, _Mapping]] = ..., condition: _Optional[str] = ..., count_only: _Optional[bool] = ...) -> None: ...

class SelectedAnswer(_message.Message):
    __slots__ = ("verdict", "count", "ids", "stamps", "overlays")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    STAMPS_FIELD_NUMBER: _ClassVar[int]
    OVERLAYS_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    count: int
    ids: IdBlob
    stamps: Blob
    overlays: Overlays
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ..., count: _Optional[int] = ..., ids: _Optional[_Union[IdBlob, _Mapping]] = ..., stamps: _Optional[_Union[Blob, _Mapping]] = ..., overlays: _Optional[_Union[Overlays, _Mapping]] = ...) -> None: ...

class MaintainCall(_message.Message):
    __slots__ = ("shard", "task", "through", "openings", "positions", "bytes_per_s")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    THROUGH_FIELD_NUMBER: _ClassVar[int]
    OPENINGS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    shard: Shard
    task: str
    through: int
    openings: _containers.RepeatedScalarFieldContainer[int]
    positions: _containers.RepeatedScalarFieldContainer[int]
    bytes_per_s: int
    def __init__(self, shard: _Optional[_Union[Shard, _Mapping]] = ..., task: _Optional[str] = ..., through: _Optional[int] = ..., openings: _Optional[_Iterable[int]] = ..., positions: _Optional[_Iterable[int]] = ..., bytes_per_s: _Optional[int] = ...) -> None: ...

class MaintainedAnswer(_message.Message):
    __slots__ = ("verdict", "value")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    value: str
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ..., value: _Optional[str] = ...) -> None: ...

class SumsCall(_message.Message):
    __slots__ = ("shard", "through", "gc_floor", "depth", "nodes", "fresh", "agree")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    THROUGH_FIELD_NUMBER: _ClassVar[int]
    GC_FLOOR_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    AGREE_FIELD_NUMBER: _ClassVar[int]
    shard: Shard
    through: int
    gc_floor: int
    depth: int
    nodes: Blob
    fresh: bool
    agree: bool
    def __init__(self, shard: _Optional[_Union[Shard, _Mapping]] = ..., through: _Optional[int] = ..., gc_floor: _Optional[int] = ..., depth: _Optional[int] = ..., nodes: _Optional[_Union[Blob, _Mapping]] = ..., fresh: _Optional[bool] = ..., agree: _Optional[bool] = ...) -> None: ...

class SummedAnswer(_message.Message):
    __slots__ = ("verdict", "counts", "first", "second", "gc_floor", "repaired_through", "opening", "lsn")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    GC_FLOOR_FIELD_NUMBER: _ClassVar[int]
    REPAIRED_THROUGH_FIELD_NUMBER: _ClassVar[int]
    OPENING_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    counts: Blob
    first: Blob
    second: Blob
    gc_floor: int
    repaired_through: int
    opening: int
    lsn: int
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ..., counts: _Optional[_Union[Blob, _Mapping]] = ..., first: _Optional[_Union[Blob, _Mapping]] = ..., second: _Optional[_Union[Blob, _Mapping]] = ..., gc_floor: _Optional[int] = ..., repaired_through: _Optional[int] = ..., opening: _Optional[int] = ..., lsn: _Optional[int] = ...) -> None: ...

class EntriesCall(_message.Message):
    __slots__ = ("shard", "gc_floor", "depth", "nodes", "limit", "cursor")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    GC_FLOOR_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    shard: Shard
    gc_floor: int
    depth: int
    nodes: Blob
    limit: int
    cursor: str
    def __init__(self, shard: _Optional[_Union[Shard, _Mapping]] = ..., gc_floor: _Optional[int] = ..., depth: _Optional[int] = ..., nodes: _Optional[_Union[Blob, _Mapping]] = ..., limit: _Optional[int] = ..., cursor: _Optional[str] = ...) -> None: ...

class ListedAnswer(_message.Message):
    __slots__ = ("verdict", "ids", "states", "stamps", "bases", "digests", "cursor")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    STAMPS_FIELD_NUMBER: _ClassVar[int]
    BASES_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    ids: IdBlob
    states: Blob
    stamps: Blob
    bases: Blob
    digests: Blob
    cursor: str
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ..., ids: _Optional[_Union[IdBlob, _Mapping]] = ..., states: _Optional[_Union[Blob, _Mapping]] = ..., stamps: _Optional[_Union[Blob, _Mapping]] = ..., bases: _Optional[_Union[Blob, _Mapping]] = ..., digests: _Optional[_Union[Blob, _Mapping]] = ..., cursor: _Optional[str] = ...) -> None: ...
