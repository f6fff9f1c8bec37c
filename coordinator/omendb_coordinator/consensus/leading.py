"""A leader's part: replicate the log, count who has it, and prove that it still leads."""

from __future__ import annotations

from dataclasses import dataclass

from omendb_common.errors import ResourceExhaustedError
from omendb_coordinator.consensus.messages import (
    COMMAND,
    NOOP,
    Append,
    AppendReply,
    Chunk,
    ChunkReply,
    Entry,
    Heartbeat,
    HeartbeatReply,
    Stand,
    ToLeader,
)
from omendb_coordinator.consensus.peer import Peer
from omendb_coordinator.consensus.state import State


@dataclass(slots=True)
class _Read:
    """A read that waits for a majority to answer ``round``; None: for an entry of this term to be committed."""

    token: int
    round: int | None = None
    index: int = 0


class Leading:
    """Leadership of one term, from the election to its end."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._round = 0
        self._reads: list[_Read] = []
        self._pending_bytes = sum(
            len(entry.command) for entry in state.log.between(state.commit_index, state.log.last_index)
        )
        next_index = state.log.last_index + 1
        self.peers = {other: Peer(next_index, state.now) for other in state.others}
        self._next_beat = state.now
        # Only an entry of its own term tells a leader what is committed (Raft 5.4.2, 8).
        self._append(NOOP, b"")
        self._beat()
        self.advance_commit()

    # -- events

    def on_tick(self) -> bool:
        """Beat, and send again what was lost; returns whether a majority was heard of late."""
        state = self._state
        heard_after = state.now - state.settings.election_max_s
        heard = sum(peer.heard_at >= heard_after and not peer.incarnation for peer in self.peers.values())
        if 1 + heard < state.majority:
            return False
        if state.now >= self._next_beat:
            self._beat()
        for name, peer in self.peers.items():
            if peer.lost(state.now, state.settings.resend_s):
                self._send_again(name, peer)
        return True

    def propose(self, commands: list[bytes]) -> list[int]:
        """Append commands; returns their places.

        Raises:
            ResourceExhaustedError: too many wait for a majority; none was appended.
        """
        state = self._state
        size = sum(map(len, commands))
        if self._pending_bytes and self._pending_bytes + size > state.settings.pending_bytes_max:
            raise ResourceExhaustedError(
                f"{self._pending_bytes} bytes of commands wait for a majority",
                field="coordinator",
                bound=f"at most {state.settings.pending_bytes_max}",
                retry_after=state.settings.election_max_s,
            )
        self._pending_bytes += size
        indexes = [self._append(COMMAND, command) for command in commands]
        self._replicate_all()
        return indexes

    def read(self, tokens: list[int]) -> None:
        """Confirm, by a round of heartbeats that starts now, that nobody else can have committed anything."""
        self._reads += [_Read(token) for token in tokens]
        self._start_reads()

    def on_reply(self, name: str, reply: ToLeader) -> None:
        """Take any answer of this term."""
        state = self._state
        peer = self.peers[name]
        if reply.incarnation and reply.incarnation != peer.incarnation:
            return self._meet_rejoining(peer, reply.incarnation)
        if reply.round <= peer.round_floor:
            return None
        peer.incarnation = reply.incarnation
        if not peer.incarnation:
            peer.heard_at = state.now
            peer.round = max(peer.round, reply.round)
            self._finish_reads()
        match reply:
            case HeartbeatReply():
                self._on_heartbeat_reply(name, peer, reply)
            case AppendReply():
                self._on_append_reply(name, peer, reply)
            case ChunkReply():
                self._on_chunk_reply(name, peer, reply)
        return None

    def advance_commit(self) -> None:
        """Commit what a majority has on stable storage, if the newest of it is of this term."""
        state = self._state
        have = [state.durable_index, *(0 if peer.incarnation else peer.match for peer in self.peers.values())]
        index = sorted(have, reverse=True)[state.majority - 1]
        if index <= state.commit_index or state.log.term_at(index) != state.term:
            return
        before = state.commit_index
        state.commit_to(index)
        self._pending_bytes -= sum(len(entry.command) for entry in state.log.between(before, index))
        for name, peer in self.peers.items():
            self._replicate(name, peer, tell_commit=not peer.full(state.settings.window))
        self._start_reads()

    def hand_over(self) -> str | None:
        """Ask the best other member to stand; returns which, if there is one that has everything."""
        state = self._state
        ready = [n for n, p in self.peers.items() if p.match == state.log.last_index and not p.incarnation]
        if not ready:
            return None
        best = max(ready, key=lambda name: self.peers[name].heard_at)
        state.send_early(best, Stand(state.term))
        return best

    # -- replication

    def _append(self, kind: int, command: bytes) -> int:
        state = self._state
        entry = Entry(state.log.last_index + 1, state.term, kind, command)
        state.append(entry)
        return entry.index

    def _beat(self) -> None:
        state = self._state
        self._round += 1
        self._next_beat = state.now + state.settings.heartbeat_s
        for name, peer in self.peers.items():
            state.send_early(name, Heartbeat(state.term, self._round, peer.incarnation, peer.rejoin_target))
        self._replicate_all()

    def _replicate_all(self) -> None:
        for name, peer in self.peers.items():
            self._replicate(name, peer)

    def _replicate(self, name: str, peer: Peer, *, tell_commit: bool = False) -> None:
        """Send what the peer lacks, as far as its window goes."""
        state = self._state
        if peer.snapshot is not None:
            return
        if peer.next <= state.log.base_index:
            peer.snapshot, peer.offset = state.snapshot, 0
            self._send_chunk(name, peer)
            return
        while not peer.full(state.settings.window):
            entries = state.log.batch(peer.next, state.settings.message_bytes)
            if not entries and not tell_commit:
                return
            tell_commit = False
            prev = peer.next - 1
            prev_term = state.log.term_at(prev)
            assert prev_term is not None
            state.send_early(name, Append(state.term, self._round, prev, prev_term, state.commit_index, entries))
            if not entries:
                return
            peer.sent(prev, entries[-1].index, state.now)

    def _send_again(self, name: str, peer: Peer) -> None:
        peer.moved_at = self._state.now
        if peer.snapshot is not None:
            self._send_chunk(name, peer)
        else:
            peer.retry()
            self._replicate(name, peer)

    def _send_chunk(self, name: str, peer: Peer) -> None:
        state = self._state
        snapshot = peer.snapshot
        assert snapshot is not None
        data = snapshot.data[peer.offset : peer.offset + state.settings.chunk_bytes]
        peer.moved_at = state.now
        state.send_early(
            name,
            Chunk(
                state.term,
                self._round,
                snapshot.index,
                snapshot.term,
                len(snapshot.data),
                snapshot.checksum,
                peer.offset,
                data,
            ),
        )

    # -- answers

    def _on_heartbeat_reply(self, name: str, peer: Peer, reply: HeartbeatReply) -> None:
        behind = reply.commit_index < min(peer.match, self._state.commit_index)
        self._replicate(name, peer, tell_commit=behind and not peer.in_flight)

    def _on_append_reply(self, name: str, peer: Peer, reply: AppendReply) -> None:
        state = self._state
        if not reply.accepted:
            if peer.snapshot is None and peer.refused(reply.prev_index, reply.index):
                self._replicate(name, peer)
            return
        if reply.index > state.log.last_index:
            return
        peer.accepted(reply.index, state.now)
        if peer.snapshot is not None and reply.index >= peer.snapshot.index:
            peer.snapshot = None
        self.advance_commit()
        self._replicate(name, peer)

    def _on_chunk_reply(self, name: str, peer: Peer, reply: ChunkReply) -> None:
        # An answer that moves nothing is a repetition; the resend timer is there for what was lost.
        if peer.snapshot is None or reply.snapshot_index != peer.snapshot.index or reply.offset == peer.offset:
            return
        peer.offset = min(reply.offset, len(peer.snapshot.data))
        self._send_chunk(name, peer)

    def _meet_rejoining(self, peer: Peer, incarnation: int) -> None:
        """A member is back without its disk: what it had counts no more, and it must catch up with a new entry."""
        state = self._state
        peer.incarnation = incarnation
        peer.round_floor = self._round
        peer.match = peer.round = 0
        peer.snapshot = None
        peer.probe_from(state.log.base_index + 1)
        peer.rejoin_target = self._append(NOOP, b"")
        self._beat()

    # -- reads

    def _start_reads(self) -> None:
        state = self._state
        waiting = [read for read in self._reads if read.round is None]
        if not waiting or state.log.term_at(state.commit_index) != state.term:
            return
        self._beat()
        for read in waiting:
            read.round, read.index = self._round, state.commit_index
        self._finish_reads()

    def _finish_reads(self) -> None:
        state = self._state
        if not self._reads:
            return
        rounds = sorted((peer.round for peer in self.peers.values() if not peer.incarnation), reverse=True)
        needed = state.majority - 1
        # The round that a majority, this member included, has answered.
        answered = self._round if needed == 0 else (rounds[needed - 1] if len(rounds) >= needed else 0)
        waiting = []
        for read in self._reads:
            if read.round is not None and read.round <= answered:
                state.effects.reads.append((read.token, read.index))
            else:
                waiting.append(read)
        self._reads = waiting


__all__ = ["Leading"]
