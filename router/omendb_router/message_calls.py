"""The calls of ``omendb.v1.Router``: a message in, a message out, under every transport that carries messages.

gRPC and frames are two skins over this: they bring bytes and a time, and take bytes or one of OmenDB's errors back.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from google.protobuf.message import DecodeError, Message

from omendb_common import inputs
from omendb_common.clock import Clock, SystemClock
from omendb_common.deadline import Deadline
from omendb_common.errors import InvalidArgumentError, OmenDBError
from omendb_common.quorum import check_asked
from omendb_common.schema import SCROLL_LIMIT_MAX, check_collection_name
from omendb_common.wire import convert
from omendb_proto.v1 import router_pb2 as pb
from omendb_router import grpc_convert as out
from omendb_router.config import About, FaceSettings
from omendb_router.face_calls import Question, RouterCalls
from omendb_router.face_inputs import checked_payload, checked_question, delete_condition, raw_matrix
from omendb_router.search_company import SearchCompany, split

WAY_BACK_SHARE = 0.05
WAY_BACK_S_MAX = 0.25
"""What is kept of a call's time for its answer."""
_CARE = frozenset({"WaitUntilIndexed", "Flush", "Compact", "Verify"})

Serve = Callable[[bytes, float | None], Coroutine[Any, Any, bytes]]
"""One call: the request's bytes and the seconds that the caller has left (None: it names none) to the answer's."""


class MessageCalls:
    """One method per call of the service: a message in, a message out, errors raised.

    Args:
        observe: told of every answered call: its name, its status code, seconds.
    """

    def __init__(
        self,
        router: RouterCalls,
        about: About,
        *,
        settings: FaceSettings | None = None,
        clock: Clock | None = None,
        observe: Callable[[str, str, float], None] = lambda name, code, seconds: None,
    ) -> None:
        self.settings = settings or FaceSettings()
        self.clock = clock or SystemClock()
        self._router = router
        self._about = about
        self._observe = observe
        self._company = SearchCompany(self._search)

    # -- collections

    async def create_collection(self, asked: pb.CreateCollectionRequest, deadline: Deadline) -> pb.CollectionReply:
        """Make a collection."""
        info = await self._router.create_collection(out.new_collection(asked.collection), deadline)
        return pb.CollectionReply(collection=out.collection_message(info))

    async def drop_collection(self, asked: pb.DropCollectionRequest, deadline: Deadline) -> pb.DropCollectionReply:
        """Delete a collection."""
        await self._router.drop_collection(check_collection_name(asked.name), deadline)
        return pb.DropCollectionReply()

    async def rename_collection(self, asked: pb.RenameCollectionRequest, deadline: Deadline) -> pb.CollectionReply:
        """Give a collection another name."""
        old, new = check_collection_name(asked.name), check_collection_name(asked.new_name)
        return pb.CollectionReply(
            collection=out.collection_message(await self._router.rename_collection(old, new, deadline))
        )

    async def alter_collection(self, asked: pb.AlterCollectionRequest, deadline: Deadline) -> pb.CollectionReply:
        """Ask for another replication and other quorums."""
        name = check_collection_name(asked.name)
        numbers = asked.replication or None, asked.write_quorum or None, asked.read_quorum or None
        check_asked(*numbers)
        info = await self._router.alter_collection(name, *numbers, deadline)
        return pb.CollectionReply(collection=out.collection_message(info))

    async def list_collections(self, asked: pb.ListCollectionsRequest, deadline: Deadline) -> pb.ListCollectionsReply:
        """All collections, as the newest topology that the router has seen has them."""
        known = self._router.topology.collections
        return pb.ListCollectionsReply(collections=[out.collection_message(known[name]) for name in sorted(known)])

    async def get_collection(self, asked: pb.GetCollectionRequest, deadline: Deadline) -> pb.CollectionReply:
        """One collection."""
        info = await self._router.find(check_collection_name(asked.name), deadline)
        return pb.CollectionReply(collection=out.collection_message(info))

    # -- writes

    async def upsert(self, asked: pb.UpsertRequest, deadline: Deadline) -> pb.WriteReply:
        """Store points."""
        name = out.collection_of(asked)
        schema = (await self._router.find(name, deadline)).schema
        matrices = out.matrices(asked.vectors, schema)
        missing = [field.name for field in schema.vectors if field.name not in matrices]
        if missing:
            raise InvalidArgumentError(f"{missing} are missing", field="vectors", bound="every field of the collection")
        n = len(next(iter(matrices.values())))
        ids = inputs.as_ids(convert.ids_from_proto(asked.ids), n) if asked.HasField("ids") else None
        payload = checked_payload(convert.columns_from_proto(asked.payload), n)
        written = await self._router.upsert(
            name,
            ids,
            matrices,
            payload,
            n,
            create_only=asked.create_only,
            retry_stamp=out.retry_stamp(asked),
            versions=out.demanded(asked, ids, may_be_absent=True),
            deadline=deadline,
        )
        return out.written_message(written, automatic=ids is None)

    async def update(self, asked: pb.UpdateRequest, deadline: Deadline) -> pb.WriteReply:
        """Change parts of points."""
        name = out.collection_of(asked)
        schema = (await self._router.find(name, deadline)).schema
        ids = convert.ids_from_proto(asked.ids)
        n = len(ids)
        if n == 0:
            raise InvalidArgumentError("the batch is empty", field="ids", bound="at least 1 id")
        unset = inputs.check_keys(asked.unset)
        payload = checked_payload(convert.columns_from_proto(asked.payload), n)
        vectors = out.matrices(asked.vectors, schema) if asked.vectors else None
        if vectors is None and payload is None and not unset:
            raise InvalidArgumentError(
                "nothing to change", field="vectors, metadata, unset", bound="at least one of them"
            )
        found = n if vectors is None else len(next(iter(vectors.values())))
        if found != n:
            raise InvalidArgumentError(f"got {found} vectors for {n} ids", field="vectors", bound=f"{n} vectors")
        written = await self._router.update(
            *(name, ids, vectors, payload),
            unset=unset,
            retry_stamp=out.retry_stamp(asked),
            versions=out.demanded(asked, ids),
            deadline=deadline,
        )
        return out.written_message(written)

    async def delete(self, asked: pb.DeleteRequest, deadline: Deadline) -> pb.WriteReply:
        """Delete points, by id or by filter."""
        name = out.collection_of(asked)
        stamp = out.retry_stamp(asked)
        what = asked.WhichOneof("what")
        if what == "ids":
            ids = convert.ids_from_proto(asked.ids)
            versions = out.demanded(asked, ids)
            written = await self._router.delete(name, ids, retry_stamp=stamp, versions=versions, deadline=deadline)
            return out.written_message(written)
        if asked.HasField("if_versions"):
            raise InvalidArgumentError("got a filter", field="if_version", bound="versions of points that ids name")
        condition = delete_condition(convert.filter_from_text(asked.filter))
        if condition is None:
            raise InvalidArgumentError("got none", field="ids, filters", bound="exactly one of them")
        return out.written_message(
            await self._router.delete_where(name, condition, retry_stamp=stamp, deadline=deadline)
        )

    # -- reads

    async def search(self, asked: pb.SearchRequest, deadline: Deadline) -> pb.SearchReply:
        """The nearest points of every query."""
        return await self._company.search(asked, deadline)

    async def _search(self, together: Sequence[pb.SearchRequest], deadline: Deadline) -> list[pb.SearchReply]:
        """The answers to searches that differ in their queries alone; when there are several, each has one query."""
        asked = together[0]
        name = check_collection_name(asked.collection)
        queries = asked.queries if len(together) == 1 else b"".join([one.queries for one in together])
        question = await self._question(name, asked, queries, deadline)
        seen = out.seen(asked.consistency, asked.session)
        if not len(question.queries):
            return [pb.SearchReply()]
        hits = await self._router.search(name, question, seen=seen, deadline=deadline)
        parts = [hits] if len(together) == 1 else split(hits)
        return [out.hits_message(part, question.field) for part in parts]

    async def _question(self, name: str, asked: pb.SearchRequest, queries: bytes, deadline: Deadline) -> Question:
        """What a search asks, checked against the collection's schema."""
        schema = (await self._router.find(name, deadline)).schema
        target = schema.vector(asked.field) if asked.field else schema.vectors[0]
        dimension = asked.dimension or target.dimension
        return checked_question(
            schema,
            raw_matrix(queries, dimension, "<f4", "queries"),
            name="queries",
            k=asked.k,
            field=target.name,
            filters=convert.filter_from_text(asked.filter),
            exact=asked.exact,
            ef=asked.ef if asked.HasField("ef") else None,
            recall_target=asked.recall_target if asked.HasField("recall_target") else None,
            score_threshold=asked.score_threshold if asked.HasField("score_threshold") else None,
            payload=asked.with_payload,
            vectors=asked.with_vectors,
        )

    async def explain(self, asked: pb.ExplainRequest, deadline: Deadline) -> pb.ExplainReply:
        """How a search is made."""
        name = check_collection_name(asked.search.collection)
        question = await self._question(name, asked.search, asked.search.queries, deadline)
        if not len(question.queries):
            raise InvalidArgumentError("got no query", field="queries", bound="one or more")
        told = await self._router.explain(name, question, measure=asked.measure, deadline=deadline)
        return pb.ExplainReply(explanation=json.dumps(told.to_json()))

    async def get(self, asked: pb.GetRequest, deadline: Deadline) -> pb.GetReply:
        """Points by id."""
        found = await self._router.get(
            check_collection_name(asked.collection),
            convert.ids_from_proto(asked.ids),
            payload=asked.with_payload,
            vectors=asked.with_vectors,
            seen=out.seen(asked.consistency, asked.session),
            deadline=deadline,
        )
        return out.found_message(found)

    async def scroll(self, asked: pb.ScrollRequest, deadline: Deadline) -> pb.ScrollReply:
        """A page of points."""
        page = await self._router.scroll(
            check_collection_name(asked.collection),
            asked.cursor or None,
            inputs.check_count(asked.limit, "limit", SCROLL_LIMIT_MAX),
            convert.filter_from_text(asked.filter),
            payload=asked.with_payload,
            vectors=asked.with_vectors,
            seen=out.seen(asked.consistency, asked.session),
            deadline=deadline,
        )
        return out.page_message(page)

    async def count(self, asked: pb.CountRequest, deadline: Deadline) -> pb.CountReply:
        """How many points there are, or match."""
        name = check_collection_name(asked.collection)
        seen = out.seen(asked.consistency, asked.session)
        condition = convert.filter_from_text(asked.filter)
        return pb.CountReply(count=await self._router.count(name, condition, seen=seen, deadline=deadline))

    # -- care

    async def stats(self, asked: pb.StatsRequest, deadline: Deadline) -> pb.StatsReply:
        """Numbers about a collection."""
        numbers = await self._router.stats(check_collection_name(asked.collection), deadline)
        return pb.StatsReply(stats=json.dumps(numbers))

    async def wait_until_indexed(
        self, asked: pb.WaitUntilIndexedRequest, deadline: Deadline
    ) -> pb.WaitUntilIndexedReply:
        """Wait until every segment has its index."""
        name = check_collection_name(asked.collection)
        if not 0 <= asked.timeout_s <= 86_400:
            raise InvalidArgumentError(f"got {asked.timeout_s!r}", field="timeout", bound="seconds, 0..86400")
        indexed = await self._router.wait_until_indexed(name, asked.timeout_s, deadline)
        return pb.WaitUntilIndexedReply(indexed=indexed)

    async def flush(self, asked: pb.FlushRequest, deadline: Deadline) -> pb.FlushReply:
        """Turn the growing buffers into segments."""
        await self._router.flush(check_collection_name(asked.collection), deadline)
        return pb.FlushReply()

    async def compact(self, asked: pb.CompactRequest, deadline: Deadline) -> pb.CompactReply:
        """Merge and clean segments."""
        await self._router.compact(check_collection_name(asked.collection), deadline)
        return pb.CompactReply()

    async def verify(self, asked: pb.VerifyRequest, deadline: Deadline) -> pb.VerifyReply:
        """Compare the replicas of every shard."""
        told = await self._router.verify(check_collection_name(asked.collection), deadline)
        return pb.VerifyReply(equal=told["equal"], shards=json.dumps(told["shards"]))

    async def cluster_status(self, asked: pb.ClusterStatusRequest, deadline: Deadline) -> pb.ClusterStatusReply:
        """Members, collections and shards."""
        return pb.ClusterStatusReply(status=json.dumps(await self._router.cluster_status(deadline)))

    async def server_info(self, asked: pb.ServerInfoRequest, deadline: Deadline) -> pb.ServerInfoReply:
        """What answers here."""
        about = self._about
        return pb.ServerInfoReply(
            version=about.version,
            kind=about.kind,
            node_id=about.node_id,
            feature_level=about.feature_level,
            message_bytes_max=self.settings.body_bytes_max,
            location=about.location,
        )

    # -- serving

    def served(self) -> dict[str, Serve]:
        """Every call by its name."""
        methods: dict[str, tuple[type[Message], Callable[[Any, Deadline], Awaitable[Message]]]] = {
            "CreateCollection": (pb.CreateCollectionRequest, self.create_collection),
            "DropCollection": (pb.DropCollectionRequest, self.drop_collection),
            "RenameCollection": (pb.RenameCollectionRequest, self.rename_collection),
            "AlterCollection": (pb.AlterCollectionRequest, self.alter_collection),
            "ListCollections": (pb.ListCollectionsRequest, self.list_collections),
            "GetCollection": (pb.GetCollectionRequest, self.get_collection),
            "Upsert": (pb.UpsertRequest, self.upsert),
            "Update": (pb.UpdateRequest, self.update),
            "Delete": (pb.DeleteRequest, self.delete),
            "Search": (pb.SearchRequest, self.search),
            "Get": (pb.GetRequest, self.get),
            "Scroll": (pb.ScrollRequest, self.scroll),
            "Count": (pb.CountRequest, self.count),
            "Explain": (pb.ExplainRequest, self.explain),
            "Stats": (pb.StatsRequest, self.stats),
            "WaitUntilIndexed": (pb.WaitUntilIndexedRequest, self.wait_until_indexed),
            "Flush": (pb.FlushRequest, self.flush),
            "Compact": (pb.CompactRequest, self.compact),
            "Verify": (pb.VerifyRequest, self.verify),
            "ClusterStatus": (pb.ClusterStatusRequest, self.cluster_status),
            "ServerInfo": (pb.ServerInfoRequest, self.server_info),
        }
        return {name: self._serve(name, kind, method) for name, (kind, method) in methods.items()}

    def _serve(self, name: str, kind: type[Message], method: Callable[[Any, Deadline], Awaitable[Message]]) -> Serve:
        default_s = self.settings.care_timeout_s if name in _CARE else self.settings.timeout_s

        async def serve(data: bytes, left_s: float | None) -> bytes:
            """The answer, counted before it leaves: whoever has it finds it in the metrics, be it a refusal."""
            started = self.clock.mono_s()
            deadline = Deadline.after(self.clock, default_s if left_s is None else _time_to_answer(left_s))
            code = "CANCELLED"
            try:
                answer = self._written(await method(self._read(data, kind), deadline))
                code = "OK"
                return answer
            except OmenDBError as error:
                code = error.code
                raise
            except Exception:
                code = "INTERNAL"
                raise
            finally:
                self._observe(name, code, self.clock.mono_s() - started)

        return serve

    def _read(self, data: bytes, kind: type[Message]) -> Message:
        limit = self.settings.body_bytes_max
        if len(data) > limit:
            raise InvalidArgumentError(
                f"got {len(data)} bytes", field="body", bound=f"at most {limit} bytes", mend="send it in several calls"
            )
        try:
            return kind.FromString(data)
        except DecodeError as error:
            raise InvalidArgumentError(f"not a {kind.DESCRIPTOR.name}: {error}", field="body") from None

    def _written(self, answer: Message) -> bytes:
        data = answer.SerializeToString()
        limit = self.settings.body_bytes_max
        if len(data) > limit:
            raise InvalidArgumentError(
                f"the answer has {len(data)} bytes", field="answer", bound=f"at most {limit} bytes", mend="ask for less"
            )
        return data


def _time_to_answer(left_s: float) -> float:
    """What of a caller's time the router may use up: an answer that comes when the caller has hung up tells nothing.

    Who was told only that it is too late would not know which replicas have a write, nor its stamp.
    """
    return left_s - min(WAY_BACK_S_MAX, left_s * WAY_BACK_SHARE)


__all__ = ["WAY_BACK_SHARE", "WAY_BACK_S_MAX", "MessageCalls", "Serve"]
