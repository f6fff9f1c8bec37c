"""Applying operations to parts: kills are remembered where a seal needs them, and every path tells the same story."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows
from omendb_common.records import Op, WriteBatch
from omendb_common.schema import VectorField
from omendb_engine.apply import TOMBSTONE_BYTES, PartStore, take_batch
from omendb_engine.buffer_memory import BufferPool
from omendb_engine.overrides import BASE
from tests.unit.engine.engine_cases import live_ids, schema_of, vectors_of

SCHEMA = schema_of(VectorField(3))


def upsert(ids: Any, payload: Any = None, stamps: Any = None) -> WriteBatch:
    """An upsert of random vectors."""
    column = IdColumn.of(ids)
    columns = None if payload is None else columns_from_rows(payload)
    own = None if stamps is None else np.array(stamps, np.uint64)
    return WriteBatch(Op.UPSERT, column, {"": vectors_of(len(column), 3)}, columns, own)


def delete(ids: Any) -> WriteBatch:
    """A delete."""
    return WriteBatch(Op.DELETE, IdColumn.of(ids))


def store_of(rows: int = 4) -> PartStore:
    """An empty store."""
    return PartStore(SCHEMA, [], lsn=7, buffer_rows=rows)


def test_counts_of_what_was_written_and_what_had_existed() -> None:
    store = store_of(10)
    assert (applied := store.apply(upsert([1, 2, 3]), 10, 8)).count == 3 and applied.existed == 0
    assert (applied := store.apply(upsert([3, 4]), 11, 9)).count == 2 and applied.existed == 1
    assert store.apply(delete([1, 9]), 12, 10).count == 1
    assert store.snapshot.lsn == 10 and store.snapshot.live == 3 and store.max_stamp == 12
    assert dict(live_ids(store.snapshot)) == {2: 1, 3: 1, 4: 1}
    store.skip(11)
    assert store.snapshot.lsn == 11 and store.snapshot.live == 3


def test_the_active_buffer_remembers_kills_of_others_only() -> None:
    store = store_of()
    store.apply(upsert([1, 2, 3, 4]), 10, 8)
    first = store.active
    store.freeze(4)
    store.apply(upsert([3, 5]), 11, 9)
    store.apply(delete([1, 5]), 12, 10)
    assert {k: sorted(np.concatenate(v).tolist()) for k, v in store.active.kills.items()} == {first.part_id: [0, 2]}
    assert first.kills == {} and first.dead_at_freeze.count == 0 and first.end_lsn == 8
    assert store.active.start_lsn == 8
    assert store.frozen()[0].buffer is first


def test_kills_and_dead_rows_move_into_the_part_that_replaces_theirs() -> None:
    store = store_of()
    store.apply(upsert([1, 2, 3, 4]), 10, 8)
    old = store.active.part_id
    store.freeze(4)
    store.apply(upsert([20, 21]), 11, 9)
    middle = store.active.part_id
    store.freeze(4)
    store.apply(delete([2, 20]), 12, 10)
    before = store.snapshot
    # A part of the same points in another order, as a merge makes it; row 3 of the old one was left out.
    other = PartStore(SCHEMA, [], lsn=0, buffer_rows=8)
    other.apply(upsert([3, 21, 2, 1, 20]), 5, 1)
    new = other.snapshot.parts[-1]
    maps = {old: np.array([3, 2, 0, -1], np.int32), middle: np.array([4, 1], np.int32)}
    store.replace([old, middle], new, maps)
    assert [p.part_id for p in store.snapshot.parts] == [new.part_id, store.active.part_id]
    assert sorted(store.snapshot.parts[0].dead.rows().tolist()) == [2, 4]
    assert sorted(np.concatenate(store.active.kills[new.part_id]).tolist()) == [2, 4]
    assert set(store.active.kills) == {new.part_id}
    assert dict(live_ids(store.snapshot)) == {3: 1, 21: 1, 1: 1}
    assert [p.part_id for p in before.parts][:2] == [old, middle], "an older snapshot must not change"
    assert before.locate(*IdColumn.of([1, 2, 4]).hashes()).found.tolist() == [True, False, True]


def test_a_part_that_nothing_replaces_takes_its_kills_along() -> None:
    store = store_of()
    store.apply(upsert([1]), 10, 8)
    old = store.active.part_id
    store.freeze(4)
    store.apply(delete([1]), 11, 9)
    store.replace([old], None, {old: np.array([-1], np.int32)})
    assert store.active.kills == {} and len(store.snapshot.parts) == 1 and store.snapshot.live == 0


def test_an_update_of_points_in_several_parts() -> None:
    """Sources: a frozen buffer and the active one; each point keeps what the update does not name."""
    store = store_of()
    store.apply(upsert([1, 2, 3], [{"a": 1, "t": "x"}, {"a": 2}, {"b": True}]), 10, 8)
    store.freeze(8)
    store.apply(upsert([4], [{"a": 4, "n": {"u": 1}}]), 11, 9)
    batch = WriteBatch(
        Op.UPDATE, IdColumn.of([4, 99, 1, 3]), {}, columns_from_rows([{"a": 9}, {}, {"n": {"v": 2}}, {}])
    )
    applied = store.apply(batch, 12, 10)
    assert applied.count == 3, "points that are there, changed or not"
    found = store.snapshot.locate(*IdColumn.of([1, 2, 3, 4]).hashes())
    payloads = [
        store.snapshot.parts[p].columns().payloads(np.array([r]))[0]
        for p, r in zip(found.part.tolist(), found.row.tolist(), strict=True)
    ]
    assert payloads == [{"a": 1, "t": "x", "n": {"v": 2}}, {"a": 2}, {"b": True}, {"a": 9, "n": {"u": 1}}]
    fields = store.snapshot.parts[-1].overrides()
    entries = sorted(zip(fields.rows.tolist(), fields.fields.tolist(), fields.stamps.tolist(), strict=True))
    row_of = {i: int(r) for i, p, r in zip([1, 2, 3, 4], found.part.tolist(), found.row.tolist(), strict=True)}
    assert entries == sorted(
        [(row_of[4], BASE, 11), (row_of[4], "payload:a", 12), (row_of[1], BASE, 10), (row_of[1], "payload:n", 12)]
    )


def test_a_plan_gives_what_the_operation_would() -> None:
    """The writer plans an update before it is logged, a reader of the log applies it at once."""
    stores = [store_of(20) for _ in range(2)]
    batch = WriteBatch(Op.UPDATE, IdColumn.of([2, 1]), {"": vectors_of(2, 3, seed=5)}, None, None, ("a",))
    for number, store in enumerate(stores):
        store.apply(upsert([1, 2], [{"a": 1}, {"a": 2, "b": 3}]), 10, 8)
        plan = store.plan_update(batch) if number else None
        if plan is not None:
            assert store.extra_bytes(batch, plan) == plan.payload_bytes
            store.freeze(20)  # as making room between the two does
        assert store.apply(batch, 11, 9, plan=plan).count == 2
    shown = []
    for store in stores:
        part = store.snapshot.parts[-1]
        rows = np.flatnonzero(part.dead.alive())
        order = np.argsort([str(i) for i in part.ids_at(rows).to_list()])
        shown.append(
            (part.columns().payloads(rows[order]), part.space("")[rows[order]].tolist(), part.stamps_at(rows).tolist())  # type: ignore[union-attr]
        )
    assert shown[0] == shown[1] and shown[0][0] == [{}, {"b": 3}]


def test_stamps_of_their_own_are_folded_row_by_row() -> None:
    store = store_of(20)
    store.apply(upsert([1, 2, 3], stamps=[50, 60, 70]), 0, 8)
    applied = store.apply(upsert([1, 2, 3, 4], stamps=[49, 61, 70, 5]), 0, 9)
    # Of two under one stamp the one that comes as a record stays: who logged it decided so.
    assert (applied.count, applied.existed, store.snapshot.live, store.max_stamp) == (3, 2, 4, 70)
    found = store.snapshot.locate(*IdColumn.of([1, 2, 3, 4]).hashes())
    assert store.snapshot.parts[-1].stamps_at(found.row).tolist() == [50, 61, 70, 5]


def test_room_counts_deletions_too() -> None:
    store = store_of(4)
    assert store.has_room(4) and not store.has_room(5)
    store.apply(delete([1, 2, 3]), 9, 8)
    assert store.has_room(4)
    store.apply(delete([4]), 10, 9)
    assert not store.has_room(0), "a buffer full of tombstones must end"
    assert store.extra_bytes(delete([1, 2]), None) == 2 * TOMBSTONE_BYTES
    store.freeze(store.next_capacity(9))
    assert store.active.capacity == 9 and store.has_room(9)


def test_room_counts_payload_too() -> None:
    """A column of 2 GiB of text cannot be sealed, so a buffer ends long before."""
    store = PartStore(SCHEMA, [], lsn=0, buffer_rows=1000, extra_bytes_max=5000)
    for lsn in range(1, 4):
        batch = upsert([lsn], [{"t": "x" * 2000}])
        assert store.has_room(1)
        store.active.reserved_bytes += store.extra_bytes(batch, None)
        store.apply(batch, lsn, lsn)
    assert not store.has_room(1)
    store.freeze(1000)
    assert store.has_room(1)


def test_spare_memory_may_go_at_any_moment() -> None:
    """Background work clears it while the writer takes from it."""
    pool = BufferPool(SCHEMA)
    stop = threading.Event()

    def clear() -> None:
        while not stop.is_set():
            pool.clear()

    thread = threading.Thread(target=clear)
    thread.start()
    for _ in range(3000):
        pool.give(memory := pool.take(2))
        assert memory.capacity == 2
    stop.set()
    thread.join(20)


def test_taking_rows_of_a_batch_takes_all_its_columns() -> None:
    batch = upsert([1, "b", 3], [{"a": 1}, {"a": 2}, None], stamps=[7, 8, 9])
    taken = take_batch(batch, np.array([2, 0]))
    assert taken.ids.to_list() == [3, 1] and taken.stamps is not None and taken.stamps.tolist() == [9, 7]
    assert taken.payload is not None and taken.payload.column("a#i").to_pylist() == [None, 1]
    np.testing.assert_array_equal(taken.vectors[""], batch.vectors[""][[2, 0]])
