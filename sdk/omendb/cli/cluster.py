"""``omendb cluster``: a fleet of real processes on this machine, for development, and how any cluster is."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from omendb.cli import catalog, moves, replicas, scrub
from omendb.cli.moves import show_moves
from omendb.cli.processes import missing_package
from omendb.cli.terminal import AsJson, Url, err, fail, out, print_json, reported, table
from omendb.fleet.fleet import GRACE_S, START_S, Fleet, NodeState
from omendb.fleet.plan import FleetSize, read_plan
from omendb_common.errors import InvalidArgumentError, OmenDBError

app = typer.Typer(
    no_args_is_help=True, help="A local fleet of processes, and any cluster's state.", rich_markup_mode=None
)

app.command("verify")(replicas.verify)
app.command("repair")(replicas.repair)
app.command("scrub")(scrub.cluster_scrub)
app.command("drain")(moves.drain)
app.command("moves")(moves.moves)
app.command("move")(moves.move)
app.command("split")(moves.split)
app.command("merge")(moves.merge)
app.command("backup-catalog")(catalog.backup_catalog)
app.command("accept-restored")(catalog.accept_restored)
app.command("finalize-upgrade")(catalog.finalize_upgrade)

Folder = Annotated[Path, typer.Option("--dir", help="The fleet's folder: data, logs.", show_default=False)]


@app.command("up")
@reported
def up(
    folder: Folder,
    coordinators: Annotated[int | None, typer.Option("--coordinators", help="1, 3 (by default) or 5.")] = None,
    routers: Annotated[int | None, typer.Option("--routers", help="2 by default.")] = None,
    datanodes: Annotated[int | None, typer.Option("--datanodes", help="3 by default.")] = None,
    tls: Annotated[bool, typer.Option("--tls/--no-tls", help="Mutual TLS between the processes.")] = True,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds until everything must serve.")] = START_S,
    json: AsJson = False,
) -> None:
    """Start the fleet in DIR, making it when there is none, and wait until it takes reads and writes.

    The first router listens on 8480 (REST) and 8481 (gRPC) when they are free. Run again, it starts what has ended,
    with the data that is there; with more routers or data nodes than it had, it grows, and shards move to the new ones.
    """
    missing = missing_package()
    if missing is not None:
        fail(f"{missing} is not installed: pip install 'omendb[server]'", 2)
    given = {"coordinators": coordinators, "routers": routers, "datanodes": datanodes}
    counts = {name: count for name, count in given.items() if count is not None}
    had = read_plan(folder)
    size = replace(FleetSize() if had is None else had.size, **counts) if counts else None
    fleet = Fleet.make(folder, size, tls=tls)
    started = time.perf_counter()
    fleet.up(timeout)
    took = time.perf_counter() - started
    if json:
        print_json({"seconds": took, **_as_json(fleet)})
        return
    _show_processes(fleet.states())
    first = fleet.plan.of("router")[0]
    out.print(f'\nserving after {took:.1f} s: omendb.Client("http://{first.address("http")}")', highlight=False)


@app.command("down")
@reported
def down(
    folder: Folder,
    grace: Annotated[float, typer.Option("--grace", help="Seconds to end by themselves.")] = GRACE_S,
) -> None:
    """End the fleet's processes; the data stay."""
    Fleet.open(folder).down(grace)
    out.print("down")


@app.command("status")
@reported
def status(
    folder: Annotated[Path | None, typer.Option("--dir", help="The fleet's folder.")] = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Print the processes of a local fleet, and members, collections and shards as the cluster knows them."""
    if (folder is None) == (url is None):
        raise InvalidArgumentError("got none or both", field="--dir, --url", bound="exactly one of them")
    fleet = None if folder is None else Fleet.open(folder)
    told, problem = _told(fleet, url)
    if json:
        print_json({**({} if fleet is None else _as_json(fleet)), "cluster": told, "problem": problem})
        return
    if fleet is not None:
        _show_processes(fleet.states())
        out.print()
    if told is None:
        err.print(f"no answer from the cluster: {problem}", markup=False)
        return
    _show_cluster(told)


def _told(fleet: Fleet | None, url: str | None) -> tuple[dict[str, Any] | None, str | None]:
    """The cluster's own account of itself, or why there is none."""
    if fleet is None:
        from omendb.client import Client  # here, so that `cluster down` needs no network

        with Client(str(url)) as client:
            return client.cluster_status(), None
    try:
        return fleet.status(), None
    except OmenDBError as error:
        return None, str(error)


def _as_json(fleet: Fleet) -> dict[str, Any]:
    states = [
        {"name": s.name, "kind": s.kind, "pid": s.pid, "running": s.pid is not None, **s.addresses}
        for s in fleet.states()
    ]
    return {"dir": str(fleet.folder), "urls": fleet.urls(), "processes": states}


def _show_processes(states: list[NodeState]) -> None:
    rows = table("process", "kind", "pid", "listens on")
    for state in states:
        listens = "  ".join(f"{purpose} {address}" for purpose, address in state.addresses.items())
        rows.add_row(state.name, state.kind, "ended" if state.pid is None else str(state.pid), listens)
    out.print(rows)


def _show_level(told: dict[str, Any]) -> None:
    """Whether there is something to finalise, and whether the catalog is a restored one."""
    level, following = told.get("feature_level", 0), told.get("feature_level_next", 0)
    if following > level:
        out.print(f"feature level {level}; every member understands {following}: `omendb cluster finalize-upgrade`")
    if told.get("restored"):
        out.print(f"the catalog was restored from a copy, at revision {told['restored']}", highlight=False)


def _show_cluster(told: dict[str, Any]) -> None:
    leader = told.get("leader") or "none"
    out.print(f"cluster {told.get('cluster_id')}, leader {leader}, revision {told.get('revision')}", highlight=False)
    _show_level(told)
    members = table("member", "role", "state", "address", "replicas", "load", "silent for")
    for member in told.get("members", ()):
        silent, load = member.get("silent_s"), member.get("load")
        members.add_row(
            str(member.get("node_id")),
            str(member.get("role")),
            str(member.get("state")),
            str(member.get("address")),
            str(member.get("replicas", "")),
            "" if not load else f"{load:.2f}",
            "" if silent is None else f"{silent:.1f} s",
        )
    out.print(members)
    for member in told.get("members", ()):
        for problem in member.get("problems", ()):
            out.print(f"[bold red]{member.get('node_id')}[/]: {escape(str(problem))}", highlight=False)
    show_moves(told)
    collections = table("collection", "shards", "replicas", "write quorum", "read quorum", "revision")
    for found in told.get("collections", ()):
        shards = found.get("shards", ())
        collections.add_row(
            str(found.get("name")),
            str(shards if isinstance(shards, int) else len(shards)),
            str(found.get("replication", "")),
            str(found.get("write_quorum", "")),
            str(found.get("read_quorum", "")),
            str(found.get("revision", "")),
        )
    if told.get("collections"):
        out.print()
        out.print(collections)


__all__ = ["app", "down", "status", "up"]
