"""The router's copy of the topology: looked things up in, and asked to be renewed when a replica says it is old."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import NotFoundError, OmenDBError
from omendb_common.metadata import TopologySource
from omendb_common.topology import CollectionInfo, Topology

_ASK_AGAIN_S = 0.1


class Maps:
    """Collections and their shards as last seen. However many requests want news, one of them asks."""

    def __init__(self, source: TopologySource, clock: Clock, own: Callable[[asyncio.Task[None]], None]) -> None:
        self._source = source
        self._clock = clock
        self._own = own
        self._asking: asyncio.Task[None] | None = None
        self._asked_s = float("-inf")

    @property
    def topology(self) -> Topology:
        """The newest seen."""
        return self._source.topology

    async def find(self, name: str, deadline: Deadline) -> CollectionInfo:
        """The collection of that name or alias, asking for news when it is not known; NotFoundError."""
        found = self._source.topology.find(name)
        if found is not None:
            return found
        # It may have been made a moment ago, elsewhere. With the coordinators down, what is known is what there is.
        await self._news(deadline)
        return self._source.topology.collection(name)

    async def newer(self, info: CollectionInfo, deadline: Deadline) -> CollectionInfo:
        """The same collection under the newest map there is, which may be the same map.

        Raises:
            NotFoundError: it was dropped.
        """
        known = self._source.topology.by_uuid(info.schema.uuid)
        if known is not None and known.shards != info.shards:
            return known
        await self._news(deadline)
        known = self._source.topology.by_uuid(info.schema.uuid)
        if known is None:
            raise NotFoundError(f"the collection {info.name!r} was dropped", field="collection")
        return known

    async def _news(self, deadline: Deadline) -> None:
        """Ask the coordinators for the newest topology, seldom, and live with the known one when they do not answer."""
        now = self._clock.mono_s()
        if self._asking is None or self._asking.done():
            if now - self._asked_s < _ASK_AGAIN_S:
                return
            self._asked_s = now
            self._asking = asyncio.get_running_loop().create_task(self._ask(deadline))
            self._own(self._asking)
        await asyncio.wait([self._asking], timeout=deadline.left_s)

    async def _ask(self, deadline: Deadline) -> None:
        try:
            await self._source.refresh(0, deadline)
        except OmenDBError:
            # The coordinators are never needed for data (P18): the caller goes on with the map it has.
            return


__all__ = ["Maps"]
