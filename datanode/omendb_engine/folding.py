"""Folding a batch that names one id several times: the last row wins."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from omendb_common.ids import IdColumn, U64Array


def last_rows(ids: IdColumn) -> npt.NDArray[np.int64] | None:
    """Rows that are the last of their id, in order; None when all ids differ (the usual case)."""
    # Rising integers, as most callers number their points, are told apart without their hashes.
    if ids.strs is None and ids.ints is not None and (ids.ints[1:] > ids.ints[:-1]).all():
        return None
    return last_occurrences(*ids.hashes())


def last_occurrences(hi: U64Array, lo: U64Array) -> npt.NDArray[np.int64] | None:
    """Rows that are the last of their 128-bit key, in order; None when all keys differ (the usual case)."""
    if len(hi) < 2:
        return None
    ordered = np.sort(hi)
    if not (ordered[1:] == ordered[:-1]).any():
        return None
    rows = np.arange(len(hi))
    order = np.lexsort((rows, lo, hi))
    last = np.ones(len(hi), np.bool_)
    last[:-1] = (hi[order[1:]] != hi[order[:-1]]) | (lo[order[1:]] != lo[order[:-1]])
    if last.all():
        return None
    return np.sort(order[last])


__all__ = ["last_occurrences", "last_rows"]
