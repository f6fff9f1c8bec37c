"""Clients of the catalog in the simulated world of the Raft group: kills, cuts, power cuts, lost answers."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from omendb_chaos.checkers.linearizability import Operation, Recorder, check
from omendb_chaos.metadata.intentions import NODES, Intentions
from omendb_chaos.metadata.specification import FIRST_PLACEMENT, Call, CatalogObject, Picture, answer_of, picture_of
from omendb_chaos.raft.checks import Judge, Machine, Violation
from omendb_chaos.raft.node import Parts, SimNode
from omendb_chaos.raft.profiles import Profile
from omendb_chaos.raft.world import Result, World
from omendb_common.errors import OmenDBError, UnavailableError
from omendb_common.schema import CollectionSchema, VectorField
from omendb_common.topology import Member as ClusterMember
from omendb_common.topology import Topology, member_to_json
from omendb_coordinator.catalog import Catalog
from omendb_coordinator.commands import REQUESTS_REMEMBERED, Command, decode_result
from omendb_coordinator.consensus.member import Proposal, Read
from omendb_coordinator.consensus.seam import Committed, StateMachine

CLIENTS = 5
OPERATIONS = 200
_ATTEMPT_S = 0.5
_PATIENCE_S = 20.0
_IMPATIENT = 0.04
_THINK_S = 0.03
_LOST_ANSWERS = 0.05
_SCHEMA = CollectionSchema("", (VectorField(4),)).to_json()


@dataclass(frozen=True, slots=True)
class Rules:
    """What a test breaks, to see that it is noticed."""

    remembered: int = REQUESTS_REMEMBERED
    reads_ask_the_group: bool = True


def _template(remembered: int) -> bytes:
    """A catalog in which all data nodes are members."""
    catalog = Catalog(remembered=remembered)
    for number, node_id in enumerate(NODES):
        member = member_to_json(ClusterMember(node_id, "datanode", f"{node_id}:1", "folder"))
        catalog.apply(0, Command(f"member {number}", "test", "register", {"member": member}, 0).encode())
    return catalog.snapshot()


class CatalogMachine:
    """The catalog as the group's machine, beside the one that the group's own judge watches."""

    def __init__(self, judge: Judge, node: str, padding: int, world: CatalogWorld) -> None:
        self._inner = Machine(judge, node, padding)
        self._world = world
        self._node = node
        self.catalog = Catalog(remembered=world.rules.remembered)
        self.catalog.restore(world.template, 0)
        world.machines[node] = self

    def apply(self, index: int, command: bytes) -> bytes:
        """See ``StateMachine``."""
        self._inner.apply(index, command)
        result = self.catalog.apply(index, command)
        if self._world.results.setdefault(index, result) != result:
            raise Violation(f"{self._node} answers entry {index} otherwise than the others")
        return result

    def snapshot(self) -> bytes:
        """See ``StateMachine``."""
        inner = self._inner.snapshot()
        return struct.pack("<I", len(inner)) + inner + self.catalog.snapshot()

    def restore(self, data: bytes, index: int) -> None:
        """See ``StateMachine``."""
        (length,) = struct.unpack_from("<I", data)
        self._inner.restore(data[4 : 4 + length], index)
        self.catalog.restore(data[4 + length :], index)


class CatalogNode(SimNode):
    """A member whom clients ask for more than a checksum."""

    def ask(self, command: bytes, told: Callable[[Committed | OmenDBError], None]) -> bool:
        """Propose a command; False when there is nobody to take it."""
        if self.member is None or self.paused:
            return False
        answer = self._answer(command)

        def done(result: Committed | OmenDBError) -> None:
            answer(result)
            told(result)

        self.member.propose([Proposal(command, done)], self.world.now())
        if self.member is not None:
            self._after_event(self.member)
        return True

    def look(self, told: Callable[[int | OmenDBError], None]) -> bool:
        """Ask for an index to read at; False when there is nobody to say it."""
        if self.member is None or self.paused:
            return False
        self.member.read([Read(told)], self.world.now())
        if self.member is not None:
            self._after_event(self.member)
        return True


class CatalogWorld(World):
    """A run with clients of the catalog; :meth:`history` is what they saw."""

    def __init__(self, seed: int, profile: Profile, rules: Rules | None = None) -> None:
        self.rules = rules if rules is not None else Rules()
        self.template = _template(self.rules.remembered)
        self.machines: dict[str, CatalogMachine] = {}
        self.results: dict[int, bytes] = {}
        super().__init__(seed, profile, Parts(machine=self._machine))
        surroundings = next(iter(self._nodes.values())).world
        # A catalog in chunks of forty bytes would take longer than the time between two snapshots of it.
        surroundings.settings = replace(surroundings.settings, chunk_bytes=16 << 10)
        self._nodes = {
            name: CatalogNode(name, node.members, node.world, node.disk) for name, node in self._nodes.items()
        }
        self.rng = self._rng
        self.recorder = Recorder(lambda: self._now)
        self.intentions = Intentions(random.Random(self._rng.random()))
        self.begun = 0
        self._clients = [Client(self, f"client {number}") for number in range(CLIENTS)]
        self._idle = 0

    def _machine(self, judge: Judge, node: str, padding: int) -> StateMachine:
        return CatalogMachine(judge, node, padding, self)

    def run(self, seconds: float) -> Result:
        """See ``World``; the clients stop after so many operations, the faults after ``seconds``."""
        for client in self._clients:
            self.after(self.rng.expovariate(1 / _THINK_S), client.next)
        return super().run(seconds)

    def history(self) -> list[Operation]:
        """Every call and its answer."""
        return self.recorder.history()

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return self._now

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Do something later."""
        self._after(seconds, what)

    def node(self) -> CatalogNode:
        """The one a client would ask: mostly the leader."""
        node = self._some_leader()
        assert isinstance(node, CatalogNode)
        return node

    def topology(self, node: CatalogNode) -> Topology:
        """What a member holds now."""
        return self.machines[node.name].catalog.topology

    def _propose(self) -> None:
        # The group's own load, which the clients do not see.
        self._idle += 1
        idle = Command(f"idle {self._idle}", "test", "set_alias", {"alias": "nobody's", "collection": None}, 0)
        self.node().propose([idle.encode()])


class Client:
    """One client: one call at a time, tried until it is answered or given up."""

    def __init__(self, world: CatalogWorld, name: str) -> None:
        self._world = world
        self._name = name
        self._epochs: dict[str, int] = {}
        self._seen = Picture()
        self._turn = 0
        self._call: Call = ("read",)
        self._number = 0
        self._request = ""
        self._maybe = False
        self._attempts = 0
        self._until = 0.0

    def next(self) -> None:
        """Begin the next call."""
        world = self._world
        if world.begun >= OPERATIONS:
            return
        world.begun += 1
        self._call = world.intentions.next(self._seen)
        self._number = world.recorder.begin(self._name, "catalog", self._call)
        self._request = f"{self._name}.{self._number}"
        self._maybe = False
        self._attempts = 0
        patience_s = _ATTEMPT_S / 2 if world.rng.random() < _IMPATIENT else _PATIENCE_S
        self._until = world.now + patience_s
        self._try()

    def _try(self) -> None:
        if self._attempts and self._world.now >= self._until:
            self._give_up()
            return
        self._attempts += 1
        self._turn += 1
        turn = self._turn
        node = self._world.node()

        def told(result: Any) -> None:
            # The way back is a network too.
            if self._world.rng.random() >= _LOST_ANSWERS:
                self._world.after(self._world.rng.uniform(0.0, 0.005), lambda: self._answered(turn, result))

        if self._call[0] == "read":
            sent = self._read(node, told)
        else:
            sent = node.ask(self._command(), told)
            self._maybe = self._maybe or sent
        self._world.after(_ATTEMPT_S if sent else 0.05, lambda: self._silent(turn))

    def _read(self, node: CatalogNode, told: Callable[[Any], None]) -> bool:
        if not self._world.rules.reads_ask_the_group:
            told(self._world.topology(node))
            return True

        def at(result: int | OmenDBError) -> None:
            told(self._world.topology(node) if isinstance(result, int) else result)

        return node.look(at)

    def _command(self) -> bytes:
        op, args = _operation(self._call, self._epochs)
        # Every attempt is an entry of its own for the group's judge; for the catalog it is the same request.
        return Command(self._request, self._name, op, args, self._attempts).encode()

    def _silent(self, turn: int) -> None:
        if turn == self._turn:
            self._try()

    def _answered(self, turn: int, result: Any) -> None:
        if turn != self._turn:
            return
        if isinstance(result, Topology):
            self._picture(result)
            self._done(self._seen)
        elif isinstance(result, Committed):
            self._done(_answer(result.result))
        elif isinstance(result, UnavailableError):
            # What this attempt certainly did not do, an earlier one may have done.
            self._turn += 1
            self._world.after(self._world.rng.uniform(0.01, 0.2), self._try)
        else:
            raise Violation(f"{self._name} was told {result!r}")

    def _picture(self, topology: Topology) -> None:
        self._seen = picture_of(topology)
        self._epochs = {c.schema.options["made"]: c.shards[0].epoch for c in topology.collections.values()}

    def _done(self, answer: Any) -> None:
        self._turn += 1
        self._world.recorder.end(self._number, answer)
        self._world.after(self._world.rng.expovariate(1 / _THINK_S), self.next)

    def _give_up(self) -> None:
        self._turn += 1
        if self._maybe:
            self._world.recorder.leave_open(self._number)
        else:
            self._world.recorder.forget(self._number)
        self._world.after(self._world.rng.expovariate(1 / _THINK_S), self.next)


def _operation(call: Call, epochs: dict[str, int]) -> tuple[str, dict[str, Any]]:
    """A call as an operation of the catalog."""
    match call:
        case ("create", name, made):
            return "create_collection", {
                "name": name,
                "uuid": f"uuid of {made}",
                "schema": {**_SCHEMA, "options": {"made": made}},
                "replication": len(FIRST_PLACEMENT),
                "write_quorum": 2,
                "read_quorum": 2,
                "nodes": list(FIRST_PLACEMENT),
                "places": [list(range(len(FIRST_PLACEMENT)))],
                "members_revision": 0,
            }
        case ("drop", name):
            return "drop_collection", {"name": name}
        case ("rename", old, new):
            return "rename_collection", {"old": old, "new": new}
        case ("alias", alias, target):
            return "set_alias", {"alias": alias, "collection": target}
        case ("alter", name, number):
            return "alter_collection", {"name": name, "options": {"n": number}}
        case ("move", made, _, wanted):
            replicas = [[node_id, "active"] for node_id in wanted]
            shard = {"uuid": f"uuid of {made}", "shard_id": 0, "epoch": epochs[made]}
            return "place_shard", {**shard, "replicas": replicas}
    raise ValueError(f"no call of the catalog: {call!r}")


def _answer(result: bytes) -> str:
    try:
        decode_result(result)
    except OmenDBError as error:
        answer = answer_of(error)
        if answer is None:
            raise Violation(f"the catalog refused: {error}") from error
        return answer
    return "ok"


def simulate(seed: int, profile: Profile, rules: Rules | None = None, *, seconds: float = 16.0) -> tuple[Result, int]:
    """One run and the verdict on its history, and how many calls were answered."""
    # Powers and disks are the group's matter; here it is what clients see.
    world = CatalogWorld(seed, profile, rules)
    result = world.run(seconds)
    history = world.history()
    if not result.violation:
        verdict = check(history, CatalogObject())
        if not verdict.ok:
            result = replace(result, violation=verdict.why)
    return result, sum(1 for operation in history if not operation.is_open)


__all__ = ["CLIENTS", "OPERATIONS", "CatalogMachine", "CatalogNode", "CatalogWorld", "Client", "Rules", "simulate"]
