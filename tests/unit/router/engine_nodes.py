"""Data nodes with the real rules over the real engine, on simulated disks: what the memory nodes stand for."""

from __future__ import annotations

from omendb_chaos.sim.disk import SimDisk
from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.metadata import TopologySource
from omendb_common.shard_calls import ShardRef
from omendb_datanode.engine_threads import EngineThreads
from omendb_datanode.hosted import Hosted
from omendb_datanode.shard_rules import ShardRules
from omendb_engine.replica import Replica
from omendb_engine.resources import Resources
from tests.unit.engine.engine_cases import settings_of


class EngineReplicas:
    """The replicas of one node: each is made when it is first asked for. Everything happens where it is called."""

    def __init__(self, node_id: str, clock: Clock, source: TopologySource) -> None:
        self._node_id = node_id
        self._clock = clock
        self._source = source
        self._disk = SimDisk()
        self._settings = settings_of(rows=20, durability="fsync")
        self._open: dict[tuple[str, int], Replica] = {}

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
        if key not in self._open:
            path = f"/{shard.collection_uuid}.{shard.shard_id}"
            Replica.create(self._disk, path, info.schema, self._clock)
            self._open[key] = Replica.open(
                self._disk,
                path,
                info.schema.uuid,
                Resources(self._settings),
                self._settings,
                self._clock,
                keep_tombstones=True,
            )
        return Hosted(self._open[key], placed.epoch, placed.epoch)

    async def refresh(self, revision: int, deadline: Deadline) -> None:
        """It is never behind."""

    def close(self) -> None:
        """Close every replica."""
        for replica in self._open.values():
            replica.close()


def engine_node(node_id: str, clock: Clock, source: TopologySource) -> tuple[ShardRules, EngineReplicas]:
    """A data node, and what to close when it is done with."""
    replicas = EngineReplicas(node_id, clock, source)
    return ShardRules(replicas, clock, EngineThreads(readers=0, writers=0)), replicas
