"""File contents as shared pages, so that a copy of a simulated disk costs references and not bytes."""

from __future__ import annotations

PAGE_BYTES = 4096
_ZERO = bytes(PAGE_BYTES)


class Content:
    """Immutable bytes of a file: whole pages, zero beyond ``size``."""

    __slots__ = ("_hash", "pages", "size")

    def __init__(self, size: int, pages: tuple[bytes, ...]) -> None:
        self.size = size
        self.pages = pages
        self._hash: int | None = None

    def __hash__(self) -> int:
        # Bytes objects remember their hash, so shared pages are hashed once in their life.
        if self._hash is None:
            self._hash = hash((self.size, self.pages))
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Content) and self.size == other.size and self.pages == other.pages

    def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``."""
        end = min(offset + length, self.size)
        if end <= offset:
            return b""
        first = offset // PAGE_BYTES
        joined = b"".join(self.pages[first : -(-end // PAGE_BYTES)])
        start = offset - first * PAGE_BYTES
        return joined[start : start + end - offset]

    def write(self, offset: int, data: bytes) -> Content:
        """These bytes with ``data`` at ``offset``; a gap before it is zeros."""
        if not data:
            return self
        end = offset + len(data)
        first, last = offset // PAGE_BYTES, -(-end // PAGE_BYTES)
        pages = self.pages + (_ZERO,) * (last - len(self.pages))
        region = bytearray(b"".join(pages[first:last]))
        start = offset - first * PAGE_BYTES
        region[start : start + len(data)] = data
        fresh = tuple(bytes(region[at : at + PAGE_BYTES]) for at in range(0, len(region), PAGE_BYTES))
        return Content(max(self.size, end), pages[:first] + fresh + pages[last:])

    def resize(self, length: int) -> Content:
        """These bytes cut, or extended with zeros, to ``length``."""
        count = -(-length // PAGE_BYTES)
        pages = self.pages[:count] + (_ZERO,) * (count - len(self.pages))
        tail = length % PAGE_BYTES
        if length < self.size and tail:
            pages = (*pages[:-1], pages[-1][:tail] + bytes(PAGE_BYTES - tail))
        return Content(length, pages)


EMPTY = Content(0, ())

__all__ = ["EMPTY", "PAGE_BYTES", "Content"]
