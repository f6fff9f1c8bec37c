"""Snapshots on disk: one file each, named by its index; the newest counts and the one before it stays.

::

    magic 8 | version u32 | crc of all that follows u32 | index u64 | term u64 | length u64 | data
"""

from __future__ import annotations

import struct

from omendb_common.checksum import crc32c
from omendb_common.disk import Disk, replace_file
from omendb_common.errors import CorruptionError, FormatVersionError
from omendb_coordinator.consensus.messages import Snapshot

_MAGIC = b"OMRAFTSN"
_VERSION = 1
_HEADER = struct.Struct("<8sII")
_FIXED = struct.Struct("<QQQ")
_PREFIX, _SUFFIX = "snapshot-", ".snap"
KEPT = 2


def write_snapshot(disk: Disk, folder: str, snapshot: Snapshot) -> None:
    """Make a snapshot durable, then forget all but it and the one before; an OSError is final."""
    fixed = _FIXED.pack(snapshot.index, snapshot.term, len(snapshot.data))
    header = _HEADER.pack(_MAGIC, _VERSION, crc32c([fixed, snapshot.data]))
    replace_file(disk, f"{folder}/{_PREFIX}{snapshot.index:016x}{_SUFFIX}", [header, fixed, snapshot.data])
    for name in _names(disk, folder)[:-KEPT]:
        disk.unlink(f"{folder}/{name}")


def read_newest(disk: Disk, folder: str) -> Snapshot | None:
    """The newest snapshot, or None where there is none.

    Raises:
        CorruptionError: it is damaged; an older one might lack what the log no longer has.
        FormatVersionError: a newer release wrote it.
    """
    names = _names(disk, folder)
    if not names:
        return None
    path = f"{folder}/{names[-1]}"
    data = disk.read(path)
    if len(data) < _HEADER.size + _FIXED.size or data[: len(_MAGIC)] != _MAGIC:
        raise CorruptionError("not a snapshot", path=path, offset=0)
    _, version, crc = _HEADER.unpack_from(data)
    if version > _VERSION:
        raise FormatVersionError(f"format {version}", field=path, bound=f"at most {_VERSION}")
    index, term, length = _FIXED.unpack_from(data, _HEADER.size)
    body = data[_HEADER.size + _FIXED.size :]
    named = names[-1] == f"{_PREFIX}{index:016x}{_SUFFIX}"
    if version < _VERSION or crc != crc32c(memoryview(data)[_HEADER.size :]) or len(body) != length or not named:
        raise CorruptionError("the checksum does not match", path=path, offset=0)
    return Snapshot.of(index, term, body)


def _names(disk: Disk, folder: str) -> list[str]:
    """Oldest first: the index is in the name, with leading zeros."""
    return [name for name in disk.listdir(folder) if name.startswith(_PREFIX) and name.endswith(_SUFFIX)]


__all__ = ["KEPT", "read_newest", "write_snapshot"]
