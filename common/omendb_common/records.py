"""Write batches: the one columnar form of a write, and the bytes that the log and the wire share.

A body is laid out so that a batch is encoded once and never copied on its way to disk: the caller's
vector array is handed to the gather write as it is.

::

    0   u32 magic "OMB1"   u16 format   u8 op   u8 reserved   u32 rows   u32 meta_bytes
    16  meta: JSON, padded with spaces to a multiple of 64 minus the 16 above
    …   sections, each starting at a multiple of 64, described in meta as [name, dtype, shape, offset, bytes]

Sections: ``ids.int`` (u64, n), ``ids.offsets`` (i32, n+1) and ``ids.bytes``, ``ids.is_str`` (u8, n; mixed
columns only), ``stamps`` (u64, n; only when rows carry stamps of their own), ``vector.<name>`` (n, d), and
``payload`` (an Arrow IPC stream of one record batch). All integers are little-endian.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.errors import CorruptionError, FormatVersionError
from omendb_common.ids import IdColumn, U64Array

MAGIC = 0x31424D4F  # "OMB1"
FORMAT = 1
ALIGN = 64
_HEADER = struct.Struct("<IHBBII")
_ZEROS = bytes(ALIGN)

Buffer = bytes | bytearray | memoryview | npt.NDArray[Any]


class Op(IntEnum):
    """What a batch does to the points it names."""

    UPSERT = 1
    UPDATE = 2
    DELETE = 3


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """One write in columns.

    ``vectors`` maps a vector field's name to an (n, dimension) array in the field's dtype. ``payload`` holds
    typed columns (see :mod:`omendb_common.payload`) or is None. ``stamps`` gives each row its own stamp;
    None means that all rows have the record's stamp. ``keys`` are, for an UPDATE, the top-level payload
    keys that it removes from every point (keys that it replaces are those of ``payload``).
    """

    op: Op
    ids: IdColumn
    vectors: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    payload: pa.RecordBatch | None = None
    stamps: U64Array | None = None
    keys: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Number of points the batch names."""
        return len(self.ids)


class _Sections:
    """Collects buffers and where each will lie."""

    def __init__(self) -> None:
        self.table: list[list[Any]] = []
        self.buffers: list[Buffer] = []
        self._end = 0

    def add(self, name: str, data: npt.NDArray[Any] | memoryview, dtype: str, shape: Sequence[int]) -> None:
        if isinstance(data, np.ndarray):
            data = np.ascontiguousarray(data).data.cast("B") if data.size else memoryview(b"")
        size = len(data)
        self.table.append([name, dtype, list(shape), self._end, size])
        self.buffers.append(data)
        padding = -size % ALIGN
        if padding:
            self.buffers.append(_ZEROS[:padding])
        self._end += size + padding


def encode_batch(batch: WriteBatch) -> list[Buffer]:
    """The body of ``batch`` as buffers to be written one after the other.

    Vectors and integer ids are referenced, not copied: the caller must not change them until the write
    returned.
    """
    sections = _Sections()
    _add_ids(sections, batch.ids)
    if batch.stamps is not None:
        sections.add("stamps", batch.stamps.astype("<u8", copy=False), "<u8", [batch.rows])
    for name, array in batch.vectors.items():
        sections.add(f"vector.{name}", array, array.dtype.str, array.shape)
    if batch.payload is not None and batch.payload.num_columns:
        data = payload_to_ipc(batch.payload)
        sections.add("payload", memoryview(data), "arrow", [batch.payload.num_columns])
    meta: dict[str, Any] = {"sections": sections.table}
    if batch.keys:
        meta["keys"] = list(batch.keys)
    text = json.dumps(meta, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + _HEADER.size) % ALIGN)
    head = _HEADER.pack(MAGIC, FORMAT, int(batch.op), 0, batch.rows, len(text)) + text
    return [head, *sections.buffers]


def encode_owned(batch: WriteBatch) -> tuple[list[Buffer], WriteBatch]:
    """As :func:`encode_batch`, and the batch with its payload reading from the encoded bytes.

    Arrow columns made from a caller's arrays may share their memory; the returned batch does not.
    """
    parts = encode_batch(batch)
    if batch.payload is None or not batch.payload.num_columns:
        return parts, batch
    # The payload is the last section; padding may follow it.
    encoded = parts[-1] if isinstance(parts[-1], memoryview) else parts[-2]
    assert isinstance(encoded, memoryview)
    return parts, replace(batch, payload=payload_from_ipc(encoded))


def body_bytes(parts: Sequence[Buffer]) -> int:
    """Total size of the buffers of a body."""
    return sum(p.nbytes if isinstance(p, (np.ndarray, memoryview)) else len(p) for p in parts)


def decode_batch(body: memoryview, *, path: str = "write batch", own: bool = False) -> WriteBatch:
    """Read a body back without copying: arrays and columns are views of ``body``.

    Args:
        own: copy everything but the vectors, so that keeping ids and payload does not keep ``body`` alive.

    Raises:
        CorruptionError: the bytes are no batch. (Callers have verified the checksum before, so this is a bug
            or a forgery, not a flipped bit.)
        FormatVersionError: a newer release wrote it.
    """
    try:
        magic, version, op, _, rows, meta_bytes = _HEADER.unpack_from(body, 0)
        if magic != MAGIC:
            raise CorruptionError("not a write batch", path=path, offset=0)
        if version > FORMAT:
            raise FormatVersionError(
                f"batch format {version}", field=path, bound=f"at most {FORMAT}", mend="upgrade omendb"
            )
        start = _HEADER.size + meta_bytes
        meta = json.loads(bytes(body[_HEADER.size : start]))
        parts = {
            name: (_section(body, start + offset, size, own and not name.startswith("vector.")), dtype, tuple(shape))
            for name, dtype, shape, offset, size in meta["sections"]
        }
        return _assemble(Op(op), rows, parts, tuple(meta.get("keys", ())))
    except (struct.error, KeyError, ValueError, TypeError, RecursionError, pa.ArrowException) as error:
        raise CorruptionError(f"malformed write batch: {error}", path=path) from error


_Part = tuple[memoryview, str, tuple[int, ...]]


def _section(body: memoryview, start: int, size: int, own: bool) -> memoryview:
    if start + size > len(body):
        raise ValueError("a section ends past the body")
    view = body[start : start + size]
    return memoryview(bytes(view)) if own else view


def _assemble(op: Op, rows: int, parts: Mapping[str, _Part], keys: tuple[str, ...]) -> WriteBatch:
    vectors = {
        name.removeprefix("vector."): np.frombuffer(data, np.dtype(dtype)).reshape(shape)
        for name, (data, dtype, shape) in parts.items()
        if name.startswith("vector.")
    }
    payload = payload_from_ipc(parts["payload"][0]) if "payload" in parts else None
    stamps = np.frombuffer(parts["stamps"][0], "<u8") if "stamps" in parts else None
    ids = _read_ids(rows, parts)
    if len(ids) != rows or any(len(v) != rows for v in vectors.values()):
        raise ValueError("columns disagree on the number of rows")
    return WriteBatch(op, ids, vectors, payload, stamps, keys)


def payload_to_ipc(batch: pa.RecordBatch) -> pa.Buffer:
    """One record batch as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def payload_from_ipc(data: memoryview) -> pa.RecordBatch:
    """Read what :func:`payload_to_ipc` wrote; columns are views of ``data``."""
    return pa.ipc.open_stream(pa.py_buffer(data)).read_next_batch()


def _add_ids(sections: _Sections, ids: IdColumn) -> None:
    n = len(ids)
    if ids.ints is not None:
        sections.add("ids.int", ids.ints.astype("<u8", copy=False), "<u8", [n])
    if ids.strs is None:
        return
    _, offsets_buffer, data_buffer = ids.strs.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[ids.strs.offset : ids.strs.offset + n + 1]
    first, last = (int(offsets[0]), int(offsets[-1])) if n else (0, 0)
    data = memoryview(data_buffer)[first:last] if data_buffer is not None else memoryview(b"")
    sections.add("ids.offsets", (offsets - first).astype("<i4"), "<i4", [n + 1])
    sections.add("ids.bytes", data.cast("B"), "|u1", [last - first])
    if ids.ints is not None:
        sections.add("ids.is_str", ids.is_str().astype(np.uint8), "|u1", [n])


def _read_ids(rows: int, parts: Mapping[str, _Part]) -> IdColumn:
    ints = np.frombuffer(parts["ids.int"][0], "<u8") if "ids.int" in parts else None
    strs = None
    if "ids.offsets" in parts:
        validity = None
        if "ids.is_str" in parts:
            is_str = np.frombuffer(parts["ids.is_str"][0], np.uint8)
            validity = pa.py_buffer(np.packbits(is_str, bitorder="little"))
        buffers = [validity, pa.py_buffer(parts["ids.offsets"][0]), pa.py_buffer(parts["ids.bytes"][0])]
        strs = pa.StringArray.from_buffers(rows, buffers[1], buffers[2], buffers[0])
    return IdColumn(ints, strs)


__all__ = [
    "Buffer",
    "Op",
    "WriteBatch",
    "body_bytes",
    "decode_batch",
    "encode_batch",
    "encode_owned",
    "payload_from_ipc",
    "payload_to_ipc",
]
