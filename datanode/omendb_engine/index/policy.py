"""Which index a segment gets: a pure rule over its shape and the collection's options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from omendb_common.errors import InvalidArgumentError
from omendb_common.schema import Metric, VectorDType

IndexKind = Literal["flat", "hnsw"]
Preset = Literal["balanced", "quality", "speed"]

# (links per node, candidates considered while building)
PRESETS: Mapping[Preset, tuple[int, int]] = {"balanced": (16, 128), "quality": (32, 200), "speed": (16, 80)}
M_MIN, M_MAX = 4, 128
EF_CONSTRUCTION_MIN, EF_CONSTRUCTION_MAX = 8, 4_096


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """The index to build: ``m`` and ``ef_construction`` are 0 for flat."""

    kind: IndexKind
    m: int = 0
    ef_construction: int = 0


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

        ``options``: ``index`` auto | flat | hnsw, ``preset`` balanced | quality | speed, ``M`` and
        ``ef_construction`` integers; unknown names are others' business.

        Raises:
            InvalidArgumentError: an option has a value outside its bounds.
        """
        options = options or {}
        kind = _choice(options, "index", ("auto", "flat", "hnsw"), "auto")
        preset = cast(Preset, _choice(options, "preset", tuple(PRESETS), self.preset))
        m, ef_construction = PRESETS[preset]
        m = _integer(options, "M", M_MIN, M_MAX, m)
        ef_construction = _integer(
            options, "ef_construction", EF_CONSTRUCTION_MIN, EF_CONSTRUCTION_MAX, ef_construction
        )
        if kind == "flat" or rows < 2 or (kind == "auto" and rows <= self.flat_rows_max):
            return FLAT
        return IndexSpec("hnsw", m, max(ef_construction, m))


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
    "PRESETS",
    "IndexKind",
    "IndexPolicy",
    "IndexSpec",
    "Preset",
]
