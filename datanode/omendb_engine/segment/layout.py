"""Names, checksummed JSON documents and file sums of a replica's folder.

A *document* is canonical JSON that carries its own blake2b-256 in the field ``hash``. It is read only when
the bytes on disk are exactly the canonical encoding of what was parsed and the hash matches, so a change of
any byte is noticed. Every other file is described by a :class:`FileEntry` inside such a document.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.checksum import block_sums, crc32c, verify_blocks
from omendb_common.disk import Disk
from omendb_common.errors import CorruptionError, FormatVersionError

SEGMENT_FORMAT = 1
INDEX_FORMAT = 2
"""1: graphs over the stored rows or copies in their compared form. 2: inverted lists, and graphs over codes."""
REPLICA_FORMAT = 1
DIGEST_FORM = 1
"""What a row's digest is made of (:mod:`omendb_engine.query.digests`): digests of another form are not believed."""
BLOCK_BYTES = 65_536

SEGMENTS = "segments"
DELETES = "deletes"
CURRENT = "CURRENT"
MANIFEST = "manifest.json"
KEYS = "keys.arrow"
VECTORS = "vectors.arrow"
METADATA = "metadata.parquet"
TOMBSTONES = "tombstones.arrow"
OVERRIDES = "overrides.arrow"
DIGESTS = "digests.arrow"
STATS = "stats"
BLOOM = "stats/bloom.bin"
MINMAX = "stats/minmax.json"
QUANTILES = "stats/quantiles.json"
INDEX_DOCUMENT = "index.json"
TEMPORARY = ".tmp-"
TEMPORARY_SUFFIX = ".tmp"

Buffer = Any
"""Anything with the buffer protocol: bytes, memoryview, a C-contiguous array, an Arrow buffer."""
U32Array = npt.NDArray[np.uint32]


def segment_name(segment_id: int) -> str:
    """Folder name of a segment, below ``segments/``."""
    return f"segment_{segment_id:06d}"


def segment_path(replica_path: str, segment_id: int) -> str:
    """Folder of a segment."""
    return f"{replica_path}/{SEGMENTS}/{segment_name(segment_id)}"


def vectors_name(position: int) -> str:
    """File of the ``position``-th vector field; a field has a file of its own so that it is verified alone."""
    return VECTORS if position == 0 else f"vectors-{position}.arrow"


@dataclass(frozen=True, slots=True, eq=False)
class FileEntry:
    """What a file must look like: bytes, CRC32C of the whole, CRC32C of every 64 KiB block."""

    size: int
    crc32c: int
    blocks: U32Array

    def to_json(self) -> dict[str, Any]:
        """A JSON value that :meth:`from_json` reads back."""
        blocks = base64.b64encode(self.blocks.astype("<u4").tobytes()).decode("ascii")
        return {"size": self.size, "crc32c": self.crc32c, "blocks": blocks}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> FileEntry:
        """Read what :meth:`to_json` wrote."""
        blocks = np.frombuffer(base64.b64decode(value["blocks"]), "<u4").astype(np.uint32)
        return FileEntry(int(value["size"]), int(value["crc32c"]), blocks)


def describe(parts: Sequence[Buffer]) -> FileEntry:
    """The entry of a file that consists of ``parts`` one after the other; reads every byte twice, copies none."""
    views = [memoryview(p).cast("B") for p in parts if memoryview(p).nbytes]
    whole = 0
    for view in views:
        whole = crc32c(view, whole)
    size = sum(v.nbytes for v in views)
    sums = block_sums(views[0]) if len(views) == 1 else np.array(_sums_across(views), np.uint32)
    return FileEntry(size, whole, np.asarray(sums, np.uint32))


def _sums_across(views: list[memoryview]) -> list[int]:
    """Block sums of a file in pieces, where a block may begin in one piece and end in another."""
    sums: list[int] = []
    value = filled = 0
    for view in views:
        at = 0
        while at < view.nbytes:
            take = min(BLOCK_BYTES - filled, view.nbytes - at)
            value = crc32c(view[at : at + take], value)
            at += take
            filled += take
            if filled == BLOCK_BYTES:
                sums.append(value)
                value = filled = 0
    if filled:
        sums.append(value)
    return sums


def check_size(disk: Disk, path: str, entry: FileEntry) -> None:
    """Raise CorruptionError unless ``path`` exists with the recorded size; done before any mapping."""
    try:
        size = disk.size(path)
    except FileNotFoundError:
        raise CorruptionError("the file is missing", path=path) from None
    if size != entry.size:
        raise CorruptionError(
            f"the file has {size} bytes", path=path, offset=min(size, entry.size), bound=f"{entry.size}"
        )


def _wrong_size(size: int, entry: FileEntry, path: str) -> CorruptionError:
    offset = min(size, entry.size)
    return CorruptionError(f"the file has {size} bytes", path=path, offset=offset, bound=f"{entry.size}")


def verify(view: memoryview, entry: FileEntry, path: str) -> None:
    """Raise CorruptionError, with the offset of the bad block, unless every byte is as written."""
    if view.nbytes != entry.size:
        raise _wrong_size(view.nbytes, entry, path)
    verify_blocks(view, entry.blocks, path)


def canonical(value: Any) -> bytes:
    """The one JSON encoding of ``value``: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def seal(body: Mapping[str, Any]) -> tuple[bytes, str]:
    """Encode a document; returns its bytes and its hash (64 hex digits)."""
    digest = hashlib.blake2b(canonical(body), digest_size=32).hexdigest()
    return canonical({**body, "hash": digest}), digest


def unseal(data: bytes, path: str, *, kind: str, format_max: int, expected: str | None = None) -> dict[str, Any]:
    """Decode a document and check every byte of it.

    Raises:
        CorruptionError: not what :func:`seal` wrote, another kind, or not the document with hash ``expected``.
        FormatVersionError: intact, but written by a newer release.
    """
    try:
        body = json.loads(data)
        digest = body.pop("hash")
        again, actual = seal(body)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError, UnicodeDecodeError):
        raise CorruptionError("not a readable document", path=path, offset=0) from None
    if again != data or actual != digest:
        raise CorruptionError("the document does not match its own hash", path=path, offset=0)
    if expected is not None and digest != expected:
        raise CorruptionError("another version of the document than the manifest names", path=path, offset=0)
    if body.get("kind") != kind:
        raise CorruptionError(f"a document of kind {body.get('kind')!r}", path=path, offset=0, bound=repr(kind))
    if int(body["format"]) > format_max:
        raise FormatVersionError(
            f"format {body['format']}", field=path, bound=f"at most {format_max}", mend="upgrade omendb"
        )
    result: dict[str, Any] = body
    return result


def read_document(disk: Disk, path: str, *, kind: str, format_max: int, expected: str | None = None) -> dict[str, Any]:
    """Read and check the document at ``path``; a missing file is CorruptionError as well."""
    try:
        data = disk.read(path)
    except FileNotFoundError:
        raise CorruptionError("the file is missing", path=path) from None
    return unseal(data, path, kind=kind, format_max=format_max, expected=expected)


def file_entries(body: Mapping[str, Any], path: str) -> dict[str, FileEntry]:
    """The ``files`` table of a document."""
    try:
        return {str(name): FileEntry.from_json(value) for name, value in body["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error):
        raise CorruptionError("the table of files is not readable", path=path, offset=0) from None


def remove_path(disk: Disk, path: str) -> None:
    """Remove a file, or a folder with what is in it; what is gone already is no error."""
    if not disk.exists(path):
        return
    try:
        names = disk.listdir(path)
    except NotADirectoryError:
        disk.unlink(path)
        return
    for name in names:
        remove_path(disk, f"{path}/{name}")
    disk.rmdir(path)


__all__ = [
    "BLOCK_BYTES",
    "BLOOM",
    "CURRENT",
    "DELETES",
    "DIGESTS",
    "DIGEST_FORM",
    "INDEX_DOCUMENT",
    "INDEX_FORMAT",
    "KEYS",
    "MANIFEST",
    "METADATA",
    "MINMAX",
    "OVERRIDES",
    "QUANTILES",
    "REPLICA_FORMAT",
    "SEGMENTS",
    "SEGMENT_FORMAT",
    "STATS",
    "TEMPORARY",
    "TEMPORARY_SUFFIX",
    "TOMBSTONES",
    "VECTORS",
    "Buffer",
    "FileEntry",
    "canonical",
    "check_size",
    "describe",
    "file_entries",
    "read_document",
    "remove_path",
    "seal",
    "segment_name",
    "segment_path",
    "unseal",
    "vectors_name",
    "verify",
]
