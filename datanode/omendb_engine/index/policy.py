"""Which index a segment gets: a pure rule over its shape and the collection's options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from omendb_common.errors import InvalidArgumentError
from omendb_common.index_options import (
    INDEX_KINDS,
    NLIST_MAX,
    QUANTIZATION_CHOICES,
    Quantization,
    check_choice,
)
from omendb_common.schema import Metric, VectorDType

IndexKind = Literal["flat", "hnsw", "ivf"]
Preset = Literal["balanced", "quality", "speed"]

# (links per node, candidates considered while building)
PRESETS: Mapping[Preset, tuple[int, int]] = {"balanced": (16, 128), "quality": (32, 200), "speed": (16, 80)}
M_MIN, M_MAX = 4, 128
EF_CONSTRUCTION_MIN, EF_CONSTRUCTION_MAX = 8, 4_096
IVF_ROWS_MIN = 64
"""Below, there is too little to learn codes from, and nothing to gain by them."""
_OF_LISTS_ONLY = ("product", "binary")
_LIST_ROWS_MIN = 8
_LISTS_PER_ROOT = 4
# Centroids are kept in full: of few rows with many elements they would take more than the codes do.
_CENTROID_BYTES_PER_ROW = 32


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """The index to build: ``m`` and ``ef_construction`` are of graphs, ``nlist`` is of inverted lists, else 0."""

    kind: IndexKind
    m: int = 0
    ef_construction: int = 0
    quantization: Quantization = "none"
    nlist: int = 0


FLAT = IndexSpec("flat")


@dataclass(frozen=True, slots=True)
class IndexPolicy:
    """Thresholds of the choice.

    flat_rows_max: up to this many rows an exact scan is fast enough (under 1 ms at 128 dimensions) and
        always right.
    preset: what a collection gets that asks for nothing.
    """

    flat_rows_max: int = 10_000
    preset: Preset = "balanced"

    def decide(
        self, rows: int, dimension: int, dtype: VectorDType, metric: Metric, options: Mapping[str, Any] | None = None
    ) -> IndexSpec:
        """The index for a segment of ``rows`` rows.

        ``options``: ``index`` auto | flat | hnsw | ivf, ``quantization`` auto | none | float16 | scalar8 | product |
        binary, ``preset`` balanced | quality | speed, ``M``, ``ef_construction`` and ``nlist`` (0: chosen by the
        rows) integers; unknown names are others' business.

        Raises:
            InvalidArgumentError: an option has a value outside its bounds, or two do not go together.
        """
        options = options or {}
        kind = _choice(options, "index", INDEX_KINDS, "auto")
        quantization = _choice(options, "quantization", QUANTIZATION_CHOICES, "auto")
        check_choice(kind, quantization, "options.quantization")
        nlist = _integer(options, "nlist", 0, NLIST_MAX, 0)
        preset = cast(Preset, _choice(options, "preset", tuple(PRESETS), self.preset))
        m, ef_construction = PRESETS[preset]
        m = _integer(options, "M", M_MIN, M_MAX, m)
        ef_construction = _integer(
            options, "ef_construction", EF_CONSTRUCTION_MIN, EF_CONSTRUCTION_MAX, ef_construction
        )
        if kind == "flat" or rows < 2 or (kind == "auto" and rows <= self.flat_rows_max):
            return FLAT
        if kind == "ivf" or quantization in _OF_LISTS_ONLY:
            return _inverted(rows, dimension, quantization, nlist)
        codes = cast(Quantization, "none" if quantization == "auto" else quantization)
        return IndexSpec("hnsw", m, max(ef_construction, m), codes)


def lists_of(rows: int, dimension: int) -> int:
    """How many lists a segment gets that nobody chose a number for."""
    by_bytes = rows * _CENTROID_BYTES_PER_ROW // (4 * dimension)
    return max(1, min(int(_LISTS_PER_ROOT * rows**0.5), by_bytes))


def _inverted(rows: int, dimension: int, quantization: str, nlist: int) -> IndexSpec:
    if rows < IVF_ROWS_MIN:
        return FLAT
    lists = min(nlist or lists_of(rows, dimension), rows // _LIST_ROWS_MIN, NLIST_MAX)
    codes = cast(Quantization, "binary" if quantization == "auto" else quantization)
    return IndexSpec("ivf", quantization=codes, nlist=lists)


def merged_options(settings: Mapping[str, Any], collection: Mapping[str, Any]) -> dict[str, Any]:
    """A collection's options, and the settings' for what it leaves open.

    Kind and codes go together: who chooses one of them for a collection has the other chosen by rule, for the settings'
    word on it was meant for another.
    """
    if "index" in collection or "quantization" in collection:
        settings = {name: value for name, value in settings.items() if name not in ("index", "quantization")}
    return {**settings, **collection}


def _choice(options: Mapping[str, Any], name: str, allowed: tuple[str, ...], default: str) -> str:
    value = options.get(name, default)
    if value not in allowed:
        raise InvalidArgumentError(f"got {value!r}", field=f"options.{name}", bound=f"one of {allowed}")
    return str(value)


def _integer(options: Mapping[str, Any], name: str, low: int, high: int, default: int) -> int:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidArgumentError(f"got {value!r}", field=f"options.{name}", bound=f"an integer in {low}..{high}")
    return value


__all__ = [
    "FLAT",
    "IVF_ROWS_MIN",
    "PRESETS",
    "IndexKind",
    "IndexPolicy",
    "IndexSpec",
    "Preset",
    "lists_of",
    "merged_options",
]
