"""Payload columns to and from one dict per point."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.errors import InvalidArgumentError
from omendb_common.payload.columns import columns_from_mapping
from omendb_common.payload.names import Kind, split_name
from omendb_common.plain_arrow import arrow_of_numpy

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# Rows up to which one scalar at a time beats Arrow's take.
FEW_ROWS = 16


def columns_from_rows(rows: Sequence[Mapping[str, Any] | None]) -> pa.RecordBatch:
    """Encode one mapping (or None) per point; the columnar twin is ``columns_from_mapping``.

    Raises:
        InvalidArgumentError: as ``columns_from_mapping``, or a row that is no mapping.
    """
    for kind in set(map(type, rows)):
        if not issubclass(kind, (Mapping, type(None))):
            index = next(i for i, row in enumerate(rows) if type(row) is kind)
            raise InvalidArgumentError(
                f"row {index} is a {kind.__name__}", field="metadata", bound="a mapping or None for each point"
            )
    filled = [row or {} for row in rows]
    keys: dict[Any, Any] = {}
    for row in filled:
        keys.update(row)
    return columns_from_mapping({key: [row.get(key) for row in filled] for key in keys}, len(rows))


def rows_from_columns(
    columns: Mapping[str, Any] | pa.RecordBatch | pa.Table,
    rows: npt.NDArray[np.integer[Any]] | Sequence[int] | None = None,
    n: int | None = None,
) -> list[dict[str, Any]]:
    """Payload dicts of the points at ``rows`` (None: all), nested again; absent fields are left out.

    Times are aware datetimes in UTC. Where one path is both a value and a parent, the deeper one keeps its
    dotted key.

    Args:
        columns: payload columns by name; a mapping's columns may be Arrow arrays or chunked arrays.
        rows: row numbers, each below the columns' length.
        n: number of points, needed only when ``rows`` is None and there may be no column.
    """
    named = columns if isinstance(columns, Mapping) else dict(zip(columns.schema.names, columns.columns, strict=True))
    if rows is None:
        count = n if n is not None else max((len(array) for array in named.values()), default=0)
    else:
        count = len(rows)
    out: list[dict[str, Any]] = [{} for _ in range(count)]
    columns_by_path = [(*split_name(name), array) for name, array in named.items()]
    for path, kind, array in sorted(columns_by_path, key=_by_depth):
        put_column(out, path.split("."), values_of(array, kind, rows))
    return out


def _by_depth(column: tuple[str, Any, Any]) -> int:
    """Sort key of (path, ...): shallow first, for a value at "a" must be there before "a.b" tries to nest."""
    return column[0].count(".")


def put_value(target: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set ``value`` in ``target`` at the nested ``keys``; below a value, the rest of the path stays dotted."""
    for depth, key in enumerate(keys[:-1]):
        child = target.setdefault(key, {})
        if not isinstance(child, dict):
            target[".".join(keys[depth:])] = value
            return
        target = child
    target[keys[-1]] = value


def put_column(targets: Sequence[dict[str, Any]], keys: list[str], values: Sequence[Any]) -> None:
    """:func:`put_value` for one column: a value for each target, None where it has none."""
    if len(keys) > 1:
        for target, value in zip(targets, values, strict=True):
            if value is not None:
                put_value(target, keys, value)
        return
    key = keys[0]
    for target, value in zip(targets, values, strict=True):
        if value is not None:
            target[key] = value


def values_of(array: Any, kind: Kind, rows: npt.NDArray[np.integer[Any]] | Sequence[int] | None = None) -> list[Any]:
    """Python values of one column at ``rows`` (None: all); None where absent."""
    if kind == "t":
        # As microseconds: Arrow's own datetimes look their zone up for each value.
        return [_moment(value) for value in _plain(array.cast(pa.int64()) if rows is None else array, rows, _micros)]
    values = _plain(array, rows, _as_py)
    if kind in ("j", "lt"):
        return [None if value is None else _decoded(kind, value) for value in values]
    return values


def _plain(
    array: Any, rows: npt.NDArray[np.integer[Any]] | Sequence[int] | None, read: Callable[[Any], Any]
) -> list[Any]:
    if rows is None:
        values: list[Any] = array.to_pylist()
    elif len(rows) <= FEW_ROWS:
        values = [read(array[row]) for row in (rows.tolist() if isinstance(rows, np.ndarray) else rows)]
    else:
        taken = array.take(arrow_of_numpy(np.asarray(rows)))
        values = (taken.cast(pa.int64()) if read is _micros else taken).to_pylist()
    return values


def _as_py(scalar: Any) -> Any:
    return scalar.as_py()


def _micros(scalar: Any) -> Any:
    return scalar.value


def _moment(micros: int | None) -> dt.datetime | None:
    return None if micros is None else _EPOCH + dt.timedelta(microseconds=micros)


def scalar_value(kind: Kind, scalar: Any) -> Any:
    """The payload value in an Arrow scalar of a column of ``kind``; None where it is null."""
    if kind == "t":
        return _moment(scalar.value)
    value = scalar.as_py()
    return _decoded(kind, value) if value is not None and kind in ("j", "lt") else value


def _decoded(kind: Kind, value: Any) -> Any:
    """The payload value for what Arrow gives for a JSON text or a list of times."""
    if kind == "j":
        return json.loads(value)
    return [None if moment is None else moment.replace(tzinfo=dt.UTC) for moment in value]


__all__ = ["FEW_ROWS", "columns_from_rows", "put_column", "put_value", "rows_from_columns", "scalar_value", "values_of"]
