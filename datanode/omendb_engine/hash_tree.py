"""Hash trees: what a replica holds, summed up so that two replicas find where they differ with few questions (P12).

A record's leaf is given by the top bits of the second half of its id's hash: the first half is its place on the ring,
of which the top bits are alike in all ids of a shard. A node's value is the number of its records and the sum of
their 128-bit hashes, two halves of 64 bits modulo 2^64 each. A sum does not depend on the order, and unlike an
exclusive-or it shows a record that is counted twice.

Writes pay nothing for it. A growing buffer keeps the hashes of the rows it was asked for; its seal stores them beside
the rows, and merges pass them on, so that no vector is read for a tree, not after a restart either. A segment is summed
up when first asked for, after which only the rows that died since are taken off. What is younger than the moment asked
for takes no part, nor do deletions at or below the floor, since replicas forget those when it suits them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omendb_common.errors import InvalidArgumentError
from omendb_common.ids import IdColumn, U64Array
from omendb_common.schema import CollectionSchema
from omendb_common.shard_calls import TREE_DEPTH_MAX, State
from omendb_engine.parts import BufferPart, SegmentPart, Snapshot
from omendb_engine.points import base_stamps
from omendb_engine.query.digests import (
    buffer_digests,
    deleted_digests,
    known_digests,
    part_digests,
    widened,
    wrong_digests,
)

I64Array = npt.NDArray[np.int64]

LEAVES = 1 << TREE_DEPTH_MAX
_LEAF_SHIFT = np.uint64(64 - TREE_DEPTH_MAX)
_IDS_TOLD = 20


@dataclass(frozen=True, slots=True)
class Sums:
    """Values of nodes, parallel: how many records, and both halves of the sum of their hashes."""

    counts: I64Array
    first: U64Array
    second: U64Array

    def __len__(self) -> int:
        return len(self.counts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sums):
            return NotImplemented
        return len(self) == len(other) and not self.differing(other).any()

    __hash__ = None  # type: ignore[assignment]

    @staticmethod
    def zeros(n: int) -> Sums:
        """Of nodes without records."""
        return Sums(np.zeros(n, np.int64), np.zeros(n, np.uint64), np.zeros(n, np.uint64))

    def take(self, nodes: npt.NDArray[np.int64]) -> Sums:
        """The values of some nodes."""
        return Sums(self.counts[nodes], self.first[nodes], self.second[nodes])

    def differing(self, other: Sums) -> npt.NDArray[np.bool_]:
        """Which nodes have another value in ``other``."""
        found = (self.counts != other.counts) | (self.first != other.first) | (self.second != other.second)
        return np.asarray(found, np.bool_)

    def add(self, leaves: I64Array, first: U64Array, second: U64Array, counts: int | I64Array = 1) -> None:
        """Add records, in place."""
        np.add.at(self.counts, leaves, counts)
        np.add.at(self.first, leaves, first)
        np.add.at(self.second, leaves, second)

    def subtract(self, leaves: I64Array, first: U64Array, second: U64Array) -> None:
        """Take records off, in place."""
        np.subtract.at(self.counts, leaves, 1)
        np.subtract.at(self.first, leaves, first)
        np.subtract.at(self.second, leaves, second)


@dataclass(frozen=True, slots=True)
class HashTree:
    """The leaves of a replica at :data:`TREE_DEPTH_MAX`, through a stamp and above a floor."""

    through: int
    gc_floor: int
    leaves: Sums

    @property
    def count(self) -> int:
        """Records in it."""
        return int(self.leaves.counts.sum())

    def level(self, depth: int) -> Sums:
        """The values of all 2^depth nodes of a level; 0 is the root.

        Raises:
            InvalidArgumentError: there is no such level.
        """
        check_depth(depth)
        shape = (1 << depth, LEAVES >> depth)
        leaves = self.leaves
        return Sums(
            leaves.counts.reshape(shape).sum(axis=1),
            leaves.first.reshape(shape).sum(axis=1, dtype=np.uint64),
            leaves.second.reshape(shape).sum(axis=1, dtype=np.uint64),
        )


@dataclass(frozen=True, slots=True)
class Entries:
    """What some nodes hold, in the order of the second and then the first half of the ids' hashes; parallel columns.

    ``states`` as :class:`~omendb_common.shard_calls.State`; ``stamps``: the newest of each record; ``bases``: that of
    its upsert or deletion; ``digests``: as :class:`~omendb_engine.query.versions.Versions` has them. ``after``: where
    the next page begins, None when there is none.
    """

    ids: IdColumn
    states: npt.NDArray[np.uint8]
    stamps: U64Array
    bases: U64Array
    digests: U64Array
    after: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class TreeCheck:
    """What a check of a hash tree found: leaves that were not as the records are, and some of the ids to blame.

    ``ids``: of rows whose stored digest is not that of what they hold; none where only sums in memory were wrong.
    """

    leaves: int = 0
    ids: tuple[int | str, ...] = ()


class HashTrees:
    """The hash trees of one replica. Thread-safe; one is made at a time.

    Args:
        snapshot: the newest state of the replica.
        by_content: read every record, and believe no digest that was stored.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], schema: CollectionSchema, *, by_content: bool = False) -> None:
        self._snapshot = snapshot
        self._schema = schema
        self._by_content = by_content
        self._lock = threading.Lock()
        self._segments: dict[int, _SegmentSums] = {}
        self._buffers: dict[int, _BufferHashes] = {}

    def tree(self, through: int, gc_floor: int) -> HashTree:
        """The tree of what is acknowledged now, of records up to stamp ``through``."""
        with self._lock:
            # Taken under the lock: dead rows may only become more from one tree to the next.
            snapshot = self._snapshot()
            leaves = self._rows(snapshot, through)
        tombs = _tombstones(snapshot, gc_floor)
        settled = tombs.take(np.flatnonzero(tombs.stamps <= np.uint64(through)))
        leaves.add(_leaf(settled.lo), *widened(deleted_digests(settled.stamps), settled.hi, settled.lo))
        return HashTree(through, gc_floor, leaves)

    def scanned(self, through: int, gc_floor: int) -> HashTree:
        """The same from scratch: every record is read. What :meth:`tree` remembers must give no other."""
        return HashTrees(self._snapshot, self._schema, by_content=True).tree(through, gc_floor)

    def check(self, through: int) -> TreeCheck:
        """Hold what is remembered, and stored, against the records; what is wrong is not believed any more.

        Deletions take no part: nothing is remembered of them. Both sides are of one snapshot, so that writes meanwhile
        make no difference, and others may have trees made while every record is read.
        """
        with self._lock:
            snapshot = self._snapshot()
            remembered = self._rows(snapshot, through)
        scan = HashTrees(lambda: snapshot, self._schema, by_content=True)
        leaves = int(np.count_nonzero(remembered.differing(scan._rows(snapshot, through))))
        if not leaves:
            return TreeCheck()
        # Of what is there by now: meanwhile a merge may have passed on what is wrong.
        ids = self._distrust(self._snapshot())
        with self._lock:
            self._segments, self._buffers = {}, {}
        return TreeCheck(leaves, tuple(ids[:_IDS_TOLD]))

    def _distrust(self, snapshot: Snapshot) -> list[int | str]:
        """Have digests that are wrong made of the records from now on; the ids of their rows, some of each segment."""
        ids: list[int | str] = []
        for part in snapshot.parts:
            if isinstance(part, BufferPart):
                part.buffer.digests.forget()
                continue
            wrong = wrong_digests(part, self._schema)
            if len(wrong):
                part.segment.distrust_digests()
                ids += part.ids_at(wrong[:_IDS_TOLD]).to_list()
        return ids

    def _rows(self, snapshot: Snapshot, through: int) -> Sums:
        """The leaves of live rows; for one thread at a time."""
        leaves = Sums.zeros(LEAVES)
        self._forget(snapshot)
        for part in snapshot.parts:
            if isinstance(part, SegmentPart):
                self._segment(part).put(part, through, leaves)
            else:
                self._buffer(part).put(part, through, leaves)
        return leaves

    def entries(
        self, nodes: npt.NDArray[np.int64], depth: int, gc_floor: int, after: tuple[int, int] | None, limit: int
    ) -> Entries:
        """The records below some nodes of level ``depth``, however young, ``limit`` at a time."""
        check_depth(depth)
        wanted = np.zeros(1 << depth, np.bool_)
        wanted[nodes] = True
        return _entries(self._snapshot(), self._schema, wanted, depth, gc_floor, after, limit)

    def _forget(self, snapshot: Snapshot) -> None:
        segments = {part.segment.uid for part in snapshot.parts if isinstance(part, SegmentPart)}
        buffers = {part.part_id for part in snapshot.parts if isinstance(part, BufferPart)}
        self._segments = {uid: known for uid, known in self._segments.items() if uid in segments}
        self._buffers = {number: known for number, known in self._buffers.items() if number in buffers}

    def _segment(self, part: SegmentPart) -> _SegmentSums:
        known = self._segments.get(part.segment.uid)
        if known is None:
            known = self._segments[part.segment.uid] = _SegmentSums(part, self._schema, self._by_content)
        return known

    def _buffer(self, part: BufferPart) -> _BufferHashes:
        known = self._buffers.get(part.part_id)
        if known is None:
            known = self._buffers[part.part_id] = _BufferHashes(self._schema, self._by_content)
        return known


class _SegmentSums:
    """A segment's rows summed up by leaf, without those that had died when it was last asked for.

    Only leaves that have records are kept: 28 bytes for each.
    """

    def __init__(self, part: SegmentPart, schema: CollectionSchema, by_content: bool) -> None:
        self._schema = schema
        self._digests = part_digests if by_content else known_digests
        self._dead = part.dead
        leaf, first, second = self._hashes(part, np.flatnonzero(part.dead.alive()))
        order = np.argsort(leaf, kind="stable")
        self._leaves, starts = np.unique(leaf[order], return_index=True)
        stops = np.append(starts[1:], len(order))
        add = np.add.reduceat
        self._sums = Sums(
            (stops - starts).astype(np.int64),
            add(first[order], starts) if len(starts) else first,
            add(second[order], starts) if len(starts) else second,
        )

    def put(self, part: SegmentPart, through: int, out: Sums) -> None:
        """Add the live rows up to ``through``."""
        self._advance(part)
        out.add(self._leaves, self._sums.first, self._sums.second, self._sums.counts)
        young = np.flatnonzero(part.segment.stamps > np.uint64(through))
        young = young[~part.dead.contains(young)]
        if len(young):
            out.subtract(*self._hashes(part, young))

    def _advance(self, part: SegmentPart) -> None:
        if part.dead.count == self._dead.count:
            return
        died = np.flatnonzero(part.dead.mask() & ~self._dead.mask())
        leaf, first, second = self._hashes(part, died)
        self._sums.subtract(np.searchsorted(self._leaves, leaf), first, second)
        self._dead = part.dead

    def _hashes(self, part: SegmentPart, rows: I64Array) -> tuple[I64Array, U64Array, U64Array]:
        hi, lo = part.segment.hi[rows], part.segment.lo[rows]
        return _leaf(lo), *widened(self._digests(part, rows, self._schema), hi, lo)


class _BufferHashes:
    """The hashes of a growing buffer's rows as far as they were asked for; rows never change."""

    def __init__(self, schema: CollectionSchema, by_content: bool) -> None:
        self._schema = schema
        self._by_content = by_content
        self._first = np.empty(0, np.uint64)
        self._second = np.empty(0, np.uint64)

    def put(self, part: BufferPart, through: int, out: Sums) -> None:
        """Add the live rows up to ``through``."""
        known = len(self._first)
        hi, lo = part.keys()
        if part.n > known:
            rows = np.arange(known, part.n)
            digests = (
                part_digests(part, rows, self._schema)
                if self._by_content
                else buffer_digests(part, self._schema)[known:]
            )
            first, second = widened(digests, hi[known:], lo[known:])
            self._first = np.concatenate([self._first, first])
            self._second = np.concatenate([self._second, second])
        rows = np.flatnonzero(part.dead.alive() & (part.buffer.stamps[: part.n] <= np.uint64(through)))
        out.add(_leaf(lo[rows]), self._first[rows], self._second[rows])


@dataclass(frozen=True, slots=True)
class _Tombs:
    """Deletions: ids, their hashes, and the stamps."""

    ids: IdColumn
    hi: U64Array
    lo: U64Array
    stamps: U64Array

    def take(self, rows: I64Array) -> _Tombs:
        return _Tombs(self.ids.take(rows), self.hi[rows], self.lo[rows], self.stamps[rows])


def _tombstones(snapshot: Snapshot, above: int, wanted: Callable[[U64Array], I64Array] | None = None) -> _Tombs:
    """The newest deletion of every id that is not live, above a floor; ``wanted`` picks by the second hash halves."""
    kept = []
    for part in snapshot.parts:
        buried = part.segment.tombstones() if isinstance(part, SegmentPart) else part.buffer.tombstones.columns()
        ids, stamps = buried
        if not len(ids):
            continue
        found = _Tombs(ids, *ids.hashes(), stamps)
        rows = np.flatnonzero(stamps > np.uint64(above))
        if wanted is not None:
            rows = rows[wanted(found.lo[rows])]
        kept.append(found.take(rows))
    none = np.empty(0, np.uint64)
    if not kept:
        return _Tombs(IdColumn.empty(), none, none, none)
    every = _Tombs(
        IdColumn.concat([tombs.ids for tombs in kept]),
        np.concatenate([tombs.hi for tombs in kept]),
        np.concatenate([tombs.lo for tombs in kept]),
        np.concatenate([tombs.stamps for tombs in kept]),
    )
    order = np.lexsort((every.stamps, every.hi, every.lo))
    hi, lo = every.hi[order], every.lo[order]
    last = np.ones(len(order), np.bool_)
    last[:-1] = (hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1])
    every = every.take(order[last])
    return every.take(np.flatnonzero(~snapshot.locate(every.hi, every.lo).found))


def _entries(
    snapshot: Snapshot,
    schema: CollectionSchema,
    wanted: npt.NDArray[np.bool_],
    depth: int,
    gc_floor: int,
    after: tuple[int, int] | None,
    limit: int,
) -> Entries:
    shift = np.uint64(64 - depth) if depth else None

    def below(lo: U64Array) -> I64Array:
        mask = np.full(len(lo), wanted[0]) if shift is None else wanted[(lo >> shift).view(np.int64)]
        if after is not None:
            mask &= lo >= np.uint64(after[0])
        return np.flatnonzero(mask)

    tombs = _tombstones(snapshot, gc_floor, below)
    rows = [below(part.keys()[1]) for part in snapshot.parts]
    rows = [found[~part.dead.contains(found)] for part, found in zip(snapshot.parts, rows, strict=True)]
    lo = np.concatenate([*(part.keys()[1][r] for part, r in zip(snapshot.parts, rows, strict=True)), tombs.lo])
    hi = np.concatenate([*(part.keys()[0][r] for part, r in zip(snapshot.parts, rows, strict=True)), tombs.hi])
    order = np.lexsort((hi, lo))
    if after is not None:
        order = order[(lo[order] > np.uint64(after[0])) | (hi[order] > np.uint64(after[1]))]
    more = len(order) > limit
    order = order[:limit]
    found = _columns(snapshot, schema, rows, tombs, order)
    last = (int(lo[order[-1]]), int(hi[order[-1]])) if more else None
    return Entries(*found, last)


def _columns(
    snapshot: Snapshot, schema: CollectionSchema, rows: list[I64Array], tombs: _Tombs, order: I64Array
) -> tuple[IdColumn, npt.NDArray[np.uint8], U64Array, U64Array, U64Array]:
    """Ids, states, stamps, bases and digests of ``order``, which counts through the parts' rows and the deletions."""
    starts = np.cumsum([0, *(len(found) for found in rows)])
    ids: list[IdColumn] = []
    places: list[I64Array] = []
    numbers: list[list[U64Array]] = [[], [], []]
    for part, found, start, stop in zip(snapshot.parts, rows, starts[:-1], starts[1:], strict=True):
        at = np.flatnonzero((order >= start) & (order < stop))
        if not len(at):
            continue
        mine = found[order[at] - start]
        places.append(at)
        ids.append(part.ids_at(mine))
        columns = part.stamps_at(mine), base_stamps(part, mine), known_digests(part, mine, schema)
        for column, values in zip(numbers, columns, strict=True):
            column.append(values)
    live = sum(len(at) for at in places)
    at = np.flatnonzero(order >= starts[-1])
    buried = tombs.take(order[at] - starts[-1])
    for column, values in zip(numbers, (buried.stamps, buried.stamps, deleted_digests(buried.stamps)), strict=True):
        column.append(values)
    back = np.argsort(np.concatenate([*places, at]))
    states = np.full(len(order), State.DELETED, np.uint8)
    states[:live] = State.LIVE
    stamps, bases, digests = (np.concatenate(column)[back] for column in numbers)
    return IdColumn.concat([*ids, buried.ids]).take(back), states[back], stamps, bases, digests


def _leaf(lo: U64Array) -> I64Array:
    return (lo >> _LEAF_SHIFT).view(np.int64)


def check_depth(depth: int) -> None:
    """InvalidArgumentError unless a tree has that level."""
    if not 0 <= depth <= TREE_DEPTH_MAX:
        raise InvalidArgumentError(f"got {depth}", field="depth", bound=f"0..{TREE_DEPTH_MAX}")


__all__ = ["LEAVES", "Entries", "HashTree", "HashTrees", "Sums", "TreeCheck", "check_depth"]
