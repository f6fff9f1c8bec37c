"""A group of cores on one table: every message lies there until a test delivers, loses or repeats it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from omendb_coordinator.consensus.core import RaftCore, Recovered
from omendb_coordinator.consensus.effects import Effects, Save
from omendb_coordinator.consensus.log import Log
from omendb_coordinator.consensus.messages import COMMAND, Entry, Message, Snapshot
from omendb_coordinator.consensus.settings import RaftSettings

SETTINGS = RaftSettings(heartbeat_s=0.1, election_min_s=1.0, election_max_s=2.0)


@dataclass(slots=True)
class Flying:
    """A message on the table."""

    sender: str
    to: str
    message: Message


@dataclass(slots=True)
class Table:
    """Cores, messages and a clock. With ``instant`` every save succeeds at once; else ``save`` does it."""

    members: tuple[str, ...] = ("a", "b", "c")
    settings: RaftSettings = SETTINGS
    instant: bool = True
    now: float = 0.0
    cores: dict[str, RaftCore] = field(default_factory=dict)
    flying: list[Flying] = field(default_factory=list)
    applied: dict[str, list[bytes]] = field(default_factory=dict)
    reads: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    unsaved: dict[str, list[Effects]] = field(default_factory=dict)
    saved: dict[str, list[Save]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for member in self.members:
            self.start(member)

    def start(self, member: str, recovered: Recovered | None = None) -> RaftCore:
        """Put a core on the table, fresh or with what it found on its disk."""
        core = RaftCore(member, self.members, self.settings, random.Random(member), self.now, recovered or Recovered())
        self.cores[member] = core
        self.applied[member] = []
        self.reads.setdefault(member, [])
        self.unsaved[member] = []
        self.saved[member] = []
        return core

    def restart(self, member: str) -> RaftCore:
        """Kill and start a core whose disk has everything that was saved."""
        old = self.cores[member]
        state = old._state
        recovered = Recovered(state.term, state.voted_for, old.log, old.snapshot, old.role == "rejoining")
        return self.start(member, recovered)

    def take(self, member: str, effects: Effects) -> None:
        """Do what a core wants done."""
        self._send(member, effects.send_early)
        self.reads[member] += effects.reads
        self.unsaved[member].append(effects)
        if self.instant:
            self.save(member)

    def save(self, member: str) -> None:
        """Make durable what waits for it, and do what waited for that."""
        while self.unsaved[member]:
            effects = self.unsaved[member].pop(0)
            if effects.save:
                self.saved[member].append(effects.save)
                self.take(member, self.cores[member].on_saved(effects.save, self.now))
            self._send(member, effects.send)
            self.applied[member] += [entry.command for entry in effects.apply if entry.kind == COMMAND]

    def _send(self, sender: str, messages: Iterable[tuple[str, Message]]) -> None:
        self.flying += [Flying(sender, to, message) for to, message in messages]

    def give(self, to: str, sender: str, message: Message) -> None:
        """Deliver a message that need not have been on the table."""
        self.take(to, self.cores[to].on_message(sender, message, self.now))

    def deliver(self, which: Callable[[Flying], bool] = lambda _: True, rounds: int = 10_000) -> None:
        """Deliver in order, and what that causes; what does not match is left lying."""
        for _ in range(rounds):
            found = next((item for item in self.flying if which(item)), None)
            if found is None:
                return
            self.flying.remove(found)
            self.give(found.to, found.sender, found.message)

    def role(self, name: str) -> str:
        """What a core is now."""
        return self.cores[name].role

    def among(self, *names: str) -> None:
        """Deliver between these only, and lose everything else."""
        self.deliver(lambda item: item.sender in names and item.to in names)
        self.flying.clear()

    def tick(self, member: str, seconds: float = 0.0) -> None:
        """Let time pass for everybody, and tell one."""
        self.now += seconds
        self.take(member, self.cores[member].on_tick(self.now))

    def elect(self, leader: str, *voters: str) -> RaftCore:
        """Let ``leader`` win an election among these (everybody, when none are named)."""
        names = (leader, *voters) if voters else self.members
        self.tick(leader, 2.5)
        self.among(*names)
        assert self.cores[leader].role == "leader", self.cores[leader].role
        return self.cores[leader]

    def propose(self, leader: str, *commands: bytes) -> list[int]:
        """Propose; the messages lie on the table."""
        indexes, effects = self.cores[leader].propose(list(commands), self.now)
        self.take(leader, effects)
        return indexes

    def settle(self, seconds: float = 1.0, *names: str) -> None:
        """Let so much time pass in heartbeats, delivering everything between these (everybody, when none)."""
        names = names or self.members
        for _ in range(round(seconds / 0.1)):
            self.now += 0.1
            for name in names:
                self.tick(name)
            self.among(*names)


def log_of(*terms: int, base: tuple[int, int] = (0, 0)) -> Log:
    """A log with entries of these terms after a base."""
    first = base[0] + 1
    return Log(*base, [Entry(first + i, term, COMMAND, b"%d.%d" % (first + i, term)) for i, term in enumerate(terms)])


def with_settings(**changes: object) -> RaftSettings:
    """The settings of these tests, with changes."""
    return replace(SETTINGS, **changes)  # type: ignore[arg-type]


def snapshot_of(index: int, term: int, size: int = 10) -> Snapshot:
    """A snapshot of any bytes."""
    return Snapshot.of(index, term, bytes(range(256))[:size] * 1)


__all__ = ["SETTINGS", "Flying", "Table", "log_of", "snapshot_of", "with_settings"]
