"""The collections of one database folder as the replicas of a node: what a server without a cluster has."""

from __future__ import annotations

from omendb_common.deadline import Deadline
from omendb_common.shard_calls import ShardRef
from omendb_datanode.hosted import Hosted
from omendb_engine.folder import Folder

_NEVER_OLD = 1 << 63


class FolderReplicas:
    """Every collection is one shard, number 0, of one replica. There is no other map than the folder's catalog."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    @property
    def revision(self) -> int:
        """No map is newer than the catalog."""
        return _NEVER_OLD

    def find(self, shard: ShardRef) -> Hosted | None:
        """The replica of the collection with that uuid."""
        replica = self._folder.by_uuid(shard.collection_uuid) if shard.shard_id == 0 else None
        return None if replica is None else Hosted(replica, _NEVER_OLD)

    async def refresh(self, revision: int, deadline: Deadline) -> None:
        """Nothing to wait for."""


__all__ = ["FolderReplicas"]
