"""A filter evaluated over payload columns, exactly, into a set of rows.

The cheapest way is chosen from exact counts: a rare value is looked up in a sorted index, a common one is
compared in one vectorised pass, and under AND the rarest condition comes first and the others are tested on
its rows only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from omendb_common.filters import And, Compare, Contains, Exists, Filter, Geo, In, IsNull, Not, Or, StartsWith
from omendb_common.payload import Kind
from omendb_engine.payload.conditions import ELEMENT_KINDS, Condition, Leaf, condition_for, meet_all
from omendb_engine.payload.scan import Mask, compare, scan, valid_mask, values_of_buffer
from omendb_engine.payload.sorted_index import SortedIndex, Spans
from omendb_engine.payload.store import ColumnStore
from omendb_engine.query.places import lie_in
from omendb_engine.query.rowset import SPARSE_FRACTION, RowSet

_LEAVES = (Compare, In, Contains, StartsWith)
_JSON_KINDS: tuple[tuple[type, Kind], ...] = ((bool, "b"), (int, "i"), (float, "f"), (str, "s"))
Rows = npt.NDArray[np.int64]


def evaluate(node: Filter, store: ColumnStore) -> RowSet:
    """The rows of ``store`` that ``node`` matches, exactly.

    ``node`` must be within the limits (``check_filter``). The result shares no memory that anyone writes to.
    """
    if isinstance(node, And):
        return _conjunction(node, store)
    if isinstance(node, Or):
        return _union([evaluate(child, store) for child in node.children], store.n)
    if isinstance(node, Not):
        return ~evaluate(node.child, store)
    if isinstance(node, Exists):
        return _existing(node.path, store)
    if isinstance(node, IsNull):
        return ~_existing(node.path, store)
    if isinstance(node, Geo):
        rows = evaluate(node.around(), store).rows()
        return RowSet.of_rows(rows[lie_in(node, store, rows)], store.n)
    if isinstance(node, _LEAVES):
        found = _union([probe.rows() for probe in _probes((node,), store)], store.n)
        return ~found if _is_negative(node) else found
    return RowSet.all(store.n)


def _is_negative(leaf: Leaf) -> bool:
    return (isinstance(leaf, Compare) and leaf.op == "ne") or (isinstance(leaf, In) and leaf.negate)


def _union(sets: Sequence[RowSet], n: int) -> RowSet:
    result = RowSet.none(n)
    for place, rows in enumerate(sets):
        result = rows if place == 0 else result | rows
    return result


def _existing(path: str, store: ColumnStore) -> RowSet:
    mask = np.zeros(store.n, np.bool_)
    for below in (path, *store.paths_below(path)):
        for kind in store.kinds(below):
            start = 0
            for chunk in store.chunks(below, kind):
                mask[start : start + len(chunk)] |= valid_mask(chunk)
                start += len(chunk)
    return RowSet.of_mask(mask)


@dataclass(slots=True)
class _Probe:
    """One condition on one column, with the column's index where it has one."""

    store: ColumnStore
    path: str
    kind: Kind
    leaves: tuple[Leaf, ...]
    condition: Condition | None
    index: SortedIndex | None
    spans: Spans | None

    @property
    def count(self) -> int | None:
        """Values that pass (at least as many as rows); None when only a scan can tell."""
        return None if self.spans is None else self.spans.count

    def rows(self) -> RowSet:
        """The rows that pass."""
        n, count = self.store.n, self.count
        if self.index is not None and self.spans is not None and count is not None and count * SPARSE_FRACTION <= n:
            return RowSet.of_rows(self.index.rows(self.spans), n)
        if self.index is not None and self.condition is not None:
            mask = self.index.text_mask(self.condition)
            if mask is not None:
                return RowSet.of_mask(mask)
        mask = np.zeros(n, np.bool_)
        start = 0
        for chunk in self.store.chunks(self.path, self.kind):
            mask[start : start + len(chunk)] = self._scan(chunk)
            start += len(chunk)
        return RowSet.of_mask(mask)

    def test(self, rows: Rows) -> Mask:
        """Which of ``rows`` pass."""
        if self.index is not None and self.condition is not None:
            mask = self.index.text_mask(self.condition, rows)
            if mask is not None:
                return mask
        if self.kind in ("i", "f", "t") and self.condition is not None:
            # Straight from the column's buffer where it is whole and has no nulls: a fifth of the cost of a take.
            first = next(iter(self.store.chunks(self.path, self.kind)), None)
            if first is not None and len(first) == self.store.n and not first.null_count:
                return compare(values_of_buffer(first, self.kind)[rows], self.condition)
        values = self.store.gather(self.path, self.kind, rows)
        return np.zeros(len(rows), np.bool_) if values is None else self._scan(values)

    def _scan(self, values: Any) -> Mask:
        if self.kind == "j":
            return _scan_json(values, self.leaves)
        return np.zeros(len(values), np.bool_) if self.condition is None else scan(values, self.kind, self.condition)


def _probes(leaves: tuple[Leaf, ...], store: ColumnStore) -> list[_Probe]:
    """One probe for each kind of column at the leaves' path in which a value can pass all of them."""
    path = leaves[0].path
    probes = []
    for kind in store.kinds(path):
        if kind == "j":
            probes.append(_Probe(store, path, kind, leaves, None, None, None))
            continue
        condition = condition_for(leaves[0], kind) if len(leaves) == 1 else meet_all(leaves, kind)
        if condition is None:
            continue
        index = store.index(path, kind)
        spans = None if index is None else index.spans(condition)
        probes.append(_Probe(store, path, kind, leaves, condition, index, spans))
    return probes


def _scan_json(values: Any, leaves: Sequence[Leaf]) -> Mask:
    """Test JSON values one at a time: lists by any scalar element, objects never."""
    tests = [_element_test(leaf) for leaf in leaves]
    mask = np.zeros(len(values), np.bool_)
    for row, text in enumerate(values.to_pylist()):
        elements = json.loads(text) if text is not None else ()
        if isinstance(elements, list):
            mask[row] = all(any(map(test, elements)) for test in tests)
    return mask


def _element_test(leaf: Leaf) -> Callable[[Any], bool]:
    # Asked of a list column's element: contains means equals there.
    asked = Compare(leaf.path, "eq", leaf.value) if isinstance(leaf, Contains) else leaf
    conditions = {kind: condition_for(asked, kind) for _, kind in _JSON_KINDS}

    def passes(element: Any) -> bool:
        for python_type, kind in _JSON_KINDS:
            if isinstance(element, python_type):
                condition = conditions[kind]
                return condition is not None and condition.accepts(element)
        return False

    return passes


@dataclass(slots=True)
class _Term:
    """One child of a conjunction: conditions on one path, or any other filter."""

    node: Filter
    probes: list[_Probe] | None

    @property
    def count(self) -> int | None:
        """Upper bound of the rows that pass, where indexes tell."""
        if self.probes is None:
            return None
        counts = [probe.count for probe in self.probes]
        return None if None in counts else sum(c for c in counts if c is not None)

    def rows(self, store: ColumnStore) -> RowSet:
        """The rows that pass."""
        if self.probes is None:
            return evaluate(self.node, store)
        return _union([probe.rows() for probe in self.probes], store.n)

    def test(self, store: ColumnStore, rows: Rows) -> Mask:
        """Which of ``rows`` pass."""
        if self.probes is None:
            return _test(self.node, store, rows)
        return _any([probe.test(rows) for probe in self.probes], len(rows))


def _conjunction(node: And, store: ColumnStore) -> RowSet:
    """Rarest term first; as soon as few rows are left, the other terms are tested on those only."""
    n = store.n
    terms = sorted(_terms(node, store), key=lambda term: n + 1 if term.count is None else term.count)
    result: RowSet | None = None
    for term in terms:
        if result is None:
            result = term.rows(store)
        elif result.count * SPARSE_FRACTION <= n:
            rows = result.rows()
            result = RowSet.of_rows(rows[term.test(store, rows)], n)
        else:
            result = result & term.rows(store)
        if not result.count:
            return RowSet.none(n)
    assert result is not None
    return result


def _terms(node: And, store: ColumnStore) -> list[_Term]:
    """The children, with comparisons of one path joined into one interval where each row has one value."""
    terms: list[_Term] = []
    ranges: dict[str, list[Leaf]] = {}
    for child in node.children:
        if not isinstance(child, _LEAVES) or _is_negative(child):
            terms.append(_Term(child, None))
        elif isinstance(child, Compare) and _is_single_valued(child.path, store):
            ranges.setdefault(child.path, []).append(child)
        else:
            terms.append(_Term(child, _probes((child,), store)))
    return terms + [_Term(leaves[0], _probes(tuple(leaves), store)) for leaves in ranges.values()]


def _is_single_valued(path: str, store: ColumnStore) -> bool:
    # On a list, each comparison may be passed by another element.
    return not any(kind in ELEMENT_KINDS or kind == "j" for kind in store.kinds(path))


def _test(node: Filter, store: ColumnStore, rows: Rows) -> Mask:
    """Which of ``rows`` a filter matches."""
    if isinstance(node, And):
        kept = np.arange(len(rows))
        for child in node.children:
            kept = kept[_test(child, store, rows[kept])]
        mask = np.zeros(len(rows), np.bool_)
        mask[kept] = True
        return mask
    if isinstance(node, Or):
        return _any([_test(child, store, rows) for child in node.children], len(rows))
    if isinstance(node, Not):
        return ~_test(node.child, store, rows)
    if isinstance(node, Exists):
        return _test_existing(node.path, store, rows)
    if isinstance(node, IsNull):
        return ~_test_existing(node.path, store, rows)
    if isinstance(node, Geo):
        return lie_in(node, store, rows)
    if isinstance(node, _LEAVES):
        mask = _any([probe.test(rows) for probe in _probes((node,), store)], len(rows))
        return ~mask if _is_negative(node) else mask
    return np.ones(len(rows), np.bool_)


def _any(masks: Sequence[Mask], n: int) -> Mask:
    result = np.zeros(n, np.bool_)
    for mask in masks:
        result |= mask
    return result


def _test_existing(path: str, store: ColumnStore, rows: Rows) -> Mask:
    mask = np.zeros(len(rows), np.bool_)
    for below in (path, *store.paths_below(path)):
        for kind in store.kinds(below):
            values = store.gather(below, kind, rows)
            if values is not None:
                mask |= valid_mask(values)
    return mask


__all__ = ["evaluate"]
