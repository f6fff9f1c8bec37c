"""Clocks that disagree: one machine, or several, off by anything from a tenth of a second to a day, or jumping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from omendb_chaos.cluster.clients import Load
from omendb_chaos.cluster.lagging import lagging
from omendb_chaos.cluster.network import Link
from omendb_chaos.cluster.swarm import IDS, LIMIT_S, Run, told
from omendb_chaos.cluster.world import Options, Size, World
from omendb_router.settings import RouterSettings

_SECOND_MS = 1000.0
SKEWS_MS = (
    *(sign * ms for ms in (100.0, 500.0, 2 * _SECOND_MS, 60 * _SECOND_MS, 3600 * _SECOND_MS) for sign in (1, -1)),
    -86_400 * _SECOND_MS,
)
STROBE = "strobe"
VICTIMS = "d1", "d1 d2", "r1", "r2", "d1 r1"
_ROUGH = Link(loss=0.03, twice=0.1, delay_s=(0.0002, 0.02), late=0.03, late_s=0.5)
_STROBE_S = 0.2
_STROBE_MS = 3 * _SECOND_MS
_OPERATIONS = 120
_SEARCHES = 12
RUNS_PER_CASE = 4


class Case(NamedTuple):
    """Whose clocks are how far off; a float in milliseconds, or :data:`STROBE`."""

    victims: str
    skew: float | str


_SKEWS: tuple[float | str, ...] = (*SKEWS_MS, STROBE)
CASES = tuple(Case(victims, skew) for victims in VICTIMS for skew in _SKEWS)


def skewed(seed: str) -> Run:
    """R12: one case; the last part of the seed says which, and whether R13's or R16's promises are tried under it."""
    number = int(seed.rpartition("/")[2])
    case = CASES[number // RUNS_PER_CASE % len(CASES)]
    # Every second one stamps on, whatever its clock says: then only the replicas' rules are left.
    settings = RouterSettings() if number % 2 == 0 else RouterSettings(clock_offset_ms_max=60_000.0)
    options = Options(router=settings)
    if number % RUNS_PER_CASE >= 2:
        return lagging(seed, calls=_SEARCHES, options=options, prepare=lambda world: skew(world, case))

    async def story(world: World) -> None:
        await world.begin(Load(IDS, _OPERATIONS, 0.1))
        skew(world, case)
        world.network.every(world.places, _ROUGH)
        async with asyncio.timeout(LIMIT_S):
            await world.drive()
        world.heal()
        await world.quiet(list(IDS))
        world.check(list(IDS))

    return told(seed, story, Size(clients=3), options)


def skew(world: World, case: Case) -> None:
    """Put the clocks of a case wrong."""
    clocks = [machine.clock for machine in world.machines if machine.name in case.victims.split()]
    for clock in clocks:
        if case.skew == STROBE:
            world.loop.outside(_STROBE_S, _strobe(world, clock.jump))
        else:
            clock.skew_ms = float(case.skew)


def _strobe(world: World, jump: Callable[[float], None]) -> Callable[[], None]:
    """Forth and back, every fifth of a second."""
    sign = 1

    def again() -> None:
        nonlocal sign
        if not world.healthy:
            jump(sign * _STROBE_MS)
            sign = -sign
            world.loop.outside(_STROBE_S, again)

    return again


__all__ = ["CASES", "RUNS_PER_CASE", "SKEWS_MS", "STROBE", "VICTIMS", "Case", "skew", "skewed"]
