"""``omendb cluster backup-catalog``, ``accept-restored`` and ``finalize-upgrade``: care for the catalog itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omendb.cli.place import (
    ROUTER,
    Authority,
    Certificate,
    Coordinators,
    Folder,
    Key,
    Router,
    Timeout,
    place_of,
)
from omendb.cli.terminal import out, reported
from omendb_common.catalog_copy import write_copy
from omendb_common.disk import RealDisk

if TYPE_CHECKING:
    from omendb_common.deadline import Deadline
    from omendb_common.topology import CollectionInfo
    from omendb_common.wire.coordinator_client import CoordinatorClient

File = Annotated[Path, typer.Argument(help="A file that is not there yet.", show_default=False)]
Collection = Annotated[str, typer.Argument(help="The collection.", show_default=False)]


@reported
def backup_catalog(
    file: File,
    folder: Folder = None,
    coordinators: Coordinators = None,
    tls_ca: Authority = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    router: Router = ROUTER,
    timeout: Timeout = 60.0,
) -> None:
    """Keep a copy of the catalog in FILE: what a lost group of coordinators is made anew from.

    It holds collections, shard maps, members and leases, not data. `omendb coordinator restore` reads it.
    """
    from omendb_common.wire.with_coordinators import with_coordinators  # here: other commands need no network

    async def copy(client: CoordinatorClient, deadline: Deadline) -> bytes:
        return await client.copy_catalog(deadline)

    place = place_of(folder, coordinators, (tls_ca, tls_cert, tls_key), router)
    data = with_coordinators(place.coordinators, copy, timeout, tls=place.tls, name=place.node_id)
    kept = write_copy(RealDisk(), str(file.absolute()), data)
    told = f"{len(kept.catalog['collections'])} collections, {len(data):,} bytes"
    out.print(f"{file}: {told}", highlight=False, soft_wrap=True)


@reported
def accept_restored(
    collection: Collection,
    folder: Folder = None,
    coordinators: Coordinators = None,
    tls_ca: Authority = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    router: Router = ROUTER,
    timeout: Timeout = 30.0,
) -> None:
    """Serve COLLECTION from the members that a restored catalog names, although they had changed after its copy.

    Writes that were acknowledged since the change may be on other nodes only, and are then not found any more.
    """
    from omendb_common.wire.with_coordinators import with_coordinators  # here: other commands need no network

    async def accept(client: CoordinatorClient, deadline: Deadline) -> CollectionInfo:
        return await client.accept_restored(collection, deadline)

    place = place_of(folder, coordinators, (tls_ca, tls_cert, tls_key), router)
    info = with_coordinators(place.coordinators, accept, timeout, tls=place.tls, name=place.node_id)
    out.print(f"{info.name}: {len(info.shards)} shards are served by the members of the copy")


@reported
def finalize_upgrade(
    folder: Folder = None,
    coordinators: Coordinators = None,
    tls_ca: Authority = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    router: Router = ROUTER,
    timeout: Timeout = 30.0,
) -> None:
    """Let the cluster use what the newest release brings; after that no process of the older one can come back."""
    from omendb_common.wire.with_coordinators import with_coordinators  # here: other commands need no network

    async def finalize(client: CoordinatorClient, deadline: Deadline) -> int:
        return await client.finalize_upgrade(deadline)

    place = place_of(folder, coordinators, (tls_ca, tls_cert, tls_key), router)
    level = with_coordinators(place.coordinators, finalize, timeout, tls=place.tls, name=place.node_id)
    out.print(f"the cluster is at feature level {level}")


__all__ = ["accept_restored", "backup_catalog", "finalize_upgrade"]
