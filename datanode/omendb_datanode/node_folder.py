"""The data folder of a node: who it belongs to, and which replicas it holds.

::

    DIR/
      IDENTITY                          cluster, node and incarnation; made with the folder, never changed
      REPLICAS                          the replicas that this folder holds, and the map that was last acted on
      LOCK WRITER                       one process at a time
      replicas/<collection>.<shard>/    one engine replica each; .<session> behind it when a move made it
      trash/                            replicas on their way out

A replica is named in REPLICAS once its folder is complete, and no more before its folder goes: what is named and not
there was lost, and must never be made anew and empty (P16).
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from omendb_common.disk import Disk, make_folder, replace_file
from omendb_common.errors import CorruptionError, InvalidArgumentError
from omendb_engine.segment.layout import read_document, remove_path, seal

IDENTITY = "IDENTITY"
REPLICAS = "REPLICAS"
REPLICA_FOLDERS = "replicas"
TRASH = "trash"
FORMAT = 1
HELD_FORMAT = 2
"""Of REPLICAS: 1 as long as the coordinators were never restored from a copy, 2 with what is kept since."""


class ReplicaKey(NamedTuple):
    """Which replica of this node: of which collection and shard, and of which session.

    A replica that a move made is another one than that which stood in its place before, down to its folder (P14).
    """

    collection_uuid: str
    shard_id: int
    session: int = 0

    @property
    def name(self) -> str:
        """The name of its folder."""
        session = f".{self.session}" if self.session else ""
        return f"{self.collection_uuid}.{self.shard_id}{session}"

    @property
    def shard(self) -> tuple[str, int]:
        """Collection and shard."""
        return self.collection_uuid, self.shard_id


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose folder it is. ``incarnation``: drawn when it was made; another folder is another node (P16)."""

    cluster_id: str
    node_id: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Held:
    """Names of the replicas in the folder, and the revision of the newest map that was acted on.

    ``restored``: the newest revision at which the catalog was restored from a copy, as far as was acted on. ``kept``:
    of the names, those that the copy did not know: nobody asks for them, and only people may remove them.
    """

    names: frozenset[str] = frozenset()
    revision: int = 0
    restored: int = 0
    kept: frozenset[str] = frozenset()

    def acted(self, revision: int, add: Set[str] = frozenset(), remove: Set[str] = frozenset()) -> Held:
        """After replicas were added and removed under a map of ``revision``."""
        return replace(
            self,
            names=(self.names | add) - remove,
            revision=max(self.revision, revision),
            kept=self.kept - remove,
        )


def open_identity(disk: Disk, folder: str, cluster_id: str, node_id: str, incarnation: str) -> Identity:
    """The identity of a folder, made with ``incarnation`` when the folder is new.

    Raises:
        InvalidArgumentError: it is the folder of another node, or of another cluster.
        CorruptionError: the identity is damaged, or missing beside replicas.
    """
    path = f"{folder}/{IDENTITY}"
    if not disk.exists(path):
        if disk.exists(f"{folder}/{REPLICAS}") or _names(disk, f"{folder}/{REPLICA_FOLDERS}"):
            raise CorruptionError(
                "the identity is missing, and there are replicas",
                path=path,
                mend="restore it, or start on a new folder",
            )
        identity = Identity(cluster_id, node_id, incarnation)
        _write(disk, path, "identity", {name: getattr(identity, name) for name in Identity.__dataclass_fields__})
        return identity
    body = read_document(disk, path, kind="identity", format_max=FORMAT)
    identity = Identity(str(body["cluster_id"]), str(body["node_id"]), str(body["incarnation"]))
    for name, given in (("cluster_id", cluster_id), ("node_id", node_id)):
        if getattr(identity, name) != given:
            raise InvalidArgumentError(
                f"the folder is that of {getattr(identity, name)!r}",
                field=name,
                bound=repr(given),
                mend="start it with its own folder",
            )
    return identity


def read_held(disk: Disk, folder: str, format_max: int = HELD_FORMAT) -> Held:
    """What the folder holds.

    Raises:
        CorruptionError: that cannot be read.
        FormatVersionError: it was written in a format above ``format_max``.
    """
    path = f"{folder}/{REPLICAS}"
    if not disk.exists(path):
        return Held()
    body = read_document(disk, path, kind="replicas", format_max=format_max)
    return Held(
        frozenset(map(str, body["names"])),
        int(body["revision"]),
        int(body.get("restored", 0)),
        frozenset(map(str, body.get("kept", ()))),
    )


def write_held(disk: Disk, folder: str, held: Held) -> None:
    """Replace what the folder holds, durably."""
    body: dict[str, Any] = {"names": sorted(held.names), "revision": held.revision}
    if held.restored:
        # An older release would remove what it does not know to be kept.
        body |= {"format": HELD_FORMAT, "restored": held.restored, "kept": sorted(held.kept)}
    _write(disk, f"{folder}/{REPLICAS}", "replicas", body)


def clear_leftovers(disk: Disk, folder: str, held: Held) -> None:
    """Remove the trash, and folders that are not held: of replicas whose making or removal a crash cut short."""
    remove_path(disk, f"{folder}/{TRASH}")
    make_folder(disk, f"{folder}/{REPLICA_FOLDERS}")
    for name in _names(disk, f"{folder}/{REPLICA_FOLDERS}"):
        if name not in held.names:
            remove_path(disk, f"{folder}/{REPLICA_FOLDERS}/{name}")


def discard(disk: Disk, folder: str, name: str) -> None:
    """Remove a replica's folder, of which the name is gone from REPLICAS; all at once for whoever looks."""
    source, target = f"{folder}/{REPLICA_FOLDERS}/{name}", f"{folder}/{TRASH}/{name}"
    if not disk.exists(source):
        return
    make_folder(disk, f"{folder}/{TRASH}")
    remove_path(disk, target)
    disk.rename(source, target)
    disk.sync_dir(f"{folder}/{REPLICA_FOLDERS}")
    remove_path(disk, target)


def replica_path(folder: str, name: str) -> str:
    """Where a replica lies."""
    return f"{folder}/{REPLICA_FOLDERS}/{name}"


def _names(disk: Disk, path: str) -> list[str]:
    return disk.listdir(path) if disk.exists(path) else []


def _write(disk: Disk, path: str, kind: str, body: Mapping[str, Any]) -> None:
    data, _ = seal({"kind": kind, "format": FORMAT, **body})
    replace_file(disk, path, [data])


__all__ = [
    "IDENTITY",
    "REPLICAS",
    "REPLICA_FOLDERS",
    "TRASH",
    "Held",
    "Identity",
    "ReplicaKey",
    "clear_leftovers",
    "discard",
    "open_identity",
    "read_held",
    "replica_path",
    "write_held",
]
