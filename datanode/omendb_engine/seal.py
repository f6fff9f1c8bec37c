"""From parts to the columns of a new segment: sealing one growing buffer, merging several segments.

Both keep every row that was live at the manifest's checkpoint, in order, and say where each row went, so
that rows killed meanwhile can be killed in the new segment too. Pure: nothing here touches a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omendb_common.ids import IdColumn, U64Array
from omendb_common.payload import concat_batches
from omendb_common.plain_arrow import arrow_of_numpy
from omendb_common.schema import CollectionSchema, Float32Array
from omendb_engine.growing import GrowingBuffer
from omendb_engine.overrides import FieldStamps
from omendb_engine.parts import BufferPart, SegmentPart, take_payload
from omendb_engine.query.digests import buffer_digests, known_digests
from omendb_engine.segment.deletes import Deletes
from omendb_engine.segment.reader import Segment
from omendb_engine.segment.writer import Overrides, SegmentData, Tombstones

I32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Build:
    """Columns of a segment to be written, and per source part each row's new number (-1: left out)."""

    data: SegmentData
    row_maps: dict[int, I32Array]


def build_from_buffer(buffer: GrowingBuffer, *, tombstones_above: int | None) -> Build:
    """The live rows of a frozen buffer. Rows superseded inside the buffer are folded away.

    ``tombstones_above``: deletions with greater stamps are kept, too, and the rows' digests with them: both are for
    other replicas. None keeps none of it.
    """
    n = buffer.n
    dead = buffer.dead_at_freeze
    rows = np.arange(n) if not dead.count else np.flatnonzero(~dead.mask())
    whole = len(rows) == n
    ids = buffer.all_ids(n)
    payload = buffer.payload_batch(n)
    if not whole:
        ids = ids.take(rows)
        payload = payload.take(arrow_of_numpy(rows)) if payload is not None else None
    select = slice(0, n) if whole else rows
    columns = buffer.vectors
    data = SegmentData(
        ids=ids,
        hi=buffer.hi[select],
        lo=buffer.lo[select],
        stamps=buffer.stamps[select],
        vectors={name: columns.raw.get(name, space)[select] for name, space in columns.space.items()},
        norms={name: norms[select] for name, norms in columns.norms.items()},
        payload=payload,
        n=len(rows),
        tombstones=None if tombstones_above is None else _tombstones([buffer.tombstones.columns()], tombstones_above),
        digests=None
        if tombstones_above is None
        else buffer_digests(BufferPart(buffer, n, dead), buffer.schema)[select],
        overrides=_overrides(buffer.overrides().remap(rows)),
    )
    return Build(data, {buffer.part_id: _row_map(n, rows, 0)})


def build_from_segments(
    schema: CollectionSchema,
    inputs: Sequence[tuple[SegmentPart, Deletes]],
    *,
    tombstones_above: int = 0,
    digests: bool = False,
) -> Build:
    """The rows of several segments that are live in the given delete sets, one after the other.

    ``tombstones_above``: of the deletions that the segments remember, those with greater stamps are kept.
    ``digests``: keep those of the rows for other replicas, too.
    """
    kept = [np.flatnonzero(~dead.mask()) if dead.count else np.arange(part.n) for part, dead in inputs]
    starts = np.cumsum([0, *(len(rows) for rows in kept)])
    parts = [part for part, _ in inputs]
    segments = [part.segment for part in parts]
    payloads = [take_payload(part.columns(), rows) for part, rows in zip(parts, kept, strict=True)]
    payload = concat_batches(payloads, [len(rows) for rows in kept])
    overrides = FieldStamps.concat(
        [p.overrides().remap(rows).shifted(int(at)) for p, rows, at in zip(parts, kept, starts[:-1], strict=True)]
    )
    vectors = {}
    norms = {}
    for field in schema.vectors:
        total = int(starts[-1])
        out = np.empty((total, field.dimension), field.numpy_dtype)
        for segment, rows, start in zip(segments, kept, starts[:-1], strict=True):
            np.take(segment.vectors(field.name), rows, axis=0, out=out[start : start + len(rows)])
        vectors[field.name] = out
        if field.metric == "cosine":
            lengths = [_norms(segment, field.name)[rows] for segment, rows in zip(segments, kept, strict=True)]
            norms[field.name] = np.concatenate(lengths)
    data = SegmentData(
        ids=IdColumn.concat([s.ids.take(rows) for s, rows in zip(segments, kept, strict=True)]),
        hi=np.concatenate([s.hi[rows] for s, rows in zip(segments, kept, strict=True)]),
        lo=np.concatenate([s.lo[rows] for s, rows in zip(segments, kept, strict=True)]),
        stamps=np.concatenate([s.stamps[rows] for s, rows in zip(segments, kept, strict=True)]),
        vectors=vectors,
        norms=norms,
        payload=payload if payload.num_columns else None,
        n=int(starts[-1]),
        tombstones=_tombstones([segment.tombstones() for segment in segments], tombstones_above),
        overrides=_overrides(overrides),
        digests=_digests(schema, parts, kept) if digests else None,
    )
    maps = {p.part_id: _row_map(p.n, rows, int(at)) for p, rows, at in zip(parts, kept, starts[:-1], strict=True)}
    return Build(data, maps)


def _row_map(n: int, rows: npt.NDArray[np.int64], first: int) -> I32Array:
    out = np.full(n, -1, np.int32)
    out[rows] = np.arange(first, first + len(rows), dtype=np.int32)
    return out


def _digests(schema: CollectionSchema, parts: Sequence[SegmentPart], kept: Sequence[npt.NDArray[np.int64]]) -> U64Array:
    found = [known_digests(part, rows, schema) for part, rows in zip(parts, kept, strict=True)]
    return np.concatenate(found)


def _norms(segment: Segment, field: str) -> Float32Array:
    norms = segment.norms(field)
    assert norms is not None, "a cosine field has norms"
    return norms


def _overrides(stamps: FieldStamps) -> Overrides | None:
    return Overrides(stamps.rows, stamps.fields, stamps.stamps) if len(stamps) else None


def _tombstones(sources: Sequence[tuple[IdColumn, U64Array]], above: int) -> Tombstones | None:
    kept = [(ids, stamps, np.flatnonzero(stamps > np.uint64(above))) for ids, stamps in sources]
    if not any(len(rows) for _, _, rows in kept):
        return None
    ids = IdColumn.concat([ids.take(rows) for ids, _, rows in kept])
    hi, lo = ids.hashes()
    return Tombstones(ids, hi, lo, np.concatenate([stamps[rows] for _, stamps, rows in kept]))


__all__ = ["Build", "build_from_buffer", "build_from_segments"]
