"""Payload batches put together: one after the other, or an update over a base."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omendb_common.errors import InvalidArgumentError, ResourceExhaustedError
from omendb_common.payload.assemble import check_sizes
from omendb_common.payload.names import FIELDS_MAX, TYPES, split_name, top_level_key
from omendb_common.plain_arrow import arrow_of_numpy, numpy_of_arrow

BoolArray = npt.NDArray[np.bool_]


def concat_batches(batches: Sequence[pa.RecordBatch | None], counts: Sequence[int] | None = None) -> pa.RecordBatch:
    """The batches one after the other: the union of their columns, null where a batch has none.

    Args:
        batches: payload batches; None stands for an empty payload.
        counts: rows of each batch, needed where a batch may have no columns.

    Raises:
        ResourceExhaustedError: the text of one column would pass the 2 GiB of an Arrow string array.
    """
    sizes = list(counts) if counts is not None else [0 if b is None else b.num_rows for b in batches]
    if len(batches) == 1 and batches[0] is not None:
        return batches[0]
    lookup = [{} if b is None else dict(zip(b.schema.names, b.columns, strict=True)) for b in batches]
    names = dict.fromkeys(name for columns in lookup for name in columns)
    arrays = [concat_column([columns.get(name) for columns in lookup], sizes, name) for name in names]
    return pa.RecordBatch.from_arrays(arrays, names=list(names))


def concat_column(arrays: Sequence[Any], counts: Sequence[int], name: str) -> pa.Array:
    """One column from its pieces; a piece that is None stands for ``count`` nulls."""
    kind = TYPES[split_name(name)[1]]
    pieces: list[Any] = []
    missing = 0
    for array, count in zip(arrays, counts, strict=True):
        if array is None:
            missing += count
            continue
        if missing:
            pieces.append(pa.nulls(missing, kind))
            missing = 0
        pieces.append(array)
    if missing:
        pieces.append(pa.nulls(missing, kind))
    try:
        return pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces)
    except pa.ArrowInvalid as error:
        raise ResourceExhaustedError(str(error), field=name, bound="less than 2 GiB of text in a column") from None


def key_masks(batch: pa.RecordBatch, n: int) -> dict[str, BoolArray]:
    """For each top-level key, which of the ``n`` rows have a value at it or below it."""
    masks: dict[str, BoolArray] = {}
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        key = top_level_key(split_name(name)[0])
        valid = numpy_of_arrow(array.is_valid())
        masks[key] = masks[key] | valid if key in masks else valid
    return masks


def overlay(
    base: pa.RecordBatch,
    update: pa.RecordBatch,
    update_keys: Collection[str] | Mapping[str, BoolArray],
    n: int | None = None,
) -> pa.RecordBatch:
    """``base`` with the top-level keys ``update_keys`` replaced whole by what ``update`` has for them.

    Rows of the two stand side by side. A key that is replaced and that ``update`` has nothing for is
    removed; fields of ``update`` outside ``update_keys`` are not looked at.

    Args:
        update_keys: keys replaced in every row, or, as a mapping, each key with the rows (bool, n) in which
            it is replaced.
        n: number of rows, needed only for a mapping over two batches without columns.

    Raises:
        InvalidArgumentError: the result has too many fields, or a row above the payload limit.
    """
    old = dict(zip(base.schema.names, base.columns, strict=True))
    new = dict(zip(update.schema.names, update.columns, strict=True))
    rows = n if n is not None else max(base.num_rows, update.num_rows)
    masks = update_keys if isinstance(update_keys, Mapping) else None
    merged: dict[str, Any] = {}
    for name in dict.fromkeys([*old, *new]):
        path, kind = split_name(name)
        key = top_level_key(path)
        replaced = key in update_keys
        if replaced and masks is not None and not masks[key].all():
            nulls = pa.nulls(rows, TYPES[kind])
            column = pc.if_else(arrow_of_numpy(masks[key]), new.get(name, nulls), old.get(name, nulls))
        else:
            column = new.get(name) if replaced else old.get(name)
        if column is not None and column.null_count < len(column):
            merged[name] = column
    if len(merged) > FIELDS_MAX:
        raise InvalidArgumentError(
            f"the points would have {len(merged)} fields", field="metadata", bound=f"at most {FIELDS_MAX} fields"
        )
    check_sizes(merged, rows)
    return pa.RecordBatch.from_arrays(list(merged.values()), names=list(merged))


__all__ = ["concat_batches", "concat_column", "key_masks", "overlay"]
