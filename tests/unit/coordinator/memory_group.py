"""A group of one that only remembers, and can be told to misbehave: the seam's second implementation, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from omendb_common.errors import UnavailableError
from omendb_coordinator.commands import Command
from omendb_coordinator.consensus.seam import Committed, ConsensusStatus, NotLeaderError, StateMachine


class MemoryGroup:
    """A :class:`~omendb_coordinator.consensus.seam.Consensus` without a disk or a network."""

    def __init__(self, machine: StateMachine, node_id: str = "c1", members: tuple[str, ...] = ("c1",)) -> None:
        self.machine = machine
        self.members = members
        self.leader: str | None = node_id
        self.term = 1
        self.lose_answers = 0
        """So many commands are applied, and their proposers told that nobody knows."""
        self.before_apply: Callable[[], object] | None = None
        """Called once, between a proposal and its application."""
        self.after_apply: Callable[[], object] | None = None
        """Called once, between an application and its answer."""
        self.pause_s = 0.0
        self._node_id = node_id
        self._index = 0

    async def start(self) -> None:
        """See ``Consensus``."""

    async def stop(self) -> None:
        """See ``Consensus``."""

    async def propose(self, command: bytes, timeout_s: float) -> Committed:
        """See ``Consensus``."""
        self._check_leads()
        await asyncio.sleep(self.pause_s)
        if self.before_apply is not None:
            interfere, self.before_apply = self.before_apply, None
            interfere()
        result = self._commit(command)
        if self.after_apply is not None:
            interfere, self.after_apply = self.after_apply, None
            interfere()
        if self.lose_answers > 0:
            self.lose_answers -= 1
            raise UnavailableError("no majority answered in time", field="coordinator", outcome="unknown")
        return Committed(self._index, result)

    def decree(self, op: str, **args: Any) -> bytes:
        """Commit a command that somebody else proposed."""
        return self._commit(Command(f"decree {self._index}", "test", op, args, 0).encode())

    def _commit(self, command: bytes) -> bytes:
        self._index += 1
        return self.machine.apply(self._index, command)

    async def read_index(self, timeout_s: float) -> int:
        """See ``Consensus``."""
        self._check_leads()
        return self._index

    @property
    def status(self) -> ConsensusStatus:
        """See ``Consensus``."""
        return ConsensusStatus(
            self._node_id,
            "leader" if self.leader == self._node_id else "follower",
            self.term,
            self.leader,
            self._index,
            self._index,
            self._index,
            self.members,
        )

    def on_change(self, callback: Callable[[ConsensusStatus], None]) -> None:
        """See ``Consensus``; nobody is ever called back."""

    def _check_leads(self) -> None:
        if self.leader != self._node_id:
            raise NotLeaderError(self.leader)
