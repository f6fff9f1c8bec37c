"""One run of a cluster under a swarm of faults, from load to quiet, and everything that must hold then."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from omendb_chaos.cluster.clients import Load
from omendb_chaos.cluster.nemesis import RESIZED, Mix, Nemesis, drawn_mix
from omendb_chaos.cluster.world import Options, Size, StuckError, World, play
from omendb_chaos.rows.sweep import UNTYPED
from omendb_common.errors import OmenDBError

IDS = (1, 2, 3, 4, 5, 6)
WHOLE = (1, 2, 3)
SEARCHES = "once", "settled", "not_covered"
"""Searches at a quorum by one replica, those of them that asked nobody again, and those that all had to run (P23)."""
LIMIT_S = 3600.0
"""Simulated time within which the clients of a run must be done."""


@dataclass(slots=True)
class Run:
    """What became of one seed. ``seconds``: simulated; ``told``: what clients heard, by kind, and how it was found."""

    seed: str
    violations: list[str] = field(default_factory=list)
    trace: str = ""
    seconds: float = 0.0
    steps: int = 0
    calls: int = 0
    undecided: int = 0
    told: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)


def swarm(
    seed: str,
    operations: int = 200,
    *,
    size: Size | None = None,
    think_s: float = 0.3,
    mix: Mix | None = None,
    without: Iterable[str] = (),
    options: Options | None = None,
    conditions: bool = False,
    ids: Sequence[int] = IDS,
    beside: Callable[[World], Coroutine[Any, Any, None]] | None = None,
) -> Run:
    """Run one seed: a load under faults, then good weather, then the judgement.

    Args:
        mix: what strikes; drawn from the seed when None, ``without`` some faults.
        conditions: whether some writes are of points that must not be there yet, or be as they were seen.
        ids: of the points; few make many calls of one.
        beside: what is done for as long as something strikes.
    """

    async def story(world: World) -> None:
        rng = world.rng("nemesis")
        drawn = mix or drawn_mix(rng, [*world.nodes, *world.routers], pace_s=think_s, without=frozenset(without))
        if RESIZED in drawn.often:
            world.promised = 1  # of how many replicas, changes from run to run
        await world.begin(Load(ids, operations, think_s, conditions=conditions))
        loop = asyncio.get_running_loop()
        working = [loop.create_task(Nemesis(world, drawn, rng).run())]
        if beside is not None:
            working.append(loop.create_task(beside(world)))
        async with asyncio.timeout(LIMIT_S):
            await world.drive()
        for work in working:
            work.cancel()
        world.judge.check_durable(list(world.nodes.values()), world.topology, world.lost, rng)
        world.heal()
        await world.quiet(list(IDS))
        world.check(list(IDS))

    return told(seed, story, size, options)


def told(
    seed: str, story: Callable[[World], Awaitable[None]], size: Size | None = None, options: Options | None = None
) -> Run:
    """Play a story, and report it. What it raises is a violation too."""
    run = Run(seed)

    async def whole(world: World) -> None:
        try:
            await story(world)
        except StuckError:
            pass  # it was noted where it was found
        except TimeoutError:
            world.judge.violated(f"liveness: clients are not done after {LIMIT_S:.0f} s")
        except (OmenDBError, OSError, *UNTYPED) as failure:
            frame = traceback.extract_tb(failure.__traceback__)[-1]
            where = f"{frame.name}, {frame.filename.rpartition('/')[2]}:{frame.lineno}"
            world.judge.violated(f"{type(failure).__name__}: {failure} in {where}")
        _report(world, run)

    with _quiet_logs():
        play(seed, whole, size, WHOLE, options)
    return run


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Faults are on purpose here: what the processes would log about them helps nobody."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _report(world: World, run: Run) -> None:
    judge = world.judge
    run.violations = judge.violations
    run.trace = world.trace
    run.seconds = world.loop.time()
    run.steps = world.loop.steps
    run.calls = len(judge.history) + len(judge.searches)
    run.undecided = judge.undecided
    run.faults = world.faults
    for client in world.clients:
        run.told += client.told
    for router in world.routers.values():
        run.told += Counter({name: router.counts[f"searches_{name}_total"] for name in SEARCHES})


__all__ = ["IDS", "LIMIT_S", "WHOLE", "Run", "swarm", "told"]
