"""Messages as bytes, and bytes that are no messages."""

from __future__ import annotations

import pickle
import random

import pytest

from omendb_coordinator.consensus.codec import BadMessageError, decode, encode
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

ENTRIES = (Entry(8, 2, NOOP, b""), Entry(9, 3, COMMAND, b"command"), Entry(10, 3, COMMAND, b""))
MESSAGES: list[Message] = [
    PreVote(1, 2, 3),
    PreVoteReply(4, True),
    Vote(5, 6, 7, True),
    VoteReply(8, False),
    Heartbeat(9, 10, 11, 12),
    HeartbeatReply(13, 14, 15, 16),
    Append(3, 18, 7, 2, 19, ENTRIES),
    Append(3, 18, 7, 2, 19, ()),
    AppendReply(20, 21, 22, True, 23, 24),
    Chunk(25, 26, 27, 28, 29, 30, 4, b"twenty-five bytes of data"),
    ChunkReply(32, 33, 34, 35, 36),
    Stand((1 << 64) - 1),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_come_back(message: Message) -> None:
    assert decode(b"".join(encode(message))) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_cut_and_longer_messages_are_refused(message: Message) -> None:
    data = b"".join(encode(message))
    for length in range(len(data)):
        if isinstance(message, Chunk) and length >= len(data) - len(message.data):
            continue  # a shorter piece is a piece; its frame's checksum stands for it
        with pytest.raises(BadMessageError):
            decode(data[:length])
    with pytest.raises(BadMessageError):
        decode(data + b"x")


@pytest.mark.parametrize(
    "append",
    [
        Append(3, 1, 7, 2, 0, (Entry(8, 4, COMMAND, b""),)),
        Append(3, 1, 7, 2, 0, (Entry(8, 1, COMMAND, b""),)),
        Append(3, 1, 7, 2, 0, (Entry(8, 3, COMMAND, b""), Entry(9, 2, COMMAND, b""))),
        Append(3, 1, 7, 2, 0, (Entry(8, 3, 9, b""),)),
        Append(3, 1, 7, 2, 0, (Entry(8, 3, COMMAND, bytes(256 * 1024 + 1)),)),
    ],
)
def test_entries_that_no_leader_has_are_refused(append: Append) -> None:
    with pytest.raises(BadMessageError):
        decode(b"".join(encode(append)))


def test_garbage_is_refused() -> None:
    """D3, D10: there is one kind of command and no answer by request number, so nothing can be taken for another."""
    rng = random.Random(5)
    for _ in range(3000):
        data = rng.randbytes(rng.randint(0, 80))
        try:
            message = decode(data)
        except BadMessageError:
            continue
        assert b"".join(encode(message)) == data or isinstance(message, PreVoteReply | VoteReply | Vote | AppendReply)
    for code in range(256):
        with pytest.raises(BadMessageError):
            decode(bytes([code]) + pickle.dumps({"type": "append_entries"}))
