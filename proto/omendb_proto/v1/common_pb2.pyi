from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Error(_message.Message):
    __slots__ = ("class_name", "code", "message", "field", "bound", "mend", "outcome", "retry_after_s", "acked", "required", "stamp", "pid", "path", "offset", "found")
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    MEND_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    STAMP_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    class_name: str
    code: str
    message: str
    field: str
    bound: str
    mend: str
    outcome: str
    retry_after_s: float
    acked: int
    required: int
    stamp: int
    pid: int
    path: str
    offset: int
    found: _containers.RepeatedCompositeFieldContainer[PointVersion]
    def __init__(self, class_name: _Optional[str] = ..., code: _Optional[str] = ..., message: _Optional[str] = ..., field: _Optional[str] = ..., bound: _Optional[str] = ..., mend: _Optional[str] = ..., outcome: _Optional[str] = ..., retry_after_s: _Optional[float] = ..., acked: _Optional[int] = ..., required: _Optional[int] = ..., stamp: _Optional[int] = ..., pid: _Optional[int] = ..., path: _Optional[str] = ..., offset: _Optional[int] = ..., found: _Optional[_Iterable[_Union[PointVersion, _Mapping]]] = ...) -> None: ...

class PointVersion(_message.Message):
    __slots__ = ("number", "text", "version")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    number: int
    text: str
    version: int
    def __init__(self, number: _Optional[int] = ..., text: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class Ids(_message.Message):
    __slots__ = ("packed", "arrow", "strings")
    PACKED_FIELD_NUMBER: _ClassVar[int]
    ARROW_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    packed: bytes
    arrow: bytes
    strings: StringIds
    def __init__(self, packed: _Optional[bytes] = ..., arrow: _Optional[bytes] = ..., strings: _Optional[_Union[StringIds, _Mapping]] = ...) -> None: ...

class StringIds(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class Vectors(_message.Message):
    __slots__ = ("field", "dtype", "dimension", "data")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    field: str
    dtype: str
    dimension: int
    data: bytes
    def __init__(self, field: _Optional[str] = ..., dtype: _Optional[str] = ..., dimension: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Columns(_message.Message):
    __slots__ = ("arrow_ipc",)
    ARROW_IPC_FIELD_NUMBER: _ClassVar[int]
    arrow_ipc: bytes
    def __init__(self, arrow_ipc: _Optional[bytes] = ...) -> None: ...

class Performance(_message.Message):
    __slots__ = ("latency_ms", "vectors_scanned", "segments_searched", "segments_skipped", "cache_hit_rate", "cost_estimate")
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_SCANNED_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_SEARCHED_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_SKIPPED_FIELD_NUMBER: _ClassVar[int]
    CACHE_HIT_RATE_FIELD_NUMBER: _ClassVar[int]
    COST_ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    latency_ms: float
    vectors_scanned: int
    segments_searched: int
    segments_skipped: int
    cache_hit_rate: float
    cost_estimate: float
    def __init__(self, latency_ms: _Optional[float] = ..., vectors_scanned: _Optional[int] = ..., segments_searched: _Optional[int] = ..., segments_skipped: _Optional[int] = ..., cache_hit_rate: _Optional[float] = ..., cost_estimate: _Optional[float] = ...) -> None: ...
