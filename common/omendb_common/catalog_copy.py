"""A copy of the catalog in a file: what a group of coordinators that was lost is made anew from.

::

    magic 8 | version u32 | crc of all that follows u32 | length u64 | JSON: taken_ms, level, catalog

``catalog`` is a snapshot of the catalog as a coordinator keeps it.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

from omendb_common.checksum import crc32c
from omendb_common.disk import Disk, replace_file
from omendb_common.errors import AlreadyExistsError, CorruptionError, FormatVersionError

_MAGIC = b"OMCATCPY"
_VERSION = 1
_HEADER = struct.Struct("<8sII")
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class CatalogCopy:
    """A catalog as it was at ``taken_ms`` of its leader's wall clock; ``checksum`` tells copies apart."""

    taken_ms: int
    catalog: dict[str, Any]
    checksum: int


def pack_copy(taken_ms: int, snapshot: bytes) -> bytes:
    """The bytes of a copy; ``snapshot`` is the JSON of a catalog's snapshot."""
    body = b'{"taken_ms":%d,"catalog":' % taken_ms + snapshot + b"}"
    length = _LENGTH.pack(len(body))
    return _HEADER.pack(_MAGIC, _VERSION, crc32c([length, body])) + length + body


def unpack_copy(data: bytes, path: str) -> CatalogCopy:
    """The copy in ``data``, which was read from ``path``.

    Raises:
        CorruptionError: it is damaged, cut short, or no copy.
        FormatVersionError: a newer release made it.
    """
    start = _HEADER.size + _LENGTH.size
    if len(data) < start or data[: len(_MAGIC)] != _MAGIC:
        raise CorruptionError("not a copy of a catalog", path=path, offset=0)
    _, version, crc = _HEADER.unpack_from(data)
    if version > _VERSION:
        raise FormatVersionError(f"format {version}", field=path, bound=f"at most {_VERSION}", mend="upgrade omendb")
    (length,) = _LENGTH.unpack_from(data, _HEADER.size)
    if version < _VERSION or len(data) - start != length or crc32c(memoryview(data)[_HEADER.size :]) != crc:
        raise CorruptionError("the checksum does not match", path=path, offset=0, mend="use another copy")
    value = json.loads(data[start:])
    return CatalogCopy(int(value["taken_ms"]), value["catalog"], crc)


def write_copy(disk: Disk, path: str, data: bytes) -> CatalogCopy:
    """Write the bytes of a copy to a new file: whole and on stable storage, or not at all.

    Raises:
        AlreadyExistsError: there is a file of that name; a copy never takes the place of another.
        CorruptionError: these are not the bytes of a copy, or not what the disk gives back.
    """
    unpack_copy(data, path)
    if disk.exists(path):
        raise AlreadyExistsError("is there already", field=path, mend="give the copy another name")
    replace_file(disk, path, [data])
    return read_copy(disk, path)


def read_copy(disk: Disk, path: str) -> CatalogCopy:
    """Read a copy; raises as :func:`unpack_copy`, and FileNotFoundError."""
    return unpack_copy(disk.read(path), path)


__all__ = ["CatalogCopy", "pack_copy", "read_copy", "unpack_copy", "write_copy"]
