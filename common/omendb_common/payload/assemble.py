"""Columns put together into one record batch, with the batch-wide limits checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omendb_common.errors import InvalidArgumentError
from omendb_common.payload.names import FIELDS_MAX, PAYLOAD_BYTES_MAX, Kind, field_of, join_name, split_name
from omendb_common.payload.values import Part
from omendb_common.plain_arrow import filled, numpy_of_arrow


def assemble(parts: Sequence[Part], n: int) -> pa.RecordBatch:
    """One record batch of ``n`` rows from columns; columns without a value are left out.

    Raises:
        InvalidArgumentError: more than FIELDS_MAX columns, a row above PAYLOAD_BYTES_MAX, or a row with two
            values at one path.
    """
    columns: dict[str, Any] = {}
    kinds: dict[str, list[Kind]] = {}
    for path, kind, array in parts:
        if array.null_count == len(array):
            continue
        name = join_name(path, kind)
        if name in columns:
            columns[name] = _merged(path, columns[name], array)
        else:
            columns[name] = array
            kinds.setdefault(path, []).append(kind)
    if len(columns) > FIELDS_MAX:
        raise InvalidArgumentError(
            f"the batch has {len(columns)} fields", field="metadata", bound=f"at most {FIELDS_MAX} fields"
        )
    for path, several in kinds.items():
        if len(several) > 1:
            _check_disjoint(path, [columns[join_name(path, kind)] for kind in several])
    check_sizes(columns, n)
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _twice(path: str, row: int) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"row {row} gives the path twice, nested and dotted", field=field_of(path), bound="one value"
    )


def _merged(path: str, first: pa.Array, second: pa.Array) -> pa.Array:
    both = pc.and_(first.is_valid(), second.is_valid())
    if both.true_count:
        raise _twice(path, both.index(True).as_py())
    # if_else, unlike coalesce, has a kernel for lists.
    return pc.if_else(first.is_valid(), first, second)


def _check_disjoint(path: str, arrays: Sequence[pa.Array]) -> None:
    filled = np.zeros(len(arrays[0]), np.uint8)
    for array in arrays:
        filled += numpy_of_arrow(array.is_valid())
    if filled.max(initial=0) > 1:
        raise _twice(path, int(np.argmax(filled > 1)))


def check_sizes(columns: dict[str, Any], n: int) -> None:
    """Refuse a row whose values take more than PAYLOAD_BYTES_MAX bytes.

    A number or time takes 8, a boolean 1, text its UTF-8.
    """
    # Two cheap upper bounds settle nearly every batch: all its bytes, then the widest value of each column.
    # (A boolean counts as a byte but takes a bit; the kinds of booleans end in "b".)
    if sum(array.nbytes << 3 * name.endswith("b") for name, array in columns.items()) <= PAYLOAD_BYTES_MAX:
        return
    sizes = [_value_bytes(split_name(name)[1], array) for name, array in columns.items()]
    if sum(int(np.max(size, initial=0)) for size in sizes) <= PAYLOAD_BYTES_MAX:
        return
    total = np.zeros(n, np.int64)
    for size in sizes:
        total += size
    worst = int(np.argmax(total))
    if total[worst] > PAYLOAD_BYTES_MAX:
        raise InvalidArgumentError(
            f"the payload of row {worst} has {int(total[worst])} bytes",
            field="metadata",
            bound=f"at most {PAYLOAD_BYTES_MAX} bytes per point",
        )


def _value_bytes(kind: Kind, array: pa.Array) -> npt.NDArray[np.int64]:
    """Bytes of each value of a column; 0 where it is null."""
    if kind in ("b", "i", "f", "t"):
        return numpy_of_arrow(array.is_valid()).astype(np.int64) * (1 if kind == "b" else 8)
    if kind in ("s", "j"):
        return numpy_of_arrow(filled(pc.binary_length(array), 0)).astype(np.int64)
    if kind == "ls":
        texts = filled(pc.binary_length(array.values), 0)
        ends = np.concatenate([[0], np.cumsum(numpy_of_arrow(texts), dtype=np.int64)])
        offsets = numpy_of_arrow(array.offsets)
        return np.asarray(ends[offsets[1:]] - ends[offsets[:-1]], np.int64)
    return numpy_of_arrow(filled(pc.list_value_length(array), 0)).astype(np.int64) * (1 if kind == "lb" else 8)


__all__ = ["assemble", "check_sizes"]
