"""``omendb cluster verify`` and ``repair``: whether the replicas of a collection are sound and equal, and made so."""

from __future__ import annotations

import dataclasses
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
from omendb.cli.terminal import FAULT, AsJson, escape, out, print_json, reported, table

if TYPE_CHECKING:
    from omendb_common.wire.replica_check import ShardReport

Collection = Annotated[str, typer.Argument(help="The collection.", show_default=False)]


@reported
def verify(
    collection: Collection,
    folder: Folder = None,
    coordinators: Coordinators = None,
    tls_ca: Authority = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    router: Router = ROUTER,
    timeout: Timeout = 300.0,
    files: Annotated[
        bool, typer.Option("--files/--no-files", help="Have every data node read its files from the disk, too.")
    ] = True,
    json: AsJson = False,
) -> None:
    """Read all files of COLLECTION and compare its replicas by their hash trees; 1 unless all are sound and equal.

    Writes nothing. A replica with a damaged file answers nothing more, and is made anew from the others. What is
    younger than the settling time of the data nodes is left out.
    """
    place = place_of(folder, coordinators, (tls_ca, tls_cert, tls_key), router)
    _tell(_check(place, collection, timeout, files=files), json)


@reported
def repair(
    collection: Collection,
    folder: Folder = None,
    coordinators: Coordinators = None,
    tls_ca: Authority = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    router: Router = ROUTER,
    timeout: Timeout = 3600.0,
    json: AsJson = False,
) -> None:
    """Bring the replicas of COLLECTION together now, as data nodes do by themselves; 1 unless all are equal then."""
    place = place_of(folder, coordinators, (tls_ca, tls_cert, tls_key), router)
    _tell(_check(place, collection, timeout, repair=True), json)


def _check(
    place: Place, collection: str, timeout_s: float, *, repair: bool = False, files: bool = False
) -> list[ShardReport]:
    from omendb_common.wire.replica_check import check_replicas  # here: other commands need no network

    return check_replicas(
        *(place.coordinators, collection, timeout_s),
        repair=repair,
        files=files,
        tls=place.tls,
        node_id=place.node_id,
    )


def _tell(reports: list[ShardReport], json: bool) -> None:
    equal = all(report.equal for report in reports)
    if json:
        print_json({"equal": equal, "shards": [dataclasses.asdict(report) for report in reports]})
    else:
        rows = table("shard", "asked", "replica", "equal", "records", "leaves apart", "ids apart", "sent")
        for report in reports:
            for row in _rows(report):
                rows.add_row(*row)
        out.print(rows)
        for report in reports:
            for line in _lines(report):
                out.print(escape(line), soft_wrap=True)
        out.print("all replicas are equal" if equal else "not all replicas are known to be equal")
    if not equal:
        raise typer.Exit(FAULT)


def _rows(report: ShardReport) -> list[list[str]]:
    shard = str(report.shard_id)
    if report.found is None:
        return [[shard, "-", "-", escape(report.problem), "", "", "", ""]]
    sent = str(report.found["pulled"] + report.found["pushed"])
    members: dict[str, dict[str, Any]] = report.found["members"]
    if not members:
        return [[shard, report.node_id, "-", "it is the only one", "", "", "", ""]]
    rows = []
    for name, found in members.items():
        told = "yes" if found["equal"] else escape(str(found.get("problem", "no")))
        numbers = [str(found.get(key, "")) for key in ("records", "leaves", "differing")]
        rows.append([shard, report.node_id, name, told, *numbers, sent])
    return rows


def _lines(report: ShardReport) -> list[str]:
    """What does not fit into a table: damaged files, files that nobody could read, and which points differ."""
    shard = f"shard {report.shard_id}"
    lines = [
        f"{shard}: {node} is damaged, and is made anew from the others: {found['problem']}"
        for node, damage in report.damage.items()
        for found in damage
    ]
    lines += [f"{shard}: {node} did not read its files: {why}" for node, why in report.unread.items()]
    members = {} if report.found is None else report.found["members"]
    for name, found in members.items():
        if found.get("ids"):
            more = ", ..." if found["differing"] > len(found["ids"]) else ""
            ids = ", ".join(map(str, found["ids"]))
            lines.append(f"{shard}: {report.node_id} and {name} differ in {ids}{more}")
    return lines


__all__ = ["repair", "verify"]
