"""Redis Stack: hashes, indexed by RediSearch as they are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import redis
from redis.commands.search.query import Query

from benchmarks.adapters.adapter import BUCKET, HNSW_EF_CONSTRUCTION, HNSW_M, LABEL, Batch, Space
from benchmarks.served.client import ServerClient


class RedisStack:
    """One index over the hashes below a prefix; a batch is one pipeline."""

    package = "redis"
    efforts = (16, 32, 64, 128, 256, 512)
    effort_name = "EF_RUNTIME"
    index_note = f"HNSW M={HNSW_M}, EF_CONSTRUCTION={HNSW_EF_CONSTRUCTION}; NUMERIC bucket; built while writing"
    effort_needs_restart = False

    def __init__(self) -> None:
        self._client: Any = None
        self._search: Any = None
        self._name = ""
        self._effort = self.efforts[-1]

    def connect(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        # The protocol's older version: its search answers are parsed faster by this client.
        self._client = redis.Redis(host=host, port=int(port), protocol=2)
        self._client.ping()

    def server_version(self) -> str:
        modules = {module[b"name"]: module[b"ver"] for module in self._client.module_list()}
        search = int(modules[b"search"])
        redis_version = self._client.info("server")["redis_version"]
        return f"{redis_version} (RediSearch {search // 10000}.{search // 100 % 100}.{search % 100})"

    def create(self, name: str, space: Space, mode: str) -> None:
        self.use(name, space, mode)
        metric = "L2" if space.metric == "l2" else "COSINE"
        graph = ["TYPE", "FLOAT32", "DIM", space.dimension, "DISTANCE_METRIC", metric]
        graph += ["M", HNSW_M, "EF_CONSTRUCTION", HNSW_EF_CONSTRUCTION]
        schema = [BUCKET, "NUMERIC", "embedding", "VECTOR", "HNSW", len(graph), *graph]
        self._client.execute_command("FT.CREATE", name, "ON", "HASH", "PREFIX", 1, f"{name}:", "SCHEMA", *schema)

    def use(self, name: str, space: Space, mode: str) -> None:
        self._name, self._search = name, self._client.ft(name)

    def drop(self, name: str) -> None:
        self._client.execute_command("FT.DROPINDEX", name, "DD")

    def prepare(self, batch: Batch) -> Any:
        pipeline = self._client.pipeline(transaction=False)
        for row, vector, bucket, label in zip(
            batch.ids.tolist(), batch.vectors, batch.buckets.tolist(), batch.labels, strict=True
        ):
            pipeline.hset(f"{self._name}:{row}", mapping={"embedding": vector.tobytes(), BUCKET: bucket, LABEL: label})
        return pipeline

    def insert(self, prepared: Any) -> None:
        prepared.execute()

    def finish(self) -> None:
        return None

    def set_effort(self, effort: int) -> None:
        self._effort = effort

    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> Any:
        chosen = "*" if below is None else f"(@{BUCKET}:[-inf ({below}])"
        wanted = Query(f"{chosen}=>[KNN {k} @embedding $query EF_RUNTIME {self._effort} AS far]")
        wanted = wanted.sort_by("far").no_content().paging(0, k).dialect(2)
        return self._search.search(wanted, query_params={"query": query.tobytes()})

    def rows(self, answer: Any) -> list[int]:
        return [int(document.id.rpartition(":")[2]) for document in answer.docs]

    def present(self, ids: Sequence[int]) -> int:
        pipeline = self._client.pipeline(transaction=False)
        for row in ids:
            pipeline.exists(f"{self._name}:{row}")
        return int(sum(pipeline.execute()))

    def close(self) -> None:
        self._client.close()


def make(server: str) -> ServerClient:
    """Make the client."""
    return RedisStack()
