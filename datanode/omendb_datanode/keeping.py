"""``omendb datanode kept``: what a stopped node keeps of a catalog that was lost, and its end.

After the catalog was restored from a copy a node keeps every replica that the copy does not name, for good: it may be
all that is left of a collection. Only here, by name, it goes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from omendb_common.disk import Disk, RealDisk
from omendb_common.errors import NotFoundError
from omendb_datanode.node_folder import discard, read_held, write_held
from omendb_engine.lock import WriterLock

COMMAND = "kept"


def discard_kept(disk: Disk, folder: str, names: Sequence[str]) -> None:
    """Remove replicas that are kept; NotFoundError, and nothing is removed, when one of them is not."""
    held = read_held(disk, folder)
    strange = sorted(set(names) - held.kept)
    if strange:
        raise NotFoundError(
            f"{strange[0]!r} is not kept", field="--discard", bound=", ".join(sorted(held.kept)) or "none"
        )
    # As everywhere: not named any more before its folder goes.
    write_held(disk, folder, held.acted(held.revision, remove=frozenset(names)))
    for name in names:
        discard(disk, folder, name)


def run(arguments: list[str]) -> None:
    """Print the names, or remove some."""
    parser = argparse.ArgumentParser(prog="omendb datanode kept", description="Replicas that no catalog names.")
    parser.add_argument("--dir", required=True, help="the folder of a node that does not run")
    parser.add_argument("--discard", nargs="+", default=[], metavar="NAME", help="remove these, for good")
    given = parser.parse_args(arguments)
    disk = RealDisk()
    lock = WriterLock(given.dir)
    try:
        discard_kept(disk, given.dir, given.discard)
        for name in sorted(read_held(disk, given.dir).kept):
            sys.stdout.write(f"{name}\n")
    finally:
        lock.release()


__all__ = ["COMMAND", "discard_kept", "run"]
