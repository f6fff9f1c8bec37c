"""``omendb cluster verify`` and ``repair``: whether the replicas of a collection are equal, and made so."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omendb.cli.terminal import FAULT, AsJson, escape, out, print_json, reported, table
from omendb.fleet.fleet import Fleet
from omendb_common.errors import InvalidArgumentError

if TYPE_CHECKING:
    from omendb_common.security.tls import TlsFiles
    from omendb_common.wire.replica_check import ShardReport

Collection = Annotated[str, typer.Argument(help="The collection.", show_default=False)]
Folder = Annotated[Path | None, typer.Option("--dir", help="The folder of a local fleet.")]
Coordinators = Annotated[
    str | None, typer.Option("--coordinators", help="host:port of the coordinators, with commas, instead of --dir.")
]
Authority = Annotated[str | None, typer.Option("--tls-ca", help="PEM file of the cluster's authority.")]
Certificate = Annotated[str | None, typer.Option("--tls-cert", help="PEM file of a router's certificate.")]
Key = Annotated[str | None, typer.Option("--tls-key", help="PEM file of its key.")]
Router = Annotated[str, typer.Option("--as", help="The router whom the certificate names.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds until an answer must be there.")]


@reported
def verify(
    collection: Collection,
    folder: Folder = None,
    coordinators: Coordinators = None,
    tls_ca: Authority = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    router: Router = "omendb-cli",
    timeout: Timeout = 300.0,
    json: AsJson = False,
) -> None:
    """Compare all replicas of COLLECTION by their hash trees; ends with 1 unless all are there and equal.

    Changes nothing. What is younger than the settling time of the data nodes is left out.
    """
    place = _place(folder, coordinators, (tls_ca, tls_cert, tls_key), router)
    _tell(place.check(collection, timeout, repair=False), json)


@reported
def repair(
    collection: Collection,
    folder: Folder = None,
    coordinators: Coordinators = None,
    tls_ca: Authority = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    router: Router = "omendb-cli",
    timeout: Timeout = 3600.0,
    json: AsJson = False,
) -> None:
    """Bring the replicas of COLLECTION together now, as data nodes do by themselves; 1 unless all are equal then."""
    place = _place(folder, coordinators, (tls_ca, tls_cert, tls_key), router)
    _tell(place.check(collection, timeout, repair=True), json)


@dataclass(frozen=True)
class _Place:
    coordinators: list[str]
    tls: TlsFiles | None
    node_id: str

    def check(self, collection: str, timeout_s: float, *, repair: bool) -> list[ShardReport]:
        from omendb_common.wire.replica_check import check_replicas  # here: other commands need no network

        return check_replicas(
            self.coordinators, collection, timeout_s, repair=repair, tls=self.tls, node_id=self.node_id
        )


def _place(folder: Path | None, coordinators: str | None, files: tuple[str | None, ...], router: str) -> _Place:
    from omendb_common.security.tls import TlsFiles

    if (folder is None) == (coordinators is None):
        raise InvalidArgumentError("got none or both", field="--dir, --coordinators", bound="exactly one of them")
    if folder is not None:
        plan = Fleet.open(folder).plan
        first = plan.of("router")[0]
        tls = TlsFiles(**plan.tls_paths(first, folder)) if plan.tls else None
        return _Place([node.address("grpc") for node in plan.of("coordinator")], tls, first.name)
    given = [file for file in files if file]
    if given and len(given) < len(files):
        raise InvalidArgumentError("got some of the three", field="tls", bound="--tls-ca, --tls-cert and --tls-key")
    return _Place(str(coordinators).split(","), TlsFiles(*given) if given else None, router)


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
