"""What a router knows of a data node: whether to call it, and how long its answers take. No clock of its own."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

_SAMPLES = 128
_SAMPLES_MIN = 20
_REFRESH = 16
_HALF_LIFE_S = 10.0


@dataclass(slots=True)
class Circuit:
    """Open (the node is left alone) after failures in a row, then half open: one call at a time tries it.

    ``failures_max``: failures in a row that open it. ``open_s`` doubles with every failed trial up to ``open_max_s``.
    """

    failures_max: int
    open_s: float
    open_max_s: float
    failures: int = 0
    open_until_s: float = 0.0
    _backoff_s: float = 0.0
    _trying: bool = False

    def allows(self, now_s: float) -> bool:
        """Whether a call may go to the node now."""
        return self.failures < self.failures_max or (now_s >= self.open_until_s and not self._trying)

    def started(self) -> None:
        """A call goes out."""
        if self.failures >= self.failures_max:
            self._trying = True

    def succeeded(self) -> None:
        """The node answered."""
        self.failures, self._backoff_s, self._trying = 0, 0.0, False

    def failed(self, now_s: float, jitter: float = 0.0) -> None:
        """The node did not answer; ``jitter`` in 0..1 lengthens the pause by up to as much again."""
        trial = self._trying
        self._trying = False
        self.failures += 1
        if self.failures < self.failures_max or (now_s < self.open_until_s and not trial):
            return
        self._backoff_s = min(self._backoff_s * 2 or self.open_s, self.open_max_s)
        self.open_until_s = now_s + self._backoff_s * (1 + jitter)

    def left(self) -> None:
        """A call was given up by its caller: it says nothing about the node."""
        self._trying = False

    def trip(self, now_s: float) -> None:
        """Somebody else found the node down: leave it alone, then try it."""
        if self.failures < self.failures_max:
            self.failures = self.failures_max
            self._backoff_s = self.open_s
            self.open_until_s = now_s + self.open_s


@dataclass(slots=True)
class Latencies:
    """The 95th percentile of the newest answers of one kind of call."""

    _samples: deque[float] = field(default_factory=lambda: deque(maxlen=_SAMPLES))
    _count: int = 0
    _p95_s: float | None = None

    def add(self, seconds: float) -> None:
        """Note how long an answer took."""
        self._samples.append(seconds)
        self._count += 1
        if self._count >= _SAMPLES_MIN and self._count % _REFRESH == 0:
            ordered = sorted(self._samples)
            self._p95_s = ordered[len(ordered) * 95 // 100]

    def p95_s(self, otherwise_s: float) -> float:
        """The percentile in seconds, or ``otherwise_s`` while too few answers are known."""
        return otherwise_s if self._p95_s is None else self._p95_s


@dataclass(slots=True)
class RetryBudget:
    """Retries earned by requests: ``share`` of one each, at most ``burst`` saved up."""

    share: float
    burst: float = 10.0
    _tokens: float = -1.0

    def __post_init__(self) -> None:
        self._tokens = self.burst if self.share > 0 else 0.0

    def earn(self) -> None:
        """A first request went out."""
        self._tokens = min(self.burst, self._tokens + self.share)

    @property
    def full_enough(self) -> bool:
        """Whether there is a retry to take."""
        return self._tokens >= 1.0

    def take(self) -> bool:
        """Whether a retry or hedge may go out now."""
        if not self.full_enough:
            return False
        self._tokens -= 1.0
        return True


@dataclass(slots=True)
class NodeHealth:
    """One data node. ``in_flight``: calls that have no answer yet, and the bytes that they keep in memory."""

    circuit: Circuit
    in_flight: int = 0
    in_flight_bytes: int = 0
    latencies: dict[str, Latencies] = field(default_factory=dict)
    _mean_s: float = 0.0
    _known_s: float = 0.0

    def answered(self, kind: str, seconds: float, now_s: float) -> None:
        """A call of this kind was answered."""
        self.circuit.succeeded()
        expected_s = self.expected_s(now_s)
        self._mean_s = expected_s + 0.1 * (seconds - expected_s)
        self._known_s = now_s
        self.latencies.setdefault(kind, Latencies()).add(seconds)

    def gave_up(self, seconds: float, now_s: float) -> None:
        """A call was given up after so long without an answer."""
        self.circuit.left()
        if seconds > self.expected_s(now_s):
            self._mean_s = seconds
            self._known_s = now_s

    def expected_s(self, now_s: float) -> float:
        """How long an answer will take, as far as one can tell; old news fade, so that a slow node is tried again."""
        return float(self._mean_s * 0.5 ** ((now_s - self._known_s) / _HALF_LIFE_S))

    def hedge_s(self, kind: str, otherwise_s: float) -> float:
        """How long to wait for this node before another is asked."""
        known = self.latencies.get(kind)
        return otherwise_s if known is None else max(0.001, known.p95_s(otherwise_s))


__all__ = ["Circuit", "Latencies", "NodeHealth", "RetryBudget"]
