"""Values to fill requests with: some that fit, many that nearly fit, and some that nobody expects."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import numpy as np
import pyarrow as pa

from omendb_common.payload import columns_from_rows
from omendb_common.records import payload_to_ipc

COLLECTIONS = ("c", "named", "bytes")
DIMENSION = 3

_NAMES = (
    *(*COLLECTIONS, *COLLECTIONS, "new", "none", "", "-x", ".", "..", "../..", "a/b", "c\n", "c\x00", "é", "x" * 255),
    *("x" * 256, "%2e%2e", "CON", "'; drop", "\u202e", "𝕏"),
)
_TEXTS = (
    *("", "a", "é", "\x00", "x" * 513, "x" * 70_000, "$eq", "a.b.c", ".", "..", "#", "a#s", "{}", "null", "NaN"),
    *("2024-01-01T00:00:00Z", "9999-99-99", "-1", "1e999", "\ufffe", "true", "1" * 400),
)
_NUMBERS: tuple[Any, ...] = (
    *(0, 1, 2, -1, 10, 100, 16_384, 16_385, 65_536, 65_537, 100_000, 100_001, 1 << 31, (1 << 31) - 1, 1 << 32),
    *((1 << 53) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, -(1 << 63), 10**400, 0.0, -0.0, 0.5, 1.5, 1e-320),
    *(1e38, 3.5e38, 1e308, -1e308),
)


def name(dice: random.Random) -> str:
    """The name of a collection, mostly of one that is there."""
    return dice.choice(COLLECTIONS) if dice.random() < 0.8 else dice.choice(_NAMES)


def spare_name(dice: random.Random) -> str:
    """The name of a collection that may go, but for one time in fifty."""
    return dice.choice(_NAMES[2 * len(COLLECTIONS) :]) if dice.random() < 0.98 else name(dice)


def text(dice: random.Random) -> str:
    """Some text."""
    return dice.choice(_TEXTS)


def number(dice: random.Random) -> Any:
    """A number of any size."""
    return dice.choice(_NUMBERS)


def point_id(dice: random.Random) -> Any:
    """An id, mostly a good one."""
    kind = dice.random()
    if kind < 0.5:
        return dice.randrange(50)
    return f"p{dice.randrange(20)}" if kind < 0.8 else dice.choice((number(dice), text(dice)))


def vector(dice: random.Random) -> list[Any]:
    """A vector, mostly of the right dimension."""
    size = DIMENSION if dice.random() < 0.85 else dice.choice((0, 1, DIMENSION + 1, 1000))
    row: list[Any] = [round(dice.uniform(-2, 2), 3) for _ in range(size)]
    if row and dice.random() < 0.1:
        row[dice.randrange(size)] = dice.choice((number(dice), None, "1", True, [1]))
    return row


def payload(dice: random.Random) -> Any:
    """The metadata of a point."""
    return {text(dice) or "k": json_value(dice, 2) for _ in range(dice.randrange(4))}


def json_value(dice: random.Random, depth: int = 3) -> Any:
    """Any JSON value, at most ``depth`` levels deep."""
    kind = dice.randrange(8 if depth else 5)
    if kind == 0:
        return None
    if kind == 1:
        return dice.random() < 0.5
    if kind == 2:
        return number(dice)
    if kind in (3, 4):
        return text(dice)
    if kind == 5:
        return [json_value(dice, depth - 1) for _ in range(dice.randrange(4))]
    return {text(dice): json_value(dice, depth - 1) for _ in range(dice.randrange(4))}


def filters(dice: random.Random, depth: int = 3) -> Any:
    """A filter in JSON, mostly one that can be read."""
    roll = dice.random()
    if depth and roll < 0.3:
        operator = dice.choice(("$and", "$or", "$not", "$nand"))
        below = filters(dice, depth - 1)
        return {operator: below if operator == "$not" else [below, filters(dice, depth - 1)]}
    if roll < 0.35:
        return dice.choice(({}, [], None, "x", {"$": 1}, {"a": {}}))
    field = dice.choice(("size", "color", "a.b", text(dice)))
    operators = (
        "$eq",
        "$ne",
        "$gt",
        "$gte",
        "$lt",
        "$lte",
        "$in",
        "$nin",
        "$exists",
        "$contains",
        "$startsWith",
        "$isNull",
        "$x",
    )
    operator = dice.choice(operators)
    operand = dice.choice((1, "red", number(dice), text(dice), json_value(dice, 1)))
    if operator in ("$in", "$nin") and dice.random() < 0.8:
        operand = [operand, 2]
    return {field: {operator: operand}} if dice.random() < 0.8 else {field: operand}


def filter_text(dice: random.Random) -> str:
    """The text of a filter; sometimes deep, sometimes none at all."""
    roll = dice.random()
    if roll < 0.05:
        depth = dice.choice((10, 100, 5000))
        return '{"$not": ' * depth + "{}" + "}" * depth
    if roll < 0.15:
        return text(dice)
    return json.dumps(filters(dice))


def id_bytes(dice: random.Random, n: int) -> bytes:
    """``n`` packed integer ids, sometimes cut."""
    data = struct.pack(f"<{n}Q", *(dice.randrange(50) for _ in range(n)))
    return data if dice.random() < 0.9 else data[: dice.randrange(len(data) + 1)]


def vector_bytes(dice: random.Random, n: int, dimension: int = DIMENSION) -> bytes:
    """``n`` packed vectors, sometimes with what is no number, sometimes cut."""
    rows = np.array([[dice.uniform(-2, 2) for _ in range(dimension)] for _ in range(n)], "<f4")
    if rows.size and dice.random() < 0.1:
        rows.flat[dice.randrange(rows.size)] = dice.choice((np.nan, np.inf, -np.inf))
    data = rows.tobytes()
    return data if dice.random() < 0.9 else data[: dice.randrange(len(data) + 1)]


def stream(dice: random.Random, n: int) -> bytes:
    """An Arrow IPC stream: payload columns, ids or a table of points; often damaged."""
    kind = dice.randrange(3)
    if kind == 0:
        data = payload_stream(n)
        return damaged(dice, data) if dice.random() < 0.5 else data
    if kind == 1:
        batch = pa.record_batch({"id_int": pa.array(range(n), pa.uint64())})
    else:
        flat = pa.array(np.zeros(n * DIMENSION, np.float32))
        batch = pa.record_batch(
            {"id": pa.array(range(n)), "vector": pa.FixedSizeListArray.from_arrays(flat, DIMENSION)}
        )
    data = memoryview(payload_to_ipc(batch)).tobytes()
    return damaged(dice, data) if dice.random() < 0.5 else data


def payload_stream(n: int) -> bytes:
    """Payload columns of ``n`` points as an Arrow IPC stream."""
    batch = columns_from_rows([{"size": i, "color": "red"} for i in range(n)])
    return memoryview(payload_to_ipc(batch)).tobytes()


def damaged(dice: random.Random, data: bytes) -> bytes:
    """``data`` with a few bytes changed, cut out, doubled or put in."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 5))):
        at = dice.randrange(len(out) + 1)
        kind = dice.randrange(5)
        if kind == 0 and at < len(out):
            out[at] = dice.randrange(256)
        elif kind == 1:
            del out[at : at + dice.choice((1, 2, 8, 100))]
        elif kind == 2:
            out[at:at] = out[at : at + dice.choice((1, 8, 64))]
        elif kind == 3:
            out[at:at] = dice.randbytes(dice.choice((1, 4, 32)))
        else:
            # A length that promises far more than there is.
            out[at : at + 4] = dice.choice((b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80"))
    return bytes(out)


__all__ = [
    "COLLECTIONS",
    "DIMENSION",
    "damaged",
    "filter_text",
    "filters",
    "id_bytes",
    "json_value",
    "name",
    "number",
    "payload",
    "payload_stream",
    "point_id",
    "spare_name",
    "stream",
    "text",
    "vector",
    "vector_bytes",
]
