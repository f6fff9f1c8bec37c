"""What may come over the leader of real members under load: kills, two in a row, a stop, and partitions of three kinds.

Each fault says how long nobody could write: from the moment it came until a command was acknowledged that nobody had
proposed before.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

from omendb_chaos.raft.links import Links
from omendb_chaos.raft.load import Load
from omendb_chaos.raft.member_process import MemberProcess, members

# As coordinators have them.
_SETTINGS = {"election_min_s": 0.5, "election_max_s": 1.0, "snapshot_entries": 2_000, "keep_entries": 200}
_BETWEEN_S = 0.3
KILL, TWICE, STOP = "killed", "killed, and the next as soon as it led", "stopped"
ALONE, ONE_LINK, DEAF = "cut off", "cut off from one follower", "heard but deaf"
FAULTS = (KILL, TWICE, STOP, ALONE, ONE_LINK, DEAF)


@dataclass(slots=True)
class Tally:
    """What happened: per fault, how long nobody could write each time."""

    acknowledged: int = 0
    reads: int = 0
    silences_s: dict[str, list[float]] = field(default_factory=dict)


def strike_leaders(seed: int, times: Mapping[str, int]) -> Tally:
    """Three members, and each fault so many times, in a drawn order. Violation when a promise was broken."""
    return asyncio.run(_strike(random.Random(seed), times))


async def _strike(rng: random.Random, times: Mapping[str, int]) -> Tally:
    tally = Tally(silences_s={fault: [] for fault in times})
    faults = [fault for fault, count in times.items() for _ in range(count)]
    rng.shuffle(faults)
    links = Links()

    async def trouble(load: Load) -> None:
        for fault in faults:
            await asyncio.sleep(rng.uniform(0.0, _BETWEEN_S))
            tally.silences_s[fault].append(await _come_over_the_leader(fault, load, links))

    async with members(_SETTINGS, dialled=links.dialled) as group:
        await links.start()
        load = Load(group, rng)
        try:
            await load.run(trouble)
        finally:
            await links.stop()
    tally.acknowledged, tally.reads = load.acknowledged, load.reads
    return tally


async def _come_over_the_leader(fault: str, load: Load, links: Links) -> float:
    leader = await load.leader()
    others = [member for member in load.group.values() if member is not leader]
    written = load.written_next()
    if fault in (KILL, TWICE):
        await leader.kill()
        if fault == KILL:
            silence_s = await load.until_written(written)
            await _back(load, leader)
            return silence_s
        following = await load.leader()
        written = load.written_next()
        await following.kill()
        # Two of three are dead: nobody can write before one of them is back.
        await leader.start()
        silence_s = await load.until_written(written)
        await _back(load, following, leader)
        return silence_s
    if fault == STOP:
        leader.signal(signal.SIGSTOP)
        silence_s = await load.until_written(written)
        leader.signal(signal.SIGCONT)
    else:
        _part(fault, leader, others, links)
        silence_s = await load.until_written(written)
        # Long enough for whoever is alone to believe that it leads, or could.
        await asyncio.sleep(2 * _SETTINGS["election_max_s"])
        links.heal()
    for member in load.group.values():
        await load.caught_up(member)
    return silence_s


def _part(fault: str, leader: MemberProcess, others: list[MemberProcess], links: Links) -> None:
    if fault == ALONE:
        links.isolate(leader.node_id)
    elif fault == ONE_LINK:
        links.cut(leader.node_id, others[0].node_id)
        links.cut(others[0].node_id, leader.node_id)
    else:
        for other in others:
            links.cut(other.node_id, leader.node_id)


async def _back(load: Load, *gone: MemberProcess) -> None:
    for member in gone:
        if not member.up:
            await member.start()
        await load.caught_up(member)


__all__ = ["ALONE", "DEAF", "FAULTS", "KILL", "ONE_LINK", "STOP", "TWICE", "Tally", "strike_leaders"]
