"""Arbitrary calls and answers of a data node, and what it means that two of them are equal."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from omendb_common import shard_calls as calls
from omendb_common.errors import OmenDBError
from omendb_common.explanation import Explanation, SegmentPlan
from omendb_common.filters import Filter
from omendb_common.filters import FilterOp as F
from omendb_common.ids import IdColumn
from omendb_common.overlays import Overlays
from omendb_common.records import Op, WriteBatch
from omendb_common.shard_calls import ShardRef, State, Verdict, Work
from tests.unit.wire.error_cases import classes, full, told

SHARD = ShardRef("u", 0, 1, 1)
U64 = st.integers(0, (1 << 64) - 1)
NAMES = st.sampled_from(["", "title", "ä b"])
SHARDS = st.builds(ShardRef, st.text(max_size=36), st.integers(0, 1 << 20), U64, st.integers(0, 4095))
FILTERS: st.SearchStrategy[Filter | None] = st.sampled_from(
    [None, F.eq("a", 1), F.eq("a", True), F.AND(F.gte("t.x", 0.5), F.NOT(F.in_("c", ["x", "ü"])))]
)
DTYPES = st.sampled_from(["float32", "float16", "int8", "uint8"])
ERRORS: st.SearchStrategy[OmenDBError | None] = st.none() | st.sampled_from([full(cls) for cls in classes()])
VERDICTS = st.sampled_from(list(Verdict))
KINDS = ("apply", "search", "lookup", "score", "repair", "scroll", "select", "maintain", "sums", "entries")
# Few bytes lie in the message and many beside it: both sides of that line are tried.
COUNTS = st.integers(0, 12) | st.integers(500, 700)


def _ids(n: int) -> st.SearchStrategy[IdColumn]:
    ints = IdColumn(np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15), None)
    strs = IdColumn.of([f"id-{i}-é" for i in range(n)]) if n else ints
    mixed = IdColumn.of([i if i % 2 else str(i) for i in range(n)]) if n else ints
    return st.sampled_from([ints, strs, mixed])


def _column(n: int, dtype: str, seed: int) -> np.ndarray[Any, Any]:
    data = np.random.default_rng(seed).integers(0, 255, n * np.dtype(dtype).itemsize, np.uint8)
    column: np.ndarray[Any, Any] = np.nan_to_num(data.view(dtype))
    return column


def _payload(n: int) -> st.SearchStrategy[pa.RecordBatch]:
    columns = {"a#i": pa.array(range(n), pa.int64()), "b.c#s": pa.array([None if i % 3 else "é" for i in range(n)])}
    columns["b.c#s"] = columns["b.c#s"].cast(pa.string())
    return st.sampled_from([pa.record_batch(columns), pa.record_batch([], names=[])])


@st.composite
def _vectors(draw: st.DrawFn, n: int) -> dict[str, np.ndarray[Any, Any]]:
    names = draw(st.lists(NAMES, unique=True, max_size=2))
    return {name: _column(n * 3, draw(DTYPES), len(name)).reshape(n, 3) for name in names}


@st.composite
def batches(draw: st.DrawFn) -> WriteBatch:
    n = draw(COUNTS)
    op = draw(st.sampled_from(list(Op)))
    payload = draw(st.none() | _payload(n))
    if payload is not None and not payload.num_columns:
        payload = None
    stamps = draw(st.none() | st.just(_column(n, "uint64", 5)))
    return WriteBatch(op, draw(_ids(n)), draw(_vectors(n)), payload, stamps, tuple(draw(st.lists(NAMES, max_size=2))))


@st.composite
def any_call(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(KINDS))
    shard = draw(SHARDS)
    flags = [draw(st.booleans()) for _ in range(3)]
    names = tuple(draw(st.lists(NAMES, max_size=3)))
    if kind == "apply":
        claim = draw(st.sampled_from(calls.Claim))
        batch = WriteBatch(Op.DELETE, draw(_ids(draw(COUNTS)))) if claim else draw(batches())
        versions = np.arange(batch.rows, dtype=np.uint64) if flags[1] and not claim else None
        return calls.Apply(shard, draw(U64), batch, None, flags[0], claim, versions)
    if kind == "search":
        queries = _column(draw(st.integers(1, 400)) * 4, draw(DTYPES), 1).reshape(-1, 4)
        real = st.none() | st.floats(0, 1)
        more: list[Any] = [draw(st.none() | st.integers(1, 999)), draw(real), draw(real)]
        call = calls.Search(
            shard, queries, draw(st.integers(1, 99)), draw(NAMES), draw(FILTERS), flags[0], *more, *flags[1:]
        )
        return call._replace(unproven=draw(st.booleans()), explain=draw(st.booleans()))
    if kind == "lookup":
        return calls.Lookup(shard, draw(_ids(draw(COUNTS))), flags[0], flags[1], names, flags[2])
    if kind == "score":
        return calls.Score(shard, _column(4, "float32", 2), draw(_ids(draw(COUNTS))), draw(NAMES), draw(FILTERS))
    if kind == "repair":
        return calls.Repair(shard, tuple(draw(st.lists(batches(), max_size=3))), draw(U64), flags[0])
    if kind == "scroll":
        cursor = draw(st.none() | st.text(max_size=9))
        return calls.Scroll(shard, cursor, draw(st.integers(1, 100_000)), draw(FILTERS), flags[0], names)
    if kind == "select":
        return calls.Select(shard, draw(FILTERS), flags[0])
    if kind in ("sums", "entries"):
        depth = draw(st.integers(0, 16))
        nodes = np.array(draw(st.lists(st.integers(0, (1 << depth) - 1), min_size=1, max_size=9)), np.int64)
        nodes = np.tile(nodes, draw(st.sampled_from([1, 100])))
        if kind == "sums":
            return calls.Sums(shard, draw(U64), draw(U64), depth, nodes, *flags[:2])
        cursor = draw(st.none() | st.text(max_size=9))
        return calls.Entries(shard, draw(U64), depth, nodes, draw(st.integers(1, 8192)), cursor)
    openings = tuple(draw(st.lists(U64, max_size=3)))
    positions = tuple(number % 99 for number in openings)
    task: calls.Task = draw(st.sampled_from(["flush", "stats", "note_agreed"]))
    return calls.Maintain(shard, task, draw(U64), openings, positions, draw(U64))


@st.composite
def _overlays(draw: st.DrawFn, n: int) -> Overlays:
    rows = np.array(sorted(draw(st.sets(st.integers(0, n - 1), max_size=3))) if n else [], np.int64)
    return Overlays(rows, _column(len(rows), "uint64", 11), _column(len(rows), "uint64", 12))


EXPLANATION = Explanation(
    5,
    0.95,
    (
        SegmentPlan(3, 100, 40, "index and pick", "because", 64, 30, 2048, 0.97, True, 1, "d1"),
        SegmentPlan(-2, 7, 0, "skip", "none matches"),
    ),
    0.9,
)


@st.composite
def hits(draw: st.DrawFn, queries: int | None = None) -> calls.ShardHits:
    m = draw(st.integers(1, 6)) if queries is None else queries
    k = draw(st.integers(1, 8) | st.integers(500, 600))
    counts = np.array([draw(st.integers(0, k)) for _ in range(m)], np.int64)
    n = int(counts.sum())
    shared = calls.Shared(_column(3, "uint64", 8), _column(3, "uint64", 2), np.sort(_column(n, "uint32", 9)))
    return calls.ShardHits(
        draw(VERDICTS) if queries is None else Verdict.OK,
        _column(m * k, "float32", 3).reshape(m, k),
        counts,
        draw(_ids(n)),
        _column(n, "uint64", 4),
        draw(st.none() | _payload(n)),
        draw(st.none() | st.just(_column(n * 2, "float16", 6).reshape(n, 2))),
        Work(draw(st.integers(0, 1 << 40)), 3, 2, 0.5, 1.5),
        draw(U64),
        draw(ERRORS),
        draw(_overlays(n)),
        draw(U64),
        draw(U64),
        draw(st.none() | st.just(shared)),
        draw(st.none() | st.just(EXPLANATION)),
    )


@st.composite
def any_answer(draw: st.DrawFn, of: int | None = None) -> tuple[int, Any]:
    method = draw(st.integers(1, 10)) if of is None else of
    verdict, error, n = draw(VERDICTS), draw(ERRORS), draw(COUNTS)
    if method in (1, 5):
        columns: list[Any] = [_column(n, "int64", 1), _column(n, "uint64", 2), _column(3, "int64", 3)]
        columns += [error, draw(st.booleans()), _column(2, "int64", 4), _column(n, "int64", 5)]
        columns += [_column(n, "uint64", 6)]
        return method, calls.Applied(verdict, draw(U64), draw(U64), "fsync", draw(U64), *columns)
    if method == 2:
        return method, draw(hits())
    stamps, digests = _column(n, "uint64", 4), _column(n, "uint64", 5)
    states = np.array([i % 3 for i in range(n)], np.uint8)
    live = int((states == State.LIVE).sum())
    if method == 3:
        records = tuple(draw(st.lists(batches(), max_size=2)))
        some = draw(st.none() | _payload(live))
        hlc = draw(U64)
        rest = (hlc, error, draw(_overlays(n)))
        looked = calls.Looked(verdict, states, stamps, digests, records, some, draw(_vectors(live)), *rest)
        return method, looked
    if method == 4:
        distances = _column(n, "float32", 8)
        return method, calls.Scored(verdict, states, stamps, states == 1, distances, error, draw(_overlays(n)))
    if method == 6:
        more: list[Any] = [
            draw(st.none() | _payload(n)),
            draw(_vectors(n)),
            draw(st.none() | st.text(max_size=8)),
            error,
            draw(_overlays(n)),
        ]
        return method, calls.Scrolled(verdict, draw(_ids(n)), stamps, digests, *more)
    if method == 7:
        return method, calls.Selected(verdict, draw(U64), draw(_ids(n)), stamps, error, draw(_overlays(n)))
    if method == 9:
        counts = _column(n, "int64", 1)
        return method, calls.Summed(verdict, counts, stamps, digests, draw(U64), draw(U64), error, draw(U64), 7)
    if method == 10:
        cursor = draw(st.none() | st.text(max_size=8))
        return method, calls.Listed(verdict, draw(_ids(n)), states, stamps, digests, digests, cursor, error)
    value = draw(st.none() | st.integers() | st.dictionaries(st.text(max_size=5), st.integers(), max_size=3))
    return method, calls.Maintained(verdict, value, error)


def search(number: float, rows: int = 1, **change: Any) -> calls.Search:
    return calls.Search(SHARD, np.full((rows, 2), number, np.float32), 3)._replace(**change)


def answer(call: calls.Search) -> calls.ShardHits:
    """Hits that say to which query they are: one, two or three of them, by the query's first element."""
    numbers = call.queries[:, 0].astype(np.int64)
    counts = numbers % 3 + 1
    ids = np.repeat(numbers, counts).astype(np.uint64)
    distances = np.repeat(call.queries[:, :1], call.k, axis=1)
    return calls.ShardHits(
        Verdict.OK, distances, counts, IdColumn(ids, None), ids * np.uint64(2), work=Work(len(numbers))
    )


def names_of(kind: Any) -> tuple[str, ...]:
    """The fields of a call or an answer, which is a dataclass or a named tuple."""
    named: tuple[str, ...] = getattr(kind, "_fields", ()) or tuple(f.name for f in dataclasses.fields(kind))
    return named


def plain(value: Any) -> Any:
    """A value that ``==`` compares wholly: arrays, columns and errors by what they hold."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, IdColumn):
        return value.to_list()
    if isinstance(value, pa.RecordBatch):
        return (value.schema, value.to_pydict())
    if isinstance(value, OmenDBError):
        return told(value)
    if isinstance(value, Filter):
        # With its values' types: in Python True equals 1.
        return repr(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return (type(value), {name: plain(getattr(value, name)) for name in names_of(type(value)) if name != "body"})
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return (type(value), *map(plain, value))
    return value
