"""The same clients against real coordinator processes, whose leader is killed or stopped while they call."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from omendb_chaos.checkers.linearizability import Operation, Recorder
from omendb_chaos.coordinators import Coordinators
from omendb_chaos.metadata.intentions import NODES, Intentions
from omendb_chaos.metadata.specification import FIRST_PLACEMENT, Call, Picture, answer_of, picture_of
from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.errors import OmenDBError
from omendb_common.metadata import NewCollection
from omendb_common.schema import CollectionSchema, VectorField
from omendb_common.topology import Member, ReplicaPlace, Topology
from omendb_common.wire.coordinator_client import CoordinatorClient

CLIENTS = 5
_CLOCK = SystemClock()
# Long: whether members live is not what is looked at here.
_ENVIRONMENT = {f"OMENDB_COORDINATOR_{name}_S": "600" for name in ("SUSPECT", "GRACE")} | {
    "OMENDB_COORDINATOR_DOWN_S": "600",
    "OMENDB_COORDINATOR_SUSPECT_S": "500",
    # The specification knows who asked for every change: the leader moves replicas for nobody here.
    "OMENDB_COORDINATOR_MOVES_MAX": "0",
}
_PATIENCE_S = 20.0
_IMPATIENCE_S = 0.05
_IMPATIENT = 0.03
_STOPPED_S = 2.5
_THINK_S = 0.03


@dataclass(slots=True)
class Session:
    """What happened: histories, and the longest time after every fault in which nobody's call was answered."""

    histories: list[list[Operation]] = field(default_factory=list)
    pauses_s: list[float] = field(default_factory=list)
    kills: int = 0
    stops: int = 0


def _soon(timeout_s: float = _PATIENCE_S) -> Deadline:
    return Deadline.after(_CLOCK, timeout_s)


async def run(folder: Path, rng: random.Random, *, histories: int, operations: int, faults: int) -> Session:
    """Record histories, each with some faults of the leader, on one group of three."""
    group = Coordinators(folder, 3, environment=_ENVIRONMENT)
    session = Session()
    group.start()
    clients = [CoordinatorClient(group.addresses, None, _CLOCK, name=f"client {n}") for n in range(CLIENTS)]
    try:
        await asyncio.to_thread(group.wait_ready)
        for client in clients:
            await client.start()
        for node_id in NODES:
            await clients[0].register(Member(node_id, "datanode", f"{node_id}:1", "folder"), _soon(60.0))
            if node_id not in FIRST_PLACEMENT:
                await clients[0].drain(node_id, True, _soon())
        for number in range(histories):
            history = _History(f"h{number}.", clients, Intentions(rng), rng, operations)
            async with asyncio.TaskGroup() as work:
                work.create_task(history.record())
                work.create_task(_fault(group, history, session, rng, faults))
            session.histories.append(history.recorder.history())
    finally:
        for client in clients:
            await client.close()
        await asyncio.to_thread(group.stop)
    return session


class _History:
    """One history on names of its own."""

    def __init__(
        self,
        prefix: str,
        clients: list[CoordinatorClient],
        intentions: Intentions,
        rng: random.Random,
        operations: int,
    ) -> None:
        self.recorder = Recorder(time.monotonic)
        self.clients = clients
        self.begun = 0
        self.operations = operations
        self.answered_s: list[float] = []
        self.ended = False
        self._prefix = prefix
        self._intentions = intentions
        self._rng = rng

    def has_begun(self, calls: int) -> bool:
        """Whether so many calls have begun."""
        return self.begun >= calls

    def has_answered(self, calls: int) -> bool:
        """Whether so many calls were answered without an error, or no more will be."""
        return len(self.answered_s) >= calls or self.ended

    async def record(self) -> None:
        """Let all clients call until there are enough calls."""
        async with asyncio.TaskGroup() as calling:
            for client in self.clients:
                calling.create_task(self._client(client))
        self.ended = True

    async def _client(self, client: CoordinatorClient) -> None:
        seen, epochs = Picture(), dict[str, tuple[str, int]]()
        while self.begun < self.operations:
            self.begun += 1
            await asyncio.sleep(self._rng.expovariate(1 / _THINK_S))
            call = self._intentions.next(seen)
            patience_s = _IMPATIENCE_S if self._rng.random() < _IMPATIENT else _PATIENCE_S
            number = self.recorder.begin(client.name, "catalog", call)
            try:
                topology = await self._call(client, call, epochs, _soon(patience_s))
            except OmenDBError as error:
                answer = answer_of(error)
                if answer is not None:
                    self.recorder.end(number, answer)
                elif call[0] == "read" or getattr(error, "outcome", "unknown") == "none":
                    self.recorder.forget(number)
                else:
                    self.recorder.leave_open(number)
                continue
            self.answered_s.append(time.monotonic())
            if topology is None:
                self.recorder.end(number, "ok")
            else:
                seen, epochs = picture_of(topology, self._prefix), _epochs(topology)
                self.recorder.end(number, seen)

    async def _call(
        self, client: CoordinatorClient, call: Call, epochs: dict[str, tuple[str, int]], deadline: Deadline
    ) -> Topology | None:
        """Carry out a call; the topology of a read."""
        name = self._prefix
        match call:
            case ("create", new, made):
                schema = CollectionSchema("", (VectorField(4),), {"made": made})
                await client.create_collection(NewCollection(name + new, schema, 1, 3), deadline)
            case ("drop", old):
                await client.drop_collection(name + old, deadline)
            case ("rename", old, new):
                await client.rename_collection(name + old, name + new, deadline)
            case ("alias", alias, target):
                await client.set_alias(name + alias, None if target is None else name + target, deadline)
            case ("alter", old, number):
                await client.alter_collection(name + old, deadline, options={"n": number})
            case ("move", made, _, wanted):
                uuid, epoch = epochs[made]
                await client.place_shard(uuid, 0, epoch, [ReplicaPlace(n) for n in wanted], deadline)
            case _:
                return await client.read(deadline)
        return None


def _epochs(topology: Topology) -> dict[str, tuple[str, int]]:
    return {str(c.schema.options["made"]): (c.schema.uuid, c.shards[0].epoch) for c in topology.collections.values()}


async def _fault(group: Coordinators, history: _History, session: Session, rng: random.Random, faults: int) -> None:
    """Kill or stop the leader now and then; it comes back."""
    for number in range(faults):
        share = (number + 0.2) / faults
        await _until(partial(history.has_begun, int(history.operations * share)))
        leader = str((await history.clients[0].status(_soon(60.0)))["leader"])
        began_s = time.monotonic()
        if rng.random() < 0.8:
            group.kill(leader)
            session.kills += 1
        else:
            group.signal(leader, signal.SIGSTOP)
            session.stops += 1
        # Answers that were on their way come first; then every client waits for a leader.
        answered = len(history.answered_s)
        await _until(partial(history.has_answered, answered + 3 * CLIENTS))
        times = [began_s, *(s for s in history.answered_s if s > began_s)]
        if len(times) > 1:
            session.pauses_s.append(max(later - earlier for earlier, later in itertools.pairwise(times)))
        if leader in group.running:
            await asyncio.sleep(_STOPPED_S)
            group.signal(leader, signal.SIGCONT)
        else:
            group.start(leader)
            await asyncio.to_thread(group.wait_ready, leader)


async def _until(holds: Callable[[], Any]) -> None:
    while not holds():
        await asyncio.sleep(0.005)


__all__ = ["CLIENTS", "Session", "run"]
