"""Stores of payload columns: growing buffers read while they grow, Parquet read in parts, bounded caches."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from omendb_common.errors import CorruptionError
from omendb_common.filters import FilterOp as F
from omendb_common.payload import Kind, columns_from_mapping, columns_from_rows, rows_from_columns, split_name
from omendb_engine.payload import parquet
from omendb_engine.payload.cache import ByteCache
from omendb_engine.payload.columns import (
    BatchColumns,
    Catalog,
    ColumnCache,
    GrowingColumns,
    ParquetColumns,
    write_payload_parquet,
)
from omendb_engine.payload.decoded import DecodedColumn
from omendb_engine.query.filter import evaluate
from omendb_engine.query.filter_cache import FilterCache

ROWS: list[dict[str, Any] | None] = [
    {"a": 1, "b": {"c": "x", "d#e": [1.5]}, "b.i": True},
    None,
    {"a": "s", "t": np.datetime64("2024-01-01").astype(object)},
    {"j": [1, "x", {"k": 2}], "ls": ["p", "q"]},
    {"a": 2.5, "b": {"c": None, "z": {}}},
    {"ls": []},
]


def some(array: Any | None) -> Any:
    """The array, which must be there."""
    assert array is not None
    return array


def parquet_of(batch: pa.RecordBatch, n: int, cache: ColumnCache | None = None) -> ParquetColumns:
    return ParquetColumns(write_payload_parquet(batch, n), n, cache or ColumnCache())


def test_parquet_gives_back_what_was_written() -> None:
    batch = columns_from_rows(ROWS)
    store = parquet_of(batch, len(ROWS))
    assert set(store.catalog.names) == set(batch.schema.names)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        path, kind = split_name(name)
        for read in (store.column(path, kind), pa.concat_arrays(list(store.chunks(path, kind)))):
            assert read is not None
            assert read.type == column.type
            assert read.equals(column)
        rows = np.array([5, 0, 3, 3])
        assert some(store.gather(path, kind, rows)).equals(column.take(pa.array(rows)))
    assert rows_from_columns(store.batch()) == rows_from_columns(batch)
    assert store.column("a", "b") is None
    assert store.gather("a", "b", np.array([0])) is None
    assert list(store.chunks("a", "b")) == []
    assert store.index("a", "b") is None


def test_payloads_of_a_few_rows_are_those_of_many() -> None:
    """Few rows are read through views of the buffers; text of one to four bytes a character, empty text, nulls."""
    texts = ["", "x", "\u00e9t\u00e9", "\u4e2d", "\U0001f40d"]
    n = 40
    batch = columns_from_rows(
        [
            {"s": texts[row % 5], "i": row - 7, "f": row / 3, "b": row % 2 == 0, "deep": {"s": texts[row % 4]},
             "sparse": None if row % 3 else row, "odd": row if row % 2 else texts[row % 5], "none": ""}
            for row in range(n)
        ]
    )  # fmt: skip
    store = parquet_of(batch, n)
    whole = rows_from_columns(batch)
    assert store.payloads(np.arange(n)) == whole
    rows = np.array([39, 0, 0, 12, 5])
    assert store.payloads(rows) == [whole[row] for row in rows]
    assert store.payloads(rows[:0]) == []


@pytest.mark.parametrize("start", [0, 3])
def test_a_decoded_column_reads_slices(start: int) -> None:
    """An array may begin anywhere in its buffers."""
    columns: dict[Kind, pa.Array] = {"i": pa.array([1, 2, 3, 4, 5]), "s": pa.array(["a", "bc", "", "d", "ef"])}
    for kind, values in columns.items():
        column = DecodedColumn(values.slice(start, 2), kind)
        assert column.few(np.array([1, 0])) == [values[start + 1].as_py(), values[start].as_py()]


def test_catalog() -> None:
    catalog = Catalog(["a#i", "a#s", "a.b#i", "a.b.c#j", "a-b#i", "ab#i", "a/b#s"])
    assert catalog.kinds("a") == ("i", "s")
    assert catalog.kinds("zz") == ()
    assert catalog.paths_below("a") == ("a.b", "a.b.c")
    assert catalog.paths_below("a.b") == ("a.b.c",)
    assert "a#i" in catalog
    assert "a#f" not in catalog
    assert catalog.with_names(["a#i"]) is catalog
    assert catalog.with_names(["a#f"]).kinds("a") == ("i", "s", "f")


def test_large_columns_are_read_by_row_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_GROUP_BYTES", 1 << 14)
    monkeypatch.setattr(parquet, "_WHOLE_BYTES_MAX", 1 << 16)
    n = 5000
    texts = [f"{i}: " + "long " * 10 for i in range(n)]
    batch = columns_from_mapping({"text": texts, "n": np.arange(n), "tags": [[f"t{i}"] for i in range(n)]}, n)
    cache = ColumnCache()
    store = parquet_of(batch, n, cache)
    assert len(list(store.chunks("text", "s"))) > 10
    assert len(list(store.chunks("n", "i"))) == 1
    assert store.index("text", "s") is None
    cache.drop(0)
    before = cache.stats().used_bytes
    rows = np.array([4999, 17, 18, 2500, 17])
    fresh = parquet_of(batch, n, cache)
    assert [p["text"] for p in fresh.payloads(rows)] == [texts[r] for r in rows]
    assert cache.stats().used_bytes - before < 200_000 + 9 * n
    assert some(fresh.gather("text", "s", rows)).to_pylist() == [texts[r] for r in rows]
    assert evaluate(F.startswith("text", "49"), fresh).rows().tolist() == [49, *range(490, 500), *range(4900, 5000)]
    assert evaluate(F.AND(F.gt("n", 4990), F.contains("text", "8: ")), fresh).rows().tolist() == [4998]
    assert some(store.column("text", "s")).to_pylist() == texts
    assert len(fresh.payloads(np.arange(n))) == n


def test_the_source_is_asked_once_and_late() -> None:
    batch = columns_from_rows([{"a": 1}])
    asked: list[int] = []

    def source() -> memoryview:
        asked.append(1)
        return memoryview(write_payload_parquet(batch, 1))

    store = ParquetColumns(source, 1, ColumnCache())
    assert asked == []
    assert store.payloads(np.array([0])) == [{"a": 1}]
    assert evaluate(F.eq("a", 1), store).count == 1
    assert asked == [1]


def test_damage_is_corruption() -> None:
    batch = columns_from_rows([{"a": i} for i in range(10)])
    data = bytes(write_payload_parquet(batch, 10))
    with pytest.raises(CorruptionError, match=r"seg/metadata\.parquet"):
        _ = ParquetColumns(b"not parquet", 10, ColumnCache(), "seg/metadata.parquet").catalog
    with pytest.raises(CorruptionError, match="has 10 rows"):
        _ = ParquetColumns(data, 11, ColumnCache()).catalog
    with pytest.raises(CorruptionError):
        _ = ParquetColumns(data[:-20], 10, ColumnCache()).catalog
    foreign = pa.BufferOutputStream()
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a#i": [1]}), foreign)
    with pytest.raises(CorruptionError, match="how large"):
        _ = ParquetColumns(foreign.getvalue(), 1, ColumnCache()).catalog


def test_an_index_that_does_not_fit_the_cache_is_not_built() -> None:
    n = 10_000
    batch = columns_from_mapping({"a": np.arange(n)}, n)
    assert parquet_of(batch, n, ColumnCache(1 << 24)).index("a", "i") is not None
    assert parquet_of(batch, n, ColumnCache(200_000)).index("a", "i") is None
    assert evaluate(F.eq("a", 7), parquet_of(batch, n, ColumnCache(0))).rows().tolist() == [7]


def test_closing_frees_the_cache() -> None:
    cache = ColumnCache()
    n = 10_000
    stores = [parquet_of(columns_from_mapping({"a": np.arange(n)}, n), n, cache) for _ in range(2)]
    for store in stores:
        evaluate(F.eq("a", 7), store)
    used = cache.stats().used_bytes
    stores[0].close()
    assert cache.stats().used_bytes == used // 2
    stores[1].close()
    assert cache.stats().entries == cache.stats().used_bytes == 0


def test_cache_is_bounded_and_counts() -> None:
    cache = ByteCache(100)
    loads: list[str] = []

    def load(name: str) -> str:
        def fetch() -> str:
            loads.append(name)
            return name

        return cache.get_or_load((name,), fetch, lambda _: 40)

    for name in ("a", "b", "a", "c", "a", "b"):
        assert load(name) == name
    # c pushed b out, not a, which was used since.
    assert loads == ["a", "b", "c", "b"]
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.entries, stats.used_bytes) == (2, 4, 2, 80)
    cache.put(("a",), "bigger", 60)
    assert cache.stats().used_bytes <= 100
    cache.put(("huge",), "x", 101)
    assert cache.get(("huge",)) is None
    cache.put(("exact",), "x", 100)
    assert cache.get(("exact",)) == "x"
    assert cache.stats().entries == 1


def test_filter_cache_shares_equal_filters() -> None:
    store = BatchColumns.of([columns_from_rows([{"a": 1, "b": 2}, {"a": 1}])])
    cache = FilterCache()
    one = cache.rows("seg-1", F.AND(F.eq("a", 1), F.eq("b", 2)), store)
    assert cache.rows("seg-1", F.AND(F.eq("b", 2.0), F.eq("a", 1)), store) is one
    assert cache.rows("seg-2", F.AND(F.eq("a", 1), F.eq("b", 2)), store) is not one
    assert cache.stats().hits == 1
    cache.drop("seg-1")
    assert cache.stats().entries == 1


def test_growing_views_do_not_change() -> None:
    growing = GrowingColumns()
    views = []
    for i in range(100):
        growing.append(columns_from_rows([{"a": i, "b" if i % 2 else "c": str(i)}]) if i % 10 else None, 1)
        views.append(growing.view())
        if i % 7 == 0:
            evaluate(F.gt("a", 3), views[-1])
    for i in (99, 1, 50, 13):
        view = views[i]
        expected = [j for j in range(i + 1) if j > 3 and j % 10]
        assert view.n == i + 1
        assert evaluate(F.gt("a", 3), view).rows().tolist() == expected
        assert len(some(view.column("a", "i"))) == i + 1
        assert some(view.gather("a", "i", np.array(expected[::-1], np.int64))).to_pylist() == expected[::-1]
    whole = views[-1].payloads(np.arange(100))
    assert whole == [views[-1].payloads(np.array([i]))[0] for i in range(100)]
    assert rows_from_columns(views[-1].batch(), n=100) == whole
    assert evaluate(F.gt("a", 3), growing.view(42)).rows().tolist() == [j for j in range(42) if j > 3 and j % 10]
    assert views[0].column("nothing", "i") is None


def test_growing_copies_each_row_few_times() -> None:
    growing = GrowingColumns()
    piece = columns_from_mapping({"a": np.arange(10)}, 10)
    for _ in range(256):
        growing.append(piece, 10)
        arrays = growing.arrays("a#i", growing.n)
        assert sum(map(len, arrays)) == growing.n
        assert len(arrays) <= 10
        assert all(len(one) >= 2 * len(two) for one, two in pairwise(arrays))


def test_many_readers_while_one_writes() -> None:
    growing = GrowingColumns()
    wrong: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            view = growing.view()
            found = evaluate(F.eq("even", True), view)
            if found.rows().tolist() != list(range(0, view.n, 2)):
                wrong.append(f"{found} of {view.n}")
            if view.n:
                last = view.payloads(np.array([view.n - 1]))[0]
                if last != {"even": (view.n - 1) % 2 == 0, "n": view.n - 1}:
                    wrong.append(str(last))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for start in range(0, 3000, 10):
        growing.append(columns_from_rows([{"even": i % 2 == 0, "n": i} for i in range(start, start + 10)]), 10)
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_many_readers_of_one_segment() -> None:
    n = 20_000
    batch = columns_from_mapping({"a": np.arange(n) % 100, "s": [f"s{i % 50}" for i in range(n)]}, n)
    store = parquet_of(batch, n, ColumnCache(1 << 20))
    counts: list[int] = []

    def read(which: int) -> None:
        for i in range(30):
            counts.append(
                evaluate(F.AND(F.eq("a", (which * 30 + i) % 50), F.eq("s", f"s{(which * 30 + i) % 50}")), store).count
            )
            store.payloads(np.array([i, n - 1 - i]))

    readers = [threading.Thread(target=read, args=(which,)) for which in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert counts == [n // 100] * 120
