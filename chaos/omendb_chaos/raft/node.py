"""One simulated member: the real core and files on a simulated disk, killed and started again as the world wants."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from omendb_chaos.raft.checks import Judge, Machine, Violation
from omendb_chaos.sim.disk import SimDisk
from omendb_chaos.sim.faults import SYNC_KINDS, WRITE_KINDS
from omendb_common.errors import CorruptionError, OmenDBError, UnavailableError
from omendb_coordinator.consensus.codec import decode
from omendb_coordinator.consensus.core import RaftCore
from omendb_coordinator.consensus.identity import Identity
from omendb_coordinator.consensus.member import Job, Member, Proposal, Read
from omendb_coordinator.consensus.messages import Message
from omendb_coordinator.consensus.seam import Committed, StateMachine
from omendb_coordinator.consensus.settings import RaftSettings
from omendb_coordinator.consensus.state import RaftFatalError
from omendb_coordinator.consensus.storage import Storage

FOLDER = "raft"


@dataclass(slots=True)
class Parts:
    """What members are made of; a test puts broken ones in."""

    core: type[RaftCore] = RaftCore
    storage: type[Storage] = Storage
    machine: Callable[[Judge, str, int], StateMachine] = Machine


@dataclass(slots=True)
class Surroundings:
    """What a member gets from the world."""

    now: Callable[[], float]
    after: Callable[[float, Callable[[], None]], None]
    send: Callable[[str, str, Message], None]
    rng: random.Random
    judge: Judge
    settings: RaftSettings
    parts: Parts
    padding: int
    down_s: tuple[float, ...]


@dataclass(slots=True)
class SimNode:
    """See the module. ``life`` counts its processes: what was meant for an earlier one is forgotten."""

    name: str
    members: tuple[str, ...]
    world: Surroundings
    disk: SimDisk
    member: Member | None = None
    life: int = 0
    paused: bool = False
    lost_disk: bool = False
    acknowledged: int = 0
    reads: int = 0
    _inbox: list[tuple[str, bytes]] = field(default_factory=list)
    _job: Job | None = None
    _seen_commit: int = 0
    _seen_leading: int = 0

    # -- life and death

    def start(self) -> None:
        """Start the process; it may be killed while it recovers."""
        world = self.world
        self.life += 1
        self.disk.faults.clear()
        if world.rng.random() < 0.1 and not self.lost_disk and self.life > 1:
            self.disk.faults.fail(WRITE_KINDS, world.rng.randint(1, 12), sticky=True)
        try:
            if not world.parts.storage.exists(self.disk, FOLDER):
                birth = f"{self.name}.{self.life}"
                origin: Literal["bootstrap", "rejoin"] = "rejoin" if self.lost_disk else "bootstrap"
                world.parts.storage.create(self.disk, FOLDER, Identity("sim", self.name, self.members, birth, origin))
            storage = world.parts.storage.open(self.disk, FOLDER)
        except CorruptionError as error:
            raise Violation(f"{self.name} refuses to start: {error}") from error
        except OSError:
            self.disk.faults.clear()
            self._again_later()
            return
        self.disk.faults.clear()
        core = world.parts.core(
            self.name, self.members, world.settings, random.Random(world.rng.random()), world.now(), storage.recovered
        )
        machine = world.parts.machine(world.judge, self.name, world.padding)
        self.member = Member(core, storage, machine, world.settings, self._send)
        self._seen_commit = core.commit_index
        self._seen_leading = 0
        self._tick(self.life)

    def kill(self, *, failing_syncs: bool = False) -> None:
        """End the process: between two writes, or in the middle of one."""
        if self.member is None:
            return
        job, self._job = self._job, None
        self.member = None
        self.paused = False
        self.life += 1
        self._inbox.clear()
        if job is not None and (failing_syncs or self.world.rng.random() < 0.5):
            kinds = SYNC_KINDS if failing_syncs else WRITE_KINDS
            self.disk.faults.fail(kinds, self.world.rng.randint(1, 2 if failing_syncs else 5), sticky=True)
            with suppress(OSError):
                job.run()
            self.disk.faults.clear()
        self._again_later()

    def cut_power(self) -> None:
        """End the process, and with it what was not synced."""
        self.kill()
        self.disk = self.disk.power_cut(self.world.rng)

    def lose_disk(self) -> None:
        """End the process, and everything it ever wrote."""
        self.kill()
        self.lost_disk = True
        self.disk = SimDisk(self.world.rng.getrandbits(32))

    def pause(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so long."""
        if self.member is None or self.paused:
            return
        self.paused = True
        life = self.life
        self.world.after(seconds, lambda: self.resume(life))

    def resume(self, life: int) -> None:
        """SIGCONT: what arrived meanwhile comes first."""
        if life != self.life or not self.paused:
            return
        self.paused = False
        if self.world.rng.random() < 0.5:
            # A client was quicker than the network.
            self.read()
        inbox, self._inbox = self._inbox, []
        for sender, data in inbox:
            if life == self.life:
                self.deliver(sender, data)

    def _again_later(self) -> None:
        life = self.life
        seconds = self.world.rng.choice(self.world.down_s)

        def again() -> None:
            if life == self.life and self.member is None:
                self.start()

        self.world.after(seconds, again)

    # -- events

    def deliver(self, sender: str, data: bytes) -> None:
        """A message arrives, if there is a process to take it."""
        if self.paused:
            self._inbox.append((sender, data))
        elif self.member is not None:
            self.member.on_message(sender, decode(data), self.world.now())
            self._after_event(self.member)

    def propose(self, commands: list[bytes]) -> None:
        """Clients want these commands."""
        if self.member is None or self.paused:
            return
        self.member.propose([Proposal(command, self._answer(command)) for command in commands], self.world.now())
        self._after_event(self.member)

    def read(self) -> None:
        """A client wants to read."""
        member = self.member
        if member is None or self.paused:
            return
        floor = self.world.judge.acknowledged_to

        def done(result: int | OmenDBError) -> None:
            if isinstance(result, int):
                self.reads += 1
                self.world.judge.read(self.name, result, floor, member.applied_index)

        member.read([Read(done)], self.world.now())
        self._after_event(member)

    def _answer(self, command: bytes) -> Callable[[Committed | OmenDBError], None]:
        def done(result: Committed | OmenDBError) -> None:
            if isinstance(result, Committed):
                self.acknowledged += 1
                self.world.judge.acknowledge(self.name, command, result.index)
            elif not (isinstance(result, UnavailableError) and result.outcome == "unknown"):
                self.world.judge.refuse(command)

        return done

    def _send(self, to: str, message: Message) -> None:
        self.world.send(self.name, to, message)

    def _tick(self, life: int) -> None:
        if life != self.life or self.member is None:
            return
        if not self.paused:
            self.member.on_tick(self.world.now())
            self._after_event(self.member)
        if life == self.life:
            # Nobody's clock is exact.
            interval_s = self.world.settings.heartbeat_s * self.world.rng.uniform(0.4, 0.6)
            self.world.after(interval_s, lambda: self._tick(life))

    # -- the disk

    def _after_event(self, member: Member) -> None:
        self._observe(member)
        while self._job is None and (job := member.begin()) is not None:
            if not job.needs_disk:
                member.end(job, self.world.now())
                self._observe(member)
                continue
            self._job = job
            self._finish_later()

    def _finish_later(self) -> None:
        rng, life = self.world.rng, self.life
        seconds = rng.uniform(0.1, 1.0) if rng.random() < 0.01 else rng.uniform(0.0005, 0.008)
        self.world.after(seconds, lambda: self._finish(life))

    def _finish(self, life: int) -> None:
        if life != self.life or self.member is None or self._job is None:
            return
        if self.paused:
            self.world.after(0.05, lambda: self._finish(life))
            return
        job = self._job
        job.run()
        self._job = None
        self.member.end(job, self.world.now())
        self._after_event(self.member)

    def _observe(self, member: Member) -> None:
        core = member.core
        if core.commit_index > self._seen_commit:
            after = max(self._seen_commit, core.log.base_index)
            for entry in core.log.between(after, core.commit_index):
                self.world.judge.committed(entry, core.term)
            self._seen_commit = core.commit_index
        if core.role == "leader" and core.term != self._seen_leading:
            self._seen_leading = core.term
            self.world.judge.leads(self.name, core.term, core.log)
        if self.lost_disk and core.role != "rejoining" and not self.disk.exists(f"{FOLDER}/REJOIN"):
            self.lost_disk = False


# What ends a run: a broken promise, a member that stopped itself, or code that does not fit together.
FATAL = (Violation, RaftFatalError, OmenDBError, OSError, RuntimeError, ValueError, LookupError, AssertionError)

__all__ = ["FATAL", "FOLDER", "Parts", "SimNode", "Surroundings"]
