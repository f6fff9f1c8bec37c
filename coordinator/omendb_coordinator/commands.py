"""Commands and results as bytes: what stands in the log, and what applying it answers.

Both are JSON with sorted keys, so that equal values are equal bytes on every member and in every release.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omendb_common import errors
from omendb_common.errors import AlreadyExistsError, FormatVersionError, InvalidArgumentError, OmenDBError

COMMAND_FORMAT = 3
"""Raised when an older release could not apply a new kind of command; proposed only at that feature level."""

FORMATS: Mapping[str, int] = {
    "accept_restored": 2,
    "advance_merge": 3,
    "begin_merge": 3,
    "begin_resize": 2,
    "cancel_merge": 3,
    "reshape_collection": 2,
}
"""The format, and so the feature level, of the kinds of commands that the first release did not know."""


def format_of(op: str) -> int:
    """The format in which a kind of command is written: the oldest that has it, so that an older release reads it."""
    return FORMATS.get(op, 1)


REQUEST_ID_CHARS_MAX = 128
REQUESTS_REMEMBERED = 100_000
"""A repeated command is recognized while at most so many entries of the log lie between the two."""


class ConflictError(AlreadyExistsError):
    """What the command was computed from has changed; nothing was done, and the result is not remembered."""


@dataclass(frozen=True, slots=True)
class Command:
    """One change, as it stands in the log.

    ``request_id`` is the same for every try of one intention. ``proposer_time_ms`` is the proposer's wall clock: the
    only time that applying a command may look at. ``v``: its format, by default that of its kind.
    """

    request_id: str
    client: str
    op: str
    args: Mapping[str, Any]
    proposer_time_ms: int
    v: int = 0

    def __post_init__(self) -> None:
        if not self.v:
            object.__setattr__(self, "v", format_of(self.op))

    def encode(self) -> bytes:
        """The bytes to propose; InvalidArgumentError when an argument is no JSON value."""
        return to_bytes(
            {
                "v": self.v,
                "request_id": self.request_id,
                "client": self.client,
                "op": self.op,
                "args": self.args,
                "proposer_time_ms": self.proposer_time_ms,
            }
        )

    @staticmethod
    def decode(data: bytes, newest: int = COMMAND_FORMAT) -> Command:
        """Read what :meth:`encode` wrote, up to the ``newest`` format.

        Raises:
            FormatVersionError: of a newer release. A member that meets it stops; it must not skip.
            InvalidArgumentError: no command.
        """
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise InvalidArgumentError("not JSON", field="command") from None
        if not isinstance(value, dict):
            raise InvalidArgumentError("not a JSON object", field="command")
        version = whole(value, "v")
        if version > newest:
            raise FormatVersionError(
                f"command format {version}", field="command", bound=f"at most {newest}", mend="upgrade omendb"
            )
        args = value.get("args")
        if not isinstance(args, dict):
            raise InvalidArgumentError("not a JSON object", field="args")
        request_id = text(value, "request_id")
        if not 1 <= len(request_id) <= REQUEST_ID_CHARS_MAX:
            raise InvalidArgumentError("bad length", field="request_id", bound=f"1..{REQUEST_ID_CHARS_MAX} characters")
        return Command(
            request_id, text(value, "client"), text(value, "op"), args, whole(value, "proposer_time_ms"), version
        )


def to_bytes(value: Any) -> bytes:
    """JSON with sorted keys and nothing to spare; InvalidArgumentError for what is no JSON value."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as problem:
        raise InvalidArgumentError(f"no JSON value: {problem}", field="args") from None


def encode_value(value: Any) -> bytes:
    """The result of a command that was carried out."""
    return to_bytes({"value": value})


def encode_error(error: OmenDBError) -> bytes:
    """The result of a command that was refused."""
    return to_bytes(
        {
            "error": {
                "class": type(error).__name__,
                "message": error.message,
                "field": error.field,
                "bound": error.bound,
                "mend": error.mend,
            }
        }
    )


def decode_result(result: bytes) -> Any:
    """The value of :func:`encode_value`; raises the error of :func:`encode_error`."""
    told = json.loads(result)
    if "error" not in told:
        return told["value"]
    error = told["error"]
    kind: type[OmenDBError] = ConflictError
    if error["class"] != ConflictError.__name__:
        kind = getattr(errors, error["class"], OmenDBError)
    raise kind(error["message"], field=error["field"], bound=error["bound"], mend=error["mend"])


def is_conflict(result: bytes) -> bool:
    """Whether a result says that the command must be computed anew."""
    return b'"class":"ConflictError"' in result and "error" in json.loads(result)


def text(args: Mapping[str, Any], name: str) -> str:
    """The string argument ``name``; InvalidArgumentError when it is missing or something else."""
    value = args.get(name)
    if not isinstance(value, str):
        raise InvalidArgumentError(f"got {value!r}", field=name, bound="a string")
    return value


def optional_text(args: Mapping[str, Any], name: str) -> str | None:
    """The string argument ``name``, or None when it is null or missing."""
    return None if args.get(name) is None else text(args, name)


def whole(args: Mapping[str, Any], name: str) -> int:
    """The argument ``name``, an integer of at least 0; InvalidArgumentError otherwise."""
    value = args.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidArgumentError(f"got {value!r}", field=name, bound="an integer of at least 0")
    return value


class RequestMemory:
    """Results by request id, forgotten by the place of their command in the log and never by a clock."""

    def __init__(self, keep: int = REQUESTS_REMEMBERED) -> None:
        self._keep = keep
        # Index, result, and the entry as a snapshot has it: there are too many to encode them all at once.
        self._results: dict[str, tuple[int, bytes, bytes]] = {}

    def recall(self, request_id: str) -> bytes | None:
        """What the command of that id answered, if it was applied not too long ago."""
        found = self._results.get(request_id)
        return None if found is None else found[1]

    def remember(self, index: int, request_id: str, result: bytes) -> None:
        """Keep the result of the command at ``index``, which is greater than all before."""
        self._results[request_id] = (index, result, to_bytes([request_id, index, result.decode()]))

    def forget(self, index: int) -> None:
        """Forget what lies more than the kept number of entries before ``index``."""
        old = []
        for request_id, (when, _, _) in self._results.items():
            if when > index - self._keep:
                break
            old.append(request_id)
        for request_id in old:
            del self._results[request_id]

    def encode(self) -> bytes:
        """A JSON array that :meth:`load` reads back."""
        return b"[" + b",".join([encoded for _, _, encoded in self._results.values()]) + b"]"

    def load(self, value: list[list[Any]]) -> None:
        """Replace everything by what :meth:`encode` wrote."""
        self._results = {}
        for request_id, index, result in value:
            self.remember(int(index), str(request_id), str(result).encode())

    def __len__(self) -> int:
        return len(self._results)


__all__ = [
    "COMMAND_FORMAT",
    "FORMATS",
    "REQUESTS_REMEMBERED",
    "REQUEST_ID_CHARS_MAX",
    "Command",
    "ConflictError",
    "RequestMemory",
    "decode_result",
    "encode_error",
    "encode_value",
    "format_of",
    "is_conflict",
    "optional_text",
    "text",
    "to_bytes",
    "whole",
]
