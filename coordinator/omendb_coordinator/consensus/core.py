"""Raft without time, disk or network: events in, effects out.

Elections with a pre-vote, a leader that steps down without a majority, and followers that protect a leader they hear.
The log's two sides are in ``leading`` and ``following``. Every event returns its :class:`Effects`; what has been made
durable comes back as an event of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from omendb_coordinator.consensus.effects import Effects, Save
from omendb_coordinator.consensus.following import Following
from omendb_coordinator.consensus.leading import Leading
from omendb_coordinator.consensus.log import Log
from omendb_coordinator.consensus.messages import (
    Append,
    AppendReply,
    Chunk,
    ChunkReply,
    FromLeader,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    Snapshot,
    Stand,
    ToLeader,
    Vote,
    VoteReply,
)
from omendb_coordinator.consensus.seam import NotLeaderError
from omendb_coordinator.consensus.settings import RaftSettings
from omendb_coordinator.consensus.state import RaftFatalError, State

Role = Literal["leader", "follower", "candidate", "rejoining"]


class Dice(Protocol):
    """What a member rolls; ``random.Random`` is one."""

    def uniform(self, a: float, b: float) -> float:
        """Any number between the two."""

    def getrandbits(self, k: int, /) -> int:
        """So many random bits."""


@dataclass(slots=True)
class Recovered:
    """What a member found on its disk. ``rejoining``: it lost the disk, and must not vote yet."""

    term: int = 0
    voted_for: str | None = None
    log: Log = field(default_factory=Log)
    snapshot: Snapshot | None = None
    rejoining: bool = False


class RaftCore:
    """One member's decisions.

    Args:
        node_id: this member, one of ``members``.
        members: all of them; they never change.
        rng: for the election timeouts.
        now: seconds of any clock that never goes back; every event brings its own.
    """

    # The parts, so that a test can put a broken one in and see that the simulator notices.
    following_type = Following
    leading_type = Leading

    def __init__(
        self,
        node_id: str,
        members: tuple[str, ...],
        settings: RaftSettings,
        rng: Dice,
        now: float,
        recovered: Recovered,
    ) -> None:
        if node_id not in members or len(set(members)) != len(members):
            raise RaftFatalError(f"{node_id} is not one of {members}, or one of them is there twice")
        state = State(node_id, members, settings, recovered.log, now)
        state.term = state.saved_term = recovered.term
        state.voted_for = recovered.voted_for
        state.snapshot = recovered.snapshot
        if recovered.snapshot is not None:
            state.commit_index = max(state.commit_index, recovered.snapshot.index)
        if recovered.rejoining:
            state.incarnation = rng.getrandbits(63) | 1
        self.members = members
        self.leader: str | None = None
        self._state = state
        self._rng = rng
        self._following = self.following_type(state)
        self._leading: Leading | None = None
        # None: follower; "pre": asks for pre-votes; "real": stands in its own term.
        self._standing: Literal["pre", "real"] | None = None
        self._votes: set[str] = set()
        self._heard_at = -1e9
        self._deadline = now
        self._reset_deadline()
        if len(members) == 1:
            # Nobody to wait for.
            self._deadline = now

    # -- what there is to see

    @property
    def role(self) -> Role:
        """What this member is now."""
        if self._state.incarnation:
            return "rejoining"
        if self._leading is not None:
            return "leader"
        return "follower" if self._standing is None else "candidate"

    @property
    def node_id(self) -> str:
        """This member."""
        return self._state.node_id

    @property
    def term(self) -> int:
        """The current term."""
        return self._state.term

    @property
    def commit_index(self) -> int:
        """Everything to there is committed, as far as this member knows."""
        return self._state.commit_index

    @property
    def log(self) -> Log:
        """The log; to be read only."""
        return self._state.log

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest snapshot that is on stable storage, or about to be."""
        return self._state.snapshot

    # -- events

    def on_message(self, sender: str, message: Message, now: float) -> Effects:
        """A message from another member. RaftFatalError: the group broke its own rules."""
        self._begin(now)
        if sender in self._state.others:
            match message:
                case Heartbeat() | Append() | Chunk():
                    self._on_leader(sender, message)
                case HeartbeatReply() | AppendReply() | ChunkReply():
                    self._on_reply(sender, message)
                case PreVote():
                    self._on_pre_vote(sender, message)
                case PreVoteReply():
                    self._on_pre_vote_reply(sender, message)
                case Vote():
                    self._on_vote(sender, message)
                case VoteReply():
                    self._on_vote_reply(sender, message)
                case Stand():
                    self._on_stand(sender, message)
        return self._end()

    def on_tick(self, now: float) -> Effects:
        """Time passed. Hand in the messages that have arrived first."""
        self._begin(now)
        if self._leading is not None:
            if not self._leading.on_tick():
                self._follow(self._state.term, None)
        elif now >= self._deadline and not self._state.incarnation:
            self._ask_for_pre_votes()
        return self._end()

    def on_saved(self, save: Save, now: float) -> Effects:
        """A save, and every one before it, is on stable storage."""
        self._begin(now)
        self._state.saved(save)
        if self._standing == "real":
            self._count_votes()
        elif self._leading is not None:
            self._leading.advance_commit()
        return self._end()

    def on_compacted(self, snapshot: Snapshot, base_index: int) -> None:
        """A snapshot of this member's own is on stable storage; the log may begin after ``base_index``."""
        state = self._state
        if state.snapshot is None or snapshot.index > state.snapshot.index:
            state.snapshot = snapshot
        if state.log.base_index < base_index <= state.snapshot.index:
            state.log.cut(base_index)

    def propose(self, commands: list[bytes], now: float) -> tuple[list[int], Effects]:
        """Append commands, in this order; returns their places in the log.

        Raises:
            NotLeaderError: this member does not lead.
            ResourceExhaustedError: too much waits already.
        """
        self._begin(now)
        indexes = self._lead().propose(commands)
        return indexes, self._end()

    def read(self, tokens: list[int], now: float) -> Effects:
        """Ask for indexes to read at; they come as ``Effects.reads``, or never if this member stops leading.

        Raises:
            NotLeaderError: this member does not lead.
        """
        self._begin(now)
        self._lead().read(tokens)
        return self._end()

    def hand_over(self, now: float) -> Effects:
        """Let another member lead, if this one does and there is one that can."""
        self._begin(now)
        if self._leading is not None:
            self._leading.hand_over()
        return self._end()

    def _begin(self, now: float) -> None:
        self._state.now = max(now, self._state.now)

    def _end(self) -> Effects:
        effects, self._state.effects = self._state.effects, Effects()
        return effects

    def _lead(self) -> Leading:
        if self._leading is None:
            raise NotLeaderError(self.leader)
        return self._leading

    # -- roles

    def _follow(self, term: int, leader: str | None) -> None:
        """Be a follower in ``term``."""
        if term > self._state.term:
            self._state.set_term(term, None)
        if self._leading is not None or self._standing is not None:
            self._reset_deadline()
        self._leading = self._standing = None
        self.leader = leader

    def _reset_deadline(self) -> None:
        settings = self._state.settings
        self._deadline = self._state.now + self._rng.uniform(settings.election_min_s, settings.election_max_s)

    def _protects_leader(self) -> bool:
        """Whether somebody leads, as far as can be told, who should not be disturbed."""
        heard = self._state.now - self._heard_at < self._state.settings.election_min_s
        return self._leading is not None or (self.leader is not None and heard)

    def _ask_for_pre_votes(self) -> None:
        state = self._state
        self._follow(state.term, None)
        self._reset_deadline()
        self._standing, self._votes = "pre", {state.node_id}
        for other in state.others:
            state.send(other, PreVote(state.term + 1, state.log.last_index, state.log.last_term))
        if len(self._votes) >= state.majority:
            self._stand(transfer=False)

    def _stand(self, *, transfer: bool) -> None:
        """Vote for itself in a new term and ask the others to."""
        state = self._state
        self._follow(state.term, None)
        state.set_term(state.term + 1, state.node_id)
        self._reset_deadline()
        self._standing, self._votes = "real", {state.node_id}
        for other in state.others:
            state.send(other, Vote(state.term, state.log.last_index, state.log.last_term, transfer))

    def _count_votes(self) -> None:
        """Lead with a majority; its own vote counts once it is on stable storage."""
        state = self._state
        if len(self._votes) >= state.majority and state.saved_term == state.term:
            self._standing = None
            self.leader = state.node_id
            self._leading = self.leading_type(state)

    # -- votes

    def _on_pre_vote(self, sender: str, ask: PreVote) -> None:
        state = self._state
        if state.incarnation:
            return
        granted = (
            ask.term > state.term
            and not self._protects_leader()
            and state.log.not_newer_than(ask.last_index, ask.last_term)
        )
        state.send(sender, PreVoteReply(ask.term if granted else state.term, granted))

    def _on_pre_vote_reply(self, sender: str, reply: PreVoteReply) -> None:
        state = self._state
        if not reply.granted:
            if reply.term > state.term:
                self._follow(reply.term, None)
        elif self._standing == "pre" and reply.term == state.term + 1:
            self._votes.add(sender)
            if len(self._votes) >= state.majority:
                self._stand(transfer=False)

    def _on_vote(self, sender: str, ask: Vote) -> None:
        state = self._state
        if state.incarnation or (not ask.transfer and self._protects_leader()):
            return
        if ask.term > state.term:
            self._follow(ask.term, None)
        granted = (
            ask.term == state.term
            and state.voted_for in (None, sender)
            and state.log.not_newer_than(ask.last_index, ask.last_term)
        )
        if granted:
            if state.voted_for is None:
                state.set_term(state.term, sender)
            self._reset_deadline()
        state.send(sender, VoteReply(state.term, granted))

    def _on_vote_reply(self, sender: str, reply: VoteReply) -> None:
        if reply.term > self._state.term:
            self._follow(reply.term, None)
        elif reply.granted and self._standing == "real" and reply.term == self._state.term:
            self._votes.add(sender)
            self._count_votes()

    def _on_stand(self, sender: str, ask: Stand) -> None:
        if ask.term == self._state.term and sender == self.leader and not self._state.incarnation:
            self._stand(transfer=True)

    # -- the log

    def _on_leader(self, sender: str, message: FromLeader) -> None:
        state = self._state
        if message.term < state.term:
            # So that a leader of the past learns that it is one.
            reply = HeartbeatReply(state.term, 0, state.incarnation, state.commit_index)
            state.send(sender, reply)
            return
        if message.term == state.term and self._leading is not None:
            raise RaftFatalError(f"{sender} leads term {message.term}, and so does {state.node_id}")
        if message.term == state.term and self.leader not in (None, sender):
            raise RaftFatalError(f"{sender} leads term {message.term}, and so does {self.leader}")
        self._follow(message.term, sender)
        self._heard_at = state.now
        self._reset_deadline()
        match message:
            case Heartbeat():
                self._following.on_heartbeat(sender, message)
            case Append():
                self._following.on_append(sender, message)
            case Chunk():
                self._following.on_chunk(sender, message)

    def _on_reply(self, sender: str, reply: ToLeader) -> None:
        if reply.term > self._state.term:
            self._follow(reply.term, None)
        elif reply.term == self._state.term and self._leading is not None:
            self._leading.on_reply(sender, reply)


__all__ = ["Dice", "RaftCore", "Recovered", "Role"]
