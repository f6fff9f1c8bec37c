"""Writes that come with a stamp: what a router sends, and records with their history.

Everything is checked here before it is queued, since these batches come over a wire and what is logged must be such
that recovery can apply it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omendb_common.claims import reserved
from omendb_common.errors import CorruptionError, InvalidArgumentError
from omendb_common.hlc import STAMP_MAX
from omendb_common.ids import IdColumn, U64Array
from omendb_common.payload import FIELDS_MAX, TYPES, check_path, split_name
from omendb_common.records import Op, WriteBatch
from omendb_common.schema import ID_BYTES_MAX, CollectionSchema
from omendb_common.shard_calls import Claim
from omendb_engine.folding import last_rows
from omendb_engine.vectors import all_finite

I64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StampedWrite:
    """``batch`` under ``stamp``; 0 when every row carries a stamp of its own (a record with its history).

    ``body``: the batch as ``encode_batch`` made it, when the caller has it; ids and payload of ``batch`` must not be
    views of it. ``create_only``: refuse the whole batch when an id is live under another stamp. ``versions``: refuse
    it unless each point has this newest stamp (0: it is not live), or all have ``stamp``. ``settled``: an unknown
    id at or below ``gc_floor`` is believed: it comes from a replica that is past the same deletions (P13). ``claim``:
    what is stored is not the deletion that ``batch`` is, but claims on its points, or waivers of them (P19). ``tied``:
    a live row with the stamp of a row of the batch gives way to it (P12).
    """

    batch: WriteBatch
    stamp: int
    body: Sequence[Any] | None = None
    create_only: bool = False
    settled: bool = False
    claim: Claim = Claim.NONE
    tied: bool = False
    versions: U64Array | None = None


@dataclass(frozen=True, slots=True)
class StampedResult:
    """What became of a :class:`StampedWrite`.

    Every row that is in no list is durable as promised and visible, whether this call wrote it or an earlier one. See
    :class:`omendb_engine.verdicts.Verdicts` for the lists and for ``partial``. ``lsn``: the last operation applied when
    it was answered.
    """

    lsn: int
    durability: str
    existed: int = 0
    superseded: I64Array = field(default_factory=lambda: np.empty(0, np.int64))
    newer: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))
    missing: I64Array = field(default_factory=lambda: np.empty(0, np.int64))
    partial: bool = False
    barred: I64Array = field(default_factory=lambda: np.empty(0, np.int64))
    open_rows: I64Array = field(default_factory=lambda: np.empty(0, np.int64))
    open_stamps: U64Array = field(default_factory=lambda: np.empty(0, np.uint64))


def check_stamped(schema: CollectionSchema, write: StampedWrite) -> None:
    """Raise InvalidArgumentError unless the write could be applied in some state."""
    batch = write.batch
    _check_stamps(write)
    _check_ids(batch.ids)
    if (batch.op is not Op.DELETE or batch.stamps is None) and reserved(batch.ids).any():
        raise InvalidArgumentError("an id begins with a zero character", field="ids", bound="ids of points")
    if write.versions is not None and (write.claim or len(write.versions) != batch.rows):
        raise InvalidArgumentError("versions that do not fit", field="versions", bound="one per point written")
    if write.claim and (batch.op is not Op.DELETE or write.create_only or not write.stamp):
        raise InvalidArgumentError(f"got {batch.op.name}", field="claim", bound="a deletion under one stamp")
    if batch.op is Op.DELETE:
        if batch.vectors or batch.payload is not None or batch.keys:
            raise InvalidArgumentError("a deletion with content", field="batch", bound="ids alone")
        return
    names = {f.name for f in schema.vectors}
    if not set(batch.vectors) <= names or (batch.op is Op.UPSERT and set(batch.vectors) != names):
        raise InvalidArgumentError(
            f"got fields {sorted(batch.vectors)}", field="vectors", bound=f"fields {sorted(names)}"
        )
    for name, array in batch.vectors.items():
        check_vectors(schema, name, array, batch.rows)
    if batch.op is Op.UPSERT and batch.keys:
        raise InvalidArgumentError("an upsert that removes keys", field="keys", bound="none")
    if batch.payload is not None and batch.payload.num_columns:
        _check_payload(batch.payload, batch.rows)


def check_vectors(schema: CollectionSchema, name: str, array: npt.NDArray[Any], n: int) -> None:
    """Raise InvalidArgumentError unless ``array`` is ``n`` finite vectors of the field."""
    spec = schema.vector(name)
    if array.dtype != spec.numpy_dtype or array.shape != (n, spec.dimension):
        raise InvalidArgumentError(
            f"got {array.dtype} {array.shape}", field="vectors", bound=f"{spec.dtype} ({n}, {spec.dimension})"
        )
    if array.dtype.kind == "f" and not all_finite(array):
        bad = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise InvalidArgumentError(f"row {bad} has NaN or Inf", field="vectors", bound="finite numbers")


def _check_stamps(write: StampedWrite) -> None:
    own = write.batch.stamps
    if own is None:
        if not 0 < write.stamp <= STAMP_MAX:
            raise InvalidArgumentError(f"got {write.stamp}", field="stamp", bound=f"1..{STAMP_MAX}")
    elif (
        write.stamp or write.create_only or write.versions is not None or len(own) != write.batch.rows or not own.all()
    ):
        raise InvalidArgumentError("stamps of the rows do not fit", field="stamps", bound="one above 0 for each row")


def _check_ids(ids: IdColumn) -> None:
    if not len(ids):
        raise InvalidArgumentError("the batch is empty", field="ids", bound="at least one id")
    if ids.strs is not None:
        _check_strings(ids)
    if last_rows(ids) is not None:
        raise InvalidArgumentError("an id stands in the batch twice", field="ids", bound="ids that differ")


def _check_strings(ids: IdColumn) -> None:
    strings = ids.strs
    assert strings is not None
    try:
        strings.validate(full=True)
    except pa.ArrowException as error:
        raise InvalidArgumentError(f"the ids are no text: {error}", field="ids", bound="UTF-8") from None
    if ids.ints is None and strings.null_count:
        raise InvalidArgumentError("an id is null", field="ids", bound="no nulls")
    extent = pc.min_max(pc.binary_length(strings))
    low, high = extent["min"].as_py(), extent["max"].as_py()
    if low is not None and (low < 1 or high > ID_BYTES_MAX):
        raise InvalidArgumentError(f"an id has {low if low < 1 else high} bytes", field="ids", bound="1..512 bytes")


def _check_payload(payload: pa.RecordBatch, n: int) -> None:
    names = payload.schema.names
    if payload.num_rows != n or len(names) > FIELDS_MAX or len(set(names)) != len(names):
        raise InvalidArgumentError(
            f"got {payload.num_rows} rows of {len(names)} columns", field="metadata", bound=f"{n} rows, columns once"
        )
    try:
        payload.validate(full=True)
        for name, column in zip(names, payload.columns, strict=True):
            path, kind = split_name(name)
            check_path(path)
            if column.type != TYPES[kind]:
                raise InvalidArgumentError(f"got {column.type}", field=name, bound=str(TYPES[kind]))
    except (pa.ArrowException, CorruptionError) as error:
        raise InvalidArgumentError(f"no payload columns: {error}", field="metadata") from None


__all__ = ["StampedResult", "StampedWrite", "check_stamped", "check_vectors"]
