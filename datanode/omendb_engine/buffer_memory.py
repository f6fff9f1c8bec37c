"""The arrays of growing buffers, used again instead of being asked of the kernel anew.

Fresh memory is zeroed by the kernel at first touch, page by page; while a stream fills 25 MB buffers several
times a second, that cost more than the copy into them (measured: 1 ms against 0.03 ms per thousand vectors of
128 dimensions). A buffer's arrays come back when the buffer object itself dies, which is when the last snapshot
that shows it is gone: no reader ever sees them change.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress

import numpy as np

from omendb_common.ids import U64Array
from omendb_common.schema import CollectionSchema
from omendb_engine.hash_index import HashIndex
from omendb_engine.prefault import populate
from omendb_engine.vectors import VectorColumns

# One being filled, one being sealed: the next one needed is the one sealed before.
_SPARE_MAX = 2


class BufferMemory:
    """Columns for ``capacity`` rows, and the id index over them."""

    __slots__ = ("asked_rows", "capacity", "hi", "index", "lo", "stamps", "vectors")

    def __init__(self, schema: CollectionSchema, capacity: int) -> None:
        self.capacity = capacity
        self.hi: U64Array = np.empty(capacity, np.uint64)
        self.lo: U64Array = np.empty(capacity, np.uint64)
        self.stamps: U64Array = np.empty(capacity, np.uint64)
        self.vectors = VectorColumns(schema, capacity)
        self.index = HashIndex(self.hi, self.lo, capacity)
        # Rows whose memory the kernel has provided, or was asked for.
        self.asked_rows = 0

    def provide(self, first: int, stop: int) -> None:
        """Have the kernel provide the memory of some rows' vectors; any thread, beside the writer."""
        columns = self.vectors
        for array in (*columns.space.values(), *columns.raw.values()):
            populate(array[first:stop])


class BufferPool:
    """Spare memory of one replica's buffers. :meth:`give` may be called from any thread, also by the collector."""

    def __init__(self, schema: CollectionSchema) -> None:
        self._schema = schema
        # A deque's ends are atomic: a finalizer must not wait for a lock.
        self._spare: deque[BufferMemory] = deque(maxlen=_SPARE_MAX)

    def take(self, capacity: int) -> BufferMemory:
        """Memory for exactly ``capacity`` rows, empty."""
        with suppress(IndexError):  # another thread may clear it at any moment
            while True:
                memory = self._spare.popleft()
                if memory.capacity == capacity:
                    memory.index.clear()
                    return memory
        return BufferMemory(self._schema, capacity)

    def give(self, memory: BufferMemory) -> None:
        """Take back what a dead buffer used."""
        self._spare.append(memory)

    def clear(self) -> None:
        """Let the spare memory go."""
        self._spare.clear()


__all__ = ["BufferMemory", "BufferPool"]
