"""Per-column bounds of a segment: what lets a query skip it without opening its payload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from omendb_common.errors import CorruptionError
from omendb_common.filters import And, Compare, Contains, Exists, Filter, Geo, In, IsNull, Not, Or, StartsWith
from omendb_common.payload import Kind, split_name
from omendb_engine.payload.conditions import (
    ELEMENT_KINDS,
    Condition,
    Interval,
    Leaf,
    Members,
    condition_for,
)
from omendb_engine.payload.scan import values_of_buffer
from omendb_engine.payload.store import Catalog

# Characters of text kept as a bound.
_TEXT_MAX = 64
_QUANTILES = 33
_SAMPLE = 8192


@dataclass(frozen=True, slots=True)
class ColumnBounds:
    """``count`` rows have a value; every value (of lists: element) is within ``low``..``high``.

    None for ``low`` or ``high`` means unbounded. Times are microseconds, booleans 0 and 1.
    """

    count: int
    low: Any = None
    high: Any = None


class SegmentStatistics:
    """The bounds of every payload column of ``n`` rows. Immutable."""

    __slots__ = ("bounds", "catalog", "n")

    def __init__(self, n: int, bounds: Mapping[str, ColumnBounds]) -> None:
        self.n = n
        self.bounds = dict(bounds)
        self.catalog = Catalog(self.bounds)

    def to_json(self) -> dict[str, Any]:
        """What ``minmax.json`` holds."""
        columns = {name: {"count": b.count, "low": b.low, "high": b.high} for name, b in self.bounds.items()}
        return {"format": 1, "rows": self.n, "columns": columns}

    @staticmethod
    def from_json(value: Any, path: str = "minmax.json") -> SegmentStatistics:
        """Read what :meth:`to_json` wrote; CorruptionError when it is something else."""
        try:
            columns = {name: ColumnBounds(int(b["count"]), b["low"], b["high"]) for name, b in value["columns"].items()}
            return SegmentStatistics(int(value["rows"]), columns)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptionError(f"not column bounds: {error!r}", path=path) from None


def collect_statistics(batch: pa.RecordBatch | None, n: int) -> SegmentStatistics:
    """The bounds of every column of a payload batch of ``n`` rows."""
    if batch is None:
        return SegmentStatistics(n, {})
    names = batch.schema.names
    return SegmentStatistics(n, {name: _bounds(split_name(name)[1], batch.column(name)) for name in names})


def _bounds(kind: Kind, array: pa.Array) -> ColumnBounds:
    count = len(array) - array.null_count
    if kind == "j":
        return ColumnBounds(count)
    element = ELEMENT_KINDS.get(kind, kind)
    values = array.flatten() if kind in ELEMENT_KINDS else array
    if element == "t":
        values = values.cast(pa.int64())
    extent = pc.min_max(values)
    low, high = extent["min"].as_py(), extent["max"].as_py()
    if low is None:
        return ColumnBounds(count)
    if element == "s":
        return ColumnBounds(count, low[:_TEXT_MAX], _text_above(high))
    return ColumnBounds(count, int(low), int(high)) if element == "b" else ColumnBounds(count, low, high)


def _text_above(text: str) -> str | None:
    """A short text that is not before ``text``; None when there is none."""
    if len(text) <= _TEXT_MAX:
        return text
    # The last character that can grow grows, which puts the prefix after everything that begins with it.
    for end in range(_TEXT_MAX - 1, -1, -1):
        code = ord(text[end])
        if code < 0x10FFFF:
            return text[:end] + chr(0xE000 if code == 0xD7FF else code + 1)
    return None


def collect_quantiles(batch: pa.RecordBatch | None) -> dict[str, list[float]]:
    """33 quantiles (minimum to maximum of a sample) of each number and time column, for ``quantiles.json``."""
    out: dict[str, list[float]] = {}
    if batch is None:
        return out
    for name in batch.schema.names:
        kind = split_name(name)[1]
        if kind not in ("i", "f", "t"):
            continue
        values = values_of_buffer(batch.column(name).drop_null(), kind).astype(np.float64)
        if len(values):
            sample = np.sort(values[:: max(1, len(values) // _SAMPLE)])
            out[name] = sample[np.linspace(0, len(sample) - 1, _QUANTILES).astype(np.int64)].tolist()
    return out


def may_match(node: Filter, statistics: SegmentStatistics) -> bool:
    """False only when no row of the segment can match ``node``."""
    return _judge(node, statistics)[0]


def _judge(node: Filter, statistics: SegmentStatistics) -> tuple[bool, bool]:
    """(some row may match, every row certainly matches)."""
    if isinstance(node, And):
        judged = [_judge(child, statistics) for child in node.children]
        return all(may for may, _ in judged), all(must for _, must in judged)
    if isinstance(node, Or):
        judged = [_judge(child, statistics) for child in node.children]
        return any(may for may, _ in judged), any(must for _, must in judged)
    if isinstance(node, Not):
        return _negated(_judge(node.child, statistics))
    if isinstance(node, Exists):
        return _judge_existing(node.path, statistics)
    if isinstance(node, IsNull):
        return _negated(_judge_existing(node.path, statistics))
    if isinstance(node, Geo):
        return _judge(node.around(), statistics)[0], False
    if isinstance(node, (Compare, In, Contains, StartsWith)):
        positive = _judge_leaf(node, statistics)
        negative = (isinstance(node, Compare) and node.op == "ne") or (isinstance(node, In) and node.negate)
        return _negated(positive) if negative else positive
    return True, True


def _negated(judged: tuple[bool, bool]) -> tuple[bool, bool]:
    may, must = judged
    return not must, not may


def _judge_existing(path: str, statistics: SegmentStatistics) -> tuple[bool, bool]:
    below = (path, *statistics.catalog.paths_below(path))
    counts = [statistics.bounds[f"{p}#{kind}"].count for p in below for kind in statistics.catalog.kinds(p)]
    return any(counts), statistics.n in counts


def _judge_leaf(leaf: Leaf, statistics: SegmentStatistics) -> tuple[bool, bool]:
    may = must = False
    for kind in statistics.catalog.kinds(leaf.path):
        bounds = statistics.bounds[f"{leaf.path}#{kind}"]
        if kind == "j":
            may = may or bounds.count > 0
            continue
        condition = condition_for(leaf, kind)
        if condition is None or not bounds.count:
            continue
        may = may or _overlaps(condition, bounds)
        # A list may be empty: that all its elements pass does not mean that the row does.
        must = must or (kind not in ELEMENT_KINDS and bounds.count == statistics.n and _covers(condition, bounds))
    return may, must


def _overlaps(condition: Condition, bounds: ColumnBounds) -> bool:
    if isinstance(condition, Interval):
        return condition.meet(Interval(bounds.low, bounds.high)) is not None
    if isinstance(condition, Members):
        inside = Interval(bounds.low, bounds.high)
        return any(inside.accepts(value) for value in condition.values)
    return True


def _covers(condition: Condition, bounds: ColumnBounds) -> bool:
    if not isinstance(condition, Interval):
        return False
    low = condition.low is None or (bounds.low is not None and condition.accepts(bounds.low))
    high = condition.high is None or (bounds.high is not None and condition.accepts(bounds.high))
    return low and high


__all__ = [
    "ColumnBounds",
    "SegmentStatistics",
    "collect_quantiles",
    "collect_statistics",
    "may_match",
]
