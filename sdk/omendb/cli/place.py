"""Which cluster a command of an operator is for: a local fleet by its folder, any other by its coordinators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omendb.fleet.fleet import Fleet
from omendb_common.errors import InvalidArgumentError

if TYPE_CHECKING:
    from omendb_common.security.tls import TlsFiles

Folder = Annotated[Path | None, typer.Option("--dir", help="The folder of a local fleet.")]
Coordinators = Annotated[
    str | None, typer.Option("--coordinators", help="host:port of the coordinators, with commas, instead of --dir.")
]
Authority = Annotated[str | None, typer.Option("--tls-ca", help="PEM file of the cluster's authority.")]
Certificate = Annotated[str | None, typer.Option("--tls-cert", help="PEM file of a router's certificate.")]
Key = Annotated[str | None, typer.Option("--tls-key", help="PEM file of its key.")]
Router = Annotated[str, typer.Option("--as", help="The router whom the certificate names.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds until an answer must be there.")]
ROUTER = "omendb-cli"


@dataclass(frozen=True)
class Place:
    """A cluster's coordinators, and as which router they are asked."""

    coordinators: list[str]
    tls: TlsFiles | None
    node_id: str


def place_of(folder: Path | None, coordinators: str | None, files: tuple[str | None, ...], router: str) -> Place:
    """The place that the options name; InvalidArgumentError when they name none, or two."""
    from omendb_common.security.tls import TlsFiles  # here: other commands need no network

    if (folder is None) == (coordinators is None):
        raise InvalidArgumentError("got none or both", field="--dir, --coordinators", bound="exactly one of them")
    if folder is not None:
        plan = Fleet.open(folder).plan
        first = plan.of("router")[0]
        tls = TlsFiles(**plan.tls_paths(first, folder)) if plan.tls else None
        return Place([node.address("grpc") for node in plan.of("coordinator")], tls, first.name)
    given = [file for file in files if file]
    if given and len(given) < len(files):
        raise InvalidArgumentError("got some of the three", field="tls", bound="--tls-ca, --tls-cert and --tls-key")
    return Place(str(coordinators).split(","), TlsFiles(*given) if given else None, router)


__all__ = [
    "ROUTER",
    "Authority",
    "Certificate",
    "Coordinators",
    "Folder",
    "Key",
    "Place",
    "Router",
    "Timeout",
    "place_of",
]
