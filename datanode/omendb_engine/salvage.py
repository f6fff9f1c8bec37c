"""Reading what can be proven good in damaged segments and logs.

Nothing unverified passes: an id counts when it hashes to the 128 bits stored beside it, a vector when no damaged
64 KiB block touches it, a payload value when its Parquet column chunk lies in sound blocks, a log record when
its own checksum verifies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from omendb_common.checksum import block_sums
from omendb_common.disk import Disk
from omendb_common.errors import CorruptionError, OmenDBError
from omendb_common.ids import IdColumn, PointId
from omendb_common.plain_arrow import arrow_of_numpy
from omendb_common.records import Op, WriteBatch, decode_batch
from omendb_common.schema import CollectionSchema
from omendb_engine.segment import layout
from omendb_engine.segment.arrow_file import decode_batch_file, decode_vectors
from omendb_engine.segment.deletes import Deletes, read_deletes
from omendb_engine.segment.keys import keys_from_batch
from omendb_engine.segment.manifest import SegmentRef
from omendb_engine.segment.writer import KIND
from omendb_engine.vectors import Prepared, restore
from omendb_engine.wal.reader import list_segments
from omendb_engine.wal.record import (
    HEADER_BYTES,
    HEADER_PAGE_BYTES,
    RecordType,
    decode_record,
    decode_record_header,
    decode_segment_header,
    segment_name,
)

BoolArray = npt.NDArray[np.bool_]
_SAMPLE_IDS = 10


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that could not be saved: the damaged file, what is gone, how many points, some of their ids."""

    path: str
    what: str
    points: int = 0
    ids: tuple[PointId, ...] = ()


@dataclass(slots=True)
class Salvage:
    """Collects losses while sources are read."""

    losses: list[Loss] = field(default_factory=list)

    def lost(self, path: str, what: str, points: int = 0, ids: IdColumn | None = None) -> None:
        """Note a loss."""
        sample = tuple(ids.slice(0, _SAMPLE_IDS).to_list()) if ids is not None else ()
        self.losses.append(Loss(path, what, points, sample))


def salvage_segment(
    disk: Disk, replica_path: str, ref: SegmentRef, schema: CollectionSchema, salvage: Salvage
) -> WriteBatch | None:
    """The live points of a segment that can be proven good, with their stamps; None when there are none."""
    folder = layout.segment_path(replica_path, ref.segment_id)
    path = f"{folder}/{layout.MANIFEST}"
    try:
        body = layout.read_document(disk, path, kind=KIND, format_max=layout.SEGMENT_FORMAT, expected=ref.manifest_hash)
        entries = layout.file_entries(body, path)
        keys = disk.map(f"{folder}/{layout.KEYS}")
        ids, stamps, table = keys_from_batch(decode_batch_file(keys, folder), None, folder)
    except (CorruptionError, OSError, pa.ArrowException, ValueError) as error:
        salvage.lost(folder, f"the whole segment: {error}", ref.rows)
        return None
    keep = ~_dead(disk, replica_path, ref, salvage).mask()
    keep &= _good_ids(ids, table.hi, table.lo, f"{folder}/{layout.KEYS}", salvage, keep)
    vectors: dict[str, npt.NDArray[Any]] = {}
    for described in body["fields"]:
        name, file = str(described["name"]), f"{folder}/{described['file']}"
        found = _vectors(disk, file, entries[str(described["file"])], schema, name, len(keep))
        if isinstance(found, str):
            salvage.lost(file, found, int(keep.sum()), ids.take(np.flatnonzero(keep)[:_SAMPLE_IDS]))
            return None
        vectors[name], good = found
        bad = keep & ~good
        if bad.any():
            salvage.lost(file, "points whose vectors are damaged", int(bad.sum()), ids.take(np.flatnonzero(bad)))
        keep &= good
    rows = np.flatnonzero(keep)
    payload = None
    if layout.METADATA in entries:
        payload = _payload(disk, f"{folder}/{layout.METADATA}", entries[layout.METADATA], len(keep), salvage)
    if not len(rows):
        return None
    return WriteBatch(
        Op.UPSERT,
        ids.take(rows),
        {name: array[rows] for name, array in vectors.items()},
        payload.take(arrow_of_numpy(rows)) if payload is not None else None,
        stamps[rows],
    )


def _dead(disk: Disk, replica_path: str, ref: SegmentRef, salvage: Salvage) -> Deletes:
    if ref.deletes is None:
        return Deletes.none(ref.rows)
    try:
        return read_deletes(disk, replica_path, ref.deletes, segment_id=ref.segment_id, rows=ref.rows)
    except (OmenDBError, OSError) as error:
        path = f"{replica_path}/{layout.DELETES}/{ref.deletes.name}"
        what = f"which points of segment {ref.segment_id} were deleted or replaced ({error}); old ones may be back"
        salvage.lost(path, what, ref.deletes.count)
        return Deletes.none(ref.rows)


def _good_ids(
    ids: IdColumn, hi: npt.NDArray[Any], lo: npt.NDArray[Any], path: str, salvage: Salvage, wanted: BoolArray
) -> BoolArray:
    real_hi, real_lo = ids.hashes()
    good: BoolArray = (real_hi == hi) & (real_lo == lo)
    bad = wanted & ~good
    if bad.any():
        salvage.lost(path, "points whose ids are damaged", int(bad.sum()))
    return good


def _bad_ranges(view: memoryview, entry: layout.FileEntry) -> list[tuple[int, int]]:
    """Byte ranges of damaged blocks."""
    sums = np.asarray(block_sums(view))
    count = min(len(sums), len(entry.blocks))
    bad = np.flatnonzero(sums[:count] != entry.blocks[:count]).tolist()
    size = layout.BLOCK_BYTES
    ranges = [(block * size, (block + 1) * size) for block in bad]
    if view.nbytes != entry.size:
        ranges.append((min(view.nbytes, entry.size) // size * size, max(view.nbytes, entry.size)))
    return ranges


def _vectors(
    disk: Disk, path: str, entry: layout.FileEntry, schema: CollectionSchema, name: str, n: int
) -> tuple[npt.NDArray[Any], BoolArray] | str:
    """Vectors as written and which rows are good, or what is lost."""
    spec = schema.vector(name)
    cosine = spec.metric == "cosine"
    try:
        view = disk.map(path)
        bad = _bad_ranges(view, entry)
        rows, norms = decode_vectors(
            view, path, n=n, dimension=spec.dimension, dtype=spec.numpy_dtype, with_norms=cosine
        )
    except (CorruptionError, OSError, pa.ArrowException, ValueError) as error:
        return f"all vectors of the segment: {error}"
    good = np.ones(n, np.bool_)
    base = np.frombuffer(view, np.uint8).ctypes.data
    for array in [rows] if norms is None else [rows, norms]:
        first, stride = array.ctypes.data - base, array.strides[0]
        for start, stop in bad:
            good[max(0, (start - first) // stride) : max(0, -(-(stop - first) // stride))] = False
    if spec.dtype == "float32" and norms is not None:
        return restore(Prepared(rows, norms, None)), good
    return rows, good


def _payload(disk: Disk, path: str, entry: layout.FileEntry, n: int, salvage: Salvage) -> pa.RecordBatch | None:
    try:
        view = disk.map(path)
        bad = _bad_ranges(view, entry)
        file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(view)))
        groups = [_row_group(file, g, bad) for g in range(file.metadata.num_row_groups)]
    except (OSError, pa.ArrowException, ValueError) as error:
        salvage.lost(path, f"the payload of the segment: {error}", n)
        return None
    for number, (_, missing) in enumerate(groups):
        if missing:
            count = file.metadata.row_group(number).num_rows
            salvage.lost(path, f"payload columns {', '.join(sorted(missing))} of {count} points", count)
    table = pa.concat_tables([table for table, _ in groups], promote_options="default").combine_chunks()
    batches = table.to_batches(max_chunksize=n) if table.num_columns else []
    return batches[0] if batches else None


def _row_group(file: Any, number: int, bad: list[tuple[int, int]]) -> tuple[pa.Table, set[str]]:
    meta = file.metadata.row_group(number)
    missing: set[str] = set()
    for at in range(meta.num_columns):
        column = meta.column(at)
        start = column.dictionary_page_offset or column.data_page_offset
        stop = start + column.total_compressed_size
        if any(start < end and begin < stop for begin, end in bad):
            missing.add(column.path_in_schema.removesuffix(".list.item").removesuffix(".list.element"))
    good = [name for name in file.schema_arrow.names if name not in missing]
    table = file.read_row_group(number, columns=good)
    absent = [name for name in file.schema_arrow.names if name in missing]
    for name in absent:
        table = table.append_column(name, pa.nulls(meta.num_rows, file.schema_arrow.field(name).type))
    return table.select(file.schema_arrow.names), missing


def salvage_log(disk: Disk, folder: str, after_lsn: int, salvage: Salvage) -> Iterator[WriteBatch]:
    """Batches of all intact log records after ``after_lsn``, in log order, each row with its stamp."""
    expected = after_lsn + 1
    path = folder
    for seq in list_segments(disk, folder) if disk.exists(folder) else []:
        path = f"{folder}/{segment_name(seq)}"
        data = memoryview(disk.read(path))
        header = decode_segment_header(data[:HEADER_PAGE_BYTES], path)
        if header is None:
            if np.frombuffer(data, np.uint8).any():
                salvage.lost(path, "a log segment whose header is damaged")
            continue
        for lsn, batch in _records(data, header.salt, path, salvage):
            if lsn <= after_lsn:
                continue
            if lsn > expected:
                salvage.lost(path, f"log records {expected} to {lsn - 1}: the writes in them")
            expected = max(expected, lsn + 1)
            if batch is not None:
                yield batch


def _records(data: memoryview, salt: int, path: str, salvage: Salvage) -> Iterator[tuple[int, WriteBatch | None]]:
    at = HEADER_PAGE_BYTES
    while at + HEADER_BYTES <= len(data):
        header = decode_record_header(data, at, salt)
        found = decode_record(data, at, header, salt) if header is not None else None
        if header is None or found is None:
            following = _next_record(data, at + 8, salt)
            if following is None:
                if np.frombuffer(data, np.uint8)[at:].any():
                    salvage.lost(f"{path}", f"the log after byte {at}, if anything was acknowledged there")
                return
            at = following
            continue
        record, at = found[0], at + header.total_bytes
        if record.type is not RecordType.OPS:
            yield record.lsn, None
            continue
        batch = decode_batch(record.body, path=path, own=True)
        stamps = np.full(batch.rows, record.stamp, np.uint64) if batch.stamps is None else batch.stamps
        yield record.lsn, WriteBatch(batch.op, batch.ids, batch.vectors, batch.payload, stamps, batch.keys)


def _next_record(data: memoryview, start: int, salt: int) -> int | None:
    """The next offset, a multiple of eight, at which an intact record lies."""
    words = np.frombuffer(data, "<u8", count=(len(data) - start) // 8, offset=start)
    for word in np.flatnonzero(words).tolist():
        at = start + int(word) * 8
        header = decode_record_header(data, at, salt)
        if header is not None and decode_record(data, at, header, salt) is not None:
            return at
    return None


__all__ = ["Loss", "Salvage", "salvage_log", "salvage_segment"]
