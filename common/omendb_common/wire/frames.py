"""The frame: one message of a framed connection, its bytes, and the decoder that finds frames in a stream.

::

    0   u32 magic "OMF1"   u8 version   u8 kind   u16 method
    8   u64 call
    16  u32 deadline_ms    u32 message_bytes
    24  u16 attachments    u16 reserved (0)       u32 body_bytes
    32  u32 body_crc       u32 header_crc
    40  body: u32 length of every attachment, then the message, then the attachments, each padded to a multiple of 8

``header_crc`` covers the 36 bytes before it, so a length is believed only when its checksum holds; ``body_crc`` covers
the body. Both are CRC32C; all integers are little-endian.
"""

from __future__ import annotations

import dataclasses
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from crc32c import crc32c as _crc32c

from omendb_common.checksum import Buffer, byte_length, byte_view, crc32c
from omendb_common.errors import InvalidArgumentError
from omendb_common.settings import MIB, check_value, setting

MAGIC = 0x31464D4F  # "OMF1"
VERSION = 1
VERSION_MIN = 1
"""The oldest version that this release reads: always the previous release's, once there is one."""

FRAME_BYTES_MAX_HARD = 1 << 30
FRAME_BYTES_MAX = 256 << 20
HELLO_BYTES_MAX = 64 << 10
"""Until a peer has said who it is, its frames are no longer than this."""
ATTACHMENTS_MAX = 4096
READ_BYTES = 256 << 10
# Copying this much costs less than another buffer to write.
_JOIN_BYTES_MAX = 16 << 10
_ALIGN = 8
_ZEROS = bytes(_ALIGN)

_HEADER = struct.Struct("<IBBHQIIHHIII")
_SUMMED = struct.Struct("<IBBHQIIHHII")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size


Attachment = Buffer | list[Buffer] | tuple[Buffer, ...]
"""Bytes that go with a message; several buffers arrive as one."""


class Kind(IntEnum):
    """What a frame is for."""

    HELLO = 1
    REQUEST = 2
    RESPONSE = 3
    ERROR = 4
    CANCEL = 5
    GOAWAY = 6


_KINDS = frozenset(Kind)


class FrameError(Exception):
    """The stream is no sequence of frames any more, or the peer broke a rule: the connection must be closed.

    ``reason`` is one word, fit for a metric's label.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        super().__init__(f"{reason}: {detail}" if detail else reason)


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """What one side of a connection between router and data node puts up with."""

    frame_bytes_max: int = setting(
        FRAME_BYTES_MAX,
        "longest frame that is read; at least as long as what the faces take, and the same on routers and data nodes",
        low=HELLO_BYTES_MAX,
        high=FRAME_BYTES_MAX_HARD,
    )
    in_flight_max: int = setting(
        1024, "calls under way on one connection; one more is refused with a time to come back", low=1, high=1_000_000
    )
    in_flight_bytes_max: int = setting(
        512 * MIB, "bytes of the requests under way on one connection; nothing more is read above", low=1, high=1 << 40
    )
    hello_timeout_s: float = setting(
        5.0, "from a connection to its peer's hello: a stranger holds it no longer", low=0.001, high=600.0
    )
    stall_timeout_s: float = setting(
        30.0, "longest silence within one frame; a peer that stops in its middle is cut off", low=0.001, high=3600.0
    )
    write_buffer_bytes: int = setting(
        4 * MIB, "above this much unsent on a connection nothing more is written or read", low=1, high=1 << 30
    )
    versions: tuple[int, int] = setting((VERSION_MIN, VERSION), "oldest and newest frame that is read", told=False)

    def __post_init__(self) -> None:
        for told in dataclasses.fields(self):
            if told.metadata["told"]:
                check_value(told, getattr(self, told.name), told.name)


@dataclass(slots=True)
class FrameStats:
    """What the connections of one end have seen; only grows, but for ``connections``.

    ``broken`` counts connections that were closed because of what the peer sent, by reason.
    """

    connections: int = 0
    frames_in: int = 0
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    calls: int = 0
    calls_cancelled: int = 0
    calls_refused: int = 0
    broken: Counter[str] = field(default_factory=Counter)


class Frame(NamedTuple):
    """One frame as it was read; ``attachments`` are views of memory that belongs to this frame alone.

    ``deadline_ms``: what the caller has left; 0: nothing. ``size``: bytes on the wire. ``whole``: whether its body was
    kept; one that was not admitted is passed over, and comes without.
    """

    kind: int
    method: int
    call: int
    deadline_ms: int
    message: bytes
    attachments: tuple[memoryview, ...]
    size: int
    whole: bool = True


def encode(
    kind: Kind,
    call: int,
    message: bytes = b"",
    attachments: Sequence[Attachment] = (),
    *,
    method: int = 0,
    deadline_ms: int = 0,
    version: int = VERSION,
    bytes_max: int = FRAME_BYTES_MAX,
) -> list[Buffer]:
    """The frame as buffers to be written one after the other; large attachments are referenced, not copied.

    Raises:
        InvalidArgumentError: the frame is longer than ``bytes_max``, or has more than ATTACHMENTS_MAX attachments.
    """
    count = len(attachments)
    if count:
        if count > ATTACHMENTS_MAX:
            raise InvalidArgumentError(f"{count} attachments", field="frame", bound=f"at most {ATTACHMENTS_MAX}")
        parts, size = _lay_out(message, attachments)
        body_crc = crc32c(parts)
    else:
        parts, size = [message], len(message)
        body_crc = _crc32c(message)
    if size + HEADER_BYTES > bytes_max:
        raise InvalidArgumentError(
            f"{size + HEADER_BYTES} bytes", field="frame", bound=f"at most {bytes_max}", mend="send less at a time"
        )
    head = _SUMMED.pack(MAGIC, version, kind, method, call, deadline_ms, len(message), count, 0, size, body_crc)
    head += _CRC.pack(_crc32c(head))
    if size <= _JOIN_BYTES_MAX:
        return [b"".join((head, *parts))]  # type: ignore[arg-type]  # before 3.12 NumPy's stubs hide that an array is a buffer
    return [head, *parts]


def _lay_out(message: bytes, attachments: Sequence[Attachment]) -> tuple[list[Buffer], int]:
    lengths = [sum(map(byte_length, a)) if isinstance(a, (list, tuple)) else byte_length(a) for a in attachments]
    if max(lengths) > FRAME_BYTES_MAX_HARD:
        raise InvalidArgumentError(f"an attachment of {max(lengths)} bytes", field="frame", mend="send less at a time")
    front = struct.pack(f"<{len(lengths)}I", *lengths) + message
    size = len(front)
    parts: list[Buffer] = [front]
    for attachment, length in zip(attachments, lengths, strict=True):
        padding = -size % _ALIGN
        if padding:
            parts.append(_ZEROS[:padding])
        if isinstance(attachment, (list, tuple)):
            parts += [byte_view(piece) for piece in attachment if byte_length(piece)]
        elif length:
            parts.append(byte_view(attachment))
        size += padding + length
    return parts, size


class FrameDecoder:
    """Finds frames in a stream of bytes that is received into its buffers.

    :meth:`room` is where the next bytes go and :meth:`received` says how many came; :meth:`next` gives the frames.
    Small frames are copied out of one buffer; a large frame is received into memory of its own.
    """

    def __init__(self, bytes_max: int, versions: tuple[int, int] = (VERSION_MIN, VERSION)) -> None:
        self.bytes_max = bytes_max
        self.versions = versions
        self.admit: Callable[[int], bool] | None = None
        """Asked before a frame of so many bytes, a large one, is received; False: its body is passed over."""
        self.progress = 0
        """Bytes received so far."""
        self._view = memoryview(bytearray(READ_BYTES))
        self._start = 0
        self._end = 0
        self._head: tuple[int, ...] | None = None
        self._large: memoryview | None = None
        self._filled = 0
        self._passing = 0

    @property
    def mid_frame(self) -> bool:
        """Whether part of a frame is here and the rest is not."""
        return self._large is not None or self._head is not None or self._end > self._start

    def room(self) -> memoryview:
        """Where to receive the next bytes; never empty."""
        if self._large is not None and self._filled < len(self._large):
            return self._large[self._filled :]
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == READ_BYTES:
            left = self._end - self._start
            self._view[:left] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, left
        return self._view[self._end :]

    @property
    def full(self) -> bool:
        """Whether nothing can be received before :meth:`next` has been called."""
        return self._start == 0 and self._end == READ_BYTES and self._large is None

    def received(self, count: int) -> None:
        """``count`` bytes have been put where :meth:`room` said."""
        self.progress += count
        if self._large is not None and self._filled < len(self._large):
            self._filled += count
        else:
            self._end += count

    def next(self) -> Frame | None:
        """The next whole frame, or None until more bytes have come.

        Raises:
            FrameError: what came is no frame. Nothing can be read after it.
        """
        head = self._head
        if head is None:
            start = self._start
            if self._end - start < HEADER_BYTES:
                return None
            head = self._head = self._read_header(start)
            self._start = start = start + HEADER_BYTES
            if head[9] > READ_BYTES - HEADER_BYTES:
                if self.admit is None or self.admit(head[9] + HEADER_BYTES):
                    self._begin_large(head[9])
                else:
                    self._passing = head[9]
        size = head[9]
        if self._passing:
            return self._pass_over(head)
        if self._large is not None:
            if self._filled < size:
                return None
            body, self._large = self._large, None
            self._head = None
            return self._frame(head, body)
        if self._end - self._start < size:
            return None
        start = self._start
        self._start = start + size
        self._head = None
        return self._frame(head, bytes(self._view[start : start + size]))

    def _read_header(self, start: int) -> tuple[int, ...]:
        view = self._view
        head = _HEADER.unpack_from(view, start)
        if head[0] != MAGIC:
            raise FrameError("magic")
        if head[11] != _crc32c(view[start : start + _SUMMED.size]):
            raise FrameError("header_checksum")
        low, high = self.versions
        if not low <= head[1] <= high:
            raise FrameError("version", str(head[1]))
        if head[2] not in _KINDS or head[8]:
            raise FrameError("kind", str(head[2]))
        if head[9] + HEADER_BYTES > self.bytes_max:
            raise FrameError("too_big", f"{head[9]} bytes")
        if head[7] > ATTACHMENTS_MAX:
            raise FrameError("layout", f"{head[7]} attachments")
        return head

    def _pass_over(self, head: tuple[int, ...]) -> Frame | None:
        here = min(self._end - self._start, self._passing)
        self._start += here
        self._passing -= here
        if self._passing:
            return None
        self._head = None
        return Frame(head[2], head[3], head[4], head[5], b"", (), head[9] + HEADER_BYTES, whole=False)

    def _begin_large(self, size: int) -> None:
        # Not zeroed: memory that no byte has come for is not taken from the machine either.
        self._large = byte_view(np.empty(size, np.uint8))
        here = min(self._end - self._start, size)
        self._large[:here] = self._view[self._start : self._start + here]
        self._start += here
        self._filled = here

    def _frame(self, head: tuple[int, ...], body: bytes | memoryview) -> Frame:
        _, _, kind, method, call, deadline_ms, message_bytes, count, _, size, body_crc, _ = head
        if body_crc != _crc32c(body):
            raise FrameError("body_checksum")
        if not count:
            if message_bytes != size:
                raise FrameError("layout", "the message is not the body")
            return Frame(kind, method, call, deadline_ms, bytes(body), (), size + HEADER_BYTES)
        view = memoryview(body)
        at = 4 * count
        if at + message_bytes > size:
            raise FrameError("layout", "the message ends past the body")
        message = bytes(view[at : at + message_bytes])
        lengths = struct.unpack_from(f"<{count}I", view)
        at += message_bytes
        attachments = []
        for length in lengths:
            at += -at % _ALIGN
            attachments.append(view[at : at + length])
            at += length
        if at != size:
            raise FrameError("layout", "the attachments are not the body")
        return Frame(kind, method, call, deadline_ms, message, tuple(attachments), size + HEADER_BYTES)


__all__ = [
    "ATTACHMENTS_MAX",
    "FRAME_BYTES_MAX",
    "FRAME_BYTES_MAX_HARD",
    "HEADER_BYTES",
    "HELLO_BYTES_MAX",
    "MAGIC",
    "READ_BYTES",
    "VERSION",
    "VERSION_MIN",
    "Attachment",
    "Frame",
    "FrameDecoder",
    "FrameError",
    "FrameLimits",
    "FrameStats",
    "Kind",
    "encode",
]
