"""The coordinators of a simulated cluster, as one place: the real control and catalog on a log that is never lost.

How a group agrees on that log, loses leaders and finds new ones is tried by its own rows (R14, R15), with virtual time
of its own; here it is enough that the group can be out of reach, slow, and leave callers without an answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from omendb_chaos.cluster.network import Network
from omendb_chaos.cluster.processes import Process, ProcessLoop
from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.topology import Topology
from omendb_coordinator.catalog import Catalog
from omendb_coordinator.config import CoordinatorSettings
from omendb_coordinator.consensus.seam import Committed, ConsensusStatus
from omendb_coordinator.control import Control
from omendb_coordinator.state import CatalogState
from omendb_coordinator.watch import Watch

COORDINATORS = "coordinators"
_AGREES_S = (0.001, 0.01)
_WATCH_S = 30.0


class AgreedLog:
    """A :class:`~omendb_coordinator.consensus.seam.Consensus` of a group that agrees on everything, in a moment."""

    def __init__(self, catalog: Catalog, rng: random.Random) -> None:
        self._catalog = catalog
        self._rng = rng
        self._index = 0

    async def start(self) -> None:
        """See ``Consensus``."""

    async def stop(self) -> None:
        """See ``Consensus``."""

    async def propose(self, command: bytes, timeout_s: float) -> Committed:
        """See ``Consensus``."""
        await asyncio.sleep(self._rng.uniform(*_AGREES_S))
        self._index += 1
        return Committed(self._index, self._catalog.apply(self._index, command))

    async def read_index(self, timeout_s: float) -> int:
        """See ``Consensus``."""
        await asyncio.sleep(self._rng.uniform(*_AGREES_S))
        return self._index

    @property
    def status(self) -> ConsensusStatus:
        """See ``Consensus``."""
        index = self._index
        return ConsensusStatus(COORDINATORS, "leader", 1, COORDINATORS, index, index, index, (COORDINATORS,))

    def on_change(self, callback: Callable[[ConsensusStatus], None]) -> None:
        """See ``Consensus``: nothing ever changes."""


class Coordinators:
    """Answers the calls of a :class:`~omendb_chaos.cluster.follower.Follower`."""

    def __init__(
        self,
        loop: ProcessLoop,
        network: Network,
        clock: Clock,
        rng: random.Random,
        gc_grace_s: float = 3600.0,
        level: int = 1,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        watch = Watch()
        self.catalog = Catalog(watch.publish)
        self.catalog._state = CatalogState(Topology("", feature_level=level))
        self._loop = loop
        self._network = network
        self._clock = clock
        self._rng = rng
        self._watch = watch
        self._log = AgreedLog(self.catalog, rng)
        # Members are heard every few seconds, and for long nothing happens in between: half a second is for people.
        settings = CoordinatorSettings(suspect_s=9.0, down_s=30.0, grace_s=30.0, decide_s=3.0, stall_s=8.0)
        self._settings = replace(settings, gc_grace_s=gc_grace_s, repaired_step_s=1.0, **(more or {}))
        self._life = 0
        self.up = False
        self.start()

    def start(self) -> None:
        """Start the process: what was agreed on is there, what the one before had under way or in memory is not."""
        self._life += 1
        self.up = True
        self.process = Process(self._loop, COORDINATORS, self._life)
        self.control = Control(
            self._log,
            self.catalog,
            self._watch,
            {COORDINATORS: COORDINATORS},
            self._settings,
            self._clock,
            self.new_id,
        )
        self._network.serve(self.process, self, self._clock)
        self.process.spawn(self.control.lead())

    def kill(self) -> None:
        """``kill -9``, of all members at once: a change that was not agreed on yet never happens."""
        self.up = False
        self._network.gone(COORDINATORS)
        self.process.kill()

    async def changed(self, revision: int) -> Topology:
        """The topology as soon as one newer than ``revision`` is agreed on."""
        while (step := await self._watch.wait(revision, _WATCH_S)) is None:
            pass
        return step.topology

    def new_id(self) -> str:
        """An id of 128 random bits, from the world's dice."""
        bits = f"{self._rng.getrandbits(128):032x}"
        return f"{bits[:8]}-{bits[8:12]}-{bits[12:16]}-{bits[16:20]}-{bits[20:]}"

    async def ask(self, kind: str, call: Any, deadline: Deadline) -> Any:
        """See ``Server``: ``call`` is what the method of the control takes before its timeout."""
        if kind == "watch":
            step = await self._watch.wait(call, min(_WATCH_S, deadline.left_s))
            return None if step is None else step.topology
        if kind == "heartbeat":
            return self.control.heartbeat(*call)
        answer = await getattr(self.control, kind)(*call, deadline.left_s)
        return (answer, self.topology.revision) if kind == "register" else answer

    @property
    def topology(self) -> Topology:
        """What is agreed on now."""
        return self.catalog.topology


__all__ = ["COORDINATORS", "AgreedLog", "Coordinators"]
