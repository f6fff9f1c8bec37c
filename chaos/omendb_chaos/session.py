"""A database on a simulated disk, with the oracle's history written beside every operation.

Nothing here runs by itself: background work is done when a workload asks for it, so one seed is one run.
"""

from __future__ import annotations

import errno
import json
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_chaos.oracle import Collection, Effect, History, Point, State, Step, match, observe
from omendb_chaos.sim.disk import SimDisk, SimFile
from omendb_chaos.sim.oplog import Image
from omendb_common.checksum import Buffer
from omendb_common.config import EngineSettings, settings_from
from omendb_common.disk import OpenMode
from omendb_common.errors import OmenDBError, UnavailableError
from omendb_common.filters import parse_filter
from omendb_common.ids import IdColumn, PointId
from omendb_common.payload import columns_from_rows
from omendb_common.schema import CollectionSchema, VectorField
from omendb_engine.folder import Folder
from omendb_engine.replica import Replica, WriteResult

PATH = "db"
DEFAULT = "points"
DIMENSION = 4
FIELD = VectorField(DIMENSION)

# Everything small, so that a few rows are enough to rotate logs, seal, merge and index.
SMALL: Mapping[str, Any] = {
    "storage.wal_segment_bytes": 64 << 10,
    "storage.ballast_bytes": 0,
    "buffer.buffer_rows_max": 64,
    "buffer.buffer_bytes_max": 64 << 10,
    "index.flat_rows_max": 8,
    "index.hnsw_m": 4,
    "index.hnsw_ef_construction": 8,
    "index.index_delay_s": 0.0,
    "index.build_threads": 1,
    "compaction.merge_fanin": 3,
    "memory.memory_limit_bytes": 64 << 20,
    "memory.column_cache_bytes": 1 << 20,
    "memory.filter_cache_bytes": 1 << 20,
    "workers.background_threads": 0,
}


class BusyDisk(SimDisk):
    """A simulated disk on which other things can be made to happen in the middle of a build.

    ``failed_syncs``: paths of the files and folders whose sync failed, in order.
    """

    def __init__(self, seed: int = 0, *, capacity_bytes: int | None = None, image: Image | None = None) -> None:
        super().__init__(seed, capacity_bytes=capacity_bytes, image=image)
        self._waiting: list[tuple[str, Callable[[], object]]] = []
        self._creating = False
        self.failed_syncs: list[str] = []

    def meanwhile(self, part: str, act: Callable[[], object]) -> None:
        """Run ``act`` once, before the next file is written whose path has ``part`` in it."""
        self._waiting.append((part, act))

    def open(self, path: str, mode: OpenMode) -> SimFile:
        """See ``Disk``."""
        self._creating = mode == "create"
        return super().open(path, mode)

    def enter(self, kind: str, path: str) -> None:
        """See ``SimDisk``. Opening what is there needs no space."""
        try:
            super().enter(kind, path)
        except OSError as error:
            if kind != "open" or self._creating or error.errno != errno.ENOSPC:
                raise

    def calm_down(self) -> None:
        """Forget what has not happened yet."""
        self._waiting.clear()

    def write_file(self, path: str, parts: Sequence[Buffer]) -> int:
        """See ``Disk``."""
        for item in [w for w in self._waiting if w[0] in path]:
            self._waiting.remove(item)
            item[1]()
        return super().write_file(path, parts)

    def sync_node(self, node: int, path: str, kind: str) -> None:
        """See ``SimDisk``."""
        try:
            super().sync_node(node, path, kind)
        except OSError:
            self.failed_syncs.append(path)
            raise

    def sync_dir(self, path: str) -> None:
        """See ``Disk``."""
        try:
            super().sync_dir(path)
        except OSError:
            self.failed_syncs.append(path)
            raise


class SimClock:
    """A clock that moves a little with every look, the same in every run."""

    def __init__(self) -> None:
        self._ticks = 0

    def wall_ms(self) -> int:
        """See ``Clock``."""
        self._ticks += 1
        return 1_750_000_000_000 + self._ticks

    def mono_s(self) -> float:
        """See ``Clock``."""
        self._ticks += 1
        return self._ticks * 1e-3

    def pass_time(self, seconds: float) -> None:
        """Let so much time go by at once."""
        self._ticks += int(seconds * 1000)


def small_settings(changes: Mapping[str, Any] | None = None) -> EngineSettings:
    """Settings for a few rows, with some changed."""
    return settings_from({**SMALL, **(changes or {})})


def open_folder(
    disk: SimDisk, settings: EngineSettings, *, seed: int = 0, path: str = PATH, clock: SimClock | None = None
) -> Folder:
    """Open the database on a simulated disk."""
    uuids = random.Random(f"uuids {seed} {disk.position}")
    return Folder.open(
        path,
        settings=settings,
        disk=disk,
        clock=clock or SimClock(),
        lock=False,
        new_uuid=lambda: str(uuid.UUID(int=uuids.getrandbits(128), version=4)),
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One point to be written."""

    point_id: PointId
    vectors: Mapping[str, npt.NDArray[Any]]
    payload: Mapping[str, Any]


class Session:
    """Operations on a database, each noted in ``history`` with what it means.

    Args:
        disk: where the database is; a new one when None.
        changes: settings that differ from ``SMALL``.

    ``tolerant``: errors are collected in ``refused`` and not raised, as a program does that goes on as far as it can.
    ``watch`` is called after every acknowledgement and every job behind the writes.
    ``late_acks``: writes acknowledged although a sync of their log had failed since the database was opened.
    """

    def __init__(
        self, disk: BusyDisk | None = None, changes: Mapping[str, Any] | None = None, *, seed: int = 0
    ) -> None:
        self.disk = disk if disk is not None else BusyDisk(seed)
        self.settings = small_settings(changes)
        self.rng = random.Random(f"session {seed}")
        self.history = History()
        self.known: set[PointId] = set()
        self.refused: list[OmenDBError | OSError] = []
        self.tolerant = False
        self.watch: Callable[[], None] = lambda: None
        self.late_acks = 0
        self.clock = SimClock()
        self._renamed: dict[str, str] = {}
        self._fields: dict[str, tuple[VectorField, ...]] = {}
        self._failed_before = 0
        self._seed = seed
        self._folder: Folder | None = None

    # -- the database as a whole

    @property
    def folder(self) -> Folder:
        """The open database."""
        assert self._folder is not None, "the database is open"
        return self._folder

    @property
    def is_open(self) -> bool:
        """Whether a database is open."""
        return self._folder is not None

    def open(self) -> Session:
        """Open the database, and see which operations of unknown outcome took effect."""
        self._failed_before = len(self.disk.failed_syncs)
        self._try_opening()
        if self.is_open and self.history.steps and not self.tolerant:
            self.check(settle=True)
        return self

    def _try_opening(self) -> None:
        try:
            self._folder = open_folder(self.disk, self.settings, seed=self._seed, clock=self.clock)
        except (OmenDBError, OSError) as error:
            if not self.tolerant:
                raise
            self.refused.append(error)

    def close(self) -> None:
        """Close the database; everything acknowledged is durable then."""
        if self._folder is None:
            return
        folder, self._folder = self._folder, None
        try:
            folder.close()
            self.history.promise_all(self.disk.position)
        except (OmenDBError, OSError) as error:
            if not self.tolerant:
                raise
            self.refused.append(error)

    def abandon(self) -> None:
        """The process dies here: nothing is closed, what the system was given stays."""
        self._folder = None

    def reopen(self, *, clean: bool = True) -> None:
        """Close (or die) and open again."""
        if clean:
            self.close()
        else:
            self.abandon()
        self.open()

    def check(self, *, settle: bool = False) -> State:
        """Compare everything that the database says with the history; Violation when no history explains it."""
        seen = observe(self.folder, sorted(self.known, key=str))
        applied = match(self.history, seen)
        if settle:
            self.history.settle(applied, self.disk.position)
        return seen

    def create(self, name: str = DEFAULT, *fields: VectorField, options: Mapping[str, Any] | None = None) -> bool:
        """Create a collection; whether it was acknowledged."""
        self._fields[name] = fields or (FIELD,)
        schema = CollectionSchema("", self._fields[name], dict(options or {}))
        return self._note(
            f"create {name}",
            name,
            lambda state: {**state, name: {}},
            lambda: self.folder.create(name, self.folder.new_schema(schema)),
        )

    def drop(self, name: str) -> bool:
        """Drop a collection; whether it was acknowledged."""
        return self._note(
            f"drop {name}",
            name,
            lambda state: {n: c for n, c in state.items() if n != name},
            lambda: self.folder.drop(name),
        )

    def rename(self, old: str, new: str) -> bool:
        """Rename a collection; whether it was acknowledged."""
        self._renamed[old] = new
        self._fields[new] = self._fields.get(old, (FIELD,))
        return self._note(
            f"rename {old} {new}",
            old,
            lambda state: {(new if n == old else n): c for n, c in state.items()},
            lambda: self.folder.rename(old, new),
        )

    # -- points

    def replica(self, name: str = DEFAULT) -> Replica:
        """The collection's replica."""
        return self.folder.replica(name)

    def row(self, point_id: PointId, *, text_bytes: int = 0, fields: Sequence[VectorField] = (FIELD,)) -> Row:
        """Content drawn for a point. Coordinates are multiples of 1/8, which every dtype and metric gives back."""
        rng = self.rng
        payload: dict[str, Any] = {"n": rng.randrange(1000), "tag": rng.choice("abcd")}
        if rng.random() < 0.5:
            payload["deep"] = {"x": rng.randrange(100) / 4, "on": rng.random() < 0.5}
        if text_bytes:
            payload["text"] = rng.randbytes(text_bytes // 2).hex()
        return Row(point_id, {f.name: self._vector(f) for f in fields}, payload)

    def _vector(self, spec: VectorField) -> npt.NDArray[Any]:
        scale = 1 if spec.dtype in ("int8", "uint8") else 8
        values = [self.rng.randrange(1, 64) / scale for _ in range(spec.dimension)]
        return np.array(values, spec.numpy_dtype)

    def rows(self, ids: Sequence[PointId], **how: Any) -> list[Row]:
        """Content drawn for several points."""
        return [self.row(point_id, **how) for point_id in ids]

    def points(self, name: str = DEFAULT) -> Collection:
        """The points that a collection is known to have."""
        return self.history.newest.get(name, {})

    def upsert(self, rows: Sequence[Row], name: str = DEFAULT, *, create_only: bool = False) -> bool:
        """Insert or replace points; whether it was acknowledged."""
        ids, payload = IdColumn.of([r.point_id for r in rows]), columns_from_rows([r.payload for r in rows])
        return self._note(
            f"upsert {len(rows)}",
            name,
            self._inserting(rows, name),
            lambda: self.replica(name).upsert(ids, _stack(rows), payload, len(rows), create_only=create_only),
        )

    def upsert_automatic(self, count: int, name: str = DEFAULT) -> bool:
        """Insert points under ids that the engine makes up."""
        try:
            first = self.replica(name).next_auto_id
        except (OmenDBError, OSError, AssertionError) as error:
            if not self.tolerant:
                raise
            assert not isinstance(error, AssertionError) or self._folder is None
            return False
        rows = self.rows(range(first, first + count))
        payload = columns_from_rows([r.payload for r in rows])
        return self._note(
            f"automatic {count}",
            name,
            self._inserting(rows, name),
            lambda: self.replica(name).upsert(None, _stack(rows), payload, count),
        )

    def _inserting(self, rows: Sequence[Row], name: str) -> Effect:
        points = {r.point_id: Point.of(r.vectors, r.payload) for r in rows}
        self.known |= set(points)
        return lambda state: self._changed(state, name, lambda old: {**old, **points})

    def update(
        self,
        ids: Sequence[PointId],
        payload: Mapping[str, Any] | None = None,
        *,
        vectors: bool = False,
        unset: Sequence[str] = (),
        name: str = DEFAULT,
    ) -> bool:
        """Change some fields of points: the same payload for all, fresh vectors when asked."""
        specs = self._fields.get(name, (FIELD,))
        fresh = [{f.name: self._vector(f) for f in specs} if vectors else {} for _ in ids]
        arrays = {f.name: np.stack([v[f.name] for v in fresh]) for f in specs} if vectors else None
        columns = columns_from_rows([payload] * len(ids)) if payload else None

        def update(old: Collection) -> Collection:
            new = {i: old[i].updated(v, payload or {}, unset) for i, v in zip(ids, fresh, strict=True) if i in old}
            return {**old, **new}

        return self._note(
            f"update {len(ids)}",
            name,
            lambda state: self._changed(state, name, update),
            lambda: self.replica(name).update(IdColumn.of(list(ids)), arrays, columns, unset=unset),
        )

    def delete(self, ids: Sequence[PointId], name: str = DEFAULT) -> bool:
        """Delete points."""
        gone = set(ids)
        return self._note(
            f"delete {len(ids)}",
            name,
            lambda state: self._changed(state, name, lambda old: {i: p for i, p in old.items() if i not in gone}),
            lambda: self.replica(name).delete(IdColumn.of(list(ids))),
        )

    def delete_where(self, tag: str, name: str = DEFAULT) -> bool:
        """Delete the points with a tag."""
        condition = parse_filter({"tag": tag})
        assert condition is not None
        text = json.dumps({"tag": tag})[1:-1]
        return self._note(
            f"delete tag {tag}",
            name,
            lambda state: self._changed(
                state, name, lambda old: {i: p for i, p in old.items() if text not in p.payload}
            ),
            lambda: self.replica(name).delete_where(condition),
        )

    # -- work behind the writes

    def has(self, name: str) -> bool:
        """Whether the database is open and has such a collection."""
        return self._folder is not None and name in self._folder.names()

    def sync(self, name: str = DEFAULT) -> None:
        """Make everything acknowledged durable."""
        if self._try(lambda: self.replica(name).sync()):
            self.history.promise_all(self.disk.position)

    def flush(self, name: str = DEFAULT) -> None:
        """Seal everything."""
        self._try(lambda: self.replica(name).flush())

    def retire(self, name: str = DEFAULT) -> None:
        """Push out old generations until none holds on to files."""
        while self._try(lambda: self.replica(name).maintenance.retire_one()):
            continue

    def is_sealing(self, name: str = DEFAULT) -> bool:
        """Whether a seal is going on, in the middle of which another one cannot begin."""
        return self.has(name) and self.replica(name).maintenance._sealing.locked()

    def compact(self, name: str = DEFAULT) -> None:
        """Seal and merge."""
        self._try(lambda: self.replica(name).compact())

    def work(self, name: str = DEFAULT, *, jobs: int = 100) -> int:
        """Do background jobs until none is left; returns how many there were."""
        done = 0
        while done < jobs and self._try(lambda: self.replica(name).maintenance.work()):
            done += 1
        return done

    # -- inside

    def _changed(self, state: State, name: str, change: Callable[[Collection], Collection]) -> State:
        """The state with one collection changed, by whatever name it goes there; one that is not there stays away."""
        if name not in state:
            name = self._renamed.get(name, name)
        return {**state, name: change(state[name])} if name in state else state

    def _try(self, act: Callable[[], bool | None]) -> bool:
        """Do it; whether it was done. Its error is collected when told to."""
        if self._folder is None and self.tolerant:
            return False
        try:
            done = act() is not False
        except (OmenDBError, OSError) as error:
            if not self.tolerant:
                raise
            self.refused.append(error)
            return False
        if not self.tolerant:
            self.check()  # what happens behind the writes must never show
            self.watch()
        return done

    def _note(self, label: str, name: str, effect: Effect, act: Callable[[], object]) -> bool:
        """Do it, and note what came of it; whether it was acknowledged."""
        if self._folder is None and self.tolerant:
            return False
        step = Step(label, effect, self.disk.position)
        self.history.steps.append(step)
        try:
            answer = act()
        except (OmenDBError, OSError) as error:
            self.refused.append(error)
            if not _maybe_applied(error):
                step.refused = self.disk.position
            return False
        step.acked = True
        if not isinstance(answer, WriteResult) or answer.durability == "fsync":
            step.promised = self.disk.position
        self.watch()
        self.late_acks += isinstance(answer, WriteResult) and self._log_failed(name)
        return True

    def _log_failed(self, name: str) -> bool:
        log = f"{self.replica(name).path}/wal"
        return any(path.startswith(log) for path in self.disk.failed_syncs[self._failed_before :])


def _stack(rows: Sequence[Row]) -> dict[str, npt.NDArray[Any]]:
    return {name: np.stack([r.vectors[name] for r in rows]) for name in rows[0].vectors}


def _maybe_applied(error: OmenDBError | OSError) -> bool:
    """Whether an error leaves open if the operation took effect."""
    if isinstance(error, UnavailableError):
        return error.outcome == "unknown"
    return isinstance(error, OSError)


__all__ = [
    "DEFAULT",
    "DIMENSION",
    "FIELD",
    "PATH",
    "SMALL",
    "BusyDisk",
    "Row",
    "Session",
    "SimClock",
    "open_folder",
    "small_settings",
]
