"""The router's gRPC messages to and from values."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from omendb_common.errors import InvalidArgumentError
from omendb_common.expected import checked_versions
from omendb_common.ids import IdColumn, U64Array
from omendb_common.matrices import as_vectors
from omendb_common.metadata import NewCollection
from omendb_common.new_schema import checked_schema
from omendb_common.quorum import check_quorums
from omendb_common.schema import CollectionSchema, Metric, VectorDType, VectorField, check_collection_name
from omendb_common.topology import CollectionInfo
from omendb_common.wire import convert
from omendb_proto.v1 import common_pb2, router_pb2
from omendb_router.face_calls import CONSISTENCIES, Consistency, Found, Hits, PointPage, Seen, Written
from omendb_router.face_inputs import checked_seen

OPTIONS_BYTES_MAX = 64 << 10
WriteRequest = router_pb2.UpsertRequest | router_pb2.UpdateRequest | router_pb2.DeleteRequest

_CONSISTENCY: dict[int, Consistency | None] = {
    router_pb2.CONSISTENCY_UNSPECIFIED: None,
    router_pb2.CONSISTENCY_ONE: "one",
    router_pb2.CONSISTENCY_QUORUM: "quorum",
    router_pb2.CONSISTENCY_VERIFIED: "verified",
    router_pb2.CONSISTENCY_SESSION: "session",
}


def new_collection(spec: router_pb2.CollectionSpec) -> NewCollection:
    """What CreateCollection asks for; InvalidArgumentError names what is wrong."""
    fields = [
        VectorField(v.dimension, cast(Metric, v.metric or "l2"), cast(VectorDType, v.dtype or "float32"), v.name)
        for v in spec.vectors
    ]
    schema = checked_schema(fields, _options(spec.options))
    n, write, read = spec.replication or None, spec.write_quorum or None, spec.read_quorum or None
    if n is not None:
        check_quorums(n, write or 1, read or 1)
    key = spec.partition_key if spec.HasField("partition_key") else None
    return NewCollection(check_collection_name(spec.name), schema, spec.shards or None, n, write, read, key)


def _options(text: str) -> dict[str, Any]:
    if not text:
        return {}
    if len(text) > OPTIONS_BYTES_MAX:
        raise InvalidArgumentError(f"{len(text)} characters", field="options", bound=f"at most {OPTIONS_BYTES_MAX}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"no JSON: {str(error)[:200]}", field="options") from None
    if not isinstance(value, dict):
        raise InvalidArgumentError("no JSON object", field="options", bound="an object of names to values")
    return value


def collection_message(info: CollectionInfo) -> router_pb2.CollectionSpec:
    """A collection as a message."""
    schema = info.schema
    return router_pb2.CollectionSpec(
        name=info.name,
        uuid=schema.uuid,
        schema_version=schema.version,
        vectors=[
            router_pb2.VectorFieldSpec(name=v.name, dimension=v.dimension, metric=v.metric, dtype=v.dtype)
            for v in schema.vectors
        ],
        options=json.dumps(dict(schema.options)),
        shards=len(info.shards),
        replication=info.replication,
        write_quorum=info.write_quorum,
        read_quorum=info.read_quorum,
        partition_key=info.partition_key,
        revision=info.revision,
    )


def matrices(messages: Iterable[common_pb2.Vectors], schema: CollectionSchema) -> dict[str, npt.NDArray[Any]]:
    """Vectors by field, checked against the schema; two of one field are refused."""
    by_field: dict[str, npt.NDArray[Any]] = {}
    for message in messages:
        if message.field in by_field:
            raise InvalidArgumentError(f"field {message.field!r} comes twice", field="vectors", bound="once each")
        by_field[message.field] = convert.vectors_from_proto(message)
    # Alone and unnamed it is checked as such, so that an error names it as the caller does.
    return as_vectors(by_field[""] if list(by_field) == [""] else by_field, schema)


def seen(consistency: int, session: bytes) -> Seen:
    """Which state a read must show."""
    if consistency not in _CONSISTENCY:
        raise InvalidArgumentError(f"got {consistency}", field="consistency", bound=f"one of {CONSISTENCIES}")
    return checked_seen(_CONSISTENCY[consistency], session)


def retry_stamp(message: WriteRequest) -> int | None:
    """The stamp of an earlier try; None in a first one."""
    return message.retry_stamp or None


def collection_of(message: WriteRequest) -> str:
    """The collection that a write names: a conditional one beside its versions."""
    named = message.if_versions.collection if message.HasField("if_versions") else message.collection
    if message.HasField("if_versions") and message.collection:
        raise InvalidArgumentError("got two", field="collection", bound="that of if_versions alone")
    return check_collection_name(named)


def demanded(message: WriteRequest, ids: IdColumn | None, *, may_be_absent: bool = False) -> U64Array | None:
    """The version that each point of a write must have; None in an unconditional one."""
    if not message.HasField("if_versions"):
        return None
    data = message.if_versions.versions
    if len(data) % 8:
        raise InvalidArgumentError(f"{len(data)} bytes", field="if_version", bound="8 per point")
    return checked_versions(np.frombuffer(data, "<u8").astype(np.uint64), ids, may_be_absent=may_be_absent)


def written_message(written: Written, *, automatic: bool = False) -> router_pb2.WriteReply:
    """A write's acknowledgement; with its ids when they were drawn here."""
    return router_pb2.WriteReply(
        ids=convert.ids_to_proto(written.ids) if automatic else None,
        count=written.count,
        stamp=written.stamp,
        lsn=written.lsn,
        durability=written.durability,
        session=written.session,
    )


def hits_message(hits: Hits, field: str) -> router_pb2.SearchReply:
    """The answer to a search."""
    return router_pb2.SearchReply(
        counts=hits.counts.astype("<u4").tobytes(),
        distances=hits.flat_distances().astype("<f4", copy=False).tobytes(),
        ids=convert.ids_to_proto(hits.ids),
        payload=None if hits.payload is None else convert.columns_to_proto(hits.payload),
        vectors=None if hits.vectors is None else convert.vectors_to_proto(hits.vectors, field),
        performance=convert.performance_to_proto(hits.work, hits.latency_ms),
        session=hits.session,
        stale_possible=hits.stale_possible,
    )


def found_message(found: Found) -> router_pb2.GetReply:
    """Points that were looked up."""
    return router_pb2.GetReply(
        ids=convert.ids_to_proto(found.ids),
        positions=found.positions.astype("<u4").tobytes(),
        payload=None if found.payload is None else convert.columns_to_proto(found.payload),
        vectors=[convert.vectors_to_proto(matrix, name) for name, matrix in found.vectors.items()],
        versions=found.versions.astype("<u8", copy=False).tobytes(),
    )


def page_message(page: PointPage) -> router_pb2.ScrollReply:
    """A page of points."""
    return router_pb2.ScrollReply(
        ids=convert.ids_to_proto(page.ids),
        payload=None if page.payload is None else convert.columns_to_proto(page.payload),
        vectors=[convert.vectors_to_proto(matrix, name) for name, matrix in page.vectors.items()],
        cursor=page.cursor or "",
        versions=page.versions.astype("<u8", copy=False).tobytes(),
    )


__all__ = [
    "WriteRequest",
    "collection_message",
    "collection_of",
    "demanded",
    "found_message",
    "hits_message",
    "matrices",
    "new_collection",
    "page_message",
    "retry_stamp",
    "seen",
    "written_message",
]
