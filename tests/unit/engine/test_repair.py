"""Repair saves what can be proven good, and what it does not save it names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omendb_common.config import BufferSettings, EngineSettings, IndexSettings, WorkerSettings
from omendb_common.disk import RealDisk
from omendb_common.errors import OmenDBError
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_mapping
from omendb_common.schema import CollectionSchema, Metric, VectorField
from omendb_engine.check import check_folder
from omendb_engine.folder import Folder
from omendb_engine.repair import repair_folder

SETTINGS = EngineSettings(
    buffer=BufferSettings(buffer_rows_max=200),
    index=IndexSettings(flat_rows_max=100),
    workers=WorkerSettings(background_threads=0),
)
ROWS = 500
DIMENSION = 64


def build(path: Path, metric: Metric = "l2") -> np.ndarray:
    """Two sealed segments, some rows deleted or replaced since, and a log with a hundred rows and two deletes."""
    vectors = np.random.default_rng(1).normal(size=(ROWS, DIMENSION)).astype(np.float32)
    folder = Folder.open(str(path), settings=SETTINGS)
    replica = folder.create("points", folder.new_schema(CollectionSchema("", (VectorField(DIMENSION, metric),))))
    for start in range(0, ROWS, 100):
        rows = np.arange(start, start + 100)
        payload = columns_from_mapping({"n": rows, "text": [f"text {r} " * 40 for r in rows]}, 100)
        replica.upsert(IdColumn.of(rows), {"": vectors[rows]}, payload, 100)
    replica.maintenance.seal_one()
    replica.maintenance.index_one(hurry=True)
    replica.delete(IdColumn.of([3, 7]))
    replica.update(IdColumn.of([5]), None, columns_from_mapping({"n": [5000]}, 1))
    replica.flush()
    replica.delete(IdColumn.of([11]))
    replica.upsert(IdColumn.of([499]), {"": vectors[:1]}, None, 1)
    folder.close()
    return vectors


def contents(path: Path) -> dict[object, tuple[np.ndarray, dict[str, object]]]:
    folder = Folder.open(str(path), mode="r", settings=SETTINGS)
    out: dict[object, tuple[np.ndarray, dict[str, object]]] = {}
    for name in folder.names():
        replica = folder.replica(name)
        picked = replica.scroll(None, 10_000).picked
        for key, vector, payload in zip(
            picked.ids().to_list(), picked.vectors("", replica.schema), picked.payload(), strict=True
        ):
            out[key] = (vector, payload)
    folder.close()
    return out


def test_a_sound_database_is_left_alone(tmp_path: Path) -> None:
    build(tmp_path / "db")
    before = contents(tmp_path / "db")
    report = repair_folder(str(tmp_path / "db"))
    assert report.sound == ("points",)
    assert not report.repaired
    assert contents(tmp_path / "db").keys() == before.keys()


def test_any_damaged_file_is_repaired_and_every_loss_named(tmp_path: Path) -> None:
    build(tmp_path / "db", "cosine")
    whole = contents(tmp_path / "db")
    files = [p for p in sorted((tmp_path / "db").rglob("*")) if p.is_file() and p.name not in ("LOCK", "ballast")]
    rng = np.random.default_rng(7)
    for file in files:
        data = bytearray(file.read_bytes())
        if not data:
            continue
        copy = tmp_path / "copy"
        _copy(tmp_path / "db", copy)
        at = int(rng.integers(len(data)))
        data[at] ^= 1 << int(rng.integers(8))
        target = copy / file.relative_to(tmp_path / "db")
        target.write_bytes(bytes(data))
        report = repair_folder(str(copy), settings=SETTINGS)
        assert not check_folder(RealDisk(), str(copy)), file
        saved = contents(copy)
        losses = [loss for r in report.repaired for loss in r.losses]
        lost = sum(loss.points for loss in losses)
        assert len(saved) >= len(whole) - lost, (file, losses)
        for key, (vector, payload) in saved.items():
            if key in whole:
                np.testing.assert_allclose(vector, whole[key][0], rtol=1e-6)
            if key in whole and not losses:
                assert payload == whole[key][1], (file, key)
        if not losses:
            assert saved.keys() == whole.keys(), file
        _remove(copy)


def test_rows_in_damaged_blocks_of_vectors_are_the_only_ones_lost(tmp_path: Path) -> None:
    build(tmp_path / "db")
    whole = contents(tmp_path / "db")
    file = next((tmp_path / "db").rglob("segment_000001/vectors.arrow"))
    data = bytearray(file.read_bytes())
    data[len(data) // 4] ^= 0x10
    file.write_bytes(bytes(data))
    report = repair_folder(str(tmp_path / "db"), settings=SETTINGS)
    (loss,) = report.repaired[0].losses
    saved = contents(tmp_path / "db")
    gone = whole.keys() - saved.keys()
    assert gone
    # Point 11 was deleted later, in the log, so its vector is damaged but nothing of value is lost with it.
    assert loss.points == len(gone | {11})
    assert set(loss.ids) <= gone | {11}
    assert Path(report.repaired[0].quarantine).is_dir()
    assert 3 not in saved
    assert 11 not in saved


def test_a_lost_catalog_is_rebuilt_from_the_replicas(tmp_path: Path) -> None:
    build(tmp_path / "db")
    whole = contents(tmp_path / "db")
    (tmp_path / "db" / "catalog.json").write_bytes(b"{}")
    with pytest.raises(OmenDBError):
        Folder.open(str(tmp_path / "db"), mode="r", settings=SETTINGS)
    repair_folder(str(tmp_path / "db"), settings=SETTINGS)
    assert contents(tmp_path / "db").keys() == whole.keys()


def _copy(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
