"""What of this replica other open replicas are proven to have as well, and what they may lack (P23).

Replicas *agree* through a stamp when each gave one and the same root of its hash tree through it. From then on
everything that one of them held at that moment under such a stamp, the others have too, or what covers it, for as long
as they stay open: replicas forget nothing that counts. What they may lack are the rows with greater stamps, and those
that came since under smaller ones: a write whose outcome was unknown, a repair, a router that slept. Stamps alone do
not tell of the latter, so a replica remembers their ids from before the moment its tree is made (a *watch*).

Nothing of it is on disk: a replica that is opened anew has another ``opening``, and no agreement until the next one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from omendb_common.ids import IdColumn, U64Array
from omendb_common.shard_calls import short_names
from omendb_engine.parts import AnyPart, BufferPart, SegmentPart, Snapshot
from omendb_engine.query.rowset import RowSet

I64Array = npt.NDArray[np.int64]
U32Array = npt.NDArray[np.uint32]

UNPROVEN_ROWS_MAX = 16_384
"""More rows than this are not compared one by one beside another replica's search: there it is searched as a whole."""
LATE_MAX = 4096
"""Ids that came late; with more the agreement has ended."""
_WATCHES_MAX = 4


class Unproven(NamedTuple):
    """What a snapshot has that others may lack: live rows in ``parts``, by the part's number; ``rows`` in all.

    ``openings``: those that have the rest, from ``positions`` of their logs on. ``names``: of all ids that were written
    or deleted since, ascending.
    """

    parts: tuple[tuple[int, RowSet], ...]
    rows: int
    openings: U64Array
    positions: U64Array
    names: U32Array


@dataclass(slots=True, eq=False)
class Watch:
    """Ids that arrived under stamps up to ``through`` since the watch began; ``None``: too many."""

    through: int
    late: list[tuple[U64Array, U64Array]] | None
    rows: int = 0

    def see(self, ids: IdColumn, stamps: U64Array | int) -> None:
        """Told of every operation before readers see it."""
        if self.late is None:
            return
        if isinstance(stamps, int):
            if stamps > self.through:
                return
        else:
            some = np.flatnonzero(stamps <= np.uint64(self.through))
            if not len(some):
                return
            ids = ids.take(some)
        self.rows += len(ids)
        self.late = [*self.late, ids.hashes()] if self.rows <= LATE_MAX else None


@dataclass(frozen=True, slots=True, eq=False)
class _Agreed:
    watch: Watch
    openings: U64Array
    positions: U64Array


class Agreements:
    """The agreements of one open replica. Thread-safe.

    Args:
        exclusively: runs something while no group of writes is being applied.

    ``opening``: a number that no other replica, and no other opening of this one, has; who draws it sets it, once.
    """

    def __init__(self, exclusively: Callable[[Callable[[], None]], None]) -> None:
        self.opening = 0
        self._watches: tuple[Watch, ...] = ()
        self._exclusively = exclusively
        self._lock = threading.Lock()
        self._agreed: _Agreed | None = None
        self._finder = _Finder(0)
        self._found: tuple[Snapshot, _Agreed, Unproven | None] | None = None

    @property
    def through(self) -> int:
        """Up to which stamp others are known to have the same; 0 without an agreement."""
        return 0 if self._agreed is None else self._agreed.watch.through

    def see(self, ids: IdColumn, stamps: U64Array | int) -> None:
        """Told of every operation before readers see it, by the thread that applies it."""
        for watch in self._watches:
            watch.see(ids, stamps)

    def begin(self, through: int) -> None:
        """Remember from now on what arrives under stamps up to ``through``; the tree is to be made after this."""

        def add() -> None:
            # One that began earlier has seen all that this one would.
            if all(watch.through != through for watch in self._watches):
                kept = self._watches[-_WATCHES_MAX + 1 :]
                agreed = () if self._agreed is None or self._agreed.watch in kept else (self._agreed.watch,)
                self._watches = (*agreed, *kept, Watch(through, []))

        self._exclusively(add)

    def note(self, through: int, openings: Sequence[int], positions: Sequence[int]) -> bool:
        """Take an agreement for good; False where nothing was watched for it, or this opening is not of it.

        ``positions``: of the log of each, at which it had all that it agrees on.
        """
        taken = False

        def take() -> None:
            nonlocal taken
            watch = next((watch for watch in self._watches if watch.through == through), None)
            if watch is None or not self.opening or self.opening not in openings:
                return
            taken = True
            self._agreed = _Agreed(watch, np.array(openings, np.uint64), np.array(positions, np.uint64))
            self._watches = self._watches[self._watches.index(watch) :]

        # Between two groups, as in ``begin``: a watch that is dropped meanwhile would see nothing any more.
        self._exclusively(take)
        return taken

    def unproven(self, snapshot: Snapshot) -> Unproven | None:
        """What of a snapshot, taken before this is called, others may lack; None: too much, or it is not known."""
        with self._lock:
            agreed = self._agreed
            if agreed is None:
                return None
            found = self._found
            if found is None or found[0] is not snapshot or found[1] is not agreed:
                if self._finder.through != agreed.watch.through:
                    self._finder = _Finder(agreed.watch.through)
                found = self._found = snapshot, agreed, self._finder.find(snapshot, agreed)
            return found[2]

    def nothing(self, snapshot: Snapshot) -> Unproven | None:
        """What :meth:`unproven` found of this very snapshot, if that was nothing at all; looks for nothing."""
        found = self._found
        if found is None or found[0] is not snapshot or found[1] is not self._agreed or found[2] is None:
            return None
        return None if len(found[2].names) else found[2]


class _Finder:
    """Finds the rows above one stamp. What it finds of a segment stays so, and of a buffer only more comes."""

    def __init__(self, through: int) -> None:
        self.through = through
        self._segments: dict[int, I64Array] = {}
        self._buffers: dict[int, _BufferRows] = {}
        self._buried: dict[int, _Buried] = {}

    def find(self, snapshot: Snapshot, agreed: _Agreed) -> Unproven | None:
        late = agreed.watch.late
        if late is None:
            return None
        self._forget(snapshot)
        rows = [self._rows(part) for part in snapshot.parts]
        if sum(map(len, rows)) > UNPROVEN_ROWS_MAX:
            return None
        names = [short_names(part.keys()[1][some]) for part, some in zip(snapshot.parts, rows, strict=True)]
        names += [self._names_of_deleted(part) for part in snapshot.parts]
        if late:
            hi, lo = (np.concatenate(column) for column in zip(*late, strict=True))
            names.append(short_names(lo))
            located = snapshot.locate(hi, lo)
            for number, _, some in snapshot.by_part(located):
                rows[number] = np.union1d(rows[number], some)
        if sum(map(len, names)) > UNPROVEN_ROWS_MAX:
            return None
        live = [some[~part.dead.contains(some)] for part, some in zip(snapshot.parts, rows, strict=True)]
        parts = tuple(
            (number, RowSet.of_rows(some, snapshot.parts[number].n)) for number, some in enumerate(live) if len(some)
        )
        return Unproven(parts, sum(map(len, live)), agreed.openings, agreed.positions, np.unique(np.concatenate(names)))

    def _forget(self, snapshot: Snapshot) -> None:
        segments = {part.segment.uid for part in snapshot.parts if isinstance(part, SegmentPart)}
        numbers = {part.part_id for part in snapshot.parts}
        self._segments = {uid: rows for uid, rows in self._segments.items() if uid in segments}
        self._buffers = {number: known for number, known in self._buffers.items() if number in numbers}
        self._buried = {number: known for number, known in self._buried.items() if number in numbers}

    def _rows(self, part: AnyPart) -> I64Array:
        """Rows above the stamp, dead ones included."""
        if isinstance(part, BufferPart):
            return self._buffers.setdefault(part.part_id, _BufferRows()).upto(part, self.through)
        segment = part.segment
        rows = self._segments.get(segment.uid)
        if rows is None:
            newer = segment.ref.max_stamp > self.through
            rows = np.flatnonzero(segment.stamps > np.uint64(self.through)) if newer else np.empty(0, np.int64)
            self._segments[segment.uid] = rows
        return rows

    def _names_of_deleted(self, part: AnyPart) -> U32Array:
        known = self._buried.get(part.part_id)
        if known is None:
            known = self._buried[part.part_id] = _Buried()
        return known.names(part, self.through)


class _BufferRows:
    """Rows of a growing buffer above a stamp, as far as it was looked at; rows never change."""

    def __init__(self) -> None:
        self._seen = 0
        self._rows: I64Array = np.empty(0, np.int64)

    def upto(self, part: BufferPart, through: int) -> I64Array:
        """Those of the part, which may be an earlier view of the buffer than the last one; no more than it takes."""
        if part.n > self._seen and len(self._rows) <= UNPROVEN_ROWS_MAX:
            newer = np.flatnonzero(part.buffer.stamps[self._seen : part.n] > np.uint64(through)) + self._seen
            self._rows = np.concatenate([self._rows, newer])
            self._seen = part.n
        if part.n >= self._seen:
            return self._rows
        return self._rows[: int(np.searchsorted(self._rows, part.n))]


class _Buried:
    """Names of the ids that a part remembers as deleted above a stamp."""

    def __init__(self) -> None:
        self._seen = 0
        self._names: U32Array = np.empty(0, np.uint32)

    def names(self, part: AnyPart, through: int) -> U32Array:
        """Of all that is remembered now: deletions that no reader sees yet may be among them."""
        if isinstance(part, SegmentPart):
            if not self._seen:
                self._seen = 1
                self._add(*part.segment.tombstones(), through)
            return self._names
        entries = part.buffer.tombstones.after(self._seen)
        self._seen += len(entries)
        for ids, stamps in entries:
            self._add(ids, stamps, through)
        return self._names

    def _add(self, ids: IdColumn, stamps: U64Array, through: int) -> None:
        some = np.flatnonzero(stamps > np.uint64(through))
        if len(some):
            self._names = np.concatenate([self._names, short_names(ids.take(some).hashes()[1])])


__all__ = ["LATE_MAX", "UNPROVEN_ROWS_MAX", "Agreements", "Unproven", "Watch"]
