"""Space comes back: after merges, an index and a clean close, the folder holds one copy of each point and no log."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from omendb_common.config import BufferSettings, EngineSettings, IndexSettings
from omendb_common.ids import IdColumn
from omendb_common.schema import CollectionSchema, VectorField
from omendb_engine.folder import Folder

ROWS, DIMENSION, BATCH = 2_000, 16, 100


def test_a_closed_folder_holds_every_point_once(tmp_path: Path) -> None:
    settings = EngineSettings(
        buffer=BufferSettings(buffer_rows_max=200), index=IndexSettings(flat_rows_max=500, build_threads=1)
    )
    folder = Folder.open(str(tmp_path / "db"), settings=settings)
    replica = folder.create("points", folder.new_schema(CollectionSchema("", (VectorField(DIMENSION),))))
    vectors = np.random.default_rng(3).normal(size=(ROWS, DIMENSION)).astype(np.float32)
    for start in range(0, ROWS, BATCH):
        rows = np.arange(start, start + BATCH)
        replica.upsert(IdColumn.of(rows), {"": vectors[rows]}, None, BATCH)
    assert replica.wait_until_indexed(60)
    folder.close()
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    stored = sum(p.stat().st_size for p in files if p.name == "vectors.arrow")
    assert stored < 1.1 * vectors.nbytes + 4096
    assert sum(p.stat().st_size for p in files if "wal" in p.parts) < 1 << 20
