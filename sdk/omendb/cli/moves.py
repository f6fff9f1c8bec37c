"""``omendb cluster drain``, ``moves``, ``move``, ``split`` and ``merge``: where shards lie, and how that changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from omendb.cli.place import (
    ROUTER,
    Authority,
    Certificate,
    Coordinators,
    Folder,
    Key,
    Place,
    Router,
    Timeout,
    place_of,
)
from omendb.cli.terminal import AsJson, escape, out, print_json, reported, table
from omendb_common.errors import InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from omendb_common.deadline import Deadline
    from omendb_common.topology import CollectionInfo, Member, Shard
    from omendb_common.wire.coordinator_client import CoordinatorClient

Node = Annotated[str, typer.Argument(help="The data node.", show_default=False)]
Collection = Annotated[str, typer.Argument(help="The collection.", show_default=False)]
Number = Annotated[int, typer.Argument(help="The number of its shard.", show_default=False)]


@reported
def drain(
    node: Node,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back instead.")] = False,
    folder: Folder = None,
    coordinators: Coordinators = None,
    tls_ca: Authority = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    router: Router = ROUTER,
    timeout: Timeout = 30.0,
) -> None:
    """Empty data node NODE: it gets no new replicas, and those that it has move to others.

    `omendb cluster moves` tells how far it is; when the node has no replicas left, end it.
    """

    async def change(client: CoordinatorClient, deadline: Deadline) -> Member:
        return await client.drain(node, not undo, deadline)

    member = _with(place_of(folder, coordinators, (tls_ca, tls_cert, tls_key), router), change, timeout)
    out.print(f"{member.node_id} is {member.state}")


@reported
def moves(
    pause: Annotated[bool, typer.Option("--pause", help="Begin none and fill none until --resume.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on.")] = False,
    folder: Folder = None,
    coordinators: Coordinators = None,
    tls_ca: Authority = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    router: Router = ROUTER,
    timeout: Timeout = 30.0,
    json: AsJson = False,
) -> None:
    """Print the replicas on their way and the shards that split or merge, how far each is and what it waits for."""
    if pause and resume:
        raise InvalidArgumentError("got both", field="--pause, --resume", bound="at most one of them")

    async def ask(client: CoordinatorClient, deadline: Deadline) -> dict[str, Any]:
        if pause or resume:
            await client.pause_moves(pause, deadline)
        return await client.status(deadline)

    told = _with(place_of(folder, coordinators, (tls_ca, tls_cert, tls_key), router), ask, timeout)
    if json:
        kinds = ("moves", "splits", "merges")
        shown = {kind: told.get(kind, []) for kind in (*kinds, "busy")}
        print_json({**shown, "paused": told["moves_paused"]})
        return
    show_moves(told)
    if not _on_their_way(told):
        out.print("nothing moves")


@reported
def move(
    collection: Collection,
    shard: Number,
    source: Annotated[str | None, typer.Option("--from", help="The data node that gives its replica up.")] = None,
    target: Annotated[str | None, typer.Option("--to", help="The data node that gets one.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Give the move of this shard up.")] = False,
    folder: Folder = None,
    coordinators: Coordinators = None,
    tls_ca: Authority = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    router: Router = ROUTER,
    timeout: Timeout = 30.0,
) -> None:
    """Begin to move a replica of one shard of COLLECTION from one data node to another, or give that up."""
    if cancel == (source is not None or target is not None) or (source is None) != (target is None):
        raise InvalidArgumentError("got some of them", field="--from, --to, --cancel", bound="both, or --cancel alone")

    async def change(client: CoordinatorClient, deadline: Deadline) -> CollectionInfo:
        info = (await client.refresh(0, deadline)).collection(collection)
        found = _shard(info, shard)
        if source is None or target is None:
            return await client.cancel_move(info.schema.uuid, shard, found.epoch, deadline)
        return await client.begin_move(info.schema.uuid, shard, found.epoch, source, target, deadline)

    info = _with(place_of(folder, coordinators, (tls_ca, tls_cert, tls_key), router), change, timeout)
    places = ", ".join(f"{r.node_id} {r.state}" for r in _shard(info, shard).replicas)
    out.print(f"{collection}.{shard}: {places}", highlight=False)


@reported
def split(
    collection: Collection,
    shard: Number,
    at: Annotated[int | None, typer.Option("--at", help="The place of the ring to cut at; the middle.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Give the split of this shard up.")] = False,
    folder: Folder = None,
    coordinators: Coordinators = None,
    tls_ca: Authority = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    router: Router = ROUTER,
    timeout: Timeout = 30.0,
) -> None:
    """Begin to cut one shard of COLLECTION in two, on the nodes that have it, or give that up.

    `omendb cluster moves` tells how far it is.
    """
    if cancel and at is not None:
        raise InvalidArgumentError("got both", field="--at, --cancel", bound="at most one of them")

    async def change(client: CoordinatorClient, deadline: Deadline) -> CollectionInfo:
        info = (await client.refresh(0, deadline)).collection(collection)
        where = info.schema.uuid, shard, _shard(info, shard).epoch
        if cancel:
            return await client.cancel_split(*where, deadline)
        return await client.begin_split(*where, deadline, at=at)

    info = _with(place_of(folder, coordinators, (tls_ca, tls_cert, tls_key), router), change, timeout)
    found = _shard(info, shard).split
    if found is None:
        out.print(f"{collection}.{shard} stays one shard", highlight=False)
    else:
        out.print(f"{collection}.{shard} becomes {found.low_id} and {found.high_id}", highlight=False)


@reported
def merge(
    collection: Collection,
    shard: Number,
    other: Annotated[int | None, typer.Argument(help="Its neighbour; the next one of the ring.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Give the merge of this shard up.")] = False,
    folder: Folder = None,
    coordinators: Coordinators = None,
    tls_ca: Authority = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    router: Router = ROUTER,
    timeout: Timeout = 30.0,
) -> None:
    """Begin to put two neighbouring shards of COLLECTION together, on the nodes that have both, or give that up.

    Their replicas must be on the same nodes: `omendb cluster move` brings them there. A collection with a partition key
    stays cut. `omendb cluster moves` tells how far it is.
    """

    async def change(client: CoordinatorClient, deadline: Deadline) -> CollectionInfo:
        info = (await client.refresh(0, deadline)).collection(collection)
        found = _shard(info, shard)
        if cancel:
            return await client.cancel_merge(info.schema.uuid, shard, found.epoch, deadline)
        second = _next(info, found) if other is None else _shard(info, other)
        pair = (found.shard_id, found.epoch), (second.shard_id, second.epoch)
        return await client.begin_merge(info.schema.uuid, *pair, deadline)

    info = _with(place_of(folder, coordinators, (tls_ca, tls_cert, tls_key), router), change, timeout)
    merging = _shard(info, shard).merge
    if merging is None:
        out.print(f"{collection}.{shard} stays a shard of its own", highlight=False)
    else:
        both = f"{collection}.{merging.low_id} and {collection}.{merging.high_id}"
        out.print(f"{both} become {merging.into_id}", highlight=False)


def show_moves(told: dict[str, Any]) -> None:
    """Replicas on their way, how far they are, and shards with more to do than their bound, from a cluster's status."""
    if told.get("moves_paused"):
        out.print("moves are paused")
    for busy in told.get("busy", ()):
        kept = f", and does not split: {busy['kept']}" if busy.get("kept") else ""
        out.print(
            f"{busy.get('collection')}.{busy.get('shard_id')} takes {busy['load']:.2f} processors on a node, above "
            f"{busy['bound']:.2f} for {busy['for_s']:.0f} s{kept}",
            highlight=False,
            markup=False,
        )
    rows = table("moving", "from", "to", "stage", "done", "rows", "size", "waits for")
    for moving in told.get("moves", ()):
        rows.add_row(
            f"{moving.get('collection')}.{moving.get('shard_id')}",
            str(moving.get("source")),
            str(moving.get("target")),
            str(moving.get("stage")) + _other_quorums(moving.get("quorums")),
            *_done(moving),
            escape(str(moving.get("waits_for") or "")),
        )
    for splitting in told.get("splits", ()):
        waits = ", ".join(splitting.get("waits_for") or ())
        held = splitting.get("held_up")
        rows.add_row(
            f"{splitting.get('collection')}.{splitting.get('shard_id')}",
            "",
            " and ".join(map(str, splitting.get("into", ()))),
            "splitting",
            *_done(splitting),
            escape(f"{waits} ({held})" if held else waits),
        )
    for merging in told.get("merges", ()):
        waits = ", ".join(merging.get("waits_for") or ())
        held = merging.get("held_up")
        rows.add_row(
            " and ".join(f"{merging.get('collection')}.{number}" for number in merging.get("shard_ids", ())),
            "",
            str(merging.get("into")),
            "merging",
            *_done(merging),
            escape(f"{waits} ({held})" if held else waits),
        )
    if _on_their_way(told):
        out.print(rows)


def _on_their_way(told: dict[str, Any]) -> bool:
    return any(told.get(kind) for kind in ("moves", "splits", "merges"))


def _done(told: dict[str, Any]) -> tuple[str, str, str]:
    """How much is done: percent, rows and bytes, as far as nodes have told it."""
    if told.get("percent") is None:
        return "", "", ""
    rows = f"{told['rows_done']:,} of {told['rows_total']:,}"
    return f"{told['percent']:.0f} %", rows, f"{told['bytes_done'] / (1 << 20):.1f} MiB"


def _other_quorums(told: dict[str, dict[str, int]] | None) -> str:
    """Replicas, write and read quorum before and after, where they change."""
    if told is None:
        return ""
    before, after = ("/".join(str(n) for n in numbers.values()) for numbers in (told["from"], told["to"]))
    return f", {before} to {after}"


def _shard(info: CollectionInfo, number: int) -> Shard:
    found = next((shard for shard in info.shards if shard.shard_id == number), None)
    if found is None:
        raise NotFoundError(f"no shard {number}", field="SHARD", bound=", ".join(str(s.shard_id) for s in info.shards))
    return found


def _next(info: CollectionInfo, shard: Shard) -> Shard:
    """The neighbour above a shard; below the last one."""
    at = info.shards.index(shard)
    if len(info.shards) == 1:
        raise NotFoundError("it is the only shard", field="SHARD")
    return info.shards[at + 1 if at + 1 < len(info.shards) else at - 1]


def _with(place: Place, work: Any, timeout_s: float) -> Any:
    from omendb_common.wire.with_coordinators import with_coordinators  # here: other commands need no network

    return with_coordinators(place.coordinators, work, timeout_s, tls=place.tls, name=place.node_id)


__all__ = ["drain", "merge", "move", "moves", "show_moves", "split"]
