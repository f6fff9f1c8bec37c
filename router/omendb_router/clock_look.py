"""Asks data nodes for their clocks: where too little was heard of them, and where that says that ours is wrong (P22).

Before it has heard of them a router cannot know that its clock is wrong. A stamp an hour ahead that one data node
takes, whose clock is as wrong, lies there for an hour, and then covers what was written meanwhile.

What was heard may itself be wrong by now: a machine that was suspended, or moved to another host, comes back with a
wall clock that went on and a monotonic one that stood still. A write that is refused gives no answers, so without
asking a router that only writes would stay refused until its answers are too old to count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.ids import IdColumn
from omendb_common.shard_calls import Looked, Lookup, ShardRef
from omendb_common.topology import Topology
from omendb_router.fanout import Asking, Fanout
from omendb_router.stamps import ClockCheck

_PATIENCE_S = 1.0


class ClockLook:
    """One look at a time, whoever wants one."""

    def __init__(self, fanout: Fanout, clock: Clock, checked: ClockCheck) -> None:
        self._fanout = fanout
        self._clock = clock
        self._checked = checked
        self._looking: asyncio.Task[None] | None = None
        self._topology: Topology | None = None
        self._places: Mapping[str, ShardRef] = {}

    def nodes(self, topology: Topology) -> int:
        """How many data nodes there are to ask: those that hold a replica; at least one."""
        if topology is not self._topology:
            self._topology, self._places = topology, _one_replica_each(topology)
        return max(len(self._places), 1)

    async def again(self, topology: Topology, origin: int, deadline: Deadline) -> None:
        """Hear all data nodes, or so many that they prove our clock right; a second at most.

        What they answer is observed as always.
        """
        nodes = self.nodes(topology)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look(origin, nodes))
            self._fanout.own(self._looking)
        looking = self._looking
        await asyncio.wait([looking], timeout=deadline.left_s)
        if looking.done() and not looking.cancelled():
            looking.result()

    async def _look(self, origin: int, nodes: int) -> None:
        deadline = Deadline.after(self._clock, _PATIENCE_S)
        asking: Asking[Looked] = self._fanout.asking("lookup", deadline)
        for node_id, ref in self._places.items():
            call = Lookup(ref._replace(origin=origin), IdColumn.empty(), brief=True)
            asking.start(node_id, lambda _, node, call=call: node.lookup(call, deadline))  # type: ignore[misc]
        try:
            while asking.pending and not self._checked.right(nodes):
                await asking.next()
        finally:
            asking.cancel()


def _one_replica_each(topology: Topology) -> dict[str, ShardRef]:
    """Of each data node one replica, by which it can be asked."""
    return {
        node_id: ShardRef(info.schema.uuid, shard.shard_id, shard.epoch, 0)
        for info in topology.collections.values()
        for shard in info.shards
        for node_id in shard.nodes("active")
    }


__all__ = ["ClockLook"]
