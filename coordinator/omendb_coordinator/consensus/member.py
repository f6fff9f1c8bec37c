"""One member of a group without its threads and sockets: the core, its folder, and the state machine, in step.

Events come in at any time; what they want done takes its turn in one queue. Whoever drives a member takes a
:class:`Job` from it, runs that where it may block, and hands it back. The simulator drives members just so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from omendb_common.errors import OmenDBError, UnavailableError
from omendb_coordinator.consensus.core import RaftCore
from omendb_coordinator.consensus.effects import Effects
from omendb_coordinator.consensus.messages import COMMAND, Entry, Message, Snapshot
from omendb_coordinator.consensus.seam import Committed, ConsensusStatus, NotLeaderError, StateMachine
from omendb_coordinator.consensus.settings import RaftSettings
from omendb_coordinator.consensus.state import RaftFatalError
from omendb_coordinator.consensus.storage import Storage


@dataclass(slots=True)
class Proposal:
    """A command, and whom to tell what became of it; ``done`` must not raise."""

    command: bytes
    done: Callable[[Committed | OmenDBError], None]
    term: int = 0


@dataclass(slots=True)
class Read:
    """A wish for an index to read at, and whom to tell; ``done`` must not raise."""

    done: Callable[[int | OmenDBError], None]


@dataclass(slots=True)
class _Checkpoint:
    """A snapshot of the state machine, and where the log may begin then."""

    snapshot: Snapshot
    base_index: int
    base_term: int


_Turn: TypeAlias = Effects | _Checkpoint


@dataclass(slots=True)
class Job:
    """Turns that go to disk together. ``run`` touches nothing but the folder."""

    turns: list[_Turn]
    storage: Storage
    needs_disk: bool = field(init=False)

    def __post_init__(self) -> None:
        self.needs_disk = any(isinstance(turn, _Checkpoint) or turn.save for turn in self.turns)

    def run(self) -> None:
        """Make it all durable. Any exception is final: the member must not go on."""
        saves = []
        for turn in self.turns:
            if isinstance(turn, Effects):
                saves.append(turn.save)
            else:
                self.storage.save(saves)
                saves = []
                self.storage.compact(turn.snapshot, turn.base_index, turn.base_term)
        self.storage.save(saves)


class Member:
    """See the module. Whoever drives it calls from one thread, and ends the process when anything raises.

    Args:
        send: hands a message to the network; must neither block nor raise, and may lose it.
    """

    def __init__(
        self,
        core: RaftCore,
        storage: Storage,
        machine: StateMachine,
        settings: RaftSettings,
        send: Callable[[str, Message], None],
    ) -> None:
        self.core = core
        self.applied_index = 0
        self._storage = storage
        self._machine = machine
        self._settings = settings
        self._send = send
        self._queue: deque[_Turn] = deque()
        self._proposals: dict[int, Proposal] = {}
        self._reads: dict[int, Read] = {}
        self._reads_at: list[tuple[int, Read]] = []
        self._next_token = 0
        self._leading_term = 0
        self._checkpoint_pending = False
        self._bytes_after_cut = 0
        if core.snapshot is not None:
            machine.restore(core.snapshot.data, core.snapshot.index)
            self.applied_index = core.snapshot.index

    @property
    def status(self) -> ConsensusStatus:
        """Where this member stands."""
        core = self.core
        return ConsensusStatus(
            node_id=core.node_id,
            role=core.role,
            term=core.term,
            leader=core.leader,
            commit_index=core.commit_index,
            applied_index=self.applied_index,
            last_index=core.log.last_index,
            members=core.members,
        )

    # -- events

    def on_message(self, sender: str, message: Message, now: float) -> None:
        """A message arrived."""
        self._take(self.core.on_message(sender, message, now))

    def on_tick(self, now: float) -> None:
        """Time passed; hand in what has arrived first."""
        self._take(self.core.on_tick(now))

    def propose(self, proposals: Sequence[Proposal], now: float) -> None:
        """Propose commands; each is told what became of it, now or later."""
        try:
            indexes, effects = self.core.propose([proposal.command for proposal in proposals], now)
        except OmenDBError as error:
            for proposal in proposals:
                proposal.done(error)
            return
        for index, proposal in zip(indexes, proposals, strict=True):
            proposal.term = self.core.term
            self._proposals[index] = proposal
        self._take(effects)

    def read(self, reads: Sequence[Read], now: float) -> None:
        """Ask for an index to read at; each is told once it is applied here."""
        tokens = list(range(self._next_token, self._next_token + len(reads)))
        self._next_token += len(reads)
        try:
            effects = self.core.read(tokens, now)
        except NotLeaderError as error:
            for read in reads:
                read.done(error)
            return
        self._reads.update(zip(tokens, reads, strict=True))
        self._take(effects)

    def hand_over(self, now: float) -> None:
        """Let another member lead, if this one does."""
        self._take(self.core.hand_over(now))

    def abandon(self, why: str) -> None:
        """Tell everybody who waits that nobody knows, for this member is about to end."""
        self._fail_proposals(why)
        waiting = [*self._reads.values(), *(read for _, read in self._reads_at)]
        self._reads.clear()
        self._reads_at.clear()
        for read in waiting:
            read.done(UnavailableError(why, field="coordinator"))

    # -- turns

    def begin(self) -> Job | None:
        """Take everything that waits its turn; None when nothing does. One job at a time."""
        if not self._queue:
            return None
        job = Job(list(self._queue), self._storage)
        self._queue.clear()
        return job

    def end(self, job: Job, now: float) -> None:
        """A job was run: send and apply what waited for it."""
        for turn in job.turns:
            if isinstance(turn, _Checkpoint):
                self._checkpoint_pending = False
                self._bytes_after_cut = self._storage.log_bytes
                self.core.on_compacted(turn.snapshot, turn.base_index)
                continue
            if turn.save:
                self._take(self.core.on_saved(turn.save, now))
            for to, message in turn.send:
                self._send(to, message)
            if turn.save.snapshot is not None:
                self._restore(turn.save.snapshot)
            for entry in turn.apply:
                self._apply(entry)
        self._finish_reads()
        self._maybe_checkpoint()

    def _take(self, effects: Effects) -> None:
        for to, message in effects.send_early:
            self._send(to, message)
        if effects.waits:
            self._queue.append(effects)
        leading_term = self.core.term if self.core.role == "leader" else 0
        if leading_term != self._leading_term:
            self._leading_term = leading_term
            self._fail_proposals("the leader changed while the command was under way")
            self._fail_reads()
        for token, index in effects.reads:
            self._reads_at.append((index, self._reads.pop(token)))
        if effects.reads:
            self._finish_reads()

    def _fail_proposals(self, why: str) -> None:
        proposals, self._proposals = self._proposals, {}
        for proposal in proposals.values():
            proposal.done(UnavailableError(why, field="coordinator", outcome="unknown"))

    def _fail_reads(self) -> None:
        reads, self._reads = self._reads, {}
        for read in reads.values():
            read.done(NotLeaderError(self.core.leader))

    def _finish_reads(self) -> None:
        ready = [(index, read) for index, read in self._reads_at if index <= self.applied_index]
        if ready:
            self._reads_at = [(index, read) for index, read in self._reads_at if index > self.applied_index]
            for index, read in ready:
                read.done(index)

    # -- the state machine

    def _restore(self, snapshot: Snapshot) -> None:
        self._machine.restore(snapshot.data, snapshot.index)
        self.applied_index = snapshot.index

    def _apply(self, entry: Entry) -> None:
        if entry.index != self.applied_index + 1:
            raise RaftFatalError(f"entry {entry.index} to apply after {self.applied_index}")
        result = self._machine.apply(entry.index, entry.command) if entry.kind == COMMAND else b""
        # Before anybody is told: nothing they do may lead to a second application.
        self.applied_index = entry.index
        proposal = self._proposals.pop(entry.index, None)
        if proposal is None:
            return
        ours = proposal.term == entry.term
        proposal.done(Committed(entry.index, result) if ours else NotLeaderError(self.core.leader))

    def _maybe_checkpoint(self) -> None:
        """Take a snapshot if the log has grown by enough since the last one."""
        core, settings = self.core, self._settings
        last = core.snapshot.index if core.snapshot is not None else 0
        grown = self._storage.log_bytes - self._bytes_after_cut
        due = self.applied_index - last >= settings.snapshot_entries or grown >= settings.snapshot_bytes
        term = core.log.term_at(self.applied_index)
        if self._checkpoint_pending or not due or term is None or self.applied_index <= last:
            return
        base = max(core.log.base_index, self.applied_index - settings.keep_entries)
        base_term = core.log.term_at(base)
        assert base_term is not None
        snapshot = Snapshot.of(self.applied_index, term, self._machine.snapshot())
        self._queue.append(_Checkpoint(snapshot, base, base_term))
        self._checkpoint_pending = True


__all__ = ["Job", "Member", "Proposal", "Read"]
