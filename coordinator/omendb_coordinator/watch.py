"""Who follows the catalog: the last topologies, and what a follower has to be sent.

A ring keeps the last topologies (they share what did not change). A follower at a revision that is still in the ring is
sent the difference to the newest; any other one the whole. So a follower that is slow skips what lies between, and
nothing is ever queued for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from omendb_common.topology import CollectionInfo, Topology

RING_TOPOLOGIES_MAX = 64


@dataclass(frozen=True, slots=True)
class Step:
    """What to send: ``topology`` is the newest; ``base`` is what the follower has, None when it needs the whole."""

    topology: Topology
    base: Topology | None


class Watch:
    """Topologies as they come, for any number of followers. Its methods belong to one event loop."""

    def __init__(self, ring_topologies_max: int = RING_TOPOLOGIES_MAX) -> None:
        self._max = ring_topologies_max
        self._newest = Topology("")
        self._ring: OrderedDict[int, Topology] = OrderedDict()
        self._changed: asyncio.Event = asyncio.Event()
        self._closed = False

    @property
    def newest(self) -> Topology:
        """The newest topology."""
        return self._newest

    def publish(self, topology: Topology, resync: bool = False) -> None:
        """A newer topology; ``resync`` when what lies between it and the one before is not known."""
        if resync:
            self._ring.clear()
        self._newest = topology
        self._ring[topology.revision] = topology
        while len(self._ring) > self._max:
            self._ring.popitem(last=False)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def last_seen(self, uuid: str) -> CollectionInfo | None:
        """The collection of that uuid in the newest topology of the ring that has it."""
        found = (topology.by_uuid(uuid) for topology in reversed(self._ring.values()))
        return next((info for info in found if info is not None), None)

    def close(self) -> None:
        """Nobody waits any more."""
        self._closed = True
        self._changed.set()

    def step(self, revision: int) -> Step | None:
        """What brings a follower at ``revision`` up to date; None when it is, or is ahead of this member."""
        if self._newest.revision <= revision:
            return None
        return Step(self._newest, self._ring.get(revision))

    async def wait(self, revision: int, timeout_s: float) -> Step | None:
        """Like :meth:`step`, but waits up to ``timeout_s``, and not after :meth:`close`, for what is newer."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while (step := self.step(revision)) is None:
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0 or self._closed:
                return None
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                return self.step(revision)
        return step


__all__ = ["RING_TOPOLOGIES_MAX", "Step", "Watch"]
