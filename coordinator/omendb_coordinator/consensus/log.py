"""The log as the core sees it: everything after a base, in memory."""

from __future__ import annotations

from collections.abc import Iterable

from omendb_coordinator.consensus.messages import ENTRY_OVERHEAD_BYTES, Entry


class Log:
    """Consecutive entries after ``base_index``, which itself is known by its term only."""

    __slots__ = ("_entries", "base_index", "base_term")

    def __init__(self, base_index: int = 0, base_term: int = 0, entries: Iterable[Entry] = ()) -> None:
        self.base_index = base_index
        self.base_term = base_term
        self._entries: list[Entry] = []
        for entry in entries:
            self.append(entry)

    @property
    def last_index(self) -> int:
        """Index of the last entry; the base's when there is none."""
        return self.base_index + len(self._entries)

    @property
    def last_term(self) -> int:
        """Term of the last entry."""
        return self._entries[-1].term if self._entries else self.base_term

    def term_at(self, index: int) -> int | None:
        """The term of an entry or of the base; None when it is not known here."""
        if index == self.base_index:
            return self.base_term
        return self._entries[index - self.base_index - 1].term if self.base_index < index <= self.last_index else None

    def between(self, after: int, to: int) -> list[Entry]:
        """Entries ``after + 1`` .. ``to``, all of which must be here."""
        if after < self.base_index or to > self.last_index:
            raise IndexError(f"entries {after + 1}..{to} of {self.base_index + 1}..{self.last_index}")
        return self._entries[after - self.base_index : to - self.base_index]

    def batch(self, first: int, bytes_max: int) -> tuple[Entry, ...]:
        """Entries from ``first`` on, at least one if there is one, and not more than fit into so many bytes."""
        size = 0
        at = first - self.base_index - 1
        end = at
        for entry in self._entries[at : at + bytes_max // ENTRY_OVERHEAD_BYTES + 1]:
            size += len(entry.command) + ENTRY_OVERHEAD_BYTES
            if size > bytes_max and end > at:
                break
            end += 1
        return tuple(self._entries[at:end])

    def append(self, entry: Entry) -> None:
        """Add the next entry."""
        if entry.index != self.last_index + 1 or entry.term < self.last_term:
            raise ValueError(f"entry {entry.index} of term {entry.term} after {self.last_index} of {self.last_term}")
        self._entries.append(entry)

    def truncate(self, index: int) -> None:
        """Remove ``index`` and everything after it."""
        del self._entries[index - self.base_index - 1 :]

    def cut(self, index: int) -> None:
        """Forget everything up to ``index``, which becomes the base."""
        term = self.term_at(index)
        if term is None:
            raise IndexError(f"no entry {index} to cut at")
        del self._entries[: index - self.base_index]
        self.base_index, self.base_term = index, term

    def reset(self, index: int, term: int) -> None:
        """Forget everything; the next entry is ``index + 1``."""
        self._entries.clear()
        self.base_index, self.base_term = index, term

    def not_newer_than(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends there has at least what this one has (Raft 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)


__all__ = ["Log"]
