"""Rules of the group, each taken out in turn: a simulator that does not notice is worth nothing.

The names follow the list of rules in the coordinator's design page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from omendb_chaos.raft.node import Parts
from omendb_common.disk import Disk
from omendb_coordinator.consensus.core import RaftCore
from omendb_coordinator.consensus.effects import Save
from omendb_coordinator.consensus.following import Following
from omendb_coordinator.consensus.incoming import Incoming
from omendb_coordinator.consensus.leading import Leading
from omendb_coordinator.consensus.log import Log
from omendb_coordinator.consensus.messages import (
    Append,
    Chunk,
    Entry,
    Snapshot,
)
from omendb_coordinator.consensus.state import State
from omendb_coordinator.consensus.storage import Storage


class _TruncatesAlways(Following):
    def _take(self, entries: tuple[Entry, ...]) -> None:
        if entries and entries[0].index <= self._state.log.last_index:
            self._state.truncate(entries[0].index)
        super()._take(entries)


class _CommitsToItsEnd(Following):
    def _commit_limit(self, append: Append, last: int) -> int:
        return min(append.commit_index, self._state.log.last_index)


class _Gullible(Incoming):
    def add(self, leader: str, chunk: Chunk) -> None:
        self._buffer += chunk.data

    def finished(self, chunk: Chunk) -> Snapshot | None:
        if self.length < chunk.size:
            return None
        data = bytes(self._buffer)
        self.clear()
        return Snapshot.of(chunk.snapshot_index, chunk.snapshot_term, data)


class _TakesAnyChunk(Following):
    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._incoming = _Gullible()


class _InstallsOldSnapshots(Following):
    def _is_old(self, chunk: Chunk) -> bool:
        return False


class _CommitsDuringSnapshot(Following):
    def on_chunk(self, leader: str, chunk: Chunk) -> None:
        self._state.commit_to(min(chunk.snapshot_index, self._state.log.last_index))
        super().on_chunk(leader, chunk)


class _DropsTheSuffix(Storage):
    @staticmethod
    def open(disk: Disk, folder: str) -> Storage:
        storage = Storage.open(disk, folder)
        snapshot = storage.recovered.snapshot
        if snapshot is not None:
            storage.save([Save(snapshot=snapshot)])
            log = Log(snapshot.index, snapshot.term)
            storage.recovered = replace(storage.recovered, log=log)
        return storage


class _ForgetsVotes(Storage):
    @staticmethod
    def open(disk: Disk, folder: str) -> Storage:
        storage = Storage.open(disk, folder)
        recovered = storage.recovered
        storage.recovered = replace(recovered, term=recovered.log.last_term, voted_for=None)
        return storage


class _ForgetsTheVoteOnly(Storage):
    @staticmethod
    def open(disk: Disk, folder: str) -> Storage:
        storage = Storage.open(disk, folder)
        storage.recovered = replace(storage.recovered, voted_for=None)
        return storage


class _Unsynced(Storage):
    def save(self, saves: Sequence[Save]) -> None:
        sync, self._journal.sync = self._journal.sync, lambda: None  # type: ignore[method-assign]
        super().save(saves)
        self._journal.sync = sync  # type: ignore[method-assign]

    @staticmethod
    def open(disk: Disk, folder: str) -> Storage:
        storage = Storage.open(disk, folder)
        return _Unsynced(disk, folder, storage.identity, storage._journal, storage.recovered)


class _VotesAtOnce(Storage):
    """Rejoins without the marker: votes although it forgot everything."""

    @staticmethod
    def open(disk: Disk, folder: str) -> Storage:
        storage = Storage.open(disk, folder)
        storage.recovered = replace(storage.recovered, rejoining=False)
        return storage


class _CountsItselfUnsaved(Leading):
    def advance_commit(self) -> None:
        self._state.durable_index = self._state.log.last_index
        super().advance_commit()


class _CommitsOldTerms(Leading):
    def advance_commit(self) -> None:
        state = self._state
        have = [state.durable_index, *(0 if peer.incarnation else peer.match for peer in self.peers.values())]
        index = sorted(have, reverse=True)[state.majority - 1]
        if index > state.commit_index and state.log.term_at(index) != state.term:
            state.commit_to(index)
        super().advance_commit()


class _ReadsAtOnce(Leading):
    def read(self, tokens: list[int]) -> None:
        self._state.effects.reads += [(token, self._state.commit_index) for token in tokens]


def _core(following: type[Following] = Following, leading: type[Leading] = Leading) -> type[RaftCore]:
    class Ablated(RaftCore):
        following_type = following
        leading_type = leading

    return Ablated


@dataclass(frozen=True, slots=True)
class Ablation:
    """One rule less: which, the profile that must notice, and the broken parts; ``first`` is where to look first."""

    rule: str
    profile: str
    parts: Parts
    first: int = 0


_ALL = (
    Ablation("1: keep matching entries", "net", Parts(core=_core(_TruncatesAlways))),
    Ablation("2: commit only what was compared", "crash", Parts(core=_core(_CommitsToItsEnd))),
    Ablation("2: commit nothing during a snapshot", "compact", Parts(core=_core(_CommitsDuringSnapshot))),
    Ablation("5: chunks are bound to their place", "compact", Parts(core=_core(_TakesAnyChunk))),
    Ablation("5: an old snapshot is ignored", "compact", Parts(core=_core(_InstallsOldSnapshots))),
    Ablation("6: keep what follows the snapshot", "compact", Parts(storage=_DropsTheSuffix)),
    Ablation("term and vote last", "elect", Parts(storage=_ForgetsVotes)),
    Ablation("the vote lasts", "elect", Parts(storage=_ForgetsTheVoteOnly)),
    Ablation("entries are synced before they count", "power", Parts(storage=_Unsynced)),
    Ablation("a leader's own entries count when saved", "power", Parts(core=_core(leading=_CountsItselfUnsaved)), 89),
    Ablation("a leader counts entries of its own term", "crash", Parts(core=_core(leading=_CommitsOldTerms)), 40),
    Ablation("a read is confirmed by a round", "net", Parts(core=_core(leading=_ReadsAtOnce))),
    Ablation("a member without its disk does not vote", "rejoin", Parts(storage=_VotesAtOnce)),
)
ABLATIONS: Mapping[str, Ablation] = {ablation.rule: ablation for ablation in _ALL}

__all__ = ["ABLATIONS", "Ablation"]
