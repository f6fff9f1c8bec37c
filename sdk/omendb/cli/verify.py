"""``omendb check`` and ``omendb repair``: is every byte as it was written, and if not, what can be saved.

Both read whole folders below the API, so they use the engine's own tools for that.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Annotated

import typer

from omendb.cli.terminal import FAULT, AsJson, DatabasePath, err, escape, out, print_json, reported
from omendb_common.disk import RealDisk
from omendb_common.errors import NotFoundError
from omendb_engine.check import Finding, check_folder
from omendb_engine.repair import CollectionRepair, repair_folder


@reported
def check(path: DatabasePath, json: AsJson = False) -> None:
    """Read every file of the database and verify every checksum and invariant; ends with 1 if any is broken.

    Nobody can write to the database meanwhile; it is refused while somebody does.
    """
    folder = os.fspath(path)
    if not path.is_dir():
        raise NotFoundError("no database here", field=folder, bound="a database folder", mend="check the path")
    # Reads, not mappings: on a failing disk a mapping kills the process, a read raises.
    findings = check_folder(RealDisk(no_mmap=True), folder, lock=True)
    if json:
        print_json({"sound": not findings, "findings": [dataclasses.asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            out.print(escape(_line(finding)), soft_wrap=True)
        out.print("sound" if not findings else f"{len(findings)} faults; `omendb repair` saves what is left")
    if findings:
        raise typer.Exit(FAULT)


@reported
def repair(
    path: DatabasePath,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before changing the folder.")] = False,
    json: AsJson = False,
) -> None:
    """Rebuild damaged collections from what can be proven good, and say exactly what is lost; 1 if anything is.

    The damaged files move to the folder's ``quarantine``; sound collections are left alone.
    """
    if not yes:
        typer.confirm(f"Rebuild the damaged collections of {path}?", abort=True, err=True)
    report = repair_folder(os.fspath(path))
    losses = [loss for collection in report.repaired for loss in collection.losses]
    if json:
        print_json(dataclasses.asdict(report))
    else:
        for name in report.sound:
            out.print(f"{name}: sound")
        for collection in report.repaired:
            _show(collection)
    if losses:
        raise typer.Exit(FAULT)


def _show(collection: CollectionRepair) -> None:
    out.print(f"{collection.name}: rebuilt with {collection.points:,} points, damaged files in {collection.quarantine}")
    for finding in collection.findings:
        out.print(f"  damage  {escape(_line(finding))}", soft_wrap=True)
    for loss in collection.losses:
        out.print(f"  lost    {escape(f'{loss.path}: {loss.what}')}", soft_wrap=True)
    if not collection.losses:
        err.print("  nothing is lost")


def _line(finding: Finding) -> str:
    place = "" if finding.offset is None else f" at byte {finding.offset}"
    return f"{finding.path}{place}: {finding.problem}"


__all__ = ["check", "repair"]
