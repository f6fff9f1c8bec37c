"""Messages as bytes: a type, fixed fields, and what is of variable length behind them.

Whatever comes from the network is checked here, so that the core may trust its types and bounds.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final

from omendb_coordinator.consensus.messages import (
    COMMAND,
    NOOP,
    Append,
    AppendReply,
    Chunk,
    ChunkReply,
    Entry,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    Stand,
    Vote,
    VoteReply,
)
from omendb_coordinator.consensus.seam import COMMAND_BYTES_MAX


class BadMessageError(ValueError):
    """Bytes that no member would send."""


# Types whose fields are all of fixed length, in the order of their dataclass.
_FIXED: Final[Mapping[int, tuple[type[Any], struct.Struct]]] = {
    1: (PreVote, struct.Struct("<QQQ")),
    2: (PreVoteReply, struct.Struct("<Q?")),
    3: (Vote, struct.Struct("<QQQ?")),
    4: (VoteReply, struct.Struct("<Q?")),
    5: (Heartbeat, struct.Struct("<QQQQ")),
    6: (HeartbeatReply, struct.Struct("<QQQQ")),
    8: (AppendReply, struct.Struct("<QQQ?QQ")),
    10: (ChunkReply, struct.Struct("<QQQQQ")),
    11: (Stand, struct.Struct("<Q")),
}
_CODES: Final[Mapping[type, int]] = {kind: code for code, (kind, _) in _FIXED.items()}
_NAMES: Final[Mapping[int, tuple[str, ...]]] = {
    code: tuple(field.name for field in fields(kind)) for code, (kind, _) in _FIXED.items()
}
_APPEND: Final = 7
_APPEND_FIXED: Final = struct.Struct("<QQQQQI")
_CHUNK: Final = 9
_CHUNK_FIXED: Final = struct.Struct("<QQQQQIQ")
# An entry's index follows from its place.
_ENTRY: Final = struct.Struct("<QBI")


def encode(message: Message) -> list[bytes]:
    """The message in parts, to be sent one after the other."""
    match message:
        case Append():
            parts = [
                bytes([_APPEND]),
                _APPEND_FIXED.pack(
                    message.term,
                    message.round,
                    message.prev_index,
                    message.prev_term,
                    message.commit_index,
                    len(message.entries),
                ),
            ]
            for entry in message.entries:
                parts += (_ENTRY.pack(entry.term, entry.kind, len(entry.command)), entry.command)
            return parts
        case Chunk():
            fixed = _CHUNK_FIXED.pack(
                message.term,
                message.round,
                message.snapshot_index,
                message.snapshot_term,
                message.size,
                message.checksum,
                message.offset,
            )
            return [bytes([_CHUNK]), fixed, message.data]
        case _:
            code = _CODES[type(message)]
            return [bytes([code]), _FIXED[code][1].pack(*[getattr(message, name) for name in _NAMES[code]])]


def decode(data: bytes) -> Message:
    """The message. BadMessageError when it is none."""
    try:
        code = data[0]
        if code == _APPEND:
            return _decode_append(data)
        if code == _CHUNK:
            return _decode_chunk(data)
        kind, form = _FIXED[code]
        make: Callable[..., Any] = kind
        if len(data) != 1 + form.size:
            raise BadMessageError(f"{len(data)} bytes of a message of type {code}")
        message: Message = make(*form.unpack_from(data, 1))
        return message
    except (struct.error, IndexError, KeyError) as error:
        raise BadMessageError(f"{len(data)} bytes that are no message: {error!r}") from error


def _decode_append(data: bytes) -> Append:
    term, round_, prev_index, prev_term, commit_index, count = _APPEND_FIXED.unpack_from(data, 1)
    at = 1 + _APPEND_FIXED.size
    if count > (len(data) - at) // _ENTRY.size:
        raise BadMessageError(f"{count} entries in {len(data)} bytes")
    entries = []
    before = prev_term
    for index in range(prev_index + 1, prev_index + 1 + count):
        entry_term, kind, length = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size + length
        if length > COMMAND_BYTES_MAX or at > len(data) or kind not in (NOOP, COMMAND):
            raise BadMessageError(f"entry {index} of kind {kind} has {length} bytes")
        if not before <= entry_term <= term:
            raise BadMessageError(f"entry {index} of term {entry_term} after {before}, in term {term}")
        before = entry_term
        entries.append(Entry(index, entry_term, kind, data[at - length : at]))
    if at != len(data):
        raise BadMessageError(f"{len(data) - at} bytes too many")
    return Append(term, round_, prev_index, prev_term, commit_index, tuple(entries))


def _decode_chunk(data: bytes) -> Chunk:
    term, round_, index, snapshot_term, size, checksum, offset = _CHUNK_FIXED.unpack_from(data, 1)
    piece = data[1 + _CHUNK_FIXED.size :]
    if offset + len(piece) > size:
        raise BadMessageError(f"{len(piece)} bytes at {offset} of {size}")
    return Chunk(term, round_, index, snapshot_term, size, checksum, offset, piece)


__all__ = ["BadMessageError", "decode", "encode"]
