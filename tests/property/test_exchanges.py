"""Replicas that heard of any writes, and missed any others, are equal after they were brought together.

PROPERTY_EXAMPLES=2000 .venv/bin/python -m pytest tests/property/test_exchanges.py
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from omendb_common.shard_calls import ShardRef
from omendb_datanode.config import RepairSettings
from omendb_datanode.engine_threads import EngineThreads
from omendb_datanode.hosted import Hosted
from omendb_datanode.replicate.exchange import Exchange
from omendb_datanode.replicate.pace import Pace
from omendb_datanode.replicate.together import bring_together
from omendb_datanode.shard_rules import ShardRules
from tests.property.test_replicas_converge import ORDERS, RUN, SCHEMA, Node, Step, histories, told
from tests.unit.datanode.datanode_cases import Map, TurnedClock

SHARD = ShardRef(SCHEMA.uuid, 0, 1, 0)
SETTINGS = RepairSettings(bytes_per_s=1 << 40, batch_rows=2)
CLOCK = TurnedClock()
END = CLOCK.stamp()


@contextmanager
def three() -> Iterator[list[Node]]:
    """Three replicas of one shard."""
    with tempfile.TemporaryDirectory() as folder:
        nodes = [Node(f"{folder}/{n}") for n in range(3)]
        try:
            yield nodes
        finally:
            for node in nodes:
                node.replica.close()


def rules_of(node: Node) -> ShardRules:
    """The rules over a replica, without threads."""
    replicas = Map({(SCHEMA.uuid, 0): Hosted(node.replica, 1)}, revision=1)
    return ShardRules(replicas, CLOCK, EngineThreads(readers=0, writers=0))


@RUN
@given(
    steps=histories(updates=True),
    heard=st.lists(st.sets(st.integers(0, 2)), min_size=10, max_size=10),
    order=ORDERS,
)
def test_whoever_missed_what_all_end_up_equal(steps: list[Step], heard: list[set[int]], order: Any) -> None:
    with three() as nodes:
        for number, node in enumerate(nodes):
            told(node, [step for step, some in zip(steps, heard, strict=False) if number in some], order)
        first, *others = map(rules_of, nodes)
        exchanges = {
            str(number): Exchange(first, other, SHARD, 0, CLOCK, Pace(CLOCK, SETTINGS), SETTINGS)
            for number, other in enumerate(others)
        }
        done = asyncio.run(bring_together(exchanges, END))
        assert done.equal
        assert nodes[0].dump() == nodes[1].dump() == nodes[2].dump()
        trees = [node.replica.hash_trees.tree(END, 0) for node in nodes]
        assert trees[0].leaves == trees[1].leaves == trees[2].leaves
