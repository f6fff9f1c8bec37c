"""Replicas that hear of the same writes, in any order and more than once, come to hold the same points.

Upserts and deletions need nothing else. A partial update of a point that a replica does not have is refused there, and
what one replica took it may lose by a late deletion: one exchange of whole records, both ways, makes them equal.

    PROPERTY_EXAMPLES=2000 .venv/bin/python -m pytest tests/property/test_replicas_converge.py
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.clock import SystemClock
from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows
from omendb_common.records import Op, WriteBatch, encode_batch
from omendb_common.schema import VectorField
from omendb_common.shard_calls import State
from omendb_engine.replica import Replica
from omendb_engine.resources import Resources
from omendb_engine.stamped import StampedResult, StampedWrite
from tests.unit.engine.engine_cases import UnsyncedDisk, check_invariants, schema_of, settings_of, state_of

EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "25"))
RUN = settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES <= 25)
SCHEMA = schema_of(VectorField(2, "l2"), VectorField(3, "cosine", "int8", "small"))
POINTS: list[Any] = [0, "one", 2, "three"]
IDS = IdColumn.of(POINTS)
KEYS = ("a", "b", "n")


@dataclass(frozen=True)
class Step:
    """One operation under one stamp; every row writes the same content, told apart by the stamp."""

    op: Op
    points: tuple[int, ...]
    stamp: int
    keys: tuple[str, ...] = ()
    unset: tuple[str, ...] = ()
    vector: bool = False

    def write(self) -> StampedWrite:
        """The operation as a router sends it."""
        ids = IdColumn.of([POINTS[p] for p in self.points])
        n = len(ids)
        if self.op is Op.DELETE:
            return StampedWrite(WriteBatch(Op.DELETE, ids), self.stamp)
        vectors: dict[str, Any] = {}
        if self.op is Op.UPSERT or self.vector:
            vectors[""] = np.full((n, 2), self.stamp, np.float32)
        if self.op is Op.UPSERT:
            vectors["small"] = np.full((n, 3), self.stamp % 100, np.int8)
        values: dict[str, Any] = {
            k: [self.stamp, f"x{self.stamp}", {"deep": [self.stamp]}][KEYS.index(k)] for k in self.keys
        }
        batch = WriteBatch(self.op, ids, vectors, columns_from_rows([values] * n), None, self.unset)
        body = encode_batch(batch) if self.stamp % 2 else None
        return StampedWrite(batch, self.stamp, body)


@st.composite
def histories(draw: st.DrawFn, *, updates: bool) -> list[Step]:
    """Operations that no two share a stamp of."""
    count = draw(st.integers(1, 10))
    stamps = draw(st.lists(st.integers(1, 60), min_size=count, max_size=count, unique=True))
    kinds = [Op.UPSERT, Op.UPSERT, Op.DELETE] + ([Op.UPDATE, Op.UPDATE] if updates else [])
    steps = []
    for stamp in stamps:
        op = draw(st.sampled_from(kinds))
        points = tuple(draw(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True)))
        keys = tuple(draw(st.lists(st.sampled_from(KEYS), max_size=3, unique=True))) if op is not Op.DELETE else ()
        unset = tuple(draw(st.lists(st.sampled_from(KEYS), max_size=1))) if op is Op.UPDATE else ()
        steps.append(Step(op, points, stamp, keys, unset, draw(st.booleans())))
    return steps


ORDERS = st.randoms(use_true_random=False)
CHORES = ("flush", "compact", "reopen", "nothing", "nothing")


class Node:
    """One replica, with a buffer so small that everything gets sealed and merged."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.settings = settings_of(rows=3)
        Replica.create(UnsyncedDisk(), path, SCHEMA, SystemClock())
        self.replica = self._open()

    def _open(self) -> Replica:
        resources = Resources(self.settings)
        return Replica.open(
            UnsyncedDisk(), self.path, SCHEMA.uuid, resources, self.settings, SystemClock(), keep_tombstones=True
        )

    def chore(self, name: str) -> None:
        """Something that may happen between two writes and must not be seen."""
        if name == "flush":
            self.replica.flush()
        elif name == "compact":
            self.replica.compact()
        elif name == "reopen":
            self.replica.close()
            self.replica = self._open()

    def hear(self, steps: list[Step], at_once: int) -> list[Step]:
        """Apply operations, some of them in one group; returns those that some point was missing for."""
        missing: list[Step] = []
        for start in range(0, len(steps), at_once):
            some = steps[start : start + at_once]
            for step, outcome in zip(some, self.replica.write_all([s.write() for s in some]), strict=True):
                assert isinstance(outcome, StampedResult), outcome
                missing += [step] if len(outcome.missing) else []
        return missing

    def take(self, records: tuple[WriteBatch, ...]) -> None:
        """Take over another replica's records."""
        for outcome in self.replica.write_all([StampedWrite(batch, 0) for batch in records]):
            assert isinstance(outcome, StampedResult), outcome

    def dump(self) -> tuple[Any, ...]:
        """All that can be known: versions, contents, digests."""
        versions = self.replica.versions(IDS)
        return versions.states.tolist(), versions.stamps.tolist(), versions.digests().tolist(), state_of(self.replica)


@contextmanager
def nodes(kind: type[Node] = Node) -> Iterator[tuple[Node, Node]]:
    """Two replicas of one shard."""
    with tempfile.TemporaryDirectory() as folder:
        pair = kind(f"{folder}/one"), kind(f"{folder}/two")
        try:
            yield pair
        finally:
            for node in pair:
                node.replica.close()


def told(node: Node, steps: list[Step], order: Any) -> list[Step]:
    """Let a node hear of everything, in some order, some of it twice, with chores in between."""
    mine = steps + [s for s in steps if order.random() < 0.3]
    order.shuffle(mine)
    missing: list[Step] = []
    while mine:
        cut = order.randint(1, len(mine))
        missing += node.hear(mine[:cut], order.randint(1, 4))
        mine = mine[cut:]
        node.chore(order.choice(CHORES))
        check_invariants(node.replica)
    return missing


def base_state(steps: list[Step], point: int) -> tuple[State, int]:
    """The definition: the newest upsert against the newest deletion."""
    base = max((s.stamp for s in steps if s.op is Op.UPSERT and point in s.points), default=0)
    dead = max((s.stamp for s in steps if s.op is Op.DELETE and point in s.points), default=0)
    if base > dead:
        return State.LIVE, base
    return (State.DELETED, dead) if dead else (State.ABSENT, 0)


@RUN
@given(steps=histories(updates=False), one=ORDERS, two=ORDERS)
def test_upserts_and_deletions_converge_by_themselves(steps: list[Step], one: Any, two: Any) -> None:
    with nodes() as (first, second):
        told(first, steps, one)
        told(second, steps, two)
        assert first.dump() == second.dump()
        versions = first.replica.versions(IDS)
        found = list(zip(versions.states.tolist(), versions.stamps.tolist(), strict=True))
        assert found == [base_state(steps, p) for p in range(4)]


@RUN
@given(steps=histories(updates=True), one=ORDERS, two=ORDERS)
def test_with_updates_one_exchange_of_records_makes_them_equal(steps: list[Step], one: Any, two: Any) -> None:
    with nodes() as (first, second):
        # A router that hears of missing points sends the update again, after the record.
        first.hear(told(first, steps, one), 1)
        second.hear(told(second, steps, two), 1)
        second.take(first.replica.versions(IDS).records())
        first.take(second.replica.versions(IDS).records())
        assert first.dump() == second.dump()
        assert first.replica.versions(IDS).states.tolist() == [base_state(steps, p)[0] for p in range(4)]
        before = first.dump(), first.replica.snapshot().lsn
        first.take(second.replica.versions(IDS).records())
        assert (first.dump(), first.replica.snapshot().lsn) == before, "what was known already was logged again"


@RUN
@given(steps=histories(updates=True), order=ORDERS)
def test_records_build_an_equal_replica_from_nothing(steps: list[Step], order: Any) -> None:
    with nodes() as (full, empty):
        told(full, steps, order)
        empty.take(full.replica.versions(IDS).records())
        assert empty.dump() == full.dump()
