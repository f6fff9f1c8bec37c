"""Routes of the collections as wholes."""

from __future__ import annotations

from typing import Any

from omendb_common.errors import AlreadyExistsError
from omendb_common.metadata import NewCollection
from omendb_common.new_schema import index_options, vector_fields
from omendb_common.quorum import check_asked, check_quorums
from omendb_common.schema import CollectionSchema, VectorField, check_collection_name
from omendb_common.topology import CollectionInfo
from omendb_router.rest.bodies import (
    Alter,
    CollectionBody,
    CollectionList,
    CreateCollection,
    Done,
    Rename,
    VectorInfo,
)
from omendb_router.rest.calls import Call, Route


def told(info: CollectionInfo) -> CollectionBody:
    """A collection as an answer."""
    schema = info.schema
    return CollectionBody(
        name=info.name,
        uuid=schema.uuid,
        vectors=[
            VectorInfo(name=v.name, dimension=v.dimension, metric=v.metric, dtype=v.dtype) for v in schema.vectors
        ],
        options=dict(schema.options),
        shards=len(info.shards),
        replication=info.replication,
        write_quorum=info.write_quorum,
        read_quorum=info.read_quorum,
        partition_key=info.partition_key,
    )


async def list_collections(call: Call) -> CollectionList:
    """All of them, as the newest topology that the router has seen has them."""
    known = call.router.topology.collections
    return CollectionList(collections=[told(known[name]) for name in sorted(known)])


async def create_collection(call: Call) -> CollectionBody:
    """Make one."""
    asked: CreateCollection = call.body
    new = NewCollection(
        check_collection_name(asked.name),
        _schema(asked),
        asked.shards,
        asked.replication,
        asked.write_quorum,
        asked.read_quorum,
        asked.partition_key,
    )
    _check_numbers(asked)
    try:
        return told(await call.router.create_collection(new, call.deadline))
    except AlreadyExistsError:
        if not asked.if_not_exists:
            raise
    existing = await call.router.find(new.name, call.deadline)
    if existing.schema.vectors != new.schema.vectors:
        raise AlreadyExistsError(
            f"collection {new.name!r} exists with {existing.schema.vectors}",
            field="name",
            bound="the same vector fields",
        )
    return told(existing)


def _schema(asked: CreateCollection) -> CollectionSchema:
    named = None
    if asked.vectors is not None:
        named = {n: VectorField(v.dimension, v.metric, v.dtype) for n, v in asked.vectors.items()}
    fields = vector_fields(asked.dimension, asked.metric, asked.dtype, named)
    own = {
        "hnsw_m": asked.hnsw_m,
        "hnsw_ef_construction": asked.hnsw_ef_construction,
        "quantization": asked.quantization,
        "nlist": asked.nlist,
    }
    return CollectionSchema("", fields, index_options(asked.index, {n: v for n, v in own.items() if v is not None}))


def _check_numbers(asked: CreateCollection) -> None:
    """What can be judged before the coordinators choose the rest."""
    n = asked.replication
    write, read = asked.write_quorum, asked.read_quorum
    if n is not None:
        check_quorums(n, write if write is not None else 1, read if read is not None else 1)


async def get_collection(call: Call) -> CollectionBody:
    """One of them."""
    return told(await call.router.find(check_collection_name(call.path["name"]), call.deadline))


async def drop_collection(call: Call) -> Done:
    """Delete one."""
    await call.router.drop_collection(check_collection_name(call.path["name"]), call.deadline)
    return Done()


async def rename_collection(call: Call) -> CollectionBody:
    """Give one another name."""
    asked: Rename = call.body
    old = check_collection_name(call.path["name"])
    return told(await call.router.rename_collection(old, check_collection_name(asked.new_name), call.deadline))


async def alter_collection(call: Call) -> CollectionBody:
    """Ask for another replication and other quorums of one."""
    asked: Alter = call.body
    name = check_collection_name(call.path["name"])
    numbers = asked.replication, asked.write_quorum, asked.read_quorum
    check_asked(*numbers)
    return told(await call.router.alter_collection(name, *numbers, call.deadline))


_CREATE: dict[str, Any] = {
    "path": "/collections",
    "summary": "Create a collection",
    "handler": create_collection,
    "answer": CollectionBody,
    "body": CreateCollection,
    "status": 201,
    "tag": "collections",
}
ROUTES = (
    Route(
        "GET",
        "/collections",
        "listCollections",
        "List the collections",
        list_collections,
        CollectionList,
        tag="collections",
    ),
    Route("POST", name="createCollection", **_CREATE),
    Route("PUT", name="putCollection", **_CREATE),
    Route(
        "GET",
        "/collections/{name}",
        "getCollection",
        "Describe a collection",
        get_collection,
        CollectionBody,
        tag="collections",
    ),
    Route(
        "PATCH",
        "/collections/{name}",
        "alterCollection",
        "Change how many replicas a collection has, and its quorums",
        alter_collection,
        CollectionBody,
        Alter,
        tag="collections",
    ),
    Route(
        "DELETE",
        "/collections/{name}",
        "dropCollection",
        "Delete a collection and all its points",
        drop_collection,
        Done,
        tag="collections",
    ),
    Route(
        "POST",
        "/collections/{name}/rename",
        "renameCollection",
        "Give a collection another name",
        rename_collection,
        CollectionBody,
        Rename,
        tag="collections",
    ),
)

__all__ = [
    "ROUTES",
    "alter_collection",
    "create_collection",
    "drop_collection",
    "get_collection",
    "list_collections",
    "rename_collection",
    "told",
]
