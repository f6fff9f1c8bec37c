"""Segments, delete sets and manifests for tests, small enough to damage every byte of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from omendb_common.disk import RealDisk
from omendb_common.errors import CorruptionError, FormatVersionError
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_mapping
from omendb_common.schema import CollectionSchema, VectorField
from omendb_engine.index.hnsw import build_hnsw
from omendb_engine.index.metric import normalise
from omendb_engine.payload.columns import ColumnCache
from omendb_engine.segment.check import check_replica_files
from omendb_engine.segment.deletes import Deletes, write_deletes
from omendb_engine.segment.index_files import write_index
from omendb_engine.segment.manifest import ManifestStore, ReplicaManifest, SegmentRef
from omendb_engine.segment.reader import Segment
from omendb_engine.segment.writer import Overrides, SegmentData, Tombstones, write_segment

DISK = RealDisk()
UUID = "00000000-0000-4000-8000-000000000001"


def schema_of(*fields: VectorField) -> CollectionSchema:
    """A schema of the given fields, or of one unnamed l2 field of 8 dimensions."""
    return CollectionSchema(UUID, fields or (VectorField(8),))


def data_of(
    schema: CollectionSchema,
    n: int,
    *,
    seed: int = 0,
    strings: bool = False,
    payload: bool = True,
    extras: bool = False,
) -> SegmentData:
    """``n`` random rows for a schema; ``extras`` adds tombstones, field stamps and digests."""
    rng = np.random.default_rng(seed)
    ids = IdColumn.of([f"point-{seed}-{i}" for i in range(n)] if strings else np.arange(n, dtype=np.uint64) + seed * n)
    hi, lo = ids.hashes()
    vectors: dict[str, Any] = {}
    norms: dict[str, Any] = {}
    for field in schema.vectors:
        rows = (rng.standard_normal((n, field.dimension)) * 20 + 50).astype(field.dtype)
        if field.metric == "cosine":
            unit, norms[field.name] = normalise(rows)
            rows = unit if field.dtype == "float32" else rows
        vectors[field.name] = rows
    batch = columns_from_mapping({"price": list(range(n)), "brand": [f"b{i % 7}" for i in range(n)]}, n)
    gone = IdColumn.of([f"gone-{i}" for i in range(4)])
    tombstones = Tombstones(gone, *gone.hashes(), np.arange(4, dtype=np.uint64) + 9) if extras else None
    fields = np.array(["payload:price", ""], object)
    overrides = Overrides(np.array([0, 0], np.int32), fields, np.array([7, 8], np.uint64)) if extras else None
    stamps = rng.integers(100, 200, n).astype(np.uint64)
    columns = ids, hi, lo, stamps, vectors, norms, batch if payload else None, n, tombstones, overrides
    return SegmentData(*columns, digests=rng.integers(0, 1 << 60, n).astype(np.uint64) if extras else None)


def open_segment(folder: Path | str, ref: SegmentRef, **options: Any) -> Segment:
    """Open a segment of the replica at ``folder``."""
    return Segment.open(DISK, str(folder), ref, cache=ColumnCache(1 << 20), **options)


def manifest_of(schema: CollectionSchema, *segments: SegmentRef, **values: Any) -> ReplicaManifest:
    """A manifest that names ``segments``."""
    made = ReplicaManifest(replica_uuid=UUID, created_ms=1, schema=schema.to_json(), log_id=1)
    return replace(made, segments=segments, **values)


def write_replica(folder: Path) -> ManifestStore:
    """A tiny replica with every kind of file: two segments (one indexed, one with deletes), one generation."""
    path = str(folder)
    schema = schema_of(VectorField(4))
    first = write_segment(DISK, path, 1, data_of(schema, 12, extras=True), schema=schema)
    second = write_segment(DISK, path, 2, data_of(schema, 9, seed=1, strings=True, payload=False), schema=schema)
    rows = data_of(schema, 12, extras=True).vectors[""]
    index_hash = write_index(DISK, path, 1, {(0, ""): build_hnsw(rows, "l2", 4, 8)})
    deletes = write_deletes(DISK, path, 1, {2: Deletes.of(9, np.array([3, 5]))})
    store = ManifestStore(DISK, path)
    refs = (replace(first, index_hash=index_hash), replace(second, deletes=deletes[2]))
    store.commit(manifest_of(schema, *refs, next_segment_id=3))
    return store


def files_of(folder: Path) -> list[Path]:
    """All files below ``folder``."""
    return sorted(p for p in folder.rglob("*") if p.is_file())


def damage_is_noticed(folder: Path) -> bool:
    """Whether opening the replica and checking it all finds something wrong; any other error propagates."""
    try:
        manifest = ManifestStore(DISK, str(folder)).load(lambda found: False)
        for ref in manifest.segments:
            open_segment(folder, ref)
    except (CorruptionError, FormatVersionError):
        return True
    return bool(check_replica_files(DISK, str(folder)))


def flips(
    folder: Path, stride: int = 1, patterns: tuple[int, ...] = (0x01, 0x80, 0xFF)
) -> Iterator[tuple[Path, int, int]]:
    """Change one byte of every file at a time, yield (file, offset, pattern) while it is changed, restore it.

    ``stride`` 1 visits every byte; a greater one every stride-th, at a different phase for each pattern.
    """
    for path in files_of(folder):
        whole = path.read_bytes()
        for at, pattern in enumerate(patterns):
            for offset in range((at * 7) % stride, len(whole), stride):
                path.write_bytes(whole[:offset] + bytes([whole[offset] ^ pattern]) + whole[offset + 1 :])
                yield path, offset, pattern
        path.write_bytes(whole)


def truncations(folder: Path, stride: int = 97) -> Iterator[tuple[Path, int]]:
    """Cut every file to every stride-th shorter length, yield (file, length) meanwhile, restore it."""
    for path in files_of(folder):
        whole = path.read_bytes()
        for length in sorted({*range(0, len(whole), stride), max(len(whole) - 1, 0)}):
            path.write_bytes(whole[:length])
            yield path, length
        path.write_bytes(whole)


def copy_of(folder: Path, target: Path) -> Path:
    """A copy of a replica to damage."""
    shutil.copytree(folder, target)
    return target
