"""The version that a point must have to be written: as callers say it, and the refusal when it has another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.errors import InvalidArgumentError, VersionConflictError
from omendb_common.hlc import STAMP_MAX
from omendb_common.ids import IdColumn, U64Array

NO_POINT = 0
"""The version of a point that does not exist."""
POINTS_MAX = 1 << 16
"""Points of one conditional write: so many are claimed, read and written in one step on every replica."""
SHOWN_MAX = 3
"""Points that a refusal names: an error must fit into the metadata of a call, and an id may have 512 bytes."""

_FIELD = "if_version"
_BOUND = f"versions of points, 0..{STAMP_MAX}"


def checked_versions(given: Any, ids: IdColumn | None, *, may_be_absent: bool) -> U64Array | None:
    """The version that each of ``ids`` must have (n,), NO_POINT for none; None when nothing is demanded.

    Args:
        given: one version for all points, or one per point; None alone demands nothing, None among others means that
            the point must not be there.
        may_be_absent: whether a point may be demanded not to exist: what is updated or deleted exists.

    Raises:
        InvalidArgumentError: no versions, too many points, or a point that is named twice.
    """
    if given is None:
        return None
    if ids is None:
        raise InvalidArgumentError("the points have no ids yet", field=_FIELD, bound="none", mend="name the ids")
    n = len(ids)
    if n > POINTS_MAX:
        raise InvalidArgumentError(
            f"got {n} points", field=_FIELD, bound=f"at most {POINTS_MAX} points", mend="send less at a time"
        )
    versions = _as_column(given, n)
    if not may_be_absent and not versions.all():
        raise InvalidArgumentError(
            "demands a point that does not exist", field=_FIELD, bound="versions above 0", mend="use upsert to create"
        )
    _check_apart(ids)
    return versions


def _as_column(given: Any, n: int) -> U64Array:
    if isinstance(given, (int, np.integer)) and not isinstance(given, bool):
        return np.full(n, _as_version(given), np.uint64)
    if isinstance(given, (str, bytes, bool, float, Mapping)) or not isinstance(given, (Sequence, np.ndarray)):
        raise InvalidArgumentError(f"got {type(given).__name__}", field=_FIELD, bound=_BOUND)
    if len(given) != n:
        raise InvalidArgumentError(f"got {len(given)} versions", field=_FIELD, bound=f"one, or one for each of {n}")
    if isinstance(given, np.ndarray) and given.dtype == np.uint64 and given.ndim == 1:
        return given
    return np.array([NO_POINT if one is None else _as_version(one) for one in given], np.uint64)


def _as_version(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value <= STAMP_MAX:
        raise InvalidArgumentError(f"got {value!r}", field=_FIELD, bound=_BOUND)
    return int(value)


def _check_apart(ids: IdColumn) -> None:
    """Two rows of one point would each demand something of it."""
    high, low = ids.hashes()
    order = np.lexsort((low, high))
    same = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    if same.any():
        (twice,) = ids.take(order[:-1][same][:1]).to_list()
        raise InvalidArgumentError(
            f"{twice!r} stands in the batch twice", field="ids", bound="ids that differ, with if_version"
        )


def conflict(ids: IdColumn, rows: npt.NDArray[np.int64], found: U64Array) -> VersionConflictError:
    """The refusal of a write: ``rows`` of ``ids`` have the versions ``found``, and not those demanded."""
    some = ids.take(rows[:SHOWN_MAX]).to_list()
    told = dict(zip(some, found[:SHOWN_MAX].tolist(), strict=True))
    shown = ", ".join(f"{i!r} ({f'version {v}' if v else 'no such point'})" for i, v in told.items())
    points = "one point has" if len(rows) == 1 else f"{len(rows)} points have"
    return VersionConflictError(
        f"{points} another version than expected: {shown}{', …' if len(rows) > len(told) else ''}",
        field=_FIELD,
        bound="the versions they have",
        mend="read them again and decide anew",
        found=told,
    )


__all__ = ["NO_POINT", "POINTS_MAX", "SHOWN_MAX", "checked_versions", "conflict"]
