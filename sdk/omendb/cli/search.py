"""``omendb search``: the nearest points of a vector, a stored point, or a file of queries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from omendb.cli import files
from omendb.cli.terminal import (
    AsJson,
    CollectionName,
    FilterJson,
    Place,
    Url,
    escape,
    open_place,
    out,
    parse_filter_option,
    parse_json,
    print_json,
    reported,
    table,
)
from omendb.collection import Collection
from omendb.database import DEFAULT_COLLECTION
from omendb.results import SearchResults
from omendb_common.errors import InvalidArgumentError, NotFoundError


@reported
def search(
    place: Place = None,
    vector: Annotated[str | None, typer.Option("--vector", help="The query as a JSON array.")] = None,
    id: Annotated[str | None, typer.Option("--id", help="Search with the vector of this stored point.")] = None,
    query_file: Annotated[Path | None, typer.Option("--query-file", help="Queries: .npy, .fvecs or .bvecs.")] = None,
    k: Annotated[int, typer.Option("-k", help="Hits per query.")] = 10,
    filter: FilterJson = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every point.")] = False,
    collection: CollectionName = DEFAULT_COLLECTION,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Print the nearest points of one or many queries."""
    if (vector is not None) + (id is not None) + (query_file is not None) != 1:
        raise InvalidArgumentError("got none or several", field="--vector, --id, --query-file", bound="exactly one")
    with open_place(place, url) as database:
        points = database if collection == DEFAULT_COLLECTION else database.collection(collection)
        filters = parse_filter_option(filter)
        if query_file is not None:
            found = points.search(vectors=files.read_matrix(query_file), k=k, filters=filters, exact=exact)
        else:
            query = parse_json(vector, "--vector") if vector is not None else _stored_vector(points, str(id))
            found = [points.search(vector=query, k=k, filters=filters, exact=exact)]
        if json:
            print_json([as_json(results) for results in found])
            return
        for number, results in enumerate(found):
            _show(results, f"query {number}: " if query_file is not None else "")


def as_json(results: SearchResults) -> dict[str, Any]:
    """One query's answer as a JSON value."""
    work = results.performance
    return {
        "hits": [{"id": h.id, "distance": h.distance, "score": h.score, "metadata": h.metadata} for h in results],
        "performance": {
            "latency_ms": work.latency_ms,
            "vectors_scanned": work.vectors_scanned,
            "segments_searched": work.segments_searched,
            "segments_skipped": work.segments_skipped,
            "cache_hit_rate": work.cache_hit_rate,
            "cost_estimate": work.cost_estimate,
        },
    }


def _stored_vector(points: Collection, id: str) -> Any:
    """The vector of the point called ``id``, which may be an integer or a string."""
    candidates: list[int | str] = [id, int(id)] if id.isdecimal() and int(id) < 1 << 64 else [id]
    for record in points.get(candidates, include=["vector"]):
        if record is not None:
            return record.vector
    raise NotFoundError(f"no point {id!r}", field="--id", bound="the id of a stored point")


def _show(results: SearchResults, prefix: str) -> None:
    work = results.performance
    rows = table("id", "distance", "score", "metadata")
    rows.columns[3].justify = "left"
    for hit in results:
        rows.add_row(escape(str(hit.id)), f"{hit.distance:.6g}", f"{hit.score:.6g}", escape(str(hit.metadata)))
    out.print(f"{prefix}{len(results)} hits in {work.latency_ms:.2f} ms, {work.vectors_scanned:,} vectors compared")
    if len(results):
        out.print(rows)


__all__ = ["as_json", "search"]
