"""Two replicas of a shard compare what they hold, and give each other what one has and the other lacks (P12).

::

    root equal through T                       nothing to do
    else level by level                        only below nodes that differ
    else what the differing leaves hold        id, stamps and digest of each record
    else whole records, both ways              by Lookup and Repair, in bounded batches

Everything is asked for under the shard's epoch, so a replica that was dropped, moved or made anew ends the exchange,
and nothing here makes one. Cancelling an exchange leaves both replicas as sound as before: every batch stands for
itself. An exchange compares again after it has sent something, until a comparison finds nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import DeadlineExceededError, OmenDBError, ResourceExhaustedError, UnavailableError
from omendb_common.hlc import EPOCH_MS, stamp_at
from omendb_common.ids import IdColumn
from omendb_common.records import WriteBatch
from omendb_common.shard_calls import (
    ENTRIES_MAX,
    TREE_DEPTH_MAX,
    TREE_NODES_MAX,
    DataNode,
    Entries,
    Int64,
    Listed,
    Lookup,
    Repair,
    ShardRef,
    Summed,
    Sums,
    Verdict,
)
from omendb_datanode.config import RepairSettings
from omendb_datanode.replicate.differences import Differences, differences, joined
from omendb_datanode.replicate.pace import Pace

_log = logging.getLogger(__name__)

PASSES_MAX = 4
"""Comparisons in one exchange: what still differs then is looked at in the next."""
LEAF_RECORDS = 16
"""About so many records share a leaf; a replica with fewer than 2^14 of them is compared at 2^10 leaves."""
DEPTH_MIN = 10
_STEP = 5
_TRIES = 6
_LISTED_MAX = 4096
_IDS_TOLD = 20
# A record that differs costs about so much before it is read: ids, stamps and digests of its leaf, on both sides.
_ENTRY_BYTES = 48


class _Answer(Protocol):
    @property
    def verdict(self) -> Verdict: ...

    @property
    def error(self) -> OmenDBError | None: ...


C = TypeVar("C")
T = TypeVar("T")
A = TypeVar("A", bound=_Answer)


class ExchangeEndedError(UnavailableError):
    """A replica could not, or did not want to, go on: another map, another floor, a call that was refused."""


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What an exchange did and left. ``pulled``, ``pushed``: records sent, ``size`` their bytes.

    Of the last comparison: ``differing``, ids that should be equal through the stamp and are not; ``young``, those
    that are too young to tell, and ``settles``, the stamp of the first of them that will not be; ``leaves`` of the tree
    with a differing id; ``ids``, some of those that differ.
    ``collided``: ids with the same stamps and other content, in all comparisons.
    """

    through: int
    pulled: int = 0
    pushed: int = 0
    size: int = 0
    differing: int = 0
    young: int = 0
    leaves: int = 0
    collided: int = 0
    records: int = 0
    peer_repaired_through: int = 0
    ids: tuple[int | str, ...] = ()
    settles: int = 0

    @property
    def equal(self) -> bool:
        """Whether the replicas hold the same through the stamp."""
        return self.differing == 0


@dataclass(frozen=True, slots=True)
class Moved:
    """Told after every batch that was sent: records and bytes."""

    pulled: int
    pushed: int
    size: int


class Exchange:
    """One comparison of the replica ``here`` with that of another node. Belongs to one event loop.

    Args:
        shard: of both, under the map of this node.
        gc_floor: of the replica here; the other's must be the same.
        moved: told of every batch.
        begun: told, when a comparison begins, how many records the fuller replica holds through the stamp.
    """

    def __init__(
        self,
        here: DataNode,
        there: DataNode,
        shard: ShardRef,
        gc_floor: int,
        clock: Clock,
        pace: Pace,
        settings: RepairSettings,
        moved: Callable[[Moved], None] = lambda _: None,
        begun: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._here = here
        self._there = there
        self._shard = shard
        self._floor = gc_floor
        self._clock = clock
        self._pace = pace
        self._settings = settings
        self._moved = moved
        self._begun = begun
        self._done = Exchanged(0)
        self._record_bytes = 1024.0
        self.barred = IdColumn.empty()
        """Ids of the last run of which a claim kept a record out."""

    async def run(self, through: int, *, repair: bool = True) -> Exchanged:
        """Compare through a stamp; with ``repair`` send what is missing, and compare again until nothing is.

        Raises:
            ExchangeEndedError: it cannot be finished under this map, or now.
            DeadlineExceededError, UnavailableError: a call brought no answer.
        """
        self._done = Exchanged(through)
        self.barred = IdColumn.empty()
        for _ in range(PASSES_MAX if repair else 1):
            self._done = replace(self._done, differing=0, young=0, leaves=0, ids=(), settles=0)
            sent = self._done.pulled + self._done.pushed
            await self._compare(through, repair)
            if self._done.equal or self._done.pulled + self._done.pushed == sent:
                break
        return self._done

    # -- the descent

    async def _compare(self, through: int, repair: bool) -> None:
        here, there = await self._sums(through, 0, np.zeros(1, np.int64), fresh=True)
        records = max(int(here.counts[0]), int(there.counts[0]))
        self._done = replace(self._done, records=records, peer_repaired_through=there.repaired_through)
        self._begun(records)
        depth = _depth_for(records)
        nodes = np.zeros(1, np.int64) if _differ(here, there).any() else np.zeros(0, np.int64)
        level = 0
        while level < depth and len(nodes):
            below = min(level + _STEP, depth)
            nodes = await self._differing(through, below, _children(nodes, below - level))
            level = below
        async for group in self._groups(through, depth, nodes):
            await self._settle(depth, group, through, repair)

    async def _differing(self, through: int, depth: int, nodes: Int64) -> Int64:
        found = []
        for start in range(0, len(nodes), TREE_NODES_MAX):
            some = nodes[start : start + TREE_NODES_MAX]
            here, there = await self._sums(through, depth, some)
            found.append(some[_differ(here, there)])
        return np.concatenate(found)

    async def _groups(self, through: int, depth: int, nodes: Int64) -> AsyncIterator[Int64]:
        """The differing leaves, as many at a time as have records for one page."""
        for start in range(0, len(nodes), TREE_NODES_MAX):
            some = nodes[start : start + TREE_NODES_MAX]
            here, there = await self._sums(through, depth, some)
            group = np.cumsum(np.maximum(here.counts, there.counts)) // _LISTED_MAX
            for number in np.unique(group):
                yield some[group == number]

    async def _sums(self, through: int, depth: int, nodes: Int64, *, fresh: bool = False) -> tuple[Summed, Summed]:
        call = Sums(self._shard, through, self._floor, depth, nodes, fresh)
        here, there = await asyncio.gather(self._ask(self._here.sums, call), self._ask(self._there.sums, call))
        for answer in (here, there):
            if answer.gc_floor != self._floor:
                raise ExchangeEndedError(
                    f"a replica stands at {answer.gc_floor}",
                    field="gc_floor",
                    bound=str(self._floor),
                    mend="wait until both follow the same map",
                )
        if len(here.counts) != len(nodes) or len(there.counts) != len(nodes):
            raise ExchangeEndedError("a replica told of other nodes than it was asked for", field="nodes")
        return here, there

    # -- records

    async def _settle(self, depth: int, nodes: Int64, through: int, repair: bool) -> None:
        """Compare the records of some leaves, and send those that one side lacks."""
        here, there = await asyncio.gather(
            self._listed(self._here, depth, nodes), self._listed(self._there, depth, nodes)
        )
        found = differences(here, there, through)
        self._note(found, depth, here, there)
        await self._pace.spend(_ENTRY_BYTES * (len(here.ids) + len(there.ids)))
        if repair:
            await self._send(found.pull, self._there, self._here, "pulled")
            await self._send(found.push, self._here, self._there, "pushed")
            await self._send(found.pull_tied, self._there, self._here, "pulled", tied=True)
            await self._send(found.push_tied, self._here, self._there, "pushed", tied=True)

    def _note(self, found: Differences, depth: int, here: Listed, there: Listed) -> None:
        done = self._done
        differing = IdColumn.concat([found.pull, found.push, found.pull_tied, found.push_tied])
        leaves = len(np.unique(differing.hashes()[1] >> np.uint64(64 - depth))) if depth else min(1, found.settled)
        self._done = replace(
            done,
            differing=done.differing + found.settled,
            young=done.young + found.young,
            leaves=done.leaves + leaves,
            collided=done.collided + len(found.collided),
            ids=_some(done.ids, found),
            settles=min(done.settles or found.settles, found.settles or done.settles),
        )
        if len(found.collided):
            some = found.collided.slice(0, 3).to_list()
            _log.error(
                "%s.%d: %d ids carry the same stamps and other content on two replicas, such as %s: one is kept",
                *(self._shard.collection_uuid, self._shard.shard_id, len(found.collided), some),
            )

    async def _listed(self, node: DataNode, depth: int, nodes: Int64) -> Listed:
        pages: list[Listed] = []
        while True:
            cursor = pages[-1].cursor if pages else None
            call = Entries(self._shard, self._floor, depth, nodes, ENTRIES_MAX, cursor)
            pages.append(await self._ask(node.entries, call))
            if pages[-1].cursor is None:
                return joined(pages)

    async def _send(
        self, ids: IdColumn, source: DataNode, target: DataNode, direction: str, *, tied: bool = False
    ) -> None:
        """Bring whole records from one replica to the other, so many at a time as the bounds allow."""
        start = 0
        while start < len(ids):
            rows = int(max(1, min(self._settings.batch_rows, self._settings.batch_bytes / self._record_bytes)))
            some = ids.slice(start, min(start + rows, len(ids)))
            start += len(some)
            looked = await self._ask(source.lookup, Lookup(self._shard, some, records=True))
            if not looked.records:
                continue  # nothing is known of them any more: deleted, and the deletion forgotten
            size = sum(map(_size_of, looked.records))
            self._record_bytes = max(1.0, size / len(some))
            await self._pace.spend(size)
            answer = await self._ask(target.repair, Repair(self._shard, looked.records, self._floor, tied))
            if len(answer.barred):
                sent = IdColumn.concat([batch.ids for batch in looked.records])
                self.barred = IdColumn.concat([self.barred, sent.take(answer.barred)])
            self._count(direction, len(some), size)

    def _count(self, direction: str, records: int, size: int) -> None:
        pulled, pushed = (records, 0) if direction == "pulled" else (0, records)
        done = self._done
        self._done = replace(done, pulled=done.pulled + pulled, pushed=done.pushed + pushed, size=done.size + size)
        self._moved(Moved(pulled, pushed, size))

    # -- calls

    async def _ask(self, method: Callable[[C, Deadline], Awaitable[A]], call: C) -> A:
        """The answer of a replica that says OK; one that is busy is asked again, a few times."""
        for left in reversed(range(_TRIES)):
            with self._pace.beside_clients():
                answer = await in_time(method, call, Deadline.after(self._clock, self._settings.call_timeout_s))
            if answer.verdict is Verdict.OK:
                return answer
            error = answer.error
            if not left or not isinstance(error, ResourceExhaustedError):
                raise ExchangeEndedError(
                    f"{answer.verdict.name}: {error if error is not None else 'no reason given'}", field="shard"
                )
            await self._pace.pause(max(error.retry_after or 0.0, 2.0 ** (_TRIES - left) / 10))
        raise AssertionError("unreachable")


async def in_time(method: Callable[[C, Deadline], Awaitable[T]], call: C, deadline: Deadline) -> T:
    """The answer to a call; DeadlineExceededError when there is none by the deadline, whoever should have said so."""
    try:
        async with asyncio.timeout(deadline.left_s):
            return await method(call, deadline)
    except TimeoutError:
        raise DeadlineExceededError("a replica brought no answer", field="timeout", outcome="unknown") from None


def settled_stamp(clock: Clock, settle_s: float) -> int:
    """The greatest stamp of writes that began so long ago that they have arrived wherever they will."""
    return stamp_at(max(clock.wall_ms() - int(settle_s * 1000), EPOCH_MS))


def _depth_for(records: int) -> int:
    """The level at which records are listed: few to a leaf, so that one that differs costs little."""
    return min(max((records // LEAF_RECORDS).bit_length(), DEPTH_MIN), TREE_DEPTH_MAX)


def _children(nodes: Int64, levels: int) -> Int64:
    fan = 1 << levels
    return (nodes[:, None] * fan + np.arange(fan)).reshape(-1)


def _differ(here: Summed, there: Summed) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    found = (here.counts != there.counts) | (here.first != there.first) | (here.second != there.second)
    return np.asarray(found, np.bool_)


def _some(told: tuple[int | str, ...], found: Differences) -> tuple[int | str, ...]:
    """A few ids that differ: those told before, and new ones for as long as there is room."""
    lists = [ids.slice(0, _IDS_TOLD).to_list() for ids in (found.pull, found.push, found.collided)]
    return tuple(dict.fromkeys((*told, *lists[0], *lists[1], *lists[2])))[:_IDS_TOLD]


def _size_of(batch: WriteBatch) -> int:
    payload = 0 if batch.payload is None else int(batch.payload.nbytes)
    return 24 * batch.rows + payload + sum(array.nbytes for array in batch.vectors.values())


__all__ = ["PASSES_MAX", "Exchange", "ExchangeEndedError", "Exchanged", "Moved", "in_time", "settled_stamp"]
