"""Every kind of index over every element type: how each is built and loaded, as a segment would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.index_options import GRAPH_QUANTIZATIONS, QUANTIZATIONS, Quantization
from omendb_common.schema import METRICS, VECTOR_DTYPES, Float32Array, Metric, VectorDType, VectorField
from omendb_engine.index.base import VectorIndex
from omendb_engine.index.flat import scan
from omendb_engine.index.kinds import IndexBuild, build_index, load_index
from omendb_engine.index.metric import normalise
from omendb_engine.index.policy import IndexKind, IndexSpec, lists_of

KINDS: tuple[tuple[IndexKind, Quantization], ...] = (
    *(("hnsw", q) for q in GRAPH_QUANTIZATIONS),
    *(("ivf", q) for q in QUANTIZATIONS),
)
EVERY = [(kind, codes, metric, dtype) for kind, codes in KINDS for metric in METRICS for dtype in VECTOR_DTYPES]


@dataclass(frozen=True)
class Rows:
    """Rows as a segment stores them."""

    field: VectorField
    stored: npt.NDArray[Any]
    norms: Float32Array | None

    def exact(self, queries: Float32Array, k: int, mask: Any = None) -> tuple[Float32Array, npt.NDArray[np.int64]]:
        """What an exact scan finds."""
        field = self.field
        return scan(self.stored, queries, k, field.metric, dtype=field.dtype, norms=self.norms, mask=mask)


def rows_of(raw: npt.NDArray[Any], metric: Metric, dtype: VectorDType) -> Rows:
    """Rows (n, d) of any numbers in an element type, rounded into its range."""
    if dtype in ("int8", "uint8"):
        bounds = np.iinfo(dtype)
        raw = np.clip(np.rint(raw * 30 + (128 if dtype == "uint8" else 0)), bounds.min, bounds.max)
    stored: npt.NDArray[Any] = np.ascontiguousarray(raw.astype(dtype))
    field = VectorField(stored.shape[1], metric, dtype)
    if metric != "cosine":
        return Rows(field, stored, None)
    unit, norms = normalise(stored)
    return Rows(field, unit if dtype == "float32" else stored, norms)


def clustered(n: int, d: int, seed: int = 7) -> npt.NDArray[np.float64]:
    """Rows around fifty centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(11).standard_normal((50, d))
    found: npt.NDArray[np.float64] = centres[rng.integers(0, 50, n)] + 0.5 * rng.standard_normal((n, d))
    return found


def build(rows: Rows, kind: IndexKind, codes: Quantization, **given: Any) -> IndexBuild:
    """An index of small parameters over rows."""
    n, d = rows.stored.shape
    spec = IndexSpec(kind, 16, 100, codes) if kind == "hnsw" else IndexSpec(kind, 0, 0, codes, lists_of(n, d))
    asked = {"threads": 1, "cancelled": lambda: False, "progress": lambda done: None, **given}
    return build_index(spec, rows.field, rows.stored, norms=rows.norms, **asked)


def load(built: IndexBuild, rows: Rows) -> VectorIndex:
    """What a segment makes of it."""
    return load_index(built, rows.field, rows.stored, norms=rows.norms, path="index")


def recall(found: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """The share of the true rows that were found."""
    return float(np.mean([np.isin(t[t >= 0], f).mean() for f, t in zip(found, truth, strict=True)]))
