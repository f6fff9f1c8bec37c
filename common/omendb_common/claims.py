"""Claims: what a write on condition leaves on replicas before it decides, as deletions of reserved ids (P19).

A *claim* says that whoever makes the stamp has looked at a point when its newest stamp was ``base``: no write between
the two is taken any more. A *waiver* says that a claim is given up, and that nothing will be written under its stamp.
Both are tombstones of ids that no point can have, so they are logged, compared, repaired, moved and forgotten as all
tombstones are. Order and repetition do not matter: what counts is which of them a replica knows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from omendb_common.ids import IdColumn, U64Array
from omendb_common.plain_arrow import filled, numpy_of_arrow

RESERVED = "\x00"
"""Ids that begin so are not given to points of a cluster."""
_CLAIM, _WAIVER = "\x00c", "\x00w"
_DIGITS = 16

Mask = npt.NDArray[np.bool_]


class Marker(NamedTuple):
    """A claim, or with ``waived`` a waiver, of the point with the id hash ``hi``, ``lo``."""

    hi: int
    lo: int
    base: int
    stamp: int
    waived: bool


def claims_of(ids: IdColumn, bases: U64Array, stamp: int) -> IdColumn:
    """Ids of the claims on ``ids`` under ``stamp``; ``bases``: the newest stamp that is known of each."""
    return _marked(_CLAIM, ids, bases, stamp)


def waivers_of(ids: IdColumn, stamp: int) -> IdColumn:
    """Ids of the waivers of the claims on ``ids`` under ``stamp``."""
    return _marked(_WAIVER, ids, np.zeros(len(ids), np.uint64), stamp)


def reserved(ids: IdColumn) -> Mask:
    """Which of ``ids`` (n,) no point can have."""
    if ids.strs is None:
        return np.zeros(len(ids), np.bool_)
    return np.asarray(numpy_of_arrow(filled(pc.starts_with(ids.strs, RESERVED), False)), np.bool_)


def markers(ids: IdColumn) -> list[Marker]:
    """The claims and waivers among ``ids``; other ids are passed over."""
    if ids.strs is None:
        return []
    out = []
    for text in ids.strs.filter(pa.array(reserved(ids))).to_pylist():
        marker = _marker(text)
        if marker is not None:
            out.append(marker)
    return out


def _marked(kind: str, ids: IdColumn, bases: U64Array, stamp: int) -> IdColumn:
    hi, lo = ids.hashes()
    rows = zip(hi.tolist(), lo.tolist(), bases.tolist(), strict=True)
    return IdColumn.of([f"{kind}{high:016x}{low:016x}{base:016x}{stamp:016x}" for high, low, base in rows])


def _marker(text: str) -> Marker | None:
    kind, digits = text[:2], text[2:]
    if kind not in (_CLAIM, _WAIVER) or len(digits) != 4 * _DIGITS:
        return None
    try:
        hi, lo, base, stamp = (int(digits[at : at + _DIGITS], 16) for at in range(0, len(digits), _DIGITS))
    except ValueError:
        return None
    return Marker(hi, lo, base, stamp, kind == _WAIVER)


__all__ = ["RESERVED", "Marker", "claims_of", "markers", "reserved", "waivers_of"]
