"""The coordinators as one object in memory: the catalog, always agreed on, and reachable or not."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from omendb_common.deadline import Deadline
from omendb_common.errors import AlreadyExistsError, NotFoundError, UnavailableError
from omendb_common.metadata import AUTO_ID_FIRST, AUTO_IDS_PER_LEASE, NewCollection, OriginLease
from omendb_common.quorum import majority
from omendb_common.ring import even_bounds
from omendb_common.schema import CollectionSchema
from omendb_common.topology import CollectionInfo, Member, ReplicaPlace, Shard, Topology

_MS_SHIFT = 22


class MemoryMetadata:
    """Implements :class:`omendb_common.metadata.Metadata`. While ``reachable`` is false every call fails."""

    def __init__(self, nodes: Sequence[str], *, lease_ms: int = 10_000) -> None:
        members = {n: Member(n, "datanode", f"{n}:8500", f"incarnation-{n}") for n in nodes}
        self._topology = Topology("memory", 1, {}, {}, members)
        self._watchers: list[Callable[[Topology], None]] = []
        self._lease_ms = lease_ms
        self._holders: dict[str, OriginLease] = {}
        self.reachable = True

    @property
    def topology(self) -> Topology:
        return self._topology

    async def refresh(self, revision: int, deadline: Deadline) -> Topology:
        self._check()
        return self._topology

    def on_change(self, callback: Callable[[Topology], None]) -> None:
        self._watchers.append(callback)

    def install(self, topology: Topology) -> None:
        """Make this the topology, as any change by the coordinators would."""
        self._topology = replace(topology, revision=self._topology.revision + 1)
        for watcher in self._watchers:
            watcher(self._topology)

    def put(self, info: CollectionInfo) -> None:
        """Add or replace a collection."""
        self.install(replace(self._topology, collections={**self._topology.collections, info.name: info}))

    async def create_collection(self, new: NewCollection, deadline: Deadline) -> CollectionInfo:
        self._check()
        if self._topology.find(new.name) is not None:
            raise AlreadyExistsError(f"a collection {new.name!r} exists", field="collection")
        nodes = list(self._topology.members)
        n = new.replication or min(3, len(nodes))
        epoch = self._topology.revision + 1
        shards = tuple(
            Shard(i, low, high, epoch, tuple(ReplicaPlace(nodes[(i + r) % len(nodes)]) for r in range(n)))
            for i, (low, high) in enumerate(even_bounds(new.shards or 1))
        )
        schema = CollectionSchema(str(uuid.uuid4()), new.schema.vectors, new.schema.options)
        info = CollectionInfo(
            new.name,
            schema,
            shards,
            n,
            new.write_quorum or majority(n),
            new.read_quorum or majority(n),
            new.partition_key,
            epoch,
        )
        self.put(info)
        return info

    async def drop_collection(self, name: str, deadline: Deadline) -> None:
        self._check()
        left = {n: c for n, c in self._topology.collections.items() if n != name}
        if len(left) == len(self._topology.collections):
            raise NotFoundError(f"no collection {name!r}", field="collection")
        self.install(replace(self._topology, collections=left))

    async def alter_collection(
        self,
        name: str,
        deadline: Deadline,
        *,
        replication: int | None = None,
        write_quorum: int | None = None,
        read_quorum: int | None = None,
    ) -> CollectionInfo:
        """See ``Metadata``: nobody here carries replicas about."""
        raise UnavailableError("no replicas are made here", field="replication")

    async def rename_collection(self, old: str, new: str, deadline: Deadline) -> None:
        self._check()
        info = self._topology.collection(old)
        left = {n: c for n, c in self._topology.collections.items() if n != old}
        self.install(replace(self._topology, collections={**left, new: replace(info, name=new)}))

    async def set_alias(self, alias: str, collection: str | None, deadline: Deadline) -> None:
        self._check()
        aliases = {a: c for a, c in self._topology.aliases.items() if a != alias}
        self.install(replace(self._topology, aliases=aliases if collection is None else {**aliases, alias: collection}))

    async def drain(self, node_id: str, draining: bool, deadline: Deadline) -> Member:
        self._check()
        member = replace(self._topology.members[node_id], state="draining" if draining else "up")
        self.install(replace(self._topology, members={**self._topology.members, node_id: member}))
        return member

    async def lease_origin(self, holder: str, stamp: int, deadline: Deadline) -> OriginLease:
        self._check()
        number = len(self._holders)
        first = AUTO_ID_FIRST + number * AUTO_IDS_PER_LEASE
        held = self._holders.get(holder)
        origin, ids = (held.origin, held.auto_ids) if held else (number + 1, (first, first + AUTO_IDS_PER_LEASE))
        bound = stamp + (self._lease_ms << _MS_SHIFT)
        lease = OriginLease(origin, stamp, max(bound, held.stamp_bound if held else 0), ids)
        self._holders[holder] = lease
        return lease

    async def status(self, deadline: Deadline) -> dict[str, Any]:
        self._check()
        return {"collections": sorted(self._topology.collections), "members": sorted(self._topology.members)}

    def _check(self) -> None:
        if not self.reachable:
            raise UnavailableError("the coordinators do not answer", field="coordinators")


__all__ = ["MemoryMetadata"]
