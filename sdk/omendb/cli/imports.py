"""``omendb import``: a file of points into a database, batch by batch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from omendb.cli.files import Source, open_source
from omendb.cli.terminal import (
    AsJson,
    CollectionName,
    ConfigFile,
    Durability,
    Place,
    Profile,
    Url,
    open_place,
    out,
    print_json,
    progress,
    reported,
)
from omendb.collection import Collection
from omendb.database import DEFAULT_COLLECTION, Database
from omendb_common.inputs import check_count
from omendb_common.matrices import infer_dimension
from omendb_common.schema import Metric, VectorDType

BATCH_ROWS = 10_000
BATCH_ROWS_MAX = 1_000_000


@reported
def import_file(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Parquet, Arrow, CSV, JSON Lines, .npy, .fvecs, .bvecs.")
    ],
    place: Place = None,
    collection: CollectionName = DEFAULT_COLLECTION,
    id_column: Annotated[str, typer.Option("--id-column", help="The column of ids.")] = "id",
    vector_column: Annotated[str, typer.Option("--vector-column", help="The column of vectors.")] = "vector",
    ids: Annotated[Path | None, typer.Option("--ids", help="Ids of a matrix file: .npy, or a line each.")] = None,
    metadata_file: Annotated[Path | None, typer.Option("--metadata-file", help="A table beside a matrix file.")] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="Of a new collection: l2, cosine or dot.")] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Of a new collection: float32, float16, int8, uint8.")
    ] = None,
    batch_rows: Annotated[int, typer.Option("--batch-rows", help="Rows per durable batch.")] = BATCH_ROWS,
    durability: Durability = None,
    profile: Profile = None,
    config: ConfigFile = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Add the points of FILE to the database at PLACE; a folder is made when there is none.

    Every batch is whole or not there at all; an import that was interrupted can simply be run again when the
    points have ids.
    """
    check_count(batch_rows, "--batch-rows", BATCH_ROWS_MAX)
    source = open_source(
        file, batch_rows, id_column=id_column, vector_column=vector_column, ids_file=ids, metadata_file=metadata_file
    )
    with open_place(place, url, mode="rw", durability=durability, profile=profile, config=config) as database:
        started = time.perf_counter()
        rows, kept = _stream(database, collection, source, metric, dtype, quiet=json)
        seconds = time.perf_counter() - started
        rate = rows / seconds if seconds else 0.0
        if json:
            print_json({"rows": rows, "seconds": seconds, "rows_per_second": rate, "durability": kept})
        else:
            out.print(f"{rows:,} points in {seconds:.2f} s, {rate:,.0f} per second, durability {kept}")


def _stream(
    database: Database, name: str, source: Source, metric: str | None, dtype: str | None, *, quiet: bool
) -> tuple[int, str | None]:
    """Add every batch; returns the rows added and their durability."""
    target: Collection | None = None
    rows, kept = 0, None
    started = time.perf_counter()
    with progress(quiet) as bar:
        task = bar.add_task("importing", total=source.rows, rate="")
        for batch in source.batches:
            if target is None:
                target = _target(database, name, infer_dimension(batch.vectors), metric, dtype)
            written = target.add_batch(batch.vectors, batch.metadata, batch.ids)
            rows, kept = rows + len(written), written.durability
            bar.update(task, completed=rows, rate=f"{rows / (time.perf_counter() - started):,.0f}/s")
    return rows, kept


def _target(database: Database, name: str, dimension: int, metric: str | None, dtype: str | None) -> Collection:
    if name in database.list_collections():
        return database if name == DEFAULT_COLLECTION else database.collection(name)
    new_metric: Metric = metric or "l2"  # type: ignore[assignment]  # create_collection checks it
    new_dtype: VectorDType = dtype or "float32"  # type: ignore[assignment]
    return database.create_collection(name, dimension, new_metric, new_dtype)


__all__ = ["BATCH_ROWS", "import_file"]
