"""Write a segment: all files under a temporary folder, each fsynced once, then one rename.

The segment exists for nobody until a replica manifest that names it is committed; a crash before that leaves a
folder which ``ManifestStore.garbage`` lists.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.disk import Disk, make_folder
from omendb_common.errors import AlreadyExistsError
from omendb_common.ids import IdColumn, U64Array
from omendb_common.plain_arrow import arrow_of_numpy, arrow_of_texts
from omendb_common.schema import CollectionSchema, Float32Array, VectorField
from omendb_engine.overrides import FieldStamps
from omendb_engine.payload.columns import write_payload_parquet
from omendb_engine.payload.statistics import collect_quantiles, collect_statistics
from omendb_engine.segment import layout
from omendb_engine.segment.arrow_file import encode_batch_file, encode_vectors
from omendb_engine.segment.keys import KeyTable, keys_batch
from omendb_engine.segment.manifest import SegmentRef

KIND = "segment"
Overrides = FieldStamps


@dataclass(frozen=True, slots=True)
class Tombstones:
    """Deletions that other replicas may not have seen: ids with their hashes and stamps (u64, t).

    An id may appear more than once; its greatest stamp is kept.
    """

    ids: IdColumn
    hi: U64Array
    lo: U64Array
    stamps: U64Array


@dataclass(frozen=True, slots=True)
class SegmentData:
    """The columns of a segment to be, ``n`` rows each.

    ids, hi, lo: the points' ids and 128-bit hashes, each id once. stamps: u64.
    vectors: by field name, (n, d) in the field's dtype; float32 cosine is normalised already.
    norms: by field name, original lengths (n) float32, for every cosine field.
    payload: n rows of payload columns, or None when no point has any.
    digests: u64, of the rows' records (:mod:`omendb_engine.query.digests`), or None where nobody compares replicas.
    """

    ids: IdColumn
    hi: U64Array
    lo: U64Array
    stamps: U64Array
    vectors: Mapping[str, npt.NDArray[Any]]
    norms: Mapping[str, Float32Array]
    payload: pa.RecordBatch | None
    n: int
    tombstones: Tombstones | None = None
    overrides: Overrides | None = None
    digests: U64Array | None = None


@dataclass(slots=True)
class _Files:
    """Files written so far, with their entries for the manifest."""

    disk: Disk
    folder: str
    entries: dict[str, Any] = field(default_factory=dict)
    size: int = 0

    def put(self, name: str, parts: list[Any]) -> None:
        entry = layout.describe(parts)
        self.disk.write_file(f"{self.folder}/{name}", parts)
        self.entries[name] = entry.to_json()
        self.size += entry.size


def write_segment(
    disk: Disk, replica_path: str, segment_id: int, data: SegmentData, *, schema: CollectionSchema
) -> SegmentRef:
    """Write ``data`` as segment ``segment_id``; durable when it returns.

    Raises:
        ValueError: columns of different lengths, an id twice, or a vector of another shape than the schema's.
        AlreadyExistsError: there is such a segment.
        OSError: the disk failed or is full; nothing was left but perhaps a temporary folder.
    """
    _check(data, schema)
    parent = f"{replica_path}/{layout.SEGMENTS}"
    name = layout.segment_name(segment_id)
    target, temporary = f"{parent}/{name}", f"{parent}/{layout.TEMPORARY}{name}"
    if disk.exists(target):
        raise AlreadyExistsError("the segment exists", field=target)
    make_folder(disk, parent)
    layout.remove_path(disk, temporary)
    disk.mkdir(f"{temporary}/{layout.STATS}")
    try:
        ref = _write_files(_Files(disk, temporary), segment_id, data, schema)
        disk.sync_dir(f"{temporary}/{layout.STATS}")
        disk.sync_dir(temporary)
        disk.rename(temporary, target)
    except OSError:
        with suppress(OSError):  # give a full disk its space back; the first error is the one to tell
            layout.remove_path(disk, temporary)
        raise
    disk.sync_dir(parent)
    return ref


def _check(data: SegmentData, schema: CollectionSchema) -> None:
    lengths = {"ids": len(data.ids), "hi": len(data.hi), "lo": len(data.lo), "stamps": len(data.stamps)}
    if data.payload is not None:
        lengths["payload"] = data.payload.num_rows
    if data.digests is not None:
        lengths["digests"] = len(data.digests)
    wrong = {name: n for name, n in lengths.items() if n != data.n}
    if wrong:
        raise ValueError(f"columns of {wrong} rows in a segment of {data.n}")
    for spec in schema.vectors:
        rows = data.vectors[spec.name]
        if rows.shape != (data.n, spec.dimension) or rows.dtype != spec.numpy_dtype:
            raise ValueError(f"vectors {spec.name!r}: {rows.shape} {rows.dtype}, not {(data.n, spec.dimension)}")
        if spec.metric == "cosine" and len(data.norms[spec.name]) != data.n:
            raise ValueError(f"norms {spec.name!r}: {len(data.norms[spec.name])} of {data.n}")


def _write_files(files: _Files, segment_id: int, data: SegmentData, schema: CollectionSchema) -> SegmentRef:
    table = KeyTable.build(data.hi, data.lo)
    assert table.bloom is not None
    files.put(layout.KEYS, encode_batch_file(keys_batch(data.ids, data.stamps, table)))
    files.put(layout.BLOOM, table.bloom.encode())
    fields = [_put_vectors(files, position, spec, data) for position, spec in enumerate(schema.vectors)]
    if data.payload is not None and data.payload.num_columns:
        _put_payload(files, data.payload)
    if data.tombstones is not None and len(data.tombstones.ids):
        _put_tombstones(files, data.tombstones)
    if data.overrides is not None and len(data.overrides):
        _put_overrides(files, data.overrides)
    if data.digests is not None:
        _put_digests(files, data.digests)
    low, high = (int(data.stamps.min()), int(data.stamps.max())) if data.n else (0, 0)
    body = {
        "kind": KIND,
        "format": layout.SEGMENT_FORMAT,
        "segment_id": segment_id,
        "rows": data.n,
        "fields": fields,
        "min_stamp": low,
        "max_stamp": high,
        "int_id_max": data.ids.int_max(),
        "payload_bytes": 0 if data.payload is None else int(data.payload.nbytes),
        "files": files.entries,
        **({} if data.digests is None else {"digest_form": layout.DIGEST_FORM}),
    }
    document, digest = layout.seal(body)
    files.disk.write_file(f"{files.folder}/{layout.MANIFEST}", [document])
    size = files.size + len(document)
    return SegmentRef(segment_id, data.n, digest, size_bytes=size, min_stamp=low, max_stamp=high)


def _put_vectors(files: _Files, position: int, spec: VectorField, data: SegmentData) -> dict[str, Any]:
    name = layout.vectors_name(position)
    norms = data.norms[spec.name] if spec.metric == "cosine" else None
    files.put(name, encode_vectors(spec.name, data.vectors[spec.name], norms))
    described = {"name": spec.name, "dimension": spec.dimension, "metric": spec.metric, "dtype": spec.dtype}
    return {**described, "file": name}


def _put_payload(files: _Files, payload: pa.RecordBatch) -> None:
    files.put(layout.METADATA, [write_payload_parquet(payload, payload.num_rows)])
    minmax = collect_statistics(payload, payload.num_rows).to_json()
    files.put(layout.MINMAX, [_statistics_json(minmax)])
    files.put(layout.QUANTILES, [_statistics_json(collect_quantiles(payload))])


def _statistics_json(value: Any) -> bytes:
    # Not the canonical form of documents: a payload may hold infinities. The file's sums guard it.
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _put_tombstones(files: _Files, tombstones: Tombstones) -> None:
    order = np.lexsort((tombstones.stamps, tombstones.lo, tombstones.hi))
    hi, lo = tombstones.hi[order], tombstones.lo[order]
    newest = np.ones(len(order), np.bool_)
    newest[:-1] = (hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1])
    rows = np.sort(order[newest])
    table = KeyTable.build(tombstones.hi[rows], tombstones.lo[rows], bloom=False)
    batch = keys_batch(tombstones.ids.take(rows), tombstones.stamps[rows], table)
    files.put(layout.TOMBSTONES, encode_batch_file(batch))


def _put_overrides(files: _Files, overrides: Overrides) -> None:
    columns = [
        arrow_of_numpy(np.asarray(overrides.rows, np.int32)),
        arrow_of_texts(list(overrides.fields)),
        arrow_of_numpy(np.asarray(overrides.stamps, np.uint64)),
    ]
    files.put(layout.OVERRIDES, encode_batch_file(pa.RecordBatch.from_arrays(columns, names=["row", "field", "stamp"])))


def _put_digests(files: _Files, digests: U64Array) -> None:
    column = arrow_of_numpy(np.asarray(digests, np.uint64))
    files.put(layout.DIGESTS, encode_batch_file(pa.RecordBatch.from_arrays([column], names=["digest"])))


__all__ = ["Overrides", "SegmentData", "Tombstones", "write_segment"]
