"""Files of points, read a batch at a time so that any size fits in memory.

Tables (Parquet, Arrow, Feather, CSV, JSON Lines) hold ids, vectors and metadata in columns; matrices (.npy,
.fvecs, .bvecs) hold vectors only, and ids and metadata may come from files beside them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from omendb_common.errors import InvalidArgumentError, NotFoundError
from omendb_common.inputs import Columns, split_table, table_columns

TABLE_SUFFIXES = (".parquet", ".arrow", ".feather", ".ipc", ".csv", ".jsonl", ".ndjson")
MATRIX_SUFFIXES = (".npy", ".fvecs", ".bvecs")
_WIDTH_BYTES = 4  # every row of .fvecs and .bvecs begins with its dimension, an int32


@dataclass(frozen=True)
class Source:
    """Points to import: batches, and how many rows there are if the file says so."""

    batches: Iterator[Columns]
    rows: int | None


def open_source(
    path: Path,
    batch_rows: int,
    *,
    id_column: str = "id",
    vector_column: str = "vector",
    ids_file: Path | None = None,
    metadata_file: Path | None = None,
) -> Source:
    """Open ``path`` by its suffix.

    Raises:
        InvalidArgumentError: an unknown suffix, a file that is not what its suffix says, or side files whose
            rows do not match.
        NotFoundError: a file does not exist.
    """
    for file in (path, ids_file, metadata_file):
        if file is not None and not file.is_file():
            raise NotFoundError("no such file", field=str(file), bound="a file")
    suffix = path.suffix.lower()
    if suffix in MATRIX_SUFFIXES:
        return _matrix_source(read_matrix(path), batch_rows, id_column, ids_file, metadata_file)
    if ids_file is not None or metadata_file is not None:
        raise InvalidArgumentError(
            "a table has its own", field="--ids, --metadata-file", bound="a .npy, .fvecs or .bvecs file beside them"
        )
    if suffix in (".jsonl", ".ndjson"):
        return Source(_json_lines(path, batch_rows, id_column, vector_column), None)
    tables, rows = _tables(path, batch_rows)
    return Source((_columns(table, id_column, vector_column) for table in tables), rows)


def read_matrix(path: Path) -> npt.NDArray[Any]:
    """The vectors (n, dimension) of a .npy, .fvecs or .bvecs file, mapped, not read."""
    suffix = path.suffix.lower()
    if suffix not in MATRIX_SUFFIXES:
        raise _unknown_suffix(path, MATRIX_SUFFIXES)
    if suffix == ".npy":
        try:
            loaded: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise InvalidArgumentError(f"not a .npy file: {error}", field=str(path)) from None
        return loaded
    element = np.dtype("<f4") if suffix == ".fvecs" else np.dtype("u1")
    raw = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
    if len(raw) < _WIDTH_BYTES:
        raise InvalidArgumentError("the file is empty", field=str(path), bound=f"a {suffix} file")
    dimension = int(raw[:_WIDTH_BYTES].view("<i4")[0])
    row_bytes = _WIDTH_BYTES + dimension * element.itemsize
    if dimension < 1 or len(raw) % row_bytes:
        raise InvalidArgumentError(
            f"{len(raw)} bytes in rows of dimension {dimension}",
            field=str(path),
            bound=f"whole rows of a {suffix} file",
        )
    return raw.reshape(-1, row_bytes)[:, _WIDTH_BYTES:].view(element)


def _matrix_source(
    matrix: npt.NDArray[Any], batch_rows: int, id_column: str, ids_file: Path | None, metadata_file: Path | None
) -> Source:
    rows = len(matrix)
    ids = None if ids_file is None else _read_ids(ids_file)
    metadata = None if metadata_file is None else table_columns(_whole_table(metadata_file))
    if metadata is not None and ids is None:
        ids = metadata.pop(id_column, None)
    for name, column in (("ids", ids), *(metadata or {}).items()):
        if column is not None and len(column) != rows:
            raise InvalidArgumentError(
                f"{name!r} has {len(column)} rows", field="--ids, --metadata-file", bound=f"{rows} rows"
            )

    def batches() -> Iterator[Columns]:
        for start in range(0, rows, batch_rows):
            part = slice(start, start + batch_rows)
            sliced = None if metadata is None else {name: column[part] for name, column in metadata.items()}
            yield Columns(None if ids is None else ids[part], np.ascontiguousarray(matrix[part]), sliced)

    return Source(batches(), rows)


def _read_ids(path: Path) -> Any:
    """Ids from a .npy file, or one per line of a text file (integers if all lines are)."""
    if path.suffix.lower() == ".npy":
        return np.load(path, allow_pickle=False)
    lines = path.read_text(encoding="utf-8").splitlines()
    return [int(line) for line in lines] if lines and all(line.isdecimal() for line in lines) else lines


def _tables(path: Path, batch_rows: int) -> tuple[Iterator[pa.RecordBatch], int | None]:
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            import pyarrow.parquet as pq  # slow to import, and only this branch needs it

            file = pq.ParquetFile(path)
            return file.iter_batches(batch_rows), file.metadata.num_rows
        if suffix in (".arrow", ".feather", ".ipc"):
            reader = _open_arrow(path)
            return _rebatched(reader, batch_rows), None
        if suffix == ".csv":
            import pyarrow.csv  # as above

            return _rebatched(pyarrow.csv.open_csv(path), batch_rows), None
    except pa.ArrowInvalid as error:
        raise _damaged(path, error) from None
    raise _unknown_suffix(path, (*TABLE_SUFFIXES, *MATRIX_SUFFIXES))


def _open_arrow(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow file, whether it is in the file or the stream format."""
    source = pa.memory_map(str(path))
    try:
        reader = pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        yield from pa.ipc.open_stream(source)
        return
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def _rebatched(batches: Iterator[pa.RecordBatch], batch_rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, batch_rows):
            yield batch.slice(start, batch_rows)


def _columns(table: pa.RecordBatch, id_column: str, vector_column: str) -> Columns:
    columns = split_table(table, id_column, vector_column)
    if pa.types.is_string(columns.vectors.type) or pa.types.is_large_string(columns.vectors.type):
        return columns._replace(vectors=_vectors_in_text(columns.vectors, vector_column))
    return columns


def _vectors_in_text(texts: pa.Array, vector_column: str) -> list[list[float]]:
    """Vectors that a CSV file holds as JSON arrays; the whole column is parsed at once."""
    try:
        vectors: list[list[float]] = json.loads(f"[{','.join(texts.to_pylist())}]")
    except (json.JSONDecodeError, TypeError) as error:
        raise InvalidArgumentError(f"not a JSON array: {error}", field=vector_column, bound="[0.1, 0.2, …]") from None
    return vectors


def _json_lines(path: Path, batch_rows: int, id_column: str, vector_column: str) -> Iterator[Columns]:
    first = 1
    with path.open(encoding="utf-8") as file:
        lines = (line for line in file if not line.isspace())
        while batch := list(islice(lines, batch_rows)):
            rows = _parse_lines(path, batch, first)
            first += len(batch)
            if any(vector_column not in row for row in rows):
                raise InvalidArgumentError(
                    "a line has no vector",
                    field=str(path),
                    bound=f"a key {vector_column!r}",
                    mend="pass --vector-column",
                )
            with_ids = id_column in rows[0]
            ids = [row.pop(id_column, None) for row in rows] if with_ids else None
            vectors = [row.pop(vector_column) for row in rows]
            yield Columns(ids, vectors, rows)


def _parse_lines(path: Path, lines: list[str], first: int) -> list[dict[str, Any]]:
    try:
        rows = json.loads(f"[{','.join(lines)}]")
    except json.JSONDecodeError:
        rows = None
    if rows is not None and all(isinstance(row, dict) for row in rows):
        return rows  # type: ignore[no-any-return]
    for number, line in enumerate(lines, first):
        try:
            ok = isinstance(json.loads(line), dict)
        except json.JSONDecodeError:
            ok = False
        if not ok:
            raise InvalidArgumentError(f"line {number} is no JSON object", field=str(path), bound="one object per line")
    raise InvalidArgumentError("the lines are no JSON objects", field=str(path), bound="one object per line")


def _whole_table(path: Path) -> pa.Table:
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        rows = _parse_lines(path, path.read_text(encoding="utf-8").splitlines(), 1)
        names = sorted({name for row in rows for name in row})
        return pa.table({name: [row.get(name) for row in rows] for name in names})
    return pa.Table.from_batches(_tables(path, 1 << 20)[0])


def _unknown_suffix(path: Path, known: tuple[str, ...]) -> InvalidArgumentError:
    return InvalidArgumentError(f"unknown suffix {path.suffix!r}", field=str(path), bound=f"one of {', '.join(known)}")


def _damaged(path: Path, error: Exception) -> InvalidArgumentError:
    reason = " ".join(str(error).split())
    return InvalidArgumentError(f"cannot be read: {reason}", field=str(path), bound=f"a {path.suffix} file")


__all__ = ["MATRIX_SUFFIXES", "TABLE_SUFFIXES", "Source", "open_source", "read_matrix"]
