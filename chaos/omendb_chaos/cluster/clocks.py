"""The clock of one machine: off by something, too fast or too slow, and set by somebody now and then."""

from __future__ import annotations

from omendb_chaos.sim.virtual_time import START_MS, VirtualLoop


class MachineClock:
    """A :class:`omendb_common.clock.Clock`. ``skew_ms``: how far off it is; ``drift``: how much faster than time."""

    def __init__(self, loop: VirtualLoop, skew_ms: float = 0.0, drift: float = 0.0) -> None:
        self._loop = loop
        self.skew_ms = skew_ms
        self.drift = drift

    def wall_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC, as this machine has it."""
        return START_MS + int(self._loop.time() * 1e3 * (1.0 + self.drift) + self.skew_ms)

    def mono_s(self) -> float:
        """Seconds of a clock that never goes back."""
        return self._loop.time()

    def jump(self, by_ms: float) -> None:
        """Somebody sets it."""
        self.skew_ms += by_ms


__all__ = ["MachineClock"]
