"""What this client has written, per collection, so that its reads can ask to see it."""

from __future__ import annotations

import threading
from typing import TypeVar

from omendb_common.errors import InvalidArgumentError
from omendb_router.sessions import decode_token, encode_token

T = TypeVar("T")


class Sessions:
    """The session tokens of one client, merged write by write. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._written: dict[str, tuple[str, dict[int, int]]] = {}
        self._tokens: dict[str, bytes] = {}

    def note(self, collection: str, token: bytes) -> None:
        """A write was acknowledged with ``token``."""
        if not token:
            return
        try:
            uuid, written = decode_token(token)
        except InvalidArgumentError:  # a newer server's: what cannot be merged is kept as it came
            self._tokens[collection] = token
            return
        with self._lock:
            known_uuid, known = self._written.get(collection, (uuid, {}))
            merged = dict(known) if known_uuid == uuid else {}  # a collection made anew has none of the old writes
            for shard, stamp in written.items():
                merged[shard] = max(stamp, merged.get(shard, 0))
            self._written[collection] = (uuid, merged)
            self._tokens[collection] = encode_token(uuid, merged)

    def token(self, collection: str) -> bytes:
        """What a read must show; empty when nothing was written."""
        return self._tokens.get(collection, b"")

    def forget(self, collection: str) -> None:
        """The collection was dropped."""
        with self._lock:
            self._written.pop(collection, None)
            self._tokens.pop(collection, None)

    def renamed(self, old: str, new: str) -> None:
        """The collection has another name."""
        with self._lock:
            _move(self._written, old, new)
            _move(self._tokens, old, new)


def _move(known: dict[str, T], old: str, new: str) -> None:
    known.pop(new, None)
    if old in known:
        known[new] = known.pop(old)


__all__ = ["Sessions"]
