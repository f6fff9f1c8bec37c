"""Ids, metadata, tables and scalars in every form a caller may have them, checked and in columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb.backend import Consistency
from omendb_common.errors import InvalidArgumentError
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_mapping, columns_from_rows
from omendb_common.schema import (
    K_MAX,
)

Matrix = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
CONSISTENCIES: tuple[str, ...] = get_args(Consistency)
INCLUDE = frozenset({"id", "distance", "score", "metadata", "vector"})

_SHAPE = "an array of shape (n, dimension)"


class Columns(NamedTuple):
    """The three parts of a table of points."""

    ids: Any | None
    vectors: Any
    metadata: Any | None


def is_table(value: Any) -> bool:
    """Whether ``value`` is an Arrow table or batch, or a pandas or polars frame."""
    if isinstance(value, (pa.Table, pa.RecordBatch)):
        return True
    kind = type(value)
    return kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] in ("pandas", "polars")


def split_table(table: Any, id_column: str, vector_column: str) -> Columns:
    """Take a table apart: its id column (if any), its vector column, and all others as metadata.

    Raises:
        InvalidArgumentError: no column ``vector_column``.
    """
    columns = table_columns(table)
    if vector_column not in columns:
        raise InvalidArgumentError(
            f"the table has columns {list(columns)[:20]}",
            field="vectors",
            bound=f"a column {vector_column!r}",
            mend="rename the column or pass vector_column=",
        )
    vectors = columns.pop(vector_column)
    return Columns(columns.pop(id_column, None), vectors, columns or None)


def table_columns(table: Any) -> dict[str, Any]:
    """The columns of a table or frame by name."""
    if isinstance(table, (pa.Table, pa.RecordBatch)):
        return dict(zip(table.schema.names, table.columns, strict=True))
    return {str(name): table[name] for name in table.columns}


# -- ids and payload -------------------------------------------------------------------------------


def as_ids(ids: Any, n: int | None = None) -> IdColumn:
    """Ids as a column; ``n`` is the number of vectors they must match."""
    if isinstance(ids, (bytes, bool, float, Mapping)) or ids is None:
        raise InvalidArgumentError(f"got {type(ids).__name__}", field="ids", bound="a sequence of int, str or UUID")
    column = IdColumn.of(ids)
    if n is not None and len(column) != n:
        raise InvalidArgumentError(f"got {len(column)} ids for {n} points", field="ids", bound=f"{n} ids")
    return column


def as_payload(metadata: Any, n: int) -> pa.RecordBatch | None:
    """Metadata as typed columns of ``n`` rows, or None when there is none.

    Takes a mapping of column to values, a table or frame, or a sequence of one mapping per point.
    """
    if metadata is None:
        return None
    if is_table(metadata):
        metadata = table_columns(metadata)
    if isinstance(metadata, Mapping):
        return columns_from_mapping(metadata, n) if metadata else None
    if isinstance(metadata, Sequence) and not isinstance(metadata, (str, bytes)):
        if len(metadata) != n:
            raise InvalidArgumentError(f"got {len(metadata)} rows for {n} points", field="metadata", bound=f"{n} rows")
        odd = next((i for i, row in enumerate(metadata) if row is not None and not isinstance(row, Mapping)), None)
        if odd is not None:
            raise InvalidArgumentError(
                f"row {odd} is a {type(metadata[odd]).__name__}", field="metadata", bound="a mapping or None per point"
            )
        return columns_from_rows(metadata)
    raise InvalidArgumentError(
        f"got {type(metadata).__name__}",
        field="metadata",
        bound="a mapping of column to values, or one mapping per point",
    )


def check_keys(keys: Iterable[str]) -> list[str]:
    """Metadata keys to remove."""
    if isinstance(keys, str):
        raise InvalidArgumentError(
            f"got the string {keys!r}", field="unset", bound="a list of keys", mend=f"[{keys!r}]"
        )
    listed = list(keys)
    for key in listed:
        if not isinstance(key, str) or not key:
            raise InvalidArgumentError(f"got {key!r}", field="unset", bound="metadata keys")
    return listed


# -- scalars ---------------------------------------------------------------------------------------


def check_k(k: Any) -> int:
    """``k`` if it is an integer in 1..K_MAX."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise InvalidArgumentError(f"got {k!r}", field="k", bound=f"an integer in 1..{K_MAX}")
    if not 1 <= k <= K_MAX:
        raise InvalidArgumentError(f"got {k}", field="k", bound=f"1..{K_MAX}")
    return int(k)


def check_include(include: Iterable[str]) -> frozenset[str]:
    """The names in ``include``, each one of id, distance, score, metadata and vector."""
    if isinstance(include, str):
        raise InvalidArgumentError(
            f"got the string {include!r}", field="include", bound="a list of names", mend=f"[{include!r}]"
        )
    names = frozenset(include)
    if not names <= INCLUDE:
        raise InvalidArgumentError(
            f"got {sorted(map(str, names - INCLUDE))}", field="include", bound=f"any of {sorted(INCLUDE)}"
        )
    return names


def check_count(value: Any, field: str, highest: int) -> int:
    """``value`` if it is an integer in 1..highest."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= highest:
        raise InvalidArgumentError(f"got {value!r}", field=field, bound=f"an integer in 1..{highest}")
    return int(value)


def one_query(query: Any, vector: Any, vectors: Any) -> tuple[str, Any]:
    """The one of the three that was passed, and its name."""
    if (query is not None) + (vector is not None) + (vectors is not None) != 1:
        raise InvalidArgumentError(
            "got none or several of query, vector and vectors", field="query", bound="exactly one of them"
        )
    if query is not None:
        return "query", query
    return ("vector", vector) if vector is not None else ("vectors", vectors)


def check_effort(ef: Any, recall_target: Any, score_threshold: Any) -> None:
    """Refuse an effort, a recall target or a score threshold that means nothing."""
    if ef is not None:
        check_count(ef, "ef", 65_536)
    if recall_target is not None and not (isinstance(recall_target, (int, float)) and 0 < recall_target <= 1):
        raise InvalidArgumentError(f"got {recall_target!r}", field="recall_target", bound="a number in 0..1")
    if score_threshold is not None and not (
        isinstance(score_threshold, (int, float)) and math.isfinite(score_threshold)
    ):
        raise InvalidArgumentError(f"got {score_threshold!r}", field="score_threshold", bound="a finite number")


def check_timeout(value: Any) -> float:
    """``value`` if it is a positive, finite number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise InvalidArgumentError(f"got {value!r}", field="timeout", bound="seconds, more than 0")
    return float(value)


def check_consistency(value: Any) -> Consistency:
    """``value`` if it names what a read must show."""
    if value not in CONSISTENCIES:
        raise InvalidArgumentError(f"got {value!r}", field="consistency", bound=f"one of {', '.join(CONSISTENCIES)}")
    return cast(Consistency, value)


__all__ = [
    "CONSISTENCIES",
    "INCLUDE",
    "K_MAX",
    "Columns",
    "as_ids",
    "as_payload",
    "check_consistency",
    "check_count",
    "check_effort",
    "check_include",
    "check_k",
    "check_keys",
    "check_timeout",
    "is_table",
    "one_query",
    "split_table",
    "table_columns",
]
