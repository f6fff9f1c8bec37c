"""``omendb collections``: list, show, create, alter, rename and drop them, in a folder or a cluster."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from omendb.cli.terminal import AsJson, Place, Url, open_place, out, print_json, reported, table
from omendb_common.errors import InvalidArgumentError

app = typer.Typer(no_args_is_help=True, help="The collections of a database.", rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The collection's name.", show_default=False)]


@app.command("list")
@reported
def list_all(place: Place = None, url: Url = None, json: AsJson = False) -> None:
    """Print the collections with their fields and points."""
    with open_place(place, url) as database:
        names = database.list_collections()
        found = [(name, database.collection(name)) for name in names]
        described = [{"name": name, "points": c.count(), **_described(c.schema)} for name, c in found]
    if json:
        print_json(described)
        return
    rows = table("collection", "points", "vectors", "options")
    for one in described:
        fields = " ".join(f"{v['dimension']} x {v['dtype']} {v['metric']}" for v in one["vectors"])
        rows.add_row(one["name"], f"{one['points']:,}", fields, str(one["options"] or ""))
    out.print(rows if described else "no collections yet")


@app.command("create")
@reported
def create(
    name: Name,
    dimension: Annotated[int, typer.Option("--dimension", help="Elements of a vector.", show_default=False)],
    place: Place = None,
    metric: Annotated[str, typer.Option("--metric", help="l2, cosine or dot.")] = "l2",
    dtype: Annotated[str, typer.Option("--dtype", help="float32, float16, int8 or uint8.")] = "float32",
    index: Annotated[str, typer.Option("--index", help="auto, flat, hnsw or ivf.")] = "auto",
    quantization: Annotated[
        str, typer.Option("--quantization", help="auto, none, float16, scalar8, product or binary.")
    ] = "auto",
    nlist: Annotated[int, typer.Option("--nlist", help="Lists of an ivf index; 0: by the rows.")] = 0,
    shards: Annotated[int | None, typer.Option("--shards", help="Parts, in a cluster.")] = None,
    replication: Annotated[int | None, typer.Option("--replication", help="Copies of each shard.")] = None,
    write_quorum: Annotated[int | None, typer.Option("--write-quorum", help="Copies that acknowledge a write.")] = None,
    read_quorum: Annotated[int | None, typer.Option("--read-quorum", help="Copies that a read asks.")] = None,
    partition_key: Annotated[str | None, typer.Option("--partition-key", help="The metadata key that routes.")] = None,
    url: Url = None,
) -> None:
    """Make a collection."""
    spread = {
        "shards": shards,
        "replication": replication,
        "write_quorum": write_quorum,
        "read_quorum": read_quorum,
        "partition_key": partition_key,
    }
    given: dict[str, Any] = {"metric": metric, "dtype": dtype, "index": index, "quantization": quantization, **spread}
    if nlist:
        given["nlist"] = nlist
    with open_place(place, url, mode="rw") as database:
        database.create_collection(name, dimension, **given)
    out.print(f"{name} made")


@app.command("rename")
@reported
def rename(
    old: Name,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.", show_default=False)],
    place: Place = None,
    url: Url = None,
) -> None:
    """Give a collection another name."""
    with open_place(place, url, mode="rw") as database:
        database.rename_collection(old, new)
    out.print(f"{old} is {new} now")


@app.command("alter")
@reported
def alter(
    name: Name,
    place: Place = None,
    replication: Annotated[int | None, typer.Option("--replication", help="Copies of each shard.")] = None,
    write_quorum: Annotated[int | None, typer.Option("--write-quorum", help="Copies that acknowledge a write.")] = None,
    read_quorum: Annotated[int | None, typer.Option("--read-quorum", help="Copies that a read asks.")] = None,
    url: Url = None,
) -> None:
    """Change how many copies a collection has, and its quorums; `omendb cluster moves` tells how far it is."""
    numbers = {"replication": replication, "write_quorum": write_quorum, "read_quorum": read_quorum}
    if not any(numbers.values()):
        raise InvalidArgumentError(
            "got none", field="--replication, --write-quorum, --read-quorum", bound="one of them"
        )
    with open_place(place, url, mode="rw") as database:
        database.alter_collection(name, **numbers)
    told = ", ".join(f"{field.replace('_', ' ')} {value}" for field, value in numbers.items() if value is not None)
    out.print(f"{name} goes to {told}", highlight=False)


@app.command("drop")
@reported
def drop(
    name: Name,
    place: Place = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = None,
) -> None:
    """Delete a collection and all its points."""
    with open_place(place, url, mode="rw") as database:
        if name not in database.list_collections():
            database.collection(name)  # says what there is
        if not yes:
            typer.confirm(f"Delete {name} and its {database.collection(name).count():,} points?", abort=True, err=True)
        database.drop_collection(name)
    out.print(f"{name} is gone")


def _described(schema: Any) -> dict[str, Any]:
    if schema is None:
        raise InvalidArgumentError("a listed collection has no schema", field="schema")
    told = schema.to_json()
    return {"vectors": told["vectors"], "options": told["options"]}


__all__ = ["alter", "app", "create", "drop", "list_all", "rename"]
