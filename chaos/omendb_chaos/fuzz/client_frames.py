"""Frames on a client's connection out of a seed: calls that fit or not; frames whole, cut, forged, or no frames."""

from __future__ import annotations

import random

from omendb_chaos.fuzz import values
from omendb_chaos.fuzz.grpc_messages import CALLS, grpc_request
from omendb_common.checksum import byte_view
from omendb_common.wire.frames import Kind, encode
from omendb_proto.v1 import frames_pb2
from omendb_router.frame_face import PATH, PROTOCOL

UPGRADE = b"GET " + PATH + b" HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: " + PROTOCOL + b"\r\n\r\n"
_DEADLINE_MS = 30_000


def client_frames(dice: random.Random) -> tuple[bytes, int]:
    """What to send once frames are spoken, and how many answers to wait for: 0 when it is damaged."""
    roll = dice.random()
    if roll < 0.05:
        return dice.randbytes(dice.choice((1, 39, 40, 5000))), 0
    if roll < 0.1:
        return _hello(dice, odd=True) + _call(dice, 1), 0
    count = dice.randrange(1, 5)
    data = _hello(dice, odd=False) + b"".join(_call(dice, number + 1) for number in range(count))
    if roll < 0.2:
        # Everything but what a good peer sends.
        odd = dice.choice((Kind.HELLO, Kind.RESPONSE, Kind.ERROR, Kind.GOAWAY, Kind.CANCEL, Kind.REQUEST))
        return data + _frame(odd, dice.choice((0, 1, 77)), dice.randbytes(dice.choice((0, 3, 300)))), 0
    return (values.damaged(dice, data), 0) if roll < 0.4 else (data, count)


def _hello(dice: random.Random, *, odd: bool) -> bytes:
    hello = frames_pb2.Hello(version_min=1, version_max=1, role="client", in_flight_max=9, frame_bytes_max=1 << 20)
    if odd:
        field = dice.choice(("version_min", "version_max", "in_flight_max", "frame_bytes_max"))
        setattr(hello, field, dice.choice((0, 2, (1 << 32) - 1)))
        hello.role = dice.choice(("client", "router", "", "x" * 60_000))
        hello.cluster_id = dice.choice(("", "c1"))
    return _frame(Kind.HELLO, 0, hello.SerializeToString())


def _call(dice: random.Random, number: int) -> bytes:
    name, data = grpc_request(dice)
    method = CALLS.index(name) + 1 if dice.random() < 0.95 else dice.choice((0, 99, 65_535))
    return _frame(Kind.REQUEST, number, data, method=method, deadline_ms=_DEADLINE_MS)


def _frame(kind: Kind, call: int, message: bytes, *, method: int = 0, deadline_ms: int = 0) -> bytes:
    parts = encode(kind, call, message, method=method, deadline_ms=deadline_ms)
    return b"".join(bytes(byte_view(part)) for part in parts)


__all__ = ["UPGRADE", "client_frames"]
