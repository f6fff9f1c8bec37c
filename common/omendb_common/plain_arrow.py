"""Arrow arrays of plain values, made from their bytes, and back.

``pa.array``, ``pa.scalar``, ``to_numpy`` and ``pc`` functions with Python's own values look for pandas when one of them
is first called in a process, and import it where there is one: more than a second of processor time, in which a first
write waits, or everybody while a first segment is written. With what is here they need not be called.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_OFFSET_MAX = (1 << 31) - 1
_DTYPES: dict[pa.DataType, np.dtype[Any]] = {
    pa.from_numpy_dtype(np.dtype(name)): np.dtype(name)
    for name in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
}
_NUMBERS: dict[pa.DataType, Any] = {pa.int64(): np.int64, pa.float64(): np.float64, pa.bool_(): np.bool_}


def arrow_of_numpy(array: npt.NDArray[Any], null: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Booleans, numbers or times, (n,), as Arrow has them; without a copy where the bytes are as Arrow's.

    ``null``: where this (n) is true there is no value.
    """
    if isinstance(array, np.ma.MaskedArray):
        return pa.array(array)
    n = len(array)
    valid = None if null is None else pa.py_buffer(np.packbits(~null, bitorder="little"))
    if array.dtype.kind == "b":
        return pa.Array.from_buffers(pa.bool_(), n, [valid, pa.py_buffer(np.packbits(array, bitorder="little"))])
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    data = native.view(np.int64) if array.dtype.kind == "M" else native
    return pa.Array.from_buffers(pa.from_numpy_dtype(native.dtype), n, [valid, pa.py_buffer(data)])


def arrow_of_texts(values: Sequence[str | None]) -> pa.Array:
    """Strings as Arrow text; nulls where they are None.

    Raises:
        UnicodeEncodeError: one is not UTF-8.
        pa.ArrowException: more than 2 GiB.
    """
    try:
        return arrow_of_strings(cast("Sequence[str]", values))
    except TypeError:
        null = np.fromiter((text is None for text in values), np.bool_, len(values))
        return arrow_of_strings([text or "" for text in values], null)


def arrow_of_strings(values: Sequence[str], null: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """As :func:`arrow_of_texts`; where ``null`` (n) is true there is no value.

    Raises:
        TypeError: a value is no string.
    """
    joined = "".join(values)
    data = joined.encode()
    if len(data) > _OFFSET_MAX:
        return pa.array(values, pa.string(), mask=null)
    pieces: Iterable[Any] = values if len(data) == len(joined) else (text.encode() for text in values)
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, pieces), np.int32, len(values)), out=offsets[1:])
    if offsets[-1] != len(data):
        raise TypeError("a kind of string that says another length than it has")
    valid = None if null is None else pa.py_buffer(np.packbits(~null, bitorder="little"))
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(data), valid)


def arrow_of_values(values: Sequence[Any], target: pa.DataType) -> pa.Array:
    """Values of the one Python type that ``target`` stands for, or lists of such; nulls where they are None.

    Raises:
        UnicodeEncodeError, OverflowError, pa.ArrowException: a value does not fit.
    """
    if pa.types.is_string(target):
        return arrow_of_texts(values)
    if target not in _NUMBERS and not pa.types.is_list(target):
        return pa.array(values, target)
    null = None
    if None in values:
        null = np.fromiter((value is None for value in values), np.bool_, len(values))
        empty: Any = () if pa.types.is_list(target) else 0
        values = [empty if value is None else value for value in values]
    if target in _NUMBERS:
        return arrow_of_numpy(np.array(values, _NUMBERS[target]), null)
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=offsets[1:])
    if offsets[-1] > _OFFSET_MAX:
        raise pa.ArrowCapacityError(f"{offsets[-1]} elements in one column of lists")
    elements = arrow_of_values([element for value in values for element in value], target.value_type)
    valid = None if null is None else pa.py_buffer(np.packbits(~null, bitorder="little"))
    buffers = [valid, pa.py_buffer(offsets.astype(np.int32))]
    return pa.Array.from_buffers(target, len(values), buffers, children=[elements])


def numpy_of_arrow(array: pa.Array) -> npt.NDArray[Any]:
    """Booleans or numbers without nulls as NumPy has them, (n,); numbers without a copy, read-only. Texts as objects.

    Anything else as ``to_numpy`` has it.
    """
    if pa.types.is_string(array.type):
        texts = np.empty(len(array), object)
        texts[:] = array.to_pylist()
        return texts
    dtype = _DTYPES.get(array.type)
    if dtype is None or array.null_count:
        return array.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
    n, first, data = len(array), array.offset, array.buffers()[1]
    if not n or data is None:
        return np.empty(0, dtype)
    if dtype.kind == "b":
        start = first // 8
        bits = np.frombuffer(data, np.uint8, (first % 8 + n + 7) // 8, start)
        return np.unpackbits(bits, count=first % 8 + n, bitorder="little")[first % 8 :].view(np.bool_)
    return np.frombuffer(data, dtype, n, first * dtype.itemsize)


def filled(array: pa.Array, value: Any) -> pa.Array:
    """The array with ``value`` for its nulls; of booleans, numbers or texts."""
    if not array.null_count:
        return array
    dtype = _DTYPES.get(array.type)
    one = arrow_of_texts([value]) if dtype is None else arrow_of_numpy(np.array([value], dtype))
    return pc.fill_null(array, one[0])


__all__ = ["arrow_of_numpy", "arrow_of_strings", "arrow_of_texts", "arrow_of_values", "filled", "numpy_of_arrow"]
