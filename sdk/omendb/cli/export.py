"""``omendb export``: the points of a collection as Parquet, Arrow or JSON Lines."""

from __future__ import annotations

import json as json_text
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer

from omendb.cli.terminal import (
    AsJson,
    CollectionName,
    FilterJson,
    Place,
    Url,
    json_value,
    open_place,
    out,
    parse_filter_option,
    print_json,
    progress,
    reported,
)
from omendb.collection import Collection
from omendb.database import DEFAULT_COLLECTION
from omendb.records import Record
from omendb_common.errors import AlreadyExistsError, InvalidArgumentError
from omendb_common.payload import TYPES, columns_from_rows, split_name

PAGE_ROWS = 5_000
_INT, _STR = pa.uint64(), pa.string()


@reported
def export_file(
    place: Place = None,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Ends in .parquet, .arrow or .jsonl.")] = None,
    collection: CollectionName = DEFAULT_COLLECTION,
    filter: FilterJson = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Write the points (that match) to FILE; the file appears whole or not at all.

    JSON Lines keeps every value's own type. Parquet and Arrow hold one column per metadata field; a field whose
    values are of several kinds becomes one column per kind, named field#kind.
    """
    if url is not None and file is None and place is not None:
        file, place = Path(place), None  # with --url the one argument is the file
    if file is None:
        raise InvalidArgumentError("is missing", field="FILE", bound="a file to write")
    writers = {".parquet": _write_table, ".arrow": _write_table, ".jsonl": _write_lines}
    if file.suffix not in writers:
        raise InvalidArgumentError(f"got {file.suffix!r}", field=str(file), bound=f"one of {', '.join(writers)}")
    if file.exists() and not force:
        raise AlreadyExistsError("the file exists", field=str(file), mend="pass --force to replace it")
    filters = parse_filter_option(filter)
    with open_place(place, url) as database:
        points = database if collection == DEFAULT_COLLECTION else database.collection(collection)
        partial = file.with_name(f"{file.name}.partial")
        try:
            rows = writers[file.suffix](points, filters, partial, file.suffix, quiet=json)
            os.replace(partial, file)
        finally:
            partial.unlink(missing_ok=True)
    if json:
        print_json({"rows": rows, "file": str(file)})
    else:
        out.print(f"{rows:,} points in {file}")


def _pages(points: Collection, filters: Any, include: list[str]) -> Iterator[list[Record]]:
    cursor: str | None = None
    while True:
        page = points.scroll(PAGE_ROWS, cursor, filters, include=include)
        if page.records:
            yield page.records
        if page.cursor is None:
            return
        cursor = page.cursor


def _write_lines(points: Collection, filters: Any, file: Path, suffix: str, *, quiet: bool) -> int:
    rows = 0
    with file.open("w", encoding="utf-8") as target, progress(quiet) as bar:
        task = bar.add_task("exporting", total=points.count(filters), rate="")
        for records in _pages(points, filters, ["metadata", "vector"]):
            target.writelines(json_text.dumps(_line(r), default=json_value, ensure_ascii=False) + "\n" for r in records)
            rows += len(records)
            bar.update(task, completed=rows)
    return rows


def _line(record: Record) -> dict[str, Any]:
    vector = None if record.vector is None else record.vector.tolist()
    return {"id": record.id, "vector": vector, **(record.metadata or {})}


def _write_table(points: Collection, filters: Any, file: Path, suffix: str, *, quiet: bool) -> int:
    schema, names = _table_schema(points, filters)
    rows = 0
    with _table_writer(file, suffix, schema) as writer, progress(quiet) as bar:
        task = bar.add_task("exporting", total=points.count(filters), rate="")
        for records in _pages(points, filters, ["metadata", "vector"]):
            writer.write_batch(_batch(records, schema, names))
            rows += len(records)
            bar.update(task, completed=rows)
    return rows


def _table_writer(file: Path, suffix: str, schema: pa.Schema) -> Any:
    if suffix == ".arrow":
        return pa.ipc.new_file(str(file), schema)
    import pyarrow.parquet as pq  # slow to import, and only this branch needs it

    return pq.ParquetWriter(str(file), schema)


def _table_schema(points: Collection, filters: Any) -> tuple[pa.Schema, dict[str, str]]:
    """The table's columns, from a first walk over ids and metadata, and each payload column's name in it."""
    found: set[str] = set()
    kinds: set[type] = set()
    for records in _pages(points, filters, ["metadata"]):
        found.update(columns_from_rows([r.metadata for r in records]).schema.names)
        kinds.update(type(r.id) for r in records)
    paths = [split_name(column)[0] for column in found]
    names = {}
    for column in sorted(found):
        path, _ = split_name(column)
        clear = paths.count(path) == 1 and path not in ("id", "vector")
        names[column] = path if clear else column
    vector = points.schema.vectors[0] if points.schema is not None else None
    fields = [pa.field("id", _STR if str in kinds else _INT)]
    if vector is not None:
        element = pa.from_numpy_dtype(vector.numpy_dtype)
        fields.append(pa.field("vector", pa.list_(element, vector.dimension)))
    fields += [pa.field(name, TYPES[split_name(column)[1]]) for column, name in names.items()]
    return pa.schema(fields), names


def _batch(records: list[Record], schema: pa.Schema, names: dict[str, str]) -> pa.RecordBatch:
    ids = [str(r.id) for r in records] if schema.field("id").type == _STR else [r.id for r in records]
    arrays = {"id": pa.array(ids, schema.field("id").type)}
    if "vector" in schema.names:
        matrix = np.stack([r.vector for r in records if r.vector is not None])
        arrays["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
    payload = columns_from_rows([r.metadata for r in records])
    # A field first written after the schema was fixed is left to the next export.
    arrays |= {names[c]: payload.column(c) for c in payload.schema.names if c in names}
    columns = [arrays.get(field.name, pa.nulls(len(records), field.type)) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


__all__ = ["export_file"]
