"""A snapshot that arrives in pieces."""

from __future__ import annotations

from omendb_coordinator.consensus.messages import Chunk, Snapshot


class Incoming:
    """Pieces of one snapshot from one leader in one term; anything else starts it over."""

    __slots__ = ("_buffer", "_key")

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._buffer = bytearray()

    @property
    def length(self) -> int:
        """How many bytes there are."""
        return len(self._buffer)

    def add(self, leader: str, chunk: Chunk) -> None:
        """Take a piece if it is the next one."""
        key = (leader, chunk.term, chunk.snapshot_index, chunk.snapshot_term, chunk.size, chunk.checksum)
        if key != self._key:
            self._key = key
            self._buffer = bytearray()
        if chunk.offset == len(self._buffer) and chunk.offset + len(chunk.data) <= chunk.size:
            self._buffer += chunk.data

    def finished(self, chunk: Chunk) -> Snapshot | None:
        """The snapshot that ``chunk`` belongs to, if it is whole; damaged in transit: forgotten, to be sent again."""
        if len(self._buffer) != chunk.size:
            return None
        data = bytes(self._buffer)
        self.clear()
        snapshot = Snapshot.of(chunk.snapshot_index, chunk.snapshot_term, data)
        return snapshot if snapshot.checksum == chunk.checksum else None

    def clear(self) -> None:
        """Forget the pieces."""
        self._key = ()
        self._buffer = bytearray()


__all__ = ["Incoming"]
