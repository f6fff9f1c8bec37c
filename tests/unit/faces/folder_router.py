"""A router for tests of the faces: the router's calls straight over an embedded folder, and every error on demand."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.deadline import Deadline
from omendb_common.errors import NotFoundError
from omendb_common.explanation import Explanation
from omendb_common.filters import Filter
from omendb_common.ids import IdColumn, U64Array
from omendb_common.metadata import NewCollection
from omendb_common.payload import columns_from_rows
from omendb_common.ring import RING
from omendb_common.schema import CollectionSchema
from omendb_common.shard_calls import Work
from omendb_common.topology import CollectionInfo, ReplicaPlace, Shard, Topology
from omendb_engine.folder import Folder
from omendb_engine.query.answer import Picked
from omendb_engine.replica import Replica, WriteResult
from omendb_router.face_calls import Found, Hits, PointPage, Question, Seen, Written

SESSION = b"token-of-the-test"


class FolderRouter:
    """``fail``: raised by the next call instead of an answer. ``seen``: what the last read was to show."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.altered: list[tuple[str, int | None, int | None, int | None]] = []
        self.fail: BaseException | None = None
        self.seen: Seen | None = None
        self.deadline: Deadline | None = None
        self.retry_stamp: int | None = None

    def _begin(self, deadline: Deadline) -> None:
        self.deadline = deadline
        if self.fail is not None:
            error, self.fail = self.fail, None
            raise error
        deadline.check("testing")

    def _info(self, name: str) -> CollectionInfo:
        shard = Shard(0, 0, RING, 1, (ReplicaPlace("local"),))
        return CollectionInfo(name, self.folder.replica(name).schema, (shard,), 1, 1, 1)

    def _replica(self, name: str) -> Replica:
        try:
            return self.folder.replica(name)
        except NotFoundError:
            raise NotFoundError(f"no collection {name!r}", field="collection", mend="create it first") from None

    @property
    def topology(self) -> Topology:
        return Topology("test", 1, {name: self._info(name) for name in self.folder.names()})

    async def find(self, name: str, deadline: Deadline) -> CollectionInfo:
        return self.topology.collection(name)

    async def create_collection(self, new: NewCollection, deadline: Deadline) -> CollectionInfo:
        self._begin(deadline)
        self.folder.create(new.name, replace(new.schema, uuid=str(uuid.uuid4())))
        return self._info(new.name)

    async def drop_collection(self, name: str, deadline: Deadline) -> None:
        self._begin(deadline)
        self.folder.drop(name)

    async def rename_collection(self, old: str, new: str, deadline: Deadline) -> CollectionInfo:
        self._begin(deadline)
        self.folder.rename(old, new)
        return self._info(new)

    async def alter_collection(
        self,
        name: str,
        replication: int | None,
        write_quorum: int | None,
        read_quorum: int | None,
        deadline: Deadline,
    ) -> CollectionInfo:
        self._begin(deadline)
        self.altered.append((name, replication, write_quorum, read_quorum))
        return replace(self._info(name), replication=replication or 1)

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
        self._begin(deadline)
        self.retry_stamp = retry_stamp
        replica = self._replica(collection)
        return _written(replica.upsert(ids, vectors, payload, n, create_only=create_only, versions=versions))

    async def update(
        self,
        collection: str,
        ids: IdColumn,
        vectors: Mapping[str, npt.NDArray[Any]] | None,
        payload: pa.RecordBatch | None,
        *,
        unset: Sequence[str] = (),
        retry_stamp: int | None = None,
        versions: U64Array | None = None,
        deadline: Deadline,
    ) -> Written:
        self._begin(deadline)
        return _written(self._replica(collection).update(ids, vectors, payload, unset=unset, versions=versions))

    async def delete(
        self,
        collection: str,
        ids: IdColumn,
        *,
        retry_stamp: int | None = None,
        versions: U64Array | None = None,
        deadline: Deadline,
    ) -> Written:
        self._begin(deadline)
        if not len(ids):
            return Written(ids, 0, 0, 0, "fsync")
        return _written(self._replica(collection).delete(ids, versions=versions))

    async def delete_where(
        self, collection: str, condition: Filter, *, retry_stamp: int | None = None, deadline: Deadline
    ) -> Written:
        self._begin(deadline)
        return _written(self._replica(collection).delete_where(condition))

    async def search(self, collection: str, question: Question, *, seen: Seen, deadline: Deadline) -> Hits:
        self._begin(deadline)
        self.seen = seen
        replica, asked = self._replica(collection), question
        answer = replica.search(
            asked.queries,
            asked.k,
            field=asked.field,
            condition=asked.condition,
            exact=asked.exact,
            ef=asked.ef,
            recall_target=asked.recall_target,
            score_threshold=asked.score_threshold,
        )
        picked = [answer.picked(query) for query in range(len(answer))]
        rows = [row for some in picked for row in some.payload()] if asked.payload else []
        cost = answer.performance
        return Hits(
            answer.distances,
            answer.counts,
            IdColumn.concat([some.ids() for some in picked]),
            columns_from_rows(rows) if asked.payload else None,
            np.concatenate([some.vectors(asked.field, replica.schema) for some in picked]) if asked.vectors else None,
            Work(*cost[1:]),
            cost.latency_ms,
            SESSION if seen.session else b"",
        )

    async def get(
        self, collection: str, ids: IdColumn, *, payload: bool, vectors: bool, seen: Seen, deadline: Deadline
    ) -> Found:
        self._begin(deadline)
        self.seen = seen
        replica = self._replica(collection)
        picked, positions = replica.get(ids)
        content = _payload(picked, payload), _vectors(picked, replica.schema, vectors)
        return Found(picked.ids(), positions, *content, picked.stamps())

    async def scroll(
        self,
        collection: str,
        cursor: str | None,
        limit: int,
        condition: Filter | None = None,
        *,
        payload: bool,
        vectors: bool,
        seen: Seen,
        deadline: Deadline,
    ) -> PointPage:
        self._begin(deadline)
        self.seen = seen
        replica = self._replica(collection)
        page = replica.scroll(cursor, limit, condition)
        picked = page.picked
        content = _payload(picked, payload), _vectors(picked, replica.schema, vectors)
        return PointPage(picked.ids(), page.cursor, *content, picked.stamps())

    async def count(self, collection: str, condition: Filter | None, *, seen: Seen, deadline: Deadline) -> int:
        self._begin(deadline)
        self.seen = seen
        return self._replica(collection).count(condition)

    async def explain(self, collection: str, question: Question, *, measure: bool, deadline: Deadline) -> Explanation:
        self._begin(deadline)
        asked = question
        return self._replica(collection).explain(
            asked.queries,
            asked.k,
            field=asked.field,
            condition=asked.condition,
            exact=asked.exact,
            ef=asked.ef,
            recall_target=asked.recall_target,
            measure=measure,
        )

    async def stats(self, collection: str, deadline: Deadline) -> dict[str, Any]:
        self._begin(deadline)
        return dataclasses.asdict(self._replica(collection).stats())

    async def wait_until_indexed(self, collection: str, timeout_s: float, deadline: Deadline) -> bool:
        self._begin(deadline)
        return self._replica(collection).wait_until_indexed(0)

    async def flush(self, collection: str, deadline: Deadline) -> None:
        self._begin(deadline)
        self._replica(collection).flush()

    async def compact(self, collection: str, deadline: Deadline) -> None:
        self._begin(deadline)
        self._replica(collection).compact()

    async def verify(self, collection: str, deadline: Deadline) -> dict[str, Any]:
        self._begin(deadline)
        self._replica(collection)
        members = {"d2": {"equal": False, "problem": "away"}}
        return {"equal": False, "shards": [{"shard_id": 0, "node_id": "d1", "equal": False, "members": members}]}

    async def cluster_status(self, deadline: Deadline) -> dict[str, Any]:
        self._begin(deadline)
        return {"cluster_id": "test"}


def _written(result: WriteResult) -> Written:
    return Written(result.ids, result.count, result.stamp, result.lsn, result.durability, SESSION)


def _payload(picked: Picked, wanted: bool) -> pa.RecordBatch | None:
    return columns_from_rows(picked.payload()) if wanted else None


def _vectors(picked: Picked, schema: CollectionSchema, wanted: bool) -> dict[str, npt.NDArray[Any]]:
    return {f.name: picked.vectors(f.name, schema) for f in schema.vectors} if wanted else {}
