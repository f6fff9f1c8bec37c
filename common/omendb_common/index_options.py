"""Which kinds of index there are, what they may compare in place of the stored rows, and what goes with what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from omendb_common.errors import InvalidArgumentError

IndexChoice = Literal["auto", "flat", "hnsw", "ivf"]
Quantization = Literal["none", "float16", "scalar8", "product", "binary"]
QuantizationChoice = Literal["auto", "none", "float16", "scalar8", "product", "binary"]

INDEX_KINDS: tuple[IndexChoice, ...] = ("auto", "flat", "hnsw", "ivf")
QUANTIZATIONS: tuple[Quantization, ...] = ("none", "float16", "scalar8", "product", "binary")
QUANTIZATION_CHOICES: tuple[QuantizationChoice, ...] = ("auto", *QUANTIZATIONS)
GRAPH_QUANTIZATIONS: tuple[Quantization, ...] = ("none", "float16", "scalar8")
"""Those that a graph can be walked with: coarser codes lead astray at every step."""
NLIST_MAX = 65_536

LEVEL = 4
"""The feature level of a cluster whose data nodes all read ``index.ivf`` and graphs over codes."""


def check_choice(kind: str, quantization: str, field: str = "quantization") -> None:
    """Raise InvalidArgumentError where that kind of index cannot compare such codes."""
    possible: Mapping[str, tuple[str, ...]] = {"flat": ("auto", "none"), "hnsw": ("auto", *GRAPH_QUANTIZATIONS)}
    allowed = possible.get(kind, QUANTIZATION_CHOICES)
    if quantization not in allowed:
        raise InvalidArgumentError(
            f"got {quantization!r} with index {kind!r}",
            field=field,
            bound=f"one of {', '.join(allowed)}",
            mend="use index 'ivf', or 'auto'",
        )


def level_of(options: Mapping[str, Any]) -> int:
    """The feature level that a cluster must have before a collection may have these options of a schema."""
    newer = options.get("index") == "ivf" or any(options.get(name) is not None for name in ("quantization", "nlist"))
    return LEVEL if newer else 1


__all__ = [
    "GRAPH_QUANTIZATIONS",
    "INDEX_KINDS",
    "LEVEL",
    "NLIST_MAX",
    "QUANTIZATIONS",
    "QUANTIZATION_CHOICES",
    "IndexChoice",
    "Quantization",
    "QuantizationChoice",
    "check_choice",
    "level_of",
]
