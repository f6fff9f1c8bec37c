"""Milvus, and Milvus Lite's server, through the Milvus client."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
from pymilvus import DataType, MilvusClient

from benchmarks.adapters.adapter import BUCKET, HNSW_EF_CONSTRUCTION, HNSW_M, LABEL, Batch, Space
from benchmarks.served.client import ServerClient

CONNECT_LIMIT_S = 5.0
INDEX_LIMIT_S = 3600.0
LOOK_EVERY_S = 0.05


class MilvusServed:
    """One collection with an HNSW index, loaded from the start."""

    package = "pymilvus"
    efforts = (16, 32, 64, 128, 256, 512)
    effort_name = "ef"
    index_note = f"HNSW M={HNSW_M}, efConstruction={HNSW_EF_CONSTRUCTION}, built after flush()"
    effort_needs_restart = False

    def __init__(self, lite: bool) -> None:
        self._lite = lite
        self._client: Any = None
        self._name = ""
        self._flush = False
        self._metric = "L2"
        self._effort = self.efforts[-1]

    def connect(self, address: str) -> None:
        self._client = MilvusClient(f"http://{address}", timeout=CONNECT_LIMIT_S)
        self._client.list_collections()

    def server_version(self) -> str:
        return metadata.version("milvus-lite" if self._lite else "milvus")

    def create(self, name: str, space: Space, mode: str) -> None:
        self._name, self._metric, self._flush = name, _metric(space), mode == "strongest"
        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=space.dimension)
        schema.add_field(BUCKET, DataType.INT64)
        schema.add_field(LABEL, DataType.VARCHAR, max_length=64)
        parameters = self._client.prepare_index_params()
        parameters.add_index(
            "vector",
            index_type="HNSW",
            metric_type=self._metric,
            params={"M": HNSW_M, "efConstruction": HNSW_EF_CONSTRUCTION},
        )
        self._client.create_collection(name, schema=schema, index_params=parameters)

    def use(self, name: str, space: Space, mode: str) -> None:
        self._name, self._metric, self._flush = name, _metric(space), mode == "strongest"
        self._client.load_collection(name)

    def drop(self, name: str) -> None:
        self._client.drop_collection(name)

    def prepare(self, batch: Batch) -> Any:
        return [
            {"id": row, "vector": vector, BUCKET: bucket, LABEL: label}
            for row, vector, bucket, label in zip(
                batch.ids.tolist(), batch.vectors, batch.buckets.tolist(), batch.labels, strict=True
            )
        ]

    def insert(self, prepared: Any) -> None:
        self._client.upsert(self._name, prepared)
        if self._flush:
            self._client.flush(self._name)

    def finish(self) -> None:
        self._client.flush(self._name)
        if self._lite:
            # Indexes are built in the background and reported finished before they are; loading waits for them.
            self._client.release_collection(self._name)
        else:
            self._until_indexed()
            self._client.release_collection(self._name)
        self._client.load_collection(self._name)

    def _until_indexed(self) -> None:
        """Wait until no flushed row is without an index, as the server counts them."""
        deadline = time.monotonic() + INDEX_LIMIT_S
        while True:
            told = self._client.describe_index(self._name, "vector")
            if int(told.get("pending_index_rows", 0)) == 0 and told.get("state", "Finished") == "Finished":
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"not indexed after {INDEX_LIMIT_S} s")
            time.sleep(LOOK_EVERY_S)

    def set_effort(self, effort: int) -> None:
        self._effort = effort

    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> Any:
        return self._client.search(
            self._name,
            data=[query],
            limit=k,
            filter="" if below is None else f"{BUCKET} < {below}",
            search_params={"metric_type": self._metric, "params": {"ef": self._effort}},
        )

    def rows(self, answer: Any) -> list[int]:
        return [int(hit["id"]) for hit in answer[0]]

    def present(self, ids: Sequence[int]) -> int:
        # Strong: everything acknowledged before the call.
        return len(self._client.get(self._name, ids=list(ids), output_fields=["id"], consistency_level="Strong"))

    def close(self) -> None:
        self._client.close()


def _metric(space: Space) -> str:
    return "L2" if space.metric == "l2" else "COSINE"


def make(server: str) -> ServerClient:
    """Make the client."""
    return MilvusServed(lite=server == "milvus-lite")
