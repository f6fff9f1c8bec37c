"""What a replica knows of some ids: live, deleted or unknown, under which stamps, and the whole record.

Absence carries no stamp and proves nothing; a deletion is a version like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.ids import IdColumn, U64Array
from omendb_common.overlays import Overlays
from omendb_common.payload import split_name, top_level_key
from omendb_common.plain_arrow import arrow_of_numpy
from omendb_common.records import Op, WriteBatch
from omendb_common.schema import CollectionSchema
from omendb_common.shard_calls import State
from omendb_engine.overrides import BASE, FieldStamps, payload_key, vector_field
from omendb_engine.parts import Snapshot
from omendb_engine.points import known_stamps
from omendb_engine.query.answer import Picked
from omendb_engine.query.digests import deleted_digests, live_digests
from omendb_engine.verdicts import newest_tombstones

I64Array = npt.NDArray[np.int64]


class Versions:
    """The versions of ``ids`` in one snapshot. Arrays are parallel to ``ids``."""

    def __init__(self, snapshot: Snapshot, schema: CollectionSchema, ids: IdColumn) -> None:
        self._snapshot = snapshot
        self._schema = schema
        self.ids = ids
        self._located = snapshot.find(ids)
        tombstones = newest_tombstones(snapshot, ids)
        self.states = np.where(tombstones > 0, np.uint8(State.DELETED), np.uint8(State.ABSENT))
        self.states[self._located.found] = State.LIVE
        self.stamps: U64Array = tombstones
        # The live ones, in the order of ``ids``.
        self.where = np.flatnonzero(self._located.found)
        self.picked = Picked(snapshot, self._located.part[self.where], self._located.row[self.where])
        self.stamps[self.where] = self.picked.stamps()

    @cached_property
    def _fields(self) -> FieldStamps:
        """The field stamps of the live ones, rows numbered as in ``where``, with a base entry for each."""
        groups = self._snapshot.by_part(self._located)
        if not groups:
            return FieldStamps.empty()
        known = known_stamps([(self._snapshot.parts[number], rows) for number, _, rows in groups])
        places = np.searchsorted(self.where, np.concatenate([at for _, at, _ in groups]))
        return FieldStamps(places[known.rows].astype(np.int32), known.fields, known.stamps)

    @cached_property
    def _base(self) -> U64Array:
        return self._fields.of_field(BASE).dense(len(self.where))

    @cached_property
    def _overrides(self) -> FieldStamps:
        """The field stamps that count: above the base."""
        known = self._fields
        return known.where((known.fields != BASE) & (known.stamps > self._base[known.rows]))

    def overlays(self) -> Overlays:
        """Of the live ones that carry fields newer than their base."""
        found = self.picked.overlays()
        return found._replace(rows=self.where[found.rows]) if len(found.rows) else found

    def digests(self) -> U64Array:
        """A hash of each record's stamps and content, 0 for an absent id; see :mod:`omendb_engine.query.digests`."""
        out = np.where(self.states == State.DELETED, deleted_digests(self.stamps), np.uint64(0))
        if len(self.where):
            picked, schema = self.picked, self._schema
            payload = picked.columns()
            out[self.where] = live_digests(
                self._base, self._overrides, payload, lambda name: picked.vectors(name, schema), schema
            )
        return np.asarray(out)

    def records(self) -> tuple[WriteBatch, ...]:
        """The whole records of what is known, deletions included, each row under its own stamp.

        Written to another replica in this order they leave the points as they are here: first upserts under the base
        stamps, then an update for every field that has a later one. (Vectors of a float32 ``cosine`` field to one
        rounding.)
        """
        batches: list[WriteBatch] = []
        deleted = np.flatnonzero(self.states == State.DELETED)
        if len(deleted):
            batches.append(WriteBatch(Op.DELETE, self.ids.take(deleted), stamps=self.stamps[deleted]))
        if len(self.where):
            batches += self._live_records()
        return tuple(batches)

    def _live_records(self) -> list[WriteBatch]:
        ids = self.ids.take(self.where)
        payload = self.picked.columns()
        vectors = {spec.name: self.picked.vectors(spec.name, self._schema) for spec in self._schema.vectors}
        batches = [WriteBatch(Op.UPSERT, ids, vectors, payload if payload.num_columns else None, self._base)]
        for name in sorted(set(self._overrides.fields.tolist())):
            some = self._overrides.of_field(name)
            rows = some.rows.astype(np.int64)
            key = payload_key(name)
            if key is not None:
                columns = _below(payload, key, rows)
                batches.append(WriteBatch(Op.UPDATE, ids.take(rows), {}, columns, some.stamps, (key,)))
            else:
                (field,) = [spec.name for spec in self._schema.vectors if vector_field(spec.name) == name]
                batches.append(WriteBatch(Op.UPDATE, ids.take(rows), {field: vectors[field][rows]}, None, some.stamps))
        return batches


def _below(payload: pa.RecordBatch, key: str, rows: I64Array) -> pa.RecordBatch | None:
    """The columns at or below a top-level key, at ``rows``; None when none of the rows has a value there."""
    names: Sequence[str] = [name for name in payload.schema.names if top_level_key(split_name(name)[0]) == key]
    taken = payload.select(names).take(arrow_of_numpy(rows)) if names else None
    if taken is None:
        return None
    kept = [name for name in names if taken.column(name).null_count < len(rows)]
    return taken.select(kept) if kept else None


__all__ = ["Versions"]
