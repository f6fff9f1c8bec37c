"""Segments come back as written, from files anybody's Arrow can read, without copies, in a crash-safe order."""

from __future__ import annotations

import errno
import gc
import json
import os
import threading
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omendb_common.disk import RealDisk
from omendb_common.errors import AlreadyExistsError, CorruptionError, DatabaseClosedError, FormatVersionError
from omendb_common.ids import IdColumn
from omendb_common.index_options import Quantization
from omendb_common.schema import METRICS, VECTOR_DTYPES, Metric, VectorDType, VectorField
from omendb_engine.index.hnsw import build_hnsw
from omendb_engine.index.policy import IndexKind
from omendb_engine.payload.cache import ColumnCache
from omendb_engine.segment import layout
from omendb_engine.segment.index_files import write_index
from omendb_engine.segment.reader import Segment
from omendb_engine.segment.writer import SegmentData, Tombstones, write_segment
from tests.unit.engine.index_cases import KINDS, Rows, build, load
from tests.unit.engine.segment_cases import DISK, data_of, open_segment, schema_of


@pytest.mark.parametrize("dtype", VECTOR_DTYPES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", [0, 1, 137])
def test_a_segment_comes_back_as_written(tmp_path: Path, metric: Metric, dtype: VectorDType, n: int) -> None:
    schema = schema_of(VectorField(5, metric, dtype, "text"), VectorField(3, "l2", "uint8", "image"))
    data = data_of(schema, n, extras=n > 0)
    ref = write_segment(DISK, str(tmp_path), 7, data, schema=schema)
    segment = open_segment(tmp_path, ref)
    assert (segment.id, segment.n, segment.bytes_on_disk) == (7, n, ref.size_bytes)
    assert segment.ids.to_list() == data.ids.to_list()
    assert segment.int_id_max == n - 1
    np.testing.assert_array_equal(segment.stamps, data.stamps)
    for field in schema.vectors:
        stored = segment.vectors(field.name)
        assert stored.dtype == field.numpy_dtype
        np.testing.assert_array_equal(stored, data.vectors[field.name])
    norms = segment.norms("text")
    assert (norms is None) == (metric != "cosine")
    if norms is not None:
        np.testing.assert_array_equal(norms, data.norms["text"])
    np.testing.assert_array_equal(segment.lookup(data.hi, data.lo), np.arange(n))
    assert segment.columns.n == n
    if n:
        assert segment.columns.payloads(np.array([n - 1])) == [{"price": n - 1, "brand": f"b{(n - 1) % 7}"}]
        assert (ref.min_stamp, ref.max_stamp) == (data.stamps.min(), data.stamps.max())
    on_disk = sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())
    assert on_disk == ref.size_bytes
    assert segment.verify_all() == []


def test_tombstones_and_field_stamps(tmp_path: Path) -> None:
    schema = schema_of()
    ids = IdColumn.of(["a", "b", "a", "c"])
    stamps = np.array([5, 6, 9, 7], np.uint64)
    data = replace(data_of(schema, 3, extras=True), tombstones=Tombstones(ids, *ids.hashes(), stamps))
    segment = open_segment(tmp_path, write_segment(DISK, str(tmp_path), 1, data, schema=schema))
    asked = IdColumn.of(["c", "a", "nobody", "b"])
    assert segment.lookup_tombstones(*asked.hashes()).tolist() == [7, 9, 0, 6]
    assert sorted(segment.tombstones()[0].to_list()) == ["a", "b", "c"]
    overrides = segment.overrides()
    assert overrides is not None
    assert overrides.fields.tolist() == ["payload:price", ""]
    plain = open_segment(tmp_path, write_segment(DISK, str(tmp_path), 2, data_of(schema, 3), schema=schema))
    assert plain.overrides() is None
    assert plain.lookup_tombstones(*asked.hashes()).tolist() == [0, 0, 0, 0]
    assert not (tmp_path / "segments/segment_000002/tombstones.arrow").exists()


def test_plain_arrow_and_parquet_read_the_files(tmp_path: Path) -> None:
    schema = schema_of(VectorField(8, "cosine", "float32", "text"))
    data = data_of(schema, 20, strings=True)
    write_segment(DISK, str(tmp_path), 1, data, schema=schema)
    folder = tmp_path / "segments/segment_000001"
    vectors = pa.ipc.open_file(str(folder / "vectors.arrow")).read_all()
    assert vectors.column("text").type == pa.list_(pa.field("item", pa.float32(), nullable=False), 8)
    np.testing.assert_array_equal(np.array(vectors.column("text").to_pylist(), np.float32), data.vectors["text"])
    assert vectors.column("norm").to_pylist() == data.norms["text"].tolist()
    keys = pa.ipc.open_file(str(folder / "keys.arrow")).read_all()
    assert keys.column("id_str").to_pylist() == data.ids.to_list()
    assert keys.column("stamp").to_pylist() == data.stamps.tolist()
    assert pq.read_table(folder / "metadata.parquet").column("price#i").to_pylist() == list(range(20))


@pytest.mark.parametrize("name", ["", "v" * 13])
@pytest.mark.parametrize("n", [1, 50, 20_000])
def test_vectors_are_aligned_views_of_the_mapped_file(tmp_path: Path, n: int, name: str) -> None:
    schema = schema_of(VectorField(7, "l2", "float32", name))
    segment = open_segment(tmp_path, write_segment(DISK, str(tmp_path), 1, data_of(schema, n), schema=schema))
    vectors = segment.vectors(name)
    assert vectors.ctypes.data % 64 == 0
    assert vectors.flags.c_contiguous
    assert not vectors.flags.owndata
    assert not vectors.flags.writeable
    assert segment.vectors(name).ctypes.data == vectors.ctypes.data
    assert not segment.stamps.flags.owndata
    assert not segment.hi.flags.owndata


def test_writing_does_not_copy_the_vectors(tmp_path: Path) -> None:
    schema = schema_of(VectorField(16))
    data = data_of(schema, 5_000, payload=False)
    held: list[bool] = []

    class Watching(RealDisk):
        def write_file(self, path: str, parts: Sequence[Any]) -> int:
            if path.endswith("vectors.arrow"):
                held.extend(np.shares_memory(np.frombuffer(p, np.uint8), data.vectors[""]) for p in parts if len(p))
            return super().write_file(path, parts)

    write_segment(Watching(), str(tmp_path), 1, data, schema=schema)
    assert sum(held) == 1


class Recorder(RealDisk):
    """Notes every step, and fails the n-th one."""

    def __init__(self, fail_at: int = -1) -> None:
        super().__init__()
        self.steps: list[tuple[str, str]] = []
        self.fail_at = fail_at

    def _step(self, kind: str, path: str) -> None:
        self.steps.append((kind, path))
        if len(self.steps) - 1 == self.fail_at:
            raise OSError(errno.ENOSPC, "no space", path)

    def write_file(self, path: str, parts: Sequence[Any]) -> int:
        self._step("write", path)
        return super().write_file(path, parts)

    def sync_dir(self, path: str) -> None:
        self._step("sync", path)
        super().sync_dir(path)

    def rename(self, src: str, dst: str) -> None:
        self._step("rename", dst)
        super().rename(src, dst)


def test_files_are_durable_before_the_folder_gets_its_name(tmp_path: Path) -> None:
    schema = schema_of()
    (tmp_path / "segments").mkdir()
    disk = Recorder()
    write_segment(disk, str(tmp_path), 1, data_of(schema, 10, extras=True), schema=schema)
    root = f"{tmp_path}/segments"
    assert [s for s in disk.steps if s[0] != "write"] == [
        ("sync", f"{root}/.tmp-segment_000001/stats"),
        ("sync", f"{root}/.tmp-segment_000001"),
        ("rename", f"{root}/segment_000001"),
        ("sync", root),
    ]
    written = [path for kind, path in disk.steps if kind == "write"]
    assert len(written) == len(set(written)) == 10
    assert written[-1].endswith("/manifest.json")
    assert {k for k, _ in disk.steps[: len(written)]} == {"write"}


def test_a_failing_disk_leaves_nothing_that_looks_like_a_segment(tmp_path: Path) -> None:
    schema = schema_of()
    steps = Recorder()
    (tmp_path / "whole/segments").mkdir(parents=True)
    write_segment(steps, str(tmp_path / "whole"), 1, data_of(schema, 10), schema=schema)
    for fail_at in range(len(steps.steps) - 1):
        root = tmp_path / f"failing-{fail_at}"
        (root / "segments").mkdir(parents=True)
        with pytest.raises(OSError, match="no space"):
            write_segment(Recorder(fail_at), str(root), 1, data_of(schema, 10), schema=schema)
        assert list((root / "segments").iterdir()) == []
        write_segment(DISK, str(root), 1, data_of(schema, 10), schema=schema)  # nothing is in the way


def test_a_leftover_is_swept_and_a_segment_is_never_overwritten(tmp_path: Path) -> None:
    schema = schema_of()
    leftover = tmp_path / "segments/.tmp-segment_000001/stats"
    leftover.mkdir(parents=True)
    (leftover / "bloom.bin").write_bytes(b"half")
    write_segment(DISK, str(tmp_path), 1, data_of(schema, 4), schema=schema)
    with pytest.raises(AlreadyExistsError):
        write_segment(DISK, str(tmp_path), 1, data_of(schema, 4), schema=schema)


def test_wrong_columns_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    schema = schema_of()
    data = data_of(schema, 4)
    assert data.payload is not None
    twice = IdColumn.of([1, 2, 1, 3])
    wrong: list[SegmentData] = [
        replace(data, n=5),
        replace(data, stamps=data.stamps[:3]),
        replace(data, vectors={"": data.vectors[""][:, :4]}),
        replace(data, vectors={"": data.vectors[""].astype(np.float64)}),
        replace(data, payload=data.payload.slice(1)),
        replace(data, ids=twice, hi=twice.hashes()[0], lo=twice.hashes()[1]),
    ]
    for bad in wrong:
        with pytest.raises(ValueError, match=r"rows|vectors|same id"):
            write_segment(DISK, str(tmp_path), 1, bad, schema=schema)
        assert not (tmp_path / "segments/segment_000001").exists()


def test_index_files(tmp_path: Path) -> None:
    schema = schema_of(VectorField(8, "cosine", "int8", "a"), VectorField(4, "l2", "float32", "b"))
    data = data_of(schema, 300)
    ref = write_segment(DISK, str(tmp_path), 1, data, schema=schema)
    segment = open_segment(tmp_path, ref)
    assert segment.index is None
    builds = {
        (0, "a"): build_hnsw(segment.vectors("a"), "cosine", 8, 40, dtype="int8", norms=segment.norms("a")),
        (1, "b"): build_hnsw(segment.vectors("b"), "l2", 8, 40),
    }
    digest = write_index(DISK, str(tmp_path), 1, builds)
    indexed = segment.with_index(digest)
    again = open_segment(tmp_path, replace(ref, index_hash=digest))
    assert segment.index is None
    assert indexed.uid == segment.uid != again.uid
    folder = tmp_path / "segments/segment_000001"
    assert {p.name for p in folder.glob("index*")} == {"index.hnsw", "index.codes", "index-1.hnsw", "index.json"}
    for opened in (indexed, again):
        assert opened.ref.index_hash == digest
        assert opened.index is opened.index_of("a") is not None
        query = data.vectors["b"][5:6].copy()
        found = opened.index_of("b")
        assert found is not None
        assert found.search(query, 1, ef=50)[1][0, 0] == 5
        graph = opened.graph_of("b")
        assert graph is not None
        assert bytes(graph) == builds[1, "b"].graph.tobytes()
    assert again.bytes_on_disk > ref.size_bytes
    other = open_segment(tmp_path, replace(ref, index_hash="0" * 64))
    assert other.usable_index("a") is None and "index.json" in str(other.index_damage)
    (folder / "index.hnsw").unlink()
    without = open_segment(tmp_path, replace(ref, index_hash=digest))
    assert without.usable_index("a") is None and "index.hnsw" in str(without.index_damage)
    assert without.bytes_on_disk == ref.size_bytes
    assert ["index.hnsw" in str(problem) for problem in without.verify_all()] == [True]


@pytest.mark.parametrize(("kind", "codes"), KINDS)
def test_an_index_of_any_kind_is_read_as_it_was_written(tmp_path: Path, kind: IndexKind, codes: Quantization) -> None:
    schema = schema_of(VectorField(8, "cosine"))
    ref = write_segment(DISK, str(tmp_path), 1, data_of(schema, 400), schema=schema)
    segment = open_segment(tmp_path, ref)
    rows = Rows(schema.vectors[0], segment.vectors(), segment.norms())
    built = build(rows, kind, codes)
    digest = write_index(DISK, str(tmp_path), 1, {(0, ""): built})
    again = open_segment(tmp_path, replace(ref, index_hash=digest))
    loaded, fresh = again.index, load(built, rows)
    assert loaded is not None and (loaded.kind, loaded.quantization) == (kind, codes)
    queries = segment.vectors()[:20].copy()
    for k in (1, 10):
        assert loaded.effort_for(0.9, k) == fresh.effort_for(0.9, k)
        for one, other in zip(loaded.search(queries, k, ef=64), fresh.search(queries, k, ef=64), strict=True):
            np.testing.assert_array_equal(one, other)
    assert (again.graph_of("") is not None) == (kind == "hnsw")
    assert not again.verify_all()
    # What the first release could not read, it refuses by its format; what it could, it still can.
    body = json.loads((tmp_path / "segments/segment_000001/index.json").read_text())
    assert body["format"] == (1 if (kind, codes) == ("hnsw", "none") else 2)


def test_an_older_release_refuses_what_it_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = schema_of()
    ref = write_segment(DISK, str(tmp_path), 1, data_of(schema, 400), schema=schema)
    rows = Rows(schema.vectors[0], open_segment(tmp_path, ref).vectors(), None)
    digest = write_index(DISK, str(tmp_path), 1, {(0, ""): build(rows, "ivf", "binary")})
    monkeypatch.setattr(layout, "INDEX_FORMAT", 1)
    with pytest.raises(FormatVersionError, match="upgrade"):
        open_segment(tmp_path, replace(ref, index_hash=digest))


@pytest.mark.parametrize(("kind", "codes"), KINDS)
def test_any_byte_of_any_index_file_is_noticed(tmp_path: Path, kind: IndexKind, codes: Quantization) -> None:
    schema = schema_of()
    ref = write_segment(DISK, str(tmp_path), 1, data_of(schema, 100), schema=schema)
    rows = Rows(schema.vectors[0], open_segment(tmp_path, ref).vectors(), None)
    ref = replace(ref, index_hash=write_index(DISK, str(tmp_path), 1, {(0, ""): build(rows, kind, codes)}))
    files = sorted((tmp_path / "segments/segment_000001").glob("index*"))
    assert len(files) >= 2
    for path in files:
        content = path.read_bytes()
        for at in {*range(0, len(content), max(1, len(content) // 97)), len(content) - 1}:
            path.write_bytes(content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :])
            damaged = open_segment(tmp_path, ref)
            assert damaged.usable_index("") is None and path.name in str(damaged.index_damage)
        path.write_bytes(content[:-1])
        assert open_segment(tmp_path, ref).usable_index("") is None
        path.write_bytes(content)
    assert open_segment(tmp_path, ref).usable_index("") is not None


def test_big_files_are_verified_once_and_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = schema_of(VectorField(64))
    ref = write_segment(DISK, str(tmp_path), 1, data_of(schema, 2_000), schema=schema)
    path = tmp_path / "segments/segment_000001/vectors.arrow"
    content = bytearray(path.read_bytes())
    content[200_000] ^= 1
    path.write_bytes(content)
    segment = open_segment(tmp_path, ref)  # opening does not read vectors
    with pytest.raises(CorruptionError) as caught:
        segment.vectors()
    assert caught.value.path == str(path)
    assert caught.value.offset == 200_000 // 65_536 * 65_536
    assert [p.offset for p in segment.verify_all()] == [196_608]
    content[200_000] ^= 1
    path.write_bytes(content)
    segment.vectors()
    checked: list[str] = []
    verify = layout.verify

    def counting(view: memoryview, entry: layout.FileEntry, path: str) -> None:
        checked.append(path)
        verify(view, entry, path)

    monkeypatch.setattr(layout, "verify", counting)
    fresh = Segment.open(DISK, str(tmp_path), ref, cache=ColumnCache(1000), verify=False)
    assert checked == []
    threads = [threading.Thread(target=fresh.vectors) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(checked) == 1


def test_files_that_are_gone_are_read_all_the_same(tmp_path: Path) -> None:
    """A merge removes the names of files that a snapshot may be about to read for the first time."""
    schema = schema_of()
    ref = write_segment(DISK, str(tmp_path), 1, data_of(schema, 300), schema=schema)
    twin = open_segment(tmp_path, ref)
    index_hash = write_index(DISK, str(tmp_path), 1, {(0, ""): build_hnsw(twin.vectors(), "l2", 4, 8)})
    segment = open_segment(tmp_path, replace(ref, index_hash=index_hash), verify=False)
    later = twin.with_index(index_hash)
    layout.remove_path(DISK, str(tmp_path))
    for opened in (segment, later):
        assert len(opened.ids) == 300 and opened.vectors().shape == (300, 8)
        assert opened.columns.payloads(np.array([7])) == twin.columns.payloads(np.array([7])) != [{}]
        assert opened.index is not None and opened.index.n == 300
        assert opened.stats.n == 300 and opened.overrides() is None


def test_a_file_cut_short_after_opening_is_noticed_before_it_is_read(tmp_path: Path) -> None:
    schema = schema_of()
    ref = write_segment(DISK, str(tmp_path), 1, data_of(schema, 5000), schema=schema)
    segment = open_segment(tmp_path, ref)
    os.truncate(tmp_path / "segments/segment_000001/vectors.arrow", 4096)
    with pytest.raises(CorruptionError):
        segment.vectors()


def test_unverified_opening_still_checks_before_use(tmp_path: Path) -> None:
    schema = schema_of()
    ref = write_segment(DISK, str(tmp_path), 1, data_of(schema, 50), schema=schema)
    path = tmp_path / "segments/segment_000001/keys.arrow"
    content = bytearray(path.read_bytes())
    content[900] ^= 4
    path.write_bytes(content)
    segment = open_segment(tmp_path, ref, verify=False)
    with pytest.raises(CorruptionError):
        segment.lookup(np.array([1], np.uint64), np.array([1], np.uint64))
    with pytest.raises(CorruptionError):
        open_segment(tmp_path, ref)


def test_a_newer_format_is_told_from_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = schema_of()
    monkeypatch.setattr(layout, "SEGMENT_FORMAT", 2)
    ref = write_segment(DISK, str(tmp_path), 1, data_of(schema, 3), schema=schema)
    monkeypatch.setattr(layout, "SEGMENT_FORMAT", 1)
    with pytest.raises(FormatVersionError, match="upgrade"):
        open_segment(tmp_path, ref)


def test_close_stops_new_reads_and_keeps_old_arrays(tmp_path: Path) -> None:
    schema = schema_of(VectorField(4))
    data = data_of(schema, 30)
    segment = open_segment(tmp_path, write_segment(DISK, str(tmp_path), 1, data, schema=schema))
    vectors = segment.vectors()
    segment.close()
    layout.remove_path(DISK, str(tmp_path / "segments"))
    np.testing.assert_array_equal(vectors, data.vectors[""])
    with pytest.raises(DatabaseClosedError):
        _ = segment.columns


def test_no_mmap_gives_the_same(tmp_path: Path) -> None:
    schema = schema_of(VectorField(4, "cosine"))
    data = data_of(schema, 30)
    ref = write_segment(DISK, str(tmp_path), 1, data, schema=schema)
    segment = Segment.open(RealDisk(no_mmap=True), str(tmp_path), ref, cache=ColumnCache(1000))
    np.testing.assert_array_equal(segment.vectors(), data.vectors[""])


def test_a_segment_nobody_holds_is_gone_at_once(tmp_path: Path) -> None:
    """Its maps keep the space of removed files taken, so it must not wait for the garbage collector."""
    schema = schema_of()
    ref = write_segment(DISK, str(tmp_path), 1, data_of(schema, 3000), schema=schema)
    segment = open_segment(tmp_path, ref)
    index_hash = write_index(DISK, str(tmp_path), 1, {(0, ""): build_hnsw(segment.vectors(), "l2", 4, 8)})
    indexed = segment.with_index(index_hash)
    assert indexed.index is not None and indexed.columns.payloads(np.array([1]))
    gone = [weakref.ref(segment), weakref.ref(indexed)]
    gc.disable()
    try:
        del segment, indexed
        assert [r() for r in gone] == [None, None]
    finally:
        gc.enable()


def test_small_segments_take_no_descriptors(tmp_path: Path) -> None:
    schema = schema_of()
    before = len(os.listdir("/proc/self/fd"))
    opened = [
        open_segment(tmp_path, write_segment(DISK, str(tmp_path), i, data_of(schema, 50), schema=schema))
        for i in range(1, 30)
    ]
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert all(len(s.vectors()) == 50 for s in opened)
