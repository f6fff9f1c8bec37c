"""Routes that write points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omendb_common import inputs
from omendb_common.errors import InvalidArgumentError
from omendb_common.expected import checked_versions
from omendb_common.hlc import STAMP_MAX
from omendb_common.schema import CollectionSchema, check_collection_name
from omendb_common.wire.arrow_ipc import batch_from_ipc
from omendb_common.writes import checked_update, checked_upsert
from omendb_router.face_calls import Written
from omendb_router.face_inputs import delete_condition, raw_matrix
from omendb_router.rest.bodies import Delete, DeleteBody, RowIn, Stamp, Update, Upsert, WriteBody
from omendb_router.rest.calls import ARROW, OCTETS, Call, Params, Route


class RawUpsertParams(Params):
    """Query parameters beside raw vectors."""

    field: str | None = None
    retry_stamp: Stamp | None = None


class ArrowUpsertParams(Params):
    """Query parameters beside an Arrow stream: which columns are the ids and the vectors; all others are metadata."""

    id_column: str = "id"
    vector_column: str = "vector"
    create_only: bool = False
    retry_stamp: Stamp | None = None


async def upsert(call: Call) -> WriteBody:
    """Store points, however they came."""
    collection = check_collection_name(call.path["name"])
    schema = (await call.router.find(collection, call.deadline)).schema
    create_only, stamp = False, call.params.retry_stamp if call.media != "application/json" else call.body.retry_stamp
    if call.media == OCTETS:
        ids, vectors, metadata = None, _raw(schema, call.body, call.params.field), None
    elif call.media == ARROW:
        ids, vectors, metadata = _from_stream(call.body, call.params)
        create_only = call.params.create_only
    else:
        ids, vectors, metadata = _from_json(schema, call.body)
        create_only = call.body.create_only
    batch = checked_upsert(schema, vectors, metadata, ids)
    wanted = _versions(call.body.if_version) if call.media == "application/json" else None
    written = await call.router.upsert(
        collection,
        batch.ids,
        batch.vectors,
        batch.payload,
        batch.n,
        create_only=create_only,
        retry_stamp=_stamp(stamp),
        versions=checked_versions(wanted, batch.ids, may_be_absent=True),
        deadline=call.deadline,
    )
    return _told(written)


def _raw(schema: CollectionSchema, data: bytes, field: str | None) -> Any:
    target = schema.vectors[0] if field is None else schema.vector(field)
    matrix = raw_matrix(data, target.dimension, target.numpy_dtype, "body")
    return {target.name: matrix} if target.name else matrix


def _from_stream(data: bytes, params: ArrowUpsertParams) -> tuple[Any, Any, Any]:
    table = batch_from_ipc(data, "body")
    columns = inputs.split_table(table, params.id_column, params.vector_column)
    return columns.ids, columns.vectors, columns.metadata


def _from_json(schema: CollectionSchema, body: Upsert) -> tuple[Any, Any, Any]:
    if body.points is None:
        if body.vectors is None:
            raise InvalidArgumentError("got none", field="vectors, points", bound="exactly one of them")
        return body.ids, body.vectors, body.metadata
    if body.vectors is not None or body.ids is not None or body.metadata is not None:
        raise InvalidArgumentError(
            "got both", field="vectors, points", bound="columns or rows", mend="send points alone"
        )
    return _ids_of(body.points), _vectors_of(schema, body.points), [row.metadata for row in body.points]


def _ids_of(points: Sequence[RowIn]) -> list[int | str] | None:
    ids = [row.id for row in points if row.id is not None]
    if ids and len(ids) != len(points):
        odd = next(place for place, row in enumerate(points) if row.id is None)
        raise InvalidArgumentError("is missing", field=f"points[{odd}].id", bound="an id for every point, or for none")
    return ids or None


def _vectors_of(schema: CollectionSchema, points: Sequence[RowIn]) -> Any:
    """The vectors of rows by field, every one of the collection's in every row."""
    names = [field.name for field in schema.vectors]
    columns: dict[str, list[list[float]]] = {name: [] for name in names}
    for place, row in enumerate(points):
        if (row.vector is None) == (row.vectors is None):
            raise InvalidArgumentError(
                "got both or none", field=f"points[{place}]", bound="exactly one of vector and vectors"
            )
        given = {names[0]: row.vector} if row.vector is not None else row.vectors or {}
        if set(given) != set(names):
            raise InvalidArgumentError(
                f"got fields {sorted(given)}", field=f"points[{place}].vectors", bound=f"fields {sorted(names)}"
            )
        for name, vector in given.items():
            columns[name].append(vector or [])
    return columns if names != [""] else columns[""]


async def update(call: Call) -> WriteBody:
    """Change parts of points."""
    collection = check_collection_name(call.path["name"])
    schema = (await call.router.find(collection, call.deadline)).schema
    asked: Update = call.body
    batch = checked_update(schema, asked.ids, asked.vectors, asked.metadata, asked.unset)
    return _told(
        await call.router.update(
            collection,
            batch.ids,
            batch.vectors,
            batch.payload,
            unset=batch.unset,
            retry_stamp=_stamp(asked.retry_stamp),
            versions=checked_versions(_versions(asked.if_version), batch.ids, may_be_absent=False),
            deadline=call.deadline,
        )
    )


async def delete(call: Call) -> DeleteBody:
    """Delete points, by id or by filter."""
    collection = check_collection_name(call.path["name"])
    asked: Delete = call.body
    if (asked.ids is None) == (asked.filters is None):
        raise InvalidArgumentError("got both or none", field="ids, filters", bound="exactly one of them")
    stamp, deadline = _stamp(asked.retry_stamp), call.deadline
    if asked.ids is not None:
        ids = inputs.as_ids(asked.ids)
        versions = checked_versions(_versions(asked.if_version), ids, may_be_absent=False)
        done = await call.router.delete(collection, ids, retry_stamp=stamp, versions=versions, deadline=deadline)
    else:
        if asked.if_version is not None:
            raise InvalidArgumentError("got filters", field="if_version", bound="versions of points that ids name")
        condition = delete_condition(asked.filters)
        assert condition is not None
        done = await call.router.delete_where(collection, condition, retry_stamp=stamp, deadline=deadline)
    return DeleteBody(
        deleted=done.count,
        durability=done.durability,
        stamp=str(done.stamp),
        lsn=done.lsn,
        session=done.session.decode("ascii"),
    )


def _stamp(text: str | None) -> int | None:
    if text is None:
        return None
    stamp = int(text)
    if not 0 < stamp <= STAMP_MAX:
        raise InvalidArgumentError(f"got {text}", field="retry_stamp", bound="the stamp of an earlier try")
    return stamp


def _versions(given: str | list[str | None] | None) -> int | list[int | None] | None:
    """Versions as numbers."""
    if given is None or isinstance(given, str):
        return None if given is None else int(given)
    return [None if one is None else int(one) for one in given]


def _told(written: Written) -> WriteBody:
    return WriteBody(
        ids=written.ids.to_list(),
        written=written.count,
        durability=written.durability,
        stamp=str(written.stamp),
        lsn=written.lsn,
        session=written.session.decode("ascii"),
    )


ROUTES = (
    Route(
        "POST",
        "/collections/{name}/points",
        "upsertPoints",
        "Store points, replacing those that exist",
        upsert,
        WriteBody,
        Upsert,
        media={OCTETS: RawUpsertParams, ARROW: ArrowUpsertParams},
    ),
    Route(
        "PATCH",
        "/collections/{name}/points",
        "updatePoints",
        "Change parts of points that exist",
        update,
        WriteBody,
        Update,
    ),
    Route(
        "POST",
        "/collections/{name}/points/delete",
        "deletePoints",
        "Delete points by id or by filter",
        delete,
        DeleteBody,
        Delete,
    ),
)


__all__ = ["ROUTES", "ArrowUpsertParams", "RawUpsertParams", "delete", "update", "upsert"]
