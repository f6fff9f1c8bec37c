"""Hashes of whole records, stamps and content: equal wherever the same record is held, however it came there.

64 bits of a record. What many records are summed up to is 128 bits wide (:mod:`omendb_engine.hash_tree`), for which
:func:`widened` spreads a record's hash together with its id's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.ids import U64Array
from omendb_common.schema import CollectionSchema, VectorField
from omendb_engine.overrides import BASE, FieldStamps
from omendb_engine.parts import AnyPart, BufferPart, SegmentPart, take_payload
from omendb_engine.payload.hashes import mix, name_hash, payload_hashes, vector_hashes
from omendb_engine.points import base_stamps
from omendb_engine.vectors import restore

I64Array = npt.NDArray[np.int64]
_DELETED = np.uint64(0xD1B54A32D192ED03)
_SECOND = np.uint64(0xA0761D6478BD642F)
# Content is read in pieces of about so many bytes of vectors.
_PIECE_BYTES = 8 << 20


def deleted_digests(stamps: U64Array) -> U64Array:
    """Of deletions at ``stamps``."""
    return mix(stamps ^ _DELETED)


def live_digests(
    base: U64Array,
    fields: FieldStamps,
    payload: pa.RecordBatch | None,
    vectors: Callable[[str], npt.NDArray[np.generic]],
    schema: CollectionSchema,
) -> U64Array:
    """Of live points: their base stamps, the field stamps above them, payload and vectors.

    Vectors of a ``cosine`` field of float32 are left out: they are kept divided by their lengths, and what comes
    back differs in the last bit from replica to replica. Their stamps speak for them.

    Segments store what this gives: whoever changes it raises :data:`omendb_engine.segment.layout.DIGEST_FORM`.
    """
    content = mix(base)
    for name in dict.fromkeys(fields.fields.tolist()):
        some = fields.of_field(name)
        content[some.rows] += mix(mix(some.stamps) ^ name_hash(name))
    if payload is not None:
        content += payload_hashes(payload, len(base))
    for spec in schema.vectors:
        if _compared(spec):
            content += mix(vector_hashes(vectors(spec.name)) ^ name_hash(spec.name))
    return mix(content)


def part_digests(part: AnyPart, rows: I64Array, schema: CollectionSchema) -> U64Array:
    """Of the points at ``rows`` of one part, whether dead or not, by what they hold; read in pieces of bounded size."""
    out = np.empty(len(rows), np.uint64)
    step = max(64, _PIECE_BYTES // max(1, sum(spec.row_bytes for spec in schema.vectors)))
    for start in range(0, len(rows), step):
        out[start : start + step] = _piece(part, rows[start : start + step], schema)
    return out


def known_digests(part: AnyPart, rows: I64Array, schema: CollectionSchema) -> U64Array:
    """The same; where a segment has them stored, or they were made while its rows were in a buffer, nothing is read."""
    if isinstance(part, BufferPart):
        return buffer_digests(part, schema)[rows]
    stored = part.segment.digests()
    return part_digests(part, rows, schema) if stored is None else stored[rows]


def buffer_digests(part: BufferPart, schema: CollectionSchema) -> U64Array:
    """Of all rows of a buffer that a reader sees."""
    return part.buffer.digests.upto(part.n, lambda rows: part_digests(part, rows, schema))


def wrong_digests(part: SegmentPart, schema: CollectionSchema) -> I64Array:
    """The live rows whose stored digest is not that of what they hold; every one is read."""
    stored = part.segment.digests()
    if stored is None:
        return np.empty(0, np.int64)
    rows = np.flatnonzero(part.dead.alive())
    return np.asarray(rows[stored[rows] != part_digests(part, rows, schema)], np.int64)


def _piece(part: AnyPart, rows: I64Array, schema: CollectionSchema) -> U64Array:
    base = base_stamps(part, rows)
    known = part.overrides()
    if len(known):
        known = known.at(rows)
        known = known.where((known.fields != BASE) & (known.stamps > base[known.rows]))
    payload = take_payload(part.columns(), rows)
    return live_digests(base, known, payload, lambda name: restore(part.vectors_at(name, rows)), schema)


def widened(digests: U64Array, hi: U64Array, lo: U64Array) -> tuple[U64Array, U64Array]:
    """128 bits for each record, from its hash and the hash (hi, lo) of its id."""
    return mix(digests ^ mix(hi)), mix((digests + _SECOND) ^ mix(lo))


def _compared(spec: VectorField) -> bool:
    return spec.metric != "cosine" or spec.dtype != "float32"


__all__ = [
    "buffer_digests",
    "deleted_digests",
    "known_digests",
    "live_digests",
    "part_digests",
    "widened",
    "wrong_digests",
]
