"""Memory is reserved before it is allocated, against one limit with 30 % headroom.

Two marks: past the *soft* mark (70 % of the limit by default) the engine seals what it can; a reservation
that would pass the *hard* limit is refused with :class:`ResourceExhaustedError`, so that the process is
never killed for want of memory. Memory-mapped files are not counted: the kernel takes those pages back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from omendb_common.errors import ResourceExhaustedError

RETRY_AFTER_S = 0.05


class MemoryBudget:
    """Counts reserved bytes by purpose. Thread-safe.

    Args:
        limit_bytes: the hard limit.
        headroom_percent: share of the limit kept free before seals are forced.
        on_pressure: called, outside the lock, when a reservation leaves usage above the soft mark.
    """

    def __init__(
        self, limit_bytes: int, *, headroom_percent: int = 30, on_pressure: Callable[[], None] | None = None
    ) -> None:
        self.limit_bytes = limit_bytes
        self.soft_bytes = limit_bytes * (100 - headroom_percent) // 100
        self.on_pressure = on_pressure
        self._lock = threading.Lock()
        self._used: dict[str, int] = {}
        self._total = 0
        self._refusals = 0

    def reserve(self, purpose: str, size: int) -> None:
        """Take ``size`` bytes for ``purpose``.

        Raises:
            ResourceExhaustedError: the hard limit would be passed; nothing was taken.
        """
        with self._lock:
            if self._total + size > self.limit_bytes:
                self._refusals += 1
                raise ResourceExhaustedError(
                    f"{purpose} needs {size} bytes, {self._total} of {self.limit_bytes} are in use",
                    field="memory_limit_bytes",
                    bound=f"at most {self.limit_bytes} bytes",
                    mend="wait for background work and send it again, use smaller batches, or raise the limit",
                    retry_after=RETRY_AFTER_S,
                )
            self._used[purpose] = self._used.get(purpose, 0) + size
            self._total += size
            pressed = self._total > self.soft_bytes
        if pressed and self.on_pressure is not None:
            self.on_pressure()

    def release(self, purpose: str, size: int) -> None:
        """Give back what was reserved."""
        with self._lock:
            held = self._used.get(purpose, 0)
            assert size <= held, f"{purpose}: releasing {size} of {held}"
            self._used[purpose] = held - size
            self._total -= size

    @property
    def used_bytes(self) -> int:
        """Bytes reserved now."""
        return self._total

    @property
    def pressed(self) -> bool:
        """Whether usage is above the soft mark."""
        return self._total > self.soft_bytes

    @property
    def refusals(self) -> int:
        """How many reservations were refused so far."""
        return self._refusals

    def account(self) -> dict[str, int]:
        """Bytes by purpose."""
        with self._lock:
            return {purpose: size for purpose, size in sorted(self._used.items()) if size}


__all__ = ["RETRY_AFTER_S", "MemoryBudget"]
