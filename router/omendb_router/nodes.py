"""The data nodes that a router can call, by id, following the topology."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from omendb_common.shard_calls import DataNode
from omendb_common.topology import Member, Topology

Connect = Callable[[Member], DataNode]
Close = Callable[[DataNode], Awaitable[None]]


class NodePool:
    """Clients of data nodes: made by ``connect`` when first called, closed when the member has moved or left.

    ``encoded``: the clients send bytes, so that a batch for several of them is encoded once by the caller.
    """

    def __init__(self, connect: Connect, close: Close, *, encoded: bool = True) -> None:
        self.encoded = encoded
        self._connect = connect
        self._close = close
        self._members: Mapping[str, Member] = {}
        self._clients: dict[str, tuple[tuple[str, str], DataNode]] = {}
        self._retired: list[DataNode] = []

    @staticmethod
    def fixed(nodes: Mapping[str, DataNode]) -> NodePool:
        """Nodes in this process, by id."""
        return _FixedNodes(nodes)

    def find(self, node_id: str) -> DataNode | None:
        """The client of a data node; None when the topology has no such node."""
        member = self._members.get(node_id)
        if member is None:
            return None
        place = member.address, member.incarnation
        known = self._clients.get(node_id)
        if known is not None and known[0] == place:
            return known[1]
        if known is not None:
            self._retired.append(known[1])
        client = self._connect(member)
        self._clients[node_id] = place, client
        return client

    def follow(self, topology: Topology) -> None:
        """Take over the members of a newer topology."""
        self._members = {m.node_id: m for m in topology.members.values() if m.role == "datanode" and m.state != "left"}
        for node_id in [n for n in self._clients if n not in self._members]:
            self._retired.append(self._clients.pop(node_id)[1])

    async def sweep(self) -> None:
        """Close the clients that nobody will call again."""
        while self._retired:
            await self._close(self._retired.pop())

    async def close(self) -> None:
        """Close them all."""
        self._retired += [client for _, client in self._clients.values()]
        self._clients.clear()
        await self.sweep()


class _FixedNodes(NodePool):
    def __init__(self, nodes: Mapping[str, DataNode]) -> None:
        super().__init__(lambda member: nodes[member.node_id], _leave_open, encoded=False)
        self._nodes = nodes

    def find(self, node_id: str) -> DataNode | None:
        return self._nodes.get(node_id)


async def _leave_open(node: DataNode) -> None:
    """Nodes of this process are closed by whoever opened them."""


__all__ = ["Close", "Connect", "NodePool"]
