from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Proposal(_message.Message):
    __slots__ = ("request_id", "client")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    client: str
    def __init__(self, request_id: _Optional[str] = ..., client: _Optional[str] = ...) -> None: ...

class CatalogCreateRequest(_message.Message):
    __slots__ = ("proposal", "name", "schema_json", "shards", "replication", "write_quorum", "read_quorum", "partition_key")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    REPLICATION_FIELD_NUMBER: _ClassVar[int]
    WRITE_QUORUM_FIELD_NUMBER: _ClassVar[int]
    READ_QUORUM_FIELD_NUMBER: _ClassVar[int]
    PARTITION_KEY_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    name: str
    schema_json: bytes
    shards: int
    replication: int
    write_quorum: int
    read_quorum: int
    partition_key: str
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., name: _Optional[str] = ..., schema_json: _Optional[bytes] = ..., shards: _Optional[int] = ..., replication: _Optional[int] = ..., write_quorum: _Optional[int] = ..., read_quorum: _Optional[int] = ..., partition_key: _Optional[str] = ...) -> None: ...

class CatalogAlterRequest(_message.Message):
    __slots__ = ("proposal", "name", "write_quorum", "read_quorum", "options_json", "replication")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    WRITE_QUORUM_FIELD_NUMBER: _ClassVar[int]
    READ_QUORUM_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_JSON_FIELD_NUMBER: _ClassVar[int]
    REPLICATION_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    name: str
    write_quorum: int
    read_quorum: int
    options_json: bytes
    replication: int
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., name: _Optional[str] = ..., write_quorum: _Optional[int] = ..., read_quorum: _Optional[int] = ..., options_json: _Optional[bytes] = ..., replication: _Optional[int] = ...) -> None: ...

class CatalogDropRequest(_message.Message):
    __slots__ = ("proposal", "name")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    name: str
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., name: _Optional[str] = ...) -> None: ...

class CatalogRenameRequest(_message.Message):
    __slots__ = ("proposal", "old_name", "new_name")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    OLD_NAME_FIELD_NUMBER: _ClassVar[int]
    NEW_NAME_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    old_name: str
    new_name: str
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., old_name: _Optional[str] = ..., new_name: _Optional[str] = ...) -> None: ...

class CatalogAliasRequest(_message.Message):
    __slots__ = ("proposal", "alias", "collection")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    alias: str
    collection: str
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., alias: _Optional[str] = ..., collection: _Optional[str] = ...) -> None: ...

class CatalogPlaceRequest(_message.Message):
    __slots__ = ("proposal", "collection_uuid", "shard_id", "epoch", "replicas")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_UUID_FIELD_NUMBER: _ClassVar[int]
    SHARD_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    collection_uuid: str
    shard_id: int
    epoch: int
    replicas: _containers.RepeatedCompositeFieldContainer[ShardReplica]
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., collection_uuid: _Optional[str] = ..., shard_id: _Optional[int] = ..., epoch: _Optional[int] = ..., replicas: _Optional[_Iterable[_Union[ShardReplica, _Mapping]]] = ...) -> None: ...

class ShardReplica(_message.Message):
    __slots__ = ("node_id", "state")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    state: str
    def __init__(self, node_id: _Optional[str] = ..., state: _Optional[str] = ...) -> None: ...

class CatalogMoveRequest(_message.Message):
    __slots__ = ("proposal", "collection_uuid", "shard_id", "epoch", "source", "target")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_UUID_FIELD_NUMBER: _ClassVar[int]
    SHARD_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    collection_uuid: str
    shard_id: int
    epoch: int
    source: str
    target: str
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., collection_uuid: _Optional[str] = ..., shard_id: _Optional[int] = ..., epoch: _Optional[int] = ..., source: _Optional[str] = ..., target: _Optional[str] = ...) -> None: ...

class CatalogSplitRequest(_message.Message):
    __slots__ = ("proposal", "collection_uuid", "shard_id", "epoch", "at")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_UUID_FIELD_NUMBER: _ClassVar[int]
    SHARD_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    collection_uuid: str
    shard_id: int
    epoch: int
    at: int
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., collection_uuid: _Optional[str] = ..., shard_id: _Optional[int] = ..., epoch: _Optional[int] = ..., at: _Optional[int] = ...) -> None: ...

class CatalogMergeRequest(_message.Message):
    __slots__ = ("proposal", "collection_uuid", "shard_id", "epoch", "other_id", "other_epoch")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_UUID_FIELD_NUMBER: _ClassVar[int]
    SHARD_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    OTHER_ID_FIELD_NUMBER: _ClassVar[int]
    OTHER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    collection_uuid: str
    shard_id: int
    epoch: int
    other_id: int
    other_epoch: int
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., collection_uuid: _Optional[str] = ..., shard_id: _Optional[int] = ..., epoch: _Optional[int] = ..., other_id: _Optional[int] = ..., other_epoch: _Optional[int] = ...) -> None: ...

class CatalogPauseRequest(_message.Message):
    __slots__ = ("proposal", "paused")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    paused: bool
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., paused: _Optional[bool] = ...) -> None: ...

class CatalogDrainRequest(_message.Message):
    __slots__ = ("proposal", "node_id", "draining")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    node_id: str
    draining: bool
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., node_id: _Optional[str] = ..., draining: _Optional[bool] = ...) -> None: ...

class CatalogForgetRequest(_message.Message):
    __slots__ = ("proposal", "node_id")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    node_id: str
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., node_id: _Optional[str] = ...) -> None: ...

class CatalogFinalizeRequest(_message.Message):
    __slots__ = ("proposal",)
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ...) -> None: ...

class CatalogFinalizeReply(_message.Message):
    __slots__ = ("feature_level", "revision")
    FEATURE_LEVEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    feature_level: int
    revision: int
    def __init__(self, feature_level: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...

class CatalogCopyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CatalogCopyReply(_message.Message):
    __slots__ = ("copy",)
    COPY_FIELD_NUMBER: _ClassVar[int]
    copy: bytes
    def __init__(self, copy: _Optional[bytes] = ...) -> None: ...

class CatalogAcceptRequest(_message.Message):
    __slots__ = ("proposal", "collection")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    collection: str
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., collection: _Optional[str] = ...) -> None: ...

class CatalogCollectionReply(_message.Message):
    __slots__ = ("collection_json", "revision")
    COLLECTION_JSON_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    collection_json: bytes
    revision: int
    def __init__(self, collection_json: _Optional[bytes] = ..., revision: _Optional[int] = ...) -> None: ...

class CatalogChangeReply(_message.Message):
    __slots__ = ("revision",)
    REVISION_FIELD_NUMBER: _ClassVar[int]
    revision: int
    def __init__(self, revision: _Optional[int] = ...) -> None: ...

class CatalogListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CatalogListReply(_message.Message):
    __slots__ = ("collections_json", "aliases", "revision")
    class AliasesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    COLLECTIONS_JSON_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    collections_json: bytes
    aliases: _containers.ScalarMap[str, str]
    revision: int
    def __init__(self, collections_json: _Optional[bytes] = ..., aliases: _Optional[_Mapping[str, str]] = ..., revision: _Optional[int] = ...) -> None: ...

class CatalogStatusRequest(_message.Message):
    __slots__ = ("local",)
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    local: bool
    def __init__(self, local: _Optional[bool] = ...) -> None: ...

class CatalogStatusReply(_message.Message):
    __slots__ = ("status_json",)
    STATUS_JSON_FIELD_NUMBER: _ClassVar[int]
    status_json: bytes
    def __init__(self, status_json: _Optional[bytes] = ...) -> None: ...

class MemberRegisterRequest(_message.Message):
    __slots__ = ("proposal", "member_json")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    MEMBER_JSON_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    member_json: bytes
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., member_json: _Optional[bytes] = ...) -> None: ...

class MemberLeaveRequest(_message.Message):
    __slots__ = ("proposal", "node_id", "incarnation")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    node_id: str
    incarnation: str
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., node_id: _Optional[str] = ..., incarnation: _Optional[str] = ...) -> None: ...

class MemberReply(_message.Message):
    __slots__ = ("member_json", "revision")
    MEMBER_JSON_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    member_json: bytes
    revision: int
    def __init__(self, member_json: _Optional[bytes] = ..., revision: _Optional[int] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("node_id", "incarnation", "problems", "fills", "sizes")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    FILLS_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    incarnation: str
    problems: _containers.RepeatedScalarFieldContainer[str]
    fills: _containers.RepeatedCompositeFieldContainer[ReplicaFill]
    sizes: _containers.RepeatedCompositeFieldContainer[ReplicaSize]
    def __init__(self, node_id: _Optional[str] = ..., incarnation: _Optional[str] = ..., problems: _Optional[_Iterable[str]] = ..., fills: _Optional[_Iterable[_Union[ReplicaFill, _Mapping]]] = ..., sizes: _Optional[_Iterable[_Union[ReplicaSize, _Mapping]]] = ...) -> None: ...

class ReplicaSize(_message.Message):
    __slots__ = ("collection_uuid", "shard_id", "rows", "size", "load")
    COLLECTION_UUID_FIELD_NUMBER: _ClassVar[int]
    SHARD_ID_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    collection_uuid: str
    shard_id: int
    rows: int
    size: int
    load: ReplicaLoad
    def __init__(self, collection_uuid: _Optional[str] = ..., shard_id: _Optional[int] = ..., rows: _Optional[int] = ..., size: _Optional[int] = ..., load: _Optional[_Union[ReplicaLoad, _Mapping]] = ...) -> None: ...

class ReplicaLoad(_message.Message):
    __slots__ = ("total", "divides", "cut", "lesser")
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    DIVIDES_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    LESSER_FIELD_NUMBER: _ClassVar[int]
    total: float
    divides: float
    cut: int
    lesser: float
    def __init__(self, total: _Optional[float] = ..., divides: _Optional[float] = ..., cut: _Optional[int] = ..., lesser: _Optional[float] = ...) -> None: ...

class ReplicaFill(_message.Message):
    __slots__ = ("collection_uuid", "shard_id", "session", "rows_done", "rows_total", "bytes_done", "waits_for")
    COLLECTION_UUID_FIELD_NUMBER: _ClassVar[int]
    SHARD_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ROWS_DONE_FIELD_NUMBER: _ClassVar[int]
    ROWS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BYTES_DONE_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    collection_uuid: str
    shard_id: int
    session: int
    rows_done: int
    rows_total: int
    bytes_done: int
    waits_for: str
    def __init__(self, collection_uuid: _Optional[str] = ..., shard_id: _Optional[int] = ..., session: _Optional[int] = ..., rows_done: _Optional[int] = ..., rows_total: _Optional[int] = ..., bytes_done: _Optional[int] = ..., waits_for: _Optional[str] = ...) -> None: ...

class MemberMoveRequest(_message.Message):
    __slots__ = ("proposal", "node_id", "collection_uuid", "shard_id", "epoch")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_UUID_FIELD_NUMBER: _ClassVar[int]
    SHARD_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    node_id: str
    collection_uuid: str
    shard_id: int
    epoch: int
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., node_id: _Optional[str] = ..., collection_uuid: _Optional[str] = ..., shard_id: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("revision", "state")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    revision: int
    state: str
    def __init__(self, revision: _Optional[int] = ..., state: _Optional[str] = ...) -> None: ...

class RepairedRequest(_message.Message):
    __slots__ = ("proposal", "node_id", "shards")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    node_id: str
    shards: _containers.RepeatedCompositeFieldContainer[RepairedShard]
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., node_id: _Optional[str] = ..., shards: _Optional[_Iterable[_Union[RepairedShard, _Mapping]]] = ...) -> None: ...

class RepairedShard(_message.Message):
    __slots__ = ("collection_uuid", "shard_id", "epoch", "through")
    COLLECTION_UUID_FIELD_NUMBER: _ClassVar[int]
    SHARD_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    THROUGH_FIELD_NUMBER: _ClassVar[int]
    collection_uuid: str
    shard_id: int
    epoch: int
    through: int
    def __init__(self, collection_uuid: _Optional[str] = ..., shard_id: _Optional[int] = ..., epoch: _Optional[int] = ..., through: _Optional[int] = ...) -> None: ...

class OriginLeaseRequest(_message.Message):
    __slots__ = ("proposal", "holder", "stamp")
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    STAMP_FIELD_NUMBER: _ClassVar[int]
    proposal: Proposal
    holder: str
    stamp: int
    def __init__(self, proposal: _Optional[_Union[Proposal, _Mapping]] = ..., holder: _Optional[str] = ..., stamp: _Optional[int] = ...) -> None: ...

class OriginLeaseReply(_message.Message):
    __slots__ = ("origin", "stamp_above", "stamp_bound", "auto_id_first", "auto_id_stop")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    STAMP_ABOVE_FIELD_NUMBER: _ClassVar[int]
    STAMP_BOUND_FIELD_NUMBER: _ClassVar[int]
    AUTO_ID_FIRST_FIELD_NUMBER: _ClassVar[int]
    AUTO_ID_STOP_FIELD_NUMBER: _ClassVar[int]
    origin: int
    stamp_above: int
    stamp_bound: int
    auto_id_first: int
    auto_id_stop: int
    def __init__(self, origin: _Optional[int] = ..., stamp_above: _Optional[int] = ..., stamp_bound: _Optional[int] = ..., auto_id_first: _Optional[int] = ..., auto_id_stop: _Optional[int] = ...) -> None: ...

class TopologyRequest(_message.Message):
    __slots__ = ("linearizable",)
    LINEARIZABLE_FIELD_NUMBER: _ClassVar[int]
    linearizable: bool
    def __init__(self, linearizable: _Optional[bool] = ...) -> None: ...

class TopologyReply(_message.Message):
    __slots__ = ("topology_json",)
    TOPOLOGY_JSON_FIELD_NUMBER: _ClassVar[int]
    topology_json: bytes
    def __init__(self, topology_json: _Optional[bytes] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("cluster_id", "revision")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    revision: int
    def __init__(self, cluster_id: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class WatchEvent(_message.Message):
    __slots__ = ("revision", "topology_json", "delta_json")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_JSON_FIELD_NUMBER: _ClassVar[int]
    DELTA_JSON_FIELD_NUMBER: _ClassVar[int]
    revision: int
    topology_json: bytes
    delta_json: bytes
    def __init__(self, revision: _Optional[int] = ..., topology_json: _Optional[bytes] = ..., delta_json: _Optional[bytes] = ...) -> None: ...
