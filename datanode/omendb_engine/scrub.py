"""Reading a replica's segments again while it serves, for what has rotted on the disk."""

from __future__ import annotations

from omendb_common.errors import CorruptionError
from omendb_engine.parts import SegmentPart
from omendb_engine.query.reads import Reader


def scrub(reader: Reader) -> list[CorruptionError]:
    """Read every byte of the segments as it is on disk now; what of their data is damaged.

    What the page cache holds was right when it was first read: only reading again finds what rotted since.
    """
    found: list[CorruptionError] = []
    for part in reader.snapshot().parts:
        problems = part.segment.verify_data() if isinstance(part, SegmentPart) else []
        # Files of a segment that was merged away meanwhile are gone, which is no damage.
        if problems and part.part_id in {now.part_id for now in reader.snapshot().parts}:
            found += problems
    return found


__all__ = ["scrub"]
