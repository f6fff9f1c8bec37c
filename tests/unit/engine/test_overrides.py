"""Stamps per field: the columnar list against a dict of (row, field)."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_common.ids import IdColumn
from omendb_common.schema import CollectionSchema, VectorField
from omendb_engine.growing import GrowingBuffer
from omendb_engine.overrides import BASE, FieldStamps, StampLog, payload_field, payload_key, vector_field
from omendb_engine.vectors import prepare

FIELDS = ("", "payload:a", "vector:")
Entries = dict[tuple[int, str], int]
ENTRIES = st.dictionaries(st.tuples(st.integers(0, 9), st.sampled_from(FIELDS)), st.integers(1, 2**64 - 1), max_size=12)
QUICK = settings(max_examples=200, deadline=None, derandomize=True)


def made(entries: Entries) -> FieldStamps:
    """The list of some entries."""
    parts = [FieldStamps.constant(np.array([row]), field, stamp) for (row, field), stamp in entries.items()]
    return FieldStamps.concat(parts)


def shown(stamps: FieldStamps) -> Entries:
    """The entries of a list."""
    rows = zip(stamps.rows.tolist(), stamps.fields.tolist(), stamps.stamps.tolist(), strict=True)
    return {(row, field): stamp for row, field, stamp in rows}


@QUICK
@given(entries=ENTRIES, rows=st.lists(st.integers(0, 12), unique=True, max_size=9), by=st.integers(0, 100))
def test_rows_are_picked_renumbered_and_moved(entries: Entries, rows: list[int], by: int) -> None:
    stamps = made(entries)
    assert shown(stamps) == entries and (np.diff(stamps.rows) >= 0).all()
    place = {row: at for at, row in enumerate(rows)}
    picked = stamps.remap(np.array(rows, np.int64))
    assert shown(picked) == {(place[r], f): s for (r, f), s in entries.items() if r in place}
    found = stamps.at(np.array(rows, np.int64))
    assert shown(found) == shown(picked) and found.rows.dtype == np.int32
    assert shown(stamps.shifted(by)) == {(r + by, f): s for (r, f), s in entries.items()}


@QUICK
@given(entries=ENTRIES, other=ENTRIES, field=st.sampled_from(FIELDS))
def test_sets_of_entries(entries: Entries, other: Entries, field: str) -> None:
    stamps = made(entries)
    assert shown(stamps.minus(made(other))) == {k: s for k, s in entries.items() if k not in other}
    mine = {k: s for k, s in entries.items() if k[1] == field}
    assert shown(stamps.of_field(field)) == mine
    assert stamps.of_field(field).dense(10).tolist() == [mine.get((row, field), 0) for row in range(10)]
    late = {k: s for k, s in entries.items() if s > 7}
    assert shown(stamps.where(stamps.stamps > 7)) == late


@QUICK
@given(st.lists(ENTRIES, max_size=6))
def test_a_log_shows_what_was_added_and_keeps_what_was_seen(added: list[Entries]) -> None:
    log, expected, first = StampLog(), Entries(), 0
    seen = [(log.all(), Entries())]
    for entries in added:
        backwards = dict(reversed(entries.items()))
        log.add(made(backwards).shifted(first))
        expected |= {(row + first, field): stamp for (row, field), stamp in entries.items()}
        first += 10
        seen.append((log.all(), dict(expected)))
    for stamps, then in seen:
        assert shown(stamps) == then and (np.diff(stamps.rows) >= 0).all()


def test_what_a_look_costs_does_not_grow_with_the_log() -> None:
    """Every update looks at the stamps of its points: going through all of them made a stream of updates quadratic."""
    buffer = GrowingBuffer(-1, CollectionSchema("u", (VectorField(2),)), 1 << 15, 0)

    def update(first: int, n: int) -> None:
        ids = IdColumn(np.arange(first, first + n, dtype=np.uint64), None)
        vectors = {"": prepare(VectorField(2), np.ones((n, 2), np.float32))}
        buffer.append(ids, 7, vectors, None, FieldStamps.constant(np.arange(n), payload_field("a"), 9))

    def bytes_of_a_look() -> int:
        rows = np.array([3, buffer.n - 1])
        tracemalloc.start()
        try:
            assert shown(buffer.overrides().at(rows)) == {(0, "payload:a"): 9, (1, "payload:a"): 9}
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    update(0, 100)
    bytes_of_a_look()  # the first one makes what is made once
    before = bytes_of_a_look()
    for start in range(100, 30_000, 1300):
        update(start, 1300)
    assert bytes_of_a_look() < before + 4096


def test_nothing_is_nothing() -> None:
    none = FieldStamps.empty()
    assert len(none) == len(FieldStamps.concat([])) == len(FieldStamps.concat([none, none])) == 0
    assert len(none.remap(np.array([1]))) == len(none.minus(none)) == len(none.of_field(BASE)) == 0
    assert none.dense(3).tolist() == [0, 0, 0]


def test_names_of_fields() -> None:
    assert payload_key(payload_field("vector:x")) == "vector:x"
    assert payload_key(vector_field("payload:x")) is None and payload_key(BASE) is None
    assert payload_field("") != vector_field("") != BASE
