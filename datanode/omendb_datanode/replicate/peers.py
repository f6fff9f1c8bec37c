"""Connections to the other data nodes, made when first needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from omendb_common.shard_calls import DataNode
from omendb_common.topology import Member


class Peers:
    """Belongs to one event loop.

    Args:
        connect: makes a client of a member, which need not be reachable.
        close: ends one.
    """

    def __init__(self, connect: Callable[[Member], DataNode], close: Callable[[DataNode], Awaitable[None]]) -> None:
        self._connect = connect
        self._close = close
        self._known: dict[str, tuple[Member, DataNode]] = {}

    async def of(self, member: Member) -> DataNode:
        """The client of a member as it is registered now; one of another address or folder is closed."""
        known = self._known.get(member.node_id)
        if known is not None and (known[0].address, known[0].incarnation) != (member.address, member.incarnation):
            del self._known[member.node_id]
            await self._close(known[1])
            known = self._known.get(member.node_id)
        if known is None:
            known = self._known[member.node_id] = member, self._connect(member)
        return known[1]

    async def close(self) -> None:
        """End every connection."""
        known, self._known = self._known, {}
        for _, node in known.values():
            await self._close(node)


__all__ = ["Peers"]
