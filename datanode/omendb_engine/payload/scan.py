"""Conditions tested on whole Arrow arrays, one vectorised pass each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omendb_common.payload import Kind
from omendb_common.plain_arrow import arrow_of_texts, filled, numpy_of_arrow
from omendb_engine.payload.conditions import ELEMENT_KINDS, Condition, Interval, Members, numpy_type

Mask = npt.NDArray[np.bool_]


def scan(array: pa.Array, kind: Kind, condition: Condition) -> Mask:
    """Which values of ``array`` (of ``kind``, not JSON) pass; null does not, a list does by any element."""
    if kind in ELEMENT_KINDS:
        return _scan_lists(array, ELEMENT_KINDS[kind], condition)
    if kind == "s":
        return _to_mask(_scan_text(array, condition))
    if kind == "b":
        return _scan_bools(array, condition)
    mask = compare(values_of_buffer(array, kind), condition)
    return mask & valid_mask(array) if array.null_count else mask


def compare(values: npt.NDArray[Any], condition: Condition) -> Mask:
    """Which numbers pass."""
    if isinstance(condition, Members):
        return np.isin(values, np.array(condition.values, values.dtype))
    assert isinstance(condition, Interval)
    if condition.is_point:
        return np.asarray(values == condition.low, np.bool_)
    if condition.low is None and condition.high is None:
        return np.ones(len(values), np.bool_)
    if condition.low is None:
        return np.asarray(values <= condition.high, np.bool_)
    mask = np.asarray(values >= condition.low, np.bool_)
    if condition.high is not None:
        mask &= values <= condition.high
    return mask


def values_of_buffer(array: pa.Array, kind: Kind) -> npt.NDArray[Any]:
    """The numbers of an int64, float64 or time array without a copy; whatever was there where it is null."""
    buffer = array.buffers()[1]
    if buffer is None:
        return np.zeros(len(array), numpy_type(kind))
    return np.frombuffer(buffer, numpy_type(kind), len(array), array.offset * 8)


def valid_mask(array: pa.Array) -> Mask:
    """Which values are not null."""
    if not array.null_count:
        return np.ones(len(array), np.bool_)
    return _to_mask(array.is_valid())


def _to_mask(booleans: pa.BooleanArray) -> Mask:
    if booleans.null_count:
        booleans = filled(booleans, False)
    return np.asarray(numpy_of_arrow(booleans), np.bool_)


def _scan_bools(array: pa.BooleanArray, condition: Condition) -> Mask:
    if condition.accepts(1):
        return valid_mask(array) if condition.accepts(0) else _to_mask(array)
    return _to_mask(pc.invert(array))


def _scan_text(array: pa.StringArray, condition: Condition) -> pa.BooleanArray:
    if isinstance(condition, Members):
        return pc.is_in(array, value_set=arrow_of_texts(list(condition.values)))
    if not isinstance(condition, Interval):
        return pc.match_substring(array, condition.text)
    if condition.is_point:
        return pc.equal(array, arrow_of_texts([condition.low])[0])
    result = array.is_valid()
    if condition.low is not None:
        result = (pc.greater if condition.low_open else pc.greater_equal)(array, arrow_of_texts([condition.low])[0])
    if condition.high is not None:
        below = (pc.less if condition.high_open else pc.less_equal)(array, arrow_of_texts([condition.high])[0])
        result = below if condition.low is None else pc.and_(result, below)
    return result


def _scan_lists(array: pa.ListArray, kind: Kind, condition: Condition) -> Mask:
    offsets = numpy_of_arrow(array.offsets)
    elements = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    passed = np.zeros(len(elements) + 1, np.int64)
    np.cumsum(scan(elements, kind, condition), out=passed[1:])
    ends = passed[offsets - offsets[0]]
    mask = np.asarray(ends[1:] > ends[:-1], np.bool_)
    return mask & valid_mask(array) if array.null_count else mask


__all__ = ["Mask", "compare", "scan", "valid_mask", "values_of_buffer"]
