"""One collection of a cluster, as the backend protocol wants it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb.backend import NO_OPTIONS, CallOptions, Consistency, Int64
from omendb.remote.answers import (
    RemoteAnswer,
    RemotePage,
    RemotePoints,
    RemoteReceipt,
    joined_points,
    joined_receipts,
    points_of,
    stats_of,
)
from omendb.remote.link import Link
from omendb.remote.parts import Rows, cut, last_of_each, row_bytes, spans
from omendb.remote.retries import Kind
from omendb_common.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    OmenDBError,
    UnavailableError,
)
from omendb_common.explanation import Explanation
from omendb_common.filters import Filter
from omendb_common.ids import IdColumn, U64Array
from omendb_common.schema import CollectionSchema, Metric, VectorDType, VectorField
from omendb_common.wire import convert
from omendb_proto.v1 import router_pb2 as pb

SCHEMA_S = 30.0
"""How long a schema is believed before it is asked for again: another client may have made the collection anew."""
HITS_PER_PART = 1 << 20
ROWS_PER_PAGE = 10_000
CARE_TIMEOUT_S = 600.0
_PAYLOAD_BYTES = 256
_CONSISTENCY: dict[Consistency | None, pb.Consistency] = {
    None: pb.CONSISTENCY_UNSPECIFIED,
    "one": pb.CONSISTENCY_ONE,
    "verified": pb.CONSISTENCY_VERIFIED,
    "quorum": pb.CONSISTENCY_QUORUM,
    "majority": pb.CONSISTENCY_MAJORITY,
    "session": pb.CONSISTENCY_SESSION,
}


class Known:
    """What the client knows of one collection, shared by every handle of it: its name now, its schema, since when."""

    def __init__(self, name: str, schema: CollectionSchema, at_s: float) -> None:
        self.name = name
        self.schema = schema
        self.at_s = at_s


class RemoteCollection:
    """A collection of a cluster. Thread-safe; :meth:`bound` gives one with other options."""

    def __init__(self, link: Link, known: Known, options: CallOptions = NO_OPTIONS) -> None:
        self._link = link
        self._known = known
        self._options = options

    def bound(self, options: CallOptions) -> RemoteCollection:
        """The same collection with options for its calls."""
        return self if options == self._options else RemoteCollection(self._link, self._known, options)

    @property
    def schema(self) -> CollectionSchema:
        """The collection's fields, at most ``SCHEMA_S`` old."""
        known, link = self._known, self._link
        if link.clock.mono_s() - known.at_s > SCHEMA_S:
            known.schema = schema_of(self._call("GetCollection", pb.GetCollectionRequest(name=known.name)).collection)
            known.at_s = link.clock.mono_s()
        return known.schema

    # -- reads

    def search(
        self,
        queries: npt.NDArray[Any],
        k: int,
        *,
        field: str = "",
        condition: Filter | None = None,
        exact: bool = False,
        ef: int | None = None,
        recall_target: float | None = None,
        score_threshold: float | None = None,
    ) -> RemoteAnswer:
        """The ``k`` nearest (matching) points of every query; many queries are sent in parts."""
        options = self._options
        m, dimension = queries.shape
        request = pb.SearchRequest(
            collection=self._known.name,
            dimension=dimension,
            k=k,
            field=field,
            filter=convert.filter_to_text(condition),
            exact=exact,
            ef=ef,
            recall_target=recall_target,
            score_threshold=score_threshold,
            with_payload=options.payload,
            with_vectors=options.vectors,
            **self._seen(),
        )
        hit_bytes = 12 + options.payload * _PAYLOAD_BYTES
        if options.vectors:
            hit_bytes += self.schema.vector(field).row_bytes
        query_bytes = max(4 * dimension, k * hit_bytes)
        parts = spans(m, query_bytes, min(self._link.part_bytes * 4, HITS_PER_PART * 16))

        def send(part: tuple[int, int]) -> pb.SearchReply:
            asked = pb.SearchRequest()
            asked.CopyFrom(request)
            asked.queries = np.ascontiguousarray(queries[part[0] : part[1]], "<f4").tobytes()
            return cast(pb.SearchReply, self._call("Search", asked))

        return RemoteAnswer(list(self._link.sender.each(send, parts)), self._fetch)

    def explain(
        self,
        queries: npt.NDArray[Any],
        k: int,
        *,
        field: str = "",
        condition: Filter | None = None,
        exact: bool = False,
        ef: int | None = None,
        recall_target: float | None = None,
        measure: bool = False,
    ) -> Explanation:
        """How a search finds the ``k`` nearest (matching) points of the queries, which go in one message."""
        data = np.ascontiguousarray(queries, "<f4").tobytes()
        self._check_one_message(len(data), "vectors")
        search = pb.SearchRequest(
            collection=self._known.name,
            queries=data,
            dimension=queries.shape[1],
            k=k,
            field=field,
            filter=convert.filter_to_text(condition),
            exact=exact,
            ef=ef,
            recall_target=recall_target,
        )
        reply = self._call("Explain", pb.ExplainRequest(search=search, measure=measure))
        return Explanation.from_json(json.loads(reply.explanation))

    def get(self, ids: IdColumn) -> tuple[RemotePoints, Int64]:
        """The points that exist, in the order asked, and their positions in ``ids``."""
        schema, options = self._known.schema, self._options
        size = options.payload * _PAYLOAD_BYTES + options.vectors * sum(v.row_bytes for v in schema.vectors)
        parts = spans(len(ids), size + 24, self._link.part_bytes)

        def send(part: tuple[int, int]) -> tuple[RemotePoints, Int64]:
            request = pb.GetRequest(
                collection=self._known.name,
                ids=convert.ids_to_proto(ids.slice(*part)),
                with_payload=options.payload,
                with_vectors=options.vectors,
                **self._seen(),
            )
            reply = self._call("Get", request)
            positions = np.frombuffer(reply.positions, "<u4").astype(np.int64) + part[0]
            return points_of(reply.ids, reply.payload, reply.vectors, self._fetch, reply.versions), positions

        found = list(self._link.sender.each(send, parts))
        points = joined_points([points for points, _ in found], self._fetch)
        return points, np.concatenate([where for _, where in found])

    def scroll(self, cursor: str | None, limit: int, condition: Filter | None = None) -> RemotePage:
        """A page of points; a long one is read in parts."""
        pages: list[RemotePoints] = []
        left = limit
        while True:
            request = pb.ScrollRequest(
                collection=self._known.name,
                cursor=cursor or "",
                limit=min(left, ROWS_PER_PAGE),
                filter=convert.filter_to_text(condition),
                with_payload=self._options.payload,
                with_vectors=self._options.vectors,
                **self._seen(),
            )
            reply = self._call("Scroll", request)
            page = points_of(reply.ids, reply.payload, reply.vectors, self._fetch, reply.versions)
            pages.append(page)
            cursor, left = reply.cursor or None, left - len(page)
            if cursor is None or left <= 0:
                return RemotePage(joined_points(pages, self._fetch), cursor)

    def count(self, condition: Filter | None = None) -> int:
        """How many points there are, or match."""
        request = pb.CountRequest(collection=self._known.name, filter=convert.filter_to_text(condition), **self._seen())
        return int(self._call("Count", request).count)

    # -- care

    def stats(self) -> Any:
        """Numbers about the collection, by attribute."""
        return stats_of(json.loads(self._call("Stats", pb.StatsRequest(collection=self._known.name)).stats))

    def wait_until_indexed(self, timeout_s: float) -> bool:
        """Wait until every segment has its index; whether it came to that."""
        request = pb.WaitUntilIndexedRequest(collection=self._known.name, timeout_s=timeout_s)
        return bool(self._call("WaitUntilIndexed", request, timeout_s=timeout_s + self._link.routers.timeout_s).indexed)

    def flush(self) -> None:
        """Turn the growing buffers into segments now."""
        self._call("Flush", pb.FlushRequest(collection=self._known.name), timeout_s=CARE_TIMEOUT_S)

    def compact(self) -> None:
        """Merge and clean segments now."""
        self._call("Compact", pb.CompactRequest(collection=self._known.name), timeout_s=CARE_TIMEOUT_S)

    # -- writes

    def upsert(
        self,
        ids: IdColumn | None,
        vectors: Mapping[str, npt.NDArray[Any]],
        payload: pa.RecordBatch | None,
        n: int,
        *,
        create_only: bool = False,
        versions: U64Array | None = None,
    ) -> RemoteReceipt:
        """Store points. A batch beyond one message is sent in parts, of which each is whole or not there."""
        rows = Rows(ids, vectors, payload, n)
        size = row_bytes(vectors, payload, n)
        whole = create_only or versions is not None
        if whole:
            self._check_one_message(size * n, "vectors", " with create_only" if create_only else " with if_version")
        parts = [(0, n)] if whole else spans(n, size, self._link.part_bytes)
        if len(parts) > 1:
            rows = last_of_each(rows)
            parts = spans(rows.n, size, self._link.part_bytes)

        def send(part: tuple[int, int]) -> pb.WriteReply:
            some = rows if len(parts) == 1 else cut(rows, *part)
            request = pb.UpsertRequest(
                **self._named(versions),
                ids=None if some.ids is None else convert.ids_to_proto(some.ids),
                vectors=[convert.vectors_to_proto(matrix, name) for name, matrix in some.vectors.items()],
                payload=convert.columns_to_proto(some.payload),
                create_only=create_only,
            )
            return self._write("Upsert", request, restampable=ids is not None)

        return joined_receipts(self._in_parts(send, parts), ids)

    def update(
        self,
        ids: IdColumn,
        vectors: Mapping[str, npt.NDArray[Any]] | None,
        payload: pa.RecordBatch | None,
        *,
        unset: Sequence[str] = (),
        versions: U64Array | None = None,
    ) -> RemoteReceipt:
        """Change parts of points, in one message: all of them exist, or nothing is changed."""
        n = len(ids)
        self._check_one_message(row_bytes(vectors or {}, payload, n) * n, "vectors, metadata")
        request = pb.UpdateRequest(
            **self._named(versions),
            ids=convert.ids_to_proto(ids),
            vectors=[convert.vectors_to_proto(matrix, name) for name, matrix in (vectors or {}).items()],
            payload=convert.columns_to_proto(payload),
            unset=unset,
        )
        return joined_receipts([self._write("Update", request)], ids)

    def delete(self, ids: IdColumn, *, versions: U64Array | None = None) -> RemoteReceipt:
        """Delete points; those of a conditional call in one message."""
        if versions is not None:
            self._check_one_message(32.0 * len(ids), "ids", " with if_version")
            request = pb.DeleteRequest(**self._named(versions), ids=convert.ids_to_proto(ids))
            return joined_receipts([self._write("Delete", request)], ids)
        rows = last_of_each(Rows(ids, {}, None, len(ids)))
        assert rows.ids is not None, "a delete names its ids"
        different = rows.ids

        def send(part: tuple[int, int]) -> pb.WriteReply:
            some = convert.ids_to_proto(different.slice(*part))
            return self._write("Delete", pb.DeleteRequest(collection=self._known.name, ids=some))

        return joined_receipts(self._in_parts(send, spans(rows.n, 24, self._link.part_bytes)), ids)

    def delete_where(self, condition: Filter) -> RemoteReceipt:
        """Delete the points that match."""
        request = pb.DeleteRequest(collection=self._known.name, filter=convert.filter_to_text(condition))
        return joined_receipts([self._write("Delete", request)], IdColumn.empty())

    # -- how a call is made

    def _in_parts(self, send: Any, parts: Sequence[tuple[int, int]]) -> list[pb.WriteReply]:
        """The replies of every part; when one fails, others may have been written all the same."""
        replies: list[pb.WriteReply] = []
        if len(parts) == 1:
            return [send(parts[0])]

        def noted(part: tuple[int, int]) -> pb.WriteReply:
            reply: pb.WriteReply = send(part)
            replies.append(reply)
            return reply

        try:
            return list(self._link.sender.each(noted, parts))
        except OmenDBError as error:
            if replies:
                error.message += f" (sent in {len(parts)} parts, of which {len(replies)} were written)"
                if isinstance(error, (UnavailableError, DeadlineExceededError)):
                    error.outcome, error.stamp = "unknown", None
            raise

    def _named(self, versions: U64Array | None) -> dict[str, Any]:
        """The collection, and the versions that a conditional write demands."""
        if versions is None:
            return {"collection": self._known.name}
        data = versions.astype("<u8", copy=False).tobytes()
        return {"if_versions": pb.IfVersions(collection=self._known.name, versions=data)}

    def _write(self, method: str, request: Any, *, restampable: bool = True) -> pb.WriteReply:
        reply = self._call(method, request, Kind.WRITE, restampable=restampable)
        self._link.sessions.note(self._known.name, reply.session)
        return cast(pb.WriteReply, reply)

    def _call(
        self,
        method: str,
        request: Any,
        kind: Kind = Kind.READ,
        *,
        restampable: bool = True,
        timeout_s: float | None = None,
    ) -> Any:
        routers = self._link.routers
        return routers.call(method, request, kind, self._options.deadline, restampable=restampable, timeout_s=timeout_s)

    def _seen(self) -> dict[str, Any]:
        """Which state a read must show: what the caller says, else at least this client's writes."""
        consistency = self._options.consistency or self._link.consistency
        token = self._link.sessions.token(self._known.name) if consistency in (None, "session") else b""
        if not token:
            consistency = None if consistency == "session" else consistency
        return {"consistency": _CONSISTENCY[consistency], "session": token}

    def _fetch(self, ids: IdColumn, field: str) -> npt.NDArray[Any]:
        """Vectors that a search did not bring along, as they are now."""
        points, positions = self.bound(CallOptions(payload=False, vectors=True)).get(ids)
        if len(positions) != len(ids):
            raise NotFoundError(
                "a point was deleted after the search", field="vector", mend='name it: include=["vector"]'
            )
        return points.vectors(field, self._known.schema)

    def _check_one_message(self, size: float, field: str, why: str = "") -> None:
        bound = self._link.message_bytes_max
        if size > bound:
            raise InvalidArgumentError(
                f"a batch of about {size:.0f} bytes{why}",
                field=field,
                bound=f"one message of at most {bound} bytes",
                mend="send less at a time",
            )


def schema_of(spec: pb.CollectionSpec) -> CollectionSchema:
    """The schema that a server tells."""
    fields = tuple(
        VectorField(v.dimension, cast(Metric, v.metric), cast(VectorDType, v.dtype), v.name) for v in spec.vectors
    )
    return CollectionSchema(spec.uuid, fields, json.loads(spec.options or "{}"), spec.schema_version)


__all__ = ["CARE_TIMEOUT_S", "HITS_PER_PART", "ROWS_PER_PAGE", "SCHEMA_S", "Known", "RemoteCollection", "schema_of"]
