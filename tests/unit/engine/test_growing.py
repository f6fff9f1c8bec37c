"""The growing buffer: what was appended comes back, to readers of any length, with kills and memory accounted."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from omendb_common.ids import IdColumn
from omendb_common.payload import columns_from_rows
from omendb_common.schema import METRICS, VECTOR_DTYPES, Metric, VectorDType, VectorField
from omendb_engine.growing import GrowingBuffer, row_bytes
from omendb_engine.overrides import FieldStamps
from omendb_engine.parts import BufferPart
from omendb_engine.segment.deletes import Deletes
from omendb_engine.vectors import prepare
from tests.unit.engine.engine_cases import schema_of

SCHEMA = schema_of(VectorField(4))


def append(buffer: GrowingBuffer, ids: list[Any], stamp: int = 1, payload: list[Any] | None = None) -> int:
    """Append points whose vectors follow from their row numbers."""
    first = buffer.n
    vectors = {"": prepare(SCHEMA.vectors[0], rows_of(first, first + len(ids)))}
    columns = None if payload is None else columns_from_rows(payload)
    return buffer.append(IdColumn.of(ids), stamp, vectors, columns)


def rows_of(first: int, stop: int) -> Any:
    """The vectors of rows."""
    return np.repeat(np.arange(first, stop, dtype=np.float32)[:, None], 4, axis=1)


def test_a_view_shows_its_own_rows_and_no_later_ones() -> None:
    buffer = GrowingBuffer(-1, SCHEMA, 100, 5)
    append(buffer, [1, "a"], 10, [{"x": 1}, None])
    early = BufferPart(buffer, 2, Deletes.none(2))
    append(buffer, ["a", 9], 20, [{"x": 7, "late": True}, None])
    late = BufferPart(buffer, 4, Deletes.none(4))
    hashes = IdColumn.of([1, "a", 9]).hashes()
    assert early.lookup(*hashes).tolist() == [0, 1, -1]
    assert late.lookup(*hashes).tolist() == [0, 2, 3]
    assert early.all_ids().to_list() == [1, "a"] and late.all_ids().to_list() == [1, "a", "a", 9]
    assert early.columns().payloads(np.arange(2)) == [{"x": 1}, {}]
    assert late.columns().payloads(np.arange(4)) == [{"x": 1}, {}, {"x": 7, "late": True}, {}]
    assert early.columns().n == 2 and early.space("").shape == (2, 4)
    assert late.ids_at(np.array([3, 0, 2])).to_list() == [9, 1, "a"]
    assert late.stamps_at(np.array([0, 3])).tolist() == [10, 20]
    assert buffer.room() == 96 and (buffer.start_lsn, buffer.end_lsn) == (5, 5)


def test_ids_of_few_and_of_many_rows_agree() -> None:
    buffer = GrowingBuffer(-1, SCHEMA, 400, 0)
    for start in range(0, 300, 7):
        append(buffer, [f"id{i}" if i % 3 else i for i in range(start, start + 7)])
    part = BufferPart(buffer, buffer.n, Deletes.none(buffer.n))
    rows = np.random.default_rng(0).permutation(buffer.n)
    whole = part.ids_at(rows).to_list()
    assert whole == [part.ids_at(np.array([r])).to_list()[0] for r in rows.tolist()]
    assert part.ids_at(rows[:0]).to_list() == []


def test_tombstones_are_found_and_the_newest_counts() -> None:
    buffer = GrowingBuffer(-1, SCHEMA, 10, 0)
    buffer.bury(IdColumn.of([1, 2]), np.array([5, 6], np.uint64))
    buffer.bury(IdColumn.of([2, "x"]), np.array([9, 4], np.uint64))
    part = BufferPart(buffer, 0, Deletes.none(0))
    assert part.tombstone_stamps(*IdColumn.of([1, 2, "x", 77]).hashes()).tolist() == [5, 9, 4, 0]
    assert buffer.tombstone_rows == 4


def test_overrides_move_with_their_rows() -> None:
    buffer = GrowingBuffer(-1, SCHEMA, 10, 0)
    append(buffer, [1, 2, 3])
    fields = FieldStamps.constant(np.array([1]), "payload:a", 8)
    vectors = {"": prepare(SCHEMA.vectors[0], rows_of(3, 5))}
    assert buffer.append(IdColumn.of([4, 5]), np.array([8, 9], np.uint64), vectors, None, fields) == 3
    found = buffer.overrides()
    assert (found.rows.tolist(), found.fields.tolist(), found.stamps.tolist()) == ([4], ["payload:a"], [8])


def test_a_buffer_of_no_capacity_takes_only_deletions() -> None:
    buffer = GrowingBuffer(-1, SCHEMA, 0, 0)
    assert buffer.room() == 0 and buffer.reserved_bytes == 0
    buffer.record_kill(3, np.array([1]))
    part = BufferPart(buffer, 0, Deletes.none(0))
    assert part.lookup(*IdColumn.of([1]).hashes()).tolist() == [-1]
    assert part.all_ids().to_list() == [] and part.columns().n == 0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", VECTOR_DTYPES)
def test_the_reserved_bytes_cover_the_columns(metric: Metric, dtype: VectorDType) -> None:
    schema = schema_of(VectorField(8, metric, dtype))
    capacity = 50_000
    buffer = GrowingBuffer(-1, schema, capacity, 0)
    columns = buffer.vectors
    arrays: list[Any] = [buffer.hi, buffer.lo, buffer.stamps, *columns.space.values(), *columns.norms.values()]
    real = sum(a.nbytes for a in [*arrays, *columns.raw.values()]) + buffer._index.nbytes
    assert real <= capacity * row_bytes(schema) * 1.1, "more memory than is reserved for it (I10)"
    assert buffer.reserved_bytes <= real * 1.5


def test_readers_see_whole_rows_while_the_writer_appends() -> None:
    """Each row's vector, id, stamp and payload all follow from its number."""
    n = 4_000
    buffer = GrowingBuffer(-1, SCHEMA, n, 0)
    published = BufferPart(buffer, 0, Deletes.none(0))
    stop = threading.Event()
    problems: list[str] = []

    def read() -> None:
        while not stop.is_set():
            part = published
            if not part.n:
                continue
            rows = np.unique(np.linspace(0, part.n - 1, 40).astype(np.int64))
            ids = part.ids_at(rows).to_list()
            payload = [p.get("x") for p in part.columns().payloads(rows)]
            column = [v for chunk in part.columns().chunks("x", "i") for v in chunk.to_pylist()]
            column = [column[r] for r in rows.tolist()]
            looked = part.lookup(*IdColumn.of(ids).hashes()).tolist()
            if not (ids == rows.tolist() == payload == column == looked):
                problems.append(f"{ids} {payload} {column} {looked}")
            if not (part.space("")[rows] == rows_of(0, part.n)[rows]).all() or part.all_ids().int_max() != part.n - 1:
                problems.append("vectors or ids")

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for first in range(0, n, 20):
        append(buffer, list(range(first, first + 20)), 1, [{"x": i, f"y{first}": 1} for i in range(first, first + 20)])
        published = published.grown(buffer.n)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not problems, problems[0]
