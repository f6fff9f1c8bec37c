"""Hashes of content, row by row: equal on every replica that holds the same values, however they are stored.

Not for an adversary: they tell replicas whether they agree, as a checksum does.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omendb_common.ids import IdColumn, U64Array
from omendb_common.payload import Kind, split_name
from omendb_common.plain_arrow import arrow_of_numpy, filled, numpy_of_arrow

_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_STEP = np.uint64(0x9E3779B97F4A7C15)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)
# Longer text is hashed one value at a time: side by side, all would take the room of the longest.
_SHORT_BYTES = 256
# Vectors are hashed so many bytes at a time: what is in between stays in the processor's cache (measured: three times
# as fast as eight mebibytes at a time).
_PIECE_BYTES = 256 << 10


def mix(values: U64Array) -> U64Array:
    """Each value scrambled, so that sums of them tell values apart."""
    x = values + _STEP
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return np.asarray(x ^ (x >> _S31))


def name_hash(name: str) -> np.uint64:
    """A hash of a field's name."""
    return np.uint64(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little"))


def payload_hashes(payload: pa.RecordBatch, n: int) -> U64Array:
    """A hash of each row's payload; 0 for a row without any."""
    out = np.zeros(n, np.uint64)
    for name, column in zip(payload.schema.names, payload.columns, strict=True):
        hashes = mix(_column_hashes(column, split_name(name)[1]) ^ name_hash(name))
        out += np.where(_valid(column), hashes, np.uint64(0))
    return out


def vector_hashes(vectors: npt.NDArray[Any]) -> U64Array:
    """A hash of each vector (n, d), by its bytes."""
    out = np.empty(len(vectors), np.uint64)
    step = max(1, _PIECE_BYTES // max(1, vectors[:1].nbytes))
    for start in range(0, len(vectors), step):
        out[start : start + step] = _piece_hashes(vectors[start : start + step])
    return out


def _piece_hashes(vectors: npt.NDArray[Any]) -> U64Array:
    raw = np.ascontiguousarray(vectors).view(np.uint8).reshape(len(vectors), -1)
    padding = -raw.shape[1] % 8
    if padding:
        raw = np.pad(raw, ((0, 0), (0, padding)))
    words = raw.view(np.uint64)
    places = np.arange(words.shape[1], dtype=np.uint64) * _STEP
    return np.asarray(mix(words + places).sum(axis=1, dtype=np.uint64))


def _valid(column: pa.Array) -> npt.NDArray[np.bool_]:
    return np.asarray(numpy_of_arrow(column.is_valid()), np.bool_)


def _column_hashes(column: pa.Array, kind: Kind) -> U64Array:
    if kind in ("s", "j"):
        return _text_hashes(column)
    if kind == "b":
        return np.asarray(numpy_of_arrow(filled(column, False)), np.uint64)
    if kind == "f":
        return _bits(filled(column, 0.0))
    if kind in ("i", "t"):
        numbers = column.cast(pa.int64()) if kind == "t" else column
        return _bits(filled(numbers, 0))
    return _list_hashes(column, kind)


def _bits(column: pa.Array) -> U64Array:
    return np.asarray(numpy_of_arrow(column)).view(np.uint64)


def _list_hashes(column: pa.Array, kind: Kind) -> U64Array:
    lengths = numpy_of_arrow(filled(pc.list_value_length(column), 0)).astype(np.int64)
    elements = column.flatten()
    element_kind: Kind = kind[1:]  # type: ignore[assignment]
    hashes = _column_hashes(elements, element_kind)
    stops = np.cumsum(lengths)
    places = np.arange(len(elements)) - np.repeat(stops - lengths, lengths)
    totals = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mix(hashes + mix(places.astype(np.uint64))))])
    return np.asarray(totals[stops] - totals[stops - lengths] + lengths.astype(np.uint64))


def _text_hashes(column: pa.Array) -> U64Array:
    texts = filled(column, "")
    sizes = numpy_of_arrow(pc.binary_length(texts))
    out = np.zeros(len(texts), np.uint64)
    short = np.flatnonzero(sizes <= _SHORT_BYTES)
    if len(short):
        out[short] = IdColumn(None, texts.take(arrow_of_numpy(short))).hashes()[0]
    for row in np.flatnonzero(sizes > _SHORT_BYTES).tolist():
        out[row] = name_hash(texts[row].as_py())
    return out


__all__ = ["mix", "name_hash", "payload_hashes", "vector_hashes"]
