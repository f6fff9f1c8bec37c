"""For how long clients' calls have been at work here: what upkeep does at the same time, they pay for."""

from __future__ import annotations

from types import TracebackType

from omendb_common.clock import Clock


class ClientTime:
    """Seconds in which at least one call was at work. Belongs to one event loop; every call enters it as a block."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls = 0
        self._since_s = 0.0
        self._ended_s = 0.0

    def __enter__(self) -> None:
        if not self._calls:
            self._since_s = self._clock.mono_s()
        self._calls += 1

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls -= 1
        if not self._calls:
            self._ended_s += self._clock.mono_s() - self._since_s

    def total_s(self) -> float:
        """Since the start; calls that are at work count up to now."""
        return self._ended_s + (self._clock.mono_s() - self._since_s if self._calls else 0.0)


__all__ = ["ClientTime"]
