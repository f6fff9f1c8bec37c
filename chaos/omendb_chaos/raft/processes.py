"""Real members, killed and stopped at any time while clients write."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from dataclasses import dataclass, field

from omendb_chaos.raft.load import Load
from omendb_chaos.raft.member_process import members

# Often and in small pieces, so that snapshots travel too.
_SETTINGS = {
    "election_min_s": 0.4,
    "election_max_s": 0.8,
    "snapshot_entries": 300,
    "keep_entries": 50,
    "chunk_bytes": 4096,
}


@dataclass(slots=True)
class Tally:
    """What happened in a run."""

    acknowledged: int = 0
    reads: int = 0
    faults: Counter[str] = field(default_factory=Counter)


def torment(seed: int, seconds: float) -> Tally:
    """Three members for so many seconds of faults. Violation when a promise was broken."""
    return asyncio.run(_torment(random.Random(seed), seconds))


async def _torment(rng: random.Random, seconds: float) -> Tally:
    tally = Tally()

    async def trouble(load: Load) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            await asyncio.sleep(rng.uniform(0.5, 3.0))
            await _fault(load, rng, tally)

    async with members(_SETTINGS) as group:
        load = Load(group, rng)
        await load.run(trouble)
    tally.acknowledged, tally.reads = load.acknowledged, load.reads
    return tally


async def _fault(load: Load, rng: random.Random, tally: Tally) -> None:
    group = list(load.group.values())
    kind = rng.choice(("kill -9", "kill -9", "SIGSTOP", "SIGSTOP", "kill -9 of all"))
    tally.faults[kind] += 1
    if kind == "SIGSTOP":
        member = rng.choice(group)
        member.signal(signal.SIGSTOP)
        await asyncio.sleep(rng.uniform(0.1, 1.5))
        member.signal(signal.SIGCONT)
        return
    for member in group if kind == "kill -9 of all" else [rng.choice(group)]:
        await member.kill()
    await asyncio.sleep(rng.choice((0.0, 0.3, 1.0)))
    for member in group:
        if not member.up:
            await member.start()


__all__ = ["Tally", "torment"]
