"""The seam between the catalog and whatever makes a group agree on it.

One command type (bytes), applied in one order on every member. The catalog is a :class:`StateMachine`; a
:class:`Consensus` drives it. Raft and a group of one that only keeps a log both stand behind it, under one suite of
tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from omendb_common.errors import UnavailableError

COMMAND_BYTES_MAX = 256 * 1024


class NotLeaderError(UnavailableError):
    """This member does not lead; ``leader`` is who does, as far as it knows. Nothing was proposed."""

    def __init__(self, leader: str | None) -> None:
        super().__init__(
            f"not the leader{'' if leader is None else f'; {leader} is'}", field="coordinator", outcome="none"
        )
        self.leader = leader


@dataclass(frozen=True, slots=True)
class Committed:
    """A command that was applied: its place in the log, and what the state machine said."""

    index: int
    result: bytes


@dataclass(frozen=True, slots=True)
class ConsensusStatus:
    """Where one member stands, for metrics and people."""

    node_id: str
    role: Literal["leader", "follower", "candidate", "rejoining"]
    term: int
    leader: str | None
    commit_index: int
    applied_index: int
    last_index: int
    members: tuple[str, ...]


class StateMachine(Protocol):
    """What the log is about. Deterministic: the same commands give the same state and results everywhere.

    Called from one thread or task at a time. An exception other than what ``apply`` returns as a value ends the
    process: members that disagree must not go on.
    """

    def apply(self, index: int, command: bytes) -> bytes:
        """Apply one committed command; errors of business are results, never exceptions."""

    def snapshot(self) -> bytes:
        """The whole state."""

    def restore(self, data: bytes, index: int) -> None:
        """Replace the state by a snapshot taken after ``index``."""


class Consensus(Protocol):
    """One member of a group. All methods are called on the event loop that started it."""

    async def start(self) -> None:
        """Recover what is on disk and join the group."""

    async def stop(self) -> None:
        """Leave in good order; proposals still under way fail with outcome unknown."""

    async def propose(self, command: bytes, timeout_s: float) -> Committed:
        """Agree on ``command`` and apply it here.

        Raises:
            NotLeaderError: nothing happened.
            UnavailableError: with ``outcome`` "unknown": it may still be applied; propose it again under the same
                request id, which the state machine remembers.
            InvalidArgumentError: longer than ``COMMAND_BYTES_MAX``.
        """

    async def read_index(self, timeout_s: float) -> int:
        """An index such that a local read after it was applied here is linearizable; waits until it is applied.

        Raises as :meth:`propose`.
        """

    @property
    def status(self) -> ConsensusStatus:
        """Where this member stands."""

    def on_change(self, callback: Callable[[ConsensusStatus], None]) -> None:
        """Call back when the role, the term or the leader changes."""


__all__ = [
    "COMMAND_BYTES_MAX",
    "Committed",
    "Consensus",
    "ConsensusStatus",
    "NotLeaderError",
    "StateMachine",
]
