"""The port to the coordinators: how routers and data nodes learn the topology, and how anybody changes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from omendb_common.deadline import Deadline
from omendb_common.schema import CollectionSchema
from omendb_common.topology import CollectionInfo, Member, Topology

AUTO_ID_FIRST = 1 << 40
"""Automatic ids of a cluster start here and stay below 2**53, which JSON numbers hold exactly."""
AUTO_ID_STOP = 1 << 53
AUTO_IDS_PER_LEASE = 1 << 26


@dataclass(frozen=True, slots=True)
class OriginLease:
    """The right to make stamps of ``origin`` above ``stamp_above`` and at most ``stamp_bound`` (P1).

    ``auto_ids``: ``[first, stop)``, the automatic ids that this lease may give out.
    """

    origin: int
    stamp_above: int
    stamp_bound: int
    auto_ids: tuple[int, int]


class RepairedShard(NamedTuple):
    """All replicas of a shard were found equal up to stamp ``through``, under its map of ``epoch`` (P12)."""

    collection_uuid: str
    shard_id: int
    epoch: int
    through: int


@dataclass(frozen=True, slots=True)
class NewCollection:
    """A collection to be made. None leaves the choice to the cluster's settings.

    ``schema.uuid`` is ignored: the coordinators draw one.
    """

    name: str
    schema: CollectionSchema
    shards: int | None = None
    replication: int | None = None
    write_quorum: int | None = None
    read_quorum: int | None = None
    partition_key: str | None = None


class TopologySource(Protocol):
    """The newest topology this process has seen, kept up to date behind the caller's back."""

    @property
    def topology(self) -> Topology:
        """The newest seen; never goes back."""

    async def refresh(self, revision: int, deadline: Deadline) -> Topology:
        """Wait for a topology of at least ``revision`` (0: ask the coordinators for the newest)."""

    def on_change(self, callback: Callable[[Topology], None]) -> None:
        """Call ``callback`` on the event loop with every newer topology."""


class Metadata(TopologySource, Protocol):
    """Changes to the catalog. Each is durable on a quorum of coordinators when it returns, exactly once.

    Raises, beside what each says: UnavailableError (``outcome`` "unknown" when it may yet happen).
    """

    async def create_collection(self, new: NewCollection, deadline: Deadline) -> CollectionInfo:
        """Make a collection and place its shards; AlreadyExistsError when the name is taken."""

    async def drop_collection(self, name: str, deadline: Deadline) -> None:
        """Delete a collection; NotFoundError when there is none."""

    async def rename_collection(self, old: str, new: str, deadline: Deadline) -> None:
        """Give a collection another name."""

    async def alter_collection(
        self,
        name: str,
        deadline: Deadline,
        *,
        replication: int | None = None,
        write_quorum: int | None = None,
        read_quorum: int | None = None,
    ) -> CollectionInfo:
        """Ask for another replication and other quorums; None leaves one as it is. Shards get there serving."""

    async def set_alias(self, alias: str, collection: str | None, deadline: Deadline) -> None:
        """Let ``alias`` name a collection; None removes it."""

    async def drain(self, node_id: str, draining: bool, deadline: Deadline) -> Member:
        """Mark a data node as leaving (no new shards are placed there), or take it back."""

    async def lease_origin(self, holder: str, stamp: int, deadline: Deadline) -> OriginLease:
        """Lease, or renew under the same ``holder``, the right to stamp from ``stamp`` on."""

    async def status(self, deadline: Deadline) -> dict[str, Any]:
        """Leader, term, members with their states, collections with their shards: for people."""


__all__ = [
    "AUTO_IDS_PER_LEASE",
    "AUTO_ID_FIRST",
    "AUTO_ID_STOP",
    "Metadata",
    "NewCollection",
    "OriginLease",
    "RepairedShard",
    "TopologySource",
]
