"""The digests of a growing buffer's rows, as far as they were asked for: a row never changes, so neither does its own.

Hash trees ask for them while the buffer grows, its seal for the rest: no row is hashed twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from omendb_common.ids import U64Array


class RowDigests:
    """Belongs to one buffer. Thread-safe; what is missing is made by one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: U64Array = np.empty(0, np.uint64)

    def upto(self, n: int, make: Callable[[npt.NDArray[np.int64]], U64Array]) -> U64Array:
        """Those of the first ``n`` rows; ``make`` gives those of some rows."""
        with self._lock:
            known = len(self._known)
            if known < n:
                self._known = np.concatenate([self._known, make(np.arange(known, n))])
            return self._known[:n]

    def forget(self) -> None:
        """Have all of them made anew."""
        with self._lock:
            self._known = np.empty(0, np.uint64)


__all__ = ["RowDigests"]
