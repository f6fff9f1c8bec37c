"""What the map in force gives a node to do: one task for each such thing, begun and ended as maps come.

An errand is done when it was carried out, or when the coordinators say that the map has changed. What keeps it from
being done now is told to whoever asked for it, and it is tried again, later each time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from omendb_common.errors import AlreadyExistsError, NotFoundError, OmenDBError
from omendb_common.metadata import TopologySource
from omendb_common.wire.unending import Unending
from omendb_datanode.hosting import OpenShard
from omendb_datanode.replicate.pace import Pace

_log = logging.getLogger(__name__)

_LOOK_S = 0.5
_PAUSE_FIRST_S = 0.1
_PAUSE_MAX_S = 5.0


class Errand(Protocol):
    """Something to do for an open replica. ``over``: another map will come, and nothing is left to do."""

    opened: OpenShard
    over: bool
    task: asyncio.Task[None] | None

    def holds(self, opened: OpenShard) -> bool:
        """Whether it is still what the map asks for; may find that it is not over after all."""

    def waits_for(self, problem: str) -> None:
        """It could not be done just now; empty when it could."""


K = TypeVar("K", bound=Hashable)
E = TypeVar("E", bound=Errand)


class Errands(Generic[K, E]):
    """Runs the errands of one kind. Belongs to one event loop.

    Args:
        wanted: the replicas for which there is something to do under the map in force.
        made: an errand for one of them.
        carried_out: does it, and tells the coordinators.
    """

    def __init__(
        self,
        name: str,
        source: TopologySource,
        pace: Pace,
        wanted: Callable[[], Mapping[K, OpenShard]],
        made: Callable[[K, OpenShard], E],
        carried_out: Callable[[E], Coroutine[Any, Any, None]],
    ) -> None:
        self._name = name
        self._source = source
        self._pace = pace
        self._wanted = wanted
        self._made = made
        self._carried_out = carried_out
        self._errands: dict[K, E] = {}
        self._wake = asyncio.Event()
        self._work: Unending | None = None

    def start(self) -> None:
        """Begin; the replicas are open."""
        self._source.on_change(lambda _: self._wake.set())
        self._work = Unending(self._follow, self._name)

    async def stop(self) -> None:
        """End what is under way; what was done stays."""
        if self._work is not None:
            await self._work.stop()
            self._work = None
        await self._end([*self._errands])

    def now(self) -> list[E]:
        """Those of the map in force, done or not."""
        return [*self._errands.values()]

    async def _follow(self) -> None:
        while True:
            self._wake.clear()
            await self.look()
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def look(self) -> None:
        """Do what is wanted under the map in force, and nothing else; nothing while moves are paused."""
        wanted = {} if self._source.topology.moves_paused else self._wanted()
        await self._end([key for key, one in self._errands.items() if key not in wanted or not one.holds(wanted[key])])
        for key, opened in wanted.items():
            errand = self._errands.get(key)
            if errand is None:
                errand = self._errands[key] = self._made(key, opened)
            if errand.task is None or (errand.task.done() and not errand.over):
                errand.task = asyncio.create_task(self._run(errand), name=f"{self._name} {opened.key.name}")

    async def _end(self, keys: Sequence[K]) -> None:
        tasks = [self._errands.pop(key).task for key in keys]
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)

    async def _run(self, errand: E) -> None:
        """Do it; ends when the map says something else, which ends this task from outside."""
        pause_s = _PAUSE_FIRST_S
        name = errand.opened.key.name
        while not errand.over:
            try:
                await self._carried_out(errand)
            except (AlreadyExistsError, NotFoundError) as changed:
                _log.info("%s of %s: the map has changed: %s", self._name, name, changed)
                errand.over = True
            except OmenDBError as error:
                errand.waits_for(str(error))
                _log.info("%s of %s waits: %s", self._name, name, error)
                await self._pace.pause(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)
            else:
                errand.waits_for("")
                errand.over = True


__all__ = ["Errand", "Errands"]
