from omendb_proto.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RouterMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROUTER_METHOD_UNSPECIFIED: _ClassVar[RouterMethod]
    ROUTER_METHOD_CREATE_COLLECTION: _ClassVar[RouterMethod]
    ROUTER_METHOD_DROP_COLLECTION: _ClassVar[RouterMethod]
    ROUTER_METHOD_RENAME_COLLECTION: _ClassVar[RouterMethod]
    ROUTER_METHOD_LIST_COLLECTIONS: _ClassVar[RouterMethod]
    ROUTER_METHOD_GET_COLLECTION: _ClassVar[RouterMethod]
    ROUTER_METHOD_UPSERT: _ClassVar[RouterMethod]
    ROUTER_METHOD_UPDATE: _ClassVar[RouterMethod]
    ROUTER_METHOD_DELETE: _ClassVar[RouterMethod]
    ROUTER_METHOD_SEARCH: _ClassVar[RouterMethod]
    ROUTER_METHOD_GET: _ClassVar[RouterMethod]
    ROUTER_METHOD_SCROLL: _ClassVar[RouterMethod]
    ROUTER_METHOD_COUNT: _ClassVar[RouterMethod]
    ROUTER_METHOD_STATS: _ClassVar[RouterMethod]
    ROUTER_METHOD_WAIT_UNTIL_INDEXED: _ClassVar[RouterMethod]
    ROUTER_METHOD_FLUSH: _ClassVar[RouterMethod]
    ROUTER_METHOD_COMPACT: _ClassVar[RouterMethod]
    ROUTER_METHOD_CLUSTER_STATUS: _ClassVar[RouterMethod]
    ROUTER_METHOD_SERVER_INFO: _ClassVar[RouterMethod]
    ROUTER_METHOD_ALTER_COLLECTION: _ClassVar[RouterMethod]
    ROUTER_METHOD_VERIFY: _ClassVar[RouterMethod]
    ROUTER_METHOD_EXPLAIN: _ClassVar[RouterMethod]

class Consistency(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSISTENCY_UNSPECIFIED: _ClassVar[Consistency]
    CONSISTENCY_ONE: _ClassVar[Consistency]
    CONSISTENCY_QUORUM: _ClassVar[Consistency]
    CONSISTENCY_MAJORITY: _ClassVar[Consistency]
    CONSISTENCY_SESSION: _ClassVar[Consistency]
    CONSISTENCY_VERIFIED: _ClassVar[Consistency]
ROUTER_METHOD_UNSPECIFIED: RouterMethod
ROUTER_METHOD_CREATE_COLLECTION: RouterMethod
ROUTER_METHOD_DROP_COLLECTION: RouterMethod
ROUTER_METHOD_RENAME_COLLECTION: RouterMethod
ROUTER_METHOD_LIST_COLLECTIONS: RouterMethod
ROUTER_METHOD_GET_COLLECTION: RouterMethod
ROUTER_METHOD_UPSERT: RouterMethod
ROUTER_METHOD_UPDATE: RouterMethod
ROUTER_METHOD_DELETE: RouterMethod
ROUTER_METHOD_SEARCH: RouterMethod
ROUTER_METHOD_GET: RouterMethod
ROUTER_METHOD_SCROLL: RouterMethod
ROUTER_METHOD_COUNT: RouterMethod
ROUTER_METHOD_STATS: RouterMethod
ROUTER_METHOD_WAIT_UNTIL_INDEXED: RouterMethod
ROUTER_METHOD_FLUSH: RouterMethod
ROUTER_METHOD_COMPACT: RouterMethod
ROUTER_METHOD_CLUSTER_STATUS: RouterMethod
ROUTER_METHOD_SERVER_INFO: RouterMethod
ROUTER_METHOD_ALTER_COLLECTION: RouterMethod
ROUTER_METHOD_VERIFY: RouterMethod
ROUTER_METHOD_EXPLAIN: RouterMethod
CONSISTENCY_UNSPECIFIED: Consistency
CONSISTENCY_ONE: Consistency
CONSISTENCY_QUORUM: Consistency
CONSISTENCY_MAJORITY: Consistency
CONSISTENCY_SESSION: Consistency
CONSISTENCY_VERIFIED: Consistency

class VectorFieldSpec(_message.Message):
    __slots__ = ("name", "dimension", "metric", "dtype")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    dimension: int
    metric: str
    dtype: str
    def __init__(self, name: _Optional[str] = ..., dimension: _Optional[int] = ..., metric: _Optional[str] = ..., dtype: _Optional[str] = ...) -> None: ...

class CollectionSpec(_message.Message):
    __slots__ = ("name", "uuid", "schema_version", "vectors", "options", "shards", "replication", "write_quorum", "read_quorum", "partition_key", "revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UUID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    REPLICATION_FIELD_NUMBER: _ClassVar[int]
    WRITE_QUORUM_FIELD_NUMBER: _ClassVar[int]
    READ_QUORUM_FIELD_NUMBER: _ClassVar[int]
    PARTITION_KEY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    uuid: str
    schema_version: int
    vectors: _containers.RepeatedCompositeFieldContainer[VectorFieldSpec]
    options: str
    shards: int
    replication: int
    write_quorum: int
    read_quorum: int
    partition_key: str
    revision: int
    def __init__(self, name: _Optional[str] = ..., uuid: _Optional[str] = ..., schema_version: _Optional[int] = ..., vectors: _Optional[_Iterable[_Union[VectorFieldSpec, _Mapping]]] = ..., options: _Optional[str] = ..., shards: _Optional[int] = ..., replication: _Optional[int] = ..., write_quorum: _Optional[int] = ..., read_quorum: _Optional[int] = ..., partition_key: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class CreateCollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: CollectionSpec
    def __init__(self, collection: _Optional[_Union[CollectionSpec, _Mapping]] = ...) -> None: ...

class CollectionReply(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: CollectionSpec
    def __init__(self, collection: _Optional[_Union[CollectionSpec, _Mapping]] = ...) -> None: ...

class DropCollectionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DropCollectionReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RenameCollectionRequest(_message.Message):
    __slots__ = ("name", "new_name")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NEW_NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    new_name: str
    def __init__(self, name: _Optional[str] = ..., new_name: _Optional[str] = ...) -> None: ...

class AlterCollectionRequest(_message.Message):
    __slots__ = ("name", "replication", "write_quorum", "read_quorum")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REPLICATION_FIELD_NUMBER: _ClassVar[int]
    WRITE_QUORUM_FIELD_NUMBER: _ClassVar[int]
    READ_QUORUM_FIELD_NUMBER: _ClassVar[int]
    name: str
    replication: int
    write_quorum: int
    read_quorum: int
    def __init__(self, name: _Optional[str] = ..., replication: _Optional[int] = ..., write_quorum: _Optional[int] = ..., read_quorum: _Optional[int] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCollectionsReply(_message.Message):
    __slots__ = ("collections",)
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedCompositeFieldContainer[CollectionSpec]
    def __init__(self, collections: _Optional[_Iterable[_Union[CollectionSpec, _Mapping]]] = ...) -> None: ...

class GetCollectionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class IfVersions(_message.Message):
    __slots__ = ("collection", "versions")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    versions: bytes
    def __init__(self, collection: _Optional[str] = ..., versions: _Optional[bytes] = ...) -> None: ...

class UpsertRequest(_message.Message):
    __slots__ = ("collection", "ids", "vectors", "payload", "create_only", "retry_stamp", "if_versions")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    CREATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    RETRY_STAMP_FIELD_NUMBER: _ClassVar[int]
    IF_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _common_pb2.Ids
    vectors: _containers.RepeatedCompositeFieldContainer[_common_pb2.Vectors]
    payload: _common_pb2.Columns
    create_only: bool
    retry_stamp: int
    if_versions: IfVersions
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., vectors: _Optional[_Iterable[_Union[_common_pb2.Vectors, _Mapping]]] = ..., payload: _Optional[_Union[_common_pb2.Columns, _Mapping]] = ..., create_only: _Optional[bool] = ..., retry_stamp: _Optional[int] = ..., if_versions: _Optional[_Union[IfVersions, _Mapping]] = ...) -> None: ...

class UpdateRequest(_message.Message):
    __slots__ = ("collection", "ids", "vectors", "payload", "unset", "retry_stamp", "if_versions")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    UNSET_FIELD_NUMBER: _ClassVar[int]
    RETRY_STAMP_FIELD_NUMBER: _ClassVar[int]
    IF_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _common_pb2.Ids
    vectors: _containers.RepeatedCompositeFieldContainer[_common_pb2.Vectors]
    payload: _common_pb2.Columns
    unset: _containers.RepeatedScalarFieldContainer[str]
    retry_stamp: int
    if_versions: IfVersions
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., vectors: _Optional[_Iterable[_Union[_common_pb2.Vectors, _Mapping]]] = ..., payload: _Optional[_Union[_common_pb2.Columns, _Mapping]] = ..., unset: _Optional[_Iterable[str]] = ..., retry_stamp: _Optional[int] = ..., if_versions: _Optional[_Union[IfVersions, _Mapping]] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("collection", "ids", "filter", "retry_stamp", "if_versions")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    RETRY_STAMP_FIELD_NUMBER: _ClassVar[int]
    IF_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _common_pb2.Ids
    filter: str
    retry_stamp: int
    if_versions: IfVersions
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., filter: _Optional[str] = ..., retry_stamp: _Optional[int] = ..., if_versions: _Optional[_Union[IfVersions, _Mapping]] = ...) -> None: ...

class WriteReply(_message.Message):
    __slots__ = ("ids", "count", "stamp", "lsn", "durability", "session")
    IDS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    STAMP_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ids: _common_pb2.Ids
    count: int
    stamp: int
    lsn: int
    durability: str
    session: bytes
    def __init__(self, ids: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., count: _Optional[int] = ..., stamp: _Optional[int] = ..., lsn: _Optional[int] = ..., durability: _Optional[str] = ..., session: _Optional[bytes] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("collection", "queries", "dimension", "k", "field", "filter", "exact", "ef", "recall_target", "score_threshold", "with_payload", "with_vectors", "consistency", "session")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    EF_FIELD_NUMBER: _ClassVar[int]
    RECALL_TARGET_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    WITH_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    WITH_VECTORS_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    queries: bytes
    dimension: int
    k: int
    field: str
    filter: str
    exact: bool
    ef: int
    recall_target: float
    score_threshold: float
    with_payload: bool
    with_vectors: bool
    consistency: Consistency
    session: bytes
    def __init__(self, collection: _Optional[str] = ..., queries: _Optional[bytes] = ..., dimension: _Optional[int] = ..., k: _Optional[int] = ..., field: _Optional[str] = ..., filter: _Optional[str] = ..., exact: _Optional[bool] = ..., ef: _Optional[int] = ..., recall_target: _Optional[float] = ..., score_threshold: _Optional[float] = ..., with_payload: _Optional[bool] = ..., with_vectors: _Optional[bool] = ..., consistency: _Optional[_Union[Consistency, str]] = ..., session: _Optional[bytes] = ...) -> None: ...

class SearchReply(_message.Message):
    __slots__ = ("counts", "distances", "ids", "payload", "vectors", "performance", "session", "stale_possible")
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    DISTANCES_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    PERFORMANCE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STALE_POSSIBLE_FIELD_NUMBER: _ClassVar[int]
    counts: bytes
    distances: bytes
    ids: _common_pb2.Ids
    payload: _common_pb2.Columns
    vectors: _common_pb2.Vectors
    performance: _common_pb2.Performance
    session: bytes
    stale_possible: bool
    def __init__(self, counts: _Optional[bytes] = ..., distances: _Optional[bytes] = ..., ids: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., payload: _Optional[_Union[_common_pb2.Columns, _Mapping]] = ..., vectors: _Optional[_Union[_common_pb2.Vectors, _Mapping]] = ..., performance: _Optional[_Union[_common_pb2.Performance, _Mapping]] = ..., session: _Optional[bytes] = ..., stale_possible: _Optional[bool] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("collection", "ids", "with_payload", "with_vectors", "consistency", "session")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    WITH_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    WITH_VECTORS_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _common_pb2.Ids
    with_payload: bool
    with_vectors: bool
    consistency: Consistency
    session: bytes
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., with_payload: _Optional[bool] = ..., with_vectors: _Optional[bool] = ..., consistency: _Optional[_Union[Consistency, str]] = ..., session: _Optional[bytes] = ...) -> None: ...

class GetReply(_message.Message):
    __slots__ = ("ids", "positions", "payload", "vectors", "versions")
    IDS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    ids: _common_pb2.Ids
    positions: bytes
    payload: _common_pb2.Columns
    vectors: _containers.RepeatedCompositeFieldContainer[_common_pb2.Vectors]
    versions: bytes
    def __init__(self, ids: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., positions: _Optional[bytes] = ..., payload: _Optional[_Union[_common_pb2.Columns, _Mapping]] = ..., vectors: _Optional[_Iterable[_Union[_common_pb2.Vectors, _Mapping]]] = ..., versions: _Optional[bytes] = ...) -> None: ...

class ScrollRequest(_message.Message):
    __slots__ = ("collection", "cursor", "limit", "filter", "with_payload", "with_vectors", "consistency", "session")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    WITH_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    WITH_VECTORS_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    cursor: str
    limit: int
    filter: str
    with_payload: bool
    with_vectors: bool
    consistency: Consistency
    session: bytes
    def __init__(self, collection: _Optional[str] = ..., cursor: _Optional[str] = ..., limit: _Optional[int] = ..., filter: _Optional[str] = ..., with_payload: _Optional[bool] = ..., with_vectors: _Optional[bool] = ..., consistency: _Optional[_Union[Consistency, str]] = ..., session: _Optional[bytes] = ...) -> None: ...

class ScrollReply(_message.Message):
    __slots__ = ("ids", "payload", "vectors", "cursor", "versions")
    IDS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    ids: _common_pb2.Ids
    payload: _common_pb2.Columns
    vectors: _containers.RepeatedCompositeFieldContainer[_common_pb2.Vectors]
    cursor: str
    versions: bytes
    def __init__(self, ids: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., payload: _Optional[_Union[_common_pb2.Columns, _Mapping]] = ..., vectors: _Optional[_Iterable[_Union[_common_pb2.Vectors, _Mapping]]] = ..., cursor: _Optional[str] = ..., versions: _Optional[bytes] = ...) -> None: ...

class CountRequest(_message.Message):
    __slots__ = ("collection", "filter", "consistency", "session")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    filter: str
    consistency: Consistency
    session: bytes
    def __init__(self, collection: _Optional[str] = ..., filter: _Optional[str] = ..., consistency: _Optional[_Union[Consistency, str]] = ..., session: _Optional[bytes] = ...) -> None: ...

class CountReply(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("search", "measure")
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    search: SearchRequest
    measure: bool
    def __init__(self, search: _Optional[_Union[SearchRequest, _Mapping]] = ..., measure: _Optional[bool] = ...) -> None: ...

class ExplainReply(_message.Message):
    __slots__ = ("explanation",)
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    explanation: str
    def __init__(self, explanation: _Optional[str] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class StatsReply(_message.Message):
    __slots__ = ("stats",)
    STATS_FIELD_NUMBER: _ClassVar[int]
    stats: str
    def __init__(self, stats: _Optional[str] = ...) -> None: ...

class WaitUntilIndexedRequest(_message.Message):
    __slots__ = ("collection", "timeout_s")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    collection: str
    timeout_s: float
    def __init__(self, collection: _Optional[str] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class WaitUntilIndexedReply(_message.Message):
    __slots__ = ("indexed",)
    INDEXED_FIELD_NUMBER: _ClassVar[int]
    indexed: bool
    def __init__(self, indexed: _Optional[bool] = ...) -> None: ...

class FlushRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class FlushReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CompactRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class CompactReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VerifyRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class VerifyReply(_message.Message):
    __slots__ = ("equal", "shards")
    EQUAL_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    equal: bool
    shards: str
    def __init__(self, equal: _Optional[bool] = ..., shards: _Optional[str] = ...) -> None: ...

class ClusterStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClusterStatusReply(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: str
    def __init__(self, status: _Optional[str] = ...) -> None: ...

class ServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerInfoReply(_message.Message):
    __slots__ = ("version", "kind", "node_id", "feature_level", "message_bytes_max", "location")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    FEATURE_LEVEL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    version: str
    kind: str
    node_id: str
    feature_level: int
    message_bytes_max: int
    location: str
    def __init__(self, version: _Optional[str] = ..., kind: _Optional[str] = ..., node_id: _Optional[str] = ..., feature_level: _Optional[int] = ..., message_bytes_max: _Optional[int] = ..., location: _Optional[str] = ...) -> None: ...
