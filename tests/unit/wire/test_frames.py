"""A frame survives its bytes however they are cut; any change of a byte is found, and nothing else happens."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.checksum import byte_view, crc32c
from omendb_common.errors import InvalidArgumentError
from omendb_common.wire import frames
from omendb_common.wire.frames import (
    ATTACHMENTS_MAX,
    FRAME_BYTES_MAX,
    FRAME_BYTES_MAX_HARD,
    HEADER_BYTES,
    HELLO_BYTES_MAX,
    READ_BYTES,
    Frame,
    FrameDecoder,
    FrameError,
    FrameLimits,
    Kind,
    encode,
)

SIZES = st.sampled_from([0, 1, 7, 8, 100, 5000, 20_000, READ_BYTES - 41, READ_BYTES - 40, READ_BYTES - 39, 600_000])


def wire(*args: object, **kwargs: object) -> bytes:
    return b"".join(bytes(byte_view(part)) for part in encode(*args, **kwargs))  # type: ignore[arg-type]


def feed(decoder: FrameDecoder, data: bytes, step: int) -> list[Frame]:
    """What a decoder makes of bytes that come in pieces of ``step`` at most."""
    found: list[Frame] = []
    view = memoryview(data)
    while view:
        room = decoder.room()
        size = min(step, len(room), len(view))
        room[:size] = view[:size]
        decoder.received(size)
        view = view[size:]
        while (frame := decoder.next()) is not None:
            found.append(frame)
    return found


@st.composite
def specimen(draw: st.DrawFn) -> tuple[Kind, int, bytes, list[bytes], int, int]:
    message = bytes(draw(SIZES))
    attachments = [bytes([i + 1]) * draw(SIZES) for i in range(draw(st.integers(0, 3)))]
    numbers = draw(st.integers(0, (1 << 64) - 1)), draw(st.integers(0, 65_535)), draw(st.integers(0, (1 << 32) - 1))
    return draw(st.sampled_from(Kind)), numbers[0], message, attachments, numbers[1], numbers[2]


@settings(max_examples=60, deadline=None)
@given(st.lists(specimen(), min_size=1, max_size=4), st.sampled_from([1000, 4096, 100_000, 1 << 20]))
def test_frames_survive_any_cut(cases: list[tuple[Kind, int, bytes, list[bytes], int, int]], step: int) -> None:
    data = b"".join(wire(k, c, m, a, method=n, deadline_ms=d) for k, c, m, a, n, d in cases)
    decoder = FrameDecoder(FRAME_BYTES_MAX)
    found = feed(decoder, data, step)
    assert [(f.kind, f.call, f.message, list(map(bytes, f.attachments)), f.method, f.deadline_ms) for f in found] == [
        (k, c, m, a, n, d) for k, c, m, a, n, d in cases
    ]
    assert sum(f.size for f in found) == len(data) and not decoder.mid_frame


def test_byte_by_byte() -> None:
    data = wire(Kind.REQUEST, 7, b"abc", [b"x" * 9, b""], method=3) * 2
    assert [f.call for f in feed(FrameDecoder(FRAME_BYTES_MAX), data, 1)] == [7, 7]


def test_attachments_are_aligned_and_not_copied_by_the_writer() -> None:
    array = np.arange(100_000, dtype=np.float64)
    parts = encode(Kind.REQUEST, 1, b"m", [b"odd", array, [array[:5], b"tail"]])
    assert any(np.shares_memory(np.frombuffer(part, np.uint8), array) for part in map(byte_view, parts) if len(part))
    (frame,) = feed(FrameDecoder(FRAME_BYTES_MAX), b"".join(map(byte_view, parts)), 1 << 20)
    back = np.frombuffer(frame.attachments[1], np.float64)
    assert back.flags.aligned and np.array_equal(back, array)
    assert bytes(frame.attachments[2]) == array[:5].tobytes() + b"tail"


GOOD = wire(Kind.RESPONSE, 5, b"message", [b"one", b"attachment two"], method=9, deadline_ms=17)


@pytest.mark.parametrize("at", range(len(GOOD)))
def test_every_flipped_bit_is_found(at: int) -> None:
    for bit in range(8):
        damaged = bytearray(GOOD)
        damaged[at] ^= 1 << bit
        with pytest.raises(FrameError):
            feed(FrameDecoder(FRAME_BYTES_MAX), bytes(damaged), 1000)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.integers(1, 100))
def test_garbage_is_no_frame(garbage: bytes, step: int) -> None:
    try:
        assert feed(FrameDecoder(FRAME_BYTES_MAX), garbage, step) == []
    except FrameError as error:
        assert error.reason == "magic"


def test_a_shorter_stream_is_an_unfinished_frame() -> None:
    for end in range(1, len(GOOD)):
        decoder = FrameDecoder(FRAME_BYTES_MAX)
        assert feed(decoder, GOOD[:end], 1000) == [] and decoder.mid_frame


def forged(**change: int) -> bytes:
    """A header whose checksum is right and whose fields are not."""
    names = ["magic", "version", "kind", "method", "call", "deadline", "message", "count", "reserved", "body", "crc"]
    fields = dict(zip(names, [frames.MAGIC, 1, 2, 0, 1, 0, 8, 0, 0, 8, crc32c(bytes(8))], strict=True)) | change
    head = struct.pack("<IBBHQIIHHII", *fields.values())
    return head + struct.pack("<I", crc32c(head)) + bytes(8)


def test_an_unforged_header_passes() -> None:
    assert feed(FrameDecoder(FRAME_BYTES_MAX), forged(), 100)[0].message == bytes(8)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"body": (1 << 32) - 1}, "too_big"),
        ({"body": FRAME_BYTES_MAX}, "too_big"),
        ({"magic": 1}, "magic"),
        ({"version": 0}, "version"),
        ({"version": 2}, "version"),
        ({"kind": 0}, "kind"),
        ({"kind": 7}, "kind"),
        ({"reserved": 1}, "kind"),
        ({"count": ATTACHMENTS_MAX + 1}, "layout"),
        ({"message": 7}, "layout"),
        ({"message": (1 << 32) - 1}, "layout"),
        ({"count": 1}, "layout"),
        ({"count": 3, "message": 0}, "layout"),
        ({"crc": 0}, "body_checksum"),
    ],
    ids=str,
)
def test_a_forged_header_is_refused(change: dict[str, int], reason: str) -> None:
    with pytest.raises(FrameError) as caught:
        feed(FrameDecoder(FRAME_BYTES_MAX), forged(**change), 100)
    assert caught.value.reason == reason


def test_lengths_that_do_not_add_up_are_refused() -> None:
    body = struct.pack("<II", 4, (1 << 32) - 8)
    with pytest.raises(FrameError, match="layout"):
        feed(FrameDecoder(FRAME_BYTES_MAX), forged(count=2, message=0, crc=crc32c(body))[:40] + body, 100)


def test_a_great_length_takes_no_memory_before_its_bytes_come() -> None:
    decoder = FrameDecoder(FRAME_BYTES_MAX_HARD)
    assert feed(decoder, forged(body=FRAME_BYTES_MAX_HARD - HEADER_BYTES, message=8), 100) == []
    assert decoder.mid_frame and len(decoder.room()) == FRAME_BYTES_MAX_HARD - HEADER_BYTES - 8


def test_the_longest_frame_passes_and_one_byte_more_does_not() -> None:
    limit = HELLO_BYTES_MAX
    message = bytes(limit - HEADER_BYTES)
    data = wire(Kind.HELLO, 0, message, bytes_max=limit)
    assert len(data) == limit and feed(FrameDecoder(limit), data, 1 << 20)[0].message == message
    with pytest.raises(FrameError, match="too_big"):
        feed(FrameDecoder(limit - 1), data, 1 << 20)
    with pytest.raises(InvalidArgumentError):
        encode(Kind.HELLO, 0, message + b"x", bytes_max=limit)
    with pytest.raises(InvalidArgumentError):
        encode(Kind.HELLO, 0, b"", [b""] * (ATTACHMENTS_MAX + 1))
    assert len(feed(FrameDecoder(FRAME_BYTES_MAX), wire(Kind.HELLO, 0, b"", [b""] * ATTACHMENTS_MAX), 1 << 20)) == 1


@pytest.mark.parametrize("change", [{"frame_bytes_max": HELLO_BYTES_MAX - 1}, {"in_flight_max": 0}])
def test_limits_have_limits(change: dict[str, int]) -> None:
    with pytest.raises(InvalidArgumentError):
        FrameLimits(**change)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError):
        FrameLimits(frame_bytes_max=FRAME_BYTES_MAX_HARD + 1)
    assert FrameLimits(frame_bytes_max=FRAME_BYTES_MAX_HARD, in_flight_max=1)


def test_the_release_before_is_read() -> None:
    """What version 1 writes, version 2 reads, and what is newer than a reader is refused."""
    assert feed(FrameDecoder(FRAME_BYTES_MAX, (1, 2)), wire(Kind.HELLO, 0, version=1), 100)
    assert feed(FrameDecoder(FRAME_BYTES_MAX, (1, 2)), wire(Kind.HELLO, 0, version=2), 100)
    with pytest.raises(FrameError, match="version"):
        feed(FrameDecoder(FRAME_BYTES_MAX, (1, 1)), wire(Kind.HELLO, 0, version=2), 100)
