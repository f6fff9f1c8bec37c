"""Payload values one at a time, for columns that are mixed or nested.

The slow path of payload encoding: homogeneous columns never come here.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import uuid
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from omendb_common.errors import InvalidArgumentError
from omendb_common.payload.names import DEPTH_MAX, LIST_KINDS, TYPES, Kind, check_key, check_path, field_of
from omendb_common.plain_arrow import arrow_of_numpy, arrow_of_values

INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1
FLOAT_EXACT = 1 << 53
# What pandas puts for a missing value; told by name so that pandas need not be imported.
_MISSING = frozenset({"NAType", "NaTType"})

Part = tuple[str, Kind, Any]
"""Path, kind and Arrow array of one column."""


class Cells:
    """The values of one batch by (path, kind), each with its row; rows must be added in order."""

    __slots__ = ("_cells",)

    def __init__(self) -> None:
        self._cells: dict[tuple[str, Kind], tuple[list[int], list[Any]]] = {}

    def add(self, path: str, row: int, value: Any) -> None:
        """Add ``value`` of ``row``; objects are flattened, None is skipped."""
        if value is None or type(value).__name__ in _MISSING:
            return
        if isinstance(value, Mapping):
            self._add_object(path, row, value)
            return
        if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
            kind, cell = _list_cell(path, row, list(value))
        else:
            scalar = scalar_cell(path, row, value)
            if scalar is None:
                return
            kind, cell = scalar
        self._put(path, kind, row, cell)

    def _add_object(self, path: str, row: int, value: Mapping[Any, Any]) -> None:
        if not value:
            self._put(path, "j", row, "{}")
            return
        for key, child in value.items():
            self.add(check_path(f"{path}.{check_key(key, path)}"), row, child)

    def _put(self, path: str, kind: Kind, row: int, cell: Any) -> None:
        rows, cells = self._cells.setdefault((path, kind), ([], []))
        if rows and rows[-1] == row:
            raise InvalidArgumentError(
                f"row {row} gives the path twice, nested and dotted", field=field_of(path), bound="one value"
            )
        rows.append(row)
        cells.append(cell)

    def parts(self, n: int) -> list[Part]:
        """One array of ``n`` rows for each (path, kind)."""
        return [(path, kind, _spread(path, kind, *cells, n)) for (path, kind), cells in self._cells.items()]


def _spread(path: str, kind: Kind, rows: list[int], cells: list[Any], n: int) -> pa.Array:
    try:
        array = arrow_of_values(cells, TYPES[kind])
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"not UTF-8: {error}", field=field_of(path), bound="valid UTF-8 text") from None
    if len(rows) == n:
        return array
    index = np.zeros(n, np.int64)
    absent = np.ones(n, np.bool_)
    index[rows] = np.arange(len(rows))
    absent[rows] = False
    return array.take(arrow_of_numpy(index, absent))


def refuse(path: str, row: int, problem: str, bound: str, mend: str | None = None) -> NoReturn:
    """Raise InvalidArgumentError naming the field and the row."""
    raise InvalidArgumentError(f"row {row} {problem}", field=field_of(path), bound=bound, mend=mend)


def scalar_cell(path: str, row: int, value: Any) -> tuple[Kind, Any] | None:
    """Kind and Arrow-ready value of one scalar; None when it means absent."""
    if isinstance(value, (bool, np.bool_)):
        return "b", bool(value)
    if isinstance(value, (int, np.integer)):
        if not INT_MIN <= int(value) <= INT_MAX:
            refuse(path, row, f"is {int(value)}", "integers in -2**63..2**63-1", "store it as a string")
        return "i", int(value)
    if isinstance(value, (float, np.floating)):
        if not math.isfinite(value):
            refuse(path, row, f"is {float(value)}", "finite numbers", "use None for a missing value")
        return "f", float(value)
    if isinstance(value, str):
        return "s", str.__str__(value)
    if isinstance(value, dt.datetime):
        return "t", _utc(path, row, value)
    if isinstance(value, dt.date):
        return "t", dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)
    if isinstance(value, np.datetime64):
        return _numpy_time(path, row, value)
    if isinstance(value, uuid.UUID):
        return "s", str(value)
    refuse(
        path,
        row,
        f"has type {type(value).__name__}",
        "bool, int, float, str, datetime, list or dict",
        "convert it, for instance with float() or str()",
    )


def _utc(path: str, row: int, value: dt.datetime) -> dt.datetime:
    try:
        return value if value.tzinfo is None else value.astimezone(dt.UTC)
    except (OverflowError, ValueError):
        refuse(path, row, f"is {value}", "times in the years 1..9999")


def _numpy_time(path: str, row: int, value: np.datetime64) -> tuple[Kind, Any] | None:
    if np.isnat(value):
        return None
    moment = value.astype("M8[us]").item()
    if not isinstance(moment, dt.datetime):
        refuse(path, row, f"is {value}", "times in the years 1..9999")
    return "t", moment


def _list_cell(path: str, row: int, values: list[Any]) -> tuple[Kind, Any]:
    """A typed list when its elements are of one scalar kind (integers among floats become floats), else JSON."""
    kinds: set[Kind] = set()
    cells: list[Any] = []
    for value in values:
        if value is None or type(value).__name__ in _MISSING:
            cells.append(None)
            continue
        if isinstance(value, (Mapping, list, tuple, set, frozenset, np.ndarray)):
            return "j", _json_text(path, row, values)
        scalar = scalar_cell(path, row, value)
        cells.append(None if scalar is None else scalar[1])
        if scalar is not None:
            kinds.add(scalar[0])
    if kinds == {"i", "f"} and all(not isinstance(c, int) or abs(c) <= FLOAT_EXACT for c in cells):
        return "lf", [None if c is None else float(c) for c in cells]
    if len(kinds) == 1:
        return LIST_KINDS[kinds.pop()], cells
    return "j", _json_text(path, row, values)


def _json_text(path: str, row: int, value: Any) -> str:
    plain = _plain(path, row, value, path.count(".") + 1)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _plain(path: str, row: int, value: Any, depth: int) -> Any:
    """``value`` as JSON has it; times become ISO 8601 text."""
    if value is None:
        return None
    if isinstance(value, (Mapping, list, tuple, set, frozenset, np.ndarray)):
        if depth > DEPTH_MAX:
            refuse(path, row, f"is nested {depth} levels deep", f"at most {DEPTH_MAX} levels")
        if isinstance(value, Mapping):
            return {check_key(k, path): _plain(path, row, v, depth + 1) for k, v in value.items()}
        return [_plain(path, row, v, depth + 1) for v in value]
    scalar = scalar_cell(path, row, value)
    if scalar is None:
        return None
    kind, cell = scalar
    return _iso(cell) if kind == "t" else cell


def _iso(moment: dt.datetime) -> str:
    aware = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
    return aware.isoformat()


__all__ = ["FLOAT_EXACT", "INT_MAX", "INT_MIN", "Cells", "Part", "refuse", "scalar_cell"]
