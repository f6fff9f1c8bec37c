"""Stamps per field: the columnar list against a dict of (row, field)."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from omendb_engine.overrides import BASE, FieldStamps, payload_field, payload_key, vector_field

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


def test_nothing_is_nothing() -> None:
    none = FieldStamps.empty()
    assert len(none) == len(FieldStamps.concat([])) == len(FieldStamps.concat([none, none])) == 0
    assert len(none.remap(np.array([1]))) == len(none.minus(none)) == len(none.of_field(BASE)) == 0
    assert none.dense(3).tolist() == [0, 0, 0]


def test_names_of_fields() -> None:
    assert payload_key(payload_field("vector:x")) == "vector:x"
    assert payload_key(vector_field("payload:x")) is None and payload_key(BASE) is None
    assert payload_field("") != vector_field("") != BASE
