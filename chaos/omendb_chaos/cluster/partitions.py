"""Every way to cut the links between one router and three data nodes, before, while and after a write.

Many cases share a world: each has a point of its own, and afterwards everything is healed and everything late arrives.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal, NamedTuple

import numpy as np

from omendb_chaos.cluster.clients import NAME
from omendb_chaos.cluster.judge import Version, versions_of
from omendb_chaos.cluster.network import Link, within
from omendb_chaos.cluster.routers import RouterCall
from omendb_chaos.cluster.swarm import Run, told
from omendb_chaos.cluster.world import Options, Size, World
from omendb_common.errors import OmenDBError
from omendb_common.ids import IdColumn
from omendb_common.shard_calls import State
from omendb_router.face_calls import Found, Seen, Written
from omendb_router.settings import RouterSettings

When = Literal["before", "mid", "after"]
PLACES = "r1", "d1", "d2", "d3"
LINKS = tuple(permutations(PLACES, 2))
WHENS: tuple[When, ...] = ("before", "mid", "after")
QUORUMS = (2, 2), (3, 1)
CASES_PER_RUN = 128
_STEADY = Link(delay_s=(0.01, 0.01))
_MID_S = 0.015
_TIMEOUT_S = 0.4
_SETTLE_S = 1.5


class Case(NamedTuple):
    """Which links are cut (bits, by their place in ``LINKS``), and when."""

    number: int
    cuts: int
    when: When


@dataclass(slots=True)
class _Told:
    """What a client heard of its write."""

    outcome: str
    stamp: int = 0
    acked: int = 0


def matrix() -> Iterator[tuple[tuple[int, int], list[Case]]]:
    """All cases, in the runs that make them."""
    cases = [Case(0, cuts, when) for cuts in range(1 << len(LINKS)) for when in WHENS]
    for quorum in QUORUMS:
        for start in range(0, len(cases), CASES_PER_RUN):
            some = cases[start : start + CASES_PER_RUN]
            yield quorum, [case._replace(number=number) for number, case in enumerate(some, 1)]


RUNS_IN_ALL = sum(1 for _ in matrix())


def partitions(seed: str) -> Run:
    """R11: one run of the matrix; the last part of the seed says which."""
    quorum, cases = list(matrix())[int(seed.rpartition("/")[2]) % RUNS_IN_ALL]
    return cut_cases(seed, quorum, cases)


def cut_cases(seed: str, quorum: tuple[int, int], cases: Sequence[Case]) -> Run:
    """Try these cases one after the other."""
    counts: Counter[str] = Counter()

    async def story(world: World) -> None:
        world.network.calm = _STEADY
        await world.begin()
        for case in cases:
            await _try(world, case, counts)

    size = Size(routers=1, clients=0, write_quorum=quorum[0], read_quorum=quorum[1])
    # A node that does not answer is asked again at once: every case meets the same router.
    settings = RouterSettings(circuit_failures=1000, clock_offset_ms_max=60_000.0)
    run = told(seed, story, size, Options(router=settings, repair=None))
    run.told = counts
    return run


async def _try(world: World, case: Case, counts: Counter[str]) -> None:
    network = world.network

    def cut() -> None:
        for place, (source, target) in enumerate(LINKS):
            network.link(source, target).cut = bool(case.cuts >> place & 1)

    if case.when == "before":
        cut()
    elif case.when == "mid":
        world.loop.outside(_MID_S, cut)
    heard = await _write(world, case.number)
    if case.when == "after":
        cut()
    seen = await _read(world, case.number)
    network.every(PLACES, _STEADY)
    for link in LINKS:
        network.link(*link).cut = False
    await asyncio.sleep(_SETTLE_S)
    counts[f"{heard.outcome}, cut {case.when}"] += 1
    healed = await _read(world, case.number)
    have = [versions_of(node, world.topology, [case.number]).get(case.number) for node in world.nodes.values()]
    for what in untruths(heard, seen, healed, have, world.size.write_quorum):
        links = [f"{a}>{b}" for place, (a, b) in enumerate(LINKS) if case.cuts >> place & 1]
        world.judge.violated(f"R11: {case.when} cut of {links}: {what}")


async def _write(world: World, number: int) -> _Told:
    call = RouterCall((NAME, IdColumn.of([number]), {"": np.array([[number, 0.0]], np.float32)}, None, 1))
    try:
        written: Written = await _ask(world, "upsert", call)
    except OmenDBError as error:
        outcome = getattr(error, "outcome", "none")
        return _Told(outcome, getattr(error, "stamp", None) or 0, getattr(error, "acked", None) or 0)
    return _Told("done", written.stamp, world.size.write_quorum)


async def _read(world: World, number: int) -> bool | None:
    """Whether the point is there; None when nobody says."""
    call = RouterCall((NAME, IdColumn.of([number])), {"payload": False, "vectors": False, "seen": Seen("majority")})
    try:
        found: Found = await _ask(world, "get", call)
    except OmenDBError:
        return None
    return len(found.ids) == 1


async def _ask(world: World, kind: str, call: RouterCall) -> Any:
    router = world.routers["r1"]
    assert router.process is not None
    deadline = world.soon(_TIMEOUT_S)
    # The client sits beside the router: what it is told is what the router knows.
    return await within(world.soon(2 * _TIMEOUT_S), router.process.spawn(router.ask(kind, call, deadline)))


def untruths(
    heard: _Told, seen: bool | None, healed: bool | None, have: Sequence[Version | None], quorum: int
) -> Iterator[str]:
    """What is wrong about what a client was told, given what the replicas have in the end."""
    holders = sum(version is not None and version.state == State.LIVE for version in have)
    if heard.outcome == "done" and holders < quorum:
        yield f"told done, and {holders} replicas have it"
    if heard.outcome == "none" and (holders or seen or healed):
        yield f"told that nothing happened, and {holders} replicas have it"
    if heard.outcome == "unknown" and heard.acked > holders:
        yield f"told of {heard.acked} acknowledgements, and {holders} replicas have it"
    if heard.outcome == "done" and (seen is False or healed is not True):
        yield f"told done, and a read at the majority shows {seen}, after healing {healed}"
    if seen and not healed:
        yield "a read at the majority showed it, and a later one does not"


__all__ = [
    "CASES_PER_RUN",
    "LINKS",
    "QUORUMS",
    "RUNS_IN_ALL",
    "WHENS",
    "Case",
    "When",
    "cut_cases",
    "matrix",
    "partitions",
    "untruths",
]
