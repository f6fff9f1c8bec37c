"""What is asked of the coordinators about single shards: moves, splits, merges, and what data nodes say of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from omendb_common.deadline import Deadline
from omendb_common.topology import CollectionInfo, ReplicaPlace
from omendb_proto.v1 import coordinator_pb2 as pb


class ShardMapCalls(ABC):
    """The part of a client of the coordinators that changes the map of shards.

    Every change names the epoch of the shard that was looked at; it is refused when another change was quicker.
    """

    async def place_shard(
        self, uuid: str, shard_id: int, epoch: int, replicas: Sequence[ReplicaPlace], deadline: Deadline
    ) -> CollectionInfo:
        """Replace a shard's replicas; AlreadyExistsError when its epoch is not ``epoch`` any more."""
        request = pb.CatalogPlaceRequest(
            proposal=self._proposal(),
            collection_uuid=uuid,
            shard_id=shard_id,
            epoch=epoch,
            replicas=[pb.ShardReplica(node_id=r.node_id, state=r.state) for r in replicas],
        )
        return await self._collection(await self._call("admin.PlaceShard", request, deadline), deadline)

    async def begin_move(
        self, uuid: str, shard_id: int, epoch: int, source: str, target: str, deadline: Deadline
    ) -> CollectionInfo:
        """Move the replica on ``source`` to ``target``; AlreadyExistsError when the epoch is not ``epoch`` any more.

        Raises:
            InvalidArgumentError: one of the shard is on its way already, or the target has one or is not up.
        """
        request = pb.CatalogMoveRequest(
            proposal=self._proposal(),
            collection_uuid=uuid,
            shard_id=shard_id,
            epoch=epoch,
            source=source,
            target=target,
        )
        return await self._collection(await self._call("admin.BeginMove", request, deadline), deadline)

    async def cancel_move(self, uuid: str, shard_id: int, epoch: int, deadline: Deadline) -> CollectionInfo:
        """Give the move of a shard up; NotFoundError when nothing moves there."""
        request = pb.CatalogMoveRequest(proposal=self._proposal(), collection_uuid=uuid, shard_id=shard_id, epoch=epoch)
        return await self._collection(await self._call("admin.CancelMove", request, deadline), deadline)

    async def begin_split(
        self, uuid: str, shard_id: int, epoch: int, deadline: Deadline, *, at: int | None = None
    ) -> CollectionInfo:
        """Begin to cut a shard in two, ``at`` a place of the ring or in the middle.

        Raises:
            AlreadyExistsError: the shard's epoch is not ``epoch`` any more.
            InvalidArgumentError: something of the shard is on its way, or a replica is not active.
        """
        request = pb.CatalogSplitRequest(
            proposal=self._proposal(), collection_uuid=uuid, shard_id=shard_id, epoch=epoch, at=at
        )
        return await self._collection(await self._call("admin.BeginSplit", request, deadline), deadline)

    async def cancel_split(self, uuid: str, shard_id: int, epoch: int, deadline: Deadline) -> CollectionInfo:
        """Let a shard go on as one; NotFoundError when it does not split."""
        request = pb.CatalogSplitRequest(
            proposal=self._proposal(), collection_uuid=uuid, shard_id=shard_id, epoch=epoch
        )
        return await self._collection(await self._call("admin.CancelSplit", request, deadline), deadline)

    async def begin_merge(
        self, uuid: str, shard: tuple[int, int], other: tuple[int, int], deadline: Deadline
    ) -> CollectionInfo:
        """Begin to put two neighbouring shards together, each named by its number and its epoch.

        Raises:
            AlreadyExistsError: one of the epochs is not that any more.
            InvalidArgumentError: they are no neighbours, not on the same nodes, or something of them is on its way.
        """
        request = pb.CatalogMergeRequest(
            proposal=self._proposal(),
            collection_uuid=uuid,
            shard_id=shard[0],
            epoch=shard[1],
            other_id=other[0],
            other_epoch=other[1],
        )
        return await self._collection(await self._call("admin.BeginMerge", request, deadline), deadline)

    async def cancel_merge(self, uuid: str, shard_id: int, epoch: int, deadline: Deadline) -> CollectionInfo:
        """Let a shard and its neighbour go on as they are; NotFoundError when it does not merge."""
        request = pb.CatalogMergeRequest(
            proposal=self._proposal(), collection_uuid=uuid, shard_id=shard_id, epoch=epoch
        )
        return await self._collection(await self._call("admin.CancelMerge", request, deadline), deadline)

    async def pause_moves(self, paused: bool, deadline: Deadline) -> None:
        """Begin no moves and fill no replicas, or do again."""
        request = pb.CatalogPauseRequest(proposal=self._proposal(), paused=paused)
        await self._shown(await self._call("admin.PauseMoves", request, deadline), deadline)

    async def lose_replica(self, uuid: str, shard_id: int, epoch: int, node_id: str, deadline: Deadline) -> None:
        """Say as a data node that its replica of a shard is damaged, so that another one is made in its place.

        Raises:
            AlreadyExistsError: the shard's epoch is not ``epoch`` any more.
            InvalidArgumentError: so few others are whole that it might be the only one with some acknowledged write.
        """
        request = pb.MemberMoveRequest(
            proposal=self._proposal(), node_id=node_id, collection_uuid=uuid, shard_id=shard_id, epoch=epoch
        )
        await self._shown(await self._call("members.LoseReplica", request, deadline), deadline)

    async def advance_move(self, uuid: str, shard_id: int, epoch: int, node_id: str, deadline: Deadline) -> None:
        """Say as the target of a shard's move that the next stage may begin.

        Raises:
            AlreadyExistsError: the shard's epoch is not ``epoch`` any more.
            NotFoundError: nothing of that shard moves.
        """
        request = pb.MemberMoveRequest(
            proposal=self._proposal(), node_id=node_id, collection_uuid=uuid, shard_id=shard_id, epoch=epoch
        )
        await self._shown(await self._call("members.AdvanceMove", request, deadline), deadline)

    async def advance_split(self, uuid: str, shard_id: int, epoch: int, node_id: str, deadline: Deadline) -> None:
        """Say that a node's halves of a shard are whole.

        Raises:
            AlreadyExistsError: the shard's epoch is not ``epoch`` any more.
            NotFoundError: it does not split, or is no more.
        """
        request = pb.MemberMoveRequest(
            proposal=self._proposal(), node_id=node_id, collection_uuid=uuid, shard_id=shard_id, epoch=epoch
        )
        await self._shown(await self._call("members.AdvanceSplit", request, deadline), deadline)

    async def advance_merge(self, uuid: str, shard_id: int, epoch: int, node_id: str, deadline: Deadline) -> None:
        """Say that a node's joint replica of a shard and its neighbour is whole.

        Raises:
            AlreadyExistsError: the shard's epoch is not ``epoch`` any more.
            NotFoundError: it does not merge, or is no more.
        """
        request = pb.MemberMoveRequest(
            proposal=self._proposal(), node_id=node_id, collection_uuid=uuid, shard_id=shard_id, epoch=epoch
        )
        await self._shown(await self._call("members.AdvanceMerge", request, deadline), deadline)

    @abstractmethod
    def _proposal(self) -> pb.Proposal:
        """A request id of its own."""

    @abstractmethod
    async def _call(self, method: str, request: Any, deadline: Deadline) -> Any:
        """The leader's answer."""

    @abstractmethod
    async def _collection(self, reply: Any, deadline: Deadline) -> CollectionInfo:
        """The collection of an answer, once the change can be seen."""

    @abstractmethod
    async def _shown(self, reply: Any, deadline: Deadline) -> Any:
        """An answer, once the change can be seen."""


__all__ = ["ShardMapCalls"]
