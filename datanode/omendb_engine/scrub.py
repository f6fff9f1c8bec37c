"""Reading a replica's segments again while it serves, for what has rotted on the disk."""

from __future__ import annotations

from collections.abc import Iterator

from omendb_common.errors import CorruptionError
from omendb_engine.parts import SegmentPart
from omendb_engine.query.reads import Reader
from omendb_engine.segment.reader import Segment


class Scrub:
    """One reading of every byte of a replica's segments, a piece at a time. For one thread at a time.

    What was right when it was first read need not be so any more: only reading again finds what rotted since.
    ``found``: what of the data is damaged, so far.
    """

    def __init__(self, reader: Reader) -> None:
        self.found: list[CorruptionError] = []
        self._reader = reader
        self._pieces = self._read()

    def step(self) -> int | None:
        """Read the next piece; its bytes, None when all has been read.

        Raises:
            DatabaseClosedError: the replica was closed meanwhile; what of its files is missing then is no damage.
        """
        return next(self._pieces, None)

    def _read(self) -> Iterator[int]:
        # By name: segments that are merged away while others are read shall not be kept on the disk by this.
        for part_id in [part.part_id for part in self._reader.snapshot().parts]:
            segment = self._segment(part_id)
            if segment is not None:
                yield from self._read_one(part_id, segment)

    def _read_one(self, part_id: int, segment: Segment) -> Iterator[int]:
        problems: list[CorruptionError] = []
        for size in segment.reread_data(problems):
            if not self._note(part_id, problems):
                return
            yield size
        self._note(part_id, problems)

    def _note(self, part_id: int, problems: list[CorruptionError]) -> bool:
        """Take what is damaged, unless the segment was merged away meanwhile: files that went with it are no damage."""
        there = self._segment(part_id) is not None
        if there:
            self.found += problems
            problems.clear()
        return there

    def _segment(self, part_id: int) -> Segment | None:
        """A segment of the replica as it is now."""
        for part in self._reader.snapshot().parts:
            if part.part_id == part_id and isinstance(part, SegmentPart):
                return part.segment
        return None


__all__ = ["Scrub"]
