"""Metadata given as columns, encoded natively where a column is homogeneous."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omendb_common.errors import InvalidArgumentError
from omendb_common.payload.assemble import assemble
from omendb_common.payload.names import LIST_KINDS, TIME, TYPES, check_key, check_path, field_of
from omendb_common.payload.values import Cells, Part, refuse
from omendb_common.plain_arrow import (
    arrow_of_numpy,
    arrow_of_strings,
    arrow_of_texts,
    arrow_of_values,
    filled,
    numpy_of_arrow,
)

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_TIME_MIN = (dt.datetime(1, 1, 1, tzinfo=dt.UTC) - _EPOCH) // _MICROSECOND
_TIME_MAX = (dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC) - _EPOCH) // _MICROSECOND
_INT64_MAX = (1 << 63) - 1
# Extension types whose Python values mean what the column means; of others only the storage is known.
_EXTENSIONS = ("arrow.uuid", "arrow.bool8")
# Characters per NumPy string above which padding makes the columnar conversion the slower one.
_WIDE = 64
_ARROW_TYPES: dict[type, Any] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    dt.datetime: TIME,
    dt.date: pa.date32(),
}


def columns_from_mapping(metadata: Any, n: int) -> pa.RecordBatch:
    """Encode columns of metadata as one record batch of typed payload columns.

    Args:
        metadata: ``{field: column}``, or an Arrow table or record batch, or a pandas or polars frame. A column
            holds ``n`` values in a list, a NumPy array, an Arrow array or a pandas or polars series. Structs
            and dicts are flattened into dotted paths; a dot in a field name means the same as nesting.
        n: number of points.

    Missing values: ``None`` and Arrow nulls mean absent. In pandas input NaN, NaT and NA mean absent too. NaN
    and infinities anywhere else are refused. Times are kept to the microsecond, in UTC; a time without a zone
    is taken as UTC.

    The result may view the caller's memory: encode it before returning to the caller.

    Raises:
        InvalidArgumentError: a column of another length, a type that no payload can hold, an integer outside
            int64, a number that is not finite, or a broken limit; the message names the column and the row.
    """
    parts: list[Part] = []
    for key, column in _named_columns(metadata):
        path = check_path(check_key(key, ""))
        _append(parts, path, column, n)
    return assemble(parts, n)


def _named_columns(metadata: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(metadata, (pa.Table, pa.RecordBatch)):
        return zip(metadata.schema.names, metadata.columns, strict=True)
    if hasattr(metadata, "items"):
        items: Iterable[tuple[Any, Any]] = metadata.items()
        return items
    if hasattr(metadata, "get_columns"):
        return [(series.name, series) for series in metadata.get_columns()]
    raise InvalidArgumentError(
        f"got {type(metadata).__name__}", field="metadata", bound="a dict of columns, an Arrow table or a data frame"
    )


def _append(parts: list[Part], path: str, column: Any, n: int) -> None:
    if isinstance(column, np.ndarray):
        _check_length(path, column, n)
        _append_numpy(parts, path, column)
    elif isinstance(column, list):
        _check_length(path, column, n)
        _append_list(parts, path, column)
    elif isinstance(column, (pa.Array, pa.ChunkedArray)):
        _check_length(path, column, n)
        _append_arrow(parts, path, column)
    elif hasattr(column, "to_arrow") and hasattr(column, "len"):
        _check_length(path, column, n)
        _append_arrow(parts, path, column.to_arrow())
    elif hasattr(column, "to_numpy") and hasattr(column, "isna"):
        _check_length(path, column, n)
        _append_pandas(parts, path, column)
    elif isinstance(column, Iterable) and not isinstance(column, (str, bytes, Mapping)):
        values = list(column)
        _check_length(path, values, n)
        _append_list(parts, path, values)
    else:
        raise InvalidArgumentError(
            f"got a {type(column).__name__}", field=field_of(path), bound=f"a sequence of {n} values"
        )


def _check_length(path: str, column: Any, n: int) -> None:
    if isinstance(column, np.ndarray) and column.ndim == 0:
        raise InvalidArgumentError("got a scalar", field=field_of(path), bound=f"a sequence of {n} values")
    if len(column) != n:
        raise InvalidArgumentError(
            f"the column has {len(column)} values", field=field_of(path), bound=f"{n}, one for each vector"
        )


def _append_numpy(parts: list[Part], path: str, column: npt.NDArray[Any]) -> None:
    if column.ndim != 1:
        _append_values(parts, path, list(column))
    elif column.dtype.kind in "iub":
        _append_arrow(parts, path, arrow_of_numpy(column))
    elif column.dtype.kind == "f":
        # float64 from here: NumPy's long double and float16 have no Arrow or no kernel.
        _append_arrow(parts, path, arrow_of_numpy(column.astype(np.float64, copy=False)))
    elif column.dtype.kind == "M":
        _append_times(parts, path, column)
    elif column.dtype.kind == "U":
        parts.append((path, "s", _utf8(path, column)))
    else:
        # tolist() would turn a nanosecond datetime into an int, but object arrays hold what was put in.
        _append_list(parts, path, column.tolist())


def _append_times(parts: list[Part], path: str, column: npt.NDArray[Any]) -> None:
    micros = column.astype("M8[us]")
    # Casting to a finer unit wraps around without a word: compare years, which cannot.
    if not np.array_equal(micros.astype("M8[Y]"), column.astype("M8[Y]"), equal_nan=True):
        raise _bad_time(path)
    _append_arrow(parts, path, arrow_of_numpy(micros, np.isnat(micros)))


def _utf8(path: str, column: npt.NDArray[np.str_]) -> pa.Array:
    """A NumPy string array as Arrow text; ASCII without touching one string at a time."""
    width, n = column.dtype.itemsize // 4, len(column)
    if n == 0 or width == 0:
        return arrow_of_texts([""] * n)
    if not column.dtype.isnative or width > _WIDE:
        return _text(path, column.tolist())
    codes = np.ascontiguousarray(column).view(np.uint32).reshape(n, width)
    lengths = np.char.str_len(column)
    # What is not ASCII has more bytes than characters, and a NUL inside a string would be lost below.
    if codes.max() > 127 or np.count_nonzero(codes) != lengths.sum():
        return _text(path, column.tolist())
    offsets = np.zeros(n + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    octets = codes.astype(np.uint8)
    data = octets[octets != 0]
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(data))


def _text(path: str, values: list[Any]) -> pa.Array:
    try:
        return arrow_of_texts(values)
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"not UTF-8: {error}", field=field_of(path), bound="valid UTF-8 text") from None


def _append_pandas(parts: list[Part], path: str, column: Any) -> None:
    if column.dtype != object:
        try:
            array = pa.array(column, from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError):
            # A type of pandas' own that Arrow has not: its values may still be plain.
            array = None
        if array is not None:
            _append_arrow(parts, path, array)
            return
    missing = column.isna().to_numpy()
    values = [None if gone else value for value, gone in zip(column.tolist(), missing, strict=True)]
    _append_list(parts, path, values)


def _append_list(parts: list[Part], path: str, values: list[Any]) -> None:
    """Let Arrow convert a list of values of one type; go value by value through any other.

    The type is never left to Arrow to infer: it turns integers among floats into floats and among datetimes
    into datetimes, cuts datetimes among dates down to dates, and follows nesting of any depth.
    """
    if values and type(values[0]) is str:
        # Joining tells by itself whether all are strings, in half the time that asking each takes.
        try:
            parts.append((path, "s", arrow_of_strings(values)))
            return
        except (TypeError, UnicodeEncodeError, pa.ArrowException):
            pass
    only: type = type(None)
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {list}:
        elements = set(map(type, chain.from_iterable(v for v in values if v is not None))) - {type(None)}
        known = _ARROW_TYPES.get(elements.pop()) if len(elements) == 1 else None
        target = None if known is None else pa.list_(known)
    else:
        only = kinds.pop() if len(kinds) == 1 else only
        if issubclass(only, np.generic) and None not in values:
            _append_numpy(parts, path, np.array(values))
            return
        target = _ARROW_TYPES.get(only)
    if target is not None:
        try:
            _append_arrow(parts, path, arrow_of_values(values, target))
            return
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            # Some value does not fit; value by value, the error names its row.
            pass
    _append_values(parts, path, values)


def _append_values(parts: list[Part], path: str, values: list[Any]) -> None:
    cells = Cells()
    for row, value in enumerate(values):
        cells.add(path, row, value)
    parts.extend(cells.parts(len(values)))


def _trusted(kind: pa.DataType) -> bool:
    """Whether a column of this Arrow type needs no look at single values."""
    types = pa.types
    if types.is_dictionary(kind):
        return _trusted(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = kind.value_type
        return not (types.is_nested(inner) or types.is_null(inner)) and _trusted(inner)
    return bool(
        types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_date(kind)
        or types.is_timestamp(kind)
    )


def _append_arrow(parts: list[Part], path: str, column: Any) -> None:
    """Add an Arrow column, cast to the one type of its kind."""
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else _one_chunk(path, column)
    kind = column.type
    types = pa.types
    if isinstance(column, pa.ExtensionArray):
        if kind.extension_name not in _EXTENSIONS:
            _refuse_type(path, kind)
        _append_values(parts, path, column.to_pylist())
    elif types.is_integer(kind):
        parts.append((path, "i", _integers(path, column)))
    elif types.is_floating(kind):
        parts.append((path, "f", _floats(path, column)))
    elif types.is_string(kind):
        parts.append((path, "s", column))
    elif types.is_boolean(kind):
        parts.append((path, "b", column))
    elif types.is_timestamp(kind) or types.is_date(kind):
        parts.append((path, "t", _times(path, column)))
    elif types.is_dictionary(kind):
        _append_arrow(parts, path, column.dictionary_decode())
    elif types.is_large_string(kind) or types.is_string_view(kind):
        parts.append((path, "s", _narrow_text(path, column)))
    elif types.is_struct(kind):
        for name, child in zip((f.name for f in kind), column.flatten(), strict=True):
            _append_arrow(parts, check_path(f"{path}.{name}"), child)
    elif _is_list(kind):
        _append_lists(parts, path, column)
    elif types.is_list_view(kind) or types.is_large_list_view(kind):
        # Value by value: the cast of pyarrow 26 from a view with nulls makes an invalid array.
        _append_values(parts, path, column.to_pylist())
    elif not types.is_null(kind):
        _refuse_type(path, kind)


def _one_chunk(path: str, column: pa.ChunkedArray) -> pa.Array:
    try:
        return column.combine_chunks()
    except pa.ArrowInvalid:
        raise _too_much_text(path) from None


def _narrow_text(path: str, column: pa.Array) -> pa.Array:
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        raise _too_much_text(path) from None


def _too_much_text(path: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        "the column has too much text", field=field_of(path), bound="less than 2 GiB", mend="send smaller batches"
    )


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _refuse_type(path: str, kind: pa.DataType) -> None:
    mend = "cast it to double or string" if pa.types.is_decimal(kind) else "cast it to one of these"
    raise InvalidArgumentError(
        f"Arrow type {kind}",
        field=field_of(path),
        bound="bool, integers, floats, strings, times, and lists and structs of these",
        mend=mend,
    )


def _append_lists(parts: list[Part], path: str, column: pa.Array) -> None:
    if pa.types.is_nested(column.type.value_type) or not _trusted(column.type.value_type):
        _append_values(parts, path, column.to_pylist())
        return
    if not pa.types.is_list(column.type):
        column = column.cast(pa.list_(column.type.value_type))
    # Flattened, the elements are one more column; its checks and casts are those of any column.
    start, stop = column.offsets[0].as_py(), column.offsets[-1].as_py()
    inner: list[Part] = []
    try:
        _append_arrow(inner, path, column.values.slice(start, stop - start))
    except InvalidArgumentError:
        # That one names the row of an element; this one names the row of its list.
        _append_values(parts, path, column.to_pylist())
        return
    kind = LIST_KINDS[inner[0][1]]
    mask = column.is_null() if column.null_count else None
    offsets = column.offsets
    if offsets.type == pa.int32():
        offsets = arrow_of_numpy(numpy_of_arrow(offsets) - np.int32(start))
    else:
        offsets = pc.subtract(offsets, start)
    parts.append((path, kind, pa.ListArray.from_arrays(offsets, inner[0][2], type=TYPES[kind], mask=mask)))


def _integers(path: str, column: pa.Array) -> pa.Array:
    if column.type == pa.int64():
        return column
    if pa.types.is_uint64(column.type):
        over = pc.greater(column, arrow_of_numpy(np.array([_INT64_MAX], np.uint64))[0])
        if over.true_count:
            row = over.index(True).as_py()
            refuse(path, row, f"is {column[row].as_py()}", "integers in -2**63..2**63-1", "store it as a string")
    return column.cast(pa.int64())


def _floats(path: str, column: pa.Array) -> pa.Array:
    wide = column if column.type == pa.float64() else column.cast(pa.float64())
    good = numpy_of_arrow(filled(pc.is_finite(wide), True)) if wide.null_count else np.isfinite(numpy_of_arrow(wide))
    if not good.all():
        row = int(np.argmin(good))
        refuse(path, row, f"is {wide[row].as_py()}", "finite numbers", "use None for a missing value")
    return wide


def _times(path: str, column: pa.Array) -> pa.Array:
    if pa.types.is_date(column.type):
        # By way of a unit that holds every date: the cast straight to microseconds may wrap around.
        column = column.cast(pa.timestamp("s" if pa.types.is_date32(column.type) else "ms"))
    try:
        # Nanoseconds are cut to microseconds; seconds and milliseconds must not overflow.
        times = column.cast(TIME, safe=column.type.unit != "ns")
    except pa.ArrowInvalid:
        raise _bad_time(path) from None
    extent = pc.min_max(times.cast(pa.int64()))
    low, high = extent["min"].as_py(), extent["max"].as_py()
    if low is not None and (low < _TIME_MIN or high > _TIME_MAX):
        raise _bad_time(path)
    return times


def _bad_time(path: str) -> InvalidArgumentError:
    return InvalidArgumentError("a time is out of range", field=field_of(path), bound="times in the years 1..9999")


__all__ = ["columns_from_mapping"]
