"""Errors on their way over a wire: as a protobuf message, as gRPC status and trailing metadata, as HTTP JSON.

Each form brings back the exact class with all that it carries. A class that this release does not know, because a
newer one sent it, comes back as the class that stands for its code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from omendb_common import errors
from omendb_common.errors import OmenDBError
from omendb_common.expected import SHOWN_MAX
from omendb_proto.v1 import common_pb2

TRAILING_KEY = "omendb-error-bin"
"""The gRPC trailing metadata that holds the serialized Error."""

TEXT_BYTES_MAX = 1024
"""Longer texts are cut: an error must fit into the metadata of a call, 8 KiB by gRPC's default."""

_TEXTS = ("field", "bound", "mend")
# Attributes beyond those of OmenDBError, and what they are when the sender left them out. A write of which nothing is
# known may have happened.
_EXTRAS: Mapping[str, Any] = {
    "outcome": "unknown",
    "retry_after": 0.1,
    "acked": None,
    "required": None,
    "stamp": None,
    "pid": None,
    "path": "",
    "offset": None,
    "found": MappingProxyType({}),
}
_COUNT_MAX = (1 << 32) - 1
_UNSIGNED_MAX = (1 << 64) - 1
_SIGNED_MAX = (1 << 63) - 1
_INTEGERS: Mapping[str, tuple[int, int]] = {
    "acked": (0, _COUNT_MAX),
    "required": (0, _COUNT_MAX),
    "stamp": (0, _UNSIGNED_MAX),
    "pid": (-_SIGNED_MAX, _SIGNED_MAX),
    "offset": (-_SIGNED_MAX, _SIGNED_MAX),
}


def _tree(root: type[OmenDBError]) -> Iterator[type[OmenDBError]]:
    """The classes below ``root`` that the tree of errors names, parents first."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child)


_BY_NAME = {cls.__name__: cls for cls in _tree(OmenDBError)}
# Reversed, so that of the classes with one code the parent stays.
_BY_CODE = {cls.code: cls for cls in reversed(list(_tree(OmenDBError)))}


def _extras_of(error: OmenDBError) -> dict[str, Any]:
    return {name: getattr(error, name) for name in _EXTRAS if hasattr(error, name)}


def _extras_of_class(cls: type[OmenDBError]) -> tuple[str, ...]:
    """The attributes beyond OmenDBError's that objects of a class carry."""
    carried: list[str] = []
    if issubclass(cls, errors.ResourceExhaustedError):
        carried.append("retry_after")
    if issubclass(cls, (errors.UnavailableError, errors.DeadlineExceededError)):
        carried += ["outcome", "acked", "required", "stamp"]
    if issubclass(cls, errors.DatabaseLockedError):
        carried.append("pid")
    if issubclass(cls, errors.CorruptionError):
        carried += ["path", "offset"]
    if issubclass(cls, errors.VersionConflictError):
        carried.append("found")
    return tuple(carried)


def _make(class_name: str, code: str, message: str, values: Mapping[str, Any]) -> OmenDBError:
    """An error of the named class, else of its code's, else of the root, with the attributes given."""
    cls = _BY_NAME.get(class_name) or _BY_CODE.get(code, OmenDBError)
    error = cls.__new__(cls)
    OmenDBError.__init__(error, message, **{name: values.get(name) for name in _TEXTS})
    for name in _extras_of_class(cls):
        value = values.get(name)
        setattr(error, name, _EXTRAS[name] if value is None else value)
    if isinstance(error, errors.VersionConflictError):
        error.found = dict(error.found)
    return error


def _cut(text: str) -> str:
    # What cannot be encoded (a lone surrogate out of a file's name) must not turn an error into another one.
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= TEXT_BYTES_MAX:
        return data.decode()
    return data[: TEXT_BYTES_MAX - 3].decode("utf-8", "ignore") + "…"


def to_proto(error: OmenDBError) -> common_pb2.Error:
    """The message of an error; texts of more than TEXT_BYTES_MAX bytes are cut."""
    message = common_pb2.Error(class_name=type(error).__name__, code=error.code, message=_cut(error.message))
    for name in _TEXTS:
        text = getattr(error, name)
        if text is not None:
            setattr(message, name, _cut(str(text)))
    for name, value in _extras_of(error).items():
        if value is None:
            continue
        if name == "retry_after":
            message.retry_after_s = float(value)
        elif name == "found":
            message.found.extend(_point_version(point_id, version) for point_id, version in _shown(value))
        elif name in _INTEGERS:
            low, high = _INTEGERS[name]
            setattr(message, name, min(max(int(value), low), high))
        else:
            setattr(message, name, _cut(value))
    return message


def from_proto(message: common_pb2.Error) -> OmenDBError:
    """The error that :func:`to_proto` described."""
    values: dict[str, Any] = {name: getattr(message, name) for name in _TEXTS if message.HasField(name)}
    values |= {name: getattr(message, name) for name in (*_INTEGERS, "path") if message.HasField(name)}
    if message.HasField("retry_after_s"):
        values["retry_after"] = _wait(message.retry_after_s)
    if message.HasField("outcome"):
        values["outcome"] = "none" if message.outcome == "none" else "unknown"
    values["found"] = {one.number if one.HasField("number") else one.text: one.version for one in message.found}
    return _make(message.class_name, message.code, message.message, values)


def _shown(found: Mapping[int | str, int]) -> list[tuple[int | str, int]]:
    """So many points of a conflict as fit."""
    return list(found.items())[:SHOWN_MAX]


def _point_version(point_id: int | str, version: int) -> common_pb2.PointVersion:
    if isinstance(point_id, int):
        return common_pb2.PointVersion(version=version, number=point_id)
    return common_pb2.PointVersion(version=version, text=_cut(point_id))


def _wait(seconds: float) -> float:
    """A waiting time that can be slept: whatever is not a number of seconds means the default."""
    return seconds if 0.0 <= seconds <= 86_400.0 else _EXTRAS["retry_after"]


def to_bytes(error: OmenDBError) -> bytes:
    """The error as the bytes of its message."""
    return to_proto(error).SerializeToString()


def from_bytes(data: bytes) -> OmenDBError:
    """The error of :func:`to_bytes`; an OmenDBError that says so when the bytes are none."""
    try:
        return from_proto(common_pb2.Error.FromString(data))
    except DecodeError:
        return OmenDBError("the peer answered with an error that cannot be read")


def to_json(error: OmenDBError) -> dict[str, Any]:
    """``{"error": {...}}``, the body of an HTTP answer. ``stamp`` is text: a JSON number may lose its last bits."""
    told: dict[str, Any] = {"class": type(error).__name__, "code": error.code, "message": _cut(error.message)}
    for name in (*_TEXTS, *_EXTRAS):
        value = getattr(error, name, None)
        if value is not None:
            told[name] = _cut(value) if isinstance(value, str) else value
    if "stamp" in told:
        told["stamp"] = str(told["stamp"])
    if "found" in told:
        told["found"] = [{"id": i, "version": str(version)} for i, version in _shown(told["found"])]
    return {"error": told}


def from_json(body: Any, http_status: int = 500) -> OmenDBError:
    """The error of :func:`to_json`.

    Args:
        body: the parsed answer, whatever it is; one that is no such object gives the error of ``http_status``.
    """
    told = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(told, Mapping) or not isinstance(told.get("message"), str):
        return _by_http_status(http_status)
    values: dict[str, Any] = {n: told[n] for n in (*_TEXTS, "path") if isinstance(told.get(n), str)}
    for name, (low, high) in _INTEGERS.items():
        number = _integer(told.get(name))
        if number is not None and low <= number <= high:
            values[name] = number
    if isinstance(told.get("retry_after"), (int, float)):
        values["retry_after"] = _wait(float(told["retry_after"]))
    if told.get("outcome") in ("none", "unknown"):
        values["outcome"] = told["outcome"]
    values["found"] = _found_in(told.get("found"))
    return _make(str(told.get("class", "")), str(told.get("code", "")), told["message"], values)


def _found_in(listed: Any) -> dict[int | str, int]:
    """The points of a conflict, of what a body lists whatever it is."""
    found: dict[int | str, int] = {}
    for one in listed[:SHOWN_MAX] if isinstance(listed, list) else ():
        point_id, version = (one.get("id"), _integer(one.get("version"))) if isinstance(one, Mapping) else (None, None)
        if isinstance(point_id, (int, str)) and not isinstance(point_id, bool) and version is not None:
            found[point_id] = version
    return found


def _integer(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    # At most the digits of a stamp: int() of a long text takes time that grows with its square.
    return int(value) if isinstance(value, str) and len(value) <= 20 and value.isdecimal() else None


def _by_http_status(status: int) -> OmenDBError:
    found = next((cls for cls in _BY_CODE.values() if cls.http_status == status), None)
    if found is None:
        found = errors.InvalidArgumentError if 400 <= status < 500 else OmenDBError
    return _make(found.__name__, found.code, f"the server answered {status}", {})


class RpcFailure(Protocol):
    """What is read of a gRPC error; ``grpc.RpcError`` of a call and ``grpc.aio.AioRpcError`` have it."""

    def code(self) -> Any:
        """The status code, with its ``name``."""

    def details(self) -> str | None:
        """The status message."""

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Keys and values that came with the status."""


def trailing(error: OmenDBError) -> tuple[tuple[str, bytes], ...]:
    """Trailing metadata that lets :func:`from_rpc` make the same error again."""
    return ((TRAILING_KEY, to_bytes(error)),)


def from_rpc(failure: RpcFailure) -> OmenDBError:
    """The error of a failed gRPC call: the one in its trailing metadata, else the one of its status code."""
    for key, value in failure.trailing_metadata() or ():
        if key == TRAILING_KEY and isinstance(value, bytes):
            try:
                return from_proto(common_pb2.Error.FromString(value))
            except DecodeError:
                break
    code = getattr(failure.code(), "name", "UNKNOWN")
    # gRPC's own cancellation, and a broken stream under HTTP/2, leave open what became of the call.
    alias = {"CANCELLED": "UNAVAILABLE", "ABORTED": "UNAVAILABLE", "UNKNOWN": "INTERNAL"}.get(code, code)
    return _make("", alias, failure.details() or f"the call ended with {code}", {})


def of_exception(error: BaseException, report: Callable[[BaseException], object] | None = None) -> OmenDBError:
    """The error to tell a caller of any exception: OmenDB's own as it is, any other as "internal error".

    Args:
        report: given an exception that is not OmenDB's, for the log: nothing of it leaves the process.
    """
    if isinstance(error, OmenDBError):
        return error
    if report is not None:
        report(error)
    return OmenDBError("internal error", mend="see the server's log")


__all__ = [
    "TEXT_BYTES_MAX",
    "TRAILING_KEY",
    "RpcFailure",
    "from_bytes",
    "from_json",
    "from_proto",
    "from_rpc",
    "of_exception",
    "to_bytes",
    "to_json",
    "to_proto",
    "trailing",
]
