"""OmenDB through its own client: one server over a folder, or a fleet whose collections keep three copies."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

import omendb
from benchmarks.adapters.adapter import BUCKET, LABEL, Batch, Space
from benchmarks.served.client import ServerClient
from omendb import FilterOp

INDEX_LIMIT_S = 3600.0
CALL_LIMIT_S = 120.0


class OmenDBServed:
    """A collection at default settings; on a fleet with N=3, W=2."""

    package = "omendb"
    efforts = (16, 24, 32, 48, 64, 96, 128, 256, 512)
    effort_name = "ef"
    index_note = "HNSW at default settings, built behind the writes"
    effort_needs_restart = False

    def __init__(self, fleet: bool) -> None:
        self._copies = {"replication": 3, "write_quorum": 2} if fleet else {}
        self._client: Any = None
        self._collection: Any = None
        self._effort = self.efforts[-1]

    def connect(self, address: str) -> None:
        self._client = omendb.Client([f"http://{one}" for one in address.split(",")], timeout=CALL_LIMIT_S)
        self._client.list_collections()

    def server_version(self) -> str:
        return metadata.version("omendb")

    def create(self, name: str, space: Space, mode: str) -> None:
        self._collection = self._client.create_collection(
            name, dimension=space.dimension, metric=space.metric, **self._copies
        )

    def use(self, name: str, space: Space, mode: str) -> None:
        self._collection = self._client.collection(name)

    def drop(self, name: str) -> None:
        self._client.drop_collection(name)

    def prepare(self, batch: Batch) -> Any:
        return {"ids": batch.ids, "vectors": batch.vectors, "metadata": {BUCKET: batch.buckets, LABEL: batch.labels}}

    def insert(self, prepared: Any) -> None:
        self._collection.upsert(**prepared)

    def finish(self) -> None:
        if not self._collection.wait_until_indexed(timeout=INDEX_LIMIT_S):
            raise TimeoutError(f"not indexed after {INDEX_LIMIT_S} s")

    def set_effort(self, effort: int) -> None:
        self._effort = effort

    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> Any:
        filters = None if below is None else FilterOp.lt(BUCKET, below)
        found = self._collection.search(vector=query, k=k, ef=self._effort, filters=filters, include=("id", "distance"))
        # The peers answer with their ids read; so do we.
        return found.ids

    def rows(self, answer: Any) -> list[int]:
        return [int(row) for row in answer]

    def present(self, ids: Sequence[int]) -> int:
        return sum(record is not None for record in self._collection.get(list(ids), include=("id",)))

    def close(self) -> None:
        self._client.close()


def make(server: str) -> ServerClient:
    """Make the client."""
    return OmenDBServed(fleet=server == "omendb-fleet")
