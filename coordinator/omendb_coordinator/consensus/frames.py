"""Frames on a stream: length, checksum, bytes; and the greeting that must come first.

::

    frame     length u32 | crc u32 | body
    greeting  JSON: protocol, cluster_id, sender, receiver, birth, origin
"""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import asdict, dataclass

from omendb_common.checksum import crc32c

FRAME_BYTES_MAX = 32 << 20
GREETING_BYTES_MAX = 4096
PROTOCOL = 1
_HEADER = struct.Struct("<II")


class BadFrameError(ValueError):
    """What came is no frame of ours; the connection is worth nothing any more."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """Who speaks, and to whom; both sides say it first. Birth and origin are those of the sender's identity."""

    cluster_id: str
    sender: str
    receiver: str
    birth: str
    origin: str
    protocol: int = PROTOCOL

    def encode(self) -> bytes:
        """As a frame's body."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(body: bytes) -> Greeting:
        """The greeting; BadFrameError when it is none, or of another protocol."""
        try:
            fields = json.loads(body)
            if fields["protocol"] != PROTOCOL:
                raise BadFrameError(f"protocol {fields['protocol']}, not {PROTOCOL}")
            greeting = Greeting(**fields)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadFrameError(f"no greeting: {error!r}") from error
        texts = (greeting.cluster_id, greeting.sender, greeting.receiver, greeting.birth, greeting.origin)
        if not all(isinstance(text, str) for text in texts):
            raise BadFrameError("a greeting of odd types")
        return greeting


def frame(parts: list[bytes]) -> list[bytes]:
    """Header and parts of a frame."""
    length = sum(map(len, parts))
    if length > FRAME_BYTES_MAX:
        raise BadFrameError(f"{length} bytes in a frame, at most {FRAME_BYTES_MAX}")
    return [_HEADER.pack(length, crc32c(parts)), *parts]


async def read_frame(reader: asyncio.StreamReader, bytes_max: int = FRAME_BYTES_MAX) -> bytes:
    """The next frame's body.

    Raises:
        BadFrameError: too long, empty, or damaged; nothing was allocated for what it claims.
        EOFError: the stream ended (asyncio.IncompleteReadError is one).
    """
    length, crc = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    if not 0 < length <= bytes_max:
        raise BadFrameError(f"{length} bytes in a frame, at most {bytes_max}")
    body = await reader.readexactly(length)
    if crc32c(body) != crc:
        raise BadFrameError("the checksum does not match")
    return body


__all__ = ["FRAME_BYTES_MAX", "GREETING_BYTES_MAX", "PROTOCOL", "BadFrameError", "Greeting", "frame", "read_frame"]
