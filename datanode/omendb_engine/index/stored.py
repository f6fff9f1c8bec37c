"""The stored rows that an index is built over, as they are compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.schema import Float32Array, Metric, VectorDType
from omendb_engine.index.metric import to_index_space

I64Array = npt.NDArray[np.int64]

BLOCK_ROWS = 4_096
_FLOAT16_MAX = np.float32(65_504)


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Rows (n, d) in ``dtype`` with their lengths (n) where the metric is cosine.

    ``clipped``: whether numbers are held within what float16 can say; beyond, they would be infinite.
    """

    vectors: npt.NDArray[Any]
    norms: Float32Array | None
    metric: Metric
    dtype: VectorDType
    clipped: bool = False

    def space(self, rows: I64Array) -> Float32Array:
        """Some rows as they are compared, float32 and C-contiguous."""
        norms = self.norms[rows] if self.norms is not None else None
        found = to_index_space(self.vectors[rows], norms, self.metric, self.dtype)
        if self.clipped:
            found = np.clip(found, -_FLOAT16_MAX, _FLOAT16_MAX)
        return np.ascontiguousarray(found)

    def blocks(self) -> Iterator[I64Array]:
        """The numbers of all rows, some thousand at a time."""
        n = len(self.vectors)
        return (np.arange(start, min(start + BLOCK_ROWS, n)) for start in range(0, n, BLOCK_ROWS))

    def ranges(self) -> Float32Array:
        """The least value (d) of every element over all rows, then the span (d): what a byte is cut out of."""
        low = np.full(self.vectors.shape[1], np.inf, np.float32)
        high = -low
        for rows in self.blocks():
            block = self.space(rows)
            np.minimum(low, block.min(axis=0), out=low)
            np.maximum(high, block.max(axis=0), out=high)
        return np.concatenate((low, high - low))


__all__ = ["BLOCK_ROWS", "StoredRows"]
