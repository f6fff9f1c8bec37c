"""Figures over the last minute or day, in fixed memory: a rate, a quantile, a count."""

from __future__ import annotations

from collections import deque

import numpy as np

from omendb_common.clock import Clock


class CountWindow:
    """How much was counted in the last ``slots`` spans of ``slot_s`` seconds; the newest span is not over yet."""

    def __init__(self, clock: Clock, *, slot_s: float, slots: int) -> None:
        self._clock = clock
        self._slot_s = slot_s
        self._counts: deque[float] = deque([0.0], maxlen=slots)
        self._slot = int(clock.mono_s() // slot_s)
        self._started_s = clock.mono_s()

    def add(self, amount: float = 1.0) -> None:
        """Count ``amount`` now."""
        self._turn()
        self._counts[-1] += amount

    @property
    def total(self) -> float:
        """What was counted in the window."""
        self._turn()
        return sum(self._counts)

    @property
    def per_second(self) -> float:
        """The rate over the window, or since the start when that is shorter."""
        total = self.total
        length_s = min(self._clock.mono_s() - self._started_s, self._slot_s * (self._counts.maxlen or 1))
        return total / max(length_s, self._slot_s)

    def _turn(self) -> None:
        slot = int(self._clock.mono_s() // self._slot_s)
        # After a long silence every slot is empty, however long it was.
        for _ in range(min(slot - self._slot, self._counts.maxlen or 1)):
            self._counts.append(0.0)
        self._slot = max(slot, self._slot)


class QuantileWindow:
    """Quantiles of the newest ``samples`` values of the last ``window_s`` seconds."""

    def __init__(self, clock: Clock, *, window_s: float = 60.0, samples: int = 4096) -> None:
        self._clock = clock
        self._window_s = window_s
        self._values = np.zeros(samples, np.float64)
        self._times = np.full(samples, -np.inf)
        self._next = 0

    def add(self, value: float) -> None:
        """A value came now."""
        self._values[self._next] = value
        self._times[self._next] = self._clock.mono_s()
        self._next = (self._next + 1) % len(self._values)

    def quantile(self, share: float) -> float:
        """The value below which ``share`` (0..1) of the window lies; 0.0 of an empty window."""
        recent = self._values[self._times >= self._clock.mono_s() - self._window_s]
        return float(np.quantile(recent, share)) if len(recent) else 0.0


__all__ = ["CountWindow", "QuantileWindow"]
