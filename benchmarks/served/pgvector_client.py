"""PostgreSQL with pgvector, through psycopg."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from pgvector.psycopg import register_vector

from benchmarks.adapters.adapter import BUCKET, HNSW_EF_CONSTRUCTION, HNSW_M, LABEL, Batch, Space
from benchmarks.served.client import ServerClient

IN_PLACE = "index in place"
# Its manual: as much as the graph takes, or building it slows down a lot.
MAINTENANCE_MIB = 1024


class PgVector:
    """One table; a batch is one binary COPY in a transaction of its own, the fastest way in that it has."""

    package = "psycopg"
    efforts = (16, 32, 64, 128, 256, 512)
    effort_name = "hnsw.ef_search"
    index_note = f"HNSW m={HNSW_M}, ef_construction={HNSW_EF_CONSTRUCTION}; B-tree on bucket; iterative scan"
    effort_needs_restart = False

    def __init__(self) -> None:
        self._connection: Any = None
        self._name = ""
        self._indexed = False
        self._operators, self._operator = "vector_l2_ops", "<->"

    def connect(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._connection = psycopg.connect(
            host=host, port=int(port), user="bench", dbname="postgres", autocommit=True, connect_timeout=5
        )
        self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(self._connection)
        # Without it a filtered search may come back with fewer than k rows.
        self._connection.execute("SET hnsw.iterative_scan = strict_order")
        # Plans made once, as a program with prepared statements has them.
        self._connection.prepare_threshold = 1

    def server_version(self) -> str:
        told = "SELECT current_setting('server_version'), extversion FROM pg_extension WHERE extname = 'vector'"
        server, extension = self._connection.execute(told).fetchone()
        return f"{extension} (PostgreSQL {server})"

    def create(self, name: str, space: Space, mode: str) -> None:
        self._choose(name, space)
        self._connection.execute(
            f"CREATE TABLE {name} (id bigint PRIMARY KEY, embedding vector({space.dimension}), "
            f"{BUCKET} int8, {LABEL} text)"
        )
        if mode == IN_PLACE:
            self._index()

    def use(self, name: str, space: Space, mode: str) -> None:
        self._choose(name, space)

    def _choose(self, name: str, space: Space) -> None:
        self._name, self._indexed = name, False
        if space.metric == "cosine":
            self._operators, self._operator = "vector_cosine_ops", "<=>"

    def _index(self) -> None:
        self._connection.execute(f"SET maintenance_work_mem = '{MAINTENANCE_MIB}MB'")
        self._connection.execute(
            f"CREATE INDEX ON {self._name} USING hnsw (embedding {self._operators}) "
            f"WITH (m = {HNSW_M}, ef_construction = {HNSW_EF_CONSTRUCTION})"
        )
        self._connection.execute(f"CREATE INDEX ON {self._name} ({BUCKET})")
        self._indexed = True

    def drop(self, name: str) -> None:
        self._connection.execute(f"DROP TABLE {name}")

    def prepare(self, batch: Batch) -> Any:
        return list(zip(batch.ids.tolist(), batch.vectors, batch.buckets.tolist(), batch.labels, strict=True))

    def insert(self, prepared: Any) -> None:
        statement = f"COPY {self._name} (id, embedding, {BUCKET}, {LABEL}) FROM STDIN WITH (FORMAT BINARY)"
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(["int8", "vector", "int8", "text"])
            for row in prepared:
                copy.write_row(row)

    def finish(self) -> None:
        if not self._indexed:
            self._index()
        self._connection.execute(f"VACUUM ANALYZE {self._name}")

    def set_effort(self, effort: int) -> None:
        self._connection.execute(f"SET hnsw.ef_search = {effort}")

    def search(self, query: npt.NDArray[np.float32], k: int, below: int | None) -> Any:
        condition, values = "", [query, k]
        if below is not None:
            # The number stands in the text, so that the planner can use its statistics.
            condition = f"WHERE {BUCKET} < {below} "
        statement = f"SELECT id FROM {self._name} {condition}ORDER BY embedding {self._operator} %s LIMIT %s"
        return self._connection.execute(statement, values, binary=True).fetchall()

    def rows(self, answer: Any) -> list[int]:
        return [int(row[0]) for row in answer]

    def present(self, ids: Sequence[int]) -> int:
        statement = f"SELECT count(*) FROM {self._name} WHERE id = ANY(%s)"
        return int(self._connection.execute(statement, [list(ids)]).fetchone()[0])

    def close(self) -> None:
        self._connection.close()


def make(server: str) -> ServerClient:
    """Make the client."""
    return PgVector()
