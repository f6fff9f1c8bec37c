"""What the parts of the core share: the log, the term, the time, and the effects of the event at hand."""

from __future__ import annotations

from omendb_coordinator.consensus.effects import Effects, Save
from omendb_coordinator.consensus.log import Log
from omendb_coordinator.consensus.messages import Entry, Message, Snapshot
from omendb_coordinator.consensus.settings import RaftSettings


class RaftFatalError(RuntimeError):
    """A state that must never be served: the process ends, and says why."""


class State:
    """One member's state, without its role.

    ``durable_index``: its own log is on stable storage to there. ``saved_term``: the newest term whose vote is.
    ``incarnation``: not 0 while it rejoins without its disk.
    """

    def __init__(self, node_id: str, members: tuple[str, ...], settings: RaftSettings, log: Log, now: float) -> None:
        self.node_id = node_id
        self.others = tuple(member for member in members if member != node_id)
        self.majority = len(members) // 2 + 1
        self.settings = settings
        self.log = log
        self.now = now
        self.effects = Effects()
        self.term = 0
        self.voted_for: str | None = None
        self.saved_term = 0
        self.commit_index = log.base_index
        self.durable_index = log.last_index
        self.snapshot: Snapshot | None = None
        self.incarnation = 0

    def send(self, to: str, message: Message) -> None:
        """Send once everything that was asked to be saved so far is on stable storage."""
        self.effects.send.append((to, message))

    def send_early(self, to: str, message: Message) -> None:
        """Send at once what depends on no more than this term's being on stable storage."""
        early = self.saved_term == self.term
        (self.effects.send_early if early else self.effects.send).append((to, message))

    def set_term(self, term: int, vote: str | None) -> None:
        """Change term or vote, to be saved."""
        if term < self.term or (term == self.term and self.voted_for not in (None, vote)):
            raise RaftFatalError(f"vote for {vote} in term {term} after one for {self.voted_for} in term {self.term}")
        self.term, self.voted_for = term, vote
        self.effects.save.vote = (term, vote)

    def append(self, entry: Entry) -> None:
        """Add an entry, to be saved."""
        self.log.append(entry)
        self.effects.save.entries.append(entry)

    def truncate(self, index: int) -> None:
        """Remove ``index`` and what follows; only ever before anything is appended in the same event."""
        self.log.truncate(index)
        self.durable_index = min(self.durable_index, index - 1)
        self.effects.save.truncate_from = index

    def commit_to(self, index: int) -> None:
        """Commit, and ask for what is new to be applied."""
        if index > self.commit_index:
            self.effects.apply += self.log.between(self.commit_index, index)
            self.commit_index = index

    def saved(self, save: Save) -> None:
        """Take note of what is on stable storage."""
        if save.vote is not None:
            self.saved_term = max(self.saved_term, save.vote[0])
        if save.snapshot is not None:
            self.durable_index = max(self.durable_index, save.snapshot.index)
        # An entry that was replaced since then says nothing; one that is still there speaks for all before it.
        if save.entries and self.log.term_at(save.entries[-1].index) == save.entries[-1].term:
            self.durable_index = max(self.durable_index, save.entries[-1].index)


__all__ = ["RaftFatalError", "State"]
