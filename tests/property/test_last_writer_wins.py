"""Operations with stamps of their own give the same points in any order, repeated or not (last writer wins)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows
from omendb_common.records import Op, WriteBatch
from omendb_common.schema import CollectionSchema, VectorField
from omendb_engine.apply import PartStore
from omendb_engine.query.answer import Picked
from tests.unit.engine.engine_cases import live_ids, schema_of

SCHEMA = schema_of(VectorField(2, "l2"), VectorField(2, "cosine", "int8", "small"))
KEYS = ("a", "b")
QUICK = settings(max_examples=150, deadline=None, derandomize=True)


@dataclass(frozen=True)
class Write:
    """One row of an operation. ``payload`` None leaves it alone (updates); ``vector`` None likewise."""

    op: Op
    point: int
    stamp: int
    vector: tuple[int, int] | None = None
    payload: tuple[tuple[str, int], ...] = ()
    unset: tuple[str, ...] = ()


def batch_of(writes: list[Write], own_stamps: bool) -> WriteBatch:
    """The rows of one operation; all have the shape of the first."""
    first = writes[0]
    ids = IdColumn.of([w.point for w in writes])
    stamps = np.array([w.stamp for w in writes], np.uint64) if own_stamps else None
    if first.op is Op.DELETE:
        return WriteBatch(Op.DELETE, ids, stamps=stamps)
    vectors: dict[str, Any] = {}
    if first.vector is not None:
        vectors[""] = np.array([w.vector for w in writes], np.float32)
    if first.op is Op.UPSERT:
        vectors["small"] = np.array([w.vector for w in writes]).astype(np.int8)
    payload = columns_from_rows([dict(w.payload) for w in writes])
    return WriteBatch(first.op, ids, vectors, payload, stamps, first.unset)


def fold(writes: list[Write]) -> dict[int, tuple[Any, ...]]:
    """The definition: per point the greatest upsert and delete, per field the greatest stamp that wrote it."""
    out: dict[int, tuple[Any, ...]] = {}
    for point in {w.point for w in writes}:
        mine = sorted({w for w in writes if w.point == point}, key=lambda w: w.stamp)
        base = max((w.stamp for w in mine if w.op is Op.UPSERT), default=0)
        dead = max((w.stamp for w in mine if w.op is Op.DELETE), default=0)
        if base <= dead:
            continue
        vector: Any = None
        small: Any = None
        payload: dict[str, int] = {}
        for write in mine:
            if write.stamp == base:
                vector, small, payload = write.vector, write.vector, dict(write.payload)
            elif write.stamp > base and write.op is Op.UPDATE:
                vector = write.vector if write.vector is not None else vector
                payload = {k: v for k, v in payload.items() if k not in write.unset} | dict(write.payload)
        updates = [w for w in mine if w.op is Op.UPDATE and (w.vector is not None or w.payload or w.unset)]
        latest = max([base, *(w.stamp for w in updates)])
        out[point] = (vector, small, tuple(sorted(payload.items())), latest)
    return out


def shown(store: PartStore) -> dict[int, tuple[Any, ...]]:
    """The same of a store."""
    snapshot = store.snapshot
    counts = live_ids(snapshot)
    assert set(counts.values()) <= {1} and snapshot.live == len(counts)
    if not counts:
        return {}
    ids = sorted(counts, key=str)
    located = snapshot.locate(*IdColumn.of(ids).hashes())
    assert located.found.all()
    picked = Picked(snapshot, located.part, located.row)
    rows = zip(
        ids,
        picked.vectors("", SCHEMA).tolist(),
        picked.vectors("small", SCHEMA).tolist(),
        picked.payload(),
        picked.stamps().tolist(),
        strict=True,
    )
    return {int(i): (tuple(v), tuple(s), tuple(sorted(p.items())), t) for i, v, s, p, t in rows}


def run(operations: list[list[Write]], *, capacity: int, own_stamps: bool) -> PartStore:
    """Apply operations one after the other, freezing buffers that are full."""
    store = PartStore(SCHEMA, [], lsn=0, buffer_rows=capacity)
    for lsn, writes in enumerate(operations, start=1):
        for group in [writes] if own_stamps else [[w] for w in writes]:
            if not store.has_room(len(group)):
                store.freeze(store.next_capacity(len(group)))
            store.apply(batch_of(group, own_stamps), 0 if own_stamps else group[0].stamp, lsn)
    return store


VECTORS = st.tuples(st.integers(-9, 9), st.integers(-9, 9))
PAYLOAD = st.dictionaries(st.sampled_from(KEYS), st.integers(0, 99), max_size=2).map(lambda d: tuple(sorted(d.items())))


@st.composite
def histories(draw: st.DrawFn, *, updates: bool) -> tuple[list[list[Write]], list[list[Write]]]:
    """Operations with stamps that no two share, and the same shuffled, some of them repeated."""
    count = draw(st.integers(1, 12))
    stamps = iter(draw(st.permutations(range(10, 10 + 4 * count))))
    operations: list[list[Write]] = []
    for _ in range(count):
        op = draw(st.sampled_from([Op.UPSERT, Op.UPDATE] if updates else [Op.UPSERT, Op.UPSERT, Op.DELETE]))
        points = draw(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))
        unset = tuple(draw(st.lists(st.sampled_from(KEYS), max_size=1))) if op is Op.UPDATE else ()
        with_vector = op is Op.UPSERT or (op is Op.UPDATE and draw(st.booleans()))
        operations.append(
            [
                Write(op, p, next(stamps), draw(VECTORS) if with_vector else None, draw(PAYLOAD), unset)
                if op is not Op.DELETE
                else Write(op, p, next(stamps))
                for p in points
            ]
        )
    again = draw(st.lists(st.sampled_from(operations), max_size=4))
    return operations, draw(st.permutations([*operations, *again]))


@QUICK
@given(history=histories(updates=False), capacity=st.integers(1, 20), own=st.booleans())
def test_upserts_and_deletes_commute(
    history: tuple[list[list[Write]], list[list[Write]]], capacity: int, own: bool
) -> None:
    operations, shuffled = history
    truth = fold([w for operation in operations for w in operation])
    assert shown(run(shuffled, capacity=capacity, own_stamps=own)) == truth


@QUICK
@given(history=histories(updates=True), capacity=st.integers(1, 20), own=st.booleans())
def test_partial_updates_commute_once_the_point_is_there(
    history: tuple[list[list[Write]], list[list[Write]]], capacity: int, own: bool
) -> None:
    """An update wins for its fields alone, whether the upsert that it beats comes before or after it."""
    operations, shuffled = history
    births = [[Write(Op.UPSERT, p, p + 1, (1, p), (("a", p),)) for p in range(4)]]
    truth = fold([w for operation in [*births, *operations] for w in operation])
    assert shown(run([*births, *shuffled], capacity=capacity, own_stamps=own)) == truth


@QUICK
@given(history=histories(updates=True))
def test_orders_that_grow_take_the_quick_path_to_the_same_end(
    history: tuple[list[list[Write]], list[list[Write]]],
) -> None:
    """With one growing stamp per operation nothing is compared; the result is the definition's all the same."""
    births = [[Write(Op.UPSERT, p, 1, (1, p), (("a", p),)) for p in range(4)]]
    operations = births + [
        [Write(w.op, w.point, 100 + at, w.vector, w.payload, w.unset) for w in operation]
        for at, operation in enumerate(history[0])
    ]
    quick = PartStore(SCHEMA, [], lsn=0, buffer_rows=100)
    for lsn, writes in enumerate(operations, start=1):
        assert quick._ordered(batch_of(writes, False), writes[0].stamp)
        quick.apply(batch_of(writes, False), writes[0].stamp, lsn)
    assert shown(quick) == fold([w for operation in operations for w in operation])
    slow = run(operations, capacity=100, own_stamps=True)
    assert shown(slow) == shown(quick)


def test_a_delete_older_than_an_update_but_newer_than_the_upsert_wins() -> None:
    """A point lives by its upsert: a partial update of it is no new birth."""
    store = PartStore(SCHEMA, [], lsn=0, buffer_rows=10)
    store.apply(batch_of([Write(Op.UPSERT, 1, 5, (1, 1))], False), 5, 1)
    store.apply(batch_of([Write(Op.UPDATE, 1, 9, (2, 2))], False), 9, 2)
    assert shown(store)[1][3] == 9
    store.apply(batch_of([Write(Op.DELETE, 1, 7)], False), 7, 3)
    assert shown(store) == {}
    store.apply(batch_of([Write(Op.UPSERT, 1, 6, (3, 3))], False), 6, 4)
    assert shown(store) == {}, "an upsert older than the tombstone must not bring the point back"


def test_an_update_of_nothing_changes_nothing() -> None:
    store = PartStore(SCHEMA, [], lsn=0, buffer_rows=10)
    applied = store.apply(batch_of([Write(Op.UPDATE, 1, 9, (2, 2), (("a", 1),))], False), 9, 1)
    assert (applied.count, store.snapshot.lsn, shown(store)) == (0, 1, {})
    store.apply(batch_of([Write(Op.UPSERT, 1, 10, (2, 2))], False), 10, 2)
    before = store.snapshot.parts[-1].n
    applied = store.apply(batch_of([Write(Op.UPDATE, 1, 11)], False), 11, 3)  # names no field
    assert applied.count == 1 and store.snapshot.parts[-1].n == before


def test_the_schema_is_the_one_that_the_fold_assumes() -> None:
    assert isinstance(SCHEMA, CollectionSchema) and [f.name for f in SCHEMA.vectors] == ["", "small"]
