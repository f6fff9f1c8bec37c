"""``omendb cluster verify`` and ``repair``: whether the replicas of a collection are equal, and made so."""

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
    json: AsJson = False,
) -> None:
    """Compare all replicas of COLLECTION by their hash trees; ends with 1 unless all are there and equal.

    Changes nothing. What is younger than the settling time of the data nodes is left out.
    """
    place = place_of(folder, coordinators, (tls_ca, tls_cert, tls_key), router)
    _tell(_check(place, collection, timeout, repair=False), json)


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


def _check(place: Place, collection: str, timeout_s: float, *, repair: bool) -> list[ShardReport]:
    from omendb_common.wire.replica_check import check_replicas  # here: other commands need no network

    return check_replicas(
        place.coordinators, collection, timeout_s, repair=repair, tls=place.tls, node_id=place.node_id
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


__all__ = ["repair", "verify"]
