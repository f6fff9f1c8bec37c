"""Ending the calls of a task that was cancelled, from another thread than the one that waits for them."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any


class CancelScope:
    """The calls under way for one task; :meth:`cancel` ends them, and every later one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: set[Any] = set()
        self.cancelled = False

    def add(self, call: Any) -> None:
        """A call began."""
        with self._lock:
            self._calls.add(call)
            cancelled = self.cancelled
        if cancelled:
            call.cancel()

    def remove(self, call: Any) -> None:
        """It ended."""
        with self._lock:
            self._calls.discard(call)

    def cancel(self) -> None:
        """End them all. What was sent of a write is not undone."""
        with self._lock:
            self.cancelled = True
            calls = list(self._calls)
        for call in calls:
            call.cancel()


CANCEL_SCOPE: ContextVar[CancelScope | None] = ContextVar("CANCEL_SCOPE", default=None)


__all__ = ["CANCEL_SCOPE", "CancelScope"]
