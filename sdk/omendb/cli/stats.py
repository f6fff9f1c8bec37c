"""``omendb stats``: how many points, segments and bytes, and what the background does."""

from __future__ import annotations

import dataclasses
from typing import Any

from omendb.cli.terminal import AsJson, Place, Url, open_place, out, print_json, reported, size, table
from omendb.collection import Collection
from omendb_common.schema import CollectionSchema


@reported
def stats(place: Place = None, url: Url = None, json: AsJson = False) -> None:
    """Print the collections with their points, segments, indexes, memory and disk."""
    with open_place(place, url) as database:
        found = [(name, *_look(database.collection(name))) for name in database.list_collections()]
        if json:
            print_json({name: _as_json(schema, numbers) for name, schema, numbers in found})
            return
        rows = table("collection", "points", "vectors", "growing", "segments", "indexed", "disk")
        for name, schema, numbers in found:
            fields = " ".join(f"{v.dimension} x {v.dtype} {v.metric}" for v in schema.vectors)
            indexed = 1.0 if not numbers.points else 1 - numbers.unindexed_rows / numbers.points
            rows.add_row(
                name,
                f"{numbers.points:,}",
                fields,
                f"{numbers.growing_rows:,}",
                str(len(numbers.segments)),
                f"{max(0.0, indexed):.0%}",
                size(numbers.disk_bytes),
            )
        out.print(rows if found else "no collections yet")


def _look(collection: Collection) -> tuple[CollectionSchema, Any]:
    schema = collection.schema
    assert schema is not None, "a listed collection has a schema"
    return schema, collection.stats()


def _as_json(schema: CollectionSchema, numbers: Any) -> dict[str, Any]:
    plain = _plain(numbers)
    plain["segments"] = [_plain(segment) for segment in numbers.segments]
    plain["memory_bytes"] = dict(numbers.memory_bytes)
    return {"schema": schema.to_json(), **plain}


def _plain(numbers: Any) -> dict[str, Any]:
    """The engine's own numbers are a dataclass; a server's came as names and values."""
    if dataclasses.is_dataclass(numbers):
        return {field.name: getattr(numbers, field.name) for field in dataclasses.fields(numbers)}
    return dict(vars(numbers))


__all__ = ["stats"]
