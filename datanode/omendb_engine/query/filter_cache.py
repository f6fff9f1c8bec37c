"""Results of filters on immutable segments, bounded in bytes."""

from __future__ import annotations

from collections.abc import Hashable

from omendb_common.filters import Filter, canonical_key
from omendb_engine.payload.cache import ByteCache
from omendb_engine.payload.store import ColumnStore
from omendb_engine.query.filter import evaluate
from omendb_engine.query.rowset import RowSet

DEFAULT_BUDGET_BYTES = 64 << 20


class FilterCache(ByteCache):
    """The rows that a filter matches in a segment, by (segment, canonical key); thread-safe.

    A segment never changes, so a result holds as long as the segment lives; deletions are applied after it.
    """

    def __init__(self, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        super().__init__(budget_bytes)

    def rows(self, segment: Hashable, node: Filter, store: ColumnStore, key: str | None = None) -> RowSet:
        """What ``evaluate(node, store)`` gives, kept for the next query.

        Args:
            segment: the segment's identity; never used again for another segment.
            key: ``canonical_key(node)``, when the caller has it already.
        """
        full_key = (segment, canonical_key(node) if key is None else key)
        return self.get_or_load(full_key, lambda: evaluate(node, store), lambda rows: rows.nbytes)


__all__ = ["DEFAULT_BUDGET_BYTES", "FilterCache"]
