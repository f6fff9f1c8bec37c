"""Arrow arrays of plain values, made from their bytes.

``pa.array`` looks for pandas when it is first called in a process, and imports it where there is one: more than a
second of processor time that somebody's first write would wait for. What is made here it need not be asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_OFFSET_MAX = (1 << 31) - 1
_NUMBERS: dict[type, Any] = {int: np.int64, float: np.float64, bool: np.bool_}


def arrow_of_numpy(array: npt.NDArray[Any]) -> pa.Array:
    """Booleans, integers or floats, (n,), as Arrow has them; without a copy where the bytes are as Arrow's."""
    if isinstance(array, np.ma.MaskedArray):
        return pa.array(array)
    n = len(array)
    if array.dtype.kind == "b":
        return pa.Array.from_buffers(pa.bool_(), n, [None, pa.py_buffer(np.packbits(array, bitorder="little"))])
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return pa.Array.from_buffers(pa.from_numpy_dtype(native.dtype), n, [None, pa.py_buffer(native)])


def arrow_of_texts(values: Sequence[str | None]) -> pa.Array:
    """Strings as Arrow text; nulls where they are None.

    Raises:
        UnicodeEncodeError: one is not UTF-8.
        pa.ArrowException: more than 2 GiB.
    """
    try:
        joined = "".join(values)  # type: ignore[arg-type]  # None is what the TypeError is for
    except TypeError:
        return pa.array(values, pa.string())
    data = joined.encode()
    pieces: Iterable[Any] = (
        values if len(data) == len(joined) else (text.encode() for text in values if text is not None)
    )
    if len(data) > _OFFSET_MAX:
        return pa.array(values, pa.string())
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, pieces), np.int32, len(values)), out=offsets[1:])
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(data))


def arrow_of_list(values: Sequence[Any], kind: type, target: pa.DataType) -> pa.Array:
    """Values of one type, or None, as an Arrow array of type ``target``.

    Raises:
        UnicodeEncodeError, OverflowError, pa.ArrowException: a value does not fit.
    """
    if kind is str:
        return arrow_of_texts(values)
    if kind in _NUMBERS and None not in values:
        return arrow_of_numpy(np.array(values, _NUMBERS[kind]))
    return pa.array(values, target)


__all__ = ["arrow_of_list", "arrow_of_numpy", "arrow_of_texts"]
