"""A write, checked whole before the engine sees it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy.typing as npt
import pyarrow as pa

from omendb_common import inputs
from omendb_common.errors import InvalidArgumentError
from omendb_common.ids import IdColumn
from omendb_common.matrices import as_vectors
from omendb_common.schema import CollectionSchema

Matrices = dict[str, npt.NDArray[Any]]


class UpsertBatch(NamedTuple):
    """Whole points; ``ids`` is None for automatic ids."""

    ids: IdColumn | None
    vectors: Matrices
    payload: pa.RecordBatch | None
    n: int


class UpdateBatch(NamedTuple):
    """Parts of points; ``unset`` names the metadata keys to remove."""

    ids: IdColumn
    vectors: Matrices | None
    payload: pa.RecordBatch | None
    unset: list[str]


def checked_upsert(schema: CollectionSchema, vectors: Any, metadata: Any, ids: Any) -> UpsertBatch:
    """Points ready to store; InvalidArgumentError names what is wrong."""
    matrices = as_vectors(vectors, schema)
    missing = [field.name for field in schema.vectors if field.name not in matrices]
    if missing:
        raise InvalidArgumentError(f"{missing} are missing", field="vectors", bound="every field of the collection")
    n = len(next(iter(matrices.values())))
    return UpsertBatch(None if ids is None else inputs.as_ids(ids, n), matrices, inputs.as_payload(metadata, n), n)


def checked_update(
    schema: CollectionSchema | None, ids: Any, vectors: Any, metadata: Any, unset: Iterable[str]
) -> UpdateBatch:
    """A partial update ready to apply; ``schema`` is None when nothing is stored yet."""
    if inputs.is_table(ids):
        raise InvalidArgumentError("got a table", field="ids", bound="a sequence of ids", mend="pass its columns")
    column = inputs.as_ids(ids)
    n = len(column)
    if n == 0:
        raise InvalidArgumentError("the batch is empty", field="ids", bound="at least 1 id")
    removed = inputs.check_keys(unset)
    payload = inputs.as_payload(metadata, n)
    if payload is not None and not payload.num_columns:
        payload = None  # a mapping per point, and nothing in any of them
    if vectors is None and payload is None and not removed:
        raise InvalidArgumentError("nothing to change", field="vectors, metadata, unset", bound="at least one of them")
    if vectors is None or schema is None:
        return UpdateBatch(column, None, payload, removed)
    matrices = as_vectors(vectors, schema)
    found = len(next(iter(matrices.values())))
    if found != n:
        raise InvalidArgumentError(f"got {found} vectors for {n} ids", field="vectors", bound=f"{n} vectors")
    return UpdateBatch(column, matrices, payload, removed)


__all__ = ["UpdateBatch", "UpsertBatch", "checked_update", "checked_upsert"]
