"""Columns, arrays, ids, payload and write batches on their way into a frame and out of it.

A :class:`Packer` puts few bytes into the message and many into attachments, which are not copied. A :class:`Unpacker`
gives views of what came, and refuses with InvalidArgumentError what is not as it should be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.checksum import Buffer
from omendb_common.errors import CorruptionError, InvalidArgumentError
from omendb_common.ids import IdColumn
from omendb_common.records import WriteBatch, body_bytes, decode_batch, encode_batch
from omendb_common.schema import VECTOR_DTYPES
from omendb_common.wire.arrow_ipc import batch_from_ipc, batch_to_ipc
from omendb_common.wire.convert import check_strings, pack_ids, unpack_ids, unpack_ints
from omendb_common.wire.frames import Attachment
from omendb_proto.v1.datanode_pb2 import Array, Blob, IdBlob, NamedArray

INLINE_BYTES_MAX = 4096
"""Up to this much lies in the message: copying it costs less than another attachment."""
DIMENSIONS_MAX = 4

U64 = np.dtype("<u8")
I64 = np.dtype("<i8")
U8 = np.dtype("|u1")
U32 = np.dtype("<u4")
F32 = np.dtype("<f4")
BOOL = np.dtype("|b1")
_ARRAY_DTYPES = {np.dtype(name).newbyteorder("<").str: np.dtype(name) for name in (*VECTOR_DTYPES, "float64")}


class Packer:
    """Collects the attachments of one message."""

    __slots__ = ("attachments",)

    def __init__(self) -> None:
        self.attachments: list[Attachment] = []

    def _put(self, out: Blob, data: Attachment, size: int) -> None:
        if size <= INLINE_BYTES_MAX:
            # Assigning it sets the field, so that an empty blob differs from none.
            out.inline = b"".join(data) if isinstance(data, (list, tuple)) else memoryview(cast(bytes, data)).tobytes()  # type: ignore[arg-type]  # NumPy's arrays are buffers
        else:
            self.attachments.append(data)
            out.attachment = len(self.attachments)

    def column(self, out: Blob, column: npt.NDArray[Any], dtype: np.dtype[Any]) -> None:
        """A column of the field's element type; an empty one is left out."""
        if column.size:
            data = np.ascontiguousarray(column, dtype)
            self._put(out, data, data.nbytes)

    def array(self, out: Array, array: npt.NDArray[Any]) -> None:
        """An array with its type and shape."""
        data = np.ascontiguousarray(array)
        if data.dtype.byteorder == ">":
            data = data.astype(data.dtype.newbyteorder("<"))
        out.dtype = data.dtype.str
        out.shape.extend(array.shape)
        self._put(out.data, data.reshape(-1), data.nbytes)

    def arrays(self, out: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Arrays by their names, into a repeated NamedArray."""
        for name, array in arrays.items():
            named: NamedArray = out.add()
            named.name = name
            self.array(named.array, array)

    def ids(self, out: IdBlob, ids: IdColumn) -> None:
        """A column of ids."""
        if ids.strs is not None:
            out.arrow = True
            data = pack_ids(ids)
            self._put(out.data, memoryview(data), data.size)
        elif ids.ints is not None:
            self.column(out.data, ids.ints, U64)

    def payload(self, out: Blob, payload: pa.RecordBatch) -> None:
        """Payload columns; those of no columns are an empty blob."""
        if payload.num_columns:
            data = batch_to_ipc(payload)
            self._put(out, memoryview(data), data.size)
        else:
            out.inline = b""

    def batch(self, out: Blob, batch: WriteBatch, body: Sequence[Any] | None = None) -> None:
        """A write batch; ``body`` is its encoding, when there is one already."""
        parts: list[Buffer] = encode_batch(batch) if body is None else list(body)
        self._put(out, parts, body_bytes(parts))


class Unpacker:
    """Reads blobs of one message that came with attachments."""

    __slots__ = ("_attachments",)

    def __init__(self, attachments: Sequence[memoryview]) -> None:
        self._attachments = attachments

    def _get(self, blob: Blob, field: str) -> bytes | memoryview:
        number = blob.attachment
        if not number:
            return blob.inline
        if number > len(self._attachments):
            raise InvalidArgumentError(f"no attachment {number}", field=field, bound=f"1..{len(self._attachments)}")
        return self._attachments[number - 1]

    def column(self, blob: Blob, dtype: np.dtype[Any], field: str, rows: int | None = None) -> npt.NDArray[Any]:
        """A column of ``dtype``; of exactly ``rows`` elements, unless None."""
        data = self._get(blob, field)
        if len(data) % dtype.itemsize:
            raise InvalidArgumentError(f"{len(data)} bytes", field=field, bound=f"a multiple of {dtype.itemsize}")
        column = np.frombuffer(data, dtype)
        if rows is not None and len(column) != rows:
            raise InvalidArgumentError(f"{len(column)} elements", field=field, bound=f"{rows}")
        return column

    def array(self, array: Array, field: str, *, dimensions: int) -> npt.NDArray[Any]:
        """An array of numbers of that many dimensions."""
        dtype = _ARRAY_DTYPES.get(array.dtype)
        if dtype is None:
            raise InvalidArgumentError(f"dtype {array.dtype!r}", field=field, bound="a vector's element type")
        shape = tuple(array.shape)
        if len(shape) != dimensions:
            raise InvalidArgumentError(f"{len(shape)} dimensions", field=field, bound=f"{dimensions}")
        data = self._get(array.data, field)
        # Python's integers do not overflow; the sizes are bounded by the bytes that are really there.
        if math.prod(shape) * dtype.itemsize != len(data) or max(shape) > (1 << 32):
            raise InvalidArgumentError(f"{len(data)} bytes for {shape}", field=field, bound="as many as the shape says")
        return np.frombuffer(data, dtype).reshape(shape)

    def arrays(self, named: Iterable[NamedArray], rows: int, field: str) -> dict[str, npt.NDArray[Any]]:
        """Arrays by their names, each with that many rows of two dimensions."""
        arrays = {item.name: self.array(item.array, field, dimensions=2) for item in named}
        for name, array in arrays.items():
            if len(array) != rows:
                raise InvalidArgumentError(f"{name!r} has {len(array)} rows", field=field, bound=f"{rows}")
        return arrays

    def ids(self, blob: IdBlob, field: str = "ids", rows: int | None = None) -> IdColumn:
        """A column of ids; of exactly ``rows``, unless None."""
        data = self._get(blob.data, field)
        ids = unpack_ids(data, field) if blob.arrow else unpack_ints(data, field)
        if rows is not None and len(ids) != rows:
            raise InvalidArgumentError(f"{len(ids)} ids", field=field, bound=f"{rows}")
        return ids

    def payload(self, blob: Blob, rows: int) -> pa.RecordBatch:
        """Payload columns of that many rows."""
        data = self._get(blob, "payload")
        return batch_from_ipc(data, "payload", rows=rows) if len(data) else pa.record_batch([], names=[])

    def batch(self, blob: Blob) -> tuple[WriteBatch, memoryview]:
        """A write batch, checked as far as memory safety needs, and its encoding."""
        body = memoryview(self._get(blob, "batch"))
        try:
            # A buffer keeps ids and payload as they are: as views they would keep the whole frame, vectors and all.
            batch = decode_batch(body, own=True)
        except CorruptionError as error:
            raise InvalidArgumentError(error.message, field="batch") from None
        except (OSError, EOFError, StopIteration, RecursionError, OverflowError, IndexError, AttributeError) as error:
            raise InvalidArgumentError(f"malformed: {str(error)[:200]}", field="batch") from None
        check_batch(batch)
        return batch, body


def check_batch(batch: WriteBatch) -> None:
    """Refuse a batch whose columns are not what they say: a forged one must not be read past its end.

    Raises:
        InvalidArgumentError: strings or payload that break the rules of their type, arrays of another type or shape.
    """
    rows = batch.rows
    if batch.ids.strs is not None:
        check_strings(batch.ids.strs)
    for name, array in batch.vectors.items():
        if array.ndim != 2 or array.dtype.name not in VECTOR_DTYPES:
            raise InvalidArgumentError(
                f"{array.dtype} of {array.ndim} dimensions", field=name or "vectors", bound="rows of vectors"
            )
    if batch.stamps is not None and batch.stamps.shape != (rows,):
        raise InvalidArgumentError(f"{batch.stamps.shape} stamps", field="stamps", bound=f"{rows}")
    payload = batch.payload
    if payload is None:
        return
    try:
        payload.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise InvalidArgumentError(f"malformed: {str(error)[:200]}", field="payload") from None
    if payload.num_columns and payload.num_rows != rows:
        raise InvalidArgumentError(f"{payload.num_rows} rows", field="payload", bound=f"{rows}")


__all__ = ["BOOL", "F32", "I64", "INLINE_BYTES_MAX", "U8", "U32", "U64", "Packer", "Unpacker", "check_batch"]
