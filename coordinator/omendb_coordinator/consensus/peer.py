"""What a leader knows of one other member."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from omendb_coordinator.consensus.messages import Snapshot


@dataclass(slots=True)
class Peer:
    """Progress of one follower in the leader's term.

    ``match``: it has everything to there, durably; only grows. ``next``: what to send next. While ``probing``, one
    message is under way at a time, for the leader is not sure where the logs part; else up to a window of them.
    """

    next: int
    heard_at: float
    match: int = 0
    probing: bool = True
    in_flight: deque[int] = field(default_factory=deque)
    probe_at: int = 0
    moved_at: float = 0.0
    round: int = 0
    snapshot: Snapshot | None = None
    offset: int = 0
    # A member that lost its disk: which of its lives, and the entry that proves it has caught up. What it said
    # before ``round_floor`` was said with the disk that is gone.
    incarnation: int = 0
    rejoin_target: int = 0
    round_floor: int = 0

    def full(self, window: int) -> bool:
        """Whether nothing more may be sent before an answer."""
        return len(self.in_flight) >= (1 if self.probing else window)

    def sent(self, prev_index: int, last_index: int, now: float) -> None:
        """Entries ``prev_index + 1`` .. ``last_index`` are under way."""
        if not self.in_flight:
            self.moved_at = now
        if self.probing:
            self.probe_at = prev_index
        self.in_flight.append(last_index)
        self.next = last_index + 1

    def accepted(self, index: int, now: float) -> None:
        """It has everything to ``index``."""
        self.match = max(self.match, index)
        while self.in_flight and self.in_flight[0] <= index:
            self.in_flight.popleft()
            self.moved_at = now
        if self.probing:
            self.probing = False
            self.in_flight.clear()
            self.next = self.match + 1
        # A success never lowers ``next``.
        self.next = max(self.next, self.match + 1)

    def refused(self, prev_index: int, hint: int) -> bool:
        """It has not what comes before ``prev_index + 1``; returns whether that was news."""
        if prev_index <= self.match or (self.probing and (not self.in_flight or prev_index != self.probe_at)):
            return False
        self.probe_from(min(prev_index, hint))
        return True

    def retry(self) -> None:
        """Take what is under way for lost, and send it again, one message at a time."""
        self.probe_from(self.probe_at + 1 if self.probing else self.match + 1)

    def probe_from(self, index: int) -> None:
        """Find out, from ``index`` on, one message at a time."""
        self.next = max(self.match + 1, index)
        self.probing = True
        self.in_flight.clear()

    def lost(self, now: float, resend_s: float) -> bool:
        """Whether what is under way has been so for too long."""
        return bool(self.in_flight or self.snapshot) and now - self.moved_at >= resend_s


__all__ = ["Peer"]
