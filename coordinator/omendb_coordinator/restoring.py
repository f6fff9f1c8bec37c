"""``omendb coordinator restore``: the folder of a member of a new group, from a copy of a lost group's catalog.

It is run once for every member, with the same copy and, from the second on, with the name that the first was given.
The name, the copy and the members are the new group's identity: whoever was made from anything else is a stranger to
it, and so is whatever may be left of the lost group.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import uuid
from dataclasses import dataclass

from omendb_common.catalog_copy import CatalogCopy, read_copy
from omendb_common.clock import Clock, SystemClock
from omendb_common.disk import Disk, RealDisk
from omendb_common.errors import AlreadyExistsError, InvalidArgumentError
from omendb_coordinator.catalog import Catalog, state_of
from omendb_coordinator.consensus.identity import Identity
from omendb_coordinator.consensus.messages import Snapshot
from omendb_coordinator.consensus.storage import Storage
from omendb_coordinator.process import parse_peers
from omendb_coordinator.restored_changes import restore

COMMAND = "restore"
_TERM = 1


@dataclass(frozen=True, slots=True)
class Restored:
    """What was made: the name to give to the other members, and the first revision."""

    group: str
    revision: int
    collections: int


def group_name(clock: Clock, new_id: str) -> str:
    """A name for a new group; it holds the moment from which its revisions count."""
    return f"{clock.wall_ms()}-{new_id}"


def restore_member(
    disk: Disk, folder: str, copy: CatalogCopy, node_id: str, members: tuple[str, ...], group: str, birth: str
) -> Restored:
    """Make the folder of a member of a new group; crash-safe: it is a member's when everything else is there.

    Raises:
        AlreadyExistsError: something is in the folder.
        InvalidArgumentError: the name of the group is none, or the copy is of a later time.
    """
    moment, dash, _ = group.partition("-")
    if not moment.isdecimal() or not dash:
        raise InvalidArgumentError(f"got {group!r}", field="group", bound="what the first member's restore printed")
    if disk.exists(folder) and disk.listdir(folder):
        raise AlreadyExistsError(
            "is not empty", field=folder, mend="move what is left of the lost member away; it is not needed"
        )
    state = restore(state_of(copy.catalog), copy.taken_ms, int(moment))
    revision = state.topology.revision
    data = Catalog.of(state, revision).snapshot()
    snapshot = Snapshot.of(revision, _TERM, data)
    identity = f"omendb-restored:{group}:{snapshot.checksum}:{len(data)}:{','.join(members)}"
    cluster_id = str(uuid.uuid5(uuid.NAMESPACE_URL, identity))
    Storage.create(disk, folder, Identity(cluster_id, node_id, members, birth), snapshot)
    return Restored(group, revision, len(state.topology.collections))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="omendb coordinator restore", description="Make a member of a new group from a copy of a lost catalog."
    )
    parser.add_argument("file", help="what `omendb cluster backup-catalog` wrote")
    parser.add_argument("--dir", required=True, help="the new, empty folder of this member")
    parser.add_argument("--node-id", required=True, help="its name in the group")
    parser.add_argument("--peers", default="", help="all members, as they will be started; none: alone")
    parser.add_argument("--group", default="", help="for all but the first: what the first one's restore printed")
    return parser


def run(arguments: list[str]) -> None:
    """Do it, and print what was made."""
    given = _parser().parse_args(arguments)
    disk = RealDisk()
    members = tuple(sorted(parse_peers(given.peers))) or (given.node_id,)
    if given.node_id not in members:
        raise InvalidArgumentError(f"{given.node_id} is not one of {', '.join(members)}", field="node_id")
    copy = read_copy(disk, given.file)
    group = given.group or group_name(SystemClock(), uuid.uuid4().hex[:8])
    os.makedirs(given.dir, exist_ok=True)
    made = restore_member(disk, f"{given.dir}/raft", copy, given.node_id, members, group, str(uuid.uuid4()))
    told = {"node_id": given.node_id, "group": made.group, "revision": made.revision, "collections": made.collections}
    sys.stdout.write(f"restored {json.dumps(told)}\n")
    others = [name for name in members if name != given.node_id]
    if others and not given.group:
        sys.stdout.write(f"now {', '.join(others)}, from the same file, each with --group {made.group}\n")


__all__ = ["COMMAND", "Restored", "group_name", "restore_member", "run"]
