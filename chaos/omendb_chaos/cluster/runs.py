"""Every kind of simulated run, by the row that makes it: a seed names one run, ``R13/0/17`` the 18th of that row."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from omendb_chaos.cluster.cancelling import cancellations
from omendb_chaos.cluster.converging import converging, forgetting
from omendb_chaos.cluster.datanodes import REPAIR
from omendb_chaos.cluster.disks_gone import disk_gone
from omendb_chaos.cluster.lagging import lagging
from omendb_chaos.cluster.moving import moving
from omendb_chaos.cluster.partitions import partitions
from omendb_chaos.cluster.recutting import cut_beside, recutting
from omendb_chaos.cluster.skews import skewed
from omendb_chaos.cluster.swarm import Run, swarm
from omendb_chaos.cluster.world import Options, Size, World
from omendb_chaos.rows.outcome import dice
from omendb_common.feature_level import CURRENT, OLDEST

_CUT = 0.3
# So soon that agreements cover some of what replicas missed, and not the rest.
_SOON = replace(REPAIR, settle_s=1.0, interval_s=2.0)


def history(seed: str) -> Run:
    """R13: 200 calls of three clients to a cluster of three or four under faults, while replicas move.

    In two of five the clients write on condition, too.
    """
    rng = dice("repair", seed)
    size = Size(datanodes=rng.choice([3, 4]))
    options = Options(repair=REPAIR if rng.random() < 0.7 else None)
    conditions = dice("conditions", seed).random() < 0.4
    options, beside = _cut(seed, options)
    return swarm(seed, 200, size=size, without=["lost disk"], options=options, conditions=conditions, beside=beside)


def searches(seed: str) -> Run:
    """R16: searches while replicas miss writes, which repair brings to some of them in most runs."""
    options = Options(repair=_SOON) if dice("repair", seed).random() < 0.7 else None
    return lagging(seed, options=options)


def cluster(seed: str) -> Run:
    """R10: 300 calls, other sizes and quorums, every fault."""
    rng = dice("size", seed)
    write, read = rng.choice([(2, 2), (2, 2), (2, 2), (3, 1)])
    size = Size(
        datanodes=rng.choice([3, 4, 4, 5]),
        routers=rng.choice([1, 2, 2, 3]),
        clients=rng.choice([2, 3, 5]),
        shards=rng.choice([1, 1, 2]),
        write_quorum=write,
        read_quorum=read,
    )
    think_s = rng.choice([0.3, 2.0, 6.0])
    # At the first level nothing may change that only later ones understand, such as how often a collection is stored.
    level = CURRENT if dice("level", seed).random() < 0.7 else OLDEST
    options = Options(repair=REPAIR if rng.random() < 0.8 else None, level=level)
    options, beside = _cut(seed, options)
    return swarm(seed, 300, size=size, think_s=think_s, options=options, beside=beside)


def _cut(seed: str, options: Options) -> tuple[Options, Callable[[World], Coroutine[Any, Any, None]] | None]:
    """In a share of the runs shards also split and merge, at the newest level: with dice that nothing else throws."""
    if options.repair is None or dice("cut", seed).random() >= _CUT:
        return options, None
    return replace(options, level=CURRENT), cut_beside


RUNS: Mapping[str, Callable[[str], Run]] = {
    "R10": cluster,
    "R11": partitions,
    "R12": skewed,
    "R13": history,
    "R16": searches,
    "R17": converging,
    "R18": forgetting,
    "R19": moving,
    "R21": disk_gone,
    "R27": cancellations,
    "R-splits": recutting,
}


def run_one(seed: str) -> Run:
    """The run of a seed."""
    return RUNS[seed.partition("/")[0]](seed)


__all__ = ["RUNS", "cluster", "history", "run_one", "searches"]
