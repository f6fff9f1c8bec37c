"""When which shard of this node gets its round: in turn, and at once where something may be missing.

Of a shard's nodes the first one that is up does it, so that no pair is compared by both; any other one steps in when
nothing was proven for twice the interval. A replica that was opened with data is looked at at once by its own node, its
peers' youngest writes included, for it missed those too. One whose node is back without that is looked at by the node
that looks after the shard, a few seconds later: two rounds at a time would send every record that is missing twice.
Both are looked at again when the newest writes have settled; a node that opened one asks the first to do that, and
does it itself where that cannot be had. Where roots differ that should be alike by now
(:mod:`omendb_datanode.replicate.agreeing`), a round is made at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from omendb_common.clock import Clock
from omendb_common.errors import OmenDBError, UnavailableError
from omendb_common.hlc import stamp_wall_ms
from omendb_common.metadata import RepairedShard, TopologySource
from omendb_common.shard_calls import ShardRef
from omendb_common.topology import Topology
from omendb_common.wire.unending import Unending
from omendb_datanode.config import RepairSettings
from omendb_datanode.hosting import OpenShard
from omendb_datanode.node_folder import ReplicaKey
from omendb_datanode.replicate.rounds import Round, Rounds
from omendb_engine.hash_tree import TreeCheck
from omendb_engine.replica import Replica

_log = logging.getLogger(__name__)

_LOOK_S = 1.0
_REPORT_S = 2.0
_SETTLED_S = 1.0
_FAILS_MAX = 10
_ASKS_MAX = 2
"""A node that looks after a shard is asked so often for a round before another one makes it."""
_OWN_ROUND_S = 5.0
"""A node that was started again makes its round by itself: whoever looks after the shard leaves it so long for that."""
_HURRIES_MAX = 2


@dataclass(slots=True)
class Care:
    """What is known of one replica's rounds, all times monotonic; ``leaves`` differed at the last comparison.

    ``wanted_s``: when rounds are to be made whoever's turn it is. ``told_s``: when roots were last said to differ,
    ``hurried_s``: when a round was last wanted for that, ``hurries``: how many in a row mended nothing;
    ``looks_back``: whether the next round is one for that.
    ``back``: opened with data, and not looked at since. ``asking``: another node is making a round for this;
    ``refused``: so often in a row that could not be had.
    """

    replica: Replica
    seen_s: float
    due_s: float
    checked_s: float
    wanted_s: list[float] = field(default_factory=list)
    told_s: float = -math.inf
    hurried_s: float = -math.inf
    hurries: int = 0
    looks_back: bool = False
    back: bool = False
    fails: int = 0
    leaves: int = 0
    asking: bool = False
    refused: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Repairer:
    """Looks after the replicas of one node. Belongs to one event loop.

    Args:
        opened: the open replicas of this node, with their maps.
        check: holds what is remembered and stored of a replica's hash tree against its records.
        report: tells the coordinators what was proven.
    """

    def __init__(
        self,
        node_id: str,
        rounds: Rounds,
        opened: Callable[[], Sequence[OpenShard]],
        source: TopologySource,
        clock: Clock,
        settings: RepairSettings,
        *,
        check: Callable[[Replica], Awaitable[TreeCheck]],
        report: Callable[[Sequence[RepairedShard]], Awaitable[None]],
    ) -> None:
        self.rounds = rounds
        self._node_id = node_id
        self._opened = opened
        self._source = source
        self._clock = clock
        self._settings = settings
        self._dice = random.Random(f"{node_id} {clock.wall_ms()}")
        self._check = check
        self._report = report
        self._cares: dict[ReplicaKey, Care] = {}
        self._proven: dict[ReplicaKey, RepairedShard] = {}
        self._up: frozenset[str] = frozenset()
        self._wake = asyncio.Event()
        self._work: list[Unending] = []

    # -- life

    def start(self) -> None:
        """Begin; the replicas are open."""
        self._up = _up(self._source.topology)
        self._source.on_change(self._changed)
        self._work += [Unending(self.look_after, f"repair {n}") for n in range(self._settings.rounds)]
        self._work.append(Unending(self.keep_reporting, "repair reports"))

    async def stop(self) -> None:
        """End what is under way; replicas stay as they are then."""
        for work in self._work:
            await work.stop()
        self._work.clear()

    # -- what others ask

    async def on_request(self, shard: ShardRef, repair: bool) -> Any:
        """Make a round of one shard now, and tell what it found."""
        for opened in self._opened():
            if opened.key.shard == (shard.collection_uuid, shard.shard_id):
                return (await self._round(opened, self._care(opened), repair=repair)).to_json()
        raise UnavailableError("the replica is not open", field="shard")

    def missing(self, opened: OpenShard) -> None:
        """Some replica of a shard seems to lack what it should have: a round now, unless one just did not help.

        Where old points are written again all the time, roots differ because one replica is a moment behind another.
        """
        care, now_s = self._care(opened), self._clock.mono_s()
        if now_s > care.told_s + self._settings.retry_s:
            care.hurries = 0
        care.told_s = now_s
        if care.turn.locked() or now_s < care.hurried_s + self._settings.retry_s * 2**care.hurries:
            return
        care.hurried_s, care.hurries = now_s, min(care.hurries + 1, _HURRIES_MAX)
        care.looks_back = True
        care.wanted_s.append(now_s)
        self._wake.set()

    def proven(self, shard: RepairedShard) -> None:
        """All replicas of a shard were found equal and have noted it: the coordinators are to hear of it."""
        self._proven[ReplicaKey(shard.collection_uuid, shard.shard_id)] = shard

    def diverging_leaves(self) -> int:
        """Leaves of hash trees that differed between replicas at the end of their last comparison."""
        return sum(care.leaves for care in self._cares.values())

    def oldest_proof_s(self) -> float:
        """For how long the worst shard of this node has not been found equal everywhere; from its opening at most."""
        now_s, wall_ms = self._clock.mono_s(), self._clock.wall_ms()
        ages = [0.0]
        for opened in self._opened():
            known = self._cares.get(opened.key)
            through = max(opened.shard.repaired_through, opened.hosted.replica.maintenance.repaired_through)
            age_s = (wall_ms - stamp_wall_ms(through)) / 1000
            ages.append(age_s if known is None or through else now_s - known.seen_s)
        return max(ages)

    # -- turns

    def _changed(self, topology: Topology) -> None:
        """Whoever is up again may have missed something."""
        came = _up(topology) - self._up
        self._up = _up(topology)
        if not came:
            return
        for opened in self._opened():
            if came & set(opened.shard.nodes("active", "behind", "leaving")) and self._leads(opened):
                self._want(self._care(opened), after_s=_OWN_ROUND_S)
                self._wake.set()

    def _want(self, care: Care, after_s: float = 0.0) -> None:
        """A round now, or soon, and one as soon as what was written until now has settled."""
        now_s = self._clock.mono_s()
        settled_s = self._settings.settle_s + _SETTLED_S
        care.wanted_s = [now_s + min(after_s, settled_s), now_s + settled_s]

    def _leads(self, opened: OpenShard) -> bool:
        """Whether this node is the one that looks after the shard."""
        return self._leader(opened) == self._node_id

    def _leader(self, opened: OpenShard) -> str:
        """The node that looks after the shard: the first that is up."""
        up = (node_id for node_id in opened.shard.nodes("active") if node_id in self._up)
        return next(up, self._node_id)

    def _care(self, opened: OpenShard) -> Care:
        care = self._cares.get(opened.key)
        replica = opened.hosted.replica
        if care is None or care.replica is not replica:
            now_s = self._clock.mono_s()
            # An empty one has missed nothing that anybody has.
            # Anywhere in the interval: a node that is restarted more often than that would never check a tree.
            checked_s = now_s - self._settings.check_s * self._dice.random()
            care = self._cares[opened.key] = Care(replica, now_s, now_s, checked_s)
            if replica.snapshot().lsn:
                care.back = True
                self._want(care)
        return care

    def _next(self) -> tuple[OpenShard, Care] | None:
        """The shard that waits longest of those whose turn it is."""
        opened = [one for one in self._opened() if not one.hosted.replica.closed and not one.hosted.replica.failed]
        keys = {one.key for one in opened}
        self._cares = {key: care for key, care in self._cares.items() if key in keys}
        due = [(one, self._care(one)) for one in opened]
        now_s = self._clock.mono_s()
        free = [(one, care) for one, care in due if not care.turn.locked() and not care.asking]
        due = [(one, care) for one, care in free if self._due(one, care, now_s)]
        return min(due, key=lambda item: (not _wanted(item[1], now_s), item[1].due_s), default=None)

    def _due(self, opened: OpenShard, care: Care, now_s: float) -> bool:
        if self._node_id in opened.shard.nodes("joining"):
            return False  # it is being filled, and would fetch everything a second time
        if _wanted(care, now_s):
            return True
        return now_s >= care.due_s and (self._leads(opened) or self._neglected(opened, care, now_s))

    def _neglected(self, opened: OpenShard, care: Care, now_s: float) -> bool:
        """Whether nobody has proven anything for so long that whose turn it is cannot be right."""
        patience_s = 2 * self._settings.interval_s + self._settings.settle_s
        through = opened.shard.repaired_through
        proof_age_s = (self._clock.wall_ms() - stamp_wall_ms(through)) / 1000
        return now_s - care.seen_s > patience_s and proof_age_s > patience_s

    async def look_after(self) -> None:
        """Make rounds as they are due, one after the other, for ever."""
        while True:
            found = self._next()
            if found is None:
                self._wake.clear()
                try:
                    async with asyncio.timeout(min(_LOOK_S, self._settings.interval_s)):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                continue
            opened, care = found
            try:
                if care.back or care.looks_back or not await self._asked(opened, care):
                    await self._round(opened, care, young=care.back)
            except OmenDBError as error:
                _log.info("round of %s: %s", opened.key.name, error)

    async def _asked(self, opened: OpenShard, care: Care) -> bool:
        """Whether somebody else makes the round that is due, or is to be asked again; ends when it is made."""
        leader = self._leader(opened)
        if leader == self._node_id or not _wanted(care, self._clock.mono_s()) or care.refused >= _ASKS_MAX:
            return False
        care.wanted_s = [at_s for at_s in care.wanted_s if at_s > self._clock.mono_s()]
        care.asking = True
        try:
            made = await self._ask(opened, leader)
        finally:
            care.asking = False
        care.refused = 0 if made else care.refused + 1
        if not made:
            care.wanted_s.append(self._clock.mono_s() + self._settings.retry_s)
        return True

    async def _ask(self, opened: OpenShard, node_id: str) -> bool:
        """Whether a node made a round that this one took part in, as long as that node is up."""
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(self.rounds.ask(opened, node_id))
            while not asking.done() and node_id in self._up:
                await asyncio.wait((asking,), timeout=_LOOK_S)
            asking.cancel()
        return not asking.cancelled() and asking.result()

    async def _round(self, opened: OpenShard, care: Care, *, repair: bool = True, young: bool = False) -> Round:
        async with care.turn:
            good = False
            looks_back, care.looks_back = care.looks_back, False
            care.wanted_s = [at_s for at_s in care.wanted_s if at_s > self._clock.mono_s()]
            try:
                await self._check_tree(opened, care)
                done = await self.rounds.make(opened, repair=repair, young=young)
                if young:
                    care.back = False
                else:
                    care.leaves = done.together.leaves
                good = done.equal
                care.refused = 0
                settles = [one.settles for one in done.together.last.values() if one.settles]
                if looks_back and settles:
                    # What is newer hides what it replaces: roots differ before it has settled.
                    age_s = (self._clock.wall_ms() - stamp_wall_ms(min(settles))) / 1000
                    care.wanted_s.append(self._clock.mono_s() + self._settings.settle_s + _SETTLED_S - age_s)
                if done.together.pulled or done.together.pushed:
                    care.hurries = 0
                    what = opened.key.name, done.together.pulled, done.together.pushed, done.equal
                    _log.info("round of %s: %d records pulled, %d pushed, equal: %s", *what)
                return done
            finally:
                self._schedule(care, good)

    def _schedule(self, care: Care, good: bool) -> None:
        settings = self._settings
        self.rounds.counts.rounds["equal" if good else "unfinished"] += 1
        care.fails = 0 if good else min(care.fails + 1, _FAILS_MAX)
        pause_s = settings.interval_s if good else min(settings.interval_s, settings.retry_s * 2 ** (care.fails - 1))
        care.due_s = self._clock.mono_s() + pause_s

    async def _check_tree(self, opened: OpenShard, care: Care) -> None:
        """Now and then, hold what is remembered of the hash tree against the records."""
        now_s = self._clock.mono_s()
        if now_s - care.checked_s < self._settings.check_s:
            return
        care.checked_s = now_s
        found = await self._check(care.replica)
        if found.leaves:
            self.rounds.counts.mismatches += 1
            what = opened.key.name, found.leaves, list(found.ids)
            _log.error(
                "%s: %d leaves of the hash tree did not agree with the records, and are made anew from them; "
                "wrong digests were stored for %s",
                *what,
            )

    # -- reports

    async def keep_reporting(self) -> None:
        """Tell the coordinators of what was proven, for ever."""
        while True:
            await asyncio.sleep(_REPORT_S)
            told = list(self._proven.items())
            if not told:
                continue
            try:
                await self._report([shard for _, shard in told])
            except OmenDBError as error:
                _log.info("the coordinators do not hear what was proven: %s", error)
                continue
            for key, shard in told:
                if self._proven.get(key) is shard:
                    del self._proven[key]


def _wanted(care: Care, now_s: float) -> bool:
    return any(at_s <= now_s for at_s in care.wanted_s)


def _up(topology: Topology) -> frozenset[str]:
    return frozenset(m.node_id for m in topology.members.values() if m.role == "datanode" and m.state == "up")


__all__ = ["Care", "Repairer"]
