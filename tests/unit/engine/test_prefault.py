"""Memory is asked for ahead of a growing buffer's writes: each row once, and nothing in it changes."""

from __future__ import annotations

import numpy as np
import pytest

from omendb_common.ids import IdColumn
from omendb_common.schema import CollectionSchema, VectorField
from omendb_engine.growing import GrowingBuffer
from omendb_engine.prefault import populate
from omendb_engine.vectors import prepare

SCHEMA = CollectionSchema("5f0b4e3e-0000-4000-8000-000000000000", (VectorField(128),))


@pytest.mark.parametrize("rows", [0, 1, 100, 30_000])
def test_what_was_written_stays(rows: int) -> None:
    array = np.empty((rows, 128), np.float32)
    array[::7] = 1.5
    populate(array)
    assert (array[::7] == 1.5).all()


def grown(buffer: GrowingBuffer, rows: int) -> None:
    vectors = np.zeros((rows, 128), np.float32)
    ids = IdColumn.of(np.arange(buffer.n, buffer.n + rows))
    buffer.append(ids, 1, {"": prepare(SCHEMA.vectors[0], vectors)}, None)


@pytest.mark.parametrize("whole", [False, True])
def test_each_row_is_asked_for_once_and_before_it_is_written(whole: bool) -> None:
    buffer = GrowingBuffer(-1, SCHEMA, 20_000, 0)
    asked = 0
    while buffer.room():
        grown(buffer, 1000)
        first, stop = buffer.cold_rows(whole=whole)
        assert first >= asked or not stop
        asked = max(asked, stop)
        assert asked > buffer.n or asked == buffer.capacity
    assert buffer.cold_rows(whole=whole) == (0, 0)


def test_a_small_buffer_asks_for_nothing() -> None:
    buffer = GrowingBuffer(-1, SCHEMA, 20_000, 0)
    grown(buffer, 10)
    assert buffer.cold_rows(whole=False) == (0, 0)
