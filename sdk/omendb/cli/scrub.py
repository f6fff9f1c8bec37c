"""``omendb scrub`` and ``omendb cluster scrub``: every byte that is stored is read again now, at a rate.

Unlike ``omendb check`` it reads beside the process that writes, and slowly; it looks at data that rests, not at logs.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omendb.cli.place import ROUTER, Authority, Certificate, Coordinators, Folder, Key, Router, Timeout, place_of
from omendb.cli.terminal import FAULT, AsJson, err, escape, out, print_json, reported, size
from omendb_common.config import EngineSettings
from omendb_common.errors import CorruptionError, InvalidArgumentError
from omendb_common.inputs import check_count
from omendb_engine.folder import Folder as Database
from omendb_engine.scrub import Scrub

if TYPE_CHECKING:
    from omendb_common.wire.replica_check import ReplicaRead

BYTES_PER_S = 128 << 20
"""As fast as a data node reads by itself (``repair.scrub_bytes_per_s``)."""
_FASTEST = 1 << 40
_TOLD_S = 1.0

Place = Annotated[str, typer.Argument(metavar="PATH", help="The database's folder.", show_default=False)]
Rate = Annotated[int, typer.Option("--bytes-per-s", help="Bytes read a second, at most.")]
NodeRate = Annotated[
    int | None, typer.Option("--bytes-per-s", help="Bytes that each node reads a second, at most; else its setting.")
]
Collection = Annotated[str | None, typer.Argument(help="The collection; all of them by default.", show_default=False)]


@reported
def scrub(path: Place, bytes_per_s: Rate = BYTES_PER_S, json: AsJson = False) -> None:
    """Read every byte of the stored points again, beside whoever writes; ends with 1 if any has changed.

    Writes nothing: what is damaged is named, and `omendb repair` saves what is left. Of a server, give the folder that
    it serves; of a cluster, use `omendb cluster scrub`.
    """
    rate = check_count(bytes_per_s, "--bytes-per-s", _FASTEST)
    if "://" in path:
        raise InvalidArgumentError(
            f"got {path!r}",
            field="PATH",
            bound="a folder",
            mend="name the folder served, or use `omendb cluster scrub`",
        )
    findings: list[dict[str, Any]] = []
    total = 0
    # Reads, not mappings: on a failing disk a mapping kills the process, a read raises.
    settings = EngineSettings()
    settings = dataclasses.replace(settings, storage=dataclasses.replace(settings.storage, no_mmap=True))
    with _telling(quiet=json) as tell, closing(Database.open(os.fspath(path), mode="r", settings=settings)) as database:
        for name in database.names():
            pace = _Pace(rate)
            try:
                reading = Scrub(database.replica(name))
                while (read := reading.step()) is not None:
                    total += read
                    tell(f"{name}: {size(total)} read")
                    pace.spend(read)
                problems = reading.found
            except CorruptionError as error:
                problems = [error]
            findings += [{"collection": name, **_finding(problem)} for problem in problems]
    _conclude({"sound": not findings, "bytes": total, "findings": findings}, _of_folder, json)


@reported
def cluster_scrub(
    collection: Collection = None,
    folder: Folder = None,
    coordinators: Coordinators = None,
    tls_ca: Authority = None,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    router: Router = ROUTER,
    timeout: Timeout = 86_400.0,
    bytes_per_s: NodeRate = None,
    json: AsJson = False,
) -> None:
    """Have every data node read its replicas again, of COLLECTION or of all; 1 unless all were read and are sound.

    A replica with a damaged file answers nothing more, and is made anew from the others.
    """
    rate = 0 if bytes_per_s is None else check_count(bytes_per_s, "--bytes-per-s", _FASTEST)
    place = place_of(folder, coordinators, (tls_ca, tls_cert, tls_key), router)
    from omendb_common.wire.replica_check import read_replicas  # here: other commands need no network

    done = 0

    def told(read: ReplicaRead, count: int) -> None:
        nonlocal done
        done += 1
        tell(f"{done} of {count} replicas: {read.collection}, shard {read.shard_id} on {read.node_id}")

    with _telling(quiet=json, every_s=0.0) as tell:
        reads = read_replicas(
            *(place.coordinators, collection, timeout),
            bytes_per_s=rate,
            told=told,
            tls=place.tls,
            node_id=place.node_id,
        )
    findings = [
        {"collection": r.collection, "shard": r.shard_id, "node": r.node_id, **found}
        for r in reads
        for found in r.damage
    ]
    unread = [
        {"collection": r.collection, "shard": r.shard_id, "node": r.node_id, "problem": r.unread}
        for r in reads
        if r.unread
    ]
    said = {
        "sound": all(r.sound for r in reads),
        "bytes": sum(r.bytes for r in reads),
        "replicas": len(reads),
        "findings": findings,
        "unread": unread,
    }
    _conclude(said, _of_cluster, json)


class _Pace:
    """So many bytes a second, from the first on."""

    def __init__(self, bytes_per_s: int) -> None:
        self._bytes_per_s = bytes_per_s
        self._began_s = time.perf_counter()
        self._spent = 0

    def spend(self, count: int) -> None:
        """Wait until so much may have been read."""
        self._spent += count
        time.sleep(max(0.0, self._began_s + self._spent / self._bytes_per_s - time.perf_counter()))


@contextmanager
def _telling(*, quiet: bool, every_s: float = _TOLD_S) -> Iterator[Callable[[str], None]]:
    """Says on standard error how far it is, every second at most; nothing in JSON, whose output is for programs."""
    said_s = time.perf_counter()

    def tell(line: str) -> None:
        nonlocal said_s
        now_s = time.perf_counter()
        if not quiet and now_s - said_s >= every_s:
            said_s = now_s
            err.print(escape(line), soft_wrap=True)

    yield tell


def _finding(problem: CorruptionError) -> dict[str, Any]:
    return {"path": problem.path, "offset": problem.offset, "problem": str(problem)}


def _conclude(said: dict[str, Any], line: Callable[[dict[str, Any]], str], json: bool) -> None:
    if json:
        print_json(said)
    else:
        for one in [*said["findings"], *said.get("unread", ())]:
            out.print(escape(line(one)), soft_wrap=True)
        found = f"{len(said['findings'])} faults, {len(said.get('unread', ()))} replicas not read"
        out.print(f"{size(said['bytes'])} read: {'sound' if said['sound'] else found}")
    if not said["sound"]:
        raise typer.Exit(FAULT)


def _of_folder(one: dict[str, Any]) -> str:
    return f"{one['collection']}: {one['problem']}"


def _of_cluster(one: dict[str, Any]) -> str:
    mended = "; it is made anew from the others" if "path" in one else " (not read)"
    return f"{one['collection']}, shard {one['shard']} on {one['node']}: {one['problem']}{mended}"


__all__ = ["BYTES_PER_S", "cluster_scrub", "scrub"]
