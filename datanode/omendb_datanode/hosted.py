"""Where the rules of a shard find the replica that a call is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from omendb_common.deadline import Deadline
from omendb_common.shard_calls import ShardRef
from omendb_engine.replica import Replica
from omendb_engine.stamped import StampedWrite


class Follower(Protocol):
    """What must have every write that a replica takes before it is acknowledged."""

    def follow(self, writes: Sequence[StampedWrite]) -> None:
        """Take writes that the replica was given just now; called in the thread that wrote them. May raise."""


@dataclass(slots=True)
class Hosted:
    """An open replica of a shard and the map it stands in.

    ``epoch``: the shard's newest epoch that is known here. ``fence``: calls under an older map are refused (P15); it
    is on stable storage before it counts. ``follower``: of a shard that splits or merges. ``partition_key``: of its
    collection; it says where on the ring a point lies.
    """

    replica: Replica
    epoch: int
    fence: int = 0
    follower: Follower | None = None
    partition_key: str | None = None


class Replicas(Protocol):
    """The replicas of one node."""

    @property
    def revision(self) -> int:
        """The revision of the topology that is in force here."""

    def find(self, shard: ShardRef) -> Hosted | None:
        """The replica of that collection and shard, None when it is not here; raises what keeps it from answering."""

    async def refresh(self, revision: int, deadline: Deadline) -> None:
        """Wait until a topology of at least ``revision`` is in force here; returns at the deadline at the latest."""


__all__ = ["Follower", "Hosted", "Replicas"]
