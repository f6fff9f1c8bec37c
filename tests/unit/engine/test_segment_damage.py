"""Any changed byte and any cut of any file of a replica is noticed before it is believed (invariant 4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omendb_common.ids import IdColumn
from omendb_engine.segment.check import check_replica_files, check_segment
from omendb_engine.segment.deletes import Deletes
from omendb_engine.segment.writer import write_segment
from tests.unit.engine.segment_cases import (
    DISK,
    copy_of,
    damage_is_noticed,
    data_of,
    files_of,
    flips,
    schema_of,
    truncations,
    write_replica,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "replica"
    folder.mkdir()
    write_replica(folder)
    return folder


def test_a_sound_replica_has_no_findings(sound: Path) -> None:
    assert check_replica_files(DISK, str(sound)) == []
    assert not damage_is_noticed(sound)
    assert len(files_of(sound)) == 19


def test_every_changed_byte_is_noticed(sound: Path, tmp_path: Path) -> None:
    folder = copy_of(sound, tmp_path / "replica")
    missed = [where for where in flips(folder, stride=31) if not damage_is_noticed(folder)]
    assert missed == []


def test_every_cut_is_noticed(sound: Path, tmp_path: Path) -> None:
    folder = copy_of(sound, tmp_path / "replica")
    assert [where for where in truncations(folder) if not damage_is_noticed(folder)] == []


def test_appended_bytes_and_missing_files_are_noticed(sound: Path, tmp_path: Path) -> None:
    folder = copy_of(sound, tmp_path / "replica")
    for path in files_of(folder):
        whole = path.read_bytes()
        path.write_bytes(whole + b"\0")
        assert damage_is_noticed(folder), path
        path.unlink()
        assert damage_is_noticed(folder) or path.name == "CURRENT", path
        path.write_bytes(whole)


def test_intact_files_in_each_others_place_are_noticed(sound: Path, tmp_path: Path) -> None:
    folder = copy_of(sound, tmp_path / "replica")
    files = files_of(folder)
    for path in files:
        whole = path.read_bytes()
        for other in files:
            if other == path or other.read_bytes() == whole:
                continue
            path.write_bytes(other.read_bytes())
            assert damage_is_noticed(folder), (path, other)
        path.write_bytes(whole)


def test_findings_name_file_and_offset(sound: Path, tmp_path: Path) -> None:
    folder = copy_of(sound, tmp_path / "replica")
    path = folder / "segments/segment_000001/metadata.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xff" + whole[101:])
    findings = check_replica_files(DISK, str(folder))
    assert [(f.path, f.offset) for f in findings] == [(str(path), 0)]
    path.write_bytes(whole[:-1])
    findings = check_replica_files(DISK, str(folder))
    assert [(f.path, f.offset) for f in findings] == [(str(path), len(whole) - 1)]


def test_files_that_are_intact_but_disagree_are_found(tmp_path: Path) -> None:
    schema = schema_of()
    data = data_of(schema, 40)
    others = IdColumn.of(np.arange(40, dtype=np.uint64) + 10_000).hashes()
    wrong = replace(data, hi=others[0], lo=others[1])
    ref = write_segment(DISK, str(tmp_path), 1, wrong, schema=schema)
    assert ["hashes" in f.problem for f in check_segment(DISK, str(tmp_path), ref)] == [True]
    good = write_segment(DISK, str(tmp_path), 2, data, schema=schema)
    assert check_segment(DISK, str(tmp_path), good) == []
    shifted = replace(good, max_stamp=good.max_stamp + 1)
    assert ["stamps" in f.problem for f in check_segment(DISK, str(tmp_path), shifted)] == [True]


def test_deletes_encoding_refuses_every_change() -> None:
    whole = b"".join(Deletes.of(70, np.array([0, 8, 69])).encode(5))
    assert Deletes.decode(whole, "d", segment_id=5, rows=70) == Deletes.of(70, np.array([69, 8, 0]))
    for offset in range(len(whole)):
        for pattern in (1, 0x80, 0xFF):
            changed = bytearray(whole)
            changed[offset] ^= pattern
            with pytest.raises(Exception, match="d") as caught:
                Deletes.decode(bytes(changed), "d", segment_id=5, rows=70)
            assert type(caught.value).__name__ == "CorruptionError"
