"""Which places lie in a region, tested on latitudes and longitudes together, in one pass."""

from __future__ import annotations

import numpy as np

from omendb_common.filters import Geo
from omendb_common.filters.geo import Degrees
from omendb_common.payload import Kind
from omendb_engine.payload.scan import Mask, valid_mask, values_of_buffer
from omendb_engine.payload.store import ColumnStore, Rows

_NUMBERS: tuple[Kind, ...] = ("f", "i")


def lie_in(node: Geo, store: ColumnStore, rows: Rows) -> Mask:
    """Which of ``rows`` have a place in the region."""
    lat, lon = _degrees(store, f"{node.path}.lat", rows), _degrees(store, f"{node.path}.lon", rows)
    return node.region.contains(lat, lon)


def _degrees(store: ColumnStore, path: str, rows: Rows) -> Degrees:
    """The numbers of a field, which a row has as an integer or as a float; NaN where it has none."""
    out = np.full(len(rows), np.nan)
    for kind in _NUMBERS:
        values = store.gather(path, kind, rows)
        if values is None:
            continue
        there = valid_mask(values) if values.null_count else slice(None)
        out[there] = values_of_buffer(values, kind)[there]
    return out


__all__ = ["lie_in"]
