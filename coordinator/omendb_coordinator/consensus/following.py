"""A follower's part: take what the leader sends, and say what is on stable storage here."""

from __future__ import annotations

from omendb_coordinator.consensus.incoming import Incoming
from omendb_coordinator.consensus.messages import (
    Append,
    AppendReply,
    Chunk,
    ChunkReply,
    Entry,
    Heartbeat,
    HeartbeatReply,
    Snapshot,
)
from omendb_coordinator.consensus.state import RaftFatalError, State


class Following:
    """Messages of the leader of the current term; whoever calls has checked that it is."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._incoming = Incoming()
        self._rejoining_since = state.now

    def on_heartbeat(self, leader: str, beat: Heartbeat) -> None:
        """Answer, so that the leader knows that it leads."""
        state = self._state
        if state.incarnation and beat.incarnation == state.incarnation:
            self._rejoined(beat.rejoin_target)
        reply = HeartbeatReply(state.term, beat.round, state.incarnation, state.commit_index)
        if state.effects.save:
            state.send(leader, reply)
        else:
            state.send_early(leader, reply)

    def _rejoined(self, target: int) -> None:
        """Stop rejoining, if what was missing is here and what this member once said is forgotten everywhere."""
        state = self._state
        waited = state.now - self._rejoining_since >= state.settings.rejoin_s
        if waited and 0 < target <= state.commit_index:
            state.incarnation = 0
            state.effects.save.end_rejoin = True

    def on_append(self, leader: str, append: Append) -> None:
        """Take new entries, keep those that match, and commit no further than this message vouches for."""
        state = self._state
        log = state.log
        if append.prev_index < log.base_index:
            # Everything committed is in the leader's log too.
            return self._accept(leader, append, state.commit_index)
        prev_term = log.term_at(append.prev_index)
        if prev_term is None:
            return self._refuse(leader, append, log.last_index + 1)
        if prev_term != append.prev_term:
            self._check_conflict(append.prev_index)
            return self._refuse(leader, append, state.commit_index + 1)
        self._take(append.entries)
        last = append.prev_index + len(append.entries)
        state.commit_to(self._commit_limit(append, last))
        return self._accept(leader, append, last)

    def _take(self, entries: tuple[Entry, ...]) -> None:
        """Append what is new; truncate at the first conflict only."""
        state = self._state
        for number, entry in enumerate(entries):
            have = state.log.term_at(entry.index)
            if have == entry.term:
                continue
            if have is not None:
                self._check_conflict(entry.index)
                state.truncate(entry.index)
            for new in entries[number:]:
                state.append(new)
            return

    def _commit_limit(self, append: Append, last: int) -> int:
        """Only what this message compared may be committed by it."""
        return min(append.commit_index, last)

    def _check_conflict(self, index: int) -> None:
        if index <= self._state.commit_index:
            raise RaftFatalError(f"the leader has another entry {index}, which is committed here")

    def _accept(self, leader: str, append: Append | Chunk, index: int) -> None:
        state = self._state
        state.send(leader, AppendReply(state.term, append.round, state.incarnation, True, 0, index))

    def _refuse(self, leader: str, append: Append, hint: int) -> None:
        state = self._state
        reply = AppendReply(state.term, append.round, state.incarnation, False, append.prev_index, hint)
        state.send(leader, reply)

    def on_chunk(self, leader: str, chunk: Chunk) -> None:
        """Take a piece of a snapshot, and install it when it is whole."""
        state = self._state
        if chunk.size > state.settings.snapshot_bytes_max:
            return None
        if self._is_old(chunk):
            self._incoming.clear()
            return self._accept(leader, chunk, state.commit_index)
        self._incoming.add(leader, chunk)
        snapshot = self._incoming.finished(chunk)
        if snapshot is not None:
            self._install(snapshot)
            return self._accept(leader, chunk, snapshot.index)
        got = self._incoming.length
        return state.send(leader, ChunkReply(state.term, chunk.round, state.incarnation, chunk.snapshot_index, got))

    def _is_old(self, chunk: Chunk) -> bool:
        """Whether everything in it is committed here already: a state never goes back."""
        return chunk.snapshot_index <= self._state.commit_index

    def _install(self, snapshot: Snapshot) -> None:
        """Let the snapshot stand for the log up to it; keep the entries after it if they continue it."""
        state = self._state
        state.effects.save.snapshot = state.snapshot = snapshot
        if self._continues(snapshot):
            state.effects.save.keep_suffix = True
            state.log.cut(snapshot.index)
        else:
            state.log.reset(snapshot.index, snapshot.term)
            state.durable_index = 0
        state.commit_index = snapshot.index

    def _continues(self, snapshot: Snapshot) -> bool:
        return self._state.log.term_at(snapshot.index) == snapshot.term


__all__ = ["Following"]
