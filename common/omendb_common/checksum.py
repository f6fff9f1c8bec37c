"""CRC32C over buffers, and the 64 KiB block sums that guard every immutable file.

The hardware instruction runs at many GB/s and releases the interpreter lock for large buffers, so a
checksum costs less than copying the bytes it covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from crc32c import crc32c as _crc32c

from omendb_common.errors import CorruptionError

# Anything that exposes C-contiguous bytes; collections.abc.Buffer exists from Python 3.12 only.
Buffer: TypeAlias = bytes | bytearray | memoryview | npt.NDArray[Any]

BLOCK_BYTES = 65_536


def byte_length(part: Buffer) -> int:
    """Length of a buffer in bytes, whatever its element type."""
    # The cast is for the type checker only: before Python 3.12 NumPy's stubs hide that an array is a buffer.
    return len(part) if isinstance(part, bytes) else memoryview(cast(bytes, part)).nbytes


def byte_view(part: Buffer) -> memoryview:
    """A flat view of a C-contiguous buffer's bytes, without copying."""
    view = memoryview(cast(bytes, part))
    # A view with a zero in its shape cannot be cast.
    return view.cast("B") if view.nbytes else memoryview(b"")


def crc32c(data: Buffer | Sequence[Buffer], value: int = 0) -> int:
    """CRC32C (Castagnoli) of one buffer, or of several as if they were joined.

    Args:
        data: a C-contiguous buffer, or a list or tuple of them; ValueError when not contiguous.
        value: the checksum of what came before, or a seed; 0..2**32-1.

    Returns:
        The checksum, 0..2**32-1. ``crc32c([a, b]) == crc32c(b, crc32c(a))``.
    """
    if isinstance(data, (list, tuple)):
        for part in data:
            value = _crc32c(part, value)
        return value
    return cast(int, _crc32c(data, value))


def block_sums(buffer: Buffer, block: int = BLOCK_BYTES) -> npt.NDArray[np.uint32]:
    """CRC32C of every ``block`` bytes (the last block may be shorter); empty for an empty buffer."""
    view = byte_view(buffer)
    starts = range(0, view.nbytes, block)
    return np.fromiter((_crc32c(view[at : at + block]) for at in starts), dtype=np.uint32, count=len(starts))


def verify_blocks(
    buffer: Buffer, sums: npt.NDArray[np.uint32], path: str, block: int = BLOCK_BYTES, *, start: int = 0
) -> None:
    """Check a whole file, or blocks of it that begin at ``start``, against its block sums, or those of these blocks.

    Raises:
        CorruptionError: with ``path`` and the offset of the first block that differs, or of the
            first missing or surplus block when the file is shorter or longer than its sums.
    """
    actual = block_sums(buffer, block)
    common = min(actual.size, sums.size)
    wrong = np.flatnonzero(actual[:common] != sums[:common])
    if wrong.size:
        offset = start + int(wrong[0]) * block
        raise CorruptionError("block checksum does not match", path=path, offset=offset)
    if actual.size != sums.size:
        raise CorruptionError(
            f"the file has {actual.size} blocks", path=path, offset=start + common * block, bound=f"{sums.size} blocks"
        )


__all__ = ["BLOCK_BYTES", "Buffer", "block_sums", "byte_length", "byte_view", "crc32c", "verify_blocks"]
