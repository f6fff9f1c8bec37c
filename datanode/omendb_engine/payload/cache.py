"""Decoded columns and their indexes, shared by all segments and bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

DEFAULT_BUDGET_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache holds and how often it was of use."""

    hits: int
    misses: int
    entries: int
    used_bytes: int
    budget_bytes: int


class ByteCache:
    """Least-recently-used values under keys ``(owner, ...)``, at most ``budget_bytes`` together. Thread-safe.

    A value above the budget is handed out but not kept. Loading happens outside the lock: two threads that
    miss together both load, and one result is kept.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[Hashable, ...], tuple[Any, int]] = OrderedDict()
        self._used = 0
        self._hits = 0
        self._misses = 0

    def get(self, key: tuple[Hashable, ...]) -> Any | None:
        """The value under ``key``, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                self._misses += 1
                return None
            self._entries.move_to_end(key)
            self._hits += 1
            return entry[0]

    def put(self, key: tuple[Hashable, ...], value: Any, nbytes: int) -> None:
        """Keep ``value``, which takes ``nbytes``, and drop what was used longest ago to make room."""
        if nbytes > self.budget_bytes:
            return
        with self._lock:
            old = self._entries.pop(key, None)
            if old is not None:
                self._used -= old[1]
            self._entries[key] = (value, nbytes)
            self._used += nbytes
            while self._used > self.budget_bytes:
                _, (_, freed) = self._entries.popitem(last=False)
                self._used -= freed

    def get_or_load(self, key: tuple[Hashable, ...], load: Callable[[], T], size: Callable[[T], int]) -> T:
        """The value under ``key``, loaded and kept when it is not there."""
        found: T | None = self.get(key)
        if found is not None:
            return found
        value = load()
        self.put(key, value, size(value))
        return value

    def drop(self, owner: Hashable) -> None:
        """Forget every value whose key begins with ``owner``."""
        with self._lock:
            for key in [k for k in self._entries if k[0] == owner]:
                self._used -= self._entries.pop(key)[1]

    def stats(self) -> CacheStats:
        """Counts since the start, and what is held now."""
        with self._lock:
            return CacheStats(self._hits, self._misses, len(self._entries), self._used, self.budget_bytes)


class ColumnCache(ByteCache):
    """Decoded payload columns and sorted indexes of all segments; the owner in a key is one segment's columns."""

    def __init__(self, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        super().__init__(budget_bytes)


__all__ = ["DEFAULT_BUDGET_BYTES", "ByteCache", "CacheStats", "ColumnCache"]
