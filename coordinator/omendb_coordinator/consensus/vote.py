"""Term and vote on disk, replaced as a whole: a member that forgets whom it voted for elects two leaders."""

from __future__ import annotations

import struct

from omendb_common.checksum import crc32c
from omendb_common.disk import Disk, replace_file
from omendb_common.errors import CorruptionError, FormatVersionError

_MAGIC = b"OMRAFTVT"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQH")


def write_vote(disk: Disk, path: str, term: int, vote: str | None) -> None:
    """Make term and vote durable; an OSError is final."""
    name = (vote or "").encode()
    body = struct.pack("<QH", term, len(name)) + name
    replace_file(disk, path, [_HEADER.pack(_MAGIC, _VERSION, crc32c(body), term, len(name)) + name])


def read_vote(disk: Disk, path: str) -> tuple[int, str | None]:
    """Term and vote.

    Raises:
        CorruptionError: damaged; guessing would be voting twice.
        FormatVersionError: a newer release wrote it.
        FileNotFoundError: there is none.
    """
    data = disk.read(path)
    if len(data) < _HEADER.size or data[: len(_MAGIC)] != _MAGIC:
        raise CorruptionError("not a vote", path=path, offset=0)
    _, version, crc, term, length = _HEADER.unpack_from(data)
    if version > _VERSION:
        raise FormatVersionError(f"format {version}", field=path, bound=f"at most {_VERSION}")
    name = data[_HEADER.size :]
    if version < _VERSION or crc != crc32c(struct.pack("<QH", term, length) + name) or len(name) != length:
        raise CorruptionError("the checksum does not match", path=path, offset=0)
    return term, name.decode() or None


__all__ = ["read_vote", "write_vote"]
