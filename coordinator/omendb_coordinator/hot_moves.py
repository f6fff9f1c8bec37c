"""Which hot replica should go to a cooler node now.

Moves end under a load that does not change, and none is undone. Of two nodes the hotter one gives, and the other takes
only if it stays cooler than the giver was, by ``hot_from``: so what nodes take, the hottest first, gets less with each
such move. Balancing by numbers leaves that order alone (see ``moves``): it may move what is cold, and what is hot only
if the taker stays cooler than the giver was. So it brings back as many cold replicas as hot ones went.
"""

from __future__ import annotations

from omendb_common.topology import Member, Topology
from omendb_coordinator.heat import Heat
from omendb_coordinator.moves import Fleet, MoveLimits, Step, at_rest, movable


class HotMoves:
    """Plans moves by load. It remembers since when which node has had one to begin, if it is asked again and again.

    Args:
        after_s: for so long a node must have had a replica that is better elsewhere.
    """

    def __init__(self, limits: MoveLimits, after_s: float) -> None:
        self._limits = limits
        self._after_s = after_s
        self._since: dict[str, float] = {}

    def forget(self) -> None:
        """What was seen is too old: this member did not lead meanwhile."""
        self._since.clear()

    def plan(self, topology: Topology, heat: Heat, now_s: float) -> list[Step]:
        """The move that is due now, if one is: from the hottest node that has had one for long enough."""
        fleet = Fleet(topology, self._limits)
        if not heat.hot_from or topology.moves_paused or not at_rest(fleet, topology):
            return []
        nodes = sorted(fleet.nodes.values(), key=lambda n: (-heat.taken(n), n.node_id))
        found = {node.node_id: step for node in nodes if (step := _best(fleet, topology, heat, nodes, node))}
        self._since = {node_id: self._since.get(node_id, now_s) for node_id in found}
        due = [step for node_id, step in found.items() if now_s - self._since[node_id] >= self._after_s]
        return due[:1]


def _best(fleet: Fleet, topology: Topology, heat: Heat, nodes: list[Member], full: Member) -> Step | None:
    """The hottest replica of a node that may go, to the coolest node that may take it."""
    taken = heat.taken(full)
    hot = [
        (load, info, shard)
        for info, shard in movable(topology)
        if (load := heat.of(full.node_id, info.schema.uuid, shard.shard_id))
    ]
    for load, info, shard in sorted(hot, key=lambda one: -one[0]):
        for other in reversed(nodes):
            after = heat.taken(other) + load / other.capacity
            if after + heat.hot_from <= taken and fleet.fits(shard, full, other):
                at = info.schema.uuid, shard.shard_id, shard.epoch
                why = f"load: {taken:.2f} processors, there {after:.2f} with it"
                return Step("begin_move", *at, full.node_id, other.node_id, why)
    return None


__all__ = ["HotMoves"]
