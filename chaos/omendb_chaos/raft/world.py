"""A simulated run: members, network, clients and faults on one virtual clock, every choice from one seed."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from omendb_chaos.raft.checks import Judge, Violation, check_logs
from omendb_chaos.raft.node import FATAL, Parts, SimNode, Surroundings
from omendb_chaos.raft.profiles import Profile
from omendb_chaos.sim.disk import SimDisk
from omendb_coordinator.consensus.codec import encode
from omendb_coordinator.consensus.messages import Message, VoteReply
from omendb_coordinator.consensus.settings import RaftSettings

_COMMANDS_PER_S = 8.0
_READS_PER_S = 5.0
_HEALED_S_MAX = 60.0


@dataclass(slots=True)
class Result:
    """How a run went. ``violation`` is empty when every promise was kept."""

    profile: str
    seed: int
    violation: str = ""
    acknowledged: int = 0
    reads: int = 0
    terms: int = 0
    events: int = 0
    faults: Counter[str] = field(default_factory=Counter)


class World:
    """One run: see :meth:`run`."""

    def __init__(self, seed: int, profile: Profile, parts: Parts) -> None:
        self._rng = random.Random(f"{profile.name}.{seed}")
        self._profile = profile
        self._result = Result(profile.name, seed)
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._blocked: Counter[tuple[str, str]] = Counter()
        self._healthy = False
        self._commands = itertools.count()
        rng = self._rng
        names = tuple(f"c{number}" for number in range(1, rng.choice((3, 3, 5)) + 1))
        judge = Judge()
        surroundings = Surroundings(
            now=lambda: self._now,
            after=self._after,
            send=self._send,
            rng=rng,
            judge=judge,
            settings=_settings(rng, compact=profile.compact),
            parts=parts,
            padding=rng.choice((0, 400)),
            down_s=rng.choice(((0.002, 0.02), (0.02, 0.2, 1.0, 3.0))),
        )
        self._judge = judge
        self._nodes = {name: SimNode(name, names, surroundings, SimDisk(rng.getrandbits(32))) for name in names}

    def run(self, seconds: float) -> Result:
        """Let things go wrong for so long, then let them go right, and see whether everybody agrees."""
        try:
            for node in self._nodes.values():
                node.start()
            self._often(_COMMANDS_PER_S, self._propose)
            self._often(_READS_PER_S, self._read)
            self._plan_faults()
            self._run_until(seconds)
            self._heal()
            check_logs({name: node.member.core.log for name, node in self._nodes.items() if node.member})
        except FATAL as error:
            self._result.violation = f"{type(error).__name__} at {self._now:.3f} s: {error}"
        result = self._result
        result.acknowledged = sum(node.acknowledged for node in self._nodes.values())
        result.reads = sum(node.reads for node in self._nodes.values())
        result.terms = len(self._judge.leaders)
        return result

    # -- time

    def _after(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now + seconds, next(self._order), what))

    def _run_until(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            self._now, _, what = heapq.heappop(self._events)
            self._result.events += 1
            what()
        self._now = end

    def _often(self, per_s: float, what: Callable[[], None], *, fault: str = "") -> None:
        """Do something again and again, at random times; a fault no longer once the world is healthy."""

        def again() -> None:
            if fault and self._healthy:
                return
            if fault:
                self._result.faults[fault] += 1
            what()
            self._after(self._rng.expovariate(per_s), again)

        if per_s > 0:
            self._after(self._rng.expovariate(per_s), again)

    # -- the network

    def _send(self, sender: str, to: str, message: Message) -> None:
        if self._blocked[(sender, to)] > 0 or (not self._healthy and self._rng.random() < self._profile.loss):
            return
        if isinstance(message, VoteReply) and self._rng.random() < self._profile.killed_voters:
            self._after(0.0, self._nodes[sender].kill)
        data = b"".join(encode(message))
        self._fly(sender, to, data)
        if not self._healthy and self._rng.random() < self._profile.twice:
            self._fly(sender, to, data)

    def _fly(self, sender: str, to: str, data: bytes) -> None:
        rng = self._rng
        shortest, longest = 0.0005, 0.005
        if not self._healthy:
            longest = self._profile.delay_s
            if rng.random() < self._profile.slow:
                shortest, longest = 0.05, 1.0
        self._after(rng.uniform(shortest, longest), lambda: self._arrive(sender, to, data))

    def _arrive(self, sender: str, to: str, data: bytes) -> None:
        if self._blocked[(sender, to)] <= 0:
            self._nodes[to].deliver(sender, data)

    # -- clients

    def _propose(self) -> None:
        commands = [b"%d" % next(self._commands) for _ in range(self._rng.choice((1, 1, 3, 10)))]
        self._some_leader().propose(commands)

    def _read(self) -> None:
        self._some_leader().read()

    def _some_leader(self) -> SimNode:
        nodes = list(self._nodes.values())
        leaders = [node for node in nodes if node.member is not None and node.member.core.role == "leader"]
        return self._rng.choice(leaders if leaders and self._rng.random() < 0.9 else nodes)

    # -- faults

    def _plan_faults(self) -> None:
        profile, rng = self._profile, self._rng

        def one(act: Callable[[SimNode], None]) -> Callable[[], None]:
            return lambda: act(self._victim())

        self._often(profile.cuts, self._cut, fault="cuts")
        self._often(profile.pauses, one(lambda node: node.pause(rng.expovariate(1.0))), fault="pauses")
        self._often(profile.kills, one(SimNode.kill), fault="kill -9")
        self._often(profile.power_cuts, one(SimNode.cut_power), fault="power cuts")
        self._often(profile.all_power_cuts, self._cut_all_power, fault="whole-group power cuts")
        self._often(profile.failed_syncs, one(lambda node: node.kill(failing_syncs=True)), fault="failed syncs")
        self._often(profile.lost_disks, self._lose_disk)

    def _victim(self) -> SimNode:
        """Most of what can go wrong goes wrong around a leader."""
        return self._some_leader() if self._rng.random() < 0.5 else self._rng.choice(list(self._nodes.values()))

    def _cut(self) -> None:
        rng = self._rng
        one = self._victim().name
        other = rng.choice([name for name in self._nodes if name != one])
        kind = rng.randrange(4)
        if kind == 0:
            links = [(one, other), (other, one)]
        elif kind == 1:
            links = [(one, other)]
        else:
            links = [link for name in self._nodes if name != one for link in ((one, name), (name, one))]
            if kind == 3:
                # It can send, and hears nothing.
                links = [(source, to) for source, to in links if to == one]
        self._blocked.update(links)
        self._after(rng.expovariate(0.7), lambda: self._blocked.subtract(links))

    def _cut_all_power(self) -> None:
        for node in self._nodes.values():
            node.cut_power()

    def _lose_disk(self) -> None:
        # One at a time: a majority of disks must be whole.
        if self._healthy or any(node.lost_disk for node in self._nodes.values()):
            return
        self._result.faults["lost disks"] += 1
        self._victim().lose_disk()

    # -- the end

    def _heal(self) -> None:
        """No more faults: everybody must come to the same state, and take a new command."""
        self._healthy = True
        self._blocked.clear()
        for node in self._nodes.values():
            node.resume(node.life)
        deadline = self._now + _HEALED_S_MAX
        target = self._judge.acknowledged_to
        while self._now < deadline:
            self._run_until(self._now + 0.5)
            if self._judge.acknowledged_to > target and self._agree():
                return
        stands = [str(node.member.status) if node.member else "down" for node in self._nodes.values()]
        raise Violation(f"no agreement {_HEALED_S_MAX} s after the last fault: {stands}")

    def _agree(self) -> bool:
        members = [node.member for node in self._nodes.values()]
        up = [member for member in members if member is not None and member.core.role in ("leader", "follower")]
        newest = max((member.applied_index for member in up), default=0)
        # Commands keep coming, so members may be a moment apart.
        return len(up) == len(members) and all(member.applied_index >= newest - 20 for member in up)


def _settings(rng: random.Random, *, compact: bool) -> RaftSettings:
    """Small numbers, so that windows fill, messages split and snapshots come often."""
    return RaftSettings(
        heartbeat_s=0.1,
        election_min_s=0.4,
        election_max_s=rng.choice((0.48, 0.8)),
        message_bytes=rng.choice((100, 400, 1 << 20)),
        window=rng.choice((1, 2, 8)),
        chunk_bytes=rng.choice((40, 300, 65536)),
        snapshot_entries=rng.choice((5, 20, 60)) if compact else 10**9,
        keep_entries=rng.choice((0, 3, 20)),
    )


def simulate(profile: Profile, seed: int, *, seconds: float = 8.0, parts: Parts | None = None) -> Result:
    """Run one seed of a profile; ``seconds`` are virtual."""
    return World(seed, profile, parts if parts is not None else Parts()).run(seconds)


__all__ = ["Result", "World", "simulate"]
