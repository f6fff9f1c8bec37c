"""Arrow IPC streams out of hostile hands: one record batch, checked to the last value before anybody reads it.

Streams and types of which a few bytes may stand for gigabytes are refused: compression, dictionaries, run ends,
views that may overlap, lists of nothing.
"""

from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa

from omendb_common.errors import InvalidArgumentError
from omendb_common.records import payload_to_ipc

COLUMNS_MAX = 4096

# Arrow's Message and RecordBatch are flatbuffers tables; these are their fields' places.
_MESSAGE_HEADER = 2
_BATCH_COMPRESSION = 3


def batch_to_ipc(batch: pa.RecordBatch) -> pa.Buffer:
    """One record batch as an Arrow IPC stream."""
    return payload_to_ipc(batch)


def batch_from_ipc(data: Any, field: str, *, rows: int | None = None) -> pa.RecordBatch:
    """Read the one record batch of a stream; its columns are views of ``data``.

    Args:
        data: bytes, or a view that nobody changes as long as the batch is used.
        field: the name of the argument, for the error.
        rows: how many rows it must have; None allows any number.

    Raises:
        InvalidArgumentError: not a stream of exactly one record batch, compressed, of a refused type, more than
            COLUMNS_MAX columns, two of one name, another number of rows, or values that break their type's rules
            (offsets that run backwards, text that is not UTF-8).
    """
    buffer = pa.py_buffer(data)
    try:
        _check_messages(buffer, field)
        batch = pa.ipc.open_stream(buffer).read_next_batch()
        names = batch.schema.names
        batch.validate(full=True)
    except (pa.ArrowException, OSError, EOFError, StopIteration, ValueError, TypeError, struct.error) as error:
        raise InvalidArgumentError(f"no Arrow IPC stream: {_short(error)}", field=field) from None
    if batch.num_columns > COLUMNS_MAX:
        raise InvalidArgumentError(f"{batch.num_columns} columns", field=field, bound=f"at most {COLUMNS_MAX}")
    if len(set(names)) < len(names):
        raise InvalidArgumentError("two columns have one name", field=field)
    # The least that a value takes is a bit.
    if batch.num_rows > 8 * buffer.size or not all(_is_plain(column.type) for column in batch.schema):
        raise InvalidArgumentError(
            f"{batch.num_rows} rows of {_short(ValueError(str(batch.schema)))}",
            field=field,
            bound="columns of booleans, numbers, strings, times, lists and structs of these",
        )
    if rows is not None and batch.num_columns and batch.num_rows != rows:
        raise InvalidArgumentError(f"{batch.num_rows} rows", field=field, bound=f"{rows}")
    return batch


def _is_plain(kind: pa.DataType, top: bool = True) -> bool:
    """Whether the values of a type take memory in proportion to the bytes that they came in."""
    types = pa.types
    if types.is_null(kind):
        return top
    if types.is_fixed_size_list(kind):
        return bool(kind.list_size > 0) and _is_plain(kind.value_type, False)
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_plain(kind.value_type, False)
    if types.is_struct(kind):
        return all(_is_plain(child.type, False) for child in kind)
    return bool(
        types.is_primitive(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_decimal(kind)
    )


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _check_messages(buffer: pa.Buffer, field: str) -> None:
    reader = pa.BufferReader(buffer)
    kinds: list[str] = []
    while len(kinds) < 3:
        try:
            message = pa.ipc.read_message(reader)
        except EOFError:
            break
        kinds.append(message.type)
        if message.type == "record batch" and _is_compressed(memoryview(message.metadata)):
            raise InvalidArgumentError("the stream is compressed", field=field, mend="send it uncompressed")
    if kinds != ["schema", "record batch"]:
        raise InvalidArgumentError(
            f"the stream holds {', '.join(kinds) or 'nothing'}",
            field=field,
            bound="a schema and one record batch, without dictionaries",
        )


def _is_compressed(metadata: memoryview) -> bool:
    root = struct.unpack_from("<I", metadata, 0)[0]
    header = _table_field(metadata, root, _MESSAGE_HEADER)
    if header is None:
        raise ValueError("a message without a header")
    batch = header + struct.unpack_from("<I", metadata, header)[0]
    return _table_field(metadata, batch, _BATCH_COMPRESSION) is not None


def _table_field(data: memoryview, table: int, index: int) -> int | None:
    """Where a field of a flatbuffers table lies; None when it has its default."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0:
        raise ValueError("a table that lies outside")
    entry = 4 + 2 * index
    if entry + 2 > struct.unpack_from("<H", data, vtable)[0]:
        return None
    offset = struct.unpack_from("<H", data, vtable + entry)[0]
    return table + offset if offset else None


__all__ = ["COLUMNS_MAX", "batch_from_ipc", "batch_to_ipc"]
