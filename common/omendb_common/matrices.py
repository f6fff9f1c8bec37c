"""Vectors in every form a caller may have them, as checked arrays of the collection's element type.

An array that is already C-contiguous and of that type is passed on without a copy. Everything is checked
before anything is written, so that a refused call changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omendb_common.errors import InvalidArgumentError
from omendb_common.inputs import is_table
from omendb_common.plain_arrow import numpy_of_arrow
from omendb_common.schema import (
    BATCH_BODY_BYTES_MAX,
    DIMENSION_MAX,
    QUERIES_PER_CALL_MAX,
    CollectionSchema,
    VectorField,
)

Matrix = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

_SHAPE = "an array of shape (n, dimension)"
_FLOAT32 = np.dtype(np.float32)


def as_matrix(value: Any, field: VectorField, *, name: str = "vectors") -> Matrix:
    """Vectors as a C-contiguous (n, dimension) array of the collection's element type, n >= 1.

    float64 is rounded to float32 or float16; what does not fit there is refused, as are NaN and
    infinity. For int8 and uint8, integers of any width and floats without a fraction are taken when in
    range.

    Raises:
        InvalidArgumentError: wrong dimension, ragged or empty input, NaN or infinity, wrong element type.
    """
    array = _raw_matrix(value, name)
    if array.shape[0] == 0:
        raise InvalidArgumentError("the batch is empty", field=name, bound="at least 1 vector")
    _check_dimension(array.shape[1], field, name)
    array = _cast(array, field.numpy_dtype, name)
    if array.nbytes > BATCH_BODY_BYTES_MAX:
        raise InvalidArgumentError(
            f"the batch has {array.nbytes} bytes",
            field=name,
            bound=f"at most {BATCH_BODY_BYTES_MAX}",
            mend="send less at a time",
        )
    return array


def as_vectors(value: Any, schema: CollectionSchema, *, name: str = "vectors") -> dict[str, Matrix]:
    """Vectors by field: ``value`` is one matrix for the unnamed field, or a mapping of names to matrices."""
    if not isinstance(value, Mapping):
        return {schema.vectors[0].name: as_matrix(value, schema.vectors[0], name=name)}
    by_field = {
        str(key): as_matrix(part, schema.vector(str(key)), name=f"{name}[{key!r}]") for key, part in value.items()
    }
    if len({len(part) for part in by_field.values()}) != 1:
        lengths = {key: len(part) for key, part in by_field.items()}
        raise InvalidArgumentError(f"fields have {lengths} rows", field=name, bound="the same number of rows in each")
    return by_field


def as_queries(value: Any, field: VectorField | None, *, name: str = "vector") -> tuple[Float32, bool]:
    """Query vectors as a float32 (m, dimension) array, and whether ``value`` was a single vector.

    An empty list of queries gives m = 0. Without a ``field`` any dimension will do.
    """
    if type(value) is np.ndarray and value.dtype == _FLOAT32 and value.ndim == 1 and value.flags.c_contiguous:
        if field is not None and len(value) != field.dimension:
            _check_dimension(len(value), field, name)
        if not few_finite(value):
            _refuse_non_finite(value.reshape(1, -1), name)
        return value.reshape(1, -1), True
    single = _is_single(value)
    array = _raw_vector(value, name) if single else _raw_matrix(value, name)
    if array.shape[0] > QUERIES_PER_CALL_MAX:
        raise InvalidArgumentError(f"got {array.shape[0]} queries", field=name, bound=f"at most {QUERIES_PER_CALL_MAX}")
    if array.shape[0]:
        _check_dimension(array.shape[1], field, name)
    return _cast(array, np.dtype(np.float32), name), single


def few_finite(array: Matrix) -> bool:
    """Whether no element of a small float array is NaN or infinite: the look of a single query at itself.

    Bytes are searched for a zero several times faster than NumPy starts a reduction.
    """
    return b"\0" not in np.isfinite(array).tobytes()


def infer_dimension(value: Any) -> int:
    """The dimension of the vectors in ``value``, for a collection that has none yet."""
    if isinstance(value, Mapping):
        raise InvalidArgumentError(
            "vectors are named",
            field="vectors",
            bound="a collection that has these names",
            mend="call create_collection first",
        )
    array = _raw_matrix(value, "vectors")
    if array.shape[0] == 0 or array.shape[1] == 0:
        raise InvalidArgumentError("the batch is empty", field="vectors", bound="at least 1 vector of 1 element")
    if array.shape[1] > DIMENSION_MAX:
        raise InvalidArgumentError(
            f"got dimension {array.shape[1]}", field="vectors", bound=f"dimension 1..{DIMENSION_MAX}"
        )
    return int(array.shape[1])


def _is_single(value: Any) -> bool:
    """Whether ``value`` is one vector, not several; an array of objects and an empty list are several."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype != object
    if isinstance(value, (pa.Array, pa.ChunkedArray)):
        return not pa.types.is_nested(value.type)
    if isinstance(value, (list, tuple)):
        return bool(value) and np.ndim(cast(Any, value[0])) == 0
    if _library(value) == "polars":
        return not value.dtype.is_nested()
    return hasattr(value, "__array__") and getattr(value, "ndim", 2) == 1 and str(value.dtype) != "object"


def _library(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _raw_vector(value: Any, name: str) -> Matrix:
    """One vector as a (1, dimension) numeric array."""
    array = _loose_array(value, name).reshape(1, -1)
    if array.dtype.kind not in "fiu":
        raise InvalidArgumentError(f"got element type {array.dtype}", field=name, bound="real numbers")
    return array


def _raw_matrix(value: Any, name: str) -> Matrix:
    """``value`` as a two-dimensional numeric array of whatever type it has."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        array = value
    elif isinstance(value, (str, bytes, Mapping)) or value is None or is_table(value):
        raise InvalidArgumentError(f"got {type(value).__name__}", field=name, bound=_SHAPE)
    elif isinstance(value, (pa.Array, pa.ChunkedArray)):
        array = _from_arrow(value, name)
    elif _library(value) == "polars":
        array = _from_arrow(value.to_arrow(), name)
    elif isinstance(value, np.ndarray) or _library(value) == "pandas":
        array = _from_sequence(list(value), name)
    elif hasattr(value, "__array__"):
        array = np.asarray(value)
    elif isinstance(value, Iterable):
        array = _from_sequence(list(value), name)
    else:
        raise InvalidArgumentError(f"got {type(value).__name__}", field=name, bound=_SHAPE)
    if array.ndim != 2:
        mend = "for one vector pass vectors[None, :]" if array.ndim == 1 else None
        raise InvalidArgumentError(f"got an array of {array.ndim} dimensions", field=name, bound=_SHAPE, mend=mend)
    if array.dtype.kind not in "fiu":
        raise InvalidArgumentError(f"got element type {array.dtype}", field=name, bound="real numbers")
    return array


def _from_sequence(rows: list[Any], name: str) -> Matrix:
    if not rows:
        return np.empty((0, 0), np.float32)
    lengths = []
    for row in rows:
        if isinstance(row, (str, bytes, Mapping)) or not hasattr(row, "__len__"):
            return _loose_array(rows, name)
        lengths.append(len(row))
    odd = next((i for i, length in enumerate(lengths) if length != lengths[0]), None)
    if odd is not None:
        raise InvalidArgumentError(
            f"row {odd} has {lengths[odd]} elements, row 0 has {lengths[0]}", field=name, bound="rows of equal length"
        )
    return _loose_array(rows, name)


def _loose_array(rows: Any, name: str) -> Matrix:
    try:
        array = np.asarray(rows)
    except (ValueError, TypeError) as error:
        raise InvalidArgumentError(f"not an array: {error}", field=name, bound=_SHAPE) from None
    return array


def _from_arrow(value: pa.Array | pa.ChunkedArray, name: str) -> Matrix:
    """List-typed Arrow values without copying them; null vectors and null elements are refused."""
    array = value.combine_chunks() if isinstance(value, pa.ChunkedArray) else value
    if isinstance(array, pa.ChunkedArray):  # an empty chunked array stays chunked
        array = pa.nulls(0, value.type)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if array.null_count:
        raise InvalidArgumentError(f"{array.null_count} vectors are null", field=name, bound="no nulls")
    if pa.types.is_fixed_size_list(array.type):
        width = array.type.list_size
    elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        width = _uniform_width(array, name)
    else:
        flat: Matrix = numpy_of_arrow(array)
        return flat
    values = array.flatten()
    if values.null_count:
        raise InvalidArgumentError(f"{values.null_count} elements are null", field=name, bound="no nulls")
    elements: Matrix = numpy_of_arrow(values)
    return elements.reshape(len(array), width)


def _uniform_width(array: pa.Array, name: str) -> int:
    if not len(array):
        return 0
    lengths = numpy_of_arrow(pc.list_value_length(array))
    odd = int((lengths != lengths[0]).argmax())
    if lengths[odd] != lengths[0]:
        raise InvalidArgumentError(
            f"row {odd} has {lengths[odd]} elements, row 0 has {lengths[0]}", field=name, bound="rows of equal length"
        )
    return int(lengths[0])


def _check_dimension(found: int, field: VectorField | None, name: str) -> None:
    if field is not None and found != field.dimension:
        raise InvalidArgumentError(
            f"got dimension {found}", field=name, bound=f"dimension {field.dimension}, as the collection has"
        )


def _cast(array: Matrix, dtype: np.dtype[Any], name: str) -> Matrix:
    """``array`` as ``dtype`` and C-contiguous; itself when it is both already."""
    if dtype.kind == "f":
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            _refuse_non_finite(array, name)
        if array.dtype == dtype:
            return np.ascontiguousarray(array)
        with np.errstate(over="ignore"):
            narrow = np.ascontiguousarray(array, dtype)
        if not np.isfinite(narrow).all():
            row, column = _first(~np.isfinite(narrow))
            raise InvalidArgumentError(
                f"row {row} has {array[row, column]!r} at position {column}",
                field=name,
                bound=f"{dtype} numbers, at most {np.finfo(dtype).max:g} in size",
            )
        return narrow
    return array if array.dtype == dtype and array.flags.c_contiguous else _to_small_integers(array, dtype, name)


def _to_small_integers(array: Matrix, dtype: np.dtype[Any], name: str) -> Matrix:
    limits = np.iinfo(dtype)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            _refuse_non_finite(array, name)
        bad = (array < limits.min) | (array > limits.max) | (array != np.rint(array))
    else:
        bad = (array < limits.min) | (array > limits.max)
    if bad.any():
        row, column = _first(bad)
        raise InvalidArgumentError(
            f"row {row} has {array[row, column]} at position {column}",
            field=name,
            bound=f"{dtype}: whole numbers in {limits.min}..{limits.max}",
            mend="scale and round the vectors, or create the collection with dtype='float32'",
        )
    return np.ascontiguousarray(array, dtype)


def _refuse_non_finite(array: Matrix, name: str) -> None:
    row, column = _first(~np.isfinite(array))
    raise InvalidArgumentError(
        f"row {row} has {array[row, column]} at position {column}",
        field=name,
        bound="finite numbers, no NaN or infinity",
    )


def _first(bad: npt.NDArray[np.bool_]) -> tuple[int, int]:
    row, column = divmod(int(bad.argmax()), bad.shape[1])
    return row, column


__all__ = ["Matrix", "as_matrix", "as_queries", "as_vectors", "few_finite", "infer_dimension"]
