"""A copy of the catalog: read back as it was, or not at all; never in the place of another."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omendb_common.catalog_copy import pack_copy, read_copy, unpack_copy, write_copy
from omendb_common.disk import RealDisk
from omendb_common.errors import AlreadyExistsError, CorruptionError, FormatVersionError

DATA = pack_copy(1234, b'{"format":1,"collections":[]}')


def test_a_copy_comes_back_from_its_file(tmp_path: Path) -> None:
    path = str(tmp_path / "copy")
    copy = write_copy(RealDisk(), path, DATA)
    assert copy == read_copy(RealDisk(), path) == unpack_copy(DATA, "")
    assert (copy.taken_ms, copy.catalog) == (1234, {"format": 1, "collections": []})
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]


def test_a_copy_takes_the_place_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(b"precious")
    with pytest.raises(AlreadyExistsError):
        write_copy(RealDisk(), str(tmp_path / "copy"), DATA)
    assert (tmp_path / "copy").read_bytes() == b"precious"


def test_what_is_no_copy_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(CorruptionError):
        write_copy(RealDisk(), str(tmp_path / "copy"), DATA[:-1])
    assert list(tmp_path.iterdir()) == []


@given(st.data())
def test_damage_is_found_whatever_byte_and_length(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(DATA) - 1))
    flipped = bytearray(DATA)
    flipped[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises((CorruptionError, FormatVersionError)):
        unpack_copy(bytes(flipped), "copy")
    with pytest.raises(CorruptionError):
        unpack_copy(DATA[:at], "copy")
    with pytest.raises(CorruptionError):
        unpack_copy(DATA + b" ", "copy")
