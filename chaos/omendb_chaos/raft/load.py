"""Clients of a group of real members: they write and read while somebody breaks things, and judge what is left.

What was acknowledged is in every member's state, once, in the order in which it was acknowledged; what was refused is
in none; a read is never behind what was acknowledged before it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from omendb_chaos.raft.checks import Violation
from omendb_chaos.raft.member_process import MemberProcess

WRITERS_EACH = 4
_HEALED_S = 60.0
_PAUSE_S = 0.02


class Load:
    """Writers, as many for each member, and a reader. ``reads`` counts those that were answered."""

    def __init__(self, group: dict[str, MemberProcess], rng: random.Random) -> None:
        self.group = group
        self.reads = 0
        self._rng = rng
        self._commands = 0
        # The place in the log of every acknowledged command, in the order of their acknowledgements.
        self._places: dict[str, int] = {}
        self._never: set[str] = set()
        self._acknowledged_to = 0
        self._ending = False
        self._listeners: list[tuple[float, asyncio.Future[float]]] = []

    @property
    def acknowledged(self) -> int:
        """How many commands were acknowledged."""
        return len(self._places)

    async def run(self, trouble: Callable[[Load], Awaitable[None]]) -> None:
        """Start all members, let ``trouble`` come over them, then see what everybody has."""
        for member in self.group.values():
            await member.start()
        async with asyncio.TaskGroup() as tasks:
            for member in [*self.group.values()] * WRITERS_EACH:
                tasks.create_task(self._write(member))
            tasks.create_task(self._read())
            # Python takes its time to start, and that is not what is tried.
            await self.until_written(self.written_next())
            await trouble(self)
            self._ending = True
        await self._compare()

    def written_next(self) -> asyncio.Future[float]:
        """Done when a command is acknowledged that nobody has proposed yet: seconds from now until then."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[float] = loop.create_future()
        self._listeners.append((loop.time(), future))
        return future

    async def until_written(self, written: asyncio.Future[float]) -> float:
        """Wait for what ``written_next`` gave. Violation when that takes too long."""
        try:
            async with asyncio.timeout(_HEALED_S):
                return await written
        except TimeoutError:
            raise Violation(f"nothing was acknowledged for {_HEALED_S} s") from None

    async def leader(self) -> MemberProcess:
        """The member that leads; waits until there is one. Violation when that takes too long."""
        try:
            async with asyncio.timeout(_HEALED_S):
                while True:
                    for member in self.group.values():
                        status = await member.status()
                        if status is not None and status.role == "leader":
                            return member
                    await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            raise Violation(f"nobody leads within {_HEALED_S} s") from None

    async def caught_up(self, member: MemberProcess) -> None:
        """Wait until a member has applied what was acknowledged so far. Violation when that takes too long."""
        goal = self._acknowledged_to
        status = None
        try:
            async with asyncio.timeout(_HEALED_S):
                while status is None or status.applied < goal:
                    await asyncio.sleep(_PAUSE_S)
                    status = await member.status()
        except TimeoutError:
            raise Violation(f"{member.node_id} is at {status}, not at {goal}, after {_HEALED_S} s") from None

    async def _write(self, member: MemberProcess) -> None:
        """Propose one command after the other to one member, whether it leads or not."""
        loop = asyncio.get_running_loop()
        while not self._ending:
            self._commands += 1
            command = f"{self._commands}"
            floor, began = self._acknowledged_to, loop.time()
            answer = await member.ask(f"P {command}")
            if isinstance(answer, int):
                if answer <= floor:
                    raise Violation(f"command {command} is entry {answer}, begun after entry {floor} was acknowledged")
                self._places[command] = answer
                self._acknowledged_to = max(self._acknowledged_to, answer)
                self._tell(began, loop.time())
            elif answer == "none":
                self._never.add(command)
                await asyncio.sleep(_PAUSE_S)

    def _tell(self, began: float, now: float) -> None:
        for since, future in self._listeners:
            if began >= since and not future.done():
                future.set_result(now - since)
        self._listeners = [one for one in self._listeners if not one[1].done()]

    async def _read(self) -> None:
        while not self._ending:
            floor = self._acknowledged_to
            answer = await self._rng.choice(list(self.group.values())).ask("R")
            if isinstance(answer, int):
                self.reads += 1
                if answer < floor:
                    raise Violation(f"a read at {answer}, after entry {floor} was acknowledged")
            await asyncio.sleep(_PAUSE_S)

    async def _compare(self) -> None:
        """All members come to the same state, which has everything that was acknowledged, once and in order."""
        for member in self.group.values():
            await self.caught_up(member)
        items = await self._agreed()
        at = {item: place for place, item in enumerate(items)}
        if len(at) != len(items):
            raise Violation(f"{len(items) - len(at)} commands were applied twice")
        lost = set(self._places) - set(at)
        if lost:
            raise Violation(f"{len(lost)} acknowledged commands are gone, {min(lost)} among them")
        if self._never & set(at):
            raise Violation(f"{min(self._never & set(at))} was applied, its client was told that it never would be")
        in_order = [at[command] for command in sorted(self._places, key=self._places.__getitem__)]
        if in_order != sorted(in_order):
            raise Violation("acknowledged commands were applied in another order than they were promised")

    async def _agreed(self) -> list[str]:
        stands: list[Any] = []
        try:
            async with asyncio.timeout(_HEALED_S):
                while True:
                    stands = [await member.ask("D") for member in self.group.values()]
                    # Nobody writes any more; a new leader may still add an entry of its own.
                    if all(isinstance(stand, list) for stand in stands) and len({stand[0] for stand in stands}) == 1:
                        break
                    await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            raise Violation(f"no agreement after {_HEALED_S} s: {[s[:1] for s in stands]}") from None
        items: list[str] = stands[0][1]
        if any(stand[1] != items for stand in stands):
            raise Violation("the members have different states")
        return items


__all__ = ["WRITERS_EACH", "Load"]
