"""gRPC messages out of a seed: every call, with fields that fit, nearly fit, or are bytes of no meaning."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Kinds
from google.protobuf.message import Message

from omendb_chaos.fuzz import values
from omendb_proto.v1 import router_pb2 as pb

CALLS = tuple(pb.DESCRIPTOR.services_by_name["Router"].methods_by_name)
# Those that end a collection mostly name another one than the rest.
_ENDING = ("DropCollection", "RenameCollection")
_WEIGHTS = [4 if name in ("Upsert", "Update", "Delete", "Search", "Get", "Scroll", "Count") else 1 for name in CALLS]
_DTYPES = ("float32", "float32", "float32", "float16", "int8", "uint8", "", "float64", "x")
_FLOATS = (0.0, 0.5, 1.0, -1.0, float("nan"), float("inf"), 1e308, 1e-320)


# Fields of a calm message, which a router should take; fields that are not named here stay empty in it.
_CALM: dict[str, Callable[[random.Random, int], Any]] = {
    "collection": lambda dice, rows: "c",
    "name": lambda dice, rows: "c",
    "ids": lambda dice, rows: None,
    "vectors": lambda dice, rows: None,
    "payload": lambda dice, rows: None,
    "packed": lambda dice, rows: bytes(8 * rows),
    "dtype": lambda dice, rows: "float32",
    "dimension": lambda dice, rows: values.DIMENSION,
    "data": lambda dice, rows: bytes(4 * values.DIMENSION * rows),
    "arrow_ipc": lambda dice, rows: values.payload_stream(rows),
    "queries": lambda dice, rows: bytes(4 * values.DIMENSION * rows),
    "k": lambda dice, rows: dice.choice((1, 5, 100)),
    "limit": lambda dice, rows: dice.choice((1, 5, 1000)),
    "filter": lambda dice, rows: dice.choice(("", '{"size": {"$gte": 1}}', '{"color": "red"}')),
    "exact": lambda dice, rows: dice.random() < 0.5,
    "with_payload": lambda dice, rows: dice.random() < 0.5,
    "with_vectors": lambda dice, rows: dice.random() < 0.5,
    "consistency": lambda dice, rows: dice.choice((0, 1, 2)),
}


def grpc_request(dice: random.Random) -> tuple[str, bytes]:
    """A call's name and the bytes to send."""
    name = dice.choices(CALLS, _WEIGHTS)[0]
    roll = dice.random()
    if roll < 0.05:
        return name, dice.randbytes(dice.choice((0, 1, 10, 1000)))
    message = getattr(pb, f"{name}Request")()
    _fill(dice, message, rows=dice.randrange(4), calm=dice.random() < 0.4)
    if name in _ENDING and message.name:
        message.name = values.spare_name(dice)
    data = message.SerializeToString()
    return name, values.damaged(dice, data) if roll < 0.25 else data


def _fill(dice: random.Random, message: Message, rows: int, calm: bool) -> None:
    for field in message.DESCRIPTOR.fields:
        if dice.random() < 0.25 or (calm and field.name not in _CALM):
            continue
        if field.message_type is not None:
            _fill_inner(dice, message, field, rows, calm)
        elif calm:
            setattr(message, field.name, _CALM[field.name](dice, rows))
        elif field.is_repeated:
            getattr(message, field.name).extend(_scalar(dice, field, rows) for _ in range(dice.randrange(3)))
        else:
            setattr(message, field.name, _scalar(dice, field, rows))


def _fill_inner(dice: random.Random, message: Message, field: Any, rows: int, calm: bool) -> None:
    if field.is_repeated:
        for _ in range(1 if calm else dice.choice((1, 1, 1, 2))):
            _fill(dice, getattr(message, field.name).add(), rows, calm)
    else:
        inner = getattr(message, field.name)
        inner.SetInParent()
        _fill(dice, inner, rows, calm)


def _scalar(dice: random.Random, field: Any, rows: int) -> Any:
    kind, name = field.type, field.name
    if kind == Kinds.TYPE_BOOL:
        return dice.random() < 0.5
    if kind == Kinds.TYPE_BYTES:
        return _bytes(dice, name, rows)
    if kind == Kinds.TYPE_STRING:
        return _text(dice, name)
    if kind == Kinds.TYPE_ENUM:
        return dice.choice((0, 1, 2, 3, 4, -1, (1 << 31) - 1))
    if kind in (Kinds.TYPE_DOUBLE, Kinds.TYPE_FLOAT):
        return 0.0 if name == "timeout_s" and dice.random() < 0.7 else dice.choice(_FLOATS)
    bits = 32 if kind == Kinds.TYPE_UINT32 else 64
    return _integer(dice, name, (1 << bits) - 1)


def _integer(dice: random.Random, name: str, highest: int) -> int:
    if name == "retry_stamp" and dice.random() < 0.9:
        return 0
    if name == "dimension":
        return values.DIMENSION if dice.random() < 0.85 else dice.choice((0, 1, 65_536, 65_537, highest))
    if name in ("shards", "replication", "write_quorum", "read_quorum") and dice.random() < 0.8:
        return dice.choice((0, 1))
    return dice.choice((0, 1, 3, 5, 10, 16_384, 16_385, 100_001, highest >> 1, highest))


def _text(dice: random.Random, name: str) -> str:
    if name in ("collection", "name", "new_name"):
        return values.name(dice)
    if name == "filter":
        return values.filter_text(dice) if dice.random() < 0.7 else ""
    if name == "dtype":
        return dice.choice(_DTYPES)
    if name == "metric":
        return dice.choice(("", "l2", "cosine", "dot", "x"))
    if name == "options":
        return dice.choice(("", "{}", '{"index": "hnsw", "M": 8}', '{"M": null}', "[" * 5000, values.text(dice)))
    if name in ("field", "cursor") and dice.random() < 0.8:
        return ""
    # What gRPC takes as a string is what UTF-8 can hold.
    return values.text(dice)


def _bytes(dice: random.Random, name: str, rows: int) -> bytes:
    if name in ("queries", "data"):
        return values.vector_bytes(dice, rows)
    if name == "packed":
        return values.id_bytes(dice, rows)
    if name in ("arrow", "arrow_ipc"):
        return values.stream(dice, rows)
    return dice.choice((b"", b"", b"x", dice.randbytes(40), b"e30=", b"x" * 70_000))


__all__ = ["CALLS", "grpc_request"]
