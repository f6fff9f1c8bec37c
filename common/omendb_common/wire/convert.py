"""Values to messages and back: ids, vectors, payload columns, filters, what a search cost.

Whatever comes from a wire is checked here to the last byte, and refused with InvalidArgumentError.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.errors import InvalidArgumentError
from omendb_common.explanation import Explanation
from omendb_common.filters import Filter, parse_filter
from omendb_common.filters import to_json as filter_to_json
from omendb_common.ids import IdColumn
from omendb_common.plain_arrow import numpy_of_arrow
from omendb_common.schema import DIMENSION_MAX, ID_BYTES_MAX, VECTOR_DTYPES
from omendb_common.shard_calls import Work
from omendb_common.wire.arrow_ipc import batch_from_ipc, batch_to_ipc
from omendb_proto.v1 import common_pb2

FILTER_BYTES_MAX = 8 << 20
"""Text of the longest filter that is read: 65,536 values of a hundred bytes fit."""

# On the wire by these names; NumPy's text of them says the byte order.
_DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(name).newbyteorder("<") for name in VECTOR_DTYPES}


def ids_to_proto(ids: IdColumn) -> common_pb2.Ids:
    """The message of a column of ids."""
    if ids.strs is None:
        return common_pb2.Ids(packed=pack_ints(ids))
    return common_pb2.Ids(arrow=memoryview(pack_ids(ids)).tobytes())


def ids_from_proto(message: common_pb2.Ids, *, field: str = "ids", count_max: int | None = None) -> IdColumn:
    """The column of ids that a message holds; an empty message is an empty column.

    Raises:
        InvalidArgumentError: a length that is no multiple of 8, a malformed Arrow stream, ids of 0 or more than
            512 bytes, nulls, or more than ``count_max`` ids.
    """
    form = message.WhichOneof("form")
    if form is None:
        return IdColumn.empty()
    if form == "packed":
        ids = unpack_ints(message.packed, field)
    elif form == "arrow":
        ids = unpack_ids(message.arrow, field)
    else:
        ids = IdColumn.of(list(message.strings.values))
    if count_max is not None and len(ids) > count_max:
        raise InvalidArgumentError(f"{len(ids)} ids", field=field, bound=f"at most {count_max}")
    return ids


def pack_ints(ids: IdColumn) -> bytes:
    """A column of integers as packed little-endian u64."""
    return b"" if ids.ints is None else ids.ints.astype("<u8", copy=False).tobytes()


def unpack_ints(data: bytes | memoryview, field: str = "ids") -> IdColumn:
    """What :func:`pack_ints` packed; a view of ``data``."""
    if len(data) % 8:
        raise InvalidArgumentError(f"{len(data)} bytes", field=field, bound="a multiple of 8")
    return IdColumn(np.frombuffer(data, "<u8"), None)


def pack_ids(ids: IdColumn) -> pa.Buffer:
    """Any column of ids as an Arrow IPC stream."""
    names, arrays = zip(*ids.to_arrow(), strict=True)
    return batch_to_ipc(pa.record_batch(list(arrays), names=list(names)))


def unpack_ids(data: bytes | memoryview, field: str = "ids") -> IdColumn:
    """What :func:`pack_ids` packed; a view of ``data``."""
    batch = batch_from_ipc(data, field)
    types = {name: str(batch.column(name).type) for name in batch.schema.names}
    allowed = {"id_int": "uint64", "id_str": "string"}
    if not types or types.items() - allowed.items() or len(types) != batch.num_columns:
        raise InvalidArgumentError(f"columns {types}", field=field, bound="id_int: uint64 and/or id_str: string")
    ids = IdColumn.from_arrow(batch)
    _check_id_columns(ids, batch, field)
    return ids


def _check_id_columns(ids: IdColumn, batch: pa.RecordBatch, field: str) -> None:
    if "id_int" in batch.schema.names and batch.column("id_int").null_count:
        raise InvalidArgumentError("integer ids are null", field=field, bound="no nulls")
    if ids.strs is None:
        return
    if ids.ints is None and ids.strs.null_count:
        raise InvalidArgumentError(f"{ids.strs.null_count} ids are null", field=field, bound="no nulls")
    check_strings(ids.strs, field)


def check_strings(strs: pa.Array, field: str = "ids") -> None:
    """Refuse a column of string ids unless each that is not null has 1..512 bytes of UTF-8."""
    try:
        strs.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise InvalidArgumentError(f"malformed strings: {str(error)[:200]}", field=field) from None
    if not len(strs):
        return
    offsets = np.frombuffer(strs.buffers()[1], np.int32, strs.offset + len(strs) + 1)[strs.offset :]
    lengths = np.diff(offsets)
    if strs.null_count:
        lengths = lengths[np.asarray(numpy_of_arrow(strs.is_valid()), np.bool_)]
    if len(lengths) and not 1 <= int(lengths.min()) <= int(lengths.max()) <= ID_BYTES_MAX:
        raise InvalidArgumentError(
            f"ids of {int(lengths.min())} to {int(lengths.max())} bytes", field=field, bound=f"1..{ID_BYTES_MAX} bytes"
        )


def vectors_to_proto(array: npt.NDArray[Any], field: str = "") -> common_pb2.Vectors:
    """The message of the (n, dimension) rows of a vector field; InvalidArgumentError for another shape or dtype."""
    name = array.dtype.name
    if name not in _DTYPES or array.ndim != 2:
        raise InvalidArgumentError(
            f"{name} of {array.ndim} dimensions", field=field or "vectors", bound=f"rows of {', '.join(_DTYPES)}"
        )
    data = np.ascontiguousarray(array, _DTYPES[name]).tobytes()
    return common_pb2.Vectors(field=field, dtype=name, dimension=array.shape[1], data=data)


def vectors_from_proto(message: common_pb2.Vectors, *, rows: int | None = None) -> npt.NDArray[Any]:
    """The (n, dimension) array of a message, a read-only view of its bytes.

    Raises:
        InvalidArgumentError: an unknown dtype, a dimension outside 1..65,536, bytes that are no whole number of rows,
            or another number of rows than ``rows``. Values are not looked at.
    """
    where = message.field or "vectors"
    dtype = _DTYPES.get(message.dtype)
    if dtype is None:
        raise InvalidArgumentError(f"dtype {message.dtype!r}", field=where, bound=f"one of {', '.join(_DTYPES)}")
    dimension = message.dimension
    if not 1 <= dimension <= DIMENSION_MAX:
        raise InvalidArgumentError(f"dimension {dimension}", field=where, bound=f"1..{DIMENSION_MAX}")
    data = message.data
    row_bytes = dimension * dtype.itemsize
    if len(data) % row_bytes:
        raise InvalidArgumentError(
            f"{len(data)} bytes", field=where, bound=f"a multiple of {row_bytes}, the bytes of one vector"
        )
    array = np.frombuffer(data, dtype).reshape(-1, dimension)
    if rows is not None and len(array) != rows:
        raise InvalidArgumentError(f"{len(array)} vectors", field=where, bound=f"{rows}")
    return array


def columns_to_proto(payload: pa.RecordBatch | None) -> common_pb2.Columns:
    """The message of payload columns; None and a batch without columns are an empty message."""
    if payload is None or not payload.num_columns:
        return common_pb2.Columns()
    return common_pb2.Columns(arrow_ipc=memoryview(batch_to_ipc(payload)).tobytes())


def columns_from_proto(
    message: common_pb2.Columns, *, rows: int | None = None, field: str = "metadata"
) -> pa.RecordBatch | None:
    """The record batch of a message, None of an empty one; InvalidArgumentError as ``batch_from_ipc``.

    The types of the columns are not judged: that they are payload columns is for the caller to check.
    """
    data = message.arrow_ipc
    return batch_from_ipc(data, field, rows=rows) if data else None


# A filter's text is parsed once; longer texts are seldom the same twice and would fill the memory.
_KNOWN_TEXT_MAX = 4096


def filter_from_known_text(text: str) -> Filter | None:
    """The same as :func:`filter_from_text`, for texts that come again and again."""
    return _known_filter(text) if len(text) <= _KNOWN_TEXT_MAX else filter_from_text(text)


@lru_cache(1024)
def _known_filter(text: str) -> Filter | None:
    return filter_from_text(text)


def explanation_to_text(explanation: Explanation | None) -> str:
    """The JSON text of an explanation; empty for none."""
    return "" if explanation is None else json.dumps(explanation.to_json())


def explanation_from_text(text: str) -> Explanation | None:
    """The explanation of a JSON text; None for an empty one. InvalidArgumentError when it is something else."""
    try:
        return Explanation.from_json(json.loads(text)) if text else None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise InvalidArgumentError(f"not an explanation: {error!r}", field="explanation") from None


def filter_to_text(condition: Filter | None) -> str:
    """The JSON text of a filter; empty for none."""
    if condition is None:
        return ""
    return json.dumps(filter_to_json(condition), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def filter_from_text(text: str) -> Filter | None:
    """The filter of a JSON text; None for an empty one.

    Raises:
        InvalidArgumentError: no JSON, an unknown operator, a broken limit.
    """
    if not text:
        return None
    if len(text) > FILTER_BYTES_MAX:
        raise InvalidArgumentError(f"{len(text)} characters", field="filters", bound=f"at most {FILTER_BYTES_MAX}")
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"no JSON: {str(error)[:200]}", field="filters") from None
    if not isinstance(value, dict):
        raise InvalidArgumentError("no JSON object", field="filters", bound="an object like {'field': value}")
    return parse_filter(value)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def performance_to_proto(work: Work, latency_ms: float) -> common_pb2.Performance:
    """The message of what a search cost."""
    return common_pb2.Performance(
        latency_ms=latency_ms,
        vectors_scanned=work.vectors_scanned,
        segments_searched=work.segments_searched,
        segments_skipped=work.segments_skipped,
        cache_hit_rate=work.cache_hit_rate,
        cost_estimate=work.cost_estimate,
    )


def performance_from_proto(message: common_pb2.Performance) -> tuple[Work, float]:
    """What a search cost, and its latency in milliseconds."""
    work = Work(
        vectors_scanned=message.vectors_scanned,
        segments_searched=message.segments_searched,
        segments_skipped=message.segments_skipped,
        cache_hit_rate=message.cache_hit_rate,
        cost_estimate=message.cost_estimate,
    )
    return work, message.latency_ms


__all__ = [
    "FILTER_BYTES_MAX",
    "check_strings",
    "columns_from_proto",
    "columns_to_proto",
    "explanation_from_text",
    "explanation_to_text",
    "filter_from_known_text",
    "filter_from_text",
    "filter_to_text",
    "ids_from_proto",
    "ids_to_proto",
    "pack_ids",
    "pack_ints",
    "performance_from_proto",
    "performance_to_proto",
    "unpack_ids",
    "unpack_ints",
    "vectors_from_proto",
    "vectors_to_proto",
]
