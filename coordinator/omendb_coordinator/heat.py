"""How much of the nodes' processors each replica takes, as the planners of moves see it.

A replica is hot when it takes ``hot_from`` processors or more; what takes less counts for nothing here, so that moving
it changes nothing. One that has told nothing yet is taken for as busy as the others of its shard, or as its shard last
was: a replica that has just moved for its load must not seem cold where it went.
"""

from __future__ import annotations

from collections.abc import Mapping

from omendb_common.topology import Member, ReplicaSize, Topology

Told = Mapping[str, Mapping[tuple[str, int], ReplicaSize]]
"""By node: what it told of its replicas, by collection and shard."""


class Heat:
    """The loads of all replicas; ``hot_from`` 0: nothing is ever hot."""

    def __init__(self, hot_from: float) -> None:
        self.hot_from = hot_from
        self._of: dict[tuple[str, str, int], float] = {}
        self._last: dict[tuple[str, int], float] = {}

    def hear(self, topology: Topology, told: Told) -> None:
        """Take what nodes told last."""
        shards = {(c.schema.uuid, s.shard_id): s for c in topology.collections.values() for s in c.shards}
        known = {
            (node_id, *key): one.load.total
            for node_id, sizes in told.items()
            for key, one in sizes.items()
            if one.load is not None and key in shards
        }
        last: dict[tuple[str, int], float] = {}
        for (_, uuid, shard_id), load in known.items():
            last[uuid, shard_id] = max(load, last.get((uuid, shard_id), 0.0))
        self._last = {key: load for key, load in self._last.items() if key in shards} | last
        self._of = {
            (r.node_id, *key): known.get((r.node_id, *key), self._last.get(key, 0.0))
            for key, shard in shards.items()
            for r in shard.replicas
        }

    def of(self, node_id: str, uuid: str, shard_id: int) -> float:
        """The processors that a hot replica takes; 0.0 of any other."""
        load = self._of.get((node_id, uuid, shard_id), 0.0)
        return load if 0.0 < self.hot_from <= load else 0.0

    def taken(self, node: Member) -> float:
        """What the hot replicas of a node take, for its capacity."""
        places = [(uuid, shard_id) for node_id, uuid, shard_id in self._of if node_id == node.node_id]
        return sum(self.of(node.node_id, *place) for place in places) / node.capacity


COLD = Heat(0.0)
"""Nobody looks at loads."""

__all__ = ["COLD", "Heat", "Told"]
