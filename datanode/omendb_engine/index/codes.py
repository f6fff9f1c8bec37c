"""What an index compares in place of the stored rows: a pure rule over element type, metric and wish."""

from __future__ import annotations

from omendb_common.index_options import Quantization
from omendb_common.schema import Metric, VectorDType

_OVERSAMPLING = {"none": 2, "float16": 2, "scalar8": 3}


def graph_quantization(asked: Quantization, metric: Metric, dtype: VectorDType) -> Quantization:
    """What a graph over stored elements of ``dtype`` compares; ``none`` where codes would be no smaller.

    For cosine the small types are compared as normalised float16 copies anyway; one byte each is smaller still.
    """
    if asked == "scalar8" and (dtype in ("float32", "float16") or metric == "cosine"):
        return "scalar8"
    return "float16" if asked == "float16" and dtype == "float32" else "none"


def graph_oversampling(quantization: Quantization) -> int:
    """Neighbours that a graph over codes is asked for, for each that is wanted."""
    return _OVERSAMPLING[quantization]


__all__ = ["graph_oversampling", "graph_quantization"]
