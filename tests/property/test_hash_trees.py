"""Replicas that hold the same records have equal hash trees, by whatever history; others have not.

PROPERTY_EXAMPLES=10000 .venv/bin/python -m pytest tests/property/test_hash_trees.py
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from omendb_common.shard_calls import State
from omendb_engine.hash_tree import HashTree, Sums
from omendb_engine.query.digests import widened
from tests.property.test_replicas_converge import IDS, ORDERS, RUN, Node, Step, histories, nodes, told

MOMENTS = st.integers(0, 61)
"""Stamps of histories are 1 to 60."""


class Watched(Node):
    """A replica whose tree is asked for between its writes, so that all there is to remember is remembered."""

    def hear(self, steps: list[Step], at_once: int) -> list[Step]:
        missing = super().hear(steps, at_once)
        self.replica.hash_trees.tree(random.Random(len(steps)).randint(0, 61), 0)
        return missing


def tree_of(node: Node, through: int = 61, floor: int = 0) -> HashTree:
    """The node's tree, which is that of a full scan."""
    found = node.replica.hash_trees.tree(through, floor)
    assert found.leaves == node.replica.hash_trees.scanned(through, floor).leaves, "what is remembered is not so"
    assert found.leaves == defined(node, through, floor), "the tree is not what its definition says"
    return found


def defined(node: Node, through: int, floor: int) -> Sums:
    """The leaves record by record, by looking every id up."""
    versions = node.replica.versions(IDS)
    hi, lo = IDS.hashes()
    out = Sums.zeros(1 << 16)
    for row in range(len(IDS)):
        stamp, state = int(versions.stamps[row]), State(versions.states[row])
        if state is State.ABSENT or stamp > through or (state is State.DELETED and stamp <= floor):
            continue
        at = slice(row, row + 1)
        leaf = np.array([int(lo[row]) >> 48])
        out.add(leaf, *widened(versions.digests()[at], hi[at], lo[at]))
    return out


@RUN
@given(steps=histories(updates=False), one=ORDERS, two=ORDERS, through=MOMENTS, floor=MOMENTS)
def test_equal_whatever_the_order(steps: list[Step], one: Any, two: Any, through: int, floor: int) -> None:
    with nodes(Watched) as (first, second):
        told(first, steps, one)
        told(second, steps, two)
        for node in (first, second):
            assert not node.replica.hash_trees.check(61).leaves
        assert tree_of(first, through, floor).leaves == tree_of(second, through, floor).leaves


@RUN
@given(steps=histories(updates=True), one=ORDERS, two=ORDERS)
def test_equal_once_the_records_are_and_not_before(steps: list[Step], one: Any, two: Any) -> None:
    with nodes(Watched) as (first, second):
        told(first, steps, one)
        told(second, steps, two)
        same = first.replica.versions(IDS).digests().tolist() == second.replica.versions(IDS).digests().tolist()
        assert (tree_of(first).leaves == tree_of(second).leaves) is same
        first.hear(told(first, steps, one), 1)
        second.hear(told(second, steps, two), 1)
        second.take(first.replica.versions(IDS).records())
        first.take(second.replica.versions(IDS).records())
        assert tree_of(first).leaves == tree_of(second).leaves


@RUN
@given(steps=histories(updates=True), order=ORDERS, depth=st.integers(0, 16), limit=st.integers(1, 3))
def test_the_entries_of_all_nodes_are_all_records(steps: list[Step], order: Any, depth: int, limit: int) -> None:
    with nodes(Watched) as (node, _):
        told(node, steps, order)
        found: dict[Any, tuple[int, ...]] = {}
        after = None
        while True:
            page = node.replica.hash_trees.entries(np.arange(1 << depth), depth, 0, after, limit)
            rows = zip(page.ids.to_list(), page.states, page.stamps, page.digests, strict=True)
            fresh = {point: tuple(map(int, rest)) for point, *rest in rows}
            assert not fresh.keys() & found.keys(), "a record stands on two pages"
            found |= fresh
            if (after := page.after) is None:
                break
        versions = node.replica.versions(IDS)
        columns = versions.states.tolist(), versions.stamps.tolist(), versions.digests().tolist()
        known = dict(zip(IDS.to_list(), zip(*columns, strict=True), strict=True))
        assert found == {point: told for point, told in known.items() if told[0] != State.ABSENT}
