"""The catalog: names to collections, replaced whole, damage noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omendb_common.disk import RealDisk
from omendb_common.errors import AlreadyExistsError, CorruptionError, FormatVersionError, NotFoundError
from omendb_engine.catalog import CATALOG_FORMAT, CATALOG_NAME, KIND, Catalog, read_catalog, write_catalog
from omendb_engine.segment import layout

DISK = RealDisk()


def test_changes_make_new_catalogs() -> None:
    empty = Catalog("db", {})
    two = empty.added("a", "u1").added("b", "u2")
    assert two.uuid_of("a") == "u1" and empty.collections == {}
    assert two.renamed("a", "c").collections == {"b": "u2", "c": "u1"}
    assert two.removed("a").collections == {"b": "u2"}
    assert two.renamed("a", "a") == two
    with pytest.raises(AlreadyExistsError):
        two.added("a", "u3")
    with pytest.raises(AlreadyExistsError):
        two.renamed("a", "b")
    for missing in (lambda: two.uuid_of("z"), lambda: two.removed("z"), lambda: two.renamed("z", "y")):
        with pytest.raises(NotFoundError) as caught:
            missing()
        assert "['a', 'b']" in str(caught.value)


def test_it_comes_back_and_any_changed_byte_is_noticed(tmp_path: Path) -> None:
    catalog = Catalog("db", {"a": "u1", "ünï": "u2"})
    write_catalog(DISK, str(tmp_path), catalog)
    assert read_catalog(DISK, str(tmp_path)) == catalog
    path = tmp_path / CATALOG_NAME
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CorruptionError):
            read_catalog(DISK, str(tmp_path))
    for length in (0, 1, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptionError):
            read_catalog(DISK, str(tmp_path))
    path.unlink()
    with pytest.raises(CorruptionError):
        read_catalog(DISK, str(tmp_path))


def test_a_newer_format_is_refused_as_such(tmp_path: Path) -> None:
    body = {"kind": KIND, "format": CATALOG_FORMAT + 1, "database_uuid": "db", "collections": {}}
    (tmp_path / CATALOG_NAME).write_bytes(layout.seal(body)[0])
    with pytest.raises(FormatVersionError):
        read_catalog(DISK, str(tmp_path))
    body = {"kind": KIND, "format": CATALOG_FORMAT, "database_uuid": "db", "collections": ["a"]}
    (tmp_path / CATALOG_NAME).write_bytes(layout.seal(body)[0])
    with pytest.raises(CorruptionError):
        read_catalog(DISK, str(tmp_path))
    assert json.loads((tmp_path / CATALOG_NAME).read_bytes())["collections"] == ["a"]
