"""What every vector index can do."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from omendb_common.index_options import Quantization
from omendb_common.schema import Float32Array

I64Array = npt.NDArray[np.int64]
U8Array = npt.NDArray[np.uint8]


class BuildCancelledError(Exception):
    """The caller asked an index build to stop; nothing was written."""


class VectorIndex(Protocol):
    """An index over the ``n`` rows of one vector field of one segment; safe to search from many threads."""

    @property
    def kind(self) -> str:
        """``hnsw`` or ``ivf``."""

    @property
    def quantization(self) -> Quantization:
        """What it compares in place of the stored rows; what it returns is exact whatever that is."""

    @property
    def n(self) -> int:
        """Rows indexed."""

    @property
    def memory_bytes(self) -> int:
        """Bytes the index holds in memory of its own, mapped files not counted."""

    def search(
        self, queries: Float32Array, k: int, *, ef: int, allowed: U8Array | None = None
    ) -> tuple[Float32Array, I64Array]:
        """The ``k`` nearest rows of each query.

        Args:
            queries: (m, d) float32, from ``metric.prepare_queries``.
            k: 1 or more; it may exceed ``n``.
            ef: effort, at least ``k`` to be useful; see :meth:`effort_for`. Every kind counts it alike: as what a
                search costs, in units of :data:`omendb_engine.index.curve.COMPARISONS_PER_EF` comparisons.
            allowed: packed bits (lowest first) of the rows that may be returned; None for all.

        Returns:
            Native values (m, k) float32, best first, and rows (m, k) int64 with -1 where there are fewer.
        """

    def effort_for(self, recall_target: float, k: int) -> int:
        """The least ``ef`` expected to reach ``recall_target`` (0..1) at ``k``."""

    def recall_for(self, ef: int, k: int) -> float:
        """The recall at ``k`` that was measured at about this effort."""


__all__ = ["BuildCancelledError", "VectorIndex"]
