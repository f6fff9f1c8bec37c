"""A data node behind a bad network: calls and answers are delayed, lost or doubled, or the node is cut off.

Survivable, every one of them: the node behind it keeps what it acknowledged.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from omendb_common.deadline import Deadline
from omendb_common.errors import UnavailableError
from omendb_common.shard_calls import (
    Applied,
    Apply,
    DataNode,
    Entries,
    Listed,
    Looked,
    Lookup,
    Maintain,
    Maintained,
    Repair,
    Score,
    Scored,
    Scroll,
    Scrolled,
    Search,
    Select,
    Selected,
    ShardHits,
    Summed,
    Sums,
)

C = TypeVar("C")
A = TypeVar("A")


@dataclass(slots=True)
class Weather:
    """How bad the network to one node is. Shares are probabilities per call, delays are uniform in seconds."""

    refused: float = 0.0
    """The call certainly does not reach the node."""
    lost_calls: float = 0.0
    lost_answers: float = 0.0
    doubled: float = 0.0
    delay_s: tuple[float, float] = (0.0, 0.0)
    cut: bool = False
    """Nothing comes through, and nobody says so."""
    down: bool = False
    """Every call is refused at once."""


@dataclass(slots=True)
class FaultyNode:
    """Implements :class:`omendb_common.shard_calls.DataNode` over another one. ``calls`` counts what was asked."""

    node: DataNode
    rng: random.Random
    weather: Weather = field(default_factory=Weather)
    calls: Counter[str] = field(default_factory=Counter)
    _on_their_way: set[asyncio.Task[Any]] = field(default_factory=set)

    async def _through(
        self, name: str, method: Callable[[C, Deadline], Awaitable[A]], call: C, deadline: Deadline
    ) -> A:
        self.calls[name] += 1
        w, roll = self.weather, self.rng.random
        if w.down or roll() < w.refused:
            raise UnavailableError("connection refused", outcome="none")
        if w.cut or roll() < w.lost_calls:
            await self._silence(deadline)
        # What has left arrives, whether or not its sender still waits for it.
        arriving = asyncio.get_running_loop().create_task(self._arrive(method, call, deadline))
        self._on_their_way.add(arriving)
        arriving.add_done_callback(self._on_their_way.discard)
        answer = await asyncio.shield(arriving)
        await self._travel()
        if w.cut or roll() < w.lost_answers:
            await self._silence(deadline)
        return answer

    async def _arrive(self, method: Callable[[C, Deadline], Awaitable[A]], call: C, deadline: Deadline) -> A:
        await self._travel()
        answer = await method(call, deadline)
        if self.rng.random() < self.weather.doubled:
            await self._travel()
            answer = await method(call, deadline)
        return answer

    async def _travel(self) -> None:
        low, high = self.weather.delay_s
        # At least a turn of the loop, as any network.
        await asyncio.sleep(self.rng.uniform(low, high))

    async def _silence(self, deadline: Deadline) -> None:
        """Nothing more is heard: until the caller gives up, or the connection is found broken."""
        await asyncio.sleep(deadline.left_s if self.rng.random() < 0.5 else deadline.left_s * self.rng.random())
        raise UnavailableError("connection lost", outcome="unknown")

    async def apply(self, call: Apply, deadline: Deadline) -> Applied:
        return await self._through("apply", self.node.apply, call, deadline)

    async def search(self, call: Search, deadline: Deadline) -> ShardHits:
        return await self._through("search", self.node.search, call, deadline)

    async def lookup(self, call: Lookup, deadline: Deadline) -> Looked:
        return await self._through("lookup", self.node.lookup, call, deadline)

    async def score(self, call: Score, deadline: Deadline) -> Scored:
        return await self._through("score", self.node.score, call, deadline)

    async def repair(self, call: Repair, deadline: Deadline) -> Applied:
        return await self._through("repair", self.node.repair, call, deadline)

    async def scroll(self, call: Scroll, deadline: Deadline) -> Scrolled:
        return await self._through("scroll", self.node.scroll, call, deadline)

    async def select(self, call: Select, deadline: Deadline) -> Selected:
        return await self._through("select", self.node.select, call, deadline)

    async def maintain(self, call: Maintain, deadline: Deadline) -> Maintained:
        return await self._through("maintain", self.node.maintain, call, deadline)

    async def sums(self, call: Sums, deadline: Deadline) -> Summed:
        return await self._through("sums", self.node.sums, call, deadline)

    async def entries(self, call: Entries, deadline: Deadline) -> Listed:
        return await self._through("entries", self.node.entries, call, deadline)


__all__ = ["FaultyNode", "Weather"]
