from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Hello(_message.Message):
    __slots__ = ("version_min", "version_max", "cluster_id", "role", "node_id", "release", "in_flight_max", "frame_bytes_max")
    VERSION_MIN_FIELD_NUMBER: _ClassVar[int]
    VERSION_MAX_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_MAX_FIELD_NUMBER: _ClassVar[int]
    FRAME_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    version_min: int
    version_max: int
    cluster_id: str
    role: str
    node_id: str
    release: str
    in_flight_max: int
    frame_bytes_max: int
    def __init__(self, version_min: _Optional[int] = ..., version_max: _Optional[int] = ..., cluster_id: _Optional[str] = ..., role: _Optional[str] = ..., node_id: _Optional[str] = ..., release: _Optional[str] = ..., in_flight_max: _Optional[int] = ..., frame_bytes_max: _Optional[int] = ...) -> None: ...

class GoAway(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...
