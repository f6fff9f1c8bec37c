"""What a data node does with a router's call: the rules of a replica, in their order (P2, P15, P16).

::

    no such replica here                        NOT_HERE      after a look at a newer map, when the caller has one
    map older than the fence                    STALE_EPOCH
    map newer than known, and not to be had     STALE_EPOCH
    stamp too far ahead of this clock           CLOCK_AHEAD
    anything else that cannot be done           REFUSED       with the error; nothing was applied
    rows older than what their points carry     OK, superseded   (the engine's single writer decides, before it logs)
    rows already there under this very stamp    OK
    everything else                             logged, synced, applied, visible: OK

What brings no answer in time raises, as :class:`~omendb_common.shard_calls.DataNode` says.
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import (
    CorruptionError,
    DeadlineExceededError,
    InvalidArgumentError,
    OmenDBError,
    ResourceExhaustedError,
    UnavailableError,
)
from omendb_common.explanation import Explanation
from omendb_common.hlc import HybridLogicalClock, stamp_wall_ms
from omendb_common.records import WriteBatch
from omendb_common.shard_calls import (
    MAX_AHEAD_MS,
    Applied,
    Apply,
    Entries,
    Listed,
    Looked,
    Lookup,
    Maintain,
    Maintained,
    Repair,
    Score,
    Scored,
    Scroll,
    Scrolled,
    Search,
    Select,
    Selected,
    ShardHits,
    ShardRef,
    Shared,
    Summed,
    Sums,
    Verdict,
    Work,
)
from omendb_datanode.client_time import ClientTime
from omendb_datanode.engine_threads import EngineThreads
from omendb_datanode.hosted import Hosted, Replicas
from omendb_datanode.load import Loads, Place, place_of_ids
from omendb_datanode.recall import Recall
from omendb_datanode.replicate.trees import RecentTrees, listed
from omendb_datanode.write_queue import Counted, Outcome, WriteLimits, WriteQueue
from omendb_engine.disk_errors import disk_error
from omendb_engine.query.answer import Picked, SearchAnswer
from omendb_engine.replica import Replica
from omendb_engine.stamped import StampedResult, StampedWrite

_log = logging.getLogger(__name__)

REFRESH_S_MAX = 1.0
"""How long a call waits for a newer map before it is told that this node has none."""
LOOKUP_IDS_MAX = 1 << 17
SHORT_NUMBERS = 2 << 20
"""A query is compared with so many numbers in less time than it takes to another thread and back."""

A = TypeVar("A")
# What Faiss, Arrow, NumPy and our own mistakes raise: one call's refusal, not the end of a connection.
_FAULTS = (
    *(OSError, MemoryError, RuntimeError, ValueError, TypeError),
    *(LookupError, ArithmeticError, AttributeError, AssertionError, pa.ArrowException),
)


class RefusedCallError(Exception):
    """A call that ends with another verdict than OK; ``error`` says more."""

    def __init__(self, verdict: Verdict, error: OmenDBError) -> None:
        super().__init__(verdict, error)
        self.verdict = verdict
        self.error = error


class ShardRules:
    """A :class:`~omendb_common.shard_calls.DataNode` over the replicas of this process. Used from one event loop.

    Args:
        threads: where the engine works; closed by whoever made them.
        write_limits: what may wait for one replica.
        admit: asked before every call; raises ResourceExhaustedError when the node is behind.
        care: compares the replica of a shard with all others, and with True brings them together; what it found.
        damaged: told of a shard when a call met damage there.
        scrub: reads all files of the replica of a shard now, so many bytes a second (0: its own rate); what is damaged.
        loads: where it is counted what clients' calls cost.
        recall: what part of the true neighbours searches of a shard were found to find lately; None: not known.
    """

    def __init__(
        self,
        replicas: Replicas,
        clock: Clock,
        threads: EngineThreads,
        *,
        write_limits: WriteLimits | None = None,
        admit: Callable[[], None] = lambda: None,
        care: Callable[[ShardRef, bool], Awaitable[Any]] | None = None,
        damaged: Callable[[ShardRef], None] = lambda _: None,
        scrub: Callable[[ShardRef, Deadline, int], Awaitable[Any]] | None = None,
        loads: Loads | None = None,
        recall: Callable[[ShardRef], float | None] = lambda _: None,
    ) -> None:
        self._admit = admit
        self._care = care or _alone
        self._damaged = damaged
        self._scrub = scrub or _unread
        self._live_recall = recall
        self._replicas = replicas
        self._clock = clock
        self._threads = threads
        self._limits = write_limits or WriteLimits()
        self._hlc = HybridLogicalClock(clock)
        self._queues: dict[Replica, WriteQueue] = {}
        self._recalls: dict[Replica, Recall] = {}
        self._trees = RecentTrees()
        self.loads = loads or Loads(clock)
        """What routers' calls cost each replica."""
        self.clients = ClientTime(clock)
        """For how long calls that data nodes never make of each other have been at work."""

    # -- the calls

    async def apply(self, call: Apply, deadline: Deadline) -> Applied:
        """Write."""

        async def work() -> Applied:
            hosted = await self._hosted(call.shard, deadline)
            self._check_clock(call.stamp)
            if call.batch.stamps is not None:
                raise InvalidArgumentError("rows with stamps of their own", field="stamps", bound="one stamp for all")
            write = StampedWrite(
                call.batch, call.stamp, call.body, call.create_only, claim=call.claim, versions=call.versions
            )
            recall = self._recall(hosted.replica)
            (result,) = await self._write(hosted, [write], deadline)
            self._hlc.observe(call.stamp)
            if not call.claim:
                result = recall.told(call.batch, call.stamp, result)
            return self._applied([result], [call.batch])

        with self.clients:
            return await self._answer(call.shard, work, Applied, "writing")

    async def repair(self, call: Repair, deadline: Deadline) -> Applied:
        """Bring records up to date."""

        async def work() -> Applied:
            hosted = await self._hosted(call.shard, deadline)
            if not call.records:
                return Applied(Verdict.OK, self._hlc.now(), durability=hosted.replica.durability)
            newest = max(_newest_stamp(batch) for batch in call.records)
            self._check_clock(newest)
            settled = 0 < call.gc_floor == hosted.replica.maintenance.gc_floor
            writes = [StampedWrite(batch, 0, settled=settled, tied=call.tied) for batch in call.records]
            recall = self._recall(hosted.replica)
            try:
                results = await self._write(hosted, writes, deadline)
            except BaseException:
                recall.lost()
                raise
            for batch, result in zip(call.records, results, strict=True):
                recall.given(batch, result)
            self._hlc.observe(newest)
            return self._applied(results, call.records)

        return await self._answer(call.shard, work, Applied, "repairing")

    async def search(self, call: Search, deadline: Deadline) -> ShardHits:
        """Search."""

        async def work() -> ShardHits:
            hosted = await self._hosted(call.shard, deadline)
            if call.unproven:
                told = self._nothing_unproven(hosted.replica, call)
                if told is not None:
                    return told
                return await self._read(hosted, lambda: self._search_unproven(hosted.replica, call), deadline)
            short = not call.explain and _is_short(hosted.replica, call)
            return await self._read(hosted, lambda: self._search(hosted.replica, call), deadline, short=short)

        with self.clients:
            return await self._answer(call.shard, work, ShardHits, "searching")

    async def lookup(self, call: Lookup, deadline: Deadline) -> Looked:
        """Look ids up."""

        async def work() -> Looked:
            hosted = await self._hosted(call.shard, deadline)
            _check_count(len(call.ids))
            if not call.shard.origin:  # a data node's, which brings replicas together
                return await self._threads.read(lambda: self._lookup(hosted.replica, call), deadline)
            place = place_of_ids(call.ids, hosted.partition_key)
            return await self._read(hosted, lambda: self._lookup(hosted.replica, call), deadline, place)

        return await self._answer(call.shard, work, Looked, "looking up ids")

    async def score(self, call: Score, deadline: Deadline) -> Scored:
        """Score ids."""

        async def work() -> Scored:
            hosted = await self._hosted(call.shard, deadline)
            _check_count(len(call.ids))
            return await self._read(hosted, lambda: _score(hosted.replica, call), deadline)

        with self.clients:
            return await self._answer(call.shard, work, Scored, "scoring ids")

    async def scroll(self, call: Scroll, deadline: Deadline) -> Scrolled:
        """Read a page."""

        async def work() -> Scrolled:
            hosted = await self._hosted(call.shard, deadline)
            return await self._read(hosted, lambda: _scroll(hosted.replica, call), deadline)

        with self.clients:
            return await self._answer(call.shard, work, Scrolled, "scrolling")

    async def select(self, call: Select, deadline: Deadline) -> Selected:
        """Resolve a filter."""

        async def work() -> Selected:
            hosted = await self._hosted(call.shard, deadline)
            return await self._read(hosted, lambda: _select(hosted.replica, call), deadline)

        with self.clients:
            return await self._answer(call.shard, work, Selected, "selecting points")

    async def maintain(self, call: Maintain, deadline: Deadline) -> Maintained:
        """Do or tell something about a replica."""

        async def work() -> Maintained:
            hosted = await self._hosted(call.shard, deadline)
            if call.task in ("verify", "repair"):
                return Maintained(Verdict.OK, await self._care(call.shard, call.task == "repair"))
            if call.task == "scrub":
                return Maintained(Verdict.OK, await self._scrub(call.shard, deadline, call.bytes_per_s))
            if call.task == "note_agreed":
                agreed, found = hosted.replica.agreements, (call.openings, call.positions)
                noted = await self._threads.compare(lambda: agreed.note(call.through, *found), deadline)
                return Maintained(Verdict.OK, noted)
            if call.task == "note_repaired":
                # From a clock that is ahead it would let the floor rise above the stamps of writes to come.
                self._check_clock(call.through)
                await self._threads.compare(
                    lambda: hosted.replica.raise_floors(repaired_through=call.through), deadline
                )
                return Maintained(Verdict.OK, True)
            value = await self._threads.chore(lambda: _maintain(hosted, call, deadline), deadline)
            if call.task == "stats":
                value["recall_at_10"] = self._live_recall(call.shard)
            return Maintained(Verdict.OK, value)

        return await self._answer(call.shard, work, Maintained, call.task)

    async def sums(self, call: Sums, deadline: Deadline) -> Summed:
        """Tell values of the hash tree."""

        async def work() -> Summed:
            hosted = await self._hosted(call.shard, deadline)
            agreements = hosted.replica.agreements
            agreements.opening = agreements.opening or secrets.randbits(63) + 1
            return await self._threads.compare(lambda: self._trees.sums(hosted.replica, call), deadline)

        return await self._answer(call.shard, work, Summed, "summing up")

    async def entries(self, call: Entries, deadline: Deadline) -> Listed:
        """List records by the hash tree."""

        async def work() -> Listed:
            hosted = await self._hosted(call.shard, deadline)
            return await self._threads.compare(lambda: listed(hosted.replica, call), deadline)

        return await self._answer(call.shard, work, Listed, "listing records")

    async def drained(self, replica: Replica) -> None:
        """Wait until every write into a replica that was let in before has ended (P14)."""
        queue = self._queues.get(replica)
        if queue is not None:
            await queue.drained()

    def observe(self, stamp: int) -> None:
        """Have this node's clock count a stamp that a replica holds."""
        self._hlc.observe(stamp)

    # -- the rules

    async def _hosted(self, shard: ShardRef, deadline: Deadline) -> Hosted:
        """The replica for a call, with a map that both sides agree on."""
        if deadline.passed:
            raise DeadlineExceededError("the deadline passed before the call began", field="timeout", outcome="none")
        self._admit()
        hosted = self._replicas.find(shard)
        if shard.epoch > (self._replicas.revision if hosted is None else hosted.epoch):
            await self._replicas.refresh(shard.epoch, Deadline(deadline.clock, self._refresh_until(deadline)))
            hosted = self._replicas.find(shard)
        if hosted is None:
            raise RefusedCallError(
                Verdict.NOT_HERE,
                UnavailableError(
                    "this node does not serve the shard",
                    field=f"{shard.collection_uuid}.{shard.shard_id}",
                    mend="look at a newer map",
                ),
            )
        if not hosted.fence <= shard.epoch <= hosted.epoch:
            known = f"{hosted.fence}..{hosted.epoch}"
            raise RefusedCallError(
                Verdict.STALE_EPOCH,
                UnavailableError(f"got epoch {shard.epoch}", field="epoch", bound=known, mend="look at a newer map"),
            )
        return hosted

    def _refresh_until(self, deadline: Deadline) -> float:
        return min(deadline.at_s, deadline.clock.mono_s() + REFRESH_S_MAX)

    def _check_clock(self, stamp: int) -> None:
        ahead_ms = stamp_wall_ms(stamp) - self._clock.wall_ms()
        if ahead_ms > MAX_AHEAD_MS:
            raise RefusedCallError(
                Verdict.CLOCK_AHEAD,
                UnavailableError(
                    f"the stamp is {ahead_ms} ms ahead of this node's clock",
                    field="stamp",
                    bound=f"at most {MAX_AHEAD_MS} ms",
                    mend="synchronise the clocks",
                ),
            )

    async def _answer(self, shard: ShardRef, work: Callable[[], Awaitable[A]], kind: Callable[..., A], doing: str) -> A:
        """What ``work`` answers, or the answer that says why there is none; only a late one raises."""
        try:
            return await work()
        except RefusedCallError as refused:
            return self._refusal(kind, refused.verdict, refused.error)
        except DeadlineExceededError as error:
            if error.outcome == "unknown" and kind is Applied:
                raise
            return self._refusal(kind, Verdict.REFUSED, error)
        except OmenDBError as error:
            if isinstance(error, CorruptionError):
                self._damaged(shard)
            return self._refusal(kind, Verdict.REFUSED, error)
        except _FAULTS as error:
            return self._refusal(kind, Verdict.REFUSED, _told(error, doing))

    def _refusal(self, kind: Callable[..., A], verdict: Verdict, error: OmenDBError) -> A:
        now = {"hlc": self._hlc.now()} if kind in (Applied, ShardHits, Looked) else {}
        return kind(verdict, error=error, **now)

    # -- work

    async def _read(
        self,
        hosted: Hosted,
        work: Callable[[], A],
        deadline: Deadline,
        place: Place | None = None,
        *,
        short: bool = False,
    ) -> A:
        """Read in a thread for a router, and count what it costs."""
        load = self.loads.of(hosted.replica)
        return await self._threads.read(lambda: load.during(work, place), deadline, short=short)

    async def _write(self, hosted: Hosted, writes: Sequence[StampedWrite], deadline: Deadline) -> list[StampedResult]:
        queue = self._queues.get(hosted.replica)
        if queue is None:
            # A replica that was dropped, or is opened anew, takes its queue along.
            self._queues = {replica: known for replica, known in self._queues.items() if not replica.closed}
            queue = self._queues[hosted.replica] = WriteQueue(
                *(hosted.replica, self._threads, self._limits), lambda: hosted.follower, self._counted(hosted)
            )
        return _all_good(await queue.write(writes, deadline))

    def _counted(self, hosted: Hosted) -> Counted:
        load = self.loads.of(hosted.replica)
        return lambda take, writes: load.during_writes(take, writes, hosted.partition_key)

    def _recall(self, replica: Replica) -> Recall:
        known = self._recalls.get(replica)
        if known is None:
            self._recalls = {one: recall for one, recall in self._recalls.items() if not one.closed}
            known = self._recalls[replica] = Recall(self._clock, new=replica.snapshot().lsn == 0)
        return known

    def _applied(self, results: Sequence[StampedResult], batches: Sequence[WriteBatch]) -> Applied:
        starts = np.cumsum([0, *(batch.rows for batch in batches)])[: len(results)].tolist()
        return Applied(
            Verdict.OK,
            self._hlc.now(),
            max(r.lsn for r in results),
            results[0].durability,
            sum(r.existed for r in results),
            np.concatenate([r.superseded + at for r, at in zip(results, starts, strict=True)]),
            np.concatenate([r.newer for r in results]),
            np.concatenate([r.missing + at for r, at in zip(results, starts, strict=True)]),
            partial=any(r.partial for r in results),
            barred=np.concatenate([r.barred + at for r, at in zip(results, starts, strict=True)]),
            open_rows=np.concatenate([r.open_rows + at for r, at in zip(results, starts, strict=True)]),
            open_stamps=np.concatenate([r.open_stamps for r in results]),
        )

    def _search(self, replica: Replica, call: Search) -> ShardHits:
        answer = replica.search(
            call.queries,
            call.k,
            field=call.field,
            condition=call.condition,
            exact=call.exact,
            ef=call.ef,
            recall_target=call.recall_target,
            score_threshold=call.score_threshold,
        )
        hits = self._hits(replica, call, answer)
        return dataclasses.replace(hits, explanation=_explained(replica, call)) if call.explain else hits

    def _nothing_unproven(self, replica: Replica, call: Search) -> ShardHits | None:
        """The answer where it is known that nothing is unproven, as mostly between writes: no thread is worth it."""
        snapshot, m = replica.snapshot(), len(call.queries)
        found = replica.agreements.nothing(snapshot)
        if found is None:
            return None
        return ShardHits(
            Verdict.OK,
            np.empty((m, 0), np.float32),
            np.zeros(m, np.int64),
            hlc=self._hlc.now(),
            opening=replica.agreements.opening,
            lsn=snapshot.lsn,
            shared=Shared(found.openings, found.positions, found.names),
        )

    def _search_unproven(self, replica: Replica, call: Search) -> ShardHits:
        """What this replica has that others may lack (P23); without ``shared`` where it cannot tell, or too much."""
        snapshot = replica.snapshot()
        unproven = replica.agreements.unproven(snapshot)
        if unproven is None:
            return ShardHits(Verdict.OK, hlc=self._hlc.now())
        answer = replica.search_among(
            *(snapshot, unproven.parts, call.queries, call.k),
            field=call.field,
            condition=call.condition,
            score_threshold=call.score_threshold,
        )
        shared = Shared(unproven.openings, unproven.positions, unproven.names)
        return dataclasses.replace(self._hits(replica, call, answer), shared=shared)

    def _hits(self, replica: Replica, call: Search, answer: SearchAnswer) -> ShardHits:
        hits = answer.all_picked()
        did = answer.performance
        return ShardHits(
            Verdict.OK,
            answer.distances,
            answer.counts,
            hits.ids(),
            hits.stamps(),
            hits.columns() if call.payload else None,
            hits.vectors(call.field, replica.schema) if call.vectors else None,
            Work(
                did.vectors_scanned, did.segments_searched, did.segments_skipped, did.cache_hit_rate, did.cost_estimate
            ),
            self._hlc.now(),
            overlays=hits.overlays(),
            opening=replica.agreements.opening,
            lsn=answer.lsn,
        )

    def _lookup(self, replica: Replica, call: Lookup) -> Looked:
        versions = replica.versions(call.ids)
        return Looked(
            Verdict.OK,
            versions.states,
            versions.stamps,
            np.zeros(len(call.ids), np.uint64) if call.brief else versions.digests(),
            versions.records() if call.records else (),
            versions.picked.columns() if call.payload else None,
            {name: versions.picked.vectors(name, replica.schema) for name in call.vectors},
            self._hlc.now(),
            overlays=versions.overlays(),
        )


def _explained(replica: Replica, call: Search) -> Explanation:
    return replica.explain(
        call.queries,
        call.k,
        field=call.field,
        condition=call.condition,
        exact=call.exact,
        ef=call.ef,
        recall_target=call.recall_target,
    )


def _score(replica: Replica, call: Score) -> Scored:
    versions, matches, distances = replica.score(call.query, call.ids, field=call.field, condition=call.condition)
    return Scored(Verdict.OK, versions.states, versions.stamps, matches, distances, overlays=versions.overlays())


def _scroll(replica: Replica, call: Scroll) -> Scrolled:
    page = replica.scroll(call.cursor, call.limit, call.condition)
    ids = page.picked.ids()
    return Scrolled(
        Verdict.OK,
        ids,
        page.picked.stamps(),
        ids.hashes()[0],
        page.picked.columns() if call.payload else None,
        {name: page.picked.vectors(name, replica.schema) for name in call.vectors},
        page.cursor,
        overlays=page.picked.overlays(),
    )


def _select(replica: Replica, call: Select) -> Selected:
    if call.count_only:
        return Selected(Verdict.OK, replica.count(call.condition))
    found: Picked = replica.select(call.condition)
    return Selected(Verdict.OK, len(found), found.ids(), found.stamps(), overlays=found.overlays())


async def _alone(shard: ShardRef, repair: bool) -> Any:
    """A replica without others is equal to all of them."""
    return {"through": 0, "equal": True, "members": {}}


async def _unread(shard: ShardRef, deadline: Deadline, bytes_per_s: int) -> Any:
    raise UnavailableError("nothing here reads files again", field=f"{shard.collection_uuid}.{shard.shard_id}")


def _maintain(hosted: Hosted, call: Maintain, deadline: Deadline) -> Any:
    replica = hosted.replica
    if call.task == "flush":
        return replica.flush()
    if call.task == "compact":
        return replica.compact()
    if call.task == "wait_until_indexed":
        # Back in time to say that it is not done.
        return replica.wait_until_indexed(deadline.left_s * 0.9)
    if call.task == "next_auto_id":
        return replica.next_auto_id
    if call.task == "stats":
        floors = {"epoch": hosted.epoch, "fence": hosted.fence, "gc_floor": replica.maintenance.gc_floor}
        floors["repaired_through"] = replica.maintenance.repaired_through
        return {**dataclasses.asdict(replica.stats()), **floors}
    raise InvalidArgumentError(f"got {call.task!r}", field="task", bound="a task of Maintain")


def _all_good(outcomes: Sequence[Outcome]) -> list[StampedResult]:
    results: list[StampedResult] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results


def _newest_stamp(batch: WriteBatch) -> int:
    if batch.stamps is None:
        raise InvalidArgumentError("a record without its stamps", field="stamps", bound="one for each row")
    return int(batch.stamps.max(initial=0))


def _is_short(replica: Replica, call: Search) -> bool:
    """Whether a search waits for no disk and takes so little that a thread costs more than it helps."""
    if len(call.queries) > 1 or call.condition is not None:
        return False
    snapshot, dimension = replica.snapshot(), call.queries.shape[1]
    return bool(snapshot.live * dimension <= SHORT_NUMBERS) and snapshot.in_memory


def _check_count(ids: int) -> None:
    if ids > LOOKUP_IDS_MAX:
        raise InvalidArgumentError(f"got {ids}", field="ids", bound=f"at most {LOOKUP_IDS_MAX}")


def _told(error: Exception, doing: str) -> OmenDBError:
    """An error that is none of ours, as the caller may know it."""
    if isinstance(error, MemoryError):
        return ResourceExhaustedError(f"no memory for {doing}", field="memory", mend="ask for less at a time")
    if isinstance(error, OSError):
        return disk_error(error, doing)
    _log.error("a fault while %s", doing, exc_info=error)
    return UnavailableError(
        f"a fault in this node while {doing}: {type(error).__name__}", field="datanode", outcome="unknown"
    )


__all__ = ["LOOKUP_IDS_MAX", "REFRESH_S_MAX", "RefusedCallError", "ShardRules"]
