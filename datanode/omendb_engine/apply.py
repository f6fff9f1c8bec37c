"""What an operation does to the parts: the deterministic step that writing, recovery and followers share.

Operations arrive in log order, one at a time, from one thread. Last writer wins per point: an operation
whose stamp is below what the point already carries changes nothing. Applying the log again from any
checkpoint gives the same state (invariant I2), because the manifest's delete sets are exactly those of its
checkpoint and every later kill is remembered with the growing buffer whose operation made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from omendb_common.ids import IdColumn, U64Array
from omendb_common.plain_arrow import arrow_of_numpy
from omendb_common.records import Op, WriteBatch
from omendb_common.schema import CollectionSchema
from omendb_engine.buffer_memory import BufferPool
from omendb_engine.claimed import Claims
from omendb_engine.growing import GrowingBuffer, row_bytes
from omendb_engine.overrides import FieldStamps
from omendb_engine.parts import AnyPart, BufferPart, Located, Snapshot
from omendb_engine.points import Points, base_stamps, keep_newer_fields, merge_update, stamped
from omendb_engine.segment.deletes import Deletes
from omendb_engine.vectors import prepare

# An id and its stamp, and half as much again for the id's hash while it is looked up.
TOMBSTONE_BYTES = 48


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of one operation: points written or removed, and how many of them had existed."""

    count: int
    existed: int


@dataclass(frozen=True, slots=True)
class UpdatePlan:
    """Points as an UPDATE leaves them, without their new stamps unless ``stamps`` has them row by row.

    ``located``: where their stored versions are. ``existed``: points of the batch that are there.
    """

    points: Points | None
    stamps: U64Array | None
    located: Located
    existed: int

    @property
    def payload_bytes(self) -> int:
        """Memory that the merged payload takes."""
        return 0 if self.points is None else self.points.payload_bytes


class Watching(Protocol):
    """What is to know of every operation."""

    def see(self, ids: IdColumn, stamps: U64Array | int) -> None:
        """Told of an operation before readers see it, in the thread that applies it."""


class PartStore:
    """The parts of one replica. The writer changes it; readers take :attr:`snapshot`.

    :meth:`stage` does all of an operation but letting readers see it, so that it can be done while the log is synced:
    what it writes lies past the end of every snapshot, and in sets that no snapshot shares. ``_tip`` is the snapshot
    with what is staged; :meth:`publish` makes it the readers'. Between two groups they are the same.
    """

    def __init__(
        self,
        schema: CollectionSchema,
        segments: Sequence[AnyPart],
        *,
        lsn: int,
        buffer_rows: int,
        extra_bytes_max: int = 64 << 20,
        max_stamp: int = 0,
        next_auto_id: int = 0,
    ) -> None:
        self.schema = schema
        self.max_stamp = max_stamp
        self.next_auto_id = next_auto_id
        self.watching: Watching | None = None
        self._buffer_rows = buffer_rows
        self._extra_bytes_max = extra_bytes_max
        self._next_buffer = -1
        live = sum(p.n - p.dead.count for p in segments)
        self.pool = BufferPool(schema)
        self.active = self._new_buffer(buffer_rows, lsn)
        self._tip = Snapshot((*segments, BufferPart(self.active, 0, Deletes.none(0))), lsn, live)
        self.snapshot = self._tip
        self._claims: Claims | None = None

    def _new_buffer(self, capacity: int, lsn: int) -> GrowingBuffer:
        buffer = GrowingBuffer(self._next_buffer, self.schema, capacity, lsn, self.pool)
        self._next_buffer -= 1
        return buffer

    # -- buffers -----------------------------------------------------------------------------------

    def frozen(self) -> list[BufferPart]:
        """Buffers that wait for their seal, oldest first."""
        return [p for p in self.snapshot.parts[:-1] if isinstance(p, BufferPart)]

    def has_room(self, rows: int) -> bool:
        """Whether the active buffer takes ``rows`` more.

        It is full of payload before a column of text comes near the 2 GiB of an Arrow array, which could not be
        sealed any more; and one that only ever sees deletions is full of them some day.
        """
        active = self.active
        extra = active.reserved_bytes - self.buffer_bytes(active.capacity)
        return (
            rows <= active.room() and extra < self._extra_bytes_max and active.tombstone_rows < max(active.capacity, 1)
        )

    def next_capacity(self, rows: int) -> int:
        """Rows the next buffer will have room for."""
        return max(self._buffer_rows, rows)

    def buffer_bytes(self, capacity: int) -> int:
        """Memory a buffer of ``capacity`` rows takes, without payload."""
        return capacity * row_bytes(self.schema)

    def extra_bytes(self, batch: WriteBatch, plan: UpdatePlan | None) -> int:
        """Memory that applying a batch takes beside the buffer's columns: its payload, or its tombstones."""
        if batch.op is Op.DELETE:
            return batch.rows * TOMBSTONE_BYTES
        if plan is not None:
            return plan.payload_bytes
        return 0 if batch.payload is None else int(batch.payload.nbytes)

    def freeze(self, capacity: int) -> GrowingBuffer:
        """End the active buffer at the last applied operation and start another; returns the frozen one."""
        snapshot, frozen = self.snapshot, self.active
        frozen.end_lsn = snapshot.lsn
        frozen.dead_at_freeze = snapshot.parts[-1].dead
        self.active = self._new_buffer(capacity, snapshot.lsn)
        parts = (*snapshot.parts, BufferPart(self.active, 0, Deletes.none(0)))
        self._put(Snapshot(parts, snapshot.lsn, snapshot.live))
        return frozen

    def replace(self, old: Sequence[int], new: AnyPart | None, row_maps: Mapping[int, npt.NDArray[np.int32]]) -> None:
        """Put ``new`` in the place of the parts numbered ``old``.

        ``row_maps`` gives, per old part, each row's number in the new part (-1: it did not move there).
        Rows that died since the new part was built are dead in it too, and the kills that unsealed buffers
        remember are carried over.
        """
        snapshot = self.snapshot
        gone = [p for p in snapshot.parts if p.part_id in row_maps]
        if new is not None:
            dead_rows = [_moved(row_maps[p.part_id], p.dead.rows()) for p in gone if p.dead.count]
            if dead_rows:
                new = new.with_dead(new.dead.with_rows(np.concatenate(dead_rows)))
        for part in snapshot.parts:
            if isinstance(part, BufferPart) and part.part_id not in row_maps:
                _carry_kills(part.buffer, new, row_maps)
        parts: list[AnyPart] = []
        for part in snapshot.parts:
            if part.part_id not in row_maps:
                parts.append(part)
            elif new is not None and part.part_id == old[0]:
                parts.append(new)
        self._put(Snapshot(tuple(parts), snapshot.lsn, snapshot.live))

    def swap_segment(self, part: AnyPart) -> None:
        """Replace a segment by the same segment with an index; its dead rows stay as they are now."""
        snapshot = self.snapshot
        parts = tuple(part.with_dead(p.dead) if p.part_id == part.part_id else p for p in snapshot.parts)
        self._put(Snapshot(parts, snapshot.lsn, snapshot.live))

    def _put(self, snapshot: Snapshot) -> None:
        self._tip = self.snapshot = snapshot

    # -- operations ----------------------------------------------------------------------------------

    def claims_above(self, gc_floor: int) -> Claims:
        """The claims among the tombstones, without those that are forgotten; for the thread that writes."""
        if self._claims is None:
            self._claims = Claims.of(self._tip.parts)
        self._claims.forget(gc_floor)
        return self._claims

    def apply(
        self, batch: WriteBatch, stamp: int, lsn: int, *, fresh: bool = False, plan: UpdatePlan | None = None
    ) -> Applied:
        """Apply one operation, for readers to see; the active buffer has room for it. See :meth:`stage`."""
        applied = self.stage(batch, stamp, lsn, fresh=fresh, plan=plan)
        self.publish()
        return applied

    def publish(self) -> None:
        """Let readers see what was staged."""
        self.snapshot = self._tip

    def stage(
        self, batch: WriteBatch, stamp: int, lsn: int, *, fresh: bool = False, plan: UpdatePlan | None = None
    ) -> Applied:
        """Apply one operation without letting readers see it before :meth:`publish`.

        Args:
            stamp: the batch's stamp; rows with stamps of their own carry them in ``batch.stamps``.
            fresh: no id of the batch exists (the engine made them up), so none is looked for.
            plan: of an UPDATE, made since the operation before; None: made here.
        """
        if self.watching is not None:
            self.watching.see(batch.ids, stamp if batch.stamps is None else batch.stamps)
        if batch.op is Op.UPSERT:
            applied = self._upsert(batch, stamp, lsn, fresh)
        elif batch.op is Op.UPDATE:
            applied = self._update(plan or self.plan_update(batch, stamp), stamp, lsn)
        else:
            applied = self._delete(batch, stamp, lsn)
        self.max_stamp = max(self.max_stamp, stamp if batch.stamps is None else int(batch.stamps.max(initial=0)))
        return applied

    def skip(self, lsn: int) -> None:
        """Note a log record that changes no point."""
        self._pass(lsn)
        self.publish()

    def _pass(self, lsn: int) -> None:
        self._tip = Snapshot(self._tip.parts, lsn, self._tip.live)

    def _ordered(self, batch: WriteBatch, stamp: int) -> bool:
        """Whether every row is newer than all that was applied, so that none can lose."""
        return batch.stamps is None and stamp > self.max_stamp

    def _upsert(self, batch: WriteBatch, stamp: int, lsn: int, fresh: bool) -> Applied:
        self.next_auto_id = max(self.next_auto_id, batch.ids.int_max() + 1)
        stamps: U64Array | int = stamp if batch.stamps is None else batch.stamps
        located: Located | None = None
        if not fresh:
            located = self._tip.find(batch.ids)
        ordered = self._ordered(batch, stamp)
        if not ordered:
            rows = self._winners(batch, stamps, located)
            if len(rows) < batch.rows:
                batch = take_batch(batch, rows)
                stamps = batch.stamps if batch.stamps is not None else stamp
                located = Located(located.part[rows], located.row[rows]) if located is not None else None
        vectors = {f.name: prepare(f, batch.vectors[f.name]) for f in self.schema.vectors}
        existed = int(np.count_nonzero(located.found)) if located is not None else 0
        points = Points(batch.ids, stamps, vectors, batch.payload, FieldStamps.empty())
        if existed and located is not None and not ordered:
            points = self._under_updates(points, located)
        return self._write(points, located, existed, lsn)

    def _under_updates(self, points: Points, located: Located) -> Points:
        groups = self._tip.by_part(located)
        sources = [(self._tip.parts[number], rows) for number, _, rows in groups]
        stamps = points.stamps
        mine = np.full(len(points.ids), stamps, np.uint64) if isinstance(stamps, int) else stamps
        return keep_newer_fields(points, mine, sources, np.concatenate([where for _, where, _ in groups]))

    def _write(self, points: Points, located: Located | None, existed: int, lsn: int) -> Applied:
        snapshot, ids = self._tip, points.ids
        parts = self._kill(located) if existed and located is not None else list(snapshot.parts)
        if len(ids):
            self.active.append(ids, points.stamps, points.vectors, points.payload, points.overrides)
        last = parts[-1]
        assert isinstance(last, BufferPart)
        parts[-1] = last.grown(self.active.n)
        self._tip = Snapshot(tuple(parts), lsn, snapshot.live + len(ids) - existed)
        return Applied(len(ids), existed)

    def _kill(self, located: Located) -> list[AnyPart]:
        parts = list(self._tip.parts)
        for number, _, rows in self._tip.by_part(located):
            part = parts[number]
            parts[number] = part.with_dead(part.dead.with_rows(rows))
            if part.part_id != self.active.part_id:
                self.active.record_kill(part.part_id, rows)
        return parts

    def _delete(self, batch: WriteBatch, stamp: int, lsn: int) -> Applied:
        stamps: U64Array | int = stamp if batch.stamps is None else batch.stamps
        located = self._tip.find(batch.ids)
        if not self._ordered(batch, stamp):
            rows = self._winners(batch, stamps, located)
            batch = take_batch(batch, rows)
            stamps = batch.stamps if batch.stamps is not None else stamp
            located = Located(located.part[rows], located.row[rows])
        existed = int(np.count_nonzero(located.found))
        parts = self._kill(located) if existed else list(self._tip.parts)
        values = np.full(batch.rows, stamps, np.uint64) if isinstance(stamps, int) else stamps
        if batch.rows:
            self.active.bury(batch.ids, values)
            if self._claims is not None:
                self._claims.note(batch.ids)
        self._tip = Snapshot(tuple(parts), lsn, self._tip.live - existed)
        return Applied(existed, existed)

    def plan_update(self, batch: WriteBatch, stamp: int | None = None) -> UpdatePlan:
        """What an UPDATE would write, so that it can be refused before it is logged.

        Args:
            stamp: the batch's stamp; None when it will be newer than all that was applied.

        Raises:
            InvalidArgumentError: a merged payload is above a limit.
            ResourceExhaustedError: a merged column is above 2 GiB.
        """
        stamps = batch.stamps
        if stamps is None and stamp is not None and not self._ordered(batch, stamp):
            stamps = np.full(batch.rows, stamp, np.uint64)
        located = self._tip.find(batch.ids)
        found = np.flatnonzero(located.found)
        groups = self._tip.by_part(located)
        if not groups:
            return UpdatePlan(None, None, located, 0)
        order = np.concatenate([where for _, where, _ in groups])
        sources = [(self._tip.parts[number], rows) for number, _, rows in groups]
        mine = None if stamps is None else stamps[order]
        points, rows = merge_update(self.schema, sources, take_batch(batch, order), mine)
        kept = Located(located.part[order[rows]], located.row[order[rows]])
        return UpdatePlan(points, None if mine is None else mine[rows], kept, len(found))

    def _update(self, plan: UpdatePlan, stamp: int, lsn: int) -> Applied:
        if plan.points is None or not len(plan.points.ids):
            self._pass(lsn)
            return Applied(plan.existed, plan.existed)
        points = stamped(plan.points, stamp if plan.stamps is None else plan.stamps)
        self._write(points, plan.located, len(points.ids), lsn)
        return Applied(plan.existed, plan.existed)

    def _winners(self, batch: WriteBatch, stamps: U64Array | int, located: Located | None) -> npt.NDArray[np.int64]:
        """Rows whose stamp is above what their point carries (a live row's base stamp, or a tombstone's).

        Of an upsert and a deletion under one stamp, which only damage makes, the deletion wins in any order. Of two
        upserts the one that comes as a record wins: whoever logged it had decided that.
        """
        base, buried = np.zeros(batch.rows, np.uint64), np.zeros(batch.rows, np.uint64)
        if located is not None:
            for number, where, rows in self._tip.by_part(located):
                base[where] = base_stamps(self._tip.parts[number], rows)
        hi, lo = batch.ids.hashes()
        for part in self._tip.parts:
            np.maximum(buried, part.tombstone_stamps(hi, lo), out=buried)
        mine = np.full(batch.rows, stamps, np.uint64) if isinstance(stamps, int) else stamps
        equal = batch.op is Op.DELETE or batch.stamps is not None
        return np.flatnonzero((mine > buried) & ((mine >= base) if equal else (mine > base)))


def take_batch(batch: WriteBatch, rows: npt.NDArray[np.int64]) -> WriteBatch:
    """The batch of only ``rows``, in that order."""
    return WriteBatch(
        batch.op,
        batch.ids.take(rows),
        {name: array[rows] for name, array in batch.vectors.items()},
        batch.payload.take(arrow_of_numpy(rows)) if batch.payload is not None else None,
        batch.stamps[rows] if batch.stamps is not None else None,
        batch.keys,
    )


def _moved(row_map: npt.NDArray[np.int32], rows: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    mapped = row_map[rows].astype(np.int64)
    return np.asarray(mapped[mapped >= 0])


def _carry_kills(buffer: GrowingBuffer, new: AnyPart | None, row_maps: Mapping[int, npt.NDArray[np.int32]]) -> None:
    for part_id in [p for p in buffer.kills if p in row_maps]:
        rows = buffer.kills.pop(part_id)
        if new is not None:
            moved = _moved(row_maps[part_id], np.concatenate(rows))
            if len(moved):
                buffer.record_kill(new.part_id, moved)


__all__ = ["Applied", "PartStore", "UpdatePlan", "Watching", "take_batch"]
