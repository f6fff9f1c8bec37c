"""Open folders and replicas for tests: small buffers, no background threads unless asked for."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.config import (
    BufferSettings,
    CompactionSettings,
    EngineSettings,
    IndexSettings,
    StorageSettings,
    WorkerSettings,
)
from omendb_common.disk import OpenMode, RealDisk, RealFile
from omendb_common.ids import IdColumn, PointId
from omendb_common.payload import columns_from_rows
from omendb_common.schema import CollectionSchema, VectorField
from omendb_engine.beside import Beside
from omendb_engine.folder import Folder, Mode
from omendb_engine.parts import BufferPart, SegmentPart, Snapshot
from omendb_engine.query.answer import Picked
from omendb_engine.query.reads import Reader
from omendb_engine.recovery import BUFFERS
from omendb_engine.replica import Replica

NAME = "points"


class UnsyncedFile(RealFile):
    """A file whose syncs do nothing."""

    def sync(self) -> None:
        """Nothing."""

    datasync = sync


class UnsyncedDisk(RealDisk):
    """The real disk without waiting for it: no test that uses it cuts the power."""

    def open(self, path: str, mode: OpenMode) -> RealFile:
        """As the real disk."""
        file = super().open(path, mode)
        try:
            return UnsyncedFile(path, os.dup(file._fd))
        finally:
            file.close()

    def sync_dir(self, path: str) -> None:
        """Nothing."""


def settings_of(
    *,
    rows: int = 7,
    flat: int = 16,
    fanin: int = 2,
    workers: int = 0,
    durability: str = "os",
    delay_s: float = 0.0,
    interval_s: float = 0.02,
) -> EngineSettings:
    """Settings under which a few rows already make segments, merges and graphs."""
    return EngineSettings(
        storage=StorageSettings(durability=durability),
        buffer=BufferSettings(buffer_rows_max=rows),
        index=IndexSettings(flat_rows_max=flat, index_delay_s=delay_s, build_threads=1),
        compaction=CompactionSettings(merge_fanin=fanin, interval_s=interval_s),
        workers=WorkerSettings(background_threads=workers),
    )


def with_memory(settings: EngineSettings, limit_bytes: int, headroom_percent: int = 30) -> EngineSettings:
    """The same settings with another memory limit."""
    memory = replace(settings.memory, memory_limit_bytes=limit_bytes, headroom_percent=headroom_percent)
    return replace(settings, memory=memory)


def schema_of(*fields: VectorField) -> CollectionSchema:
    """A schema under a new uuid, of one unnamed l2 field of 4 dimensions unless told."""
    return CollectionSchema(str(uuid.uuid4()), fields or (VectorField(4),))


def open_folder(path: Path | str, settings: EngineSettings | None = None, mode: Mode = "rw") -> Folder:
    """Open (or make) the database in ``path``."""
    return Folder.open(str(path), mode=mode, settings=settings or settings_of(), disk=UnsyncedDisk())


def apply_beside(replica: Replica) -> None:
    """Let ``replica`` apply every write, however small, in a second thread while the log is synced."""
    replica._beside = Beside()
    replica._beside_bytes_min = 0


def open_replica(
    path: Path | str, settings: EngineSettings | None = None, *fields: VectorField
) -> tuple[Folder, Replica]:
    """Open the one collection of the database in ``path``, making it when missing."""
    folder = open_folder(path, settings)
    names = folder.names()
    return folder, folder.replica(NAME) if names else folder.create(NAME, schema_of(*fields))


def vectors_of(n: int, dimension: int = 4, *, seed: int = 0) -> npt.NDArray[np.float32]:
    """``n`` random vectors."""
    return np.random.default_rng(seed).standard_normal((n, dimension)).astype(np.float32)


def put(
    replica: Replica,
    ids: Sequence[PointId] | IdColumn,
    *,
    seed: int = 0,
    payload: Sequence[Mapping[str, Any] | None] | None = None,
    vectors: npt.NDArray[Any] | None = None,
) -> npt.NDArray[Any]:
    """Upsert points with random vectors into the unnamed field; returns the vectors."""
    column = IdColumn.of(ids)
    given = vectors_of(len(column), replica.schema.vector().dimension, seed=seed) if vectors is None else vectors
    columns = None if payload is None else columns_from_rows(payload)
    replica.upsert(column, {"": given}, columns, len(column))
    return given


def ids_of(reader: Reader) -> list[PointId]:
    """All ids, by scrolling to the end."""
    found: list[PointId] = []
    cursor = None
    while True:
        page = reader.scroll(cursor, 1000)
        found += page.picked.ids().to_list()
        cursor = page.cursor
        if cursor is None:
            return found


def state_of(reader: Reader) -> dict[PointId, tuple[int, bytes, str]]:
    """Everything a reader can see of every point: stamp, all vectors, payload."""
    out: dict[PointId, tuple[int, bytes, str]] = {}
    cursor = None
    while True:
        picked, cursor = (page := reader.scroll(cursor, 1000)).picked, page.cursor
        out.update(state_of_picked(picked, reader.schema))
        if cursor is None:
            return out


def state_of_picked(picked: Picked, schema: CollectionSchema) -> dict[PointId, tuple[int, bytes, str]]:
    """The same of some rows."""
    vectors = [picked.vectors(f.name, schema) for f in schema.vectors]
    rows = zip(picked.ids().to_list(), picked.stamps().tolist(), picked.payload(), strict=True)
    return {
        point: (stamp, b"".join(v[i].tobytes() for v in vectors), repr(sorted(payload.items())))
        for i, (point, stamp, payload) in enumerate(rows)
    }


def live_ids(snapshot: Snapshot) -> Counter[PointId]:
    """How many live rows each id has, over all parts (invariant I4 says one)."""
    counts: Counter[PointId] = Counter()
    for part in snapshot.parts:
        rows = np.flatnonzero(part.dead.alive())
        if len(rows):
            counts.update(part.all_ids().take(rows).to_list())
    return counts


def check_invariants(replica: Replica) -> None:
    """What must hold between the parts whenever no operation is in progress."""
    snapshot = replica.snapshot()
    counts = live_ids(snapshot)
    assert not [i for i, c in counts.items() if c != 1], "an id is live in two rows (I4)"
    assert snapshot.live == len(counts) == sum(p.n - p.dead.count for p in snapshot.parts)
    if counts:
        column = IdColumn.of(list(counts))
        assert snapshot.locate(*column.hashes()).found.all(), "a live row is not found by its id"
    buffers = [p.buffer for p in snapshot.parts if isinstance(p, BufferPart)]
    for at, part in enumerate(snapshot.parts):
        if isinstance(part, SegmentPart):
            expected = set(replica.maintenance._checkpoint_dead[part.part_id].rows().tolist())
        else:
            assert part.buffer.n == part.n
            frozen = at < len(snapshot.parts) - 1
            expected = set(part.buffer.dead_at_freeze.rows().tolist()) if frozen else set(part.dead.rows().tolist())
        for buffer in buffers:
            expected.update(np.concatenate([*buffer.kills.get(part.part_id, []), np.empty(0, np.int64)]).tolist())
        assert set(part.dead.rows().tolist()) == expected, "checkpointed and pending kills are not what is dead (I2)"
    known = {p.part_id for p in snapshot.parts}
    assert {i for b in buffers for i in b.kills} <= known, "a kill of a part that is gone"
    held = replica.resources.budget.account().get(BUFFERS, 0)
    assert held == sum(b.reserved_bytes for b in buffers), "reserved memory does not match the buffers (I10)"
    names = {r.segment_id for r in replica.maintenance.manifest.segments}
    assert names == {p.part_id for p in snapshot.parts if isinstance(p, SegmentPart)}, "manifest and parts differ"


def rows_of(*payloads: Mapping[str, Any] | None) -> Any:
    """Payload columns from one dict per row."""
    return columns_from_rows(list(payloads))


def as_ids(values: Iterable[PointId]) -> IdColumn:
    """A column of ids."""
    return IdColumn.of(list(values))
