"""The catalog of a database folder as the coordinators' port: one node, one shard and one replica per collection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from omendb_common.clock import Clock
from omendb_common.deadline import Deadline
from omendb_common.errors import AlreadyExistsError, DeadlineExceededError, InvalidArgumentError
from omendb_common.metadata import NewCollection, OriginLease
from omendb_common.ring import RING
from omendb_common.schema import check_collection_name
from omendb_common.topology import CollectionInfo, Member, ReplicaPlace, Shard, Topology
from omendb_engine.folder import Folder

NODE_ID = "local"
ORIGIN = 1
"""Origin of the server's stamps; the folder's own, as an embedded database makes them, is 0."""

_LEASE_MS = 600_000
_MS_SHIFT = 22
_EPOCH = 1

T = TypeVar("T")


class LocalMetadata:
    """``omendb_common.metadata.Metadata`` over an open folder. One event loop owns it; the folder works in threads.

    Changes are durable when they return, because the folder's catalog is. Nobody else changes it: the server holds
    the folder's writer lock.
    """

    def __init__(self, folder: Folder, clock: Clock, database_uuid: str) -> None:
        self._folder = folder
        self._clock = clock
        self._uuid = database_uuid
        self._changed: list[Callable[[Topology], None]] = []
        self._working: set[asyncio.Task[Any]] = set()
        self._order = asyncio.Lock()
        self._topology = self._read(1)

    # -- what there is

    @property
    def topology(self) -> Topology:
        """The catalog as it is."""
        return self._topology

    async def refresh(self, revision: int, deadline: Deadline) -> Topology:
        """The catalog after the changes that were begun: a replica goes before the map that it stood in."""
        if self._working:
            await asyncio.wait(self._working, timeout=deadline.left_s)
        return self._topology

    def on_change(self, callback: Callable[[Topology], None]) -> None:
        """Call ``callback`` with every newer topology."""
        self._changed.append(callback)

    def _read(self, revision: int) -> Topology:
        member = Member(NODE_ID, "datanode", "", self._uuid)
        infos = [self._info(name) for name in self._folder.names()]
        return Topology(self._uuid, revision, {info.name: info for info in infos}, {}, {NODE_ID: member})

    def _info(self, name: str) -> CollectionInfo:
        # Its epoch never changes, for its only replica never moves.
        shard = Shard(0, 0, RING, _EPOCH, (ReplicaPlace(NODE_ID),))
        return CollectionInfo(name, self._folder.replica(name).schema, (shard,), 1, 1, 1)

    # -- changes

    async def create_collection(self, new: NewCollection, deadline: Deadline) -> CollectionInfo:
        """Make a collection, with one shard and one replica."""
        check_collection_name(new.name)
        _check_single(
            shards=new.shards,
            replication=new.replication,
            write_quorum=new.write_quorum,
            read_quorum=new.read_quorum,
        )
        if new.partition_key is not None:
            raise InvalidArgumentError(
                "there is one shard to route to", field="partition_key", bound="none on a single-node server"
            )
        schema = self._folder.new_schema(replace(new.schema, uuid=""))
        await self._change(lambda: self._folder.create(new.name, schema), deadline)
        return self._topology.collection(new.name)

    async def drop_collection(self, name: str, deadline: Deadline) -> None:
        """Delete a collection."""
        self._topology.collection(name)
        await self._change(lambda: self._folder.drop(name), deadline)

    async def rename_collection(self, old: str, new: str, deadline: Deadline) -> None:
        """Give a collection another name."""
        self._topology.collection(old)
        check_collection_name(new)
        if new in self._topology.collections:
            raise AlreadyExistsError(f"collection {new!r} exists", field="new", bound="a new name")
        await self._change(lambda: self._folder.rename(old, new), deadline)

    async def alter_collection(
        self,
        name: str,
        deadline: Deadline,
        *,
        replication: int | None = None,
        write_quorum: int | None = None,
        read_quorum: int | None = None,
    ) -> CollectionInfo:
        """There is one replica, and there stays one."""
        info = self._topology.collection(name)
        _check_single(replication=replication, write_quorum=write_quorum, read_quorum=read_quorum)
        return info

    async def _change(self, change: Callable[[], T], deadline: Deadline) -> T:
        """Run a change to the end, whatever becomes of the caller, and publish what it left."""
        if deadline.passed:
            raise DeadlineExceededError("too late to begin", field="timeout", mend="allow more time", outcome="none")
        task = asyncio.get_running_loop().create_task(self._run(change))
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        done, _ = await asyncio.wait([task], timeout=deadline.left_s)
        if not done:
            raise DeadlineExceededError(
                "the catalog was not changed in time",
                field="timeout",
                mend="look whether it was changed since",
                outcome="unknown",
            )
        return await task

    async def _run(self, change: Callable[[], T]) -> T:
        async with self._order:
            try:
                return await asyncio.to_thread(change)
            finally:
                # After a failure too: a change whose outcome is unknown may have happened.
                topology = await asyncio.to_thread(self._read, self._topology.revision + 1)
                self._topology = topology
                for callback in self._changed:
                    callback(topology)

    async def set_alias(self, alias: str, collection: str | None, deadline: Deadline) -> None:
        """A folder keeps no aliases."""
        raise InvalidArgumentError("a single-node server keeps no aliases", field="alias", mend="use a cluster")

    async def drain(self, node_id: str, draining: bool, deadline: Deadline) -> Member:
        """The only node cannot leave."""
        raise InvalidArgumentError("a single-node server has one node", field="node_id", mend="stop the server")

    # -- the rest

    async def lease_origin(self, holder: str, stamp: int, deadline: Deadline) -> OriginLease:
        """The right to stamp, for the only router there is.

        Stamps need no bound on disk: those that matter are in the replicas, and a replica that is asked to apply a
        stamp at or below a stored one answers with the stored one.
        """
        return OriginLease(ORIGIN, stamp, stamp + (_LEASE_MS << _MS_SHIFT), (0, 0))

    async def status(self, deadline: Deadline) -> dict[str, Any]:
        """The folder and its collections."""
        return {
            "cluster_id": self._uuid,
            "kind": "server",
            "location": self._folder.path,
            "revision": self._topology.revision,
            "members": [{"node_id": NODE_ID, "role": "datanode", "state": "up", "address": ""}],
            "collections": [
                {"name": info.name, "uuid": info.schema.uuid, "shards": 1, "replication": 1}
                for info in self._topology.collections.values()
            ],
        }

    async def close(self) -> None:
        """Wait for the changes that were begun."""
        if self._working:
            await asyncio.wait(self._working)


def _check_single(**wanted: int | None) -> None:
    for field, value in wanted.items():
        if value not in (None, 1):
            raise InvalidArgumentError(
                f"got {value}", field=field, bound="1 on a single-node server", mend="use a cluster"
            )


__all__ = ["NODE_ID", "ORIGIN", "LocalMetadata"]
