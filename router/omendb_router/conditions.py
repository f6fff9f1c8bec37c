"""Writes on condition: points written only if they are as their writer knows them, on any number of replicas (P19).

What is written under a claim is whole points or deletions; an update is completed with what is read behind the claim.

Each round claims the points under a fresh stamp, reads behind the claim, decides, and writes under the stamp of the
claim. Somebody else's newer claim ends a round, and the next one goes above it. What an earlier round may have left
behind is looked for by the next: it is there, or certainly never will be, or it was overtaken and nobody can know.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, OmenDBError, UnavailableError
from omendb_common.ids import U64Array
from omendb_common.records import Op, WriteBatch
from omendb_common.shard_calls import State
from omendb_common.topology import CollectionInfo
from omendb_router.asked import StaleMapError
from omendb_router.claiming import BeatenError, Claiming, Held, Place, Rows
from omendb_router.fanout import Fanout, together
from omendb_router.lookups import Lookups, Wanted
from omendb_router.maps import Maps
from omendb_router.routing import Share, shares, take_rows
from omendb_router.stamps import Leases, Stamps
from omendb_router.tally import Tally, weakest
from omendb_router.turns import Turns
from omendb_router.versions import Mask
from omendb_router.writes import Fate, Outcome

_EVERY = slice(None)


@dataclass(frozen=True, slots=True)
class Demand:
    """Points to be written, and of each the version that must be there: its newest stamp, 0 for no such point.

    ``conflict`` makes the error for rows (indices) that are otherwise, whose newest stamps are given.
    """

    batch: WriteBatch
    hashes: U64Array
    versions: U64Array
    conflict: Callable[[Rows, U64Array], OmenDBError]

    def broken(self, rows: Rows | slice, held: Held) -> Mask:
        """Which of the points of a claim are not as demanded."""
        live, wanted = held.versions.states == State.LIVE, self.versions[rows]
        stamps = np.where(live, held.versions.stamps, np.uint64(0))
        return np.asarray(stamps != wanted, np.bool_)


@dataclass(slots=True)
class _Work:
    """One demand on its way. ``tried``: stamps under which something may have been written."""

    info: CollectionInfo
    demand: Demand
    tried: set[int]
    above: int
    rounds: int = 0
    cause: OmenDBError | None = None
    tallies: list[Tally] = field(default_factory=list)


class Conditions:
    """Carries writes on condition out."""

    def __init__(
        self,
        fanout: Fanout,
        claiming: Claiming,
        lookups: Lookups,
        maps: Maps,
        stamps: Stamps,
        leases: Leases,
        dice: random.Random,
    ) -> None:
        self._fanout = fanout
        self._claiming = claiming
        self._lookups = lookups
        self._maps = maps
        self._stamps = stamps
        self._leases = leases
        self._dice = dice
        self._turns = Turns()

    async def write(self, info: CollectionInfo, demand: Demand, retry_stamp: int | None, deadline: Deadline) -> Outcome:
        """Store the points if all of them are as demanded. It never raises for what became of it."""
        try:
            async with self._turns.of(demand.hashes, deadline):
                return await self._carry_out(info, demand, retry_stamp, deadline)
        except TimeoutError:
            late = DeadlineExceededError("others write the same points", field="timeout", outcome="none")
            return Outcome(Fate.INDETERMINATE if retry_stamp else Fate.NOT_APPLIED, retry_stamp or 0, cause=late)

    async def _carry_out(
        self, info: CollectionInfo, demand: Demand, retry_stamp: int | None, deadline: Deadline
    ) -> Outcome:
        work = _Work(info, demand, set() if retry_stamp is None else {retry_stamp}, retry_stamp or 0)
        while work.rounds < self._fanout.settings.claim_rounds_max and not deadline.passed:
            if work.rounds:
                await self._pause(work.rounds, deadline)
            work.rounds += 1
            try:
                outcome = await self._round(work, deadline)
            except BeatenError as beaten:
                work.above, work.cause = max(work.above, beaten.newer), beaten
            except StaleMapError as stale:
                work.cause = stale
                work.info = await self._newer(work, deadline)
            except OmenDBError as error:
                work.cause = error
                if not work.tried:
                    break
            else:
                if outcome is not None:
                    return outcome
        return self._given_up(work)

    # -- one round

    async def _round(self, work: _Work, deadline: Deadline) -> Outcome | None:
        """Claim, read, decide, write; None when the next round must find out what became of this one."""
        demand = work.demand
        parts = shares(work.info.shards, demand.hashes)
        if demand.batch.op is Op.UPDATE:
            await self._put_together(work, parts, deadline)
        stamp = await self._leases.stamp_above(work.above, deadline)
        work.above = stamp
        places = [self._place(work, part) for part in parts]
        helds = await self._claims(places, stamp, deadline)
        broken = [demand.broken(_rows(part), held) for part, held in zip(parts, helds, strict=True)]
        tried = np.array(sorted(work.tried), np.uint64)
        own = [np.isin(held.versions.stamps, tried) for held in helds]
        if all(bool((mine & held.versions.agreed).all()) for mine, held in zip(own, helds, strict=True)):
            self._waive(helds)
            return self._committed(helds, max(int(held.versions.stamps.max()) for held in helds), [])
        if any(bool((b & ~mine).any()) for b, mine in zip(broken, own, strict=True)):
            return await self._refused(work, parts, helds, broken, deadline)
        if len(tried) and any(
            bool((~mine & (held.versions.stamps > tried[0])).any()) for mine, held in zip(own, helds, strict=True)
        ):
            # Somebody may have seen what an earlier round wrote before this took its place: it is not written twice.
            return self._overtaken(work, helds)
        return await self._put(work, await self._whole(work, parts, helds, deadline), helds, stamp, deadline)

    async def _put_together(self, work: _Work, parts: Sequence[Share], deadline: Deadline) -> None:
        """Have replicas that differ on points agree before they are claimed: under a claim that is too late."""
        places = [self._place(work, part) for part in parts]
        await together([self._lookups.read(place.asked, place.ids, Wanted(), deadline) for place in places])

    async def _whole(
        self, work: _Work, parts: Sequence[Share], helds: Sequence[Held], deadline: Deadline
    ) -> list[WriteBatch]:
        """What is to be written in each shard; the claims are waived when that cannot be said."""
        batches = [take_rows(work.demand.batch, part.rows) for part in parts]
        if work.demand.batch.op is not Op.UPDATE:
            return batches
        try:
            return await together(
                [self._claiming.completed(held, batch, deadline) for held, batch in zip(helds, batches, strict=True)]
            )
        except BaseException:
            self._waive(helds)
            raise

    async def _claims(self, places: Sequence[Place], stamp: int, deadline: Deadline) -> list[Held]:
        """Claims in all shards, or in none."""
        held: list[Held] = []

        async def one(place: Place) -> Held:
            held.append(found := await self._claiming.claim(place, stamp, deadline))
            return found

        try:
            return await together([one(place) for place in places])
        except BaseException:
            self._waive(held)
            raise

    async def _refused(
        self, work: _Work, parts: Sequence[Share], helds: Sequence[Held], broken: Sequence[Mask], deadline: Deadline
    ) -> Outcome | None:
        """The demand does not hold: say so, if it is certain that nothing of it was written."""
        newest = max(int(held.versions.stamps[b].max(initial=0)) for held, b in zip(helds, broken, strict=True))
        if not work.tried:
            self._waive(helds)
            return await self._still_refused(work, parts, helds, deadline)
        if work.demand.batch.rows > 1 or not 0 < newest < min(work.tried):
            return self._overtaken(work, helds)
        # What was sent under an earlier stamp must not turn up after it was called refused: this goes above it.
        (held,) = helds
        only = np.zeros(1, np.int64)
        await self._claiming.settle(held, only, deadline)
        live = bool(held.versions.states[0] == State.LIVE)
        stamps = np.array([held.stamp if live else 0], np.uint64)
        return Outcome(Fate.NOT_APPLIED, cause=work.demand.conflict(only, stamps))

    def _overtaken(self, work: _Work, helds: Sequence[Held]) -> Outcome:
        self._waive(helds)
        work.cause = UnavailableError(
            "a later write is there, and nobody knows what came of this one before it", field="ids"
        )
        return self._unknown(work)

    async def _still_refused(
        self, work: _Work, parts: Sequence[Share], helds: Sequence[Held], deadline: Deadline
    ) -> Outcome | None:
        """What is told as found must stay: it is read as any reader reads it. None when it is otherwise by now."""
        demand, found, rows = work.demand, [], []
        for part, held in zip(parts, helds, strict=True):
            place = held.place
            known = await self._lookups.read(place.asked, place.ids, Wanted(), deadline)
            self._stamps.observe(int(known.stamps.max(initial=0)))
            versions = np.where(known.states == State.LIVE, known.stamps, np.uint64(0))
            broken = np.flatnonzero(versions != demand.versions[_rows(part)])
            found.append(versions[broken])
            rows.append(np.arange(demand.batch.rows)[_rows(part)][broken])
        if not sum(map(len, rows)):
            return None
        cause = demand.conflict(np.concatenate(rows), np.concatenate(found))
        return Outcome(Fate.NOT_APPLIED, cause=cause)

    async def _put(
        self, work: _Work, batches: Sequence[WriteBatch], helds: Sequence[Held], stamp: int, deadline: Deadline
    ) -> Outcome | None:
        work.tallies = await together(
            [self._claiming.put(held.place, batch, stamp, deadline) for batch, held in zip(batches, helds, strict=True)]
        )
        if all(tally.settled().all() for tally in work.tallies):
            return self._committed(helds, stamp, work.tallies)
        work.cause = next(tally.cause() for tally in work.tallies if not tally.settled().all())
        work.above = max(work.above, *(int(tally.newer.max(initial=0)) for tally in work.tallies))
        if all(tally.untouched() for tally in work.tallies):
            self._waive(helds)
        else:
            work.tried.add(stamp)
        if any(tally.stale for tally in work.tallies):
            work.info = await self._newer(work, deadline)
        return None

    async def _newer(self, work: _Work, deadline: Deadline) -> CollectionInfo:
        try:
            return await self._maps.newer(work.info, deadline)
        except OmenDBError as error:  # it was dropped: the next round says so, or that nobody knows
            work.cause = error
            return work.info

    # -- what they share

    def _place(self, work: _Work, part: Share) -> Place:
        ids = work.demand.batch.ids
        return Place(work.info, part.shard, ids if part.rows is None else ids.take(part.rows), self._stamps.origin)

    def _waive(self, helds: Sequence[Held]) -> None:
        for held in helds:
            self._claiming.waive(held.place, held.stamp)

    def _committed(self, helds: Sequence[Held], stamp: int, tallies: Sequence[Tally]) -> Outcome:
        durability = ""
        for tally in tallies:
            durability = weakest(durability, tally.durability)
        return Outcome(
            Fate.COMMITTED,
            stamp,
            max((tally.lsn for tally in tallies), default=0),
            durability,
            sum(tally.existed for tally in tallies),
            written={held.place.shard.shard_id: stamp for held in helds},
        )

    def _given_up(self, work: _Work) -> Outcome:
        if work.tried:
            return self._unknown(work)
        cause = work.cause or DeadlineExceededError("the deadline passed before it began", field="timeout")
        return Outcome(Fate.NOT_APPLIED, cause=cause)

    def _unknown(self, work: _Work) -> Outcome:
        acked = min((tally.acked() for tally in work.tallies), default=0)
        required = max((tally.ballot.need for tally in work.tallies), default=0)
        # Of several stamps none is enough to find out by.
        stamp = max(work.tried) if len(work.tried) == 1 else 0
        return Outcome(Fate.INDETERMINATE, stamp, acked=acked, required=required, cause=work.cause)

    async def _pause(self, before: int, deadline: Deadline) -> None:
        """A moment, longer each time and never the same for two that claim the same points."""
        mean_s = self._fanout.settings.retry_pause_ms / 1e3 * min(2 ** (before - 1), 16)
        await asyncio.sleep(min(mean_s * 2 * self._dice.random(), max(deadline.left_s, 0.0)))


def _rows(part: Share) -> Rows | slice:
    return _EVERY if part.rows is None else part.rows


__all__ = ["Conditions", "Demand"]
