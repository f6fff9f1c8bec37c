"""The manifest is committed whole or not at all, falls back only where the log allows, and names all that counts."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omendb_common.disk import RealDisk
from omendb_common.errors import CorruptionError, FormatVersionError, NotFoundError, ReplicaFailedError
from omendb_common.schema import CollectionSchema
from omendb_engine.segment import layout
from omendb_engine.segment.check import check_replica_files
from omendb_engine.segment.deletes import Deletes, read_deletes, write_deletes
from omendb_engine.segment.manifest import ManifestStore, ReplicaManifest, manifest_name
from omendb_engine.segment.writer import write_segment
from tests.unit.engine.segment_cases import DISK, data_of, manifest_of, schema_of


def never(manifest: ReplicaManifest) -> bool:
    return False


def always(manifest: ReplicaManifest) -> bool:
    return True


def store_with(folder: Path, generations: int) -> ManifestStore:
    """A store after some commits, each one checkpoint further."""
    store = ManifestStore(DISK, str(folder))
    for lsn in range(generations):
        store.commit(manifest_of(schema_of(), checkpoint_lsn=lsn))
    return store


def test_a_manifest_comes_back_as_committed(tmp_path: Path) -> None:
    schema = schema_of()
    deletes = write_deletes(DISK, str(tmp_path), 1, {1: Deletes.of(5, np.array([2]))})
    ref = replace(write_segment(DISK, str(tmp_path), 1, data_of(schema, 5), schema=schema), deletes=deletes[1])
    made = manifest_of(
        schema, ref, checkpoint_lsn=7, durable_lsn=9, hlc=2**63 + 5, gc_floor=3, fence_epoch=2, next_auto_id=2**64 - 1
    )
    committed = ManifestStore(DISK, str(tmp_path)).commit(made)
    assert committed == replace(made, generation=1)
    loaded = ManifestStore(DISK, str(tmp_path)).load(never)
    assert loaded == committed
    assert loaded.hash == committed.hash
    assert CollectionSchema.from_json(loaded.schema) == schema
    json.loads((tmp_path / "manifest-000001.json").read_text())


def test_an_empty_folder_has_no_replica(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        ManifestStore(DISK, str(tmp_path)).load(always)
    with pytest.raises(NotFoundError):
        ManifestStore(DISK, str(tmp_path / "nowhere")).load(always)


def test_three_generations_are_kept_and_chained(tmp_path: Path) -> None:
    store = store_with(tmp_path, 5)
    assert sorted(p.name for p in tmp_path.glob("manifest*")) == [manifest_name(g) for g in (3, 4, 5)]
    kept = store.kept
    assert [m.generation for m in kept] == [3, 4, 5]
    assert [m.prev_hash for m in kept[1:]] == [m.hash for m in kept[:-1]]
    again = ManifestStore(DISK, str(tmp_path))
    assert again.load(never) == kept[-1]
    assert again.kept == kept
    assert again.commit(manifest_of(schema_of(), checkpoint_lsn=9)).generation == 6
    few = ManifestStore(DISK, str(tmp_path), keep=1)
    few.load(never)
    few.commit(manifest_of(schema_of(), checkpoint_lsn=9))
    assert [p.name for p in tmp_path.glob("manifest*")] == [manifest_name(7)]


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_falling_back_needs_the_log(tmp_path: Path, damage: str) -> None:
    store_with(tmp_path, 4)
    newest = tmp_path / manifest_name(4)
    whole = newest.read_bytes()
    if damage == "gone":
        newest.unlink()
    else:
        newest.write_bytes(whole[:50] if damage == "cut" else whole.replace(b'"hlc":0', b'"hlc":1'))
    with pytest.raises(CorruptionError) as caught:
        ManifestStore(DISK, str(tmp_path)).load(never)
    assert caught.value.path == str(newest)
    asked: list[int] = []
    store = ManifestStore(DISK, str(tmp_path))

    def covers(manifest: ReplicaManifest) -> bool:
        asked.append(manifest.checkpoint_lsn)
        return True

    found = store.load(covers)
    assert found.generation == 3
    assert asked == [2]
    assert bool(store.problems) == (damage != "gone")
    assert store.commit(manifest_of(schema_of(), checkpoint_lsn=5)).generation == 5
    assert not newest.exists()
    assert ManifestStore(DISK, str(tmp_path)).load(never).generation == 5


def test_a_manifest_whose_files_are_gone_does_not_count(tmp_path: Path) -> None:
    schema = schema_of()
    store = store_with(tmp_path, 1)
    ref = write_segment(DISK, str(tmp_path), 1, data_of(schema, 3), schema=schema)
    store.commit(manifest_of(schema, ref, next_segment_id=2))
    layout.remove_path(DISK, f"{tmp_path}/segments/segment_000001")
    with pytest.raises(CorruptionError, match="segment_000001"):
        ManifestStore(DISK, str(tmp_path)).load(never)
    assert ManifestStore(DISK, str(tmp_path)).load(always).generation == 1


@pytest.mark.parametrize("content", [None, b"", b"{}", b"garbage", b'{"generation":1}'])
def test_current_can_be_lost_but_not_silently(tmp_path: Path, content: bytes | None) -> None:
    store_with(tmp_path, 2)
    current = tmp_path / "CURRENT"
    current.unlink()
    if content is not None:
        current.write_bytes(content)
    store = ManifestStore(DISK, str(tmp_path))
    assert store.load(never).generation == 2
    assert [p.path for p in store.problems] == ([str(current)] if content is not None else [])
    findings = check_replica_files(DISK, str(tmp_path))
    assert bool(findings) == (content is not None)


def test_current_without_manifests_is_corruption(tmp_path: Path) -> None:
    store_with(tmp_path, 1)
    (tmp_path / manifest_name(1)).unlink()
    with pytest.raises(CorruptionError):
        ManifestStore(DISK, str(tmp_path)).load(always)
    (tmp_path / "CURRENT").write_bytes(b"?")
    with pytest.raises(CorruptionError):
        ManifestStore(DISK, str(tmp_path)).load(always)


def test_a_newer_format_is_told_from_damage(tmp_path: Path) -> None:
    store = store_with(tmp_path, 1)
    store.commit(manifest_of(schema_of(), checkpoint_lsn=1, format=2))
    with pytest.raises(FormatVersionError, match="upgrade"):
        ManifestStore(DISK, str(tmp_path)).load(always)


@pytest.mark.parametrize("name", ["checkpoint_lsn", "durable_lsn", "hlc", "gc_floor", "fence_epoch", "next_segment_id"])
def test_what_never_goes_back_cannot(tmp_path: Path, name: str) -> None:
    store = ManifestStore(DISK, str(tmp_path))
    store.commit(manifest_of(schema_of(), **{name: 5}))
    with pytest.raises(ValueError, match=name):
        store.commit(manifest_of(schema_of(), **{name: 4}))
    assert ManifestStore(DISK, str(tmp_path)).load(never).generation == 1


class Failing(RealDisk):
    """Fails the n-th step of a commit."""

    def __init__(self, fail_at: int) -> None:
        super().__init__()
        self.left = fail_at

    def _step(self) -> None:
        self.left -= 1
        if self.left == -1:
            raise OSError(errno.EIO, "the disk failed")

    def write_file(self, path: str, parts: Sequence[Any]) -> int:
        self._step()
        return super().write_file(path, parts)

    def rename(self, src: str, dst: str) -> None:
        self._step()
        super().rename(src, dst)

    def sync_dir(self, path: str) -> None:
        self._step()
        super().sync_dir(path)


@pytest.mark.parametrize("step", range(6))
def test_a_commit_that_fails_leaves_old_or_new_whole(tmp_path: Path, step: int) -> None:
    store_with(tmp_path, 2)
    disk = Failing(step)
    store = ManifestStore(disk, str(tmp_path))
    store.load(never)
    new = manifest_of(schema_of(), checkpoint_lsn=8)
    if step < 2:
        with pytest.raises(OSError, match="the disk failed"):
            store.commit(new)
        assert ManifestStore(DISK, str(tmp_path)).load(never).checkpoint_lsn == 1
        assert store.commit(new).generation == 3  # nothing had changed: it may be tried again
    else:
        with pytest.raises(ReplicaFailedError) as caught:
            store.commit(new)
        assert caught.value.outcome == "unknown"
        with pytest.raises(ReplicaFailedError):
            store.commit(new)
    assert ManifestStore(DISK, str(tmp_path)).load(never).checkpoint_lsn == 8


def test_garbage_is_what_no_kept_generation_names(tmp_path: Path) -> None:
    schema = schema_of()
    root = str(tmp_path)
    refs = [write_segment(DISK, root, i, data_of(schema, 4, seed=i), schema=schema) for i in (1, 2, 3)]
    bits = {g: write_deletes(DISK, root, g, {1: Deletes.of(4, np.array([g]))})[1] for g in (1, 2, 3)}
    store = ManifestStore(DISK, root)
    store.commit(manifest_of(schema, replace(refs[0], deletes=bits[1]), refs[1]))
    store.commit(manifest_of(schema, replace(refs[0], deletes=bits[2])))
    (tmp_path / "wal").mkdir()
    (tmp_path / "wal/wal-0.log.tmp").write_bytes(b"x")
    for name in ("ballast", "LOCK", "manifest-000009.json.tmp", "segments/segment_000001/index.hnsw"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "segments/.tmp-segment_000004").mkdir()
    (tmp_path / "segments/.tmp-segment_000005").mkdir()
    expected = {
        "manifest-000009.json.tmp",
        "segments/.tmp-segment_000005",
        "segments/segment_000001/index.hnsw",
        "deletes/000003-000001.bits",
    }
    found = store.garbage(keep_segments=[3, 4])
    assert {p.removeprefix(root + "/") for p in found} == expected
    assert "segments/segment_000003" in {p.removeprefix(root + "/") for p in store.garbage()}
    assert not any("000003-" in p for p in store.garbage(keep_deletes=[bits[3].name]))
    store.remove(found)
    store.remove(found)
    assert set(store.garbage(keep_segments=[3, 4])) == set()
    for _ in range(3):
        store.commit(manifest_of(schema, refs[0]))
    gone = {p.removeprefix(root + "/") for p in store.garbage(keep_segments=[3, 4])}
    assert gone == {"segments/segment_000002", "deletes/000001-000001.bits", "deletes/000002-000001.bits"}
    assert check_replica_files(DISK, root) == []


def test_deletes_files(tmp_path: Path) -> None:
    root = str(tmp_path)
    dead = Deletes.of(1_000, np.array([0, 7, 999]))
    ref = write_deletes(DISK, root, 4, {2: dead})[2]
    assert ref.name == "000004-000002.bits"
    assert (ref.count, ref.size) == (3, 48 + 125)
    assert read_deletes(DISK, root, ref, segment_id=2, rows=1_000) == dead
    for wrong in ({"segment_id": 3, "rows": 1_000}, {"segment_id": 2, "rows": 999}):
        with pytest.raises(CorruptionError):
            read_deletes(DISK, root, ref, **wrong)
    with pytest.raises(CorruptionError):
        read_deletes(DISK, root, replace(ref, crc32c=ref.crc32c ^ 1), segment_id=2, rows=1_000)
    with pytest.raises(CorruptionError):
        read_deletes(DISK, root, replace(ref, name="000005-000002.bits"), segment_id=2, rows=1_000)
    again = write_deletes(DISK, root, 4, {2: dead.with_rows(np.array([5]))})[2]
    assert read_deletes(DISK, root, again, segment_id=2, rows=1_000).count == 4


def test_delete_sets_are_values() -> None:
    none = Deletes.none(10)
    some = none.with_rows(np.array([3, 3, 9]))
    assert (none.count, some.count, len(some)) == (0, 2, 10)
    assert some.contains(np.array([3, 4, 9])).tolist() == [True, False, True]
    assert none.contains(np.array([3])).tolist() == [False]
    assert some.rows().tolist() == [3, 9]
    assert some.alive_rows().tolist() == [0, 1, 2, 4, 5, 6, 7, 8]
    assert some.alive().tolist() == (~some.mask()).tolist()
    assert np.unpackbits(some.alive_bits(), count=10, bitorder="little").astype(bool).tolist() == some.alive().tolist()
    grown = some.grown(20)
    assert (grown.n, grown.count, grown.rows().tolist()) == (20, 2, [3, 9])
    assert none.grown(12) == Deletes.none(12)
    assert some.with_rows(np.empty(0, np.int64)) is some
    assert some == Deletes.of_mask(some.mask())
    assert some != none
    for bad in (np.array([10]), np.array([-1])):
        with pytest.raises(IndexError):
            none.with_rows(bad)
    with pytest.raises(ValueError, match="shrink"):
        some.grown(9)


def test_a_document_counts_only_in_its_canonical_form() -> None:
    body = {"kind": "replica", "format": 1, "text": "é/", "number": 12}
    data, digest = layout.seal(body)
    assert layout.unseal(data, "p", kind="replica", format_max=1, expected=digest) == body
    value = json.loads(data)
    others = [
        json.dumps(value).encode(),
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(),
        json.dumps({**value, "hash": digest.upper()}, sort_keys=True, separators=(",", ":")).encode(),
        data + b"\n",
        data.replace(b"12", b"1.2e1"),
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
    ]
    for other in others:
        with pytest.raises(CorruptionError):
            layout.unseal(other, "p", kind="replica", format_max=1)
    with pytest.raises(CorruptionError):
        layout.unseal(data, "p", kind="segment", format_max=1)
    with pytest.raises(CorruptionError):
        layout.unseal(data, "p", kind="replica", format_max=1, expected="0" * 64)
