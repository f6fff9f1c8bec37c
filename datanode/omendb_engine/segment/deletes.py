"""The dead rows of one segment: an immutable bitmap and its file.

Changing a set makes a new one, so a reader that holds the old one is never surprised. The file ``deletes/
GGGGGG-SSSSSS.bits`` (generation, segment) is a 48-byte header and the packed bits, lowest bit first; the header
carries a checksum of itself and one of the bits.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.checksum import crc32c
from omendb_common.disk import Disk, make_folder
from omendb_common.errors import CorruptionError, FormatVersionError
from omendb_engine.segment.layout import DELETES

BoolArray = npt.NDArray[np.bool_]
U8Array = npt.NDArray[np.uint8]
I64Array = npt.NDArray[np.int64]

MAGIC = b"OMDELB1\0"
FORMAT = 1
# magic, format, reserved, segment id, rows, dead rows, crc of the bits; then a crc of all that
_HEADER = struct.Struct("<8sHHQQQII")
_HEADER_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _HEADER_CRC.size


@dataclass(frozen=True, slots=True)
class DeletesRef:
    """How a replica manifest names a deletes file: ``name`` below ``deletes/``, bytes, CRC32C, dead rows."""

    name: str
    size: int
    crc32c: int
    count: int

    def to_json(self) -> dict[str, Any]:
        """A JSON value that :meth:`from_json` reads back."""
        return {"name": self.name, "size": self.size, "crc32c": self.crc32c, "count": self.count}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> DeletesRef:
        """Read what :meth:`to_json` wrote."""
        return DeletesRef(str(value["name"]), int(value["size"]), int(value["crc32c"]), int(value["count"]))


class Deletes:
    """Which of ``n`` rows are dead; immutable. ``count`` of them are."""

    __slots__ = ("_mask", "count", "n")

    def __init__(self, n: int, mask: BoolArray | None, count: int) -> None:
        self.n = n
        self.count = count
        self._mask = mask

    @staticmethod
    def none(n: int) -> Deletes:
        """No row is dead; takes no memory."""
        return Deletes(n, None, 0)

    @staticmethod
    def of(n: int, rows: npt.NDArray[Any]) -> Deletes:
        """Exactly ``rows`` (integers in 0..n-1, repetitions allowed) are dead."""
        return Deletes.none(n).with_rows(rows)

    @staticmethod
    def of_mask(mask: BoolArray) -> Deletes:
        """The rows where ``mask`` is true are dead; ``mask`` must not change afterwards."""
        count = int(np.count_nonzero(mask))
        return Deletes(len(mask), mask if count else None, count)

    def __len__(self) -> int:
        return self.n

    def __repr__(self) -> str:
        return f"Deletes({self.count} of {self.n} rows)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Deletes):
            return NotImplemented
        return self.n == other.n and self.count == other.count and bool(np.array_equal(self.mask(), other.mask()))

    __hash__ = None  # type: ignore[assignment]

    def with_rows(self, rows: npt.NDArray[Any]) -> Deletes:
        """This set and ``rows``; IndexError when a row is outside 0..n-1."""
        if not len(rows):
            return self
        if int(rows.min()) < 0 or int(rows.max()) >= self.n:
            raise IndexError(f"a row outside 0..{self.n - 1}")
        mask = np.zeros(self.n, np.bool_) if self._mask is None else self._mask.copy()
        mask[rows] = True
        return Deletes(self.n, mask, int(np.count_nonzero(mask)))

    def grown(self, n: int) -> Deletes:
        """The same dead rows among more rows; ValueError when ``n`` is smaller than now."""
        if n < self.n:
            raise ValueError(f"cannot shrink from {self.n} to {n} rows")
        if n == self.n or self._mask is None:
            return Deletes(n, self._mask, self.count)
        mask = np.zeros(n, np.bool_)
        mask[: self.n] = self._mask
        return Deletes(n, mask, self.count)

    def contains(self, rows: npt.NDArray[Any]) -> BoolArray:
        """Which of ``rows`` are dead."""
        if self._mask is None:
            return np.zeros(len(rows), np.bool_)
        result: BoolArray = self._mask[rows]
        return result

    def mask(self) -> BoolArray:
        """True where dead (n); do not change it."""
        return np.zeros(self.n, np.bool_) if self._mask is None else self._mask

    def alive(self) -> BoolArray:
        """True where not dead (n); a new array."""
        return np.ones(self.n, np.bool_) if self._mask is None else ~self._mask

    def rows(self) -> I64Array:
        """The dead rows, ascending."""
        return np.empty(0, np.int64) if self._mask is None else np.flatnonzero(self._mask)

    def alive_rows(self) -> I64Array:
        """The rows that are not dead, ascending."""
        return np.arange(self.n, dtype=np.int64) if self._mask is None else np.flatnonzero(~self._mask)

    def alive_bits(self) -> U8Array:
        """Packed bits of the rows not dead, lowest bit first: what ``VectorIndex.search`` takes as ``allowed``."""
        return np.packbits(self.alive(), bitorder="little")

    def encode(self, segment_id: int) -> list[bytes]:
        """The parts of the file."""
        bits = np.packbits(self.mask(), bitorder="little").tobytes()
        header = _HEADER.pack(MAGIC, FORMAT, 0, segment_id, self.n, self.count, crc32c(bits), 0)
        return [header, _HEADER_CRC.pack(crc32c(header)), bits]

    @staticmethod
    def decode(data: bytes, path: str, *, segment_id: int, rows: int) -> Deletes:
        """Read what :meth:`encode` wrote for ``rows`` rows of segment ``segment_id``.

        Raises:
            CorruptionError: any byte differs, or the file belongs to another segment.
            FormatVersionError: intact, but written by a newer release.
        """
        if len(data) < HEADER_BYTES:
            raise CorruptionError("the deletes file is cut short", path=path, offset=len(data))
        header = data[: _HEADER.size]
        magic, version, _, owner, n, count, bits_crc, _ = _HEADER.unpack(header)
        (header_crc,) = _HEADER_CRC.unpack(data[_HEADER.size : HEADER_BYTES])
        if magic != MAGIC or crc32c(header) != header_crc:
            raise CorruptionError("the deletes header is damaged", path=path, offset=0)
        if version > FORMAT:
            raise FormatVersionError(f"format {version}", field=path, bound=f"at most {FORMAT}", mend="upgrade omendb")
        body = data[HEADER_BYTES:]
        if len(body) != (n + 7) // 8 or crc32c(body) != bits_crc:
            raise CorruptionError("the deletes bits are damaged", path=path, offset=HEADER_BYTES)
        if (owner, n) != (segment_id, rows):
            raise CorruptionError(
                f"deletes of segment {owner} with {n} rows", path=path, offset=0, bound=f"segment {segment_id}, {rows}"
            )
        mask = np.unpackbits(np.frombuffer(body, np.uint8), count=n, bitorder="little").astype(np.bool_)
        result = Deletes.of_mask(mask)
        if result.count != count:
            raise CorruptionError(f"{result.count} dead rows", path=path, offset=0, bound=f"{count}")
        return result


def write_deletes(
    disk: Disk, replica_path: str, generation: int, changed: Mapping[int, Deletes]
) -> dict[int, DeletesRef]:
    """Write the deletes of ``changed`` segments for manifest ``generation``; durable when it returns.

    One file each and one folder sync for all. Nothing refers to the files until the manifest is committed.
    """
    folder = f"{replica_path}/{DELETES}"
    make_folder(disk, folder)
    refs: dict[int, DeletesRef] = {}
    for segment_id, deletes in sorted(changed.items()):
        name = f"{generation:06d}-{segment_id:06d}.bits"
        path = f"{folder}/{name}"
        if disk.exists(path):
            disk.unlink(path)  # left by an attempt that was never committed: a generation commits once
        parts = deletes.encode(segment_id)
        size = disk.write_file(path, parts)
        refs[segment_id] = DeletesRef(name, size, crc32c(parts), deletes.count)
    if refs:
        disk.sync_dir(folder)
    return refs


def read_deletes(disk: Disk, replica_path: str, ref: DeletesRef, *, segment_id: int, rows: int) -> Deletes:
    """Read and check a deletes file; CorruptionError when it is not the one ``ref`` names."""
    path = f"{replica_path}/{DELETES}/{ref.name}"
    try:
        data = disk.read(path)
    except FileNotFoundError:
        raise CorruptionError("the file is missing", path=path) from None
    deletes = Deletes.decode(data, path, segment_id=segment_id, rows=rows)
    if len(data) != ref.size or crc32c(data) != ref.crc32c or deletes.count != ref.count:
        raise CorruptionError("another deletes file than the manifest names", path=path, offset=0)
    return deletes


__all__ = ["Deletes", "DeletesRef", "read_deletes", "write_deletes"]
