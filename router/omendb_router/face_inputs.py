"""What callers send, checked for its form before the router sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common import inputs
from omendb_common.errors import CorruptionError, InvalidArgumentError
from omendb_common.filters import Filter, MatchAll, parse_filter
from omendb_common.matrices import as_queries
from omendb_common.payload import TYPES, columns_from_mapping, columns_from_rows, rows_from_columns, split_name
from omendb_common.schema import CollectionSchema
from omendb_router.face_calls import CONSISTENCIES, Question, Seen
from omendb_router.sessions import TOKEN_BYTES_MAX

HITS_PER_CALL_MAX = 4 << 20
"""Queries times ``k`` of one call: what bounds the size of its answer."""


def checked_payload(batch: pa.RecordBatch | None, n: int) -> pa.RecordBatch | None:
    """Payload columns (``path#kind``) of ``n`` points from a network, made anew under every rule of the payload.

    Raises:
        InvalidArgumentError: a name, a type, a length or a value that a payload cannot have.
    """
    if batch is None or not batch.num_columns:
        return None
    if batch.num_rows != n:
        raise InvalidArgumentError(f"got {batch.num_rows} rows for {n} points", field="metadata", bound=f"{n} rows")
    simple: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            path, kind = split_name(name)
        except CorruptionError as error:
            raise InvalidArgumentError(error.message, field="metadata", bound="columns named '<path>#<kind>'") from None
        if column.type != TYPES[kind]:
            raise InvalidArgumentError(
                f"the column {name!r} has type {column.type}", field="metadata", bound=str(TYPES[kind])
            )
        if kind != "j":
            simple[path] = column
    if len(simple) == batch.num_columns:
        return columns_from_mapping(simple, n)
    # Several kinds under one path, or JSON text: value by value, as the rows that it stands for.
    try:
        rows = rows_from_columns(batch, n=n)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"not JSON: {error}", field="metadata", bound="JSON text") from None
    return columns_from_rows(rows)


def checked_question(
    schema: CollectionSchema,
    queries: Any,
    *,
    k: int,
    field: str | None = None,
    name: str = "vectors",
    filters: Filter | Mapping[str, Any] | None = None,
    exact: bool = False,
    ef: int | None = None,
    recall_target: float | None = None,
    score_threshold: float | None = None,
    payload: bool = False,
    vectors: bool = False,
) -> Question:
    """A search ready to ask; InvalidArgumentError names what is wrong. ``field`` None: the first one."""
    target = schema.vectors[0] if field is None else schema.vector(field)
    inputs.check_k(k)
    inputs.check_effort(ef, recall_target, score_threshold)
    if isinstance(queries, np.ndarray) and queries.ndim == 2 and len(queries) == 1:
        queries = queries[0]  # a single query has a shorter way through the same checks
    matrix, _ = as_queries(queries, target, name=name)
    if len(matrix) * k > HITS_PER_CALL_MAX:
        raise InvalidArgumentError(
            f"{len(matrix)} queries of k={k} ask for {len(matrix) * k} hits",
            field=name,
            bound=f"at most {HITS_PER_CALL_MAX} hits in a call",
            mend="send fewer queries at a time",
        )
    condition = parse_filter(filters)
    return Question(matrix, k, target.name, condition, exact, ef, recall_target, score_threshold, payload, vectors)


def raw_matrix(data: Any, dimension: int, dtype: npt.DTypeLike, name: str) -> npt.NDArray[Any]:
    """Raw little-endian rows as an (m, dimension) array over ``data``, at most 65,536 rows when they are queries."""
    row_bytes = dimension * np.dtype(dtype).itemsize
    size = memoryview(data).nbytes
    if not row_bytes or size % row_bytes:
        raise InvalidArgumentError(
            f"got {size} bytes", field=name, bound=f"whole rows of {row_bytes} bytes (dimension {dimension})"
        )
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(-1, dimension)


def delete_condition(filters: Filter | Mapping[str, Any] | None) -> Filter | None:
    """The filter of a delete; one that matches everything is refused."""
    tree = parse_filter(filters)
    if isinstance(tree, MatchAll):
        raise InvalidArgumentError(
            "an empty filter would delete everything", field="filters", bound="a condition", mend="use drop_collection"
        )
    return tree


def checked_seen(consistency: Any, session: bytes) -> Seen:
    """Which state a read must show."""
    if consistency is not None and consistency not in CONSISTENCIES:
        raise InvalidArgumentError(f"got {consistency!r}", field="consistency", bound=f"one of {CONSISTENCIES}")
    if len(session) > TOKEN_BYTES_MAX:
        raise InvalidArgumentError(
            f"got {len(session)} bytes", field="session", bound=f"at most {TOKEN_BYTES_MAX} bytes"
        )
    if consistency == "session" and not session:
        raise InvalidArgumentError("there is no token", field="session", bound="a session token of an earlier answer")
    return Seen(consistency, session)


__all__ = [
    "HITS_PER_CALL_MAX",
    "checked_payload",
    "checked_question",
    "checked_seen",
    "delete_condition",
    "raw_matrix",
]
