"""What a node did for its callers, counted and timed; and what its replicas amount to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import OmenDBError
from omendb_common.records import Op
from omendb_common.shard_calls import (
    Applied,
    Apply,
    DataNode,
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
    Summed,
    Sums,
    Verdict,
)
from omendb_common.telemetry.metrics import Metrics
from omendb_common.topology import SIZES_MAX, ReplicaSize
from omendb_datanode.engine_threads import EngineThreads
from omendb_datanode.hosting import Hosting, OpenShard
from omendb_datanode.load import Loads
from omendb_datanode.replicate.agreeing import Agreeing
from omendb_datanode.replicate.repairer import Repairer
from omendb_datanode.replicate.scrubber import Scrubber
from omendb_engine.statistics import folder_bytes

_log = logging.getLogger(__name__)

DISK_EVERY_S = 15.0


class _Answer(Protocol):
    @property
    def verdict(self) -> Verdict: ...


A = TypeVar("A", bound=_Answer)


class MeasuredNode:
    """A :class:`~omendb_common.shard_calls.DataNode` that counts what another one answers."""

    def __init__(
        self, node: DataNode, metrics: Metrics, clock: Clock, saw: Callable[[Search], None] = lambda _: None
    ) -> None:
        """``saw``: told of every search that was answered."""
        self._node = node
        self._saw = saw
        self._metrics = metrics
        self._clock = clock

    async def apply(self, call: Apply, deadline: Deadline) -> Applied:
        """Write."""
        answer = await self._timed("apply", self._node.apply(call, deadline))
        if answer.verdict is Verdict.OK and call.batch.op is Op.UPSERT:
            self._metrics.count_inserted(call.batch.rows - len(answer.superseded))
        return answer

    async def search(self, call: Search, deadline: Deadline) -> ShardHits:
        """Search."""
        started_s = self._clock.mono_s()
        answer = await self._timed("search", self._node.search(call, deadline))
        if answer.verdict is Verdict.OK:
            self._metrics.observe_search(self._clock.mono_s() - started_s, len(call.queries))
            self._saw(call)
        return answer

    async def lookup(self, call: Lookup, deadline: Deadline) -> Looked:
        """Look ids up."""
        return await self._timed("lookup", self._node.lookup(call, deadline))

    async def score(self, call: Score, deadline: Deadline) -> Scored:
        """Score ids."""
        return await self._timed("score", self._node.score(call, deadline))

    async def repair(self, call: Repair, deadline: Deadline) -> Applied:
        """Bring records up to date."""
        return await self._timed("repair", self._node.repair(call, deadline))

    async def scroll(self, call: Scroll, deadline: Deadline) -> Scrolled:
        """Read a page."""
        return await self._timed("scroll", self._node.scroll(call, deadline))

    async def select(self, call: Select, deadline: Deadline) -> Selected:
        """Resolve a filter."""
        return await self._timed("select", self._node.select(call, deadline))

    async def maintain(self, call: Maintain, deadline: Deadline) -> Maintained:
        """Do or tell something about a replica."""
        return await self._timed("maintain", self._node.maintain(call, deadline))

    async def sums(self, call: Sums, deadline: Deadline) -> Summed:
        """Tell values of the hash tree."""
        return await self._timed("sums", self._node.sums(call, deadline))

    async def entries(self, call: Entries, deadline: Deadline) -> Listed:
        """List records by the hash tree."""
        return await self._timed("entries", self._node.entries(call, deadline))

    async def _timed(self, method: str, work: Awaitable[A]) -> A:
        started_s = self._clock.mono_s()
        code = "UNANSWERED"
        try:
            answer = await work
            code = answer.verdict.name
            return answer
        finally:
            self._metrics.observe_request(method, self._clock.mono_s() - started_s, code)


def show_repairs(metrics: Metrics, repairer: Repairer, scrubber: Scrubber, agreeing: Agreeing) -> None:
    """Have the metrics tell how equal the replicas of this node are to the others, and what that took."""
    counts = repairer.rounds.counts
    metrics.gauge(
        "omendb_replica_divergence_buckets",
        "Leaves of hash trees that differed between replicas at the end of their last comparison",
        repairer.diverging_leaves,
    )
    metrics.gauge(
        "omendb_repaired_through_age_seconds",
        "For how long the worst shard of this node has not been found equal on all its replicas",
        repairer.oldest_proof_s,
    )
    metrics.tally(
        "omendb_repaired_rows", "Records sent between replicas that lacked them", "direction", lambda: counts.rows
    )
    metrics.tally("omendb_repair_rounds", "Comparisons of all replicas of a shard", "result", lambda: counts.rounds)
    metrics.tally(
        "omendb_stamp_collision",
        "Ids found with the same stamps and other content on two replicas",
        "",
        lambda: {"": counts.collisions},
    )
    metrics.tally(
        "omendb_agreements",
        "Rounds in which roots of all replicas were the same, or not",
        "result",
        agreeing.counts.copy,
    )
    metrics.tally("omendb_scrubs", "Replicas read again, every byte", "", lambda: {"": scrubber.scrubs})
    metrics.tally("omendb_scrubbed_bytes", "Bytes read again", "", lambda: {"": scrubber.bytes_read})
    metrics.gauge(
        "omendb_scrub_age_seconds",
        "How long ago the replica was read again, or opened, for which that is the longest",
        scrubber.oldest_s,
    )
    metrics.tally("omendb_scrubs_damaged", "Replicas found damaged at rest", "", lambda: {"": scrubber.damaged})
    metrics.tally(
        "omendb_hash_tree_mismatch",
        "Hash trees that did not agree with the records, and were made anew",
        "",
        lambda: {"": counts.mismatches},
    )


class Census:
    """Figures over all replicas of a node, for its metrics. ``run`` belongs to a task of the process."""

    def __init__(self, hosting: Hosting, threads: EngineThreads, loads: Loads, folder_size: Callable[[], int]) -> None:
        self._hosting = hosting
        self._loads = loads
        self._threads = threads
        self._folder_size = folder_size
        self._disk_bytes = 0
        self._replica_bytes: dict[str, int] = {}

    def show(self, metrics: Metrics) -> None:
        """Have the metrics ask here."""
        replicas = self._hosting.replicas
        metrics.sample("omendb_total_vectors", lambda: sum(r.snapshot().live for r in replicas() if not r.closed))
        metrics.sample("omendb_disk_usage_bytes", lambda: self._disk_bytes)
        metrics.sample(
            "omendb_index_build_queue_size", lambda: sum(r.maintenance.progress().index_queue for r in replicas())
        )
        metrics.sample("omendb_active_collections", self._collections)
        metrics.gauge("omendb_replicas_open", "Replicas that serve", lambda: len(replicas()))
        metrics.gauge(
            "omendb_replicas_unusable",
            "Replicas that this node should serve and cannot",
            lambda: sum(state != "open" for state in self._hosting.report().values()),
        )
        metrics.gauge("omendb_reads_in_flight", "Reads that run or wait", lambda: self._threads.reads)
        metrics.gauge(
            "omendb_load_processors",
            "Processor time a second that clients' calls took here in about the last minute",
            lambda: sum(self._busy()),
        )
        metrics.gauge(
            "omendb_load_processors_busiest",
            "The same, of the replica with the most",
            lambda: max(self._busy(), default=0.0),
        )
        budget = self._hosting.resources.budget
        metrics.gauge("omendb_memory_reserved_bytes", "Memory that replicas have reserved", lambda: budget.used_bytes)

    def _collections(self) -> float:
        return len({r.schema.uuid for r in self._hosting.replicas()})

    def sizes(self) -> list[ReplicaSize]:
        """How large and busy the replicas are, the foremost first; bytes as they were measured last."""
        opened = [one for one in self._hosting.opened() if not one.hosted.replica.closed]
        return foremost([self._size(one) for one in opened])

    def _size(self, opened: OpenShard) -> ReplicaSize:
        replica, shard = opened.hosted.replica, opened.shard
        load = self._loads.of(replica).told(shard.low, shard.high)
        size = self._replica_bytes.get(opened.key.name, 0)
        return ReplicaSize(*opened.key.shard, replica.snapshot().live, size, load)

    def _busy(self) -> list[float]:
        return [one.load.total for one in self.sizes() if one.load is not None]

    def _measure(self) -> dict[str, int]:
        opened = [one for one in self._hosting.opened() if not one.hosted.replica.closed]
        return {one.key.name: folder_bytes(one.hosted.replica.disk, one.hosted.replica.path) for one in opened}

    async def run(self, deadline: Callable[[], Deadline]) -> None:
        """Measure now and then what takes long to measure, until cancelled."""
        while True:
            try:
                self._replica_bytes = await self._threads.chore(self._measure, deadline())
                self._disk_bytes = await self._threads.chore(self._folder_size, deadline())
            except (OmenDBError, OSError) as error:  # the figure stays as it was
                _log.warning("cannot measure the folder: %s", error)
            await asyncio.sleep(DISK_EVERY_S)


def foremost(told: list[ReplicaSize]) -> list[ReplicaSize]:
    """In the order in which they are told: the largest, and where not all can be, the busiest instead of the rest."""
    by_size = sorted(told, key=lambda one: (one.size, one.rows), reverse=True)
    if len(told) <= SIZES_MAX:
        return by_size
    kept, rest = by_size[: SIZES_MAX // 2], by_size[SIZES_MAX // 2 :]
    return kept + sorted(rest, key=lambda one: 0.0 if one.load is None else one.load.total, reverse=True)


__all__ = ["DISK_EVERY_S", "Census", "MeasuredNode", "foremost", "show_repairs"]
