"""A data node in a dictionary: every rule that a router relies on, and nothing else.

It keeps what it acknowledged, answers at once and never fails; faults are :mod:`omendb_chaos.sim.faulty_node`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_chaos.sim import memory_tree
from omendb_chaos.sim.memory_record import Record
from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import AlreadyExistsError, OmenDBError
from omendb_common.expected import conflict
from omendb_common.filters import Filter
from omendb_common.hlc import HybridLogicalClock, stamp_wall_ms
from omendb_common.ids import IdColumn, PointId, U64Array
from omendb_common.metadata import TopologySource
from omendb_common.overlays import Overlays
from omendb_common.payload import columns_from_rows, rows_from_columns
from omendb_common.records import Op, WriteBatch
from omendb_common.schema import CollectionSchema
from omendb_common.scores import distance_to_score
from omendb_common.shard_calls import (
    MAX_AHEAD_MS,
    Applied,
    Apply,
    Claim,
    Entries,
    Listed,
    Looked,
    Lookup,
    Maintain,
    Maintained,
    Repair,
    Score,
    Scored,
    Scroll,
    Scrolled,
    Search,
    Select,
    Selected,
    ShardHits,
    ShardRef,
    State,
    Summed,
    Sums,
    Verdict,
    Work,
)
from omendb_common.topology import Topology
from omendb_engine.payload.columns import BatchColumns
from omendb_engine.query.filter import evaluate

Refusal = tuple[Verdict, OmenDBError | None]


@dataclass(slots=True)
class MemoryReplica:
    """One replica: every record it has, by id; deleted ones leave their stamp."""

    schema: CollectionSchema
    records: dict[PointId, Record] = field(default_factory=dict)
    gc_floor: int = 0
    lsn: int = 0
    claims: dict[PointId, dict[int, int]] = field(default_factory=dict)
    """By id and stamp: the newest stamp that the point had when it was claimed (P19)."""
    waived: set[tuple[PointId, int]] = field(default_factory=set)
    given: set[tuple[PointId, int]] = field(default_factory=set)
    """Versions that others brought; their writers' own calls may come later (P4)."""

    def newest_claim(self, point_id: PointId) -> int:
        """The newest claim on a point that was not waived."""
        open_claims = (s for s in self.claims.get(point_id, {}) if (point_id, s) not in self.waived)
        return max(open_claims, default=0)

    def bar(self, point_id: PointId, stamp: int) -> int:
        """The newest claim that keeps a write under ``stamp`` out, 0 if none does; a waived one keeps itself out."""
        known = self.claims.get(point_id, {})
        closed = (s for s, base in known.items() if base < stamp < s and (point_id, s) not in self.waived)
        return max(closed, default=stamp if (point_id, stamp) in self.waived else 0)

    def live(self) -> dict[PointId, Record]:
        """The points that exist."""
        return {i: r for i, r in self.records.items() if r.live}


class MemoryNode:
    """Implements :class:`omendb_common.shard_calls.DataNode`."""

    def __init__(self, node_id: str, clock: Clock, source: TopologySource) -> None:
        self.node_id = node_id
        self._clock = clock
        self._source = source
        self._map = source.topology
        self._hlc = HybridLogicalClock(clock)
        self.replicas: dict[tuple[str, int, int], MemoryReplica] = {}
        """By collection, shard and session: a replica that a move makes has nothing of an earlier one."""

    def follow(self, topology: Topology) -> None:
        """Take over a newer map."""
        self._map = topology

    # -- the rules that come before all others (P15)

    def _replica(self, ref: ShardRef) -> MemoryReplica | Refusal:
        found = self._shard(ref)
        if found is None or found[1].epoch < ref.epoch:
            self._map = self._source.topology
            found = self._shard(ref)
        if found is None:
            return Verdict.NOT_HERE, None
        schema, shard = found
        if shard.epoch != ref.epoch:
            return Verdict.STALE_EPOCH, None
        (session,) = (r.session for r in shard.replicas if r.node_id == self.node_id)
        return self.replicas.setdefault((ref.collection_uuid, ref.shard_id, session), MemoryReplica(schema))

    def _shard(self, ref: ShardRef) -> tuple[CollectionSchema, Any] | None:
        info = self._map.by_uuid(ref.collection_uuid)
        for shard in () if info is None else info.shards:
            if shard.shard_id == ref.shard_id and self.node_id in (r.node_id for r in shard.replicas):
                assert info is not None
                return info.schema, shard
        return None

    # -- writes (P2)

    async def apply(self, call: Apply, deadline: Deadline) -> Applied:
        replica = self._replica(call.shard)
        if isinstance(replica, tuple):
            return Applied(*replica[:1], hlc=self._hlc.tick(), error=replica[1])
        if stamp_wall_ms(call.stamp) > self._clock.wall_ms() + MAX_AHEAD_MS:
            return Applied(Verdict.CLOCK_AHEAD, self._hlc.tick())
        ids = call.batch.ids.to_list()
        existed = sum(i in replica.records and replica.records[i].live for i in ids)
        if call.create_only and existed:
            taken = AlreadyExistsError(f"{existed} ids exist already", field="ids")
            return Applied(Verdict.REFUSED, self._hlc.tick(), error=taken)
        if call.versions is not None:
            refusal = self._unlike(replica, call, call.versions)
            if refusal is not None:
                return refusal
        if call.claim:
            return self._claimed(replica, call)
        superseded: list[int] = []
        newer: list[int] = []
        missing: list[int] = []
        barred: list[int] = []
        for row, (point_id, change) in enumerate(zip(ids, _changes(call.batch, call.stamp), strict=True)):
            stored = replica.records.get(point_id)
            held = stored.newest if stored is not None else replica.gc_floor
            bar = replica.bar(point_id, call.stamp)
            if bar:
                barred.append(row)
                superseded.append(row)
                newer.append(max(held, bar))
            elif (point_id, call.stamp) in replica.given:
                continue
            elif call.stamp < held or (stored is None and call.stamp == held):
                superseded.append(row)
                newer.append(held)
            elif stored is not None and call.stamp == held:
                continue
            elif call.batch.op is Op.UPDATE and (stored is None or not stored.live):
                missing.append(row)
            else:
                replica.records[point_id] = change if stored is None else stored.joined(change)
        self._hlc.observe(call.stamp)
        replica.lsn += 1
        return Applied(
            Verdict.OK,
            self._hlc.tick(),
            replica.lsn,
            "fsync",
            existed,
            np.array(superseded, np.int64),
            np.array(newer, np.uint64),
            np.array(missing, np.int64),
            barred=np.array(barred, np.int64),
        )

    def _unlike(self, replica: MemoryReplica, call: Apply, versions: U64Array) -> Applied | None:
        """The refusal of a write whose points have other versions, or something newer than its stamp."""
        records = [replica.records.get(point_id, Record()) for point_id in call.batch.ids.to_list()]
        held = np.array([record.newest for record in records], np.uint64)
        if bool((held == np.uint64(call.stamp)).all()):
            return None
        found = np.where([record.live for record in records], held, np.uint64(0))
        other = np.flatnonzero(found != versions)
        if len(other):
            return Applied(Verdict.REFUSED, self._hlc.tick(), error=conflict(call.batch.ids, other, found[other]))
        if bool((held < np.uint64(call.stamp)).all()):
            return None
        rows = np.arange(len(held))
        return Applied(Verdict.OK, self._hlc.tick(), superseded=rows, newer=np.full(len(held), held.max(), np.uint64))

    def _claimed(self, replica: MemoryReplica, call: Apply) -> Applied:
        """Claims on the points of the batch, or waivers of them."""
        superseded: list[int] = []
        newer: list[int] = []
        for row, point_id in enumerate(call.batch.ids.to_list()):
            if call.claim is Claim.WAIVE:
                replica.waived.add((point_id, call.stamp))
                continue
            held = replica.records.get(point_id, Record()).newest
            before = replica.newest_claim(point_id)
            if held >= call.stamp or before > call.stamp or call.stamp <= replica.gc_floor:
                superseded.append(row)
                newer.append(max(held, before, replica.gc_floor))
            else:
                replica.claims.setdefault(point_id, {}).setdefault(call.stamp, held)
        self._hlc.observe(call.stamp)
        replica.lsn += 1
        return Applied(
            Verdict.OK,
            self._hlc.tick(),
            replica.lsn,
            "fsync",
            superseded=np.array(superseded, np.int64),
            newer=np.array(newer, np.uint64),
        )

    async def repair(self, call: Repair, deadline: Deadline) -> Applied:
        replica = self._replica(call.shard)
        if isinstance(replica, tuple):
            return Applied(replica[0], hlc=self._hlc.tick(), error=replica[1])
        overtaken: list[tuple[int, int]] = []
        barred: list[int] = []
        row = 0
        for batch in call.records:
            assert batch.stamps is not None
            stamps = batch.stamps.tolist()
            for point_id, stamp, change in zip(batch.ids.to_list(), stamps, _changes(batch, stamps), strict=True):
                stored = replica.records.get(point_id, Record())
                bar = replica.bar(point_id, stamp)
                if bar or stored.newest > stamp:
                    overtaken.append((row, max(stored.newest, bar)))
                if bar:
                    barred.append(row)
                else:
                    if stored.newest <= stamp:
                        replica.given.add((point_id, stamp))
                    replica.records[point_id] = stored.joined(change)
                row += 1
            self._hlc.observe(max(stamps, default=0))
        replica.lsn += 1
        return Applied(
            Verdict.OK,
            self._hlc.tick(),
            replica.lsn,
            "fsync",
            superseded=np.array([at for at, _ in overtaken], np.int64),
            newer=np.array([stamp for _, stamp in overtaken], np.uint64),
            barred=np.array(barred, np.int64),
        )

    # -- reads

    async def lookup(self, call: Lookup, deadline: Deadline) -> Looked:
        replica = self._replica(call.shard)
        if isinstance(replica, tuple):
            return Looked(replica[0], hlc=self._hlc.tick(), error=replica[1])
        ids = call.ids.to_list()
        records = [replica.records.get(i) for i in ids]
        live = [r for r in records if r is not None and r.live]
        return Looked(
            Verdict.OK,
            np.array([_state(r) for r in records], np.uint8),
            np.array([0 if r is None else r.newest for r in records], np.uint64),
            np.array([0 if r is None or call.brief else r.digest() for r in records], np.uint64),
            tuple(_as_batches(ids, records)) if call.records else (),
            _payload(live) if call.payload else None,
            {name: _vectors(replica.schema, name, live) for name in call.vectors},
            self._hlc.tick(),
            overlays=overlays_of(records),
        )

    async def search(self, call: Search, deadline: Deadline) -> ShardHits:
        replica = self._replica(call.shard)
        if isinstance(replica, tuple):
            return ShardHits(replica[0], error=replica[1])
        if call.unproven:
            return ShardHits(Verdict.OK, hlc=self._hlc.tick())  # not covered: it never agrees on anything
        points = _matching(replica, call.condition)
        ids, records = list(points), list(points.values())
        m, k = len(call.queries), call.k
        distances = np.full((m, k), np.inf, np.float32)
        counts = np.zeros(m, np.int64)
        hits: list[int] = []
        spec = replica.schema.vector(call.field)
        rows = _vectors(replica.schema, call.field, records)
        for number, query in enumerate(call.queries):
            found = distances_to(query, rows, spec.metric)
            best = np.argsort(found, kind="stable")[:k]
            if call.score_threshold is not None:
                best = best[distance_to_score(found[best], spec.metric) >= call.score_threshold]
            distances[number, : len(best)] = found[best]
            counts[number] = len(best)
            hits += best.tolist()
        picked = [records[h] for h in hits]
        return ShardHits(
            Verdict.OK,
            distances,
            counts,
            IdColumn.of([ids[h] for h in hits]),
            np.array([r.newest for r in picked], np.uint64),
            _payload(picked) if call.payload else None,
            rows[hits] if call.vectors else None,
            Work(vectors_scanned=len(records) * m, segments_searched=1),
            self._hlc.tick(),
            overlays=overlays_of(picked),
        )

    async def score(self, call: Score, deadline: Deadline) -> Scored:
        replica = self._replica(call.shard)
        if isinstance(replica, tuple):
            return Scored(replica[0], error=replica[1])
        records = [replica.records.get(i) for i in call.ids.to_list()]
        matching = _matching(replica, call.condition)
        metric = replica.schema.vector(call.field).metric
        matches = np.array([i in matching for i in call.ids.to_list()], np.bool_)
        distances = np.full(len(records), np.inf, np.float32)
        for row, record in enumerate(records):
            if record is not None and matches[row]:
                distances[row] = distances_to(call.query, record.vector(call.field)[None], metric)[0]
        return Scored(
            Verdict.OK,
            np.array([_state(r) for r in records], np.uint8),
            np.array([0 if r is None else r.newest for r in records], np.uint64),
            matches,
            distances,
            overlays=overlays_of(records),
        )

    async def scroll(self, call: Scroll, deadline: Deadline) -> Scrolled:
        replica = self._replica(call.shard)
        if isinstance(replica, tuple):
            return Scrolled(replica[0], error=replica[1])
        points = _matching(replica, call.condition)
        column = IdColumn.of(list(points))
        hi, lo = column.hashes()
        keys = [(int(h) << 64) | int(low) for h, low in zip(hi, lo, strict=True)]
        after = -1 if call.cursor is None else int(call.cursor, 16)
        order = sorted((at for at, key in enumerate(keys) if key > after), key=keys.__getitem__)
        page = order[: call.limit]
        records = list(points.values())
        picked = [records[at] for at in page]
        rows = np.array(page, np.int64)
        return Scrolled(
            Verdict.OK,
            column.take(rows),
            np.array([r.newest for r in picked], np.uint64),
            hi[rows],
            _payload(picked) if call.payload else None,
            {name: _vectors(replica.schema, name, picked) for name in call.vectors},
            f"{keys[page[-1]]:032x}" if len(order) > len(page) else None,
            overlays=overlays_of(picked),
        )

    async def select(self, call: Select, deadline: Deadline) -> Selected:
        replica = self._replica(call.shard)
        if isinstance(replica, tuple):
            return Selected(replica[0], error=replica[1])
        points = _matching(replica, call.condition)
        if call.count_only:
            return Selected(Verdict.OK, len(points))
        stamps = np.array([r.newest for r in points.values()], np.uint64)
        return Selected(
            Verdict.OK, len(points), IdColumn.of(list(points)), stamps, overlays=overlays_of(list(points.values()))
        )

    async def maintain(self, call: Maintain, deadline: Deadline) -> Maintained:
        replica = self._replica(call.shard)
        if isinstance(replica, tuple):
            return Maintained(replica[0], error=replica[1])
        if call.task == "stats":
            return Maintained(Verdict.OK, {"points": len(replica.live()), "durability": "fsync"})
        if call.task == "next_auto_id":
            return Maintained(Verdict.OK, max((i for i in replica.records if isinstance(i, int)), default=-1) + 1)
        if call.task == "verify":
            return Maintained(Verdict.OK, {"through": 0, "equal": True, "members": {}})
        return Maintained(Verdict.OK, True)

    async def sums(self, call: Sums, deadline: Deadline) -> Summed:
        replica = self._replica(call.shard)
        if isinstance(replica, tuple):
            return Summed(replica[0], error=replica[1])
        return memory_tree.summed(replica.records, call, replica.gc_floor)

    async def entries(self, call: Entries, deadline: Deadline) -> Listed:
        replica = self._replica(call.shard)
        if isinstance(replica, tuple):
            return Listed(replica[0], error=replica[1])
        return memory_tree.listed(replica.records, call)


def distances_to(query: npt.NDArray[Any], rows: npt.NDArray[Any], metric: str) -> npt.NDArray[np.float32]:
    """Distances of one query to each row, as OmenDB defines them."""
    q, x = query.astype(np.float64), rows.astype(np.float64)
    if metric == "l2":
        found = np.sqrt(((x - q) ** 2).sum(axis=1))
    elif metric == "cosine":
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)
        q = q / max(float(np.linalg.norm(q)), 1e-30)
        found = 1 - x @ q
    else:
        found = -(x @ q)
    return np.asarray(found, np.float32)


def _state(record: Record | None) -> State:
    if record is None or not (record.live or record.deleted):
        return State.ABSENT
    return State.LIVE if record.live else State.DELETED


def overlays_of(records: Sequence[Record | None]) -> Overlays:
    """Those of the records that carry fields newer than their base."""
    found = [(row, r) for row, r in enumerate(records) if r is not None and r.newest > r.exists]
    return Overlays.of(
        np.array([row for row, _ in found], np.int64),
        np.array([r.exists for _, r in found], np.uint64),
        np.array([r.mark() for _, r in found], np.uint64),
    )


def _changes(batch: WriteBatch, stamp: int | Sequence[int]) -> list[Record]:
    """What a batch brings to each of its points."""
    stamps = [stamp] * batch.rows if isinstance(stamp, int) else list(stamp)
    if batch.op is Op.DELETE:
        return [Record(deleted=s) for s in stamps]
    payloads: Sequence[dict[str, Any]] = [{}] * batch.rows
    if batch.payload is not None and batch.payload.num_columns:
        payloads = rows_from_columns(batch.payload)
    rows = [{name: array[row] for name, array in batch.vectors.items()} for row in range(batch.rows)]
    if batch.op is Op.UPSERT:
        return [Record(s, 0, v, p) for s, v, p in zip(stamps, rows, payloads, strict=True)]
    out = []
    for s, v, p in zip(stamps, rows, payloads, strict=True):
        fields = {("vector", name): (s, value) for name, value in v.items()}
        fields |= {("key", key): (s, None) for key in batch.keys}
        fields |= {("key", key): (s, value) for key, value in p.items()}
        out.append(Record(fields=fields))
    return out


def _as_batches(ids: Sequence[PointId], records: Sequence[Record | None]) -> list[WriteBatch]:
    """Whole records as batches that :func:`_changes` reads back."""
    out: list[WriteBatch] = []
    for point_id, record in zip(ids, records, strict=True):
        if record is None:
            continue
        column = IdColumn.of([point_id])
        if record.deleted:
            out.append(WriteBatch(Op.DELETE, column, stamps=np.array([record.deleted], np.uint64)))
        if record.base:
            vectors = {name: v[None] for name, v in record.vectors.items()}
            payload = columns_from_rows([dict(record.payload)])
            out.append(WriteBatch(Op.UPSERT, column, vectors, payload, np.array([record.base], np.uint64)))
        for (kind, name), (stamp, value) in record.fields.items():
            stamps = np.array([stamp], np.uint64)
            if kind == "vector":
                out.append(WriteBatch(Op.UPDATE, column, {name: value[None]}, None, stamps))
            elif value is None:
                out.append(WriteBatch(Op.UPDATE, column, {}, None, stamps, (name,)))
            else:
                out.append(WriteBatch(Op.UPDATE, column, {}, columns_from_rows([{name: value}]), stamps))
    return out


def _payload(records: Sequence[Record]) -> pa.RecordBatch:
    return columns_from_rows([r.metadata() for r in records])


def _vectors(schema: CollectionSchema, name: str, records: Sequence[Record]) -> npt.NDArray[Any]:
    spec = schema.vector(name)
    if not records:
        return np.empty((0, spec.dimension), spec.numpy_dtype)
    return np.stack([r.vector(name) for r in records])


def _matching(replica: MemoryReplica, condition: Filter | None) -> dict[PointId, Record]:
    points = replica.live()
    if condition is None or not points:
        return points
    kept = set(evaluate(condition, BatchColumns.of([_payload(list(points.values()))], [len(points)])).rows().tolist())
    return {i: r for at, (i, r) in enumerate(points.items()) if at in kept}


__all__ = ["MemoryNode", "MemoryReplica", "distances_to", "overlays_of"]
