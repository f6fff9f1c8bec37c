"""What must hold in every run, checked as it goes."""

from __future__ import annotations

import struct

from omendb_common.checksum import crc32c
from omendb_coordinator.consensus.log import Log
from omendb_coordinator.consensus.messages import Entry

_STATE = struct.Struct("<QQI")


class Violation(Exception):
    """The group broke a promise."""


class Machine:
    """A state that depends on every command and its place: one chained checksum.

    ``padding``: bytes of every snapshot beside the state, so that it needs several chunks.
    """

    def __init__(self, judge: Judge, node: str, padding: int) -> None:
        self._judge = judge
        self._node = node
        self._padding = padding
        self.index = 0
        self.count = 0
        self.chain = 0

    def apply(self, index: int, command: bytes) -> bytes:
        """See ``StateMachine``."""
        self.index = index
        self.count += 1
        self.chain = crc32c([struct.pack("<Q", index), command], self.chain)
        self._judge.applied(self._node, index, command, self.chain)
        return command

    def snapshot(self) -> bytes:
        """See ``StateMachine``."""
        filling = (self.index.to_bytes(8, "little") * (self._padding // 8 + 1))[: self._padding]
        return _STATE.pack(self.index, self.count, self.chain) + filling

    def restore(self, data: bytes, index: int) -> None:
        """See ``StateMachine``."""
        if len(data) < _STATE.size:
            raise Violation(f"{self._node} restores {len(data)} bytes")
        before = self.index
        self.index, self.count, self.chain = _STATE.unpack_from(data)
        if self.index < before:
            raise Violation(f"{self._node} goes back from entry {before} to a snapshot after {index}")
        if data != self.snapshot() or index < self.index:
            raise Violation(f"{self._node} restores a snapshot after {index} that nobody took")
        self._judge.restored(self._node, self.index, self.chain)


class Judge:
    """Everything that was applied, acknowledged or led anywhere, ever."""

    def __init__(self) -> None:
        self.commands: dict[int, bytes] = {}
        self.chains: dict[int, int] = {0: 0}
        self.terms: dict[int, int] = {}
        self.committed_in: dict[int, int] = {}
        self.leaders: dict[int, str] = {}
        self.acknowledged: dict[bytes, int] = {}
        self.refused: set[bytes] = set()
        self.places: dict[bytes, int] = {}
        self.acknowledged_to = 0

    def applied(self, node: str, index: int, command: bytes, chain: int) -> None:
        """State-machine safety: one command per place, one place per command, the same state after it."""
        known = self.commands.setdefault(index, command)
        if known != command:
            raise Violation(f"{node} applied {command!r} as entry {index}, others {known!r}")
        if self.places.setdefault(command, index) != index:
            raise Violation(f"{node} applied {command!r} as entry {index}, and as {self.places[command]}")
        if self.chains.setdefault(index, chain) != chain:
            raise Violation(f"{node} has another state after entry {index}")
        if command in self.refused:
            raise Violation(f"{node} applied {command!r}, of which its client was told that nothing happened")

    def restored(self, node: str, index: int, chain: int) -> None:
        """A snapshot is the state that others had there."""
        if self.chains.get(index) != chain:
            raise Violation(f"{node} restored another state after entry {index}")

    def acknowledge(self, node: str, command: bytes, index: int) -> None:
        """A client was told that its command is entry ``index``."""
        if self.commands.get(index) != command:
            raise Violation(f"{node} acknowledged {command!r} as entry {index}, which is {self.commands.get(index)!r}")
        self.acknowledged[command] = index
        self.acknowledged_to = max(self.acknowledged_to, index)

    def refuse(self, command: bytes) -> None:
        """A client was told that its command did not happen, and never will."""
        if command in self.places:
            raise Violation(f"{command!r} is entry {self.places[command]}, its client was told that nothing happened")
        self.refused.add(command)

    def read(self, node: str, index: int, floor: int, applied: int) -> None:
        """A linearizable read sees everything that was acknowledged before it began."""
        if index < floor:
            raise Violation(f"{node} read at {index}, entry {floor} had been acknowledged")
        if applied < index:
            raise Violation(f"{node} read at {index} and has applied {applied} only")

    def committed(self, entry: Entry, term: int) -> None:
        """A member in ``term`` counts an entry as committed; the first to do so is the leader that committed it."""
        self.committed_in.setdefault(entry.index, term)
        if self.terms.setdefault(entry.index, entry.term) != entry.term:
            raise Violation(f"entry {entry.index} is committed with terms {self.terms[entry.index]} and {entry.term}")

    def leads(self, node: str, term: int, log: Log) -> None:
        """Election safety: one leader per term; leader completeness: it has what was committed in earlier terms."""
        if self.leaders.setdefault(term, node) != node:
            raise Violation(f"{node} and {self.leaders[term]} lead term {term}")
        for index, committed in self.terms.items():
            if self.committed_in[index] >= term:
                # It won an election that was over: nobody will listen to it.
                continue
            if index > log.base_index and log.term_at(index) != committed:
                raise Violation(f"{node} leads term {term} without entry {index} of term {committed}")


def check_logs(logs: dict[str, Log]) -> None:
    """Log matching: two logs with the same index and term are the same up to there."""
    nodes = sorted(logs)
    for number, one in enumerate(nodes):
        for other in nodes[number + 1 :]:
            _check_pair(one, logs[one], other, logs[other])


def _check_pair(one: str, first: Log, other: str, second: Log) -> None:
    low = max(first.base_index, second.base_index)
    high = min(first.last_index, second.last_index)
    while high > low and first.term_at(high) != second.term_at(high):
        high -= 1
    if high > low and first.between(low, high) != second.between(low, high):
        raise Violation(f"the logs of {one} and {other} agree at {high} and differ before")


__all__ = ["Judge", "Machine", "Violation", "check_logs"]
