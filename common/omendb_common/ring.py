"""Where a point belongs: the 64-bit hash of its partition key, and the ranges that shards own.

Hashes are those of :meth:`IdColumn.hashes` (the high half), the same in every process and release; Python's ``hash``
is never used.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from omendb_common.errors import InvalidArgumentError
from omendb_common.ids import IdColumn, U64Array

RING = 1 << 64
SHARDS_MAX = 4096


def key_hashes(keys: IdColumn) -> U64Array:
    """The place of every key on the ring, (n,)."""
    return keys.hashes()[0]


def even_bounds(shards: int) -> list[tuple[int, int]]:
    """``shards`` ranges ``[low, high)`` that cover the ring; the last ``high`` is 2**64."""
    if not 1 <= shards <= SHARDS_MAX:
        raise InvalidArgumentError(f"got {shards}", field="shards", bound=f"1..{SHARDS_MAX}")
    edges = [RING * i // shards for i in range(shards + 1)]
    return list(itertools.pairwise(edges))


def owners(lows: Sequence[int], hashes: U64Array) -> npt.NDArray[np.int64]:
    """The position in ``lows`` (ascending, the first is 0) of the range that owns each hash."""
    starts = np.array(lows, np.uint64)
    return np.searchsorted(starts, hashes, side="right") - 1


__all__ = ["RING", "SHARDS_MAX", "even_bounds", "key_hashes", "owners"]
