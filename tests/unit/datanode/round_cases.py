"""Three nodes of one shard under one map, each with its rounds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omendb_common.deadline import Deadline
from omendb_common.metadata import RepairedShard
from omendb_common.quorum import Quorums
from omendb_common.ring import RING
from omendb_common.shard_calls import DataNode
from omendb_common.topology import (
    CollectionInfo,
    Member,
    MemberState,
    Move,
    ReplicaPlace,
    ReplicaState,
    Shard,
    Topology,
)
from omendb_datanode.config import RepairSettings
from omendb_datanode.hosting import OpenShard
from omendb_datanode.node_folder import ReplicaKey
from omendb_datanode.replicate.pace import Pace
from omendb_datanode.replicate.peers import Peers
from omendb_datanode.replicate.repairer import Repairer
from omendb_datanode.replicate.rounds import Rounds
from omendb_engine.hash_tree import TreeCheck
from omendb_engine.replica import Replica
from tests.unit.datanode.datanode_cases import EPOCH, Node
from tests.unit.datanode.exchange_cases import QUICK, nodes_in

NAMES = ("d1", "d2", "d3")


@dataclass
class Group:
    """Nodes d1, d2 and d3, and the map that all of them have."""

    nodes: list[Node]
    settings: RepairSettings = QUICK
    places: tuple[ReplicaPlace, ...] = tuple(map(ReplicaPlace, NAMES))
    states: dict[str, MemberState] = field(default_factory=dict)
    floor: int = 0
    repaired: int = 0
    move: Move | None = None
    epoch: int = EPOCH
    paused: bool = False
    quorums: Quorums | None = None
    write_quorum: int = 2
    doors: dict[str, DataNode] = field(default_factory=dict)
    """What stands before a node's rules, by name."""
    proven: list[RepairedShard] = field(default_factory=list)
    callbacks: list[Callable[[Topology], None]] = field(default_factory=list)

    @property
    def shard(self) -> Shard:
        """The shard of the map."""
        return Shard(*(0, 0, RING, self.epoch, self.places, self.floor, self.repaired, self.move), quorums=self.quorums)

    @property
    def topology(self) -> Topology:
        """The map."""
        schema = self.nodes[0].replica.schema
        info = CollectionInfo("docs", schema, (self.shard,), 3, self.write_quorum, 2, None, self.epoch)
        members = {n: Member(n, "datanode", f"{n}:1", n, state=self.states.get(n, "up")) for n in NAMES}
        return Topology("cluster", self.epoch, {"docs": info}, {}, members, moves_paused=self.paused)

    async def refresh(self, revision: int, deadline: Deadline) -> Topology:
        """There is no newer one."""
        return self.topology

    def on_change(self, callback: Callable[[Topology], None]) -> None:
        """Remember the callback."""
        self.callbacks.append(callback)

    def say(self, node_id: str, state: MemberState) -> None:
        """A member's state changes, and everybody hears of it."""
        self.states[node_id] = state
        for callback in self.callbacks:
            callback(self.topology)

    def state(self, node_id: str, state: ReplicaState) -> None:
        """The state of a replica changes."""
        self.places = tuple(replace(p, state=state) if p.node_id == node_id else p for p in self.places)

    def node(self, node_id: str) -> Node:
        """A node by its name."""
        return self.nodes[NAMES.index(node_id)]

    def opened(self, node_id: str = "d1") -> OpenShard:
        """The replica of a node."""
        node = self.node(node_id)
        key = ReplicaKey(node.replica.schema.uuid, 0)
        return OpenShard(key, self.shard, node.map.hosted[(key.collection_uuid, 0)])

    def rounds(self, node_id: str = "d1") -> Rounds:
        """The rounds of a node."""
        node = self.node(node_id)

        async def close(_: DataNode) -> None:
            """Nothing to end."""

        peers = Peers(lambda member: self.doors.get(member.node_id, self.node(member.node_id).rules), close)
        pace = Pace(node.clock, self.settings)
        return Rounds(node_id, node.rules, peers, self, node.clock, self.settings, pace, self.proven.append)

    def repairer(
        self, node_id: str, report: Callable[[Sequence[RepairedShard]], Awaitable[None]], **more: Any
    ) -> Repairer:
        """The repairer of a node."""

        async def check(replica: Replica) -> TreeCheck:
            return replica.hash_trees.check(1 << 60)

        rounds = self.rounds(node_id)
        made = Repairer(
            *(node_id, rounds, lambda: [self.opened(node_id)], self, self.node(node_id).clock, self.settings),
            check=more.get("check", check),
            report=report,
        )
        rounds._proven = made.proven
        self.node(node_id).rules._care = made.on_request
        return made


@contextmanager
def group_in(path: Path, **more: Any) -> Iterator[Group]:
    """Three nodes with empty replicas."""
    with nodes_in(path, 3) as nodes:
        yield Group(nodes, **more)
