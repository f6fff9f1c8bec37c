"""How a write meets what is stored: last writer wins, per point and, for partial updates, per field.

Pure functions over columns. A field's stamp is its override when it has one, else the point's base stamp; overrides
are always newer than the base. The same operations give the same points in whatever order they are merged,
as long as a point's base is there before its updates (an update of a point that is not there is refused).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.ids import IdColumn, U64Array
from omendb_common.payload import concat_batches, key_masks, overlay
from omendb_common.plain_arrow import arrow_of_numpy
from omendb_common.records import WriteBatch
from omendb_common.schema import CollectionSchema
from omendb_engine.overrides import BASE, FieldStamps, payload_field, payload_key, vector_field
from omendb_engine.parts import AnyPart, take_payload
from omendb_engine.vectors import Prepared, prepare

BoolArray = npt.NDArray[np.bool_]
I64Array = npt.NDArray[np.int64]
Sources = Sequence[tuple[AnyPart, I64Array]]


@dataclass(frozen=True, slots=True)
class Points:
    """Points in columns, as a growing buffer takes them. ``stamps``: one for all, or u64 (n)."""

    ids: IdColumn
    stamps: U64Array | int
    vectors: Mapping[str, Prepared]
    payload: pa.RecordBatch | None
    overrides: FieldStamps

    @property
    def payload_bytes(self) -> int:
        """Memory of the payload."""
        return 0 if self.payload is None else int(self.payload.nbytes)


def base_stamps(part: AnyPart, rows: I64Array) -> U64Array:
    """The stamps of the upserts that made ``rows``; their stamp column may show a later partial update."""
    stamps = np.array(part.stamps_at(rows), np.uint64)
    known = part.overrides()
    if len(known):
        known = known.at(rows).of_field(BASE)
        stamps[known.rows] = known.stamps
    return stamps


def merge_update(
    schema: CollectionSchema, sources: Sources, batch: WriteBatch, stamps: U64Array | None
) -> tuple[Points, I64Array]:
    """The points at ``sources`` under a partial update.

    Args:
        sources: where the points of ``batch`` are stored, in its order.
        stamps: of the update, u64 (n), for fields that may carry a newer one; None when it is the newest of all.

    Returns:
        The changed points (their ``stamps`` are the stored ones: the update's are put in by ``stamped``) and which
        rows of ``batch`` they are; an update that changes nothing of a point leaves it out.

    Raises:
        InvalidArgumentError: a merged payload is above a limit.
        ResourceExhaustedError: a merged column is above 2 GiB.
    """
    known = known_stamps(sources)
    won = changed_fields(batch)
    if stamps is not None:
        for field, mask in won.items():
            mask &= stamps > np.maximum(known.of_field(BASE).dense(batch.rows), known.of_field(field).dense(batch.rows))
    payload = _merge_payload(batch, sources, won)
    vectors = {
        f.name: _merge_vectors(schema, f.name, batch, sources, won.get(vector_field(f.name))) for f in schema.vectors
    }
    rows = np.flatnonzero(np.any(list(won.values()), axis=0)) if won else np.empty(0, np.int64)
    stored = np.concatenate([part.stamps_at(at) for part, at in sources])
    fields = FieldStamps.concat([FieldStamps.constant(np.flatnonzero(m), f, 0) for f, m in won.items()])
    merged = Points(batch.ids, stored, vectors, payload, FieldStamps.concat([known.minus(fields), fields]))
    return (merged if len(rows) == batch.rows else _take(merged, rows)), rows


def stamped(points: Points, stamps: U64Array | int) -> Points:
    """The points of :func:`merge_update` with the update's stamps (one, or one per point) on what it changed."""
    mine = np.full(len(points.ids), stamps, np.uint64) if isinstance(stamps, int) else stamps
    known = points.overrides
    values = np.where(known.stamps == 0, mine[known.rows], known.stamps)
    fields = FieldStamps(known.rows, known.fields, np.asarray(values, np.uint64))
    return Points(points.ids, np.maximum(points.stamps, mine), points.vectors, points.payload, fields)


def keep_newer_fields(new: Points, stamps: U64Array, sources: Sources, where: I64Array) -> Points:
    """Upserted points, but with the fields that a newer partial update gave their stored versions.

    Args:
        stamps: of the upsert, u64 (n), above the base stamps of what is stored.
        sources, where: the stored versions, and which points of ``new`` they are.
    """
    known = FieldStamps.concat([part.overrides().at(rows).shifted(at) for part, rows, at in _starts(sources)])
    known = FieldStamps(where[known.rows].astype(np.int32), known.fields, known.stamps)
    newer = known.where((known.fields != BASE) & (known.stamps > stamps[known.rows]))
    if not len(newer):
        return new
    n = len(new.ids)
    back = np.full(n, -1, np.int64)
    back[where] = np.arange(len(where))
    masks = {field: newer.of_field(field).dense(n) > 0 for field in dict.fromkeys(newer.fields.tolist())}
    vectors = dict(new.vectors)
    for name, given in new.vectors.items():
        mask = masks.pop(vector_field(name), None)
        if mask is not None:
            old = _stored_vectors(name, sources)
            vectors[name] = _choose(given, old.take(back[mask]), np.flatnonzero(mask))
    stored = _stored_payload(sources).take(arrow_of_numpy(back, back < 0)) if masks else None
    payload = new.payload
    if stored is not None:
        base = stored.select([]) if payload is None else payload
        payload = overlay(base, stored, _by_key(masks), n)
    latest = stamps.copy()
    np.maximum.at(latest, newer.rows, newer.stamps)
    rows = np.unique(newer.rows)
    base_entries = FieldStamps.constant(rows, BASE, stamps[rows])
    return Points(new.ids, latest, vectors, payload, FieldStamps.concat([new.overrides, newer, base_entries]))


def _starts(sources: Sources) -> list[tuple[AnyPart, I64Array, int]]:
    starts = np.cumsum([0, *(len(rows) for _, rows in sources)]).tolist()
    return [(part, rows, at) for (part, rows), at in zip(sources, starts, strict=False)]


def _take(points: Points, rows: I64Array) -> Points:
    stamps = points.stamps if isinstance(points.stamps, int) else points.stamps[rows]
    payload = None if points.payload is None else points.payload.take(arrow_of_numpy(rows))
    vectors = {name: given.take(rows) for name, given in points.vectors.items()}
    return Points(points.ids.take(rows), stamps, vectors, payload, points.overrides.remap(rows))


def known_stamps(sources: Sources) -> FieldStamps:
    """The overrides of stored points, with a base entry for every point."""
    kept: list[FieldStamps] = []
    for part, rows, first in _starts(sources):
        known = part.overrides().at(rows)
        has_base = np.zeros(len(rows), np.bool_)
        has_base[known.of_field(BASE).rows] = True
        bare = np.flatnonzero(~has_base)
        kept.append(known.shifted(first))
        kept.append(FieldStamps.constant(bare + first, BASE, part.stamps_at(rows[bare])))
    return FieldStamps.concat(kept)


def changed_fields(batch: WriteBatch) -> dict[str, BoolArray]:
    """Which rows an update changes each field of: where it gives a value, or removes a payload key."""
    masks = key_masks(batch.payload, batch.rows) if batch.payload is not None else {}
    changed = {payload_field(key): np.array(mask) for key, mask in masks.items()}
    names = [*map(payload_field, batch.keys), *map(vector_field, batch.vectors)]
    return changed | {name: np.ones(batch.rows, np.bool_) for name in names}


def _merge_payload(batch: WriteBatch, sources: Sources, won: Mapping[str, BoolArray]) -> pa.RecordBatch:
    base = _stored_payload(sources)
    update = base.select([]) if batch.payload is None else batch.payload
    return overlay(base, update, _by_key(won), batch.rows)


def _by_key(masks: Mapping[str, BoolArray]) -> dict[str, BoolArray]:
    """The masks of payload fields, by their keys."""
    keyed = ((payload_key(field), mask) for field, mask in masks.items())
    return {key: mask for key, mask in keyed if key is not None}


def _merge_vectors(
    schema: CollectionSchema, name: str, batch: WriteBatch, sources: Sources, won: BoolArray | None
) -> Prepared:
    if won is None:
        return _stored_vectors(name, sources)
    given = prepare(schema.vector(name), batch.vectors[name])
    if won.all():
        return given
    return _choose(_stored_vectors(name, sources), given.take(won), np.flatnonzero(won))


def _choose(base: Prepared, other: Prepared, rows: I64Array) -> Prepared:
    """``base`` with ``rows`` replaced by those of ``other``, one for one."""

    def put(old: npt.NDArray[Any] | None, new: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
        if old is None or new is None:
            return None
        out = old.copy()
        out[rows] = new
        return out

    space = base.space.copy()
    space[rows] = other.space
    return Prepared(space, put(base.norms, other.norms), put(base.raw, other.raw))


def _stored_payload(sources: Sources) -> pa.RecordBatch:
    pieces = [(take_payload(part.columns(), rows), len(rows)) for part, rows in sources]
    return concat_batches([piece for piece, _ in pieces], [count for _, count in pieces])


def _stored_vectors(name: str, sources: Sources) -> Prepared:
    pieces = [part.vectors_at(name, rows) for part, rows in sources]
    if len(pieces) == 1:
        return pieces[0]
    norms = [p.norms for p in pieces if p.norms is not None]
    raw = [p.raw for p in pieces if p.raw is not None]
    return Prepared(
        np.concatenate([p.space for p in pieces]),
        np.concatenate(norms) if norms else None,
        np.concatenate(raw) if raw else None,
    )


__all__ = ["Points", "base_stamps", "changed_fields", "keep_newer_fields", "known_stamps", "merge_update", "stamped"]
