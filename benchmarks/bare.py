"""What the disk alone allows: the same bytes, appended and synced, with nothing around them.

Two loops. `append` lets the file grow with every write, as the simplest log does: each sync then has to
write the file's new size as well. `preallocated` overwrites blocks that were filled with zeros before the
clock starts, as a database with a prepared log does: the fastest way that a batch can become durable.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adapters.adapter import Batch

KINDS = ("append", "preallocated")
_ZEROS = bytes(1 << 20)


def batch_parts(batch: Batch) -> list[memoryview]:
    """Give the buffers that make up a batch: ids, vectors, buckets, label lengths and label bytes."""
    encoded = [label.encode() for label in batch.labels]
    lengths = np.fromiter((len(text) for text in encoded), dtype=np.int32, count=len(encoded))
    arrays: tuple[np.ndarray[Any, Any], ...] = (batch.ids, batch.vectors, batch.buckets, lengths)
    views = [array.data.cast("B") for array in arrays]
    return [*views, memoryview(b"".join(encoded))]


def batch_bytes(batch: Batch) -> int:
    """Count the bytes of `batch_parts`."""
    return sum(len(part) for part in batch_parts(batch))


class BareLog:
    """A file that takes batches: one gather write and one fdatasync each."""

    def __init__(self, path: Path, kind: str, capacity: int) -> None:
        """Create the file; `capacity` bytes are zero-filled and synced beforehand when preallocated."""
        self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        self._offset = 0
        if kind == "preallocated":
            for start in range(0, capacity, len(_ZEROS)):
                os.pwrite(self._file, _ZEROS, start)
        os.fsync(self._file)

    def append(self, parts: Sequence[memoryview]) -> None:
        """Write the parts behind each other and sync."""
        expected = sum(len(part) for part in parts)
        written = os.pwritev(self._file, parts, self._offset)
        if written != expected:
            raise OSError(f"short write: {written} of {expected} bytes")
        os.fdatasync(self._file)
        self._offset += written

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def run_bare(path: Path, kind: str, batches: Iterable[Batch], capacity: int) -> list[float]:
    """Write every batch to a new file at `path`, which is removed after; gives each batch's seconds."""
    log = BareLog(path, kind, capacity)
    times = []
    try:
        for batch in batches:
            parts = batch_parts(batch)
            start = time.perf_counter()
            log.append(parts)
            times.append(time.perf_counter() - start)
    finally:
        log.close()
        path.unlink()
    return times
