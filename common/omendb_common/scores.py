"""Scores of distances: the reverse, so that larger is better.

cosine: the similarity, 1 - distance; dot: the inner product, -distance; l2: 1 / (1 + distance).
"""

from __future__ import annotations

import numpy as np

from omendb_common.schema import Float32Array, Metric


def distance_to_score(distance: Float32Array, metric: Metric) -> Float32Array:
    """Scores of distances, any shape, float32."""
    if metric == "l2":
        out: Float32Array = np.float32(1) / (np.float32(1) + distance)
        return out
    if metric == "cosine":
        return np.subtract(np.float32(1), distance)
    return np.negative(distance)


__all__ = ["distance_to_score"]
