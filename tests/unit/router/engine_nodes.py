"""Data nodes with the real rules over the real engine, on simulated disks: what the memory nodes stand for."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence

from omendb_chaos.sim.disk import SimDisk
from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.metadata import TopologySource
from omendb_common.shard_calls import ShardRef
from omendb_datanode.engine_threads import EngineThreads
from omendb_datanode.hosted import Hosted
from omendb_datanode.replicate.exchange import settled_stamp
from omendb_datanode.shard_rules import ShardRules
from omendb_engine.hash_tree import HashTree
from omendb_engine.replica import Replica
from omendb_engine.resources import Resources
from tests.unit.engine.engine_cases import settings_of

_OPENINGS = itertools.count(1)


class EngineReplicas:
    """The replicas of one node: each is made when it is first asked for. Everything happens where it is called."""

    def __init__(self, node_id: str, clock: Clock, source: TopologySource) -> None:
        self._node_id = node_id
        self.clock = clock
        self._source = source
        self._disk = SimDisk()
        self._settings = settings_of(rows=20, durability="fsync")
        self.opened: dict[tuple[str, int], Replica] = {}

    @property
    def revision(self) -> int:
        """The newest there is."""
        return self._source.topology.revision

    def find(self, shard: ShardRef) -> Hosted | None:
        """The replica of that collection and shard."""
        info = self._source.topology.by_uuid(shard.collection_uuid)
        placed = None if info is None else info.shard(shard.shard_id)
        if info is None or placed is None or self._node_id not in {r.node_id for r in placed.replicas}:
            return None
        key = shard.collection_uuid, shard.shard_id
        if key not in self.opened:
            path = f"/{shard.collection_uuid}.{shard.shard_id}"
            Replica.create(self._disk, path, info.schema, self.clock)
            self.opened[key] = Replica.open(
                self._disk,
                path,
                info.schema.uuid,
                Resources(self._settings),
                self._settings,
                self.clock,
                keep_tombstones=True,
            )
        return Hosted(self.opened[key], placed.epoch, placed.epoch)

    async def refresh(self, revision: int, deadline: Deadline) -> None:
        """It is never behind."""

    def close(self) -> None:
        """Close every replica."""
        for replica in self.opened.values():
            replica.close()


async def agree(engines: Sequence[EngineReplicas], lag_s: float, pause: Callable[[], Awaitable[None]]) -> int:
    """Have the replicas of every shard agree, with pauses in which anything may happen; how many did.

    What data nodes do among themselves (see ``omendb_datanode.replicate.agreeing``), without a network that fails.
    """
    agreed = 0
    for key in sorted({key for replicas in engines for key in replicas.opened}):
        found: list[tuple[Replica, HashTree, int]] = []
        for replicas in engines:
            replica = replicas.opened.get(key)
            if replica is not None:
                through = settled_stamp(engines[0].clock, lag_s) if not found else found[0][1].through
                replica.agreements.opening = replica.agreements.opening or next(_OPENINGS)
                replica.agreements.begin(through)
                await pause()
                tree = replica.hash_trees.tree(through, 0)
                await pause()
                found.append((replica, tree, replica.snapshot().lsn))
        same = [one for one in found if one[1].level(0) == found[0][1].level(0)]
        openings, positions = [r.agreements.opening for r, _, _ in same], [lsn for _, _, lsn in same]
        for replica, tree, _ in same:
            await pause()
            agreed += len(same) > 1 and replica.agreements.note(tree.through, openings, positions)
    return agreed


def engine_node(node_id: str, clock: Clock, source: TopologySource) -> tuple[ShardRules, EngineReplicas]:
    """A data node, and what to close when it is done with."""
    replicas = EngineReplicas(node_id, clock, source)
    return ShardRules(replicas, clock, EngineThreads(readers=0, writers=0)), replicas
