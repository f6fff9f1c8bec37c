"""What the handles of one open database share: its backend, its mode, and whether it is closed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from omendb.backend import Backend
from omendb_common.errors import DatabaseClosedError, ReadOnlyError


class Session:
    """One open database.

    Attributes:
        closed: read by every call; set once, by :meth:`close`.
        local: whether the backend answers from this process's memory.
        lock: held while collections are made, dropped and renamed, and while the database closes.
        after_close: called once, after the backend has let go.
    """

    __slots__ = ("after_close", "backend", "closed", "local", "lock", "read_only")

    def __init__(self, backend: Backend, *, read_only: bool) -> None:
        self.backend = backend
        self.read_only = read_only
        self.local = backend.local
        self.closed = False
        self.lock = threading.RLock()
        self.after_close: Callable[[], Any] | None = None

    def check_open(self) -> None:
        """Raise DatabaseClosedError after ``close()``."""
        if self.closed:
            raise DatabaseClosedError(
                "the database is closed", field=self.backend.location, bound="an open database", mend="open it again"
            )

    def check_writable(self) -> None:
        """Raise DatabaseClosedError or ReadOnlyError when a write cannot be taken."""
        self.check_open()
        if self.read_only:
            raise ReadOnlyError(
                "the database was opened for reading",
                field=self.backend.location,
                bound='mode="rw"',
                mend='open it with mode="rw" to write',
            )

    def close(self) -> None:
        """Close the backend, once."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            try:
                self.backend.close()
            finally:
                if self.after_close is not None:
                    self.after_close()


__all__ = ["Session"]
