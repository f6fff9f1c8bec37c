"""A router that counts what the metrics of the specification tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.ids import IdColumn, U64Array
from omendb_common.metadata import Metadata
from omendb_common.telemetry.metrics import Metrics
from omendb_router.face_calls import Hits, Question, Seen, Written
from omendb_router.nodes import NodePool
from omendb_router.router import Router
from omendb_router.settings import RouterSettings


class CountedRouter(Router):
    """Counts acknowledged points and answered queries; what failed is in the faces' histogram of requests."""

    def __init__(
        self,
        metadata: Metadata,
        nodes: NodePool,
        clock: Clock,
        settings: RouterSettings | None = None,
        *,
        holder: str,
        metrics: Metrics,
    ) -> None:
        super().__init__(metadata, nodes, clock, settings, holder=holder)
        self._metrics = metrics
        metrics.sample("omendb_active_collections", lambda: len(self.topology.collections))
        metrics.tally(
            "omendb_quorum_searches",
            "Searches of a shard at a quorum: by one replica, of these settled by its answer, and by all replicas",
            "way",
            self.searches_by_way,
        )

    async def upsert(
        self,
        collection: str,
        ids: IdColumn | None,
        vectors: Mapping[str, npt.NDArray[Any]],
        payload: pa.RecordBatch | None,
        n: int,
        *,
        create_only: bool = False,
        retry_stamp: int | None = None,
        versions: U64Array | None = None,
        deadline: Deadline,
    ) -> Written:
        """Store points."""
        written = await super().upsert(
            collection,
            ids,
            vectors,
            payload,
            n,
            create_only=create_only,
            retry_stamp=retry_stamp,
            versions=versions,
            deadline=deadline,
        )
        self._metrics.count_inserted(written.count)
        return written

    async def search(self, collection: str, question: Question, *, seen: Seen, deadline: Deadline) -> Hits:
        """Search."""
        hits = await super().search(collection, question, seen=seen, deadline=deadline)
        self._metrics.observe_search(hits.latency_ms / 1e3, len(hits.counts))
        return hits


__all__ = ["CountedRouter"]
