"""The numbers of a Raft group, with their bounds."""

from __future__ import annotations

from dataclasses import dataclass

from omendb_common.errors import InvalidArgumentError
from omendb_coordinator.consensus.seam import COMMAND_BYTES_MAX

# A message must fit into a frame, whatever one command adds to it.
_MESSAGE_BYTES_MAX = 16 << 20
_BOUNDS = {
    "message_bytes": (1, _MESSAGE_BYTES_MAX),
    "window": (1, 1024),
    "chunk_bytes": (1, _MESSAGE_BYTES_MAX),
    "pending_bytes_max": (COMMAND_BYTES_MAX, 1 << 32),
    "snapshot_entries": (1, 1 << 40),
    "snapshot_bytes": (1, 1 << 40),
    "snapshot_bytes_max": (1, 1 << 32),
    "keep_entries": (0, 1 << 40),
}


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """How fast a group is, and how much it keeps. InvalidArgumentError when the numbers do not fit together.

    ``heartbeat_s``: how often a leader is heard. ``election_min_s`` .. ``election_max_s``: how long members wait for
    it, at least three heartbeats; 0.4 .. 0.8 suits processes that share their machine with nothing. ``message_bytes``
    and ``window``: size of one append, and how many are under way per member. ``pending_bytes_max``: commands that
    wait for a majority. A snapshot is taken after ``snapshot_entries`` or ``snapshot_bytes`` of log, and the last
    ``keep_entries`` before it stay for members that lag.
    """

    heartbeat_s: float = 0.1
    election_min_s: float = 1.0
    election_max_s: float = 2.0
    message_bytes: int = 1 << 20
    window: int = 8
    chunk_bytes: int = 512 << 10
    pending_bytes_max: int = 64 << 20
    snapshot_entries: int = 20_000
    snapshot_bytes: int = 16 << 20
    snapshot_bytes_max: int = 1 << 30
    keep_entries: int = 2_000

    def __post_init__(self) -> None:
        if self.heartbeat_s <= 0 or self.election_min_s < 3 * self.heartbeat_s:
            raise InvalidArgumentError(
                f"{self.election_min_s} s with heartbeats every {self.heartbeat_s} s",
                field="election_min_s",
                bound="at least three heartbeats",
            )
        if self.election_max_s < 1.2 * self.election_min_s:
            raise InvalidArgumentError(
                f"{self.election_max_s} s leaves no room for chance above {self.election_min_s} s",
                field="election_max_s",
                bound="at least 1.2 times election_min_s",
            )
        for name, (low, high) in _BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise InvalidArgumentError(f"{getattr(self, name)}", field=name, bound=f"{low} .. {high}")

    @property
    def resend_s(self) -> float:
        """Silence after which a message is taken for lost: most of the time before a member would stand."""
        return max(3 * self.heartbeat_s, 0.5 * self.election_min_s)

    @property
    def rejoin_s(self) -> float:
        """How long a member without its disk keeps still at least: whatever it said before is dead by then."""
        return 10 * self.election_max_s


__all__ = ["RaftSettings"]
