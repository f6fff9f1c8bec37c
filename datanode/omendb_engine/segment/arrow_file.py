"""Arrow IPC files as lists of buffers: written without copying the columns, read as views.

The sink keeps what Arrow writes as a gather list, so the bytes of a vector column go from the caller's array
to the disk (and to the checksum) without a copy in between. Arrow aligns to 8 bytes only; padding in the
schema's metadata moves the first column's data to a multiple of 64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.errors import CorruptionError
from omendb_common.plain_arrow import arrow_of_numpy, numpy_of_arrow
from omendb_common.schema import Float32Array

ALIGNMENT = 64
NORM = "norm"


class _PartsSink:
    """A file object for Arrow that remembers the pieces instead of joining them."""

    closed = False

    def __init__(self) -> None:
        self.parts: list[Any] = []
        self.length = 0

    def write(self, data: Any) -> int:
        size = len(data)
        self.parts.append(data)
        self.length += size
        return size

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        return self.length

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Nothing is open."""


def encode_batch_file(batch: pa.RecordBatch) -> list[Any]:
    """The parts of an Arrow IPC file with one record batch; they refer to the batch's own memory."""
    sink = _PartsSink()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.parts


def decode_batch_file(view: memoryview, path: str) -> pa.RecordBatch:
    """The only record batch of a verified Arrow IPC file; columns are views into ``view``."""
    try:
        reader = pa.ipc.open_file(pa.py_buffer(view))
        if reader.num_record_batches == 1:
            return reader.get_batch(0)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise CorruptionError(f"not an Arrow file: {error}", path=path) from None
    raise CorruptionError(f"{reader.num_record_batches} record batches", path=path, bound="1")


def encode_vectors(name: str, vectors: npt.NDArray[Any], norms: Float32Array | None) -> list[Any]:
    """The parts of a vector file: column ``name`` (or ``vector``) as FixedSizeList and, for cosine, ``norm``."""
    rows = np.ascontiguousarray(vectors)
    dimension = rows.shape[1]
    list_type = pa.list_(pa.field("item", pa.from_numpy_dtype(rows.dtype), nullable=False), dimension)
    arrays = [pa.FixedSizeListArray.from_arrays(arrow_of_numpy(rows.reshape(-1)), type=list_type)]
    fields = [pa.field(name or "vector", list_type, nullable=False)]
    if norms is not None:
        arrays.append(arrow_of_numpy(np.ascontiguousarray(norms, np.float32)))
        fields.append(pa.field(NORM, pa.float32(), nullable=False))
    schema = pa.schema(fields, metadata={"pad": ""})
    parts = encode_batch_file(pa.RecordBatch.from_arrays(arrays, schema=schema))
    pad = -_first_column_offset(parts) % ALIGNMENT
    if not pad:
        return parts
    # Encoding again is a matter of microseconds: the columns are not copied.
    schema = schema.with_metadata({"pad": " " * pad})
    return encode_batch_file(pa.RecordBatch.from_arrays(arrays, schema=schema))


def _first_column_offset(parts: list[Any]) -> int:
    """Where the first column's bytes begin: Arrow hands columns to the sink as buffers, all else as bytes."""
    offset = 0
    for part in parts:
        if isinstance(part, pa.Buffer):
            break
        offset += len(part)
    return offset


def decode_vectors(
    view: memoryview, path: str, *, n: int, dimension: int, dtype: np.dtype[Any], with_norms: bool
) -> tuple[npt.NDArray[Any], Float32Array | None]:
    """Vectors (n, d) and norms (n) as views into a verified vector file.

    Raises:
        CorruptionError: another shape or element type than the segment's manifest says.
    """
    batch = decode_batch_file(view, path)
    column = batch.column(0)
    expected = f"{n} vectors of {dimension} {dtype}"
    if batch.num_rows != n or not pa.types.is_fixed_size_list(column.type) or column.type.list_size != dimension:
        raise CorruptionError(f"{batch.num_rows} rows of {column.type}", path=path, bound=expected)
    if column.type.value_type != pa.from_numpy_dtype(dtype):
        raise CorruptionError(f"elements of {column.type.value_type}", path=path, bound=expected)
    rows: npt.NDArray[Any] = numpy_of_arrow(column.flatten()).reshape(n, dimension)
    if not with_norms:
        return rows, None
    if NORM not in batch.schema.names:
        raise CorruptionError("the norms are missing", path=path, bound=expected)
    return rows, numpy_of_arrow(batch.column(NORM))


__all__ = [
    "ALIGNMENT",
    "NORM",
    "decode_batch_file",
    "decode_vectors",
    "encode_batch_file",
    "encode_vectors",
]
