"""What the replicas of one folder share: the memory budget, the caches of filters and columns."""

from __future__ import annotations

from omendb_common.config import EngineSettings
from omendb_engine.budget import MemoryBudget
from omendb_engine.payload.cache import ColumnCache
from omendb_engine.query.filter_cache import FilterCache


class Resources:
    """Shared by every replica of one open folder."""

    def __init__(self, settings: EngineSettings) -> None:
        memory = settings.memory
        self.budget = MemoryBudget(memory.memory_limit_bytes, headroom_percent=memory.headroom_percent)
        self.columns = ColumnCache(memory.column_cache_bytes)
        self.filters = FilterCache(memory.filter_cache_bytes)


__all__ = ["Resources"]
