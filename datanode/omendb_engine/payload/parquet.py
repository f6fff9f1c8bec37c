"""Payload columns of a segment: one Parquet file, of which only what is asked for is decoded."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from omendb_common.errors import CorruptionError
from omendb_common.payload import FEW_ROWS, TYPES, Kind, join_name, put_column, rows_from_columns, split_name
from omendb_engine.payload.cache import ColumnCache
from omendb_engine.payload.decoded import DecodedColumn
from omendb_engine.payload.sorted_index import SortedIndex
from omendb_engine.payload.store import Catalog, Rows, gather_chunks

# Bytes of values that a row group aims at: what one hit's payload costs to decode when nothing is cached.
_GROUP_BYTES = 2 << 20
_GROUP_ROWS_MIN, _GROUP_ROWS_MAX = 256, 1 << 17
# Columns above this many decoded bytes are read one row group at a time, and never held whole.
_WHOLE_BYTES_MAX = 64 << 20
# Rows below which a scan is as fast as a look-up in an index.
_INDEX_ROWS_MIN = 8192
_INDEXED: frozenset[Kind] = frozenset({"i", "f", "t", "s", "li", "lf", "lt", "ls"})

_SIZES_KEY = b"omendb.decoded_bytes"

_owners = count()


class _Buffer(Protocol):
    """What Python's buffer protocol can read: bytes, memoryview, mmap, pa.Buffer."""

    def __buffer__(self, flags: int, /) -> memoryview: ...


def write_payload_parquet(batch: pa.RecordBatch, n: int) -> pa.Buffer:
    """A Parquet file of ``n`` rows: zstd, statistics, dictionaries for text.

    Row groups hold about 2 MiB of values, so that reading one point's payload decodes little.
    """
    row_bytes = max(1, batch.nbytes // max(n, 1))
    group = min(max(_GROUP_BYTES // row_bytes, _GROUP_ROWS_MIN), _GROUP_ROWS_MAX)
    text = [name for name in batch.schema.names if split_name(name)[1] in ("s", "j")]
    text += [f"{name}.list.item" for name in batch.schema.names if split_name(name)[1] == "ls"]
    # Dictionaries hide how large text is once decoded: the reader is told.
    sizes = {name: array.nbytes for name, array in zip(batch.schema.names, batch.columns, strict=True)}
    table = pa.Table.from_batches([batch]).replace_schema_metadata({_SIZES_KEY: json.dumps(sizes)})
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=group,
        compression="zstd",
        compression_level=1,
        use_dictionary=text,
        write_statistics=True,
        use_compliant_nested_type=False,
    )
    return sink.getvalue()


class ParquetColumns:
    """The payload columns in one Parquet file; a :class:`ColumnStore`.

    Decoded columns and their indexes live in ``cache``, under a key of this object's own.

    Args:
        source: the file's bytes (any buffer, mapped or not), or a function that verifies and returns them,
            called once, at the first read.
        n: number of rows; a file with another number is corrupt.
        cache: where decoded columns are kept.
        path: how errors name the file.
    """

    def __init__(
        self, source: _Buffer | Callable[[], _Buffer], n: int, cache: ColumnCache, path: str = "metadata.parquet"
    ) -> None:
        self.n = n
        self._source = source
        self._cache = cache
        self._path = path
        self._owner = next(_owners)
        self._lock = threading.Lock()
        self._opened: _File | None = None

    @property
    def catalog(self) -> Catalog:
        """Which columns there are."""
        return self._file().catalog

    def kinds(self, path: str) -> tuple[Kind, ...]:
        """Kinds of the columns at exactly ``path``."""
        return self._file().catalog.kinds(path)

    def paths_below(self, path: str) -> tuple[str, ...]:
        """Paths of the columns nested below ``path``."""
        return self._file().catalog.paths_below(path)

    def chunks(self, path: str, kind: Kind) -> Iterator[pa.Array]:
        """The column's values in row order; a large column is decoded one row group at a time."""
        name = join_name(path, kind)
        file = self._file()
        if name not in file.catalog:
            return
        if file.sizes[name] <= _WHOLE_BYTES_MAX:
            yield self._whole(name)
        else:
            for group in range(file.groups):
                yield self._group(name, group)

    def column(self, path: str, kind: Kind) -> pa.Array | None:
        """The whole column, or None when there is none."""
        name = join_name(path, kind)
        if name not in self._file().catalog:
            return None
        return self._whole(name) if self._file().sizes[name] <= _WHOLE_BYTES_MAX else self._read(name, None)

    def gather(self, path: str, kind: Kind, rows: Rows) -> pa.Array | None:
        """The column's values at ``rows``; of a large column only the row groups they are in are decoded."""
        name = join_name(path, kind)
        file = self._file()
        if name not in file.catalog:
            return None
        if file.sizes[name] <= _WHOLE_BYTES_MAX:
            return gather_chunks([self._whole(name)], rows, kind)
        groups = np.searchsorted(file.ends, rows, "right")
        wanted = np.unique(groups)
        chunks = [self._group(name, group) for group in wanted.tolist()]
        # Row numbers as they are with only the wanted groups laid one after the other.
        before = np.cumsum([0, *map(len, chunks)])[:-1]
        starts = file.ends - file.counts
        return gather_chunks(chunks, rows - starts[groups] + before[np.searchsorted(wanted, groups)], kind)

    def index(self, path: str, kind: Kind) -> SortedIndex | None:
        """The column's sorted index, built at first use; None for small, huge and unordered columns."""
        name = join_name(path, kind)
        file = self._file()
        if self.n < _INDEX_ROWS_MIN or kind not in _INDEXED or name not in file.catalog:
            return None
        # An index that the cache cannot keep would be built again by every query.
        if file.sizes[name] > min(_WHOLE_BYTES_MAX, self._cache.budget_bytes // 4):
            return None
        key = (self._owner, name, "index")
        return self._cache.get_or_load(key, lambda: SortedIndex(self._whole(name), kind), lambda index: index.nbytes)

    def batch(self) -> pa.RecordBatch:
        """All columns as one record batch, decoded for this call and not kept."""
        file = self._file()
        names = list(file.catalog.names)
        return pa.RecordBatch.from_arrays([self._read(name, None) for name in names], names=names)

    def payloads(self, rows: Rows) -> list[dict[str, Any]]:
        """The payloads of ``rows``, as dicts."""
        file = self._file()
        if not file.all_small:
            columns = {name: self.gather(*split_name(name), rows) for name in file.catalog.names}
            return rows_from_columns(columns, n=len(rows))
        if len(rows) > FEW_ROWS:
            return rows_from_columns({name: self._whole(name) for name in file.catalog.names}, rows)
        out: list[dict[str, Any]] = [{} for _ in range(len(rows))]
        for name, keys in file.by_depth:
            put_column(out, keys, self._decoded(name).few(rows))
        return out

    def close(self) -> None:
        """Drop what the cache holds; a reader still at work may go on."""
        self._cache.drop(self._owner)

    def _whole(self, name: str) -> pa.Array:
        return self._decoded(name).array

    def _decoded(self, name: str) -> DecodedColumn:
        found: DecodedColumn | None = self._cache.get((self._owner, name))
        if found is None:
            found = DecodedColumn(self._read(name, None), split_name(name)[1])
            self._cache.put((self._owner, name), found, found.array.nbytes)
        return found

    def _group(self, name: str, group: int) -> pa.Array:
        key = (self._owner, name, group)
        return self._cache.get_or_load(key, lambda: self._read(name, group), lambda array: array.nbytes)

    def _read(self, name: str, group: int | None) -> pa.Array:
        file = self._file()
        # The Parquet reader promises nothing about two threads in one file.
        with self._lock:
            return file.read(name, group)

    def _file(self) -> _File:
        if self._opened is None:
            with self._lock:
                if self._opened is None:
                    buffer = self._source() if callable(self._source) else self._source
                    self._opened = _File(buffer, self.n, self._path)
        return self._opened


class _File:
    """An open Parquet file and what its footer says."""

    def __init__(self, buffer: _Buffer, n: int, path: str) -> None:
        self._path = path
        try:
            self._reader = pq.ParquetFile(pa.BufferReader(pa.py_buffer(buffer)))
        except (pa.ArrowException, OSError) as error:
            raise CorruptionError(f"not a Parquet file: {error}", path=path) from None
        footer = self._reader.metadata
        if footer.num_rows != n:
            raise CorruptionError(f"has {footer.num_rows} rows", path=path, bound=f"{n} rows")
        self.catalog = Catalog(self._reader.schema_arrow.names)
        self.groups: int = footer.num_row_groups
        self.counts = np.array([footer.row_group(g).num_rows for g in range(self.groups)], np.int64)
        self.ends = np.cumsum(self.counts)
        self.sizes = self._decoded_sizes()
        self.all_small = all(size <= _WHOLE_BYTES_MAX for size in self.sizes.values())
        # A value at "a" must be there before "a.b" tries to nest.
        addresses = [(name, split_name(name)[0].split(".")) for name in self.catalog.names]
        self.by_depth = tuple(sorted(addresses, key=lambda address: len(address[1])))

    def _decoded_sizes(self) -> dict[str, int]:
        """How many bytes each column takes decoded."""
        noted = (self._reader.schema_arrow.metadata or {}).get(_SIZES_KEY)
        sizes = json.loads(noted) if noted is not None else {}
        if not isinstance(sizes, dict) or any(not isinstance(sizes.get(name), int) for name in self.catalog.names):
            raise CorruptionError("does not say how large its columns are", path=self._path)
        return {name: sizes[name] for name in self.catalog.names}

    def read(self, name: str, group: int | None) -> pa.Array:
        """One column of one row group, or of all of them."""
        try:
            if group is None:
                column = self._reader.read(columns=[name], use_threads=False).column(name)
            else:
                column = self._reader.read_row_group(group, columns=[name], use_threads=False).column(name)
        except (pa.ArrowException, OSError) as error:
            raise CorruptionError(f"column {name!r} is unreadable: {error}", path=self._path) from None
        array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        wanted = TYPES[split_name(name)[1]]
        return array if array.type == wanted else array.cast(wanted)


__all__ = ["ParquetColumns", "write_payload_parquet"]
